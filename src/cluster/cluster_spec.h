/* SPDX-License-Identifier: Apache-2.0 */
/* What the front end hands to the root agent: one cluster, fully decided (image found, needs resolved). */
#ifndef VSE_CLUSTER_CLUSTER_SPEC_H
#define VSE_CLUSTER_CLUSTER_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/strvec.h"
#include "hypervisor/hypervisor.h"
#include "net/address.h"
#include "vm/binding.h"

/* auto: where the node keeps one already or has several VMs to start, and nothing is in the way or lost by it; no note otherwise. */
enum cloning { CLONE_AUTO, CLONE_ALWAYS, CLONE_NEVER };

struct cluster_spec {
	char *name;                                                   /* of the cluster */
	uint32_t size;                                                /* VMs, 1..CLUSTER_SIZE_MAX */
	char *vse;                                                    /* name of the VSE */
	char *image;                                                  /* id */
	char *kernel, *vmlinux, *initrd, *root, *root_type, *modules; /* vmlinux may be NULL */
	bool systemd;                                                 /* init: systemd */
	unsigned cpus;
	uint64_t memory, scratch; /* bytes */
	char *scratch_dir;
	struct strvec env; /* NAME=VALUE */
	bool outbound;
	bool kernel_net; /* eth0 by the nodes' kernels (net/kernet.h), not by net/switch.h */
	struct binding_spec bind; /* CPUs of the node for VMs (vm/binding.h) */
	bool hugepages;           /* memory in reserved pages; whole ones */
	struct hv_mount *mounts;  /* host directories; their texts are the spec's, too */
	size_t n_mounts;
	struct strvec devices; /* of the node, for each VM (base/pci.h) */
	enum cloning clone;    /* whether VMs start from a template (vm/template.h) */
	struct subnet subnet;
	char *hypervisor; /* a name, names with commas (the first that is usable), or "auto" (cluster/choose.h) */
	char *accel, *machine;
	char *protection;            /* the VSE's, or NULL */
	struct strvec hypervisor_of; /* by node, as `nodes`; "" or absent: not decided yet */
	struct strvec extra_args;
	unsigned parallel; /* VMs of a node that may be between start and ready at once; 0: its CPUs, clones twice that */
	uint64_t boot_timeout_ms, stop_timeout_ms;
	uint64_t hung_after_ms;         /* cluster/hung.h */
	char *restore;                  /* folder of a save that the VMs start from, or NULL */
	char *ssh_private, *ssh_public; /* cluster-only key, or NULL */
	/* Where the VMs run. Without nodes all of them run here (node_of NULL). */
	struct strvec nodes; /* names; node i of the cluster is nodes.v[i - 1] */
	uint32_t *node_of;   /* by rank: 1..nodes.n */
};

/* The bound comes from the hosts text of the set-up record (FRAME_MAX_GUEST). */
#define CLUSTER_SIZE_MAX 1500u
/* Bytes, of eth0: under emulation 9000 carried twice as much as 1500, more brought nothing (docs/network.md). */
#define CLUSTER_MTU 9000u

/* From the "create" message; every member is checked and bounded. */
int cluster_spec_read(const json_t *j, struct cluster_spec *ret, struct err *err);
/* "nodes" and "place" of that message: {"nodes": [name...], "place": {"<node>": "<ranks>"}}; every rank is placed
 * once. Into j (borrowed). */
void cluster_spec_write_place(const struct strvec *nodes, const uint32_t *node_of, uint32_t size,
			      json_t *j);
/* That its VMs can be taken away from directories and devices of their nodes. ENOTSUP: they have some, so "save" (or what `verb` says) is
 * not possible, before anything was done. */
int cluster_spec_can_leave(const struct cluster_spec *s, const char *verb, struct err *err);
void cluster_spec_finish(struct cluster_spec *s);

#endif
