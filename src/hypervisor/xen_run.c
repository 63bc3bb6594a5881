/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/xen.h"
#include "io/child.h"
#include "io/stream.h"

#define OUT_MAX (1u << 20)
#define DRAIN_MS                                                                                   \
	300 /* for output, once the program has ended: a daemon that it left may hold it open */

struct xen_run {
	struct child *child;
	struct stream *streams[2]; /* of stdout and stderr */
	struct buf text[2];
	struct evtimer *timer; /* until its exit its bound, then DRAIN_MS */
	unsigned bound_ms;
	bool exited;
	int status;
	xen_run_fn *done;
	bool (*goes_on)(void *arg);
	void *arg;
};

char *xen_program(const char *name)
{
	const char *own = strcmp(name, "xl") == 0 ? getenv("VSE_XL") : NULL;
	char *path = path_find_program(own && *own ? own : name);
	if (path || (own && *own))
		return path;
	/* An ordinary user's PATH lacks it, and so may an agent's. */
	_cleanup_free_ char *sbin = path_join("/usr/sbin", name);
	return path_find_program(sbin);
}

static void finish(struct xen_run *r)
{
	child_destroy(r->child);
	evtimer_destroy(r->timer);
	for (int i = 0; i < 2; i++) {
		stream_destroy(r->streams[i]);
		buf_finish(&r->text[i]);
	}
	free(r);
}

static void answer(struct xen_run *r)
{
	char *out = xstrdup(buf_cstr(&r->text[0])), *errors = xstrdup(buf_cstr(&r->text[1]));
	xen_run_fn *done = r->done;
	void *arg = r->arg;
	int status = r->status;
	finish(r);
	done(arg, status, out, strlen(out), errors);
	free(out);
	free(errors);
}

static void maybe_answer(struct xen_run *r)
{
	if (!r->exited)
		return;
	if (!r->streams[0] && !r->streams[1])
		answer(r);
	else
		evtimer_start(r->timer, DRAIN_MS, 0);
}

/* It may be one that no signal ends: it is not waited for. */
static void on_timer(void *arg)
{
	struct xen_run *r = arg;
	if (!r->exited) {
		if (r->goes_on && r->goes_on(r->arg)) {
			evtimer_start(r->timer, r->bound_ms, 0);
			return;
		}
		child_kill(r->child, SIGKILL);
		r->status = SIGKILL;
		buf_clear(&r->text[1]);
		buf_addf(&r->text[1], "no answer within %u s", r->bound_ms / 1000);
	}
	answer(r);
}

static void on_exit_status(void *arg, int status)
{
	struct xen_run *r = arg;
	r->exited = true;
	r->status = status;
	evtimer_stop(r->timer);
	maybe_answer(r);
}

static void keep(struct buf *text, struct buf *in)
{
	size_t room = OUT_MAX - buf_len(text), n = MIN(buf_len(in), room);
	buf_add(text, buf_head(in), n);
	buf_consume(in, buf_len(in));
}

static void on_out(void *arg, struct buf *in)
{
	struct xen_run *r = arg;
	keep(&r->text[0], in);
}

static void on_errors(void *arg, struct buf *in)
{
	struct xen_run *r = arg;
	keep(&r->text[1], in);
}

static void on_out_end(void *arg, const struct err *err _unused_)
{
	struct xen_run *r = arg;
	stream_destroy(TAKE_PTR(r->streams[0]));
	maybe_answer(r);
}

static void on_errors_end(void *arg, const struct err *err _unused_)
{
	struct xen_run *r = arg;
	stream_destroy(TAKE_PTR(r->streams[1]));
	maybe_answer(r);
}

static const struct stream_ops ops[2] = {
	{.on_data = on_out, .on_close = on_out_end},
	{.on_data = on_errors, .on_close = on_errors_end},
};

static int open_output(struct xen_run *r, struct loop *l, int i, int *ret_theirs, struct err *err)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	*ret_theirs = p[1];
	r->streams[i] = stream_create(l, p[0], &ops[i], r, err);
	return r->streams[i] ? 0 : -1;
}

int xen_run(struct loop *l, struct strvec *argv, int fd3, unsigned bound_ms, xen_run_fn *done,
	    void *arg, struct xen_run **ret, struct err *err)
{
	/* Its hotplug scripts need the system's programs, and its messages are looked through. */
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		    lang[] = "LC_ALL=C", *env[] = {path, lang, NULL};
	_cleanup_free_ char *program = xen_program(argv->v[0]);
	if (!program)
		return err_set(err, ENOENT, "%s: no such program", argv->v[0]);
	struct xen_run *r = xcalloc(1, sizeof(*r));
	*r = (struct xen_run){.done = done, .arg = arg, .bound_ms = bound_ms};
	r->timer = evtimer_create(l, on_timer, r);
	struct child_spec cs = {.argv = strvec_argv(argv),
				.env = env,
				.cwd = "/",
				.fds = {-1, -1, -1, fd3},
				.n_fds = fd3 >= 0 ? 4 : 3};
	free(argv->v[0]);
	argv->v[0] = TAKE_PTR(program);
	int rc = open_output(r, l, 0, &cs.fds[1], err);
	if (rc == 0)
		rc = open_output(r, l, 1, &cs.fds[2], err);
	if (rc == 0) {
		r->child = child_start(l, &cs, on_exit_status, r, err);
		rc = r->child ? 0 : -1;
	}
	for (int i = 1; i < 3; i++)
		if (cs.fds[i] >= 0)
			close(cs.fds[i]);
	if (rc < 0) {
		finish(r);
		return -1;
	}
	evtimer_start(r->timer, bound_ms, 0);
	*ret = r;
	return 0;
}

pid_t xen_run_pid(const struct xen_run *r)
{
	return child_pid(r->child);
}

void xen_run_forget(struct xen_run *r)
{
	if (r)
		finish(r);
}

void xen_run_ask(struct xen_run *r, bool (*goes_on)(void *arg))
{
	r->goes_on = goes_on;
}
