/* SPDX-License-Identifier: Apache-2.0 */
/* The agent of one node of many: what it does beside its services. */
#ifndef VSE_AGENT_NODE_H
#define VSE_AGENT_NODE_H

#include "agent/bootstrap.h"
#include "base/rankset.h"

struct agent;

/* Joins the others. index: 1..n, or 0: by the name of this host. input: the end of standard input tells that the
 * launcher is gone; who was not let in by then will not be. */
int node_join(struct agent *a, const struct bootstrap *b, uint32_t index, bool input, struct err *err);
void node_finish(struct agent *a);
/* The cluster is down here: the answers go out, then the agent ends. */
void node_leave(struct agent *a);

/* ---- node_adopt.c: an agent goes on where the one before it has died ---- */

/* Notes the "create" request of the cluster that was made here (borrowed). */
void node_created(struct agent *a, const json_t *req);
/* Nodes were added: where all are (borrowed). */
void node_joined(struct agent *a, const json_t *addresses);
/* Keeps what the next agent needs: once the cluster is up here, and after each move. */
void node_save(struct agent *a);
#define NODE_FILE "node" /* in the run directory */
bool node_has_saved(const struct agent *a);
/* In an agent that follows another, before the mesh starts, which is done in here, or later. */
void node_resume(struct agent *a);
void node_adopted(void *arg, uint32_t adopted, const struct rankset *lost); /* of cluster_ops */
void node_tell(struct agent *a); /* events about the restart: once there is somebody to tell */
void node_note(struct agent *a); /* after all that the overlay does */
void node_adoption_finish(struct agent *a); /* before the fabric is destroyed */

#endif
