/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's own state, for its services. */
#ifndef VSE_AGENT_STATE_H
#define VSE_AGENT_STATE_H

#include "agent/call.h"
#include "cluster/cluster.h"
#include "io/listener.h"

/* A call that waits for VMs (service_vm.c) or follows events (service_cluster.c). */
struct waiter {
	struct call *call;
	struct waiter *next;
	void (*on_vm)(struct waiter *w, struct vm *vm);
	void (*on_event)(struct waiter *w, const struct event *e);
};

struct agent {
	struct loop *loop;
	char *base, *name, *dir;
	uint32_t self; /* index of this node; 0: the root agent */
	int lock;
	struct listener *listener;
	struct conn *conns;
	struct cluster *cluster;
	struct conn *holder;    /* the cluster ends with this connection; NULL: it was kept */
	struct call *creating;  /* the "create" call that waits for the start */
	struct call *ending[8]; /* "down" calls that wait */
	size_t n_ending;
	struct waiter *waiters;
	struct evtimer *lonely; /* ends an agent that got no cluster */
	struct evtimer *home;   /* looks whether the run directory is still there */
	bool over;
};

void agent_add_waiter(struct agent *a, struct waiter *w);
void agent_remove_waiter(struct agent *a, struct waiter *w);
/* The connection is gone: the cluster goes with it, if it is held by it. */
void agent_conn_lost(struct agent *a, struct conn *c);
void agent_end(struct agent *a);                       /* the loop stops after this round */
void agent_on_event(void *arg, const struct event *e); /* of the cluster; arg: the agent */
extern const struct cluster_ops agent_cluster_ops;     /* arg: the agent */

#endif
