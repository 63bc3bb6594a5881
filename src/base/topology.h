/* SPDX-License-Identifier: Apache-2.0 */
/* The CPUs, cores and NUMA nodes of this host, and its reserved pages, as the kernel shows them below /sys
 * (Documentation/ABI/stable/sysfs-devices-node, .../testing/sysfs-devices-system-cpu of Linux). */
#ifndef VSE_BASE_TOPOLOGY_H
#define VSE_BASE_TOPOLOGY_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOPOLOGY_NODES_MAX 64u       /* NUMA nodes that fit into a mask */
#define HUGEPAGE (UINT64_C(2) << 20) /* bytes */

struct topology_cpu {
	unsigned cpu;
	unsigned core; /* the lowest CPU of the same core */
	unsigned node; /* NUMA node; 0 where the kernel does not say */
};

/* By node, core and CPU. */
struct topology {
	struct topology_cpu *cpus;
	size_t n;
};

/* Those CPUs that are in `may`. sys: "/sys", or a folder that looks like it. */
void topology_read(const char *sys, const cpu_set_t *may, struct topology *ret);
/* Those that this process may use: by its affinity, and so by the cpuset of its cgroup. */
void topology_here(struct topology *ret);
unsigned topology_cpus_here(void); /* how many those are; at least 1 */
void topology_finish(struct topology *t);
size_t topology_cores(const struct topology *t);

/* NUMA nodes that this process may take memory from (the cpuset of its cgroup); bit i: node i. */
uint64_t topology_memory_nodes(void);
/* Bytes in free pages of HUGEPAGE bytes on these NUMA nodes; 0: on any, and then those that the kernel would still make
 * (vm.nr_overcommit_hugepages) count too. */
uint64_t topology_hugepages(const char *sys, uint64_t nodes);
/* There may be such pages at all: some were reserved, or may be made. */
bool topology_has_hugepages(const char *sys);

#endif
