/* SPDX-License-Identifier: Apache-2.0 */
/* Events of VMs on their way to the root, which keeps those of the whole cluster. They go up the tree in bundles, on
 * the links' frames with id 0 and rank MESH_REPORT; they are news, not state: while there is no parent, and past a bound,
 * they are dropped. */
#ifndef VSE_AGENT_REPORT_H
#define VSE_AGENT_REPORT_H

#include <jansson.h>

#include "cluster/events.h"

struct agent;
struct report;

struct report *report_create(struct agent *a);
void report_destroy(struct report *r);                      /* NULL is fine */
void report_event(struct report *r, const struct event *e); /* one of this agent's own */
/* A bundle from a child. The root adds it to the cluster's events, others pass it on. */
void report_bundle(struct agent *a, const json_t *bundle);

#endif
