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
	struct loop *loop;
	int in, out;
	struct watch *in_watch, *out_watch;
	char *data;
	size_t start, end;
	uint64_t bytes, dropped;
	bool eof, broken;
	bool live; /* what comes is looked at */
	struct xen_stream state;
	void (*done)(void *arg, uint64_t bytes, bool broken);
	void *arg;
};

static void close_out(struct xen_relay *r)
{
	watch_destroy(TAKE_PTR(r->out_watch));
	if (r->out >= 0)
		close(TAKE_FD(r->out));
}

bool xen_relay_fresh(const struct xen_relay *r)
{
	return r->live && !r->bytes && !r->dropped && !xen_stream_bad(&r->state);
}

static void stop(struct xen_relay *r)
{
	watch_destroy(TAKE_PTR(r->in_watch));
	if (!(r->broken && xen_relay_fresh(r)))
		close_out(r); /* the end, for who reads */
	r->done(r->arg, r->bytes, r->broken);
}

/* What must not go out yet. It is little: who has more to say before the memory begins is let go on. */
static bool held(const struct xen_relay *r)
{
	return r->live && !r->state.pages && r->end < PIECE && !r->broken && !r->eof;
}

static void step_in(struct xen_relay *r)
{
	if (!held(r) && r->end > r->start && !r->broken)
		return;
	if (!held(r))
		r->start = r->end = 0;
	ssize_t n = read(r->in, r->data + r->end, PIECE - r->end);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	r->eof = n <= 0;
	if (n > 0 && r->live)
		n = (ssize_t)xen_stream_feed(&r->state, r->data + r->end, (size_t)n);
	if (n > 0)
		r->end += (size_t)n;
	if (!r->live)
		return;
	if (xen_stream_bad(&r->state) || (r->eof && !xen_stream_whole(&r->state)))
		r->broken = true;
	r->eof = r->eof || xen_stream_whole(&r->state);
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
	if (!held(r) && !(r->live && r->broken))
		step_out(r);
	bool full = xen_relay_full(r);
	if ((r->eof && !full) || (r->live && r->broken)) {
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
	*r = (struct xen_relay){.loop = l, .in = in, .out = out, .done = done, .arg = arg};
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

void xen_relay_live(struct xen_relay *r)
{
	r->live = true;
}

int xen_relay_again(struct xen_relay *r, int in, struct err *err)
{
	watch_destroy(TAKE_PTR(r->in_watch));
	close(r->in);
	r->in = in;
	r->start = r->end = 0;
	r->live = r->eof = r->broken = false;
	fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK);
	r->in_watch = watch_create(r->loop, in, on_in, r, err);
	if (!r->in_watch)
		return -1;
	watch_set(r->in_watch, WATCH_READ);
	return 0;
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
	return r->end > r->start && !held(r);
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
