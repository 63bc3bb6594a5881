/* SPDX-License-Identifier: Apache-2.0 */
#include "net/tunnel.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "net/record.h"
#include "net/tunnel_link.h"

enum {
	IDLE_MS = 60000,
	RETRY_MIN_MS = 100,
	RETRY_MAX_MS = 10000,
	ANSWER_MS = 15000,
	TICK_SHARE = 4, /* of the shortest time that is looked after */
	TICK_MIN_MS = 5,
	TICK_MAX_MS = 500,
	LINK_QUEUE = 1 << 20,
	TOTAL_QUEUE = 64 << 20,
	WRITE_SIZE = 128 << 10, /* so much is written before the round is over */
};

/* ---- sending ---- */

/* Timers of no delay run when all events of this round have been handled. */
static void todo_add(struct tlink *k)
{
	struct tunnel *t = k->t;
	if (k->listed)
		return;
	k->listed = true;
	k->next_todo = t->todo;
	if (!t->todo)
		evtimer_start(t->round, 0, 0);
	t->todo = k;
}

static struct tlink *link_of(struct tunnel *t, uint32_t node)
{
	if (node >= t->n_links) {
		uint32_t n = MIN(MAX(t->n_links * 2, node + 1), TUNNEL_NODES_MAX);
		t->links = xrealloc(t->links, n * sizeof(*t->links));
		memset(t->links + t->n_links, 0, (n - t->n_links) * sizeof(*t->links));
		t->n_links = n;
	}
	if (!t->links[node]) {
		struct tlink *k = t->links[node] = xcalloc(1, sizeof(*k));
		*k = (struct tlink){.t = t, .node = node, .next = t->all};
		t->all = k;
	}
	return t->links[node];
}

static struct tlink *link_find(const struct tunnel *t, uint32_t node)
{
	return node < t->n_links ? t->links[node] : NULL;
}

/* Whether a link is up or on its way; asks for one if it is time to. */
static bool coming(struct tlink *k)
{
	if (k->up || k->asked || k->own)
		return true;
	if (loop_now(k->t->loop) < k->retry_at)
		return false;
	k->asked = k->wanting = true;
	todo_add(k);
	return true;
}

static void on_frame(void *arg, uint32_t rank, const void *frame, size_t len)
{
	struct tunnel *t = arg;
	uint32_t node = t->places[rank];
	if (node == TUNNEL_NOWHERE || node == t->config.self) {
		t->stats.dropped_unknown++;
		return;
	}
	struct tlink *k = link_of(t, node);
	if (!coming(k)) {
		t->stats.dropped_link++;
	} else if (!tlink_enqueue(k, frame, len)) {
		*(k->up ? &t->stats.dropped_full : &t->stats.dropped_link) += 1;
	} else if (!k->up) {
		k->waiting_frames++;
	} else {
		t->stats.sent++;
		t->stats.sent_bytes += len;
		k->used = loop_now(t->loop);
		k->unflushed += RECORD_WORD + len;
		todo_add(k);
		if (k->unflushed >= WRITE_SIZE)
			tlink_flush(k);
	}
}

static void free_memory(struct tunnel *t)
{
	while (t->all) {
		struct tlink *k = t->all;
		t->all = k->next;
		free(k);
	}
	free(t->links);
	free(t->places);
	free(t);
}

static void end_busy(struct tunnel *t)
{
	t->busy = false;
	if (t->dead)
		free_memory(t);
}

static void on_round(void *arg)
{
	struct tunnel *t = arg;
	t->busy = true;
	while (!t->dead && t->todo) {
		struct tlink *k = t->todo;
		t->todo = k->next_todo;
		k->listed = false;
		tlink_flush(k);
		if (!k->wanting)
			continue;
		k->wanting = false;
		t->stats.asked++;
		t->ops->connect(t->arg, k->node);
	}
	end_busy(t);
}

/* ---- time ---- */

static void on_tick(void *arg)
{
	struct tunnel *t = arg;
	bool needed = false;
	t->busy = true;
	for (struct tlink *k = t->all; k && !t->dead; k = k->next) {
		tlink_check(k, loop_now(t->loop));
		needed = needed || k->up || k->own || k->held;
	}
	t->ticking = needed;
	if (!needed && !t->dead)
		evtimer_stop(t->tick);
	end_busy(t);
}

static void start_ticking(struct tunnel *t)
{
	uint32_t period = MIN(t->config.idle_ms, t->config.answer_ms) / TICK_SHARE;
	if (t->ticking)
		return;
	t->ticking = true;
	period = MIN(MAX(period, TICK_MIN_MS), TICK_MAX_MS);
	evtimer_start(t->tick, period, period);
}

/* ---- the doors ---- */

static uint32_t or_default(uint32_t value, uint32_t normal)
{
	return value ? value : normal;
}

static void set_config(struct tunnel_config *c)
{
	c->idle_ms = or_default(c->idle_ms, IDLE_MS);
	c->retry_min_ms = or_default(c->retry_min_ms, RETRY_MIN_MS);
	c->retry_max_ms = MAX(or_default(c->retry_max_ms, RETRY_MAX_MS), c->retry_min_ms);
	c->answer_ms = or_default(c->answer_ms, ANSWER_MS);
	c->link_queue = or_default(c->link_queue, LINK_QUEUE);
	c->total_queue = c->total_queue ? c->total_queue : TOTAL_QUEUE;
}

struct tunnel *tunnel_create(struct loop *l, struct netswitch *n, const struct tunnel_config *config,
			     const struct tunnel_ops *ops, void *arg)
{
	struct tunnel *t = xcalloc(1, sizeof(*t));
	*t = (struct tunnel){.loop = l,
			     .net = n,
			     .members = netswitch_members(n),
			     .config = *config,
			     .ops = ops,
			     .arg = arg};
	set_config(&t->config);
	t->places = xmalloc(MAX(t->members->size, 1u) * sizeof(*t->places));
	for (uint32_t r = 0; r < t->members->size; r++)
		t->places[r] = TUNNEL_NOWHERE;
	t->round = evtimer_create(l, on_round, t);
	t->tick = evtimer_create(l, on_tick, t);
	netswitch_set_uplink(n, on_frame, t);
	return t;
}

void tunnel_destroy(struct tunnel *t)
{
	if (!t)
		return;
	netswitch_set_uplink(t->net, NULL, NULL);
	for (struct tlink *k = t->all; k; k = k->next)
		tlink_close(k);
	evtimer_destroy(t->round);
	evtimer_destroy(t->tick);
	t->dead = true;
	if (!t->busy)
		free_memory(t);
}

int tunnel_place(struct tunnel *t, uint32_t first, uint32_t count, uint32_t node, struct err *err)
{
	uint32_t size = t->members->size;
	if (first > size || count > size - first)
		return err_set(err, ERANGE, "ranks %u and %u more: the network has %u", first,
			       count, size);
	if (node != TUNNEL_NOWHERE && node >= TUNNEL_NODES_MAX)
		return err_set(err, ERANGE, "no node can have the index %u", node);
	for (uint32_t r = first; r < first + count; r++)
		t->places[r] = node;
	return 0;
}

uint32_t tunnel_node(const struct tunnel *t, uint32_t rank)
{
	return rank < t->members->size ? t->places[rank] : TUNNEL_NOWHERE;
}

int tunnel_attach(struct tunnel *t, uint32_t node, bool dialed, struct stream *s, struct err *err)
{
	if (node >= TUNNEL_NODES_MAX || node == t->config.self) {
		stream_destroy(s);
		return err_set(err, ERANGE, "node %u: no other node has this index", node);
	}
	tlink_attach(link_of(t, node), dialed, s);
	start_ticking(t);
	return 0;
}

void tunnel_failed(struct tunnel *t, uint32_t node)
{
	struct tlink *k = link_find(t, node);
	if (k && k->asked && !k->wanting)
		tlink_dial_failed(k);
}

void tunnel_detach(struct tunnel *t, uint32_t node)
{
	struct tlink *k = link_find(t, node);
	if (!k)
		return;
	tlink_close(k);
	k->asked = k->wanting = false;
	k->retry_ms = 0;
	k->retry_at = 0;
}

bool tunnel_linked(const struct tunnel *t, uint32_t node)
{
	struct tlink *k = link_find(t, node);
	return k && k->up;
}

void tunnel_stats(const struct tunnel *t, struct tunnel_stats *ret)
{
	*ret = t->stats;
}
