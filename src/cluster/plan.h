/* SPDX-License-Identifier: Apache-2.0 */
/* Placement: which VM runs on which node. Pure: the same input gives the same plan. */
#ifndef VSE_CLUSTER_PLAN_H
#define VSE_CLUSTER_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* One node as its agent sees it: what its affinity mask and cgroup leave to it. */
struct plan_node {
	const char *name;
	uint32_t cpus;     /* 0: not known, counts as one VM's */
	uint64_t memory;   /* bytes; 0: not known, no bound */
	uint64_t pages;    /* bytes in reserved pages; 0: not known, no bound */
	bool spare;        /* kept free for VMs of nodes that die */
	bool down;         /* takes nothing; its name appears in the reasons */
	const char *unfit; /* why no hypervisor there can run these VMs; NULL: one can */
};

enum plan_policy {
	PLAN_SPREAD, /* round the nodes, rank by rank, so that each has about the same number of VMs */
	PLAN_PACK, /* fill one node after the other: neighbours in rank share a node */
	PLAN_MAP,  /* as `map` says */
};

struct plan_options {
	enum plan_policy policy;
	const char *map;    /* PLAN_MAP: "n1:2,n2:1": so many VMs on each, ranks in this order */
	uint32_t max;       /* VMs a node at most; 0: no bound of this kind */
	uint32_t cpus;      /* of a VM */
	uint64_t memory;    /* of a VM, bytes */
	uint64_t overhead;  /* of a VM on its node beside its memory, bytes */
	bool oversubscribe; /* cores and memory of a node are no bound */
	bool pages;         /* memory, without the overhead, is in reserved pages: always a bound */
};

/* "spread", "pack", or anything with a colon: a map. EINVAL for others. */
int plan_policy_parse(const char *text, struct plan_options *o, struct err *err);
/* VMs that fit on a node as these options say. */
uint32_t plan_room(const struct plan_options *o, const struct plan_node *n);
/* node_of[r] becomes 1..n for each rank r < size. ENOSPC says what is missing and what would help. EINVAL: the map
 * names an unknown node, or does not hold `size` VMs. */
int plan_make(const struct plan_options *o, const struct plan_node *nodes, uint32_t n,
	      uint32_t size, uint32_t *node_of, struct err *err);
/* Why a node has `here` VMs in the plan: "an even share, room for 4: 4 cores, a VM takes 1", "spare, kept free ...". */
void plan_why(const struct plan_options *o, const struct plan_node *n, uint32_t here, struct buf *out);

#endif
