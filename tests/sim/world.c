/* SPDX-License-Identifier: Apache-2.0 */
/* The world of one seed, from its beginning to its end. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "world.h"

uint32_t rnd(struct world *w, uint32_t below)
{
	uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64 */
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return below ? (uint32_t)((z ^ z >> 31) >> 32) % below : 0;
}

void fail(struct world *w, const char *fmt, ...)
{
	va_list ap;
	if (w->failure[0])
		return;
	int n = snprintf(w->failure, sizeof(w->failure), "at %llu ms: ", (unsigned long long)w->now);
	va_start(ap, fmt);
	vsnprintf(w->failure + n, sizeof(w->failure) - (size_t)n, fmt, ap);
	va_end(ap);
}

void world_init(struct world *w, const struct options *opt)
{
	static const uint32_t fanouts[] = {2, 3, 8, 16, 32, 64};
	*w = (struct world){.opt = *opt, .random = opt->seed * 2 + 1};
	for (unsigned i = 0; i < 16; i++)
		w->cluster[i] = (uint8_t)rnd(w, 256);
	if (!w->opt.fanout)
		w->opt.fanout = fanouts[opt->agents > 2000 ? 2 + rnd(w, 4) : rnd(w, 6)];
	w->n = opt->agents;
	w->n_max = w->n + w->n / 20 + 2;
	w->beat_ms = opt->scale ? OVERLAY_BEAT_MS : 500 + 500 * rnd(w, 2);
	w->lost_ms = w->beat_ms * (3 + (opt->agents > 2000 ? 0 : rnd(w, 3)));
	if (opt->scale)
		w->lost_ms = OVERLAY_LOST_MS;
	w->give_up_ms = 8 * w->lost_ms + 20 * w->beat_ms;
	w->agents = xcalloc(w->n_max + ROOTS_MAX + (size_t)1, sizeof(*w->agents));
	w->vms = xcalloc(w->n_max + (size_t)1, sizeof(*w->vms));
	w->books = xcalloc(w->n_max + (size_t)1, sizeof(*w->books));
	w->issued = xcalloc(CALLS_MAX, sizeof(*w->issued));
	for (uint32_t i = 0; i <= w->n_max + ROOTS_MAX; i++) {
		w->agents[i].id = i;
		w->agents[i].index = i <= w->n_max ? i : 0;
		w->agents[i].tick_at = UINT64_MAX;
	}
	w->n_roots = 1;
	root_begin(w, 0);
	faults_plan(w);
	if (!opt->scale)
		calls_wake(w);
}

void world_finish(struct world *w)
{
	for (uint32_t i = 0; i <= w->n_max + ROOTS_MAX; i++) {
		w->agents[i].n_vms = 0;
		agent_kill(w, &w->agents[i]);
	}
	/* What is still under way. */
	struct event *e;
	w->end_at = w->now + 200000;
	for (uint32_t i = 0; i <= w->n_max + ROOTS_MAX; i++)
		w->agents[i].silent = false;
	w->n_cuts = 0;
	while ((e = queue_next(w))) {
		if (e->conn && e->type == EV_FLUSH)
			net_flush(w, e);
		else if (e->conn)
			net_deliver(w, e);
		else
			event_free(e);
	}
	for (uint32_t i = 0; i < w->n_issued; i++) {
		rankset_finish(&w->issued[i].members);
		free(w->issued[i].ran);
	}
	for (uint32_t i = 0; i <= w->n_max + ROOTS_MAX; i++) {
		free(w->agents[i].conns);
	}
	free(w->agents);
	free(w->vms);
	free(w->books);
	free(w->issued);
	queue_clear();
}

static void on_tick(struct world *w, const struct event *e)
{
	struct agent *a = agent_of(w, e->a);
	if (!a->o || a->tick_at != e->at)
		return;
	a->tick_at = UINT64_MAX;
	overlay_tick(a->o, w->now);
	agent_actions(w, a);
}

static void on_stopped(struct world *w, const struct event *e)
{
	struct agent *a = agent_of(w, e->a);
	if (!a->o || a->life != e->b || !a->fenced)
		return;
	vms_gone(w, a);
	a->fenced = false;
	overlay_stopped(a->o, w->now);
	agent_actions(w, a);
}

static void handle(struct world *w, struct event *e)
{
	switch (e->type) {
	case EV_TICK: on_tick(w, e); break;
	case EV_STOPPED: on_stopped(w, e); break;
	case EV_START_VM: cluster_start_vm(w, agent_of(w, e->a), e->b, e->len); break;
	case EV_RAN: calls_ran(w, agent_of(w, e->a), e); break;
	case EV_CALLER: calls_wake(w); break;
	case EV_FAULT: faults_do(w, e); break;
	case EV_FLUSH: net_flush(w, e); return;
	default: net_deliver(w, e); return;
	}
	event_free(e);
}

bool world_step(struct world *w)
{
	struct event *e = queue_next(w);
	if (!e)
		return false;
	w->n_events++;
	handle(w, e);
	return true;
}

void world_run(struct world *w)
{
	while (!w->failure[0] && world_step(w)) {
		if (w->max_bytes > QUEUE_BYTES)
			fail(w, "%u bytes of the overlay's wait on one connection", w->max_bytes);
	}
	if (!w->failure[0])
		check_end(w);
}
