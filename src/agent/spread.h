/* SPDX-License-Identifier: Apache-2.0 */
/* A request over the tree of agents: it is taken apart into one for the VMs of this agent and one for each child that
 * leads to others, and what they answer is put together. Answers of many VMs that are equal travel as one, with the set
 * of ranks that gave it ("ranks" in place of "rank"), so that what reaches the root grows with distinct answers. A
 * child that is lost answers nothing more: each of its VMs that has not answered yet is named, never left out. */
#ifndef VSE_AGENT_SPREAD_H
#define VSE_AGENT_SPREAD_H

#include "agent/call.h"
#include "wire/verbs.h"

/* True when this request is about VMs (or agents) elsewhere, or comes from another agent, which wants it folded. */
bool spread_wanted(const struct call *call, enum verb v);
/* As a service (agent/services.h). */
int spread_begin(struct call *call, enum verb v, const json_t *req, struct err *err);

#endif
