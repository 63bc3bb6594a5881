/* SPDX-License-Identifier: Apache-2.0 */
/* The agent: the one process of ours on a node. It owns a cluster's run directory, answers front ends and ends
 * when its cluster has ended. */
#ifndef VSE_AGENT_AGENT_H
#define VSE_AGENT_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/bootstrap.h"

#define AGENT_HELD_MAX 64

struct kept;

struct agent_options {
	const char *base;             /* run directory, as rundir_base() gives it */
	const char *name;             /* of the cluster */
	bool resume;                  /* the root agent died, this one goes on from its journal */
	const struct bootstrap *node; /* one node of many; NULL: the agent that front ends talk to */
	const struct kept *kept;      /* by a node's keeper (agent/keeper.h) */
	bool input;     /* a node's standard input stays open as long as its launcher lives */
	uint32_t index; /* of the node, where the launcher tells it; 0: by the host's name */
	int held[AGENT_HELD_MAX], n_held; /* of the root before (reaper_hold()); taken */
	int ready_fd; /* "ready\n" is written here once front ends can connect, or "error TEXT\n"; then closed */
};

/* Runs until the cluster has ended, or until nobody came. Gives the exit code. */
int agent_run(const struct agent_options *o);
/* What this node offers, as JSON text (malloc'ed), for `vse doctor`. Blocks until every probe is over. */
char *agent_probe(const char *accel);

#endif
