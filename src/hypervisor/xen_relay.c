/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "hypervisor/xen.h"

#define PIECE (256u << 10)

struct xen_relay {
	int in, out;
	struct watch *in_watch, *out_watch;
	char *data;
	size_t start, end;
	uint64_t bytes, dropped;
	bool eof, broken;
	void (*done)(void *arg, uint64_t bytes, bool broken);
	void *arg;
};

static void close_out(struct xen_relay *r)
{
	watch_destroy(TAKE_PTR(r->out_watch));
	if (r->out >= 0)
		close(TAKE_FD(r->out));
}

static void stop(struct xen_relay *r)
{
	watch_destroy(TAKE_PTR(r->in_watch));
	close_out(r); /* the end, for who reads */
	r->done(r->arg, r->bytes, r->broken);
}

static void step_in(struct xen_relay *r)
{
	if (r->end > r->start && !r->broken)
		return;
	ssize_t n = read(r->in, r->data, PIECE);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	r->start = 0;
	r->end = n > 0 ? (size_t)n : 0;
	r->eof = n <= 0;
}

/* A pipe whose reader is gone is an error here, not a signal. */
static ssize_t put(int fd, const void *p, size_t n)
{
	sigset_t pipe, old, pending;
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	sigprocmask(SIG_BLOCK, &pipe, &old);
	ssize_t rc = write(fd, p, n);
	int code = errno;
	if (rc < 0 && code == EPIPE && !sigismember(&pending, SIGPIPE))
		sigtimedwait(&pipe, NULL, &(struct timespec){0});
	sigprocmask(SIG_SETMASK, &old, NULL);
	errno = code;
	return rc;
}

static void step_out(struct xen_relay *r)
{
	while (r->end > r->start && !r->broken) {
		ssize_t n = put(r->out, r->data + r->start, r->end - r->start);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			r->broken = true;
			close_out(r);
			break;
		}
		r->start += (size_t)n;
		r->bytes += (uint64_t)n;
	}
	r->dropped += r->end - r->start;
	r->start = r->end = 0;
}

static void turn(struct xen_relay *r, bool readable)
{
	if (readable)
		step_in(r);
	step_out(r);
	bool full = r->end > r->start;
	if (r->eof && !full) {
		stop(r);
		return;
	}
	watch_set(r->in_watch, full ? 0 : WATCH_READ);
	if (r->out_watch)
		watch_set(r->out_watch, full ? WATCH_WRITE : 0);
}

static void on_in(void *arg, int events _unused_)
{
	turn(arg, true);
}

static void on_out(void *arg, int events _unused_)
{
	turn(arg, false);
}

struct xen_relay *xen_relay_create(struct loop *l, int in, int out,
				   void (*done)(void *arg, uint64_t bytes, bool broken), void *arg,
				   struct err *err)
{
	struct xen_relay *r = xcalloc(1, sizeof(*r));
	*r = (struct xen_relay){.in = in, .out = out, .done = done, .arg = arg};
	r->data = xmalloc(PIECE);
	fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK);
	fcntl(out, F_SETFL, fcntl(out, F_GETFL) | O_NONBLOCK);
	r->in_watch = watch_create(l, in, on_in, r, err);
	r->out_watch = r->in_watch ? watch_create(l, out, on_out, r, err) : NULL;
	if (!r->out_watch) {
		xen_relay_destroy(r);
		return NULL;
	}
	watch_set(r->in_watch, WATCH_READ);
	return r;
}

void xen_relay_drop(struct xen_relay *r)
{
	r->broken = true;
	close_out(r);
	r->start = r->end = 0;
	if (r->in_watch)
		watch_set(r->in_watch, WATCH_READ);
}

uint64_t xen_relay_bytes(const struct xen_relay *r)
{
	return r->bytes + r->dropped;
}

bool xen_relay_full(const struct xen_relay *r)
{
	return r->end > r->start;
}

void xen_relay_destroy(struct xen_relay *r)
{
	if (!r)
		return;
	watch_destroy(r->in_watch);
	close_out(r);
	if (r->in >= 0)
		close(r->in);
	free(r->data);
	free(r);
}
