/* SPDX-License-Identifier: Apache-2.0 */
/* Towards the children: who may attach here, their records, and what the root says to those below. */
#include <string.h>

#include "base/alloc.h"
#include "overlay/state.h"

struct link *down_hop(const struct overlay *o, uint32_t node)
{
	uint16_t slot;
	uint32_t child = members_hop(&o->members, node, &slot);
	if (child == OVERLAY_NONE || slot >= o->n_links)
		return NULL;
	struct link *l = &o->links[slot];
	return l->kind == LINK_CHILD && l->node == child ? l : NULL;
}

/* Its attachment to us over this very link is the newest that is known of it. */
static bool is_current(const struct overlay *o, const struct link *l)
{
	const struct member *r = members_find(&o->members, l->node);
	return r && r->state == MEMBER_ATTACHED && r->depth == o->depth &&
	       r->slot == (uint16_t)(l - o->links) && r->seq == l->seq &&
	       r->incarnation == l->incarnation;
}

static void changed(struct overlay *o, uint32_t node)
{
	o->route_changed = true;
	if (o->root)
		root_refresh(o, node);
	else
		members_queue(&o->members, node);
}

/* ---- Loss. */

void down_gone(struct overlay *o, struct link *l, bool silent)
{
	uint32_t node = l->node;
	bool current = is_current(o, l);
	struct member news = {.incarnation = l->incarnation,
			      .seq = l->seq,
			      .state = silent ? MEMBER_SILENT : MEMBER_CLOSED,
			      .depth = o->depth & 0x7f,
			      .tag = l->tag,
			      .parent_tag = o->up.tag};
	o->n.links_lost++;
	if (l->announced)
		act(o, OVERLAY_CHILD_DOWN, link_id(o, l), node, silent ? "silent" : "closed");
	link_free(o, l);
	if (current && members_merge(&o->members, node, &news))
		changed(o, node);
}

static void down_drop(struct overlay *o, struct link *l, bool silent, const char *why)
{
	act(o, OVERLAY_CLOSE, link_id(o, l), l->node, why);
	down_gone(o, l, silent);
}

void down_drop_all(struct overlay *o)
{
	for (uint32_t i = 0; i < o->n_links; i++)
		if (o->links[i].kind == LINK_CHILD)
			down_drop(o, &o->links[i], false, "this agent began anew");
}

/* ---- Hello. */

static void refuse(struct overlay *o, struct link *l, enum proto_refusal kind, uint32_t arg)
{
	static const char *const why[REFUSE_KINDS] = {
		[REFUSE_VERSION] = "hello: it speaks another version",
		[REFUSE_CLUSTER] = "hello: it belongs to another cluster",
		[REFUSE_INDEX] = "hello: its index is no member below this node",
		[REFUSE_EPOCH] = "hello: it knows a newer root",
		[REFUSE_STALE] = "hello: an attachment of the past",
		[REFUSE_FENCED] = "hello: declared lost; its VMs must stop first",
		[REFUSE_REMOVED] = "hello: removed from the cluster",
		[REFUSE_ORPHAN] = "hello: this node has no contact with the root itself",
		[REFUSE_FULL] = "hello: too many links",
		[REFUSE_ROOT] = "hello: the root must say which incarnation it is",
	};
	uint64_t *counters[REFUSE_KINDS] = {
		[REFUSE_VERSION] = &o->n.refused_version, [REFUSE_CLUSTER] = &o->n.refused_cluster,
		[REFUSE_INDEX] = &o->n.refused_index,     [REFUSE_EPOCH] = &o->n.refused_epoch,
		[REFUSE_STALE] = &o->n.refused_stale,     [REFUSE_ROOT] = &o->n.refused_fenced,
		[REFUSE_FENCED] = &o->n.refused_fenced,   [REFUSE_REMOVED] = &o->n.refused_removed,
		[REFUSE_FULL] = &o->n.refused_full,
	};
	struct proto m;
	uint64_t ignored;
	m.type = PROTO_REFUSE;
	m.kind = (uint8_t)kind;
	m.arg = arg;
	link_send(o, l, &m);
	refused(o, l, counters[kind] ? counters[kind] : &ignored, why[kind]);
	act(o, OVERLAY_CLOSE, link_id(o, l), l->node, why[kind]);
	if (l->kind == LINK_CHILD)
		down_gone(o, l, false);
	else
		link_free(o, l);
}

static int judge_record(const struct overlay *o, uint32_t node, uint32_t incarnation, uint32_t seq,
			uint32_t *ret_arg)
{
	const struct member *r = members_find(&o->members, node);
	uint32_t known = r ? r->incarnation : 0;
	if (!incarnation || incarnation < known) /* the root has answered that before */
		return REFUSE_ROOT;
	if (incarnation == known && seq < r->seq) {
		*ret_arg = r->seq;
		return REFUSE_STALE;
	}
	return 0;
}

static int judge(struct overlay *o, const struct proto *m, uint32_t *ret_arg)
{
	*ret_arg = 0;
	if (m->version != PROTO_VERSION)
		return REFUSE_VERSION;
	if (memcmp(m->cluster, o->c.cluster, sizeof(m->cluster)) != 0)
		return REFUSE_CLUSTER;
	if (!tree_below(o->c.fanout, o->c.index, m->node))
		return REFUSE_INDEX;
	if (m->epoch > o->epoch)
		return REFUSE_EPOCH;
	int kind = o->root ? root_judge(o, m->node, m->incarnation, ret_arg) : 0;
	if (!kind)
		kind = judge_record(o, m->node, m->incarnation, m->seq, ret_arg);
	if (kind || o->root)
		return kind;
	bool stray = m->flags & HELLO_BYPASS && up_lease_age(o) > o->c.lost_ms + 2 * o->c.beat_ms;
	return stray || o->up.fenced ? REFUSE_ORPHAN : 0;
}

/* A child of ours that leads to a better parent for `node`; `skip`: not to one of that depth or below. */
static struct link *better(const struct overlay *o, uint32_t node, unsigned skip)
{
	for (unsigned d = tree_depth(o->c.fanout, node) - 1; d > o->depth; d--) {
		if (d >= skip)
			continue;
		struct link *l = down_hop(o, tree_ancestor(o->c.fanout, node, d));
		if (l && l->confirmed && l->address)
			return l;
	}
	return NULL;
}

void fill_ancestors(const struct overlay *o, struct proto *m)
{
	m->n_ancestors = (uint8_t)(o->depth + 1);
	for (unsigned d = 0; d < o->depth; d++)
		m->ancestors[d] = text_of(o->up.ancestors[d]);
	m->ancestors[o->depth] = text_of(o->c.address ? o->c.address : o->up.self);
}

static void set_address(struct link *l, const struct proto *m)
{
	_cleanup_free_ char *peer = TAKE_PTR(l->address);
	if (m->address.len)
		text_set(&l->address, &m->address);
	else if (peer && m->port)
		l->address = xasprintf(strchr(peer, ':') ? "[%s]:%u" : "%s:%u", peer, m->port);
}

static void accept_child(struct overlay *o, struct link *l, const struct proto *m)
{
	struct proto answer;
	o->n_pending--;
	l->kind = LINK_CHILD;
	l->node = m->node;
	l->incarnation = m->incarnation;
	l->seq = m->seq;
	set_address(l, m);
	if (m->resources.len)
		l->resources = xmemdup0(m->resources.s, m->resources.len);
	l->resources_len = (uint16_t)m->resources.len;
	answer.type = PROTO_ACCEPT;
	answer.epoch = o->epoch;
	answer.address = text_of(l->address);
	fill_ancestors(o, &answer);
	link_send(o, l, &answer);
}

void down_hello(struct overlay *o, struct link *l, const struct proto *m)
{
	uint32_t arg;
	struct proto answer;
	l->node = m->version == PROTO_VERSION ? m->node : OVERLAY_NONE;
	int kind = judge(o, m, &arg);
	if (kind) {
		refuse(o, l, (enum proto_refusal)kind, arg);
		if (kind == REFUSE_EPOCH && o->root)
			overlay_end(o, "a newer root has taken over");
		else if (kind == REFUSE_EPOCH)
			up_epoch(o, m->epoch);
		return;
	}
	bool ours = overlay_tree_parent(o->c.fanout, m->node) == o->c.index;
	struct link *to = ours ? NULL : better(o, m->node, m->skip);
	if (to) {
		answer.type = PROTO_REDIRECT;
		answer.node = to->node;
		answer.address = text_of(to->address);
		o->n.redirected++;
	} else if ((!o->root && !o->up.tag) ||
		   (!ours && m->flags & HELLO_PATIENT && m->skip == PROTO_NO_DEPTH)) {
		answer.type = PROTO_WAIT;
		answer.arg = MAX(o->c.beat_ms / 8, 1u);
	} else {
		accept_child(o, l, m);
		return;
	}
	link_send(o, l, &answer);
	link_close(o, l, "sent on to another parent");
}

void down_probed(struct overlay *o, struct link *l, const struct proto *m)
{
	struct proto answer;
	if (memcmp(m->cluster, o->c.cluster, sizeof(m->cluster)) != 0 ||
	    m->version != PROTO_VERSION || m->node != o->c.index || o->root) {
		refused(o, l, &o->n.refused_cluster, "probe: meant for another agent");
		link_close(o, l, "probe: meant for another agent");
		return;
	}
	up_epoch(o, m->epoch);
	proto_hello_head(o, &answer, PROTO_ALIVE, o->c.index);
	answer.flags = o->up.told;
	link_send(o, l, &answer);
	up_probed(o, m);
}

/* ---- What children say. */

static void confirm(struct overlay *o, struct link *l)
{
	struct proto m;
	m.type = PROTO_CONFIRM;
	m.seq = l->seq;
	m.epoch = o->epoch;
	l->want_confirm = false;
	l->confirmed = true;
	l->offer_wait = o->c.lost_ms;
	l->offer_at = o->now + o->c.beat_ms + jitter(o, o->c.lost_ms);
	link_send(o, l, &m);
	if (!l->announced)
		act(o, OVERLAY_CHILD_UP, link_id(o, l), l->node, NULL);
	l->announced = true;
}

static void forget_older(struct overlay *o, const struct link *keep)
{
	const struct member *r = members_find(&o->members, keep->node);
	if (!r || r->state != MEMBER_ATTACHED || r->depth != o->depth || r->slot >= o->n_links)
		return;
	struct link *old = &o->links[r->slot];
	if (old != keep && old->kind == LINK_CHILD && old->node == keep->node)
		down_drop(o, old, false, "its node has come over another link");
}

static void on_attach(struct overlay *o, struct link *l, const struct proto *m)
{
	uint32_t arg = 0, node = l->node;
	int kind = o->root ? root_judge(o, node, l->incarnation, &arg) : 0;
	if (!kind)
		kind = judge_record(o, node, l->incarnation, m->seq - 1, &arg);
	if (kind || !m->seq) {
		refuse(o, l, kind ? (enum proto_refusal)kind : REFUSE_STALE, arg);
		return;
	}
	forget_older(o, l);
	struct member news = {.incarnation = l->incarnation,
			      .seq = m->seq,
			      .state = MEMBER_ATTACHED,
			      .depth = o->depth & 0x7f,
			      .tag = m->tag,
			      .parent_tag = o->up.tag};
	members_merge(&o->members, node, &news);
	members_find(&o->members, node)->slot = (uint16_t)(l - o->links);
	l->seq = m->seq;
	l->tag = m->tag;
	l->confirmed = false;
	l->want_confirm = true;
	if (o->root)
		confirm(o, l);
	changed(o, node);
	l->need_confirm = o->members.tail; /* nothing was opened meanwhile: l has not moved */
}

static void on_beat(struct overlay *o, const struct link *l, const struct proto *m)
{
	struct proto answer;
	answer.type = PROTO_PULSE;
	answer.stamp = m->stamp;
	answer.epoch = o->epoch;
	answer.arg = l->confirmed ? up_lease_age(o) : PROTO_NO_LEASE;
	link_send(o, l, &answer);
}

/* A child has let in somebody who is known here by a later attachment: a process of the past, or one that began anew
 * and does not know its number. */
static void contradict(struct overlay *o, const struct link *l, uint32_t node,
		       const struct proto_run *run)
{
	struct proto m;
	m.arg = 0;
	int kind = o->root ? root_judge(o, node, run->incarnation, &m.arg) : 0;
	if (!kind)
		kind = judge_record(o, node, run->incarnation, run->seq - 1, &m.arg);
	if (!kind)
		return;
	m.type = PROTO_VERDICT;
	m.node = node;
	m.incarnation = run->incarnation;
	m.kind = (uint8_t)kind;
	link_send(o, l, &m);
}

/* A process that follows another as the same incarnation counts its attachments anew: of two with one number, to
 * different processes, only one can be true. */
static bool is_other(const struct members *m, uint32_t node, const struct member *news)
{
	const struct member *r = members_find(m, node);
	return r->incarnation != news->incarnation || r->seq != news->seq || r->state != news->state ||
	       r->tag != news->tag || r->parent_tag != news->parent_tag || r->depth != news->depth;
}

/* One record of a child's report: false when a child may not say that. */
static bool take_record(struct overlay *o, const struct link *l, uint32_t node,
			const struct proto_run *run)
{
	uint32_t k = o->c.fanout;
	struct member news = {.incarnation = run->incarnation,
			      .seq = run->seq,
			      .state = run->state,
			      .depth = run->depth & 0x7f,
			      .tag = run->tag,
			      .parent_tag = run->parent_tag};
	if (!tree_below(k, l->node, node) || run->depth < tree_depth(k, l->node) ||
	    run->depth >= tree_depth(k, node))
		return false;
	if (members_merge(&o->members, node, &news)) {
		const struct member *r = members_find(&o->members, node);
		struct link *old = r->slot < o->n_links ? &o->links[r->slot] : NULL;
		if (old && old->kind == LINK_CHILD && old->node == node)
			old->confirmed = false; /* it has left us: no lease from here */
		changed(o, node);
	} else if (run->state == MEMBER_ATTACHED && is_other(&o->members, node, &news))
		contradict(o, l, node, run);
	return true;
}

static void ack(struct overlay *o, struct link *l)
{
	struct proto m;
	m.type = PROTO_ACK;
	m.arg = l->ack;
	l->want_ack = false;
	link_send(o, l, &m);
}

static void on_report(struct overlay *o, struct link *l, const struct proto *m)
{
	for (uint16_t i = 0; i < m->n; i++) {
		struct proto_run run;
		proto_run(m, i, &run);
		for (uint32_t j = 0; j < run.count; j++) {
			if (!take_record(o, l, run.node + j, &run)) {
				o->n.bad_messages++;
				down_drop(o, l, false, "a report about nodes that are not below it");
				return;
			}
		}
	}
	l->ack = m->arg;
	l->want_ack = true;
	l->need_ack = o->members.tail;
	if (o->root)
		ack(o, l);
	else
		down_known(o);
}

static void on_info(struct overlay *o, struct link *l, const struct proto *m)
{
	struct link *up = up_link(o);
	if (m->node != l->node && !tree_below(o->c.fanout, l->node, m->node)) {
		o->n.bad_messages++;
		down_drop(o, l, false, "news about a node that is not below it");
	} else if (o->root) {
		_cleanup_free_ char *address = NULL;
		text_set(&address, &m->address);
		root_info(o, m->node, m->incarnation, address, m->resources.s, m->resources.len);
	} else if (up) {
		link_send(o, up, m);
	}
}

void down_message(struct overlay *o, struct link *l, const struct proto *m)
{
	switch (m->type) {
	case PROTO_ATTACH: on_attach(o, l, m); break;
	case PROTO_BEAT: on_beat(o, l, m); break;
	case PROTO_REPORT: on_report(o, l, m); break;
	case PROTO_INFO: on_info(o, l, m); break;
	default: break;
	}
}

void down_known(struct overlay *o)
{
	for (uint32_t i = 0; i < o->n_links; i++) {
		struct link *l = &o->links[i];
		if (l->kind != LINK_CHILD)
			continue;
		if (l->want_ack && l->need_ack <= o->members.acked)
			ack(o, l);
		if (l->want_confirm && l->need_confirm <= o->members.acked && is_current(o, l))
			confirm(o, l);
	}
}

/* Another parent, or another root, may know better: what was confirmed is asked for again. */
void down_unconfirm(struct overlay *o)
{
	for (uint32_t i = 0; i < o->n_links; i++) {
		struct link *l = &o->links[i];
		if (l->kind != LINK_CHILD)
			continue;
		l->need_ack = l->need_confirm = o->members.tail;
		l->confirmed = false;
		l->want_confirm = is_current(o, l);
	}
}

void down_ancestors(struct overlay *o)
{
	struct proto m;
	m.type = PROTO_ANCESTORS;
	fill_ancestors(o, &m);
	for (uint32_t i = 0; i < o->n_links; i++)
		if (o->links[i].kind == LINK_CHILD)
			link_send(o, &o->links[i], &m);
}

/* ---- What the root says to those below. */

void down_verdict(struct overlay *o, const struct proto *m)
{
	struct link *l = down_hop(o, m->node);
	if (!l)
		return;
	if (l->node != m->node)
		link_send(o, l, m);
	else if (l->incarnation <= m->incarnation && (m->kind != REFUSE_STALE || l->seq <= m->arg))
		refuse(o, l, (enum proto_refusal)m->kind, m->arg);
}

static void tell(struct overlay *o, const struct link *l)
{
	struct proto m;
	struct link *up = up_link(o);
	if (o->root) {
		root_info(o, l->node, l->incarnation, l->address, l->resources, l->resources_len);
		return;
	}
	if (!up)
		return;
	m.type = PROTO_INFO;
	m.node = l->node;
	m.incarnation = l->incarnation;
	m.address = text_of(l->address);
	m.resources = (struct proto_text){.s = l->resources, .len = l->resources_len};
	link_send(o, up, &m);
}

void down_whois(struct overlay *o, const struct proto *m)
{
	uint8_t items[PROTO_WHOIS_MAX * 4];
	struct proto on = {.type = PROTO_WHOIS};
	struct link *to = NULL;
	on.items = items;
	for (uint16_t i = 0; i < m->n; i++) {
		uint32_t node = proto_node(m, i);
		struct link *l = down_hop(o, node);
		if (!l)
			continue;
		if (l->node == node) {
			tell(o, l);
			continue;
		}
		if (to && to != l && on.n) {
			link_send(o, to, &on);
			on.n = 0;
		}
		to = l;
		proto_put_node(items + 4 * on.n++, node);
	}
	if (to && on.n)
		link_send(o, to, &on);
}

/* ---- Time. */

static void offer(struct overlay *o, struct link *l)
{
	struct link *to = better(o, l->node, PROTO_NO_DEPTH);
	struct proto m;
	if (!to || to == l)
		return;
	m.type = PROTO_MOVE;
	m.node = to->node;
	m.address = text_of(to->address);
	link_send(o, l, &m);
	l->offer_wait = MIN(l->offer_wait * 2, o->c.lost_ms * 16);
	l->offer_at = o->now + l->offer_wait + jitter(o, l->offer_wait);
}

void down_tick(struct overlay *o)
{
	for (uint32_t i = 0; i < o->n_links; i++) {
		struct link *l = &o->links[i];
		bool silent = o->now - l->heard > o->c.lost_ms;
		if (l->kind == LINK_PENDING && silent)
			link_close(o, l, "no hello in time");
		else if (l->kind == LINK_CHILD && silent)
			down_drop(o, l, true, "silent for too long");
		else if (l->kind == LINK_CHILD && l->confirmed && o->now >= l->offer_at &&
			 is_current(o, l) && overlay_tree_parent(o->c.fanout, l->node) != o->c.index)
			offer(o, l);
	}
}
