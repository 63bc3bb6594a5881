/* SPDX-License-Identifier: Apache-2.0 */
/* The agent: the one process of ours on a node. It owns a cluster's run directory, answers front ends and ends
 * when its cluster has ended. */
#ifndef VSE_AGENT_AGENT_H
#define VSE_AGENT_AGENT_H

#include "base/err.h"

struct agent_options {
	const char *base; /* run directory, as rundir_base() gives it */
	const char *name; /* of the cluster */
	int ready_fd; /* "ready\n" is written here once front ends can connect, or "error TEXT\n"; then closed */
};

/* Runs until the cluster has ended, or until nobody came. Gives the exit code. */
int agent_run(const struct agent_options *o);
/* What this node offers, as JSON text (malloc'ed), for `vse doctor`. Blocks until every probe is over. */
char *agent_probe(const char *accel);

#endif
