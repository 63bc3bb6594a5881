/* SPDX-License-Identifier: Apache-2.0 */
/* The process that a launcher starts on a node: it starts the agent, and starts it again when it dies. All that must
 * outlive an agent hangs on it:
 *   - it is what the launcher (and the resource manager behind it) takes for the agent: that lives on;
 *   - the VMMs are its children (it is a subreaper), and the kernel ends them with it;
 *   - the run directory's lock, and the socket that the agent listens on: while an agent is missing, who connects waits;
 *   - the bootstrap with its secret, in memory: each agent is a fork of it;
 *   - a page of memory that all agents share.
 * It does nothing by itself, so there is little that could kill it. Beside it stands a reaper (agent/reaper.h), which it
 * starts anew when it is killed. Whatever dies, the others clean up; if all are killed at once, the VMs have ended,
 * and their files are swept by the next agent of this host. */
#ifndef VSE_AGENT_KEEPER_H
#define VSE_AGENT_KEEPER_H

#include "agent/agent.h"

#define KEEPER_DEATHS 3 /* so many within KEEPER_WITHIN_MS: it is not started again */
#define KEEPER_WITHIN_MS 30000

/* What one agent leaves to the next. */
struct kept_page {
	uint32_t incarnation; /* as which the root has let this node in; 0: not yet */
	uint64_t lease;       /* see overlay_lease() */
};

/* What an agent gets from its keeper. All borrowed. */
struct kept {
	const char *dir; /* the run directory, claimed */
	int lock;
	int listener; /* TCP */
	uint16_t port;
	unsigned deaths; /* of agents before this one */
	struct kept_page *page;
};

/* o->node is set. Runs until the agent has ended, or cannot be kept alive; gives the exit code. */
int keeper_run(const struct agent_options *o);

#endif
