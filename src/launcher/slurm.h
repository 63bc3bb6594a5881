/* SPDX-License-Identifier: Apache-2.0 */
/* Slurm: for this room. */
#ifndef VSE_LAUNCHER_SLURM_H
#define VSE_LAUNCHER_SLURM_H

#include "launcher/backend.h"

/* The variables of an allocation, as salloc, sbatch and srun set them; a heterogeneous job's components are united, each
 * node in its group. get(arg, name): NULL when it is not set. */
int slurm_read(struct allocation *a, const char *(*get)(void *arg, const char *name), void *arg,
	       struct err *err);
/* Runs salloc and waits. */
int slurm_salloc(struct allocating *a, const struct launch_request *r, struct err *err);
/* "slurm-wlm 22.05.8", "slurm 24.05.1": 2205, 2405; 0: unreadable. */
unsigned slurm_version(const char *text);
/* The nodes that a line of srun's own tells to be lost: "srun: error: n[1-2]: tasks 0-1: Killed". False: it tells of
 * none. */
bool slurm_lost_nodes(const char *line, struct strvec *ret_names);

#endif
