/* SPDX-License-Identifier: Apache-2.0 */
/* The run directory: where a user's clusters live on a node.
 *   BASE = $XDG_RUNTIME_DIR/vse (where that is a folder of ours), else /tmp/vse-<uid>; mode 0700
 *   BASE/<cluster>/        one cluster: sock, agent.log; the folder itself is locked (flock) by its agent as long
 *                          as that lives
 *   BASE/<cluster>/vm<r>/  one VM: pid ("pid starttime" of the VMM), sockets, console.log
 * A folder whose lock is free belongs to a dead agent: whoever finds it sweeps it. All claims and sweeps, and the
 * removal of BASE, happen under a lock on BASE itself. */
#ifndef VSE_BASE_RUNDIR_H
#define VSE_BASE_RUNDIR_H

#include <stdbool.h>

#include "base/err.h"
#include "base/strvec.h"

#define CLUSTER_NAME_MAX 32

/* The folder of a cluster on one of its nodes: "<cluster>@<host>", since nodes may share BASE. Only the same host sweeps
 * it. malloc'ed. */
char *rundir_node_name(const char *cluster);

/* [a-z][a-z0-9-]*, at most CLUSTER_NAME_MAX bytes. EINVAL says what is allowed. */
int cluster_name_check(const char *name, struct err *err);

/* The path of BASE, which rundir_claim() makes. EPERM when it is there and is not ours. *ret is malloc'ed. */
int rundir_base(char **ret, struct err *err);
/* Tells this BASE from any other of any host, until the host boots: of clusters of one name whose root agents are in the
 * same BASE at most one lives (but for one whose folder was removed below it, which ends within seconds). malloc'ed; NULL
 * where it cannot be told. */
char *rundir_home(const char *base);
/* Makes BASE/name and takes its lock; a dead one in the way is swept first. EEXIST: such a cluster runs. EPERM:
 * BASE is somebody else's, or others may write to it.
 * *ret_dir is malloc'ed; the lock is held while *ret_lock is open. */
int rundir_claim(const char *base, const char *name, char **ret_dir, int *ret_lock, struct err *err);
/* Takes over the folder of an agent that has just died, as it is. ENOENT: there is none; EEXIST: it lives. */
int rundir_reclaim(const char *base, const char *name, char **ret_dir, int *ret_lock, struct err *err);
/* Makes a folder of mode 0700 in `parent`, which may be one that other hosts see, for the cluster whose folder `dir` is;
 * one for each. *ret is its path, malloc'ed. Whoever sweeps the cluster removes it, too. */
#define RUNDIR_ELSEWHERE ".vse-" /* how its name begins */
int rundir_elsewhere(const char *dir, const char *parent, char **ret, struct err *err);
/* Whoever holds this descriptor will take the folder over when its agent dies: it counts as alive. -1: not possible. */
int rundir_heir(const char *base, const char *name);
/* The agent of this cluster lives, or nobody can tell (out of descriptors, no permission). */
bool rundir_alive(const char *base, const char *name);
/* Names of the clusters whose agents live, sorted; dead ones are swept on the way (best effort), and an empty BASE
 * is removed. */
int rundir_list(const char *base, struct strvec *names, struct err *err);
/* What the agent of a node does first: sweeps what dead agents of this host have left, of any cluster. (A node that lost
 * power has no reaper, and no user's command runs there.) Clusters that other hosts may hold are left alone: where BASE is
 * shared, locks need not be. */
void rundir_sweep_node(const char *base);
/* `dir`, as claimed, is still the folder whose lock is held: nobody removed it, nor made another in its place. */
bool rundir_owns(const char *dir, int lock);
/* Kills what a dead agent left, waits for it (at most 3 s), and removes its folder, then BASE if it is empty. Does nothing while the lock is
 * held. */
void rundir_sweep(const char *base, const char *name);
/* By an agent that follows one that has died in the same folder: kills all VMs there, and removes what they had. */
void rundir_end_vms(const char *dir);
void rundir_end_vm(const char *vm_dir); /* one of them, by its folder; none there is fine */
/* What the agent itself does last: removes its own folder (its lock still held; another's of the same name stays), and
 * BASE if it is empty. */
void rundir_leave(const char *base, const char *name, int lock);

#endif
