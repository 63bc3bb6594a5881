/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct place {
	unsigned cpu, node, used; /* used: vCPUs that have it */
	bool picked;              /* by the VM that is being given some */
};

struct binding {
	struct binding_spec spec;
	struct place *places; /* CPUs, or one CPU of each core; by node */
	unsigned n;
};

struct binding *binding_create(const struct binding_spec *spec, const struct topology *t)
{
	struct binding *b = xcalloc(1, sizeof(*b));
	b->spec = *spec;
	b->places = xcalloc(MAX(t->n, (size_t)1), sizeof(*b->places));
	for (size_t i = 0; i < t->n; i++) {
		const struct topology_cpu *c = &t->cpus[i];
		if (spec->unit == BINDING_CORES && i && c->core == c[-1].core && c->node == c[-1].node)
			continue;
		b->places[b->n++] = (struct place){.cpu = c->cpu, .node = c->node};
	}
	return b;
}

void binding_destroy(struct binding *b)
{
	if (!b)
		return;
	free(b->places);
	free(b);
}

static int too_few(const struct binding *b, unsigned long wanted, unsigned left, struct err *err)
{
	const char *what = b->spec.unit == BINDING_CORES ? "core" : "CPU";
	return err_set(err, ENOSPC, "cpu-bind: %lu %s%s wanted, %u of the %u that this agent may use %s free (--oversubscribe lets VMs share them)",
		       wanted, what, wanted == 1 ? "" : "s", left, b->n, left == 1 ? "is" : "are");
}

int binding_check(const struct binding *b, unsigned vms, unsigned n, struct err *err)
{
	unsigned long wanted = (unsigned long)vms * n;
	if (!b->n)
		return err_set(err, ENOTSUP, "cpu-bind: which CPUs this agent may use is not known");
	return wanted <= b->n || b->spec.share ? 0 : too_few(b, wanted, b->n, err);
}

static bool is_free(const struct place *p, unsigned level)
{
	return !p->picked && p->used <= level;
}

static unsigned count(const struct binding *b, unsigned level)
{
	unsigned n = 0;
	for (unsigned i = 0; i < b->n; i++)
		n += is_free(&b->places[i], level);
	return n;
}

static unsigned count_node(const struct binding *b, unsigned level, unsigned node)
{
	unsigned n = 0;
	for (unsigned i = 0; i < b->n; i++)
		n += b->places[i].node == node && is_free(&b->places[i], level);
	return n;
}

/* Of those that have enough the one with the least; else the one with the most. */
static unsigned best_node(const struct binding *b, unsigned level, unsigned need)
{
	unsigned best = 0, best_room = 0;
	for (unsigned i = 0; i < b->n; i++) {
		if (i && b->places[i].node == b->places[i - 1].node)
			continue;
		unsigned room = count_node(b, level, b->places[i].node);
		bool better = best_room >= need ? room >= need && room < best_room : room > best_room;
		if (better) {
			best = b->places[i].node;
			best_room = room;
		}
	}
	return best;
}

/* Takes n of those that no more than `level` vCPUs have and this VM has not; there are that many. */
static void pick(struct binding *b, unsigned level, unsigned n, unsigned *cpus)
{
	for (unsigned got = 0; got < n;) {
		unsigned node = best_node(b, level, n - got);
		for (unsigned i = 0; i < b->n && got < n; i++) {
			struct place *p = &b->places[i];
			if (p->node != node || !is_free(p, level))
				continue;
			p->picked = true;
			cpus[got++] = p->cpu;
		}
	}
}

static void picked(struct binding *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		b->places[i].used += b->places[i].picked;
		b->places[i].picked = false;
	}
}

static struct place *find(const struct binding *b, unsigned cpu)
{
	for (unsigned i = 0; i < b->n; i++)
		if (b->places[i].cpu == cpu)
			return &b->places[i];
	return NULL;
}

/* ENOTSUP: a node that the mask has no bit for. */
static int nodes_of(const struct binding *b, unsigned n, const unsigned *cpus, uint64_t *ret,
		    struct err *err)
{
	uint64_t nodes = 0;
	for (unsigned i = 0; b->spec.memory && i < n; i++) {
		unsigned node = find(b, cpus[i])->node;
		if (node >= TOPOLOGY_NODES_MAX)
			return err_set(err, ENOTSUP, "mem-bind: NUMA node %u: only nodes below %u can be bound to",
				       node, TOPOLOGY_NODES_MAX);
		nodes |= UINT64_C(1) << node;
	}
	*ret = nodes;
	return 0;
}

int binding_take(struct binding *b, unsigned n, unsigned *cpus, uint64_t *ret_nodes, struct err *err)
{
	unsigned got = 0;
	if (binding_check(b, 1, n, err) < 0)
		return -1;
	if (!b->spec.share && count(b, 0) < n)
		return too_few(b, n, count(b, 0), err);
	while (got < n) { /* each round every CPU once, the least taken first */
		for (unsigned level = 0, left = b->n; left && got < n; level++) {
			unsigned some = MIN(count(b, level), n - got);
			pick(b, level, some, cpus + got);
			got += some;
			left -= some;
		}
		picked(b);
	}
	if (nodes_of(b, n, cpus, ret_nodes, err) == 0)
		return 0;
	binding_give(b, n, cpus);
	return -1;
}

int binding_claim(struct binding *b, unsigned n, const unsigned *cpus, uint64_t *ret_nodes,
		  struct err *err)
{
	for (unsigned i = 0; i < n; i++)
		if (!find(b, cpus[i]))
			return err_set(err, EINVAL,
				       "cpu-bind: CPU %u: not one of those that this agent may use",
				       cpus[i]);
	if (nodes_of(b, n, cpus, ret_nodes, err) < 0)
		return -1;
	for (unsigned i = 0; i < n; i++)
		find(b, cpus[i])->used++;
	return 0;
}

void binding_give(struct binding *b, unsigned n, const unsigned *cpus)
{
	for (unsigned i = 0; i < n; i++)
		find(b, cpus[i])->used--;
}
