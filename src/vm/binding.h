/* SPDX-License-Identifier: Apache-2.0 */
/* Which CPUs of this node belong to which VM: the books of one cluster's agent. Pure, but for what it was made of. */
#ifndef VSE_VM_BINDING_H
#define VSE_VM_BINDING_H

#include <stdbool.h>

#include "base/err.h"
#include "base/topology.h"

enum binding_unit {
	BINDING_NONE,
	BINDING_THREADS, /* a CPU of its own (a hardware thread) for each vCPU */
	BINDING_CORES,   /* a core of its own: its other hardware threads stay idle */
};

struct binding_spec {
	enum binding_unit unit;
	bool memory; /* memory from the NUMA nodes of a VM's CPUs, and no other */
	bool share;  /* where there are too few, VMs share them: the least taken first */
};

struct binding;

/* t: the CPUs that there are; copied. */
struct binding *binding_create(const struct binding_spec *spec, const struct topology *t);
void binding_destroy(struct binding *b); /* NULL is fine */

/* That `vms` VMs with n vCPUs each have room when nothing else is there. ENOSPC with the numbers. */
int binding_check(const struct binding *b, unsigned vms, unsigned n, struct err *err);
/* CPUs for n vCPUs, in order: of one NUMA node where one has enough left (the one with the least left over, so that
 * large blocks stay whole), else of as few as can be; next to one another in it. ret_nodes: for the memory; 0: from anywhere.
 * ENOSPC: too few are free. */
int binding_take(struct binding *b, unsigned n, unsigned *cpus, uint64_t *ret_nodes, struct err *err);
/* The same CPUs as an agent before this one has taken. EINVAL: one of them is none of ours; then none is taken. */
int binding_claim(struct binding *b, unsigned n, const unsigned *cpus, uint64_t *ret_nodes,
		  struct err *err);
void binding_give(struct binding *b, unsigned n, const unsigned *cpus);

#endif
