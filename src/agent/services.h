/* SPDX-License-Identifier: Apache-2.0 */
/* Verbs to what they do. One handler per verb of wire/verbs.h; agent/services.c has the table.
 * A handler returns 0 when it has replied or keeps the call, -1 with *err when it did neither. */
#ifndef VSE_AGENT_SERVICES_H
#define VSE_AGENT_SERVICES_H

#include "agent/call.h"
#include "cluster/cluster.h"
#include "wire/verbs.h"

typedef int service_fn(struct call *call, const json_t *req, struct err *err);
service_fn *service_find(enum verb v); /* NULL: only valid within a call */

/* service_cluster.c */
int service_hello(struct call *call, const json_t *req, struct err *err);
int service_create(struct call *call, const json_t *req, struct err *err);
int service_keep(struct call *call, const json_t *req, struct err *err);
int service_status(struct call *call, const json_t *req, struct err *err);
int service_size(struct call *call, const json_t *req, struct err *err);
int service_join(struct call *call, const json_t *req, struct err *err);
int service_down(struct call *call, const json_t *req, struct err *err);
int service_events(struct call *call, const json_t *req, struct err *err);
/* service_vm.c */
int service_stop(struct call *call, const json_t *req, struct err *err);
int service_pause(struct call *call, const json_t *req, struct err *err);
int service_resume(struct call *call, const json_t *req, struct err *err);
int service_restart(struct call *call, const json_t *req, struct err *err);
int service_move(struct call *call, const json_t *req, struct err *err);
/* service_save.c */
int service_save(struct call *call, const json_t *req, struct err *err);
int service_definition(struct call *call, const json_t *req, struct err *err);
/* service_hold.c */
int service_hold(struct call *call, const json_t *req, struct err *err);
/* service_send.c, service_arrive.c, deploy_migrate.c */
int service_send(struct call *call, const json_t *req, struct err *err);
int service_unsend(struct call *call, const json_t *req, struct err *err);
void service_send_finish(struct agent *a); /* before the cluster is destroyed */
int service_arrive(struct call *call, const json_t *req, struct err *err);
void service_arrive_finish(struct agent *a);
int service_migrate(struct call *call, const json_t *req, struct err *err);
/* service_guest.c */
int service_exec(struct call *call, const json_t *req, struct err *err);
int service_put(struct call *call, const json_t *req, struct err *err);
int service_get(struct call *call, const json_t *req, struct err *err);
/* service_launch.c */
int service_launch(struct call *call, const json_t *req, struct err *err);
void service_launch_finish(struct agent *a);
/* service_console.c */
int service_console(struct call *call, const json_t *req, struct err *err);
int service_logs(struct call *call, const json_t *req, struct err *err);

/* deploy_grow.c, deploy_shrink.c */
int service_add_nodes(struct call *call, const json_t *req, struct err *err);
int service_remove_nodes(struct call *call, const json_t *req, struct err *err);

/* "nodes" of a message, the names of all: those that are not known here are new. Absent: nothing. */
int service_know_nodes(struct agent *a, const json_t *req, struct err *err);
/* A VM of this agent. NULL with ESHUTDOWN: it was ended when this node was declared lost. */
struct vm *service_vm(struct agent *a, uint32_t rank, struct err *err);
/* The set "ranks" of a request, within the cluster. */
int service_ranks(struct agent *a, const json_t *req, struct rankset *ret, struct err *err);

#endif
