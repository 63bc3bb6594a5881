/* SPDX-License-Identifier: Apache-2.0 */
/* One large world without random faults: how long it takes (virtual time), how many messages, and how much memory. */
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "base/alloc.h"
#include "world.h"

/* What the root keeps of a VM beside the overlay, at the least: its node, its incarnation and its state. */
struct vm_record {
	uint32_t node, incarnation;
	uint8_t state;
};

static uint32_t n_up(const struct world *w)
{
	const struct overlay *root = w->agents[w->root].o;
	uint32_t n = 0;
	for (uint32_t i = 1; i <= w->n; i++)
		n += overlay_up(root, i);
	return n;
}

/* Virtual ms until so many are up; 0: never within a minute. */
static uint64_t until_up(struct world *w, uint32_t n, bool below)
{
	uint64_t begin = w->now, look = 0;
	w->end_at = w->now + 60000;
	while (world_step(w)) {
		if (w->now < look)
			continue;
		look = w->now + 20;
		uint32_t up = n_up(w);
		if (below ? up <= n : up >= n)
			return w->now - begin + 1;
	}
	return 0;
}

static uint64_t call_all(struct world *w)
{
	uint64_t begin = w->now, before = w->n_calls_done;
	w->n_issued = 2; /* the third is to all */
	w->end_at = w->now + 60000;
	calls_issue(w);
	while (w->n_calls_done == before)
		if (!world_step(w))
			return 0;
	return w->now - begin + 1;
}

static void show_memory(struct world *w)
{
	size_t all = 0, largest = 0, leaf = 0;
	for (uint32_t i = 1; i <= w->n; i++) {
		size_t bytes = overlay_memory(w->agents[i].o);
		all += bytes;
		largest = MAX(largest, bytes);
		if (i == w->n)
			leaf = bytes;
	}
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	printf("# bytes: root's overlay %zu, largest node's %zu, a leaf's %zu, mean %zu; this "
	       "process %ld MiB\n",
	       overlay_memory(w->agents[w->root].o), largest, leaf, all / w->n, usage.ru_maxrss / 1024);
}

bool scale(uint32_t agents, uint32_t vms)
{
	struct world w;
	struct options opt = {
		.seed = 1, .agents = agents, .fanout = OVERLAY_FANOUT, .no_faults = true, .scale = true};
	struct vm_record *records = xcalloc(vms, sizeof(*records));
	world_init(&w, &opt);
	for (uint32_t i = 0; i < vms; i++)
		records[i] = (struct vm_record){.node = 1 + i % agents, .incarnation = 1, .state = 1};
	uint64_t boot = until_up(&w, agents, false);
	printf("# %u agents, fan-out %u, connections of 1 to 3 ms, started over 1 s: all up after "
	       "%llu ms, %llu "
	       "messages\n",
	       agents, w.opt.fanout, (unsigned long long)boot, (unsigned long long)w.n_messages);
	show_memory(&w);
	printf("# %u VM records: %zu bytes\n", vms, vms * sizeof(*records));
	uint64_t before = w.n_messages, call = call_all(&w);
	printf("# one call to all, each takes up to 300 ms: %llu ms; %u bytes of overlay messages "
	       "at most under way "
	       "on a connection\n",
	       (unsigned long long)call, w.max_bytes);
	/* The root's first child dies, with all below it to be adopted. */
	w.had_faults = true;
	uint32_t below = overlay_below(w.agents[1].o);
	agent_kill(&w, &w.agents[1]);
	uint64_t lost = until_up(&w, agents - 1, true);
	uint64_t dead_at = w.now;
	w.end_at = w.now + 3 * w.lost_ms;
	while (world_step(&w))
		;
	uint32_t up = n_up(&w), reached = 0;
	for (uint32_t i = 2; i <= agents; i++)
		reached += overlay_hop(w.agents[w.root].o, i) != 0;
	printf("# node 1 with %u below it is killed: declared lost after %llu ms; %llu s later %u "
	       "of %u are up and %u are "
	       "attached; %llu messages since the boot, beats included\n",
	       below, (unsigned long long)lost, (unsigned long long)(w.now - dead_at) / 1000, up,
	       agents - 1, reached, (unsigned long long)(w.n_messages - before));
	printf("# %llu ms of virtual time, %llu events, %.1f s of CPU\n", (unsigned long long)w.now,
	       (unsigned long long)w.n_events, (double)clock() / CLOCKS_PER_SEC);
	bool good = boot && call && lost && up == agents - 1 && reached == agents - 1 && !w.failure[0];
	if (w.failure[0])
		printf("# %s\n", w.failure);
	world_finish(&w);
	free(records);
	return good;
}
