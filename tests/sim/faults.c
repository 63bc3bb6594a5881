/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong, planned from the seed before the world begins. All cuts are healed in the end; who is dead may
 * stay so. */
#include <stdio.h>

#include "base/macros.h"
#include "overlay/overlay.h"
#include "world.h"

enum fault {
	START,   /* a node's first process */
	KILL,    /* SIGKILL: its connections are closed by the kernel */
	RESTART, /* a new process, without VMs */
	EXEC,    /* a new process that keeps the VMs */
	CRASH,   /* the host is off: nobody says anything */
	RETURN,  /* it is on again */
	ISOLATE, /* it lives, but nothing gets through */
	REJOIN,
	CUT, /* between a node and one of its ancestors; b: packed */
	MEND,
	ISLAND, /* a whole subtree is cut off */
	MAINLAND,
	SLOW,
	FAST,
	RACK, /* a node and all its children are killed at once */
	GROW,
	REMOVE,
	READMIT,
	ROOT_KILL,
	ROOT_BACK,  /* the same place, a higher epoch */
	ROOT_ALONE, /* it is cut off, and a new one begins elsewhere */
	ROOT_NEW,
};

static void plan(struct world *w, enum fault what, uint32_t node, uint64_t at, uint32_t more)
{
	struct event *e = event_new(EV_FAULT);
	e->a = what;
	e->b = node;
	e->len = more;
	queue_at(w, e, at);
}

static uint32_t victim(struct world *w)
{
	uint32_t inner = (w->n - 1) / w->opt.fanout;
	if (inner && rnd(w, 2))
		return 1 + rnd(w, inner);
	return 1 + rnd(w, w->n);
}

static void plan_one(struct world *w, uint64_t from, uint64_t until)
{
	uint32_t node = victim(w), span = (uint32_t)(until - from);
	uint64_t at = from + rnd(w, span);
	uint64_t later = at + 1 + rnd(w, span);
	later = MIN(later, until);
	switch (rnd(w, 16)) {
	case 0:
	case 1:
		plan(w, KILL, node, at, 0);
		if (rnd(w, 2))
			plan(w, RESTART, node, later, 0);
		break;
	case 2:
	case 3:
		plan(w, CRASH, node, at, 0);
		if (rnd(w, 2))
			plan(w, RETURN, node, later, 0);
		break;
	case 4:
	case 5:
	case 6:
		plan(w, ISOLATE, node, at, 0);
		if (!w->to_the_end || rnd(w, 2)) /* else it has to end itself */
			plan(w, REJOIN, node, later, 0);
		break;
	case 7:
	case 8:
	case 9:
		plan(w, CUT, node, at, rnd(w, 1u << 16));
		plan(w, MEND, node, later, 0);
		break;
	case 10:
		plan(w, ISLAND, node, at, 0);
		if (!w->to_the_end || rnd(w, 2))
			plan(w, MAINLAND, node, later, 0);
		break;
	case 11:
		plan(w, SLOW, node, at, 50 + rnd(w, w->lost_ms / 6));
		plan(w, FAST, node, later, 0);
		break;
	case 12: plan(w, RACK, node, at, 0); break;
	case 13: plan(w, EXEC, node, at, 0); break;
	case 14:
		plan(w, REMOVE, node, at, 0);
		if (rnd(w, 2))
			plan(w, READMIT, node, later, 0);
		break;
	default: plan(w, GROW, 0, at, 0);
	}
}

static void plan_root(struct world *w, uint64_t from, uint64_t until)
{
	uint32_t span = (uint32_t)(until - from);
	uint64_t at = from + rnd(w, span), back = at + rnd(w, span);
	back = MIN(back, until);
	switch (rnd(w, 6)) {
	case 0:
		plan(w, ROOT_KILL, 0, at, 0);
		plan(w, ROOT_BACK, 0, back, 0);
		break;
	case 1:
		plan(w, ROOT_ALONE, 0, at, 0);
		plan(w, ROOT_NEW, 0, back, 0);
		break;
	default: break;
	}
}

void faults_plan(struct world *w)
{
	uint64_t from = 4 * w->beat_ms;
	uint64_t until = from + (8 + (w->n > 2000 ? 0 : rnd(w, 8))) * w->beat_ms;
	uint64_t settle = 5 * w->lost_ms + 5 * w->beat_ms;
	w->to_the_end = !rnd(w, 8);
	/* What is lost becomes safe, who is cut off ends; and where every node may be dead, the root blames its own
	 * network as long as that. */
	if (w->to_the_end || w->n <= 8)
		settle += w->give_up_ms + 3 * w->lost_ms;
	for (uint32_t i = 1; i <= w->n; i++) {
		bool late = !w->opt.scale && !rnd(w, 20);
		plan(w, START, i, rnd(w, late ? (uint32_t)until : w->beat_ms), 0);
	}
	w->end_at = until + settle;
	if (w->opt.no_faults)
		return;
	w->had_faults = true;
	uint32_t n = 1 + rnd(w, 6) + rnd(w, w->n / 64 + 1);
	for (uint32_t i = 0; i < MIN(n, 40u); i++)
		plan_one(w, from, until);
	plan_root(w, from, until);
}

static void start(struct world *w, struct agent *a, uint32_t incarnation)
{
	if (!a->o && !a->removed && !a->silent)
		agent_start(w, a, incarnation);
}

static bool in_subtree(const struct world *w, uint32_t top, uint32_t node)
{
	while (node > top)
		node = overlay_tree_parent(w->opt.fanout, node);
	return node == top;
}

static void island(struct world *w, uint32_t top, uint32_t id)
{
	for (uint32_t i = top; i <= w->n_max; i++)
		if (in_subtree(w, top, i)) {
			w->agents[i].island = id;
			w->agents[i].touched = true;
		}
	for (uint32_t i = top; i <= w->n_max; i++)
		if (in_subtree(w, top, i))
			net_recheck(w, i);
}

static void cut(struct world *w, uint32_t node, uint32_t more)
{
	uint32_t up = node, steps = 1 + more % 3;
	while (steps-- && up)
		up = overlay_tree_parent(w->opt.fanout, up);
	if (!up)
		up = w->root;
	if (w->n_cuts + 2 > 64)
		return;
	if (more & 4 || more & 16)
		w->cuts[w->n_cuts++] = (struct cut){.a = node, .b = up};
	if (!(more & 4) || more & 16)
		w->cuts[w->n_cuts++] = (struct cut){.a = up, .b = node};
	agent_of(w, node)->touched = true;
	net_recheck(w, node);
}

static void mend(struct world *w, uint32_t node)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < w->n_cuts; i++)
		if (w->cuts[i].a != node && w->cuts[i].b != node)
			w->cuts[kept++] = w->cuts[i];
	w->n_cuts = kept;
	net_recheck(w, node);
}

static void silence(struct world *w, struct agent *a, bool silent)
{
	a->silent = silent;
	a->touched = true;
	net_recheck(w, a->id);
}

static void hint_root(struct world *w, struct agent *a)
{
	char address[24];
	if (!a->o || a->id > w->n_max)
		return;
	snprintf(address, sizeof(address), "r%u:1000", w->root - w->n_max - 1);
	overlay_hint(a->o, w->now, 0, address);
	agent_actions(w, a);
}

static void rack(struct world *w, uint32_t node)
{
	uint64_t k = w->opt.fanout;
	for (uint64_t i = k * node + 1; i <= k * node + k && i <= w->n; i++) {
		agent_of(w, (uint32_t)i)->touched = true;
		agent_kill(w, agent_of(w, (uint32_t)i));
	}
	agent_kill(w, agent_of(w, node));
}

static void grow(struct world *w)
{
	uint32_t n = w->n + 1 + rnd(w, w->n / 20 + 1);
	n = MIN(n, w->n_max);
	struct agent *root = agent_of(w, w->root);
	if (!root->o || root->silent)
		return; /* who would say so? */
	overlay_grow(root->o, w->now, n);
	for (uint32_t i = w->n + 1; i <= n; i++)
		plan(w, START, i, w->now + rnd(w, w->beat_ms), 0);
	w->n = n;
}

static void remove_node(struct world *w, struct agent *a)
{
	struct agent *root = agent_of(w, w->root);
	if (!root->o)
		return;
	a->removed = a->touched = true;
	overlay_remove(root->o, w->now, a->index);
	agent_actions(w, root);
}

static void readmit(struct world *w, struct agent *a)
{
	struct agent *root = agent_of(w, w->root);
	if (!root->o || !a->removed || a->o)
		return; /* its process has to be gone first */
	a->removed = false;
	overlay_readmit(root->o, w->now, a->index);
	start(w, a, 0);
}

static void root_new(struct world *w)
{
	if (w->n_roots >= ROOTS_MAX)
		return;
	root_begin(w, w->n_roots++);
	for (uint32_t i = 1; i <= w->n; i++)
		if (!w->agents[i].silent && !w->agents[i].island)
			hint_root(w, &w->agents[i]);
}

static void hint_all(struct world *w)
{
	for (uint32_t i = 1; i <= w->n; i++)
		if (!w->agents[i].silent && !w->agents[i].island)
			hint_root(w, &w->agents[i]);
}

void faults_do(struct world *w, const struct event *e)
{
	struct agent *a = agent_of(w, e->b);
	enum fault what = (enum fault)e->a;
	if (w->opt.verbose && what != START)
		printf("# %llu fault %u on %u (%u)\n", (unsigned long long)w->now, e->a, e->b, e->len);
	a->touched |= what != START && e->b;
	switch (what) {
	case START: start(w, a, 1); break;
	case KILL: agent_kill(w, a); break;
	case RESTART: start(w, a, 0); break;
	case EXEC:
		if (!a->silent)
			agent_exec(w, a);
		break;
	case CRASH:
		a->silent = true;
		net_recheck(w, a->id);
		agent_kill(w, a);
		break;
	case RETURN:
		silence(w, a, false);
		start(w, a, 0);
		break;
	case ISOLATE: silence(w, a, true); break;
	case REJOIN:
		silence(w, a, false);
		hint_root(w, a);
		break;
	case CUT: cut(w, e->b, e->len); break;
	case MEND: mend(w, e->b); break;
	case ISLAND: island(w, e->b, e->b); break;
	case MAINLAND:
		island(w, e->b, 0);
		hint_all(w);
		break;
	case SLOW: a->slow = e->len; break;
	case FAST: a->slow = 0; break;
	case RACK: rack(w, e->b); break;
	case GROW: grow(w); break;
	case REMOVE: remove_node(w, a); break;
	case READMIT: readmit(w, a); break;
	case ROOT_KILL: agent_kill(w, agent_of(w, w->root)); break;
	case ROOT_BACK: root_begin(w, w->root - w->n_max - 1); break;
	case ROOT_ALONE: silence(w, agent_of(w, w->root), true); break;
	case ROOT_NEW:
		silence(w, agent_of(w, w->root), false);
		root_new(w);
		break;
	}
}
