/* SPDX-License-Identifier: Apache-2.0 */
/* PBS: what the launchers torque, pbs, alps and pals have in common; for this room. */
#ifndef VSE_LAUNCHER_TM_H
#define VSE_LAUNCHER_TM_H

#include "launcher/backend.h"

bool pbs_is_torque(void); /* by PBS_VERSION */
/* In a job whose node file can be read; `why` tells the rest. */
enum launch_fit pbs_probe(bool torque, char why[LAUNCH_WHY_MAX]);
/* The nodes of PBS_NODEFILE. */
int pbs_nodes(struct allocation *a, struct err *err);
int pbs_allocate(struct allocating *a, const struct launch_request *r, struct err *err);
int pbs_time_left(struct time_query *q, const struct allocation *a, struct err *err);
/* By vse-tm; ENOENT: there is no TM library here. */
int tm_start(struct launching *l, const struct launch_start *s, struct err *err);

#endif
