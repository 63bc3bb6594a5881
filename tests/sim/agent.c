/* SPDX-License-Identifier: Apache-2.0 */
/* An agent: drives the overlay of its node as the program does, and runs (the counters of) VMs. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "world.h"

struct agent *agent_of(struct world *w, uint32_t id)
{
	return &w->agents[id];
}

static void set_tick(struct world *w, struct agent *a)
{
	uint64_t due = a->o ? overlay_due(a->o) : UINT64_MAX;
	if (due >= a->tick_at || due == UINT64_MAX)
		return;
	struct event *e = event_new(EV_TICK);
	e->a = a->id;
	a->tick_at = due;
	queue_at(w, e, due);
}

static struct overlay *create(struct world *w, struct agent *a, uint32_t incarnation,
			      uint64_t epoch, uint64_t lease)
{
	char resources[16];
	struct err err;
	struct overlay_config c = {.index = a->index,
				   .fanout = w->opt.fanout,
				   .n_nodes = w->n,
				   .incarnation = incarnation,
				   .epoch = epoch,
				   .lease = lease,
				   .port = 1000,
				   .beat_ms = w->beat_ms,
				   .lost_ms = w->lost_ms,
				   .give_up_ms = w->give_up_ms,
				   .seed = w->opt.seed ^ (uint64_t)a->life << 32};
	memcpy(c.cluster, w->cluster, 16);
	c.resources_len = (size_t)snprintf(resources, sizeof(resources), "node %u", a->index);
	c.resources = resources;
	struct overlay *o = overlay_create(&c, w->now, &err);
	if (!o)
		fail(w, "agent %u: %s", a->id, err.text);
	return o;
}

static void start(struct world *w, struct agent *a, uint32_t incarnation, uint64_t lease)
{
	char address[24];
	a->life++;
	a->ended = a->admitted = a->fenced = false;
	a->o = create(w, a, incarnation, 0, lease);
	snprintf(address, sizeof(address), "r%u:1000", w->root - w->n_max - 1);
	overlay_hint(a->o, w->now, 0, address);
	/* Half of them were launched by their parent and know it. */
	uint32_t parent = overlay_tree_parent(w->opt.fanout, a->index);
	if (parent && rnd(w, 2)) {
		snprintf(address, sizeof(address), "n%u:1000", parent);
		overlay_hint(a->o, w->now, parent, address);
	}
	overlay_start(a->o, w->now);
	agent_actions(w, a);
}

void agent_start(struct world *w, struct agent *a, uint32_t incarnation)
{
	start(w, a, incarnation, 0);
}

static void process_gone(struct world *w, struct agent *a)
{
	calls_drop(w, a);
	const struct overlay_counters *n = overlay_counters(a->o);
	w->healed += n->healed;
	w->moved += n->moved;
	w->max_memory = MAX(w->max_memory, overlay_memory(a->o));
	net_close_all(w, a);
	overlay_destroy(a->o);
	a->o = NULL;
	a->tick_at = UINT64_MAX;
}

void agent_kill(struct world *w, struct agent *a)
{
	vms_gone(w, a);
	if (a->o)
		process_gone(w, a);
	a->ended = true;
}

void agent_exec(struct world *w, struct agent *a)
{
	if (!a->o || !a->admitted)
		return;
	uint64_t lease = overlay_lease(a->o);
	process_gone(w, a);
	start(w, a, a->incarnation, lease);
	for (uint32_t vm = 1; a->n_vms && vm <= w->n_max; vm++)
		if (w->vms[vm].runs_at == a->id)
			w->vms[vm].runs_life = a->life;
}

void root_begin(struct world *w, uint32_t number)
{
	struct agent *a = agent_of(w, w->n_max + 1 + number);
	w->root = a->id;
	a->life++;
	a->ended = false;
	a->o = create(w, a, 0, ++w->epoch, 0);
	for (uint32_t i = 1; i <= w->n; i++) {
		const struct journal *j = &w->books[i];
		if (j->incarnation)
			overlay_restore(a->o, i, j->incarnation, !j->up, j->address);
		if (agent_of(w, i)->removed)
			overlay_remove(a->o, w->now, i);
	}
	overlay_start(a->o, w->now);
	agent_actions(w, a);
}

static void on_fenced(struct world *w, struct agent *a, uint32_t incarnation)
{
	struct event *e = event_new(EV_STOPPED);
	a->fenced = true;
	a->admitted = false;
	e->a = a->id;
	e->b = a->life;
	(void)incarnation;
	queue_at(w, e, w->now + rnd(w, 2000));
}

static void on_root_action(struct world *w, struct agent *a, const struct overlay_action *x)
{
	if (a->id != w->root)
		return; /* a root that does not know yet that it is none */
	switch (x->type) {
	case OVERLAY_NODE_UP: cluster_up(w, x->node, x->incarnation, x->address); break;
	case OVERLAY_NODE_LOST:
		w->lost++;
		cluster_lost(w, x->node, x->incarnation);
		break;
	default: cluster_safe(w, x->node, x->incarnation);
	}
}

static void log_action(const struct world *w, const struct agent *a, const struct overlay_action *x)
{
	static const char *const names[] = {
		[OVERLAY_CONNECT] = "connect",     [OVERLAY_CLOSE] = "close",
		[OVERLAY_RETIRE] = "retire",       [OVERLAY_REFUSED] = "refused",
		[OVERLAY_PARENT] = "parent",       [OVERLAY_ADMITTED] = "admitted",
		[OVERLAY_FENCED] = "fenced",       [OVERLAY_END] = "end",
		[OVERLAY_CHILD_UP] = "child up",   [OVERLAY_CHILD_DOWN] = "child down",
		[OVERLAY_NODE_UP] = "node up",     [OVERLAY_NODE_LOST] = "node lost",
		[OVERLAY_NODE_SAFE] = "node safe",
	};
	if (x->type < ARRAY_SIZE(names) && names[x->type])
		printf("# %llu agent %u: %s node %d link %x inc %u %s\n",
		       (unsigned long long)w->now, a->id, names[x->type], (int)x->node, x->link,
		       x->incarnation, x->why ? x->why : "");
}

static void take(struct world *w, struct agent *a, const struct overlay_action *x)
{
	switch (x->type) {
	case OVERLAY_CONNECT: net_connect(w, a, x->link, x->address); break;
	case OVERLAY_SEND: net_send(w, a, x->link, EV_MESSAGE, x->data, x->len); break;
	case OVERLAY_CLOSE:
		calls_link_lost(w, a, x->link);
		net_close(w, a, x->link);
		break;
	case OVERLAY_RETIRE: calls_retire(w, a, x->link); break;
	case OVERLAY_ADMITTED:
		a->admitted = true;
		a->incarnation = x->incarnation;
		break;
	case OVERLAY_FENCED: on_fenced(w, a, x->incarnation); break;
	case OVERLAY_REFUSED: w->refused++; break;
	case OVERLAY_END: a->ended = true; break;
	case OVERLAY_NODE_UP:
	case OVERLAY_NODE_LOST:
	case OVERLAY_NODE_SAFE: on_root_action(w, a, x); break;
	default: break;
	}
}

void agent_actions(struct world *w, struct agent *a)
{
	struct overlay_action x;
	uint32_t n = 0;
	while (a->o && overlay_next(a->o, &x)) {
		n++;
		if (w->opt.verbose)
			log_action(w, a, &x);
		take(w, a, &x);
	}
	w->max_actions = MAX(w->max_actions, n);
	if (a->o && a->ended)
		agent_kill(w, a);
	set_tick(w, a);
}
