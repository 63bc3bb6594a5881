/* SPDX-License-Identifier: Apache-2.0 */
/* How two nodes settle on one link. A link has up to three streams: `own` was dialed here and waits for the peer's
 * go-ahead; `held` was dialed by the peer and waits for ours; `up` has it, and only it carries frames.
 * A stream that the peer dialed gets the go-ahead at once, and ends a dial of our own, unless
 *  - we dial, too, and our index is the lower: then ours will win over there. It is held in case ours fails;
 *  - a link is up already. Either the peer dialed before it saw that one, and will close this: nothing to do. Or it
 *    has lost the one that we still believe in, and will not close this: after HELD_MS it takes over. */
#include "net/tunnel_link.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/log.h"
#include "net/bytes.h"
#include "net/record.h"

enum {
	HELD_MS = 2000,
};

/* ---- queues ---- */

static void account(struct tlink *k)
{
	size_t now = k->up ? stream_queued(k->up->stream) : buf_len(&k->waiting);
	k->t->stats.queued += now - k->queued;
	k->queued = now;
}

void tlink_flush(struct tlink *k)
{
	if (!k->up || !k->unflushed)
		return;
	k->unflushed = 0;
	k->t->stats.writes++;
	stream_flush(k->up->stream);
	account(k);
}

bool tlink_enqueue(struct tlink *k, const void *frame, size_t len)
{
	struct tunnel *t = k->t;
	struct buf *q = k->up ? stream_out(k->up->stream) : &k->waiting;
	size_t wire = RECORD_WORD + len;
	uint8_t word[RECORD_WORD];
	account(k);
	if (k->queued + wire > t->config.link_queue || t->stats.queued + wire > t->config.total_queue)
		return false;
	put_be32(word, (uint32_t)len);
	buf_reserve(q, wire);
	buf_add(q, word, sizeof(word));
	buf_add(q, frame, len);
	k->queued += wire;
	t->stats.queued += wire;
	return true;
}

static void drop_waiting(struct tlink *k)
{
	k->t->stats.dropped_link += k->waiting_frames;
	k->waiting_frames = 0;
	buf_finish(&k->waiting);
	account(k);
}

static void send_waiting(struct tlink *k)
{
	struct tunnel *t = k->t;
	t->stats.sent += k->waiting_frames;
	t->stats.sent_bytes += buf_len(&k->waiting) - RECORD_WORD * k->waiting_frames;
	k->unflushed += buf_len(&k->waiting);
	buf_add(stream_out(k->up->stream), buf_head(&k->waiting), buf_len(&k->waiting));
	buf_finish(&k->waiting);
	k->waiting_frames = 0;
	tlink_flush(k);
	account(k);
}

/* ---- settling on one stream ---- */

static void conn_close(struct conn **slot)
{
	struct conn *c = TAKE_PTR(*slot);
	if (!c)
		return;
	stream_destroy(c->stream);
	free(c);
}

static void close_up(struct tlink *k)
{
	if (!k->up)
		return;
	conn_close(&k->up);
	k->unflushed = 0;
	k->t->stats.links--;
	account(k);
}

/* Moves a stream from its slot to be the link. */
static void take_up(struct tlink *k, struct conn **slot)
{
	struct tunnel *t = k->t;
	struct conn *c = TAKE_PTR(*slot);
	close_up(k);
	conn_close(&k->own);
	conn_close(&k->held);
	k->up = c;
	k->used = c->since = loop_now(t->loop);
	if (k->wanting)
		k->wanting = k->asked = false;
	t->stats.links++;
	t->stats.opened++;
	log_debug("net: link to node %u is up", k->node);
}

static void accept_conn(struct tlink *k, struct conn **slot)
{
	static const uint8_t go[RECORD_WORD];
	take_up(k, slot);
	stream_write(k->up->stream, go, sizeof(go));
	send_waiting(k);
}

/* Nodes that lose the same peer must not all come back in the same moment. */
static uint32_t spread(const struct tlink *k, uint32_t wait)
{
	uint32_t hash = (k->t->config.self * 2654435761u) ^ (k->node * 2246822519u);
	return hash % (wait / 4 + 1);
}

static void back_off(struct tlink *k)
{
	const struct tunnel_config *c = &k->t->config;
	k->retry_ms = k->retry_ms ? MIN(k->retry_ms * 2, c->retry_max_ms) : c->retry_min_ms;
	k->retry_at = loop_now(k->t->loop) + k->retry_ms + spread(k, k->retry_ms);
	drop_waiting(k);
}

/* Our own dial is over without a link. */
void tlink_dial_failed(struct tlink *k)
{
	k->asked = false;
	if (k->up)
		return;
	if (k->held)
		accept_conn(k, &k->held);
	else
		back_off(k);
}

static void up_lost(struct tlink *k)
{
	bool lasted = loop_now(k->t->loop) - k->up->since >= k->t->config.retry_max_ms;
	close_up(k);
	k->t->stats.lost++;
	if (lasted)
		k->retry_ms = 0;
	if (k->held)
		accept_conn(k, &k->held);
	else if (!lasted) /* so that two nodes that cannot keep a link do not spin */
		back_off(k);
}

/* Calls ops.closed: the tunnel may be gone after. */
static void conn_lost(struct conn *c, const struct err *err)
{
	struct tlink *k = c->link;
	struct tunnel *t = k->t;
	bool quiet = c == k->held && !err->code; /* the peer has found that it needs only one */
	uint32_t node = k->node;
	if (c == k->up) {
		up_lost(k);
	} else if (c == k->own) {
		conn_close(&k->own);
		tlink_dial_failed(k);
	} else {
		conn_close(&k->held);
	}
	if (!quiet && t->ops->closed)
		t->ops->closed(t->arg, node, err);
}

/* ---- receiving ---- */

static void take_frame(struct tlink *k, const uint8_t *wire, size_t len)
{
	struct tunnel *t = k->t;
	uint32_t rank;
	switch (record_judge(t->members, t->places, k->node, t->config.self, wire + RECORD_WORD,
			     len, &rank)) {
	case CROSSING_DELIVER:
		t->stats.received++;
		t->stats.received_bytes += len;
		netswitch_inject_wire(t->net, rank, wire, len);
		break;
	case CROSSING_STRAYED: t->stats.dropped_strayed++; break;
	case CROSSING_SPOOF: t->stats.dropped_spoof++; break;
	}
}

/* False: what stands there is no record, or not one that may stand there. */
static bool take_frames(struct tlink *k, struct buf *in)
{
	const uint8_t *p = (const uint8_t *)buf_head(in);
	size_t have = buf_len(in), at = 0, len;
	enum record r;
	while ((r = record_read(p + at, have - at, &len)) == RECORD_FRAME) {
		take_frame(k, p + at, len);
		at += RECORD_WORD + len;
	}
	netswitch_flush(k->t->net);
	buf_consume(in, at);
	k->used = loop_now(k->t->loop);
	return r == RECORD_PART;
}

static bool take_go_ahead(struct tlink *k, struct buf *in)
{
	size_t len;
	enum record r = record_read((const uint8_t *)buf_head(in), buf_len(in), &len);
	if (r != RECORD_GO)
		return r == RECORD_PART && buf_len(in) < RECORD_WORD;
	buf_consume(in, RECORD_WORD);
	take_up(k, &k->own);
	k->asked = false;
	send_waiting(k);
	return true;
}

static void on_data(void *arg, struct buf *in)
{
	struct conn *c = arg;
	struct tlink *k = c->link;
	struct err err = ERR_INIT;
	bool good = c != k->held && (c != k->own || take_go_ahead(k, in));
	if (good && c == k->up && buf_len(in))
		good = take_frames(k, in);
	if (good)
		return;
	k->t->stats.bad++;
	err_set(&err, EPROTO, "what it sent is no frame of the virtual network");
	conn_lost(c, &err);
}

static void on_close(void *arg, const struct err *err)
{
	conn_lost(arg, err);
}

static void on_drain(void *arg)
{
	account(((struct conn *)arg)->link);
}

static const struct stream_ops stream_ops = {.on_data = on_data, .on_close = on_close, .on_drain = on_drain};

/* ---- the doors ---- */

static struct conn *conn_create(struct tlink *k, struct stream *s)
{
	struct conn *c = xcalloc(1, sizeof(*c));
	int on = 1;
	*c = (struct conn){.link = k, .stream = s, .since = loop_now(k->t->loop)};
	setsockopt(stream_fd(s), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* not TCP: fine */
	stream_set_ops(s, &stream_ops, c);
	return c;
}

static void attach_dialed(struct tlink *k, struct conn *c)
{
	k->asked = k->wanting = false;
	if (k->up || k->own)
		conn_close(&c); /* another was first */
	else
		k->own = c;
}

static void attach_answered(struct tlink *k, struct conn *c)
{
	bool ours_will_win = (k->asked || k->own) && k->t->config.self < k->node;
	conn_close(&k->held);
	k->held = c;
	if (!k->up && !ours_will_win)
		accept_conn(k, &k->held);
}

void tlink_attach(struct tlink *k, bool dialed, struct stream *s)
{
	struct conn *c = conn_create(k, s);
	if (dialed)
		attach_dialed(k, c);
	else
		attach_answered(k, c);
}

/* The stream that is held takes over where the one it waits for will not come, or has not been given up for it. */
static bool held_is_due(const struct tlink *k, uint64_t now)
{
	uint32_t answer_ms = k->t->config.answer_ms;
	return k->held && now - k->held->since >= (k->up ? MIN(HELD_MS, answer_ms) : answer_ms);
}

void tlink_check(struct tlink *k, uint64_t now)
{
	struct tunnel *t = k->t;
	struct err err = ERR_INIT;
	if (held_is_due(k, now)) {
		t->stats.lost += k->up != NULL;
		accept_conn(k, &k->held);
	} else if (k->up && now - k->used >= t->config.idle_ms) {
		t->stats.closed_idle++;
		close_up(k);
	} else if (k->own && now - k->own->since >= t->config.answer_ms) {
		err_set(&err, ETIMEDOUT, "no go-ahead for the virtual network's frames");
		conn_lost(k->own, &err);
	} else {
		account(k);
	}
}

void tlink_close(struct tlink *k)
{
	close_up(k);
	conn_close(&k->own);
	conn_close(&k->held);
	drop_waiting(k);
}
