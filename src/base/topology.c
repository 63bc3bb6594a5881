/* SPDX-License-Identifier: Apache-2.0 */
#include "base/topology.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/rankset.h"

#define LIST_MAX 65536 /* bytes of a list of CPUs */
#define POOL "hugepages/hugepages-2048kB"

/* Lists of the kernel: "0-3,8", and nothing where there is none. */
static void read_list(const char *path, struct rankset *ret)
{
	_cleanup_free_ char *text = NULL;
	if (path_read(path, LIST_MAX, &text, NULL, NULL) < 0)
		return;
	text[strcspn(text, "\n")] = '\0';
	if (text[0])
		rankset_parse(ret, text, RANK_MAX, NULL);
}

static uint64_t read_number(const char *folder, const char *name)
{
	_cleanup_free_ char *path = path_join(folder, name), *text = NULL;
	uint64_t n;
	if (path_read(path, 64, &text, NULL, NULL) < 0 || sscanf(text, "%" SCNu64, &n) != 1)
		return 0;
	return n;
}

static unsigned core_of(const char *sys, unsigned cpu)
{
	_cleanup_free_ char *path =
		xasprintf("%s/devices/system/cpu/cpu%u/topology/thread_siblings_list", sys, cpu);
	_cleanup_rankset_ struct rankset siblings = RANKSET_INIT;
	read_list(path, &siblings);
	uint32_t first = rankset_next(&siblings, 0);
	return first == UINT32_MAX ? cpu : first;
}

static void set_nodes(const char *sys, struct topology *t)
{
	_cleanup_free_ char *online = xasprintf("%s/devices/system/node/online", sys);
	_cleanup_rankset_ struct rankset nodes = RANKSET_INIT;
	read_list(online, &nodes);
	for (uint32_t n = rankset_next(&nodes, 0); n != UINT32_MAX; n = rankset_next(&nodes, n + 1)) {
		_cleanup_free_ char *path = xasprintf("%s/devices/system/node/node%u/cpulist", sys, n);
		_cleanup_rankset_ struct rankset cpus = RANKSET_INIT;
		read_list(path, &cpus);
		for (size_t i = 0; i < t->n; i++)
			if (rankset_has(&cpus, t->cpus[i].cpu))
				t->cpus[i].node = n;
	}
}

static int compare(const void *x, const void *y)
{
	const struct topology_cpu *a = x, *b = y;
	if (a->node != b->node)
		return a->node < b->node ? -1 : 1;
	if (a->core != b->core)
		return a->core < b->core ? -1 : 1;
	return a->cpu < b->cpu ? -1 : 1;
}

void topology_read(const char *sys, const cpu_set_t *may, struct topology *ret)
{
	struct topology t = {.cpus = xcalloc(CPU_SETSIZE, sizeof(*t.cpus))};
	for (unsigned i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, may))
			t.cpus[t.n++] = (struct topology_cpu){.cpu = i, .core = core_of(sys, i)};
	set_nodes(sys, &t);
	qsort(t.cpus, t.n, sizeof(*t.cpus), compare);
	*ret = t;
}

void topology_here(struct topology *ret)
{
	cpu_set_t own;
	CPU_ZERO(&own);
	/* Fails on a machine with more CPUs than fit into the set: none is known then, and none can be bound to. */
	if (sched_getaffinity(0, sizeof(own), &own) < 0)
		CPU_ZERO(&own);
	topology_read("/sys", &own, ret);
}

void topology_finish(struct topology *t)
{
	free(t->cpus);
	*t = (struct topology){0};
}

size_t topology_cores(const struct topology *t)
{
	size_t cores = 0;
	for (size_t i = 0; i < t->n; i++)
		cores += !i || t->cpus[i].core != t->cpus[i - 1].core ||
			 t->cpus[i].node != t->cpus[i - 1].node;
	return cores;
}

uint64_t topology_memory_nodes(void)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_rankset_ struct rankset nodes = RANKSET_INIT;
	uint64_t mask = 0;
	if (path_read("/proc/self/status", LIST_MAX, &text, NULL, NULL) < 0)
		return 0;
	char *list = strstr(text, "\nMems_allowed_list:");
	if (!list)
		return 0;
	list += strcspn(list, "\t ");
	list += strspn(list, "\t ");
	list[strcspn(list, "\n")] = '\0';
	rankset_parse(&nodes, list, RANK_MAX, NULL);
	for (unsigned i = 0; i < TOPOLOGY_NODES_MAX; i++)
		mask |= rankset_has(&nodes, i) ? UINT64_C(1) << i : 0;
	return mask;
}

/* ---- reserved pages ---- */

static uint64_t free_anywhere(const char *sys)
{
	_cleanup_free_ char *pool = xasprintf("%s/kernel/mm/" POOL, sys);
	/* "resv": promised to who has mapped them, not touched yet. */
	uint64_t have = read_number(pool, "free_hugepages"),
		 held = read_number(pool, "resv_hugepages"),
		 more = read_number(pool, "nr_overcommit_hugepages"),
		 made = read_number(pool, "surplus_hugepages");
	return (have > held ? have - held : 0) + (more > made ? more - made : 0);
}

uint64_t topology_hugepages(const char *sys, uint64_t nodes)
{
	uint64_t anywhere = free_anywhere(sys), there = 0;
	for (unsigned i = 0; i < TOPOLOGY_NODES_MAX; i++) {
		if (!(nodes & UINT64_C(1) << i))
			continue;
		_cleanup_free_ char *pool = xasprintf("%s/devices/system/node/node%u/" POOL, sys, i);
		there += read_number(pool, "free_hugepages");
	}
	return (nodes ? MIN(there, anywhere) : anywhere) * HUGEPAGE;
}

bool topology_has_hugepages(const char *sys)
{
	_cleanup_free_ char *pool = xasprintf("%s/kernel/mm/" POOL, sys);
	return read_number(pool, "nr_hugepages") || read_number(pool, "nr_overcommit_hugepages");
}

unsigned topology_cpus_here(void)
{
	cpu_set_t set;
	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)MAX(CPU_COUNT(&set), 1) : 1;
}
