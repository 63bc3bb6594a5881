/* SPDX-License-Identifier: Apache-2.0 */
/* A virtual cluster as one object: its VMs are started, watched and ended together. */
#ifndef VSE_CLUSTER_CLUSTER_H
#define VSE_CLUSTER_CLUSTER_H

#include <jansson.h>

#include "base/rankset.h"
#include "cluster/cluster_spec.h"
#include "cluster/events.h"
#include "vm/template.h"
#include "vm/vm.h"

struct cluster;

enum cluster_phase { CLUSTER_STARTING, CLUSTER_UP, CLUSTER_FAILED, CLUSTER_ENDING, CLUSTER_DOWN };

struct cluster_ops {
	/* How the start stands: after every VM that became ready or failed. */
	void (*on_progress)(void *arg, uint32_t ready, uint32_t failed);
	/* Said once to the user ("/dev/kvm opens but ..."). */
	void (*on_note)(void *arg, const char *text);
	/* The start is over: err NULL = every VM is ready; else why not, naming the VMs. Once. */
	void (*on_started)(void *arg, const struct err *err);
	void (*on_vm_state)(void *arg, struct vm *vm);
	/* After cluster_adopt(): every VM is as it was, or has ended. adopted: how many run. Once. */
	void (*on_adopted)(void *arg, uint32_t adopted, const struct rankset *lost);
	/* After cluster_down(): nothing runs any more. Once. */
	void (*on_down)(void *arg);
	/* Where a template is looked for that this node has not; its functions get the same arg. NULL: nowhere. */
	const struct template_source *templates;
};

/* spec: taken, also on failure. self: the index of this node in the spec's nodes (0: the root agent, which runs none
 * of the VMs); without nodes all VMs are of this agent. dir: the cluster's run directory (borrowed for the call). */
struct cluster *cluster_create(struct loop *l, struct cluster_spec *spec, uint32_t self, const char *dir,
			       const struct cluster_ops *ops, void *arg, struct err *err);
void cluster_destroy(struct cluster *c); /* kills what runs; NULL is fine */
/* Before the start: another process may follow this one. VMs outlive it where their hypervisor can do that. */
void cluster_keep(struct cluster *c);
int cluster_start(struct cluster *c, struct err *err);
/* Instead of the start, in a process that follows one that has died: takes the VMs over that run here. saved: what
 * cluster_save() gave in the process before (borrowed). */
void cluster_adopt(struct cluster *c, const json_t *saved);
json_t *cluster_save(const struct cluster *c); /* of a cluster that is up; new reference */
void cluster_down(struct cluster *c, bool graceful);
/* For the root agent of many nodes, instead of cluster_start(): the VMs start elsewhere, and how that stands is
 * told here. on_down comes only after cluster_elsewhere_down(). */
void cluster_start_elsewhere(struct cluster *c);
/* Where they will run: nodes.v[node_of[rank] - 1]. Both copied. */
/* names: of all nodes; those past the ones it knows are new. Copied. */
void cluster_add_nodes(struct cluster *c, const struct strvec *names);
void cluster_set_place(struct cluster *c, const struct strvec *nodes, const uint32_t *node_of);
/* From now on the VM belongs to that node. If that is this one, and it is not here yet, it is made (and started) here;
 * if it was here, it is killed (one that is split, vm_is_split(), at the next such call). What its memory and its scratch disk held
 * is lost. */
int cluster_move(struct cluster *c, uint32_t rank, uint32_t node, bool start, struct err *err);
/* A VM that comes from another node as it runs (vm_receive()): made here, but none of the cluster's until cluster_take(),
 * after which it belongs to this node. EEXIST: it is here already. */
struct vm *cluster_receive(struct cluster *c, uint32_t rank, struct err *err);
int cluster_take(struct cluster *c, uint32_t rank, struct err *err);
void cluster_drop_coming(struct cluster *c, uint32_t rank); /* of cluster_receive(); none is fine */
/* Kills every VM of this node at once: they may run elsewhere by now. The cluster goes on without them. */
void cluster_fence(struct cluster *c);
void cluster_elsewhere_progress(struct cluster *c, uint32_t ready, uint32_t failed);
void cluster_elsewhere_started(struct cluster *c, const struct err *err);
void cluster_elsewhere_down(struct cluster *c);

enum cluster_phase cluster_get_phase(const struct cluster *c);
const char *cluster_phase_name(enum cluster_phase p);
const struct cluster_spec *cluster_get_spec(const struct cluster *c);
struct vm *cluster_vm(struct cluster *c,
		      uint32_t rank); /* rank < size; NULL: it is on another node, or was fenced */
struct netswitch *cluster_net(struct cluster *c); /* NULL: the VMs have no network, or the kernel's: */
struct kernet *cluster_kernet(struct cluster *c); /* NULL: none by the kernel here */
struct events *cluster_events(struct cluster *c);
/* Milliseconds from cluster_start() to all ready; 0 = not yet. */
uint64_t cluster_ready_ms(const struct cluster *c);
json_t *cluster_status(struct cluster *c); /* new reference */

#endif
