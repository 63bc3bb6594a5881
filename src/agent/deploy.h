/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster over many nodes, seen from the root agent: get the nodes, start their agents, place the VMs, bring the
 * image there, have them started; and the end of all that. */
#ifndef VSE_AGENT_DEPLOY_H
#define VSE_AGENT_DEPLOY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct agent;
struct deploy;
struct stream;

/* True when the "create" request asks for more than this node. */
bool deploy_wanted(const json_t *req);
/* a->cluster is there, with its VMs nowhere yet. How it goes is told through cluster_elsewhere_*(). */
int deploy_start(struct agent *a, const json_t *req, struct err *err);
/* A root that is started again: goes on from the journal of the one before. a->cluster is made here. */
int deploy_resume(struct agent *a, struct err *err);
/* Ends VMs and agents; then cluster_elsewhere_down(). More than once is fine. */
void deploy_down(struct deploy *d, bool graceful);
/* Ends what it started here, gives back an allocation of ours. NULL is fine. */
void deploy_destroy(struct deploy *d);
bool deploy_is_migrating(const struct deploy *d, uint32_t rank); /* where it is, is being decided */
/* Into a status: where it runs, and the VMs that no agent told of. */
void deploy_status(struct deploy *d, json_t *status);

#endif
