/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/library.h"

#define LOOP_FDS 4 /* that a loop opens */

const char *vse_version(void)
{
	return VSE_VERSION;
}

void vse_free(void *p)
{
	free(p);
}

static void on_cancel(void *arg, int events _unused_)
{
	struct vse_session *s = arg;
	uint64_t n;
	if (read(s->cancel_fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
		s->cancelled = true;
}

static void on_tick(void *arg _unused_)
{
}

/* A loop without descriptors aborts: then it is not made. */
static int enough_descriptors(struct err *err)
{
	int fd[LOOP_FDS], n = 0, code = 0;
	while (n < LOOP_FDS && (fd[n] = epoll_create1(EPOLL_CLOEXEC)) >= 0)
		n++;
	if (n < LOOP_FDS)
		code = errno;
	while (n)
		close(fd[--n]);
	return code ? err_errno(err, code, "event loop") : 0;
}

int vse_open(struct vse_session **ret, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0) {
		err_errno(&err->err, errno, "eventfd");
		return error_code(err);
	}
	if (enough_descriptors(&err->err) < 0) {
		close(fd);
		return error_code(err);
	}
	struct vse_session *s = xcalloc(1, sizeof(*s));
	s->loop = loop_create();
	s->cancel_fd = fd;
	s->cancel_watch = watch_create(s->loop, fd, on_cancel, s, &err->err);
	s->tick = evtimer_create(s->loop, on_tick, s);
	if (s->cancel_watch)
		watch_set(s->cancel_watch, WATCH_READ);
	if (!s->cancel_watch) {
		vse_close(s);
		return error_code(err);
	}
	*ret = s;
	return 0;
}

int vse_close(struct vse_session *s)
{
	if (!s)
		return 0;
	if (s->busy)
		return -EDEADLK;
	while (s->clusters)
		vse_release(s->clusters);
	watch_destroy(s->cancel_watch);
	evtimer_destroy(s->tick);
	loop_destroy(s->loop);
	close(s->cancel_fd);
	free(s->base);
	free(s->agent);
	free(s->guest);
	free(s);
	return 0;
}

int vse_set(struct vse_session *s, const char *key, const char *value, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	char **at = strcmp(key, "agent") == 0    ? &s->agent
		    : strcmp(key, "guest") == 0  ? &s->guest
		    : strcmp(key, "rundir") == 0 ? &s->base
						 : NULL;
	if (!at)
		return error_set(err, EINVAL, "setting '%s': there is none of that name", key);
	if (value && value[0] != '/')
		return error_set(err, EINVAL, "%s '%s': not an absolute path", key, value);
	free(*at);
	*at = value ? xstrdup(value) : NULL;
	return 0;
}

/* ---- the loop ---- */

int session_enter(struct vse_session *s, struct vse_error *e)
{
	if (s->busy)
		return error_set(e, EDEADLK, "within a callback: it would wait for itself");
	s->busy++;
	return 0;
}

void session_leave(struct vse_session *s)
{
	s->busy--;
}

int vse_fd(const struct vse_session *s)
{
	return loop_fd(s->loop);
}

int vse_timeout(const struct vse_session *s)
{
	return loop_timeout(s->loop);
}

int vse_dispatch(struct vse_session *s, int timeout_ms, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	int rc = session_enter(s, err);
	if (rc)
		return rc;
	if (timeout_ms >= 0)
		evtimer_start(s->tick, (uint64_t)timeout_ms, 0);
	loop_run_once(s->loop);
	evtimer_stop(s->tick);
	session_leave(s);
	return 0;
}

void vse_cancel(struct vse_session *s)
{
	int saved = errno; /* a signal handler leaves it as it was */
	const uint64_t one = 1;
	(void)!write(s->cancel_fd, &one, sizeof(one));
	errno = saved;
}

/* ---- clusters ---- */

const char *session_base(struct vse_session *s, struct vse_error *e)
{
	if (!s->base)
		rundir_base(&s->base, &e->err);
	return s->base;
}

int vse_list(struct vse_session *s, char **ret_names, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *base = session_base(s, err);
	if (!base || rundir_list(base, &names, &err->err) < 0)
		return error_code(err);
	for (size_t i = 0; i < names.n; i++)
		buf_addf(&b, "%s\n", names.v[i]);
	*ret_names = xstrdup(buf_cstr(&b));
	return 0;
}
