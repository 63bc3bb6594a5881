/* SPDX-License-Identifier: Apache-2.0 */
/* Life, links, actions, and which event goes where. */
#include "overlay/overlay.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "overlay/state.h"

struct queued_action {
	struct overlay_action a;
	size_t data, address; /* offsets in the arena, one too high; 0: none */
};

/* ---- Actions. */

struct overlay_action *act(struct overlay *o, enum overlay_type type, uint32_t link, uint32_t node,
			   const char *why)
{
	if (o->n_actions == o->actions_cap) {
		o->actions_cap = o->actions_cap ? o->actions_cap * 2 : 4;
		o->actions = xreallocarray(o->actions, o->actions_cap, sizeof(*o->actions));
	}
	struct queued_action *q = &o->actions[o->n_actions++];
	*q = (struct queued_action){.a = {.type = type, .link = link, .node = node, .why = why}};
	return &q->a;
}

void act_data(struct overlay *o, const void *data, size_t len, const char *address)
{
	struct queued_action *q = &o->actions[o->n_actions - 1];
	q->a.len = len;
	q->data = buf_len(&o->arena) + 1;
	buf_add(&o->arena, data, len);
	if (address) {
		q->address = buf_len(&o->arena) + 1;
		buf_add(&o->arena, address, strlen(address) + 1);
	}
}

bool overlay_next(struct overlay *o, struct overlay_action *ret)
{
	if (o->route_changed && !o->ended) {
		o->route_changed = false;
		act(o, OVERLAY_ROUTE, 0, OVERLAY_NONE, NULL);
	}
	if (o->next_action == o->n_actions) {
		o->next_action = o->n_actions = 0;
		buf_clear(&o->arena);
		if (o->arena.cap > 4 * OVERLAY_MESSAGE_MAX)
			buf_finish(&o->arena);
		if (o->actions_cap > 256) {
			free(TAKE_PTR(o->actions));
			o->actions_cap = 0;
		}
		return false;
	}
	struct queued_action *q = &o->actions[o->next_action++];
	*ret = q->a;
	ret->data = q->data ? buf_head(&o->arena) + q->data - 1 : NULL;
	ret->address = q->address ? buf_head(&o->arena) + q->address - 1 : NULL;
	return true;
}

void overlay_end(struct overlay *o, const char *why)
{
	if (o->ended)
		return;
	for (uint32_t i = 0; i < o->n_links; i++)
		if (o->links[i].kind != LINK_FREE)
			link_close(o, &o->links[i], why);
	o->ended = true;
	act(o, OVERLAY_END, 0, OVERLAY_NONE, why);
}

void refused(struct overlay *o, const struct link *l, uint64_t *counter, const char *why)
{
	++*counter;
	act(o, OVERLAY_REFUSED, link_id(o, l), l->node, why);
}

/* xorshift64*: spreads retries, nothing more. */
uint32_t jitter(struct overlay *o, uint32_t below)
{
	o->random ^= o->random >> 12;
	o->random ^= o->random << 25;
	o->random ^= o->random >> 27;
	return below ? (uint32_t)((o->random * UINT64_C(0x2545f4914f6cdd1d)) >> 32) % below : 0;
}

/* ---- Links. Their ids are generation << 16 | slot, so that an old id is known as such. */

uint32_t link_id(const struct overlay *o, const struct link *l)
{
	return (uint32_t)l->generation << 16 | (uint32_t)(l - o->links);
}

struct link *link_of(const struct overlay *o, uint32_t id)
{
	uint32_t slot = id & 0xffff;
	if (!id || slot >= o->n_links)
		return NULL;
	struct link *l = &o->links[slot];
	return l->kind != LINK_FREE && l->generation == id >> 16 ? l : NULL;
}

struct link *link_new(struct overlay *o, enum link_kind kind, uint32_t node)
{
	if (o->free_link == UINT32_MAX) {
		uint32_t n = o->n_links ? MIN(o->n_links * 2, LINKS_MAX) : 2;
		if (n == o->n_links)
			return NULL;
		o->links = xreallocarray(o->links, n, sizeof(*o->links));
		memset(o->links + o->n_links, 0, (n - o->n_links) * sizeof(*o->links));
		for (uint32_t i = n; i-- > o->n_links;) {
			o->links[i].node = o->free_link;
			o->free_link = i;
		}
		o->n_links = n;
	}
	struct link *l = &o->links[o->free_link];
	o->free_link = l->node;
	uint16_t generation = (uint16_t)(l->generation + 1);
	*l = (struct link){.generation = generation ? generation : 1,
			   .kind = (uint8_t)kind,
			   .node = node,
			   .heard = o->now};
	o->n_pending += kind == LINK_PENDING;
	return l;
}

void link_free(struct overlay *o, struct link *l)
{
	free(TAKE_PTR(l->address));
	free(TAKE_PTR(l->resources));
	o->n_pending -= l->kind == LINK_PENDING;
	l->kind = LINK_FREE;
	l->node = o->free_link;
	o->free_link = (uint32_t)(l - o->links);
}

void link_close(struct overlay *o, struct link *l, const char *why)
{
	act(o, OVERLAY_CLOSE, link_id(o, l), l->node, why);
	link_free(o, l);
}

void link_send(struct overlay *o, const struct link *l, const struct proto *m)
{
	uint8_t data[OVERLAY_MESSAGE_MAX];
	size_t len = proto_write(m, data);
	act(o, OVERLAY_SEND, link_id(o, l), l->node, NULL);
	act_data(o, data, len, NULL);
}

void text_set(char **to, const struct proto_text *t)
{
	free(*to);
	*to = t->len ? xstrndup(t->s, t->len) : NULL;
}

struct proto_text text_of(const char *s)
{
	return (struct proto_text){.s = s, .len = s ? strlen(s) : 0};
}

void proto_hello_head(const struct overlay *o, struct proto *m, uint8_t type, uint32_t node)
{
	m->type = type;
	m->version = PROTO_VERSION;
	memcpy(m->cluster, o->c.cluster, sizeof(m->cluster));
	m->node = node;
	m->incarnation = o->incarnation;
	m->seq = o->up.seq;
	m->epoch = o->epoch;
}

/* ---- Life. */

static int check(const struct overlay_config *c, struct err *err)
{
	if (c->index >= OVERLAY_NODES_MAX || c->n_nodes >= OVERLAY_NODES_MAX)
		return err_set(err, EINVAL, "overlay: node %u of %u: too large", c->index, c->n_nodes);
	if (c->fanout < 2 || c->fanout > 1024)
		return err_set(err, EINVAL, "overlay: fan-out %u: not 2-1024", c->fanout);
	if (!c->index && !c->epoch)
		return err_set(err, EINVAL, "overlay: a root without an epoch");
	if (c->resources_len > OVERLAY_RESOURCES_MAX)
		return err_set(err, EINVAL, "overlay: %zu bytes of resources: too many",
			       c->resources_len);
	if (c->address && !proto_address_ok(c->address, strlen(c->address)))
		return err_set(err, EINVAL, "overlay: '%.80s': not an address", c->address);
	if (c->beat_ms < 10 || c->lost_ms > 3600000 || c->give_up_ms > 86400000)
		return err_set(err, EINVAL, "overlay: beat_ms, lost_ms or give_up_ms is out of range");
	if (c->lost_ms / 3 < c->beat_ms)
		return err_set(err, EINVAL, "overlay: lost_ms %u: less than 3 beats of %u ms",
			       c->lost_ms, c->beat_ms);
	if (c->give_up_ms / 2 < c->lost_ms)
		return err_set(err, EINVAL, "overlay: give_up_ms %u: less than twice lost_ms %u",
			       c->give_up_ms, c->lost_ms);
	return 0;
}

struct overlay *overlay_create(const struct overlay_config *config, uint64_t now, struct err *err)
{
	struct overlay_config c = *config;
	c.fanout = c.fanout ? c.fanout : OVERLAY_FANOUT;
	c.beat_ms = c.beat_ms ? c.beat_ms : OVERLAY_BEAT_MS;
	c.lost_ms = c.lost_ms ? c.lost_ms : OVERLAY_LOST_MS;
	c.give_up_ms = c.give_up_ms ? c.give_up_ms : OVERLAY_GIVE_UP_MS;
	if (check(&c, err) < 0)
		return NULL;
	struct overlay *o = xcalloc(1, sizeof(*o));
	c.address = xstrdup(c.address);
	c.resources = c.resources_len ? xmemdup0(c.resources, c.resources_len) : NULL;
	o->c = c;
	o->now = now;
	o->depth = (uint8_t)tree_depth(c.fanout, c.index);
	o->incarnation = c.index ? c.incarnation : 1;
	o->epoch = c.epoch;
	o->free_link = UINT32_MAX;
	o->random = (c.seed ^ UINT64_C(0x9e3779b97f4a7c15) * (c.index + UINT64_C(1))) | 1;
	members_init(&o->members, c.fanout, c.index);
	if (!c.index)
		o->root = root_new(o);
	return o;
}

void overlay_destroy(struct overlay *o)
{
	if (!o)
		return;
	for (uint32_t i = 0; i < o->n_links; i++) {
		free(o->links[i].address);
		free(o->links[i].resources);
	}
	up_finish(o);
	root_free(o->root);
	members_finish(&o->members);
	buf_finish(&o->arena);
	free(o->actions);
	free(o->links);
	free((void *)(uintptr_t)o->c.address);
	free((void *)(uintptr_t)o->c.resources);
	free(o);
}

void overlay_start(struct overlay *o, uint64_t now)
{
	o->now = now;
	o->started = true;
	o->next_beat = now + 1 + jitter(o, o->c.beat_ms);
	if (o->root)
		root_start(o);
	else
		up_begin(o);
	/* Its VMs may have been started elsewhere when the lease of the process before is over. */
	if (!o->root && o->c.lease)
		o->up.lease = MIN(o->c.lease, now);
}

void overlay_hint(struct overlay *o, uint64_t now, uint32_t node, const char *address)
{
	struct proto_text t = text_of(address);
	unsigned depth = tree_depth(o->c.fanout, node);
	o->now = now;
	if (depth >= o->depth || tree_ancestor(o->c.fanout, o->c.index, depth) != node ||
	    !proto_address_ok(address, t.len))
		return;
	text_set(&o->up.ancestors[depth], &t);
	if (o->started && !o->up.parent && !o->up.join)
		o->up.retry_at = MIN(o->up.retry_at, now);
	if (o->started)
		down_ancestors(o);
}

/* ---- Events. */

uint32_t overlay_accepted(struct overlay *o, uint64_t now, const char *peer)
{
	o->now = now;
	if (o->ended || !o->started)
		return 0;
	struct link *l = o->n_pending < PENDING_MAX ? link_new(o, LINK_PENDING, OVERLAY_NONE) : NULL;
	if (!l) {
		o->n.refused_full++;
		return 0;
	}
	l->open = true;
	if (peer && strlen(peer) < 64 && proto_address_ok(peer, strlen(peer)))
		l->address = xstrdup(peer);
	return link_id(o, l);
}

void overlay_connected(struct overlay *o, uint64_t now, uint32_t link)
{
	struct link *l = link_of(o, link);
	o->now = now;
	if (!l || l->open || o->ended)
		return;
	l->open = true;
	l->heard = now;
	if (l->kind == LINK_PROBE)
		root_probe_connected(o, l);
	else
		up_connected(o, l);
}

static void after(struct overlay *o)
{
	if (o->ended)
		return;
	if (o->root)
		root_pump(o);
	else
		up_flush(o);
}

static void gone(struct overlay *o, struct link *l, bool failed)
{
	switch (l->kind) {
	case LINK_CHILD: down_gone(o, l, false); break;
	case LINK_PROBE: root_probe_done(o, l, failed); break;
	case LINK_PENDING: link_free(o, l); break;
	default: up_gone(o, l, false);
	}
	after(o);
}

void overlay_failed(struct overlay *o, uint64_t now, uint32_t link, bool is_refused)
{
	struct link *l = link_of(o, link);
	o->now = now;
	if (l && !o->ended)
		gone(o, l, is_refused);
}

void overlay_closed(struct overlay *o, uint64_t now, uint32_t link)
{
	overlay_failed(o, now, link, false);
}

static void bad_message(struct overlay *o, struct link *l)
{
	o->n.bad_messages++;
	act(o, OVERLAY_CLOSE, link_id(o, l), l->node, "a malformed or unexpected message");
	gone(o, l, false);
}

/* Who may say what: by the kind of link. */
static bool expected(const struct link *l, uint8_t type)
{
	switch (l->kind) {
	case LINK_PENDING: return type == PROTO_HELLO || type == PROTO_PROBE;
	case LINK_CHILD:
		return type == PROTO_ATTACH || type == PROTO_BEAT || type == PROTO_REPORT ||
		       type == PROTO_INFO;
	case LINK_PROBE: return type == PROTO_ALIVE;
	default:
		return type >= PROTO_ACCEPT && type != PROTO_ATTACH && type != PROTO_BEAT &&
		       type != PROTO_REPORT && type != PROTO_INFO;
	}
}

void overlay_message(struct overlay *o, uint64_t now, uint32_t link, const void *data, size_t len)
{
	struct link *l = link_of(o, link);
	struct proto m;
	o->now = now;
	if (!l || o->ended)
		return;
	if (!proto_read(&m, data, len) || !expected(l, m.type)) {
		bad_message(o, l);
		return;
	}
	if (l->kind < LINK_JOIN) /* towards the parent only an answered beat counts: both ways work */
		l->heard = now;
	switch (l->kind) {
	case LINK_PENDING:
		if (m.type == PROTO_HELLO)
			down_hello(o, l, &m);
		else
			down_probed(o, l, &m);
		break;
	case LINK_CHILD: down_message(o, l, &m); break;
	case LINK_PROBE: root_alive(o, l, &m); break;
	default: up_message(o, l, &m);
	}
	after(o);
}

/* After a standstill of this very process nobody else is to blame. */
static void forgive(struct overlay *o, uint64_t gap)
{
	for (uint32_t i = 0; i < o->n_links; i++)
		if (o->links[i].kind != LINK_FREE)
			o->links[i].heard = MIN(o->links[i].heard + gap, o->now);
}

void overlay_tick(struct overlay *o, uint64_t now)
{
	o->now = now;
	if (o->ended || !o->started)
		return;
	bool beat = now >= o->next_beat;
	if (beat) {
		if (now - o->next_beat > o->c.lost_ms / 2)
			forgive(o, now - o->next_beat);
		o->next_beat = now + o->c.beat_ms;
		down_tick(o);
		if (o->root)
			root_tick(o);
	}
	if (!o->root)
		up_tick(o, beat);
	after(o);
}

uint64_t overlay_due(const struct overlay *o)
{
	if (o->ended || !o->started)
		return UINT64_MAX;
	return o->root ? o->next_beat : MIN(o->next_beat, up_due(o));
}

/* ---- Questions. */

uint32_t overlay_hop(const struct overlay *o, uint32_t node)
{
	const struct link *l = down_hop(o, node);
	return l ? link_id(o, l) : 0;
}

bool overlay_child(const struct overlay *o, uint32_t *pos, uint32_t *ret_link, uint32_t *ret_node)
{
	while (*pos < o->n_links) {
		const struct link *l = &o->links[(*pos)++];
		if (l->kind != LINK_CHILD || !l->announced)
			continue;
		*ret_link = link_id(o, l);
		*ret_node = l->node;
		return true;
	}
	return false;
}

void overlay_behind(const struct overlay *o, uint32_t link, struct rankset *ret)
{
	for (uint32_t at = 0; at < o->members.n; at++) {
		if (o->members.v[at].state != MEMBER_ATTACHED)
			continue;
		uint32_t node = tree_at(o->c.fanout, o->c.index, at);
		if (overlay_hop(o, node) == link)
			rankset_add(ret, node);
	}
}

uint32_t overlay_below(const struct overlay *o)
{
	uint32_t n = 0;
	for (uint32_t at = 0; at < o->members.n; at++)
		n += o->members.v[at].state == MEMBER_ATTACHED &&
		     overlay_hop(o, tree_at(o->c.fanout, o->c.index, at));
	return n;
}

uint32_t overlay_parent(const struct overlay *o, uint32_t *ret_link)
{
	const struct link *l = o->up.told ? link_of(o, o->up.parent) : NULL;
	if (l && ret_link)
		*ret_link = o->up.parent;
	return l ? l->node : OVERLAY_NONE;
}

uint32_t overlay_incarnation(const struct overlay *o)
{
	return o->incarnation;
}

uint64_t overlay_epoch(const struct overlay *o)
{
	return o->epoch;
}

uint64_t overlay_lease(const struct overlay *o)
{
	return o->up.lease;
}

const struct overlay_counters *overlay_counters(const struct overlay *o)
{
	return &o->n;
}

size_t overlay_memory(const struct overlay *o)
{
	size_t n = sizeof(*o) + o->members.n * sizeof(*o->members.v) +
		   o->members.queue_cap * sizeof(*o->members.queue) + o->n_links * sizeof(*o->links) +
		   o->actions_cap * sizeof(*o->actions) + o->arena.cap + o->c.resources_len;
	for (uint32_t i = 0; i < o->n_links; i++)
		n += o->links[i].address ? strlen(o->links[i].address) + 1 + o->links[i].resources_len
					 : o->links[i].resources_len;
	for (unsigned i = 0; i <= TREE_DEPTH_MAX; i++)
		n += o->up.ancestors[i] ? strlen(o->up.ancestors[i]) + 1 : 0;
	return n + root_memory(o->root);
}
