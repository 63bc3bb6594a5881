/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loop.h"

#include <errno.h>
#include <sys/stat.h>
#include <uv.h>

#include "base/alloc.h"

#define CLOSE_ROUNDS 16

struct loop {
	uv_loop_t uv;
	bool once; /* within loop_run_once() */
};

struct evtimer {
	uv_timer_t uv;
	void (*fn)(void *arg);
	void *arg;
};

struct watch {
	union {
		uv_handle_t handle;
		uv_poll_t poll;
		uv_idle_t idle; /* a regular file: epoll refuses it, and it is always ready */
	} uv;
	bool regular;
	int events;
	void (*fn)(void *arg, int events);
	void *arg;
};

struct sigwatch {
	uv_signal_t uv;
	void (*fn)(void *arg, int signo);
	void *arg;
};

struct loop *loop_create(void)
{
	struct loop *l = xcalloc(1, sizeof(*l));
	if (uv_loop_init(&l->uv) < 0)
		abort(); /* only without memory or descriptors */
	return l;
}

void loop_destroy(struct loop *l)
{
	if (!l)
		return;
	/* Handles that were closed in the last round give their memory back only in the next one. A child that was
	 * forgotten while it runs keeps its handle: then the loop's memory is left to the end of the process. */
	for (int round = 0; uv_loop_close(&l->uv) == UV_EBUSY; round++) {
		if (round == CLOSE_ROUNDS)
			return;
		uv_run(&l->uv, UV_RUN_NOWAIT);
	}
	free(l);
}

void loop_run(struct loop *l)
{
	uv_run(&l->uv, UV_RUN_DEFAULT);
}

bool loop_run_once(struct loop *l)
{
	l->once = true;
	bool more = uv_run(&l->uv, UV_RUN_ONCE) != 0;
	l->once = false;
	return more;
}

void loop_stop(struct loop *l)
{
	uv_stop(&l->uv);
}

int loop_fd(const struct loop *l)
{
	return uv_backend_fd(&l->uv);
}

int loop_timeout(const struct loop *l)
{
	return uv_backend_timeout(&l->uv);
}

uint64_t loop_now(struct loop *l)
{
	return uv_now(&l->uv);
}

static void free_handle(uv_handle_t *h)
{
	free(h->data);
}

static void on_timer(uv_timer_t *h)
{
	struct evtimer *t = h->data;
	/* libuv runs timers before it waits: without this a round whose timer was due would then wait for ever. */
	if (CONTAINER_OF(h->loop, struct loop, uv)->once)
		uv_stop(h->loop);
	t->fn(t->arg);
}

struct evtimer *evtimer_create(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct evtimer *t = xcalloc(1, sizeof(*t));
	uv_timer_init(&l->uv, &t->uv);
	t->uv.data = t;
	t->fn = fn;
	t->arg = arg;
	return t;
}

void evtimer_start(struct evtimer *t, uint64_t ms, uint64_t repeat_ms)
{
	/* The loop's clock is that of the round's start: bring it up to date, or a long round shortens the wait. */
	uv_update_time(t->uv.loop);
	uv_timer_start(&t->uv, on_timer, ms, repeat_ms);
}

void evtimer_stop(struct evtimer *t)
{
	uv_timer_stop(&t->uv);
}

void evtimer_destroy(struct evtimer *t)
{
	if (t)
		uv_close((uv_handle_t *)&t->uv, free_handle);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
	struct watch *w = h->data;
	/* An error (UV_EBADF, POLLERR) is told as ready: the owner's read or write then learns the errno. */
	int ready = status < 0 ? w->events : 0;
	if (status < 0) { /* libuv has stopped the watch; but there may be more to read than the owner does at once */
		w->events = 0;
		watch_set(w, ready);
	}
	if (events & (UV_READABLE | UV_DISCONNECT))
		ready |= WATCH_READ;
	if (events & UV_WRITABLE)
		ready |= WATCH_WRITE;
	w->fn(w->arg, ready);
}

static void on_idle(uv_idle_t *h)
{
	struct watch *w = h->data;
	w->fn(w->arg, w->events);
}

struct watch *watch_create(struct loop *l, int fd, void (*fn)(void *arg, int events), void *arg,
			   struct err *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0) {
		err_errno(err, errno, "watch descriptor %d", fd);
		return NULL;
	}
	struct watch *w = xcalloc(1, sizeof(*w));
	w->regular = S_ISREG(st.st_mode) || S_ISDIR(st.st_mode);
	w->fn = fn;
	w->arg = arg;
	int code = w->regular ? uv_idle_init(&l->uv, &w->uv.idle)
			      : uv_poll_init(&l->uv, &w->uv.poll, fd);
	if (code == UV_EPERM && !w->regular) { /* /dev/null and its like: always ready, too */
		w->regular = true;
		code = uv_idle_init(&l->uv, &w->uv.idle);
	}
	if (code < 0) {
		free(w);
		err_errno(err, -code, "watch descriptor %d", fd);
		return NULL;
	}
	w->uv.handle.data = w;
	return w;
}

void watch_set(struct watch *w, int events)
{
	if (w->events == events)
		return;
	w->events = events;
	if (w->regular) {
		if (events)
			uv_idle_start(&w->uv.idle, on_idle);
		else
			uv_idle_stop(&w->uv.idle);
		return;
	}
	int uv_events = (events & WATCH_READ ? UV_READABLE : 0) |
			(events & WATCH_WRITE ? UV_WRITABLE : 0);
	if (uv_events)
		uv_poll_start(&w->uv.poll, uv_events, on_poll);
	else
		uv_poll_stop(&w->uv.poll);
}

void watch_destroy(struct watch *w)
{
	if (w)
		uv_close(&w->uv.handle, free_handle);
}

static void on_signal(uv_signal_t *h, int signo)
{
	struct sigwatch *s = h->data;
	s->fn(s->arg, signo);
}

struct sigwatch *sigwatch_create(struct loop *l, int signo, void (*fn)(void *arg, int signo), void *arg)
{
	struct sigwatch *s = xcalloc(1, sizeof(*s));
	uv_signal_init(&l->uv, &s->uv);
	s->uv.data = s;
	s->fn = fn;
	s->arg = arg;
	uv_signal_start(&s->uv, on_signal, signo);
	return s;
}

void sigwatch_destroy(struct sigwatch *s)
{
	if (s)
		uv_close((uv_handle_t *)&s->uv, free_handle);
}
