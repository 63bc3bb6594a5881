/* SPDX-License-Identifier: Apache-2.0 */
/* The agent of one node of many: what it does beside its services. */
#ifndef VSE_AGENT_NODE_H
#define VSE_AGENT_NODE_H

#include "agent/bootstrap.h"

struct agent;

/* Joins the others. index: 1..n, or 0: by the name of this host. input: the end of standard input tells that the
 * launcher is gone; who was not let in by then will not be. */
int node_join(struct agent *a, const struct bootstrap *b, uint32_t index, bool input, struct err *err);
void node_finish(struct agent *a);
/* The cluster is down here: the answers go out, then the agent ends. */
void node_leave(struct agent *a);

#endif
