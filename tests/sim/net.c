/* SPDX-License-Identifier: Apache-2.0 */
/* Connections. Each keeps its order; what a cut holds up goes on when it heals, as TCP does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "world.h"

bool is_cut(const struct world *w, uint32_t from, uint32_t to)
{
	const struct agent *a = &w->agents[from], *b = &w->agents[to];
	if (a->silent || b->silent || a->island != b->island)
		return true;
	for (uint32_t i = 0; i < w->n_cuts; i++)
		if (w->cuts[i].a == from && w->cuts[i].b == to)
			return true;
	return false;
}

static void unref(struct conn *c)
{
	if (--c->refs)
		return;
	for (int i = 0; i < 2; i++)
		while (c->end[i].held) {
			struct event *e = c->end[i].held;
			c->end[i].held = e->next;
			event_free(e);
		}
	free(c);
}

static void attach_end(struct agent *a, uint32_t link, struct conn *c, int end)
{
	uint32_t slot = link & 0xffff;
	if (slot >= a->n_conns) {
		uint32_t n = MAX(slot + 1, a->n_conns * 2);
		a->conns = xreallocarray(a->conns, n, sizeof(*a->conns));
		memset(a->conns + a->n_conns, 0, (n - a->n_conns) * sizeof(*a->conns));
		a->n_conns = n;
	}
	a->conns[slot].conn = c;
	a->conns[slot].end = (uint32_t)end;
	c->end[end].agent = a->id;
	c->end[end].link = link;
	c->end[end].life = a->life;
	c->end[end].open = true;
	c->refs++;
	a->peak_open = MAX(a->peak_open, ++a->n_open);
}

static void detach_end(struct world *w, struct conn *c, int end)
{
	struct end *e = &c->end[end];
	struct agent *a = agent_of(w, e->agent);
	if (!e->open)
		return;
	e->open = false;
	if (a->conns[e->link & 0xffff].conn == c)
		a->conns[e->link & 0xffff].conn = NULL;
	a->n_open--;
	unref(c);
}

struct end *net_end(struct agent *a, uint32_t link, struct conn **ret)
{
	uint32_t slot = link & 0xffff;
	struct conn *c = slot < a->n_conns ? a->conns[slot].conn : NULL;
	if (!c || c->end[a->conns[slot].end].link != link)
		return NULL;
	*ret = c;
	return &c->end[a->conns[slot].end];
}

/* Puts e on its way to one end. */
static void send_to(struct world *w, struct conn *c, int end, struct event *e)
{
	struct end *to = &c->end[end];
	e->conn = c;
	e->end = (uint8_t)end;
	c->refs++;
	uint64_t at = w->now + c->latency + (w->now + c->latency) % 3;
	to->last = MAX(to->last, at);
	if (e->type == EV_MESSAGE) {
		to->bytes += e->len;
		w->max_bytes = MAX(w->max_bytes, to->bytes);
	}
	queue_at(w, e, to->last);
}

static uint32_t resolve(const struct world *w, const char *address)
{
	uint32_t n = (uint32_t)strtoul(address + 1, NULL, 10);
	return address[0] == 'r' ? w->n_max + 1 + n : n;
}

void net_connect(struct world *w, struct agent *a, uint32_t link, const char *address)
{
	uint32_t to = resolve(w, address);
	struct conn *c = xcalloc(1, sizeof(*c));
	c->latency = 1 + rnd(w, 3) + a->slow + agent_of(w, to)->slow;
	for (int i = 0; i < 2; i++)
		c->end[i].held_tail = &c->end[i].held;
	attach_end(a, link, c, 0);
	c->end[1].agent = to;
	c->end[1].cut = is_cut(w, a->id, to);
	c->end[0].cut = is_cut(w, to, a->id);
	send_to(w, c, 1, event_new(EV_SYN));
}

void net_send(struct world *w, struct agent *a, uint32_t link, enum event_type type,
	      const void *data, size_t len)
{
	struct conn *c;
	struct end *mine = net_end(a, link, &c);
	if (!mine && type == EV_MESSAGE)
		return; /* closed by us after the overlay put it in the queue */
	if (!mine) {
		fail(w, "agent %u sends on a link that it has closed", a->id);
		return;
	}
	struct event *e = event_new(type);
	event_data(e, data, len);
	send_to(w, c, mine == &c->end[0], e);
}

void net_close(struct world *w, struct agent *a, uint32_t link)
{
	struct conn *c;
	struct end *mine = net_end(a, link, &c);
	if (!mine)
		return;
	int me = mine == &c->end[1];
	c->refs++;
	detach_end(w, c, me);
	if (c->answered || me)
		send_to(w, c, !me, event_new(EV_CLOSED));
	unref(c);
}

void net_close_all(struct world *w, struct agent *a)
{
	for (uint32_t i = 0; i < a->n_conns; i++)
		if (a->conns[i].conn)
			net_close(w, a, a->conns[i].conn->end[a->conns[i].end].link);
}

static void on_syn(struct world *w, struct conn *c)
{
	struct agent *a = agent_of(w, c->end[1].agent), *from = agent_of(w, c->end[0].agent);
	char peer[16];
	uint32_t link = 0;
	bool root = from->id > w->n_max;
	if (!c->end[0].open)
		return; /* given up meanwhile */
	snprintf(peer, sizeof(peer), "%c%u", root ? 'r' : 'n',
		 root ? from->id - w->n_max - 1 : from->id);
	if (a->o)
		link = overlay_accepted(a->o, w->now, peer);
	if (link) {
		attach_end(a, link, c, 1);
		c->answered = true;
	}
	send_to(w, c, 0, event_new(link ? EV_CONNECTED : EV_FAILED));
	if (a->o)
		agent_actions(w, a);
}

static void hold(struct conn *c, struct event *e)
{
	struct end *to = &c->end[e->end];
	e->next = NULL;
	*to->held_tail = e;
	to->held_tail = &e->next;
}

/* The end it was for lives on in the same process. */
static void hand_over(struct world *w, struct conn *c, struct event *e)
{
	struct end *to = &c->end[e->end];
	struct agent *a = agent_of(w, to->agent);
	uint32_t link = to->link;
	switch (e->type) {
	case EV_CONNECTED: overlay_connected(a->o, w->now, link); break;
	case EV_MESSAGE:
		w->n_messages++;
		overlay_message(a->o, w->now, link, e->more ? e->more : e->small, e->len);
		break;
	case EV_APP: calls_message(w, a, link, e->more ? e->more : e->small, e->len); return;
	default:
		detach_end(w, c, e->end);
		calls_link_lost(w, a, link);
		if (e->type == EV_FAILED)
			overlay_failed(a->o, w->now, link, true);
		else
			overlay_closed(a->o, w->now, link);
	}
	agent_actions(w, a);
}

void net_deliver(struct world *w, struct event *e)
{
	struct conn *c = e->conn;
	struct end *to = &c->end[e->end];
	if (to->cut || to->held) {
		hold(c, e);
		unref(c); /* it counts again when it goes on */
		return;
	}
	if (e->type == EV_MESSAGE)
		to->bytes -= e->len;
	if (e->type == EV_SYN)
		on_syn(w, c);
	else if (to->open)
		hand_over(w, c, e);
	event_free(e);
	unref(c);
}

/* What was held up comes at once, and before anything that is still under way. */
void net_flush(struct world *w, struct event *e)
{
	struct conn *c = e->conn;
	struct end *to = &c->end[e->end];
	while (to->held && !to->cut) {
		struct event *held = to->held;
		to->held = held->next;
		if (!to->held)
			to->held_tail = &to->held;
		if (held->type == EV_MESSAGE)
			to->bytes -= held->len;
		if (held->type == EV_SYN)
			on_syn(w, c);
		else if (to->open)
			hand_over(w, c, held);
		event_free(held);
	}
	event_free(e);
	unref(c);
}

static void heal(struct world *w, struct conn *c, int end)
{
	struct event *e = event_new(EV_FLUSH);
	e->conn = c;
	e->end = (uint8_t)end;
	c->refs++;
	queue_at(w, e, w->now + c->latency);
}

void net_recheck(struct world *w, uint32_t agent)
{
	struct agent *a = agent_of(w, agent);
	for (uint32_t i = 0; i < a->n_conns; i++) {
		struct conn *c = a->conns[i].conn;
		if (!c)
			continue;
		for (int end = 0; end < 2; end++) {
			c->end[end].cut = is_cut(w, c->end[!end].agent, c->end[end].agent);
			if (!c->end[end].cut && c->end[end].held)
				heal(w, c, end);
		}
	}
}
