/* SPDX-License-Identifier: Apache-2.0 */
/* Towards the parent: joining, healing, moving, the lease, and the reports.
 *
 * An attachment is made in four steps, so that whoever routes to this node knows the nodes below it first:
 * HELLO, ACCEPT; reports of all records, each acknowledged; ATTACH; CONFIRM, when the root knows. A node that has a
 * parent keeps it until the new one has confirmed. */
#include <string.h>

#include "base/alloc.h"
#include "overlay/state.h"

static void attempt(struct overlay *o);

static bool is_ancestor(const struct overlay *o, uint32_t node, unsigned *ret_depth)
{
	*ret_depth = tree_depth(o->c.fanout, node);
	return *ret_depth < o->depth && tree_ancestor(o->c.fanout, o->c.index, *ret_depth) == node;
}

static unsigned parent_depth(const struct overlay *o)
{
	const struct link *l = link_of(o, o->up.parent);
	return l ? tree_depth(o->c.fanout, l->node) : 0;
}

struct link *up_link(const struct overlay *o)
{
	return link_of(o, o->up.reports);
}

uint32_t up_lease_age(const struct overlay *o)
{
	if (o->root)
		return 0;
	return (uint32_t)MIN(o->now - o->up.lease, (uint64_t)PROTO_NO_LEASE - 1);
}

/* ---- Reports. */

static void resync(struct overlay *o, uint32_t link)
{
	struct upward *up = &o->up;
	up->reports = link;
	up->attached = up->outstanding = false;
	members_queue_all(&o->members);
	down_unconfirm(o);
}

static void send_report(struct overlay *o, const struct link *l)
{
	uint8_t items[PROTO_RUNS_MAX * PROTO_RUN_SIZE];
	struct proto m;
	struct proto_run run = {0};
	uint32_t node;
	m.type = PROTO_REPORT;
	m.arg = ++o->up.number;
	m.n = 0;
	m.items = items;
	while ((node = members_peek(&o->members)) != UINT32_MAX) {
		const struct member *r = members_find(&o->members, node);
		bool same = run.count && node == run.node + run.count &&
			    r->incarnation == run.incarnation && r->seq == run.seq &&
			    r->state == run.state && r->depth == run.depth && r->tag == run.tag &&
			    r->parent_tag == run.parent_tag;
		if (same) {
			run.count++;
		} else {
			if (m.n == PROTO_RUNS_MAX)
				break;
			run = (struct proto_run){node,     1,        r->incarnation, r->seq,
						 r->state, r->depth, r->tag,         r->parent_tag};
			m.n++;
		}
		proto_put_run(items + (m.n - 1) * PROTO_RUN_SIZE, &run);
		members_dequeue(&o->members);
	}
	o->up.covers = o->members.head;
	o->up.outstanding = true;
	link_send(o, l, &m);
}

void up_flush(struct overlay *o)
{
	struct upward *up = &o->up;
	struct link *l = up_link(o);
	if (!l || up->outstanding)
		return;
	if (o->members.head != o->members.tail) {
		send_report(o, l);
	} else if (!up->attached) {
		struct proto m;
		m.type = PROTO_ATTACH;
		m.seq = ++up->seq;
		if (!up->tag)
			up->tag = (uint16_t)((o->incarnation & 0xff) << 8 | (up->seq & 0xff));
		up->tag += !up->tag;
		m.tag = up->tag;
		up->attached = true;
		up->attach_sent = o->now;
		link_send(o, l, &m);
	}
}

static void on_ack(struct overlay *o, const struct link *l, const struct proto *m)
{
	if (link_id(o, l) != o->up.reports || !o->up.outstanding || m->arg != o->up.number)
		return;
	o->up.outstanding = false;
	o->members.acked = o->up.covers;
	down_known(o);
}

/* ---- Trying to join. */

static void start_join(struct overlay *o, unsigned depth, uint32_t node, enum purpose purpose)
{
	struct upward *up = &o->up;
	const char *address = up->ancestors[depth];
	struct link *l = link_new(o, LINK_JOIN, node);
	if (!l) {
		up->retry_at = o->now + o->c.beat_ms;
		return;
	}
	up->join = link_id(o, l);
	up->join_depth = (uint8_t)depth;
	up->purpose = purpose;
	up->accepted = false;
	up->join_deadline = o->now + o->c.lost_ms / 2;
	act(o, OVERLAY_CONNECT, up->join, node, NULL);
	act_data(o, NULL, 0, address);
}

static void attempt(struct overlay *o)
{
	struct upward *up = &o->up;
	for (int d = up->try_depth; d >= 0; d--) {
		if (!up->ancestors[d])
			continue;
		up->try_depth = d;
		start_join(o, (unsigned)d, tree_ancestor(o->c.fanout, o->c.index, (unsigned)d),
			   FOR_JOIN);
		return;
	}
	/* Nobody answered: the round begins anew, after a while that grows. */
	up->try_depth = o->depth - 1;
	up->retry_at = o->now + up->backoff + jitter(o, up->backoff);
	up->backoff = MIN(up->backoff * 2, o->c.lost_ms / 2);
}

static void attempt_bypass(struct overlay *o, int depth)
{
	o->up.bypass_at = o->now + o->c.lost_ms + jitter(o, o->c.lost_ms);
	for (; depth >= 0; depth--)
		if (o->up.ancestors[depth]) {
			start_join(o, (unsigned)depth,
				   tree_ancestor(o->c.fanout, o->c.index, (unsigned)depth), FOR_BYPASS);
			return;
		}
}

/* The link of the attempt is freed already. `next`: try the ancestor above. */
static void join_failed(struct overlay *o, bool next)
{
	struct upward *up = &o->up;
	unsigned depth = up->join_depth;
	bool had_reports = up->reports == up->join;
	up->join = 0;
	up->accepted = false;
	if (had_reports)
		resync(o, up->parent); /* and attach there again: the news of the other may have got through */
	if (!up->parent) {
		up->skip = (uint8_t)MIN(up->skip, depth);
		up->try_depth = (int)depth - 1;
		attempt(o);
	} else if (up->purpose == FOR_BYPASS && next) {
		attempt_bypass(o, (int)depth - 1);
	}
}

static void close_join(struct overlay *o, bool next, const char *why)
{
	struct link *l = link_of(o, o->up.join);
	if (l)
		link_close(o, l, why);
	join_failed(o, next);
}

void up_begin(struct overlay *o)
{
	struct upward *up = &o->up;
	up->started = up->lease = o->now;
	up->skip = PROTO_NO_DEPTH;
	up->backoff = MAX(o->c.beat_ms / 4, 1u);
	up->try_depth = o->depth - 1;
	attempt(o);
}

void up_finish(struct overlay *o)
{
	for (unsigned i = 0; i <= TREE_DEPTH_MAX; i++)
		free(o->up.ancestors[i]);
	free(o->up.self);
}

void up_connected(struct overlay *o, struct link *l)
{
	struct upward *up = &o->up;
	struct proto m;
	proto_hello_head(o, &m, PROTO_HELLO, o->c.index);
	m.port = o->c.port;
	m.skip = up->purpose == FOR_BYPASS ? (uint8_t)parent_depth(o) : up->skip;
	m.flags = 0;
	if (up->purpose == FOR_BYPASS)
		m.flags |= HELLO_BYPASS;
	else if (!up->parent && !up->was_in && o->now - up->started < o->c.lost_ms)
		m.flags |= HELLO_PATIENT;
	m.address = text_of(o->c.address);
	m.resources = (struct proto_text){.s = o->c.resources, .len = o->c.resources_len};
	up->join_deadline = o->now + o->c.lost_ms;
	link_send(o, l, &m);
}

/* ---- The answers. */

static void send_beat(struct overlay *o, const struct link *l)
{
	struct proto m;
	m.type = PROTO_BEAT;
	m.stamp = o->now;
	link_send(o, l, &m);
}

static void learn(struct overlay *o, const struct proto *m)
{
	bool changed = false;
	for (unsigned d = 0; d < m->n_ancestors && d < o->depth; d++) {
		const struct proto_text *t = &m->ancestors[d];
		char **known = &o->up.ancestors[d];
		if (!t->len || (*known && strlen(*known) == t->len && memcmp(*known, t->s, t->len) == 0))
			continue;
		text_set(known, t);
		changed = true;
	}
	if (changed)
		down_ancestors(o);
}

void up_epoch(struct overlay *o, uint64_t epoch)
{
	o->epoch = MAX(o->epoch, epoch);
}

static void on_accept(struct overlay *o, struct link *l, const struct proto *m)
{
	struct upward *up = &o->up;
	if (link_id(o, l) != up->join || up->accepted)
		return;
	if (m->epoch < o->epoch) {
		refused(o, l, &o->n.refused_epoch, "it follows an older root");
		close_join(o, true, "it follows an older root");
		return;
	}
	up_epoch(o, m->epoch);
	up->accepted = true;
	up->join_deadline = o->now + 2 * o->c.lost_ms;
	text_set(&up->self, &m->address);
	if (!up->parent) {
		l->kind = LINK_PARENT;
		up->parent = up->join;
		up->join = 0;
	}
	learn(o, m);
	resync(o, link_id(o, l));
	send_beat(o, l);
}

static void on_confirm(struct overlay *o, struct link *l, const struct proto *m)
{
	struct upward *up = &o->up;
	uint32_t id = link_id(o, l);
	if (id != up->reports || !up->attached || m->seq != up->seq || m->epoch < o->epoch)
		return;
	up_epoch(o, m->epoch);
	up->lease = MAX(up->lease, up->attach_sent);
	if (id == up->join) {
		struct link *old = link_of(o, up->parent);
		if (old) {
			old->kind = LINK_RETIRING;
			act(o, OVERLAY_RETIRE, up->parent, old->node, "a better parent was found");
		}
		l->kind = LINK_PARENT;
		up->parent = id;
		up->join = 0;
		up->told = false;
		o->n.moved++;
	} else if (up->was_in && !up->told) {
		o->n.healed++;
	}
	up->skip = PROTO_NO_DEPTH;
	up->try_depth = o->depth - 1;
	up->backoff = MAX(o->c.beat_ms / 4, 1u);
	if (!up->told)
		act(o, OVERLAY_PARENT, id, l->node, NULL);
	up->told = true;
	if (!up->was_in)
		act(o, OVERLAY_ADMITTED, id, l->node, NULL)->incarnation = o->incarnation;
	up->was_in = true;
	down_ancestors(o);
}

static void on_pulse(struct overlay *o, struct link *l, const struct proto *m)
{
	struct upward *up = &o->up;
	if (m->epoch < o->epoch || m->stamp > o->now)
		return; /* of an older root: not a sign of life; it falls silent, and another parent is sought */
	up_epoch(o, m->epoch);
	l->heard = MAX(l->heard, m->stamp);
	if (link_id(o, l) == up->parent && up->told && m->arg != PROTO_NO_LEASE && m->stamp > m->arg)
		up->lease = MAX(up->lease, m->stamp - m->arg);
}

static void on_redirect(struct overlay *o, const struct proto *m)
{
	struct upward *up = &o->up;
	unsigned depth;
	struct link *l = link_of(o, up->join);
	if (!l || up->accepted)
		return;
	if (!is_ancestor(o, m->node, &depth) || depth <= up->join_depth) {
		o->n.bad_messages++;
		close_join(o, true, "it sent us to a node that is no parent for us");
		return;
	}
	link_close(o, l, "sent on to another parent");
	text_set(&up->ancestors[depth], &m->address);
	start_join(o, depth, m->node, up->purpose);
}

static void on_wait(struct overlay *o, const struct proto *m)
{
	struct upward *up = &o->up;
	struct link *l = link_of(o, up->join);
	if (!l || up->accepted)
		return;
	if (up->parent) {
		close_join(o, false, "it is not ready");
		return;
	}
	link_close(o, l, "the parent is not here yet");
	up->join = 0;
	up->try_depth = up->join_depth;
	up->retry_at = o->now + m->arg / 2 + jitter(o, m->arg);
}

static void on_move(struct overlay *o, const struct link *l, const struct proto *m)
{
	struct upward *up = &o->up;
	unsigned depth;
	if (link_id(o, l) != up->parent || !up->told || up->join ||
	    !is_ancestor(o, m->node, &depth) || depth <= parent_depth(o))
		return;
	text_set(&up->ancestors[depth], &m->address);
	start_join(o, depth, m->node, FOR_MOVE);
}

/* ---- Loss. */

static void no_parent(struct overlay *o)
{
	struct upward *up = &o->up;
	if (up->told)
		act(o, OVERLAY_PARENT, 0, OVERLAY_NONE, NULL);
	if (up->reports == up->parent) {
		up->reports = 0;
		up->attached = up->outstanding = false;
	}
	up->told = false;
	up->parent = 0;
}

static void drop_upward_links(struct overlay *o, const char *why)
{
	struct upward *up = &o->up;
	for (uint32_t i = 0; i < o->n_links; i++)
		if (o->links[i].kind >= LINK_JOIN && o->links[i].kind <= LINK_RETIRING)
			link_close(o, &o->links[i], why);
	no_parent(o);
	up->join = up->reports = 0;
	up->attached = up->outstanding = up->accepted = false;
}

static void fence(struct overlay *o, uint32_t incarnation)
{
	if (incarnation <= o->incarnation)
		incarnation = o->incarnation + 1;
	drop_upward_links(o, "fenced");
	o->up.fenced = true;
	o->incarnation = incarnation;
	act(o, OVERLAY_FENCED, 0, OVERLAY_NONE, "this node was declared lost")->incarnation = incarnation;
}

void overlay_stopped(struct overlay *o, uint64_t now)
{
	o->now = now;
	if (!o->up.fenced || o->ended)
		return;
	o->up.fenced = o->up.was_in = false;
	o->up.seq = 0;
	up_begin(o);
}

static void lost_parent(struct overlay *o, unsigned depth, bool silent, bool was_told)
{
	struct upward *up = &o->up;
	no_parent(o);
	struct link *l = link_of(o, up->join);
	up->purpose = FOR_JOIN;
	if (l && up->accepted) {
		l->kind = LINK_PARENT;
		up->parent = up->join;
		up->join = 0;
	}
	if (l)
		return;
	/* One whose link broke may be there still; one that is silent is not worth a try. */
	if (silent || !was_told) {
		up->skip = (uint8_t)MIN(up->skip, depth);
		up->try_depth = (int)depth - 1;
	} else {
		up->try_depth = (int)depth;
	}
	if (up->try_depth > 0)
		attempt(o);
	else /* the root has many children: not all at once */
		up->retry_at = o->now + jitter(o, o->c.beat_ms / 2);
	up->try_depth = MAX(up->try_depth, 0);
}

void up_gone(struct overlay *o, struct link *l, bool silent)
{
	struct upward *up = &o->up;
	uint32_t id = link_id(o, l);
	unsigned depth = tree_depth(o->c.fanout, l->node);
	bool was_told = up->told;
	link_free(o, l);
	if (id == up->join) {
		join_failed(o, true);
	} else if (id == up->parent) {
		o->n.links_lost++;
		lost_parent(o, depth, silent, was_told);
	}
}

/* The root has us for lost: its last news of us is m. */
void up_probed(struct overlay *o, const struct proto *m)
{
	struct upward *up = &o->up;
	struct link *l = link_of(o, up->parent);
	bool lost = m->incarnation == o->incarnation &&
		    (m->seq > up->seq || (m->flags && m->seq == up->seq));
	if (m->incarnation > o->incarnation) {
		fence(o, m->incarnation + 1);
	} else if (l && up->told && lost) {
		up->seq = m->seq;
		act(o, OVERLAY_CLOSE, up->parent, l->node, "it has lost us");
		up_gone(o, l, false);
	} else if (!l && !up->join) {
		up->retry_at = o->now;
	}
}

static void on_refuse(struct overlay *o, struct link *l, const struct proto *m)
{
	static const char *const why[REFUSE_KINDS] = {
		[REFUSE_VERSION] = "refused: it speaks another version",
		[REFUSE_CLUSTER] = "refused: it belongs to another cluster",
		[REFUSE_INDEX] = "refused: this node is not a member there",
		[REFUSE_EPOCH] = "refused: it follows an older root",
		[REFUSE_STALE] = "refused: it has seen a later attachment of this node",
		[REFUSE_FENCED] = "refused: this node was declared lost; its VMs must stop first",
		[REFUSE_REMOVED] = "refused: this node was removed from the cluster",
		[REFUSE_ORPHAN] = "refused: it has no contact with the root",
		[REFUSE_FULL] = "refused: it has too many links",
		[REFUSE_ROOT] = "refused: the root must say which incarnation this node is",
	};
	struct upward *up = &o->up;
	uint32_t id = link_id(o, l);
	act(o, OVERLAY_REFUSED, id, l->node, why[m->kind]);
	if (m->kind == REFUSE_REMOVED) {
		overlay_end(o, "this node was removed from the cluster");
	} else if (m->kind == REFUSE_FENCED && l->kind != LINK_RETIRING) {
		fence(o, m->arg);
	} else if (m->kind == REFUSE_STALE && id == up->join && m->arg > up->seq) {
		up->seq = m->arg; /* this process began anew */
		link_close(o, l, why[m->kind]);
		start_join(o, up->join_depth,
			   tree_ancestor(o->c.fanout, o->c.index, up->join_depth), up->purpose);
	} else if (m->kind == REFUSE_ROOT && !(id == up->join && up->parent)) {
		drop_upward_links(o, why[m->kind]);
		up->try_depth = 0;
		up->retry_at = o->now + jitter(o, o->c.beat_ms / 4);
	} else if (id == up->join) {
		close_join(o, m->kind != REFUSE_ORPHAN, why[m->kind]);
	} else {
		if (m->kind == REFUSE_STALE && m->arg >= up->seq) {
			up->seq = m->arg;
			up->tag = 0; /* we took the name of an older process */
			down_drop_all(o);
		}
		l = link_of(o, id);
		act(o, OVERLAY_CLOSE, id, l->node, why[m->kind]);
		up_gone(o, l, false);
	}
}

void up_message(struct overlay *o, struct link *l, const struct proto *m)
{
	bool parent = link_id(o, l) == o->up.parent;
	switch (m->type) {
	case PROTO_ACCEPT: on_accept(o, l, m); break;
	case PROTO_CONFIRM: on_confirm(o, l, m); break;
	case PROTO_PULSE: on_pulse(o, l, m); break;
	case PROTO_ACK: on_ack(o, l, m); break;
	case PROTO_REFUSE: on_refuse(o, l, m); break;
	case PROTO_REDIRECT:
		if (l->kind == LINK_JOIN)
			on_redirect(o, m);
		break;
	case PROTO_WAIT:
		if (l->kind == LINK_JOIN)
			on_wait(o, m);
		break;
	case PROTO_MOVE: on_move(o, l, m); break;
	case PROTO_ANCESTORS:
		if (parent)
			learn(o, m);
		break;
	case PROTO_VERDICT: down_verdict(o, m); break;
	case PROTO_WHOIS: down_whois(o, m); break;
	default: break;
	}
}

/* ---- Time. */

static void beat_links(struct overlay *o)
{
	for (uint32_t i = 0; i < o->n_links; i++) {
		struct link *l = &o->links[i];
		bool ours = l->kind == LINK_PARENT || l->kind == LINK_RETIRING ||
			    (l->kind == LINK_JOIN && o->up.accepted);
		if (!ours)
			continue;
		if (o->now - l->heard <= o->c.lost_ms) {
			send_beat(o, l);
			continue;
		}
		act(o, OVERLAY_CLOSE, link_id(o, l), l->node, "silent for too long");
		up_gone(o, l, true);
	}
}

void up_tick(struct overlay *o, bool beat)
{
	struct upward *up = &o->up;
	if (o->now - up->lease > o->c.give_up_ms) {
		overlay_end(o, "the root was out of reach for too long");
		return;
	}
	if (beat)
		beat_links(o);
	if (up->join && o->now >= up->join_deadline)
		close_join(o, true, "no answer in time");
	if (up->fenced || up->join)
		return;
	if (!up->parent) {
		if (o->now >= up->retry_at)
			attempt(o);
	} else if (beat && parent_depth(o) && o->now >= up->bypass_at &&
		   o->now - up->lease > 2 * o->c.lost_ms + o->depth * o->c.beat_ms) {
		attempt_bypass(o, (int)parent_depth(o) - 1);
	}
}

uint64_t up_due(const struct overlay *o)
{
	const struct upward *up = &o->up;
	uint64_t due = up->lease + o->c.give_up_ms + 1;
	if (up->join)
		due = MIN(due, up->join_deadline);
	else if (!up->parent && !up->fenced)
		due = MIN(due, up->retry_at);
	return due;
}
