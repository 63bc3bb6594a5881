/* SPDX-License-Identifier: Apache-2.0 */
#include "tls-peers.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

#define PATIENCE_MS 60000

/* ---- an end ---- */

static bool gone(struct end *e, const char *where)
{
	if (!e->destroy_at || strcmp(e->destroy_at, where) != 0)
		return false;
	stream_destroy(TAKE_PTR(e->s));
	return true;
}

void end_send(struct end *e)
{
	while (e->to_send && e->s && !stream_queued(e->s)) {
		size_t n = MIN(e->piece, e->to_send);
		_cleanup_free_ char *p = xmalloc(n);
		memset(p, 'x', n);
		e->to_send -= n;
		stream_write(e->s, p, n);
		e->most_queued = MAX(e->most_queued, stream_queued(e->s));
	}
}

static void on_data(void *arg, struct buf *in)
{
	struct end *e = arg;
	e->reads++;
	if (gone(e, "data") || e->careless)
		return;
	e->bytes += buf_len(in);
	if (e->hoard)
		buf_add(&e->got, buf_head(in), buf_len(in));
	buf_consume(in, buf_len(in));
}

static void on_close(void *arg, const struct err *err)
{
	struct end *e = arg;
	e->closes++;
	e->why = *err;
	stream_destroy(TAKE_PTR(e->s));
}

static void on_drain(void *arg)
{
	struct end *e = arg;
	e->drains++;
	if (!gone(e, "drain"))
		end_send(e);
}

static void on_open(void *arg)
{
	struct end *e = arg;
	e->opens++;
	gone(e, "open");
}

const struct stream_ops end_ops = {
	.on_data = on_data,
	.on_close = on_close,
	.on_drain = on_drain,
	.on_open = on_open,
};

void end_finish(struct end *e)
{
	stream_destroy(TAKE_PTR(e->s));
	buf_finish(&e->got);
	*e = (struct end){0};
}

/* ---- the loop ---- */

static void on_patience(void *arg)
{
	*(bool *)arg = true;
}

bool run_until(const int *what)
{
	bool late = false;
	struct evtimer *t = evtimer_create(loop, on_patience, &late);
	evtimer_start(t, PATIENCE_MS, 0);
	while (!*what && !late)
		loop_run_once(loop);
	evtimer_destroy(t);
	return *what != 0;
}

static void on_tick(void *arg)
{
	++*(int *)arg;
}

void run_rounds(int n)
{
	int ticks = 0;
	struct evtimer *t = evtimer_create(loop, on_tick, &ticks);
	evtimer_start(t, 1, 1);
	while (ticks < n)
		loop_run_once(loop);
	evtimer_destroy(t);
}

void end_pair(struct end *server, struct tls_context *ts, struct end *client, struct tls_context *tc)
{
	int p[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
		abort();
	server->s = stream_create_tls(loop, p[0], ts, TLS_SERVER, &end_ops, server, NULL);
	client->s = stream_create_tls(loop, p[1], tc, TLS_CLIENT, &end_ops, client, NULL);
}

/* ---- the relay ---- */

struct half {
	struct relay *relay;
	struct stream *s;
	struct buf seen; /* what came from this side */
	size_t spoil;    /* offset + 1 */
};

struct relay {
	struct half half[2]; /* by the direction it reads */
	size_t piece;
};

static void relay_data(void *arg, struct buf *in)
{
	struct half *h = arg, *other = &h->relay->half[h == &h->relay->half[UP] ? DOWN : UP];
	size_t from = h->seen.end;
	buf_add(&h->seen, buf_head(in), buf_len(in));
	if (h->spoil && h->spoil > from && h->spoil <= h->seen.end)
		h->seen.data[h->spoil - 1] ^= 0x40;
	while (buf_len(in)) {
		size_t n = h->relay->piece ? MIN(h->relay->piece, buf_len(in)) : buf_len(in);
		if (other->s)
			stream_write(other->s, h->seen.data + from, n);
		from += n;
		buf_consume(in, n);
		/* One piece at a time reaches the other end's read(2). */
		if (h->relay->piece && buf_len(in))
			loop_run_once(loop);
	}
}

static void relay_close(void *arg, const struct err *err _unused_)
{
	struct half *h = arg, *other = &h->relay->half[h == &h->relay->half[UP] ? DOWN : UP];
	stream_destroy(TAKE_PTR(h->s));
	if (other->s)
		stream_end(other->s);
}

static const struct stream_ops relay_ops = {.on_data = relay_data, .on_close = relay_close};

struct relay *relay_pair(struct end *server, struct tls_context *ts, struct end *client,
			 struct tls_context *tc)
{
	int up[2], down[2];
	struct relay *r = xcalloc(1, sizeof(*r));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, up) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, down) < 0)
		abort();
	r->half[UP].relay = r->half[DOWN].relay = r;
	r->half[UP].s = stream_create(loop, up[1], &relay_ops, &r->half[UP], NULL);
	r->half[DOWN].s = stream_create(loop, down[1], &relay_ops, &r->half[DOWN], NULL);
	server->s = stream_create_tls(loop, down[0], ts, TLS_SERVER, &end_ops, server, NULL);
	client->s = stream_create_tls(loop, up[0], tc, TLS_CLIENT, &end_ops, client, NULL);
	return r;
}

void relay_piece(struct relay *r, size_t bytes)
{
	r->piece = bytes;
}

void relay_spoil(struct relay *r, int dir, size_t at)
{
	r->half[dir].spoil = at + 1;
}

const struct buf *relay_seen(struct relay *r, int dir)
{
	return &r->half[dir].seen;
}

void relay_cut(struct relay *r)
{
	for (int d = UP; d <= DOWN; d++)
		stream_destroy(TAKE_PTR(r->half[d].s));
}

void relay_destroy(struct relay *r)
{
	relay_cut(r);
	for (int d = UP; d <= DOWN; d++)
		buf_finish(&r->half[d].seen);
	free(r);
}
