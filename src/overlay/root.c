/* SPDX-License-Identifier: Apache-2.0 */
/* The books of the root: who is in, who is suspected, who is lost. Nobody else declares a node lost. */
#include <string.h>

#include "base/alloc.h"
#include "overlay/state.h"

#define PROBES_MAX 256u /* at once */
#define ASKED_MAX 512u  /* nodes whose description is on its way */

enum book_state {
	BOOK_ABSENT,  /* never seen */
	BOOK_JOINING, /* attached, its description is on its way */
	BOOK_UP,      /* reported up */
	BOOK_SUSPECT, /* reported up, not attached now */
	BOOK_LOST,    /* reported lost; its VMs may run */
	BOOK_SAFE,    /* they cannot run any more */
};

struct book {
	uint32_t incarnation; /* reported up, or restored */
	uint32_t dead;        /* this one and all before are over */
	uint32_t probe;       /* link of the question to it; 0: none */
	uint16_t tag;         /* of the process that was seen last */
	uint8_t state;
	bool reach : 1; /* its chain of parents leads to us */
	bool removed : 1;
	bool restored : 1;  /* suspect: not reported up in this life of the root */
	bool asked : 1;     /* joining: in `asked` */
	bool suspected : 1; /* in the list of suspects */
	bool unsafe : 1;    /* in the list of those that are not safe, or attached and not wanted */
	bool direct : 1;    /* suspect: its own link was lost, not one above it */
	uint64_t since; /* of suspect and lost; UINT64_MAX: lost, but attached again: it is being fenced */
	uint64_t alive; /* suspect: when it was known to live */
	uint64_t probe_at;
	char *address;
};

struct list {
	uint32_t *v;
	uint32_t n, cap;
};

struct root {
	uint32_t n; /* books, 1..n */
	struct book *books;
	struct list suspects, unsafe, joining, asked;
	uint32_t n_probes;
	uint32_t next_joining; /* the front of joining */
	uint64_t ask_again;
	uint32_t n_reach; /* how many are attached */
	bool alone;       /* none, so it may be our own network that is broken */
	bool check;       /* a suspect has come that can be asked at once */
};

static void list_add(struct list *l, uint32_t node)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 8;
		l->v = xreallocarray(l->v, l->cap, sizeof(*l->v));
	}
	l->v[l->n++] = node;
}

static struct book *book(const struct overlay *o, uint32_t node)
{
	return &o->root->books[node];
}

static bool is_member(const struct overlay *o, uint32_t node)
{
	return node && node <= o->root->n;
}

static void set_n(struct root *r, uint32_t n)
{
	r->books = xreallocarray(r->books, n + (size_t)1, sizeof(*r->books));
	memset(r->books + r->n + 1, 0, (n - r->n) * sizeof(*r->books));
	r->n = n;
}

struct root *root_new(struct overlay *o)
{
	struct root *r = xcalloc(1, sizeof(*r));
	r->books = xcalloc(1, sizeof(*r->books));
	set_n(r, o->c.n_nodes);
	return r;
}

void root_free(struct root *r)
{
	if (!r)
		return;
	for (uint32_t i = 1; i <= r->n; i++)
		free(r->books[i].address);
	free(r->suspects.v);
	free(r->unsafe.v);
	free(r->joining.v);
	free(r->asked.v);
	free(r->books);
	free(r);
}

size_t root_memory(const struct root *r)
{
	if (!r)
		return 0;
	size_t n = sizeof(*r) + (r->n + (size_t)1) * sizeof(*r->books);
	for (uint32_t i = 1; i <= r->n; i++)
		n += r->books[i].address ? strlen(r->books[i].address) + 1 : 0;
	return n + 4 * ((size_t)r->suspects.cap + r->unsafe.cap + r->joining.cap + r->asked.cap);
}

/* ---- Changes of state. */

static void suspect(struct overlay *o, uint32_t node, uint64_t probe_after)
{
	struct book *b = book(o, node);
	b->state = BOOK_SUSPECT;
	b->since = b->alive = o->now;
	b->probe_at = o->now + probe_after;
	if (!b->suspected)
		list_add(&o->root->suspects, node);
	b->suspected = true;
	o->root->check |= !probe_after;
}

static void set_lost(struct overlay *o, uint32_t node)
{
	struct book *b = book(o, node);
	b->state = BOOK_LOST;
	b->since = b->reach ? UINT64_MAX : o->now;
	if (!b->unsafe)
		list_add(&o->root->unsafe, node);
	b->unsafe = true;
}

static void lost(struct overlay *o, uint32_t node, const char *why)
{
	struct book *b = book(o, node);
	act(o, OVERLAY_NODE_LOST, 0, node, why)->incarnation = b->incarnation;
	o->n.declared_lost++;
	b->dead = MAX(b->dead, b->incarnation);
	b->restored = false;
	set_lost(o, node);
}

static void safe(struct overlay *o, uint32_t node)
{
	struct book *b = book(o, node);
	b->state = BOOK_SAFE;
	act(o, OVERLAY_NODE_SAFE, 0, node, NULL)->incarnation = b->dead;
}

static void verdict(struct overlay *o, uint32_t node, uint32_t incarnation, int kind, uint32_t arg)
{
	struct proto m;
	m.type = PROTO_VERDICT;
	m.node = node;
	m.incarnation = incarnation;
	m.kind = (uint8_t)kind;
	m.arg = arg;
	down_verdict(o, &m);
}

int root_judge(struct overlay *o, uint32_t node, uint32_t incarnation, uint32_t *ret_arg)
{
	if (!is_member(o, node))
		return REFUSE_INDEX;
	const struct book *b = book(o, node);
	if (b->removed)
		return REFUSE_REMOVED;
	const struct member *r = members_find(&o->members, node);
	uint32_t known = MAX(b->incarnation, r ? r->incarnation : 0);
	if (incarnation > b->dead && incarnation >= known)
		return 0;
	*ret_arg = MAX(b->dead, known) + 1;
	return REFUSE_FENCED;
}

static void join(struct overlay *o, uint32_t node)
{
	struct book *b = book(o, node);
	b->state = BOOK_JOINING;
	if (!b->asked)
		list_add(&o->root->joining, node);
}

static void reached(struct overlay *o, uint32_t node, uint32_t incarnation)
{
	uint32_t arg = 0;
	int kind = root_judge(o, node, incarnation, &arg);
	if (kind) {
		if (kind == REFUSE_FENCED && book(o, node)->state == BOOK_LOST)
			book(o, node)->since = UINT64_MAX;
		verdict(o, node, incarnation, kind, arg);
		if (kind != REFUSE_INDEX && !book(o, node)->unsafe) {
			book(o, node)->unsafe = true;
			list_add(&o->root->unsafe, node);
		}
		return;
	}
	struct book *b = book(o, node);
	bool known = b->state == BOOK_UP || b->state == BOOK_SUSPECT;
	if (known && incarnation == b->incarnation && !b->restored) {
		o->n.healed += b->state == BOOK_SUSPECT;
		b->state = BOOK_UP;
		return;
	}
	if ((known || b->restored) && incarnation != b->incarnation)
		lost(o, node, "it came back as another incarnation");
	if (b->state == BOOK_LOST)
		safe(o, node); /* it has told us that its VMs are stopped */
	if (b->state != BOOK_JOINING)
		join(o, node);
}

static void unreached(struct overlay *o, uint32_t node, bool direct)
{
	if (!is_member(o, node))
		return;
	struct book *b = book(o, node);
	b->direct = direct;
	if (b->state == BOOK_UP)
		suspect(o, node, direct ? 0 : o->c.lost_ms / 2);
	else if (b->state == BOOK_JOINING && b->restored)
		suspect(o, node, 0);
	else if (b->state == BOOK_JOINING)
		b->state = b->dead ? BOOK_SAFE : BOOK_ABSENT;
	else if (b->state == BOOK_LOST)
		b->since = o->now;
}

static bool has_chain(const struct overlay *o, uint32_t node, const struct member *r)
{
	if (!r || r->state != MEMBER_ATTACHED)
		return false;
	uint32_t at = tree_ancestor(o->c.fanout, node, r->depth);
	const struct member *parent = members_find(&o->members, at);
	return at == 0 ||
	       (is_member(o, at) && book(o, at)->reach && parent && parent->tag == r->parent_tag);
}

/* True: it matters to those below. */
static bool refresh_one(struct overlay *o, uint32_t node, bool itself)
{
	const struct member *r = members_find(&o->members, node);
	bool reach = has_chain(o, node, r);
	if (!is_member(o, node)) {
		if (reach && itself)
			reached(o, node, r->incarnation);
		return false;
	}
	struct book *b = book(o, node);
	bool before = b->reach, other = r && b->tag != r->tag;
	b->tag = r ? r->tag : 0;
	b->reach = reach;
	o->root->n_reach += (uint32_t)reach - before;
	if (reach && (!before || itself))
		reached(o, node, r->incarnation);
	else if (before && !reach)
		unreached(o, node, r && r->state > MEMBER_ATTACHED);
	else if (!reach && r && r->state > MEMBER_ATTACHED)
		b->direct = true;
	return before != reach || other;
}

void root_refresh(struct overlay *o, uint32_t node)
{
	uint32_t k = o->c.fanout;
	if (!refresh_one(o, node, true))
		return;
	/* Those below stand in one row a level, and parents stand before their children. */
	uint64_t first = (uint64_t)node * k + 1, last = (uint64_t)node * k + k;
	for (; first <= o->members.n; first = first * k + 1, last = last * k + k)
		for (uint64_t i = first; i <= last && i <= o->members.n; i++)
			if (o->members.v[i - 1].state)
				refresh_one(o, (uint32_t)i, false);
}

/* ---- Descriptions of nodes that have joined. */

static void ask(struct overlay *o, const uint32_t *nodes, uint32_t n)
{
	uint8_t items[PROTO_WHOIS_MAX * 4];
	struct proto m;
	m.type = PROTO_WHOIS;
	m.items = items;
	for (uint32_t i = 0; i < n; i += m.n) {
		for (m.n = 0; m.n < PROTO_WHOIS_MAX && i + m.n < n; m.n++)
			proto_put_node(items + 4 * m.n, nodes[i + m.n]);
		down_whois(o, &m);
	}
}

static void ask_more(struct overlay *o)
{
	struct root *r = o->root;
	uint32_t nodes[ASKED_MAX], n = 0;
	if (r->asked.n > ASKED_MAX / 2)
		return;
	while (r->next_joining < r->joining.n && r->asked.n < ASKED_MAX) {
		uint32_t node = r->joining.v[r->next_joining++];
		if (book(o, node)->state != BOOK_JOINING || book(o, node)->asked)
			continue;
		book(o, node)->asked = true;
		list_add(&r->asked, node);
		nodes[n++] = node;
	}
	if (r->next_joining == r->joining.n)
		r->next_joining = r->joining.n = 0;
	if (n)
		ask(o, nodes, n);
}

/* Those that have not answered may have moved on, or the question was lost with a link. */
static void ask_again(struct overlay *o)
{
	struct root *r = o->root;
	uint32_t nodes[ASKED_MAX], n = 0;
	if (o->now < r->ask_again)
		return;
	r->ask_again = o->now + 2 * o->c.beat_ms;
	for (uint32_t i = 0; i < r->asked.n;) {
		uint32_t node = r->asked.v[i];
		if (book(o, node)->state == BOOK_JOINING) {
			nodes[n++] = node;
			i++;
			continue;
		}
		book(o, node)->asked = false;
		r->asked.v[i] = r->asked.v[--r->asked.n];
	}
	if (n)
		ask(o, nodes, n);
}

void root_info(struct overlay *o, uint32_t node, uint32_t incarnation, const char *address,
	       const void *resources, size_t len)
{
	struct root *r = o->root;
	const struct member *m = members_find(&o->members, node);
	if (!is_member(o, node) || !m || m->incarnation != incarnation)
		return;
	struct book *b = book(o, node);
	for (uint32_t i = 0; b->asked && i < r->asked.n; i++)
		if (r->asked.v[i] == node) {
			r->asked.v[i] = r->asked.v[--r->asked.n];
			b->asked = false;
		}
	if (b->state != BOOK_JOINING)
		return;
	b->state = BOOK_UP;
	b->incarnation = incarnation;
	b->restored = false;
	if (address) {
		free(b->address);
		b->address = xstrdup(address);
	}
	act(o, OVERLAY_NODE_UP, overlay_hop(o, node), node, NULL)->incarnation = incarnation;
	act_data(o, resources, len, b->address);
}

/* ---- Suspects. */

static void probe(struct overlay *o, uint32_t node)
{
	struct book *b = book(o, node);
	struct link *l = o->root->n_probes < PROBES_MAX ? link_new(o, LINK_PROBE, node) : NULL;
	if (!l)
		return;
	b->probe = link_id(o, l);
	b->probe_at = o->now + o->c.lost_ms / 2;
	o->root->n_probes++;
	o->n.probed++;
	act(o, OVERLAY_CONNECT, b->probe, node, NULL);
	act_data(o, NULL, 0, b->address);
}

static void end_probe(struct overlay *o, struct link *l)
{
	struct book *b = book(o, l->node);
	if (b->probe == link_id(o, l))
		b->probe = 0;
	o->root->n_probes--;
	link_free(o, l);
}

/* Two beats more than the loss of a link takes: should our own network be the cause, all links are lost by then. */
static bool is_over(const struct overlay *o, const struct book *b)
{
	return !o->root->alone && o->now - b->alive >= o->c.lost_ms + 2 * o->c.beat_ms;
}

void root_probe_connected(struct overlay *o, struct link *l)
{
	const struct member *r = members_find(&o->members, l->node);
	struct proto m;
	proto_hello_head(o, &m, PROTO_PROBE, l->node);
	m.incarnation = r ? r->incarnation : book(o, l->node)->incarnation;
	m.seq = r ? r->seq : 0;
	m.flags = r && r->state > MEMBER_ATTACHED;
	link_send(o, l, &m);
}

void root_probe_done(struct overlay *o, struct link *l, bool is_refused)
{
	uint32_t node = l->node;
	struct book *b = book(o, node);
	end_probe(o, l);
	if (b->state != BOOK_SUSPECT)
		return;
	if (is_refused)
		lost(o, node, "its agent is gone: nobody listens there");
	else if (is_over(o, b))
		lost(o, node, "silent, and not to be reached");
}

void root_alive(struct overlay *o, struct link *l, const struct proto *m)
{
	uint64_t epoch = m->epoch;
	struct book *b = book(o, l->node);
	bool mine = m->node == l->node && memcmp(m->cluster, o->c.cluster, sizeof(m->cluster)) == 0;
	act(o, OVERLAY_CLOSE, link_id(o, l), l->node, mine ? "it lives" : "another agent listens there");
	if (!mine) {
		root_probe_done(o, l, true);
		return;
	}
	end_probe(o, l);
	b->alive = o->now;
	b->probe_at = o->now + o->c.lost_ms / 2;
	if (epoch > o->epoch)
		overlay_end(o, "a newer root has taken over");
}

static void check_suspect(struct overlay *o, uint32_t node)
{
	struct book *b = book(o, node);
	uint64_t waited = o->now - b->since;
	struct link *l = link_of(o, b->probe);
	if (waited > o->c.give_up_ms + o->c.lost_ms) {
		lost(o, node, "out of reach for too long");
	} else if (l) {
		if (o->now - l->heard <= o->c.lost_ms / 2)
			return;
		act(o, OVERLAY_CLOSE, b->probe, node, "no answer in time");
		root_probe_done(o, l, false);
	} else if (b->address && o->now >= b->probe_at) {
		probe(o, node);
	} else if (!b->address && !b->restored && is_over(o, b)) {
		lost(o, node, "silent, and its address is not known");
	}
}

static void check_suspects(struct overlay *o)
{
	struct list *l = &o->root->suspects;
	uint32_t kept = 0;
	o->root->check = false;
	if (o->root->alone && o->root->n_reach)
		for (uint32_t i = 0; i < l->n; i++) { /* they get their time to come back now */
			book(o, l->v[i])->since = book(o, l->v[i])->alive = o->now;
			book(o, l->v[i])->probe_at = o->now + o->c.lost_ms;
		}
	o->root->alone = !o->root->n_reach;
	for (uint32_t i = 0; i < l->n && !o->ended; i++) {
		uint32_t node = l->v[i];
		if (book(o, node)->state == BOOK_SUSPECT)
			check_suspect(o, node);
		book(o, node)->suspected = book(o, node)->state == BOOK_SUSPECT;
		if (book(o, node)->suspected)
			l->v[kept++] = node;
	}
	l->n = kept;
}

/* The verdict may have been lost with a link. */
static bool tell_again(struct overlay *o, uint32_t node)
{
	uint32_t arg = 0, incarnation = members_find(&o->members, node)->incarnation;
	int kind = root_judge(o, node, incarnation, &arg);
	if (kind)
		verdict(o, node, incarnation, kind, arg);
	return kind;
}

static void check_unsafe(struct overlay *o)
{
	struct list *l = &o->root->unsafe;
	uint64_t bound = o->c.give_up_ms + o->c.lost_ms + 2 * o->c.beat_ms;
	uint32_t kept = 0;
	for (uint32_t i = 0; i < l->n; i++) {
		struct book *b = book(o, l->v[i]);
		bool told = b->reach && tell_again(o, l->v[i]);
		if (b->state == BOOK_LOST && b->since != UINT64_MAX && o->now - b->since > bound)
			safe(o, l->v[i]);
		b->unsafe = b->state == BOOK_LOST || told;
		if (b->unsafe)
			l->v[kept++] = l->v[i];
	}
	l->n = kept;
}

void root_pump(struct overlay *o)
{
	if (o->root->check)
		check_suspects(o);
	if (o->root->joining.n && !o->ended)
		ask_more(o);
}

void root_tick(struct overlay *o)
{
	check_suspects(o);
	check_unsafe(o);
	ask_again(o);
}

/* ---- From outside. */

void root_start(struct overlay *o)
{
	struct root *r = o->root;
	for (uint32_t node = 1; node <= r->n; node++) {
		struct book *b = book(o, node);
		if (b->restored)
			suspect(o, node, 2 * o->c.lost_ms);
		else if (b->state == BOOK_LOST)
			set_lost(o, node);
	}
}

void overlay_restore(struct overlay *o, uint32_t node, uint32_t incarnation, bool is_lost,
		     const char *address)
{
	if (!o->root || !is_member(o, node) || !incarnation)
		return;
	struct book *b = book(o, node);
	b->incarnation = incarnation;
	b->dead = is_lost ? incarnation : incarnation - 1;
	b->restored = !is_lost;
	b->state = is_lost ? BOOK_LOST : BOOK_SUSPECT;
	free(b->address);
	b->address = xstrdup(address);
}

void overlay_grow(struct overlay *o, uint64_t now, uint32_t n_nodes)
{
	o->now = now;
	if (o->root && n_nodes > o->root->n && n_nodes < OVERLAY_NODES_MAX)
		set_n(o->root, n_nodes);
}

void overlay_remove(struct overlay *o, uint64_t now, uint32_t node)
{
	o->now = now;
	if (!o->root || !is_member(o, node) || book(o, node)->removed)
		return;
	struct book *b = book(o, node);
	const struct member *r = members_find(&o->members, node);
	b->removed = true;
	if (b->state == BOOK_UP || b->state == BOOK_SUSPECT)
		lost(o, node, "removed");
	b->dead = MAX(b->dead, r ? r->incarnation : 0);
	if (b->state == BOOK_JOINING)
		b->state = BOOK_SAFE;
	if (b->reach)
		verdict(o, node, b->dead, REFUSE_REMOVED, 0);
	root_pump(o);
}

void overlay_readmit(struct overlay *o, uint64_t now, uint32_t node)
{
	o->now = now;
	if (o->root && is_member(o, node))
		book(o, node)->removed = false;
}

bool overlay_up(const struct overlay *o, uint32_t node)
{
	return o->root && is_member(o, node) &&
	       (book(o, node)->state == BOOK_UP || book(o, node)->state == BOOK_SUSPECT) &&
	       !book(o, node)->restored;
}
