/* SPDX-License-Identifier: Apache-2.0 */
/* Calls to sets of nodes: down the tree by overlay_hop(), answers folded by fanout on the way up, as the agent does it
 * (agent/spread.c): nobody is asked twice, who is lost on the way is named by whoever loses him. */
#include <string.h>

#include "base/alloc.h"
#include "world.h"

#define ASK 1u
#define ANSWER 2u
#define LOST UINT32_MAX /* the answer for a node that was lost on the way */

struct request {
	uint32_t id, link; /* id: the hop of fanout */
};

struct call {
	struct call *next;
	uint64_t id;
	struct fanout *f;
	struct issued *truth; /* at the root */
	struct request *requests;
	uint32_t n_requests;
	uint32_t from, from_request;
};

struct words {
	uint32_t *v;
	uint32_t n, cap;
};

static void word(struct words *w, uint32_t x)
{
	if (w->n == w->cap) {
		w->cap = w->cap ? w->cap * 2 : 64;
		w->v = xreallocarray(w->v, w->cap, 4);
	}
	w->v[w->n++] = x;
}

static void ranges(struct words *w, const struct rankset *s)
{
	uint32_t at = w->n;
	word(w, 0);
	for (uint32_t a = rankset_next(s, 0); a != UINT32_MAX;) {
		uint32_t b = a;
		while (rankset_has(s, b + 1))
			b++;
		word(w, a);
		word(w, b);
		w->v[at]++;
		a = rankset_next(s, b + 1);
	}
}

static const uint32_t *read_ranges(const uint32_t *p, struct rankset *s)
{
	uint32_t n = *p++;
	for (; n--; p += 2)
		rankset_add_range(s, p[0], p[1]);
	return p;
}

static void call_free(struct agent *a, struct call *c)
{
	struct call **at = &a->calls;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	fanout_destroy(c->f);
	free(c->requests);
	free(c);
}

static void close_retired(struct world *w, struct agent *a, uint32_t link)
{
	struct conn *conn;
	struct end *e = net_end(a, link, &conn);
	if (!e || !e->retiring)
		return;
	for (struct call *c = a->calls; c; c = c->next)
		if (c->from == link)
			return;
	net_close(w, a, link);
	overlay_closed(a->o, w->now, link);
}

void calls_retire(struct world *w, struct agent *a, uint32_t link)
{
	struct conn *conn;
	struct end *e = net_end(a, link, &conn);
	if (e)
		e->retiring = true;
	close_retired(w, a, link);
}

/* ---- The truth. */

static struct issued *truth_of(struct world *w, uint64_t id)
{
	return &w->issued[id - 1];
}

static void check_groups(struct world *w, struct call *c)
{
	_cleanup_rankset_ struct rankset all = RANKSET_INIT;
	struct issued *t = c->truth;
	for (uint32_t i = 0; i < fanout_groups(c->f); i++) {
		_cleanup_rankset_ struct rankset set = RANKSET_INIT;
		struct fanout_group g;
		uint32_t value = LOST;
		fanout_group(c->f, i, &g, &set);
		if (!g.dead)
			memcpy(&value, g.answer, sizeof(value));
		bool dead = value == LOST;
		for (uint32_t m = rankset_next(&set, 0); m != UINT32_MAX;
		     m = rankset_next(&set, m + 1)) {
			if (rankset_has(&all, m))
				fail(w, "call %llu: member %u is settled twice",
				     (unsigned long long)c->id, m);
			rankset_add(&all, m);
			if (!dead && (!t->ran[m] || value != m % 3))
				fail(w, "call %llu: reported done on node %u, which never ran it",
				     (unsigned long long)c->id, m);
			w->n_dead_named += dead;
			if (dead && !w->had_faults)
				fail(w, "call %llu: node %u is named dead in a world without faults",
				     (unsigned long long)c->id, m);
		}
	}
	bool same = rankset_count(&all) == rankset_count(&t->members);
	for (uint32_t m = rankset_next(&all, 0); same && m != UINT32_MAX; m = rankset_next(&all, m + 1))
		same = rankset_has(&t->members, m);
	if (!same)
		fail(w, "call %llu: complete without all of its members", (unsigned long long)c->id);
	if (t->done)
		fail(w, "call %llu: complete twice", (unsigned long long)c->id);
	t->done = true;
	w->n_calls_done++;
}

/* ---- On the way. */

static void send_up(struct world *w, struct agent *a, struct call *c, bool done)
{
	struct words out = {0};
	struct fanout_group g;
	word(&out, ANSWER);
	word(&out, c->from_request);
	word(&out, done);
	word(&out, 0);
	for (;;) {
		_cleanup_rankset_ struct rankset set = RANKSET_INIT;
		uint32_t value = LOST;
		if (!fanout_take(c->f, &g, &set))
			break;
		if (!g.dead)
			memcpy(&value, g.answer, sizeof(value));
		out.v[3]++;
		word(&out, value);
		ranges(&out, &set);
	}
	if (done || out.v[3])
		net_send(w, a, c->from, EV_APP, out.v, out.n * (size_t)4);
	free(out.v);
}

/* True: the call is over and gone. */
static bool progress(struct world *w, struct agent *a, struct call *c)
{
	bool done = fanout_done(c->f);
	uint32_t from = c->from;
	if (!c->truth && (done || c->id % 2))
		send_up(w, a, c, done);
	if (!done)
		return false;
	if (c->truth)
		check_groups(w, c);
	call_free(a, c);
	if (from)
		close_retired(w, a, from);
	return true;
}

static void ask_hop(struct world *w, struct agent *a, struct call *c, uint32_t link,
		    const struct rankset *set)
{
	struct words out = {0};
	uint32_t request = ++a->next_request;
	c->requests = xreallocarray(c->requests, c->n_requests + (size_t)1, sizeof(*c->requests));
	c->requests[c->n_requests++] = (struct request){request, link};
	fanout_assign(c->f, request, set);
	word(&out, ASK);
	word(&out, request);
	word(&out, (uint32_t)c->id);
	ranges(&out, set);
	net_send(w, a, link, EV_APP, out.v, out.n * (size_t)4);
	free(out.v);
}

static void ask_self(struct world *w, struct agent *a, struct call *c)
{
	_cleanup_rankset_ struct rankset me = RANKSET_INIT;
	struct event *e = event_new(EV_RAN);
	rankset_add(&me, a->index);
	fanout_assign(c->f, FANOUT_LOCAL, &me);
	e->a = a->id;
	e->b = a->life;
	e->len = (uint32_t)c->id;
	queue_at(w, e, w->now + rnd(w, 300));
}

/* Who is assigned nowhere goes to whatever hop there is. */
static void distribute(struct world *w, struct agent *a, struct call *c, const struct rankset *who)
{
	_cleanup_rankset_ struct rankset rest = RANKSET_INIT;
	for (uint32_t m = rankset_next(who, 0); m != UINT32_MAX; m = rankset_next(who, m + 1))
		rankset_add(&rest, m);
	if (rankset_has(&rest, a->index) && a->id <= w->n_max) {
		rankset_del(&rest, a->index);
		ask_self(w, a, c);
	}
	uint32_t n = a->n_conns + 1; /* one set a slot; the last is for those without a way */
	struct rankset *sets = xcalloc(n, sizeof(*sets));
	for (uint32_t m = rankset_next(&rest, 0); m != UINT32_MAX; m = rankset_next(&rest, m + 1)) {
		uint32_t link = overlay_hop(a->o, m);
		rankset_add(&sets[link ? link & 0xffff : n - 1], m);
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t first = rankset_next(&sets[i], 0);
		if (first == UINT32_MAX)
			continue;
		if (i + 1 < n)
			ask_hop(w, a, c, overlay_hop(a->o, first), &sets[i]);
		else
			fanout_dead(c->f, &sets[i], "lost", 4);
		rankset_finish(&sets[i]);
	}
	free(sets);
}

void calls_link_lost(struct world *w, struct agent *a, uint32_t link)
{
	for (struct call *c = a->calls, *next; c; c = next) {
		next = c->next;
		if (c->from == link && !c->truth) {
			call_free(a, c);
			continue;
		}
		for (uint32_t i = 0; i < c->n_requests; i++) {
			_cleanup_rankset_ struct rankset lost = RANKSET_INIT;
			if (c->requests[i].link != link)
				continue;
			fanout_lost(c->f, c->requests[i].id, &lost);
			fanout_dead(c->f, &lost, "lost", 4);
			c->requests[i--] = c->requests[--c->n_requests];
		}
		progress(w, a, c);
	}
}

void calls_drop(struct world *w, struct agent *a)
{
	(void)w;
	while (a->calls) {
		if (a->calls->truth)
			a->calls->truth->dropped = true;
		call_free(a, a->calls);
	}
}

static void on_ask(struct world *w, struct agent *a, uint32_t link, const uint32_t *p)
{
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	struct call *c = xcalloc(1, sizeof(*c));
	c->from = link;
	c->from_request = p[1];
	c->id = p[2];
	read_ranges(p + 3, &set);
	c->f = fanout_create(&set);
	c->next = a->calls;
	a->calls = c;
	distribute(w, a, c, &set);
	progress(w, a, c);
}

static void on_answer(struct world *w, struct agent *a, uint32_t link, const uint32_t *p)
{
	uint32_t i = 0, request = p[1], groups = p[3];
	bool last = p[2];
	struct call *c = a->calls;
	for (; c; c = c->next) {
		for (i = 0; i < c->n_requests && c->requests[i].id != request; i++)
			;
		if (i < c->n_requests)
			break;
	}
	if (!c || c->requests[i].link != link)
		return;
	for (p += 4; groups--;) {
		_cleanup_rankset_ struct rankset set = RANKSET_INIT;
		uint32_t value = p[0];
		p = read_ranges(p + 1, &set);
		fanout_answer(c->f, request, &set, &value, sizeof(value));
	}
	if (last) {
		if (fanout_outstanding(c->f, request, NULL))
			fail(w, "agent %u: an answer said to be the last leaves members open", a->id);
		c->requests[i] = c->requests[--c->n_requests];
	}
	progress(w, a, c);
}

void calls_message(struct world *w, struct agent *a, uint32_t link, const void *data, size_t len)
{
	uint32_t *p = xmalloc(len); /* aligned */
	memcpy(p, data, len);
	if (p[0] == ASK)
		on_ask(w, a, link, p);
	else
		on_answer(w, a, link, p);
	free(p);
	agent_actions(w, a);
}

void calls_ran(struct world *w, struct agent *a, const struct event *e)
{
	struct issued *t = truth_of(w, e->len);
	uint32_t value = a->index % 3;
	_cleanup_rankset_ struct rankset me = RANKSET_INIT;
	if (!a->o || a->life != e->b)
		return;
	if (t->ran[a->index])
		fail(w, "call %u ran twice on node %u", e->len, a->index);
	t->ran[a->index]++;
	rankset_add(&me, a->index);
	for (struct call *c = a->calls, *next; c; c = next) {
		next = c->next;
		if (c->id == e->len && fanout_answer(c->f, FANOUT_LOCAL, &me, &value, sizeof(value)))
			progress(w, a, c);
	}
	agent_actions(w, a);
}

/* ---- The one who asks. */

void calls_issue(struct world *w)
{
	struct agent *a = agent_of(w, w->root);
	struct issued *t = &w->issued[w->n_issued];
	struct call *c = xcalloc(1, sizeof(*c));
	*t = (struct issued){.id = ++w->n_issued, .at = w->now};
	t->ran = xcalloc(w->n_max + (size_t)1, sizeof(*t->ran));
	uint32_t part = t->id % 3 == 0 ? 1 : 1 + rnd(w, MAX(w->n / 20, 2u));
	for (uint32_t node = 1; node <= w->n; node++)
		if (w->books[node].up && (part == 1 || !rnd(w, part)))
			rankset_add(&t->members, node);
	c->id = t->id;
	c->truth = t;
	c->f = fanout_create(&t->members);
	c->next = a->calls;
	a->calls = c;
	distribute(w, a, c, &t->members);
	progress(w, a, c);
	agent_actions(w, a);
}

void calls_wake(struct world *w)
{
	struct agent *a = agent_of(w, w->root);
	struct event *e = event_new(EV_CALLER);
	queue_at(w, e, w->now + 500);
	if (!a->o)
		return;
	if (w->n_issued < (w->n > 2000 ? 3u : CALLS_MAX) && w->now + 3 * w->lost_ms < w->end_at &&
	    !rnd(w, 3))
		calls_issue(w);
	agent_actions(w, a);
}
