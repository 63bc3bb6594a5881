/* SPDX-License-Identifier: Apache-2.0 */
#include "io/link.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

struct attempt {
	struct link_dial *dial;
	char *address;
	int fd; /* while it connects, then the stream's */
	struct watch *watch;
	struct stream *stream;
	bool over;
	struct err why;
};

struct link_dial {
	struct loop *loop;
	struct tls_context *tls;
	struct attempt *attempts;
	size_t n, begun, over;
	uint16_t port;
	struct evtimer *stagger, *bound;
	void (*on_done)(void *arg, struct stream *s, const char *address, const struct err *err);
	void *arg;
};

static void drop(struct attempt *a)
{
	watch_destroy(a->watch);
	a->watch = NULL;
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
	stream_destroy(a->stream);
	a->stream = NULL;
}

void link_dial_cancel(struct link_dial *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n; i++) {
		drop(&d->attempts[i]);
		free(d->attempts[i].address);
	}
	evtimer_destroy(d->stagger);
	evtimer_destroy(d->bound);
	free(d->attempts);
	free(d);
}

/* ---- how it ends ---- */

/* The reason of all: that the cluster's members refuse us is told before that hosts do not answer. */
static void all_failed(struct link_dial *d, int code)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	void (*on_done)(void *, struct stream *, const char *, const struct err *) = d->on_done;
	void *arg = d->arg;
	for (size_t i = 0; i < d->begun; i++) {
		const struct attempt *a = &d->attempts[i];
		buf_addf(&text, "%s%s: %s", i ? "; " : "", a->address,
			 a->over ? a->why.text : "no answer");
		if (a->over && a->why.code == EACCES)
			code = EACCES;
	}
	err_set(&err, code, "%s", buf_cstr(&text));
	link_dial_cancel(d);
	on_done(arg, NULL, NULL, &err);
}

static void on_bound(void *arg)
{
	all_failed(arg, ETIMEDOUT);
}

static void on_orphan_data(void *arg _unused_, struct buf *in _unused_)
{
}

static void on_orphan_close(void *arg _unused_, const struct err *err _unused_)
{
}

/* Until its owner takes it, within on_done(). */
static const struct stream_ops orphan_ops = {.on_data = on_orphan_data, .on_close = on_orphan_close};

static void on_open(void *arg)
{
	struct attempt *a = arg;
	struct link_dial *d = a->dial;
	struct stream *s = TAKE_PTR(a->stream);
	_cleanup_free_ char *address = TAKE_PTR(a->address);
	void (*on_done)(void *, struct stream *, const char *, const struct err *) = d->on_done;
	void *done_arg = d->arg;
	stream_set_ops(s, &orphan_ops, NULL);
	link_dial_cancel(d);
	on_done(done_arg, s, address, NULL);
}

/* ---- one address ---- */

/* The next one starts from the loop; the dial may be gone after this. */
static void attempt_failed(struct attempt *a, const struct err *why)
{
	struct link_dial *d = a->dial;
	drop(a);
	a->over = true;
	a->why = *why;
	if (++d->over == d->n)
		all_failed(d, why->code);
	else if (d->begun < d->n)
		evtimer_start(d->stagger, 0, 0);
}

static void on_close(void *arg, const struct err *err)
{
	attempt_failed(arg, err);
}

static const struct stream_ops attempt_ops = {
	.on_data = on_orphan_data,
	.on_close = on_close,
	.on_open = on_open,
};

static void on_connected(void *arg, int events _unused_)
{
	struct attempt *a = arg;
	struct err err = ERR_INIT;
	if (tcp_connected(a->fd, &err) == 0) {
		watch_destroy(a->watch);
		a->watch = NULL;
		a->stream = stream_create_tls(a->dial->loop, TAKE_FD(a->fd), a->dial->tls,
					      TLS_CLIENT, &attempt_ops, a, &err);
	}
	if (!a->stream)
		attempt_failed(a, &err);
}

static void begin(struct attempt *a)
{
	struct err err = ERR_INIT;
	struct link_dial *d = a->dial;
	if (tcp_connect(a->address, d->port, &a->fd, &err) == 0)
		a->watch = watch_create(d->loop, a->fd, on_connected, a, &err);
	if (a->watch)
		watch_set(a->watch, WATCH_WRITE);
	else
		attempt_failed(a, &err);
}

static void on_stagger(void *arg)
{
	struct link_dial *d = arg;
	struct attempt *a = &d->attempts[d->begun++];
	if (d->begun < d->n)
		evtimer_start(d->stagger, LINK_STAGGER_MS, 0);
	begin(a); /* last: the dial may be gone after it */
}

/* ---- */

static int check(char *const *addresses, size_t *ret_n, struct err *err)
{
	size_t n = 0;
	for (; addresses && addresses[n]; n++) {
		if (tcp_address_check(addresses[n], err) < 0)
			return -1;
		if (n == LINK_ADDRESSES_MAX)
			return err_set(err, EINVAL, "more than %d addresses of one node",
				       LINK_ADDRESSES_MAX);
	}
	if (!n)
		return err_set(err, EINVAL, "no address to connect to");
	*ret_n = n;
	return 0;
}

struct link_dial *link_dial(struct loop *l, struct tls_context *t, char *const *addresses,
			    uint16_t port, uint64_t bound_ms,
			    void (*on_done)(void *arg, struct stream *s, const char *address,
					    const struct err *err),
			    void *arg, struct err *err)
{
	size_t n = 0;
	if (check(addresses, &n, err) < 0)
		return NULL;
	struct link_dial *d = xcalloc(1, sizeof(*d));
	d->loop = l;
	d->tls = t;
	d->n = n;
	d->port = port;
	d->on_done = on_done;
	d->arg = arg;
	d->attempts = xcalloc(n, sizeof(*d->attempts));
	for (size_t i = 0; i < n; i++)
		d->attempts[i] = (struct attempt){.dial = d, .address = xstrdup(addresses[i]), .fd = -1};
	d->stagger = evtimer_create(l, on_stagger, d);
	d->bound = evtimer_create(l, on_bound, d);
	evtimer_start(d->stagger, 0, 0);
	evtimer_start(d->bound, bound_ms, 0);
	return d;
}
