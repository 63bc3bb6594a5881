/* SPDX-License-Identifier: Apache-2.0 */
/* What the root does with VMs: each node has one set of them; when the set is lost for sure it is started again on
 * another node. The world knows where each really runs: never at two places. */
#include <stdio.h>

#include "base/macros.h"
#include "world.h"

static void order(struct world *w, uint32_t vm, uint32_t node)
{
	struct place *p = &w->vms[vm];
	struct event *e = event_new(EV_START_VM);
	*p = (struct place){.node = node,
			    .incarnation = w->books[node].incarnation,
			    .state = VM_ORDERED,
			    .runs_at = p->runs_at,
			    .runs_life = p->runs_life};
	e->a = node;
	e->b = vm;
	e->len = p->incarnation;
	queue_at(w, e, w->now + 1 + rnd(w, 20));
}

static uint32_t some_node(struct world *w)
{
	for (int tries = 0; tries < 64; tries++) {
		uint32_t node = 1 + rnd(w, w->n);
		if (w->books[node].up)
			return node;
	}
	return 0;
}

void cluster_up(struct world *w, uint32_t node, uint32_t incarnation, const char *address)
{
	struct journal *j = &w->books[node];
	if (j->up && j->incarnation != incarnation)
		fail(w, "node %u is reported up as %u while it is up as %u", node, incarnation,
		     j->incarnation);
	if (j->lost && incarnation <= j->incarnation)
		fail(w, "node %u is let in as %u, which was declared lost", node, incarnation);
	*j = (struct journal){.incarnation = incarnation, .up = true};
	snprintf(j->address, sizeof(j->address), "%s", address ? address : "");
	if (w->vms[node].state == VM_NONE)
		order(w, node, node);
	for (uint32_t vm = 1; w->had_faults && vm <= w->n && vm < 200; vm++)
		if (w->vms[vm].state == VM_WAITING && w->books[w->vms[vm].node].safe &&
		    w->books[w->vms[vm].node].incarnation >= w->vms[vm].incarnation)
			order(w, vm, node);
}

void cluster_lost(struct world *w, uint32_t node, uint32_t incarnation)
{
	struct journal *j = &w->books[node];
	if (!j->up || j->incarnation != incarnation)
		fail(w, "node %u is reported lost as %u without having been up", node, incarnation);
	j->up = false;
	j->lost = true;
	j->safe = false;
}

void cluster_safe(struct world *w, uint32_t node, uint32_t incarnation)
{
	struct journal *j = &w->books[node];
	if (j->up)
		fail(w, "node %u is reported safe while it is up", node);
	j->safe = true;
	for (uint32_t vm = 1; vm <= w->n_max; vm++) {
		struct place *p = &w->vms[vm];
		if (p->state == VM_NONE || p->node != node || p->incarnation > incarnation)
			continue;
		uint32_t to = some_node(w);
		if (to)
			order(w, vm, to);
		else
			p->state = VM_WAITING;
	}
}

void cluster_start_vm(struct world *w, struct agent *a, uint32_t vm, uint32_t incarnation)
{
	struct place *p = &w->vms[vm];
	if (a->o && !a->silent && !a->admitted && overlay_incarnation(a->o) == incarnation) {
		struct event *e = event_new(EV_START_VM); /* it follows the confirmation on the same link */
		e->a = a->id;
		e->b = vm;
		e->len = incarnation;
		queue_at(w, e, w->now + 5);
		return;
	}
	if (!a->o || a->silent || !a->admitted || a->fenced || a->incarnation != incarnation)
		return; /* the order came too late: nobody runs it, and the root will hear that the node is lost */
	if (p->runs_at == a->id && p->runs_life == a->life)
		return;
	const struct agent *at = p->runs_at ? agent_of(w, p->runs_at) : NULL;
	if (at && at->o && at->life == p->runs_life)
		fail(w, "VMs %u run on node %u (as %u) and are started on node %u (as %u): split brain",
		     vm, at->id, at->incarnation, a->id, incarnation);
	p->runs_at = a->id;
	p->runs_life = a->life;
	a->n_vms++;
}

void vms_gone(struct world *w, struct agent *a)
{
	for (uint32_t vm = 1; a->n_vms && vm <= w->n_max; vm++)
		if (w->vms[vm].runs_at == a->id) {
			w->vms[vm].runs_at = 0;
			a->n_vms--;
		}
	a->n_vms = 0;
}
