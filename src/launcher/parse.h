/* SPDX-License-Identifier: Apache-2.0 */
/* What resource managers and users write, read: pure functions over bounded text, for this room, its tests and
 * fuzzers. All refuse with EINVAL and say where; what they add to an allocation before an error stays there. */
#ifndef VSE_LAUNCHER_PARSE_H
#define VSE_LAUNCHER_PARSE_H

#include "launcher/launcher.h"

/* PBS_NODEFILE: a line a slot, a host repeated as often as it has slots, not sorted. A node is added for each host:
 * cores = its slots, launch_id = number of its first line that is not blank (TM's node id). */
int parse_nodefile(const char *text, struct allocation *a, struct err *err);
/* The user's: a line holds a host list, then maybe "slots=N" or "cores=N"; # begins a comment. */
int parse_hostfile(const char *text, struct allocation *a, struct err *err);
/* SLURM_JOB_CPUS_PER_NODE: "2(x3),1", in the order of the nodes; sets their cores. */
int parse_counts(const char *text, struct launch_node *nodes, size_t n, struct err *err);
/* OpenPBS: "(n1:ncpus=2:mem=4gb)+(n2:ncpus=1+n3:ncpus=1)". A node is added for each host with cores and memory. */
int parse_exec_vnode(const char *text, struct allocation *a, struct err *err);
/* `apstat -r`: the reservation of batch job `job` ("138309"), and how many nodes it has where its row tells the
 * processing elements of a node; else 0. ENOENT: there is none. */
int parse_apstat(const char *text, const char *job, uint64_t *ret_id, unsigned *ret_nodes,
		 struct err *err);
/* Flux's R, version 1 of its RFC 20: nodes with cores and rank (launch_id), the end of the time. */
int parse_flux_r(const char *text, struct allocation *a, struct err *err);
/* Seconds of "1-02:03:04", "02:03:04", "03:04" or "UNLIMITED" (-1), as `squeue -o %L` writes. */
int parse_slurm_time(const char *text, int64_t *ret, struct err *err);

#endif
