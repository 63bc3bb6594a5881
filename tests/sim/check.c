/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold when all is quiet again. What must hold always is checked where it happens: no VM at two places
 * (cluster.c), no call complete that is not (calls.c), bounded queues (world.c). */
#include "base/macros.h"
#include "overlay/overlay.h"
#include "world.h"

static unsigned log_k(uint64_t n, uint32_t k)
{
	unsigned d = 0;
	for (uint64_t all = 1, width = 1; all <= n; d++) {
		width *= k;
		all += width;
	}
	return d;
}

/* Goes from the root to a node as a request would. Gives the number of hops, or UINT32_MAX. */
static uint32_t walk(struct world *w, uint32_t node)
{
	struct agent *a = agent_of(w, w->root);
	uint32_t hops = 0;
	while (a->o && a->index != node) {
		struct conn *c;
		uint32_t link = overlay_hop(a->o, node);
		const struct end *e = link ? net_end(a, link, &c) : NULL;
		if (!e || hops++ > 64)
			return UINT32_MAX;
		const struct end *other = e == &c->end[0] ? &c->end[1] : &c->end[0];
		if (!other->open)
			return UINT32_MAX;
		a = agent_of(w, other->agent);
	}
	return a->o ? hops : UINT32_MAX;
}

static void check_node(struct world *w, struct agent *a)
{
	struct overlay *root = agent_of(w, w->root)->o;
	bool lives = a->o && !a->removed;
	if (a->o && (a->silent || a->island))
		fail(w, "node %u is cut off for good and still runs", a->index);
	if (a->removed && a->o && !w->failure[0])
		fail(w, "node %u was removed and still runs", a->index);
	if (!lives && overlay_up(root, a->index))
		fail(w, "node %u is dead, and the root has not noticed", a->index);
	if (lives && !overlay_up(root, a->index))
		fail(w, "node %u lives (incarnation %u, parent %d), and the root does not have it",
		     a->index, overlay_incarnation(a->o), (int)overlay_parent(a->o, NULL));
	if (!lives)
		return;
	uint32_t hops = walk(w, a->index);
	if (hops > overlay_tree_depth(w->opt.fanout, a->index))
		fail(w, "node %u is not to be reached from the root (%d hops)", a->index, (int)hops);
	w->max_depth = MAX(w->max_depth, hops);
	if (w->books[a->index].incarnation != a->incarnation)
		fail(w, "node %u: the root's incarnation %u is not its own %u", a->index,
		     w->books[a->index].incarnation, a->incarnation);
	if (!a->touched && (a->incarnation != 1 || a->life != 1))
		fail(w, "node %u had no fault of its own, and is incarnation %u", a->index,
		     a->incarnation);
	if (!a->touched && w->vms[a->index].runs_at != a->index)
		fail(w, "node %u had no fault of its own, and its VMs do not run", a->index);
}

static void check_memory(struct world *w, struct agent *a)
{
	size_t bytes = overlay_memory(a->o), below = 0;
	uint64_t first = a->index, width = 1;
	while (first * w->opt.fanout + 1 <= w->n_max) {
		first = first * w->opt.fanout + 1;
		width *= w->opt.fanout;
		below += MIN(width, w->n_max - first + 1);
	}
	/* Records, the queue, and their growth by halves and doubles; the root keeps its books too. */
	size_t bound = 8192 + below * (a->index ? 40 : 200) + a->peak_open * (size_t)640;
	if (bytes > bound)
		fail(w, "agent %u keeps %zu bytes for %zu nodes below it and %u links (bound %zu)",
		     a->id, bytes, below, a->peak_open, bound);
	w->max_memory = MAX(w->max_memory, bytes);
}

void check_end(struct world *w)
{
	struct agent *root = agent_of(w, w->root);
	if (!root->o) {
		fail(w, "the root is not there");
		return;
	}
	for (uint32_t i = 1; i <= w->n; i++)
		check_node(w, agent_of(w, i));
	for (uint32_t i = 1; i <= w->n_max + ROOTS_MAX; i++) {
		struct agent *a = agent_of(w, i);
		if (a->o)
			check_memory(w, a);
		if (a->o && i > w->n_max && i != w->root)
			fail(w, "a root of the past still runs");
	}
	if (w->max_depth > log_k(w->n_max, w->opt.fanout))
		fail(w, "a depth of %u with %u nodes and a fan-out of %u", w->max_depth, w->n,
		     w->opt.fanout);
	for (uint32_t i = 0; i < w->n_issued; i++)
		if (!w->issued[i].done && !w->issued[i].dropped)
			fail(w, "call %u never ended", i + 1);
}
