/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's own state, for its services. */
#ifndef VSE_AGENT_STATE_H
#define VSE_AGENT_STATE_H

#include "agent/call.h"
#include "agent/deploy.h"
#include "agent/fabric.h"
#include "agent/mesh.h"
#include "agent/report.h"
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
	uint32_t self;     /* index of this node; 0: the root agent */
	struct mesh *mesh; /* NULL: it runs alone */
	int lock;
	struct listener *listener;
	struct conn *conns;
	struct cluster *cluster;
	json_t *request;        /* the root's: the "create" that made it */
	struct conn *holder;    /* the cluster ends with this connection; NULL: it was kept */
	struct call *creating;  /* the "create" call that waits for the start */
	struct call *ending[8]; /* "down" calls that wait */
	size_t n_ending;
	struct waiter *waiters;
	struct evtimer *lonely; /* ends an agent that got no cluster */
	struct evtimer *home;   /* looks whether the run directory is still there */
	bool over;
	const struct kept *kept; /* a node's, borrowed; NULL: nobody starts it again */
	/* With others: */
	struct deploy *deploy;        /* the root's */
	struct reaper *reaper;        /* the same; a node's is its keeper's */
	struct launch_part *launches; /* of agents that this one has started (service_launch.c) */
	struct report *report;        /* a node's */
	struct fabric *fabric;
	struct watch *input;
	uint64_t answer_bytes; /* that came from agents below, of requests that every VM answers */
	bool admitted, signalled;     /* signalled: SIGTERM or the like told it to end */
	struct adoption *adoption;    /* a node's (node_adopt.c) */
	struct sending *sendings;     /* VMs that leave (service_send.c) */
	struct receiving *receivings; /* VMs that come (service_arrive.c) */
	json_t *templates;            /* a node's: which nodes keep which, as the root said */
	struct template_gift *gifts;  /* templates on their way to other nodes (templates.c) */
	struct evtimer *leave;        /* a node's: looks whether the last answer is out */
	uint64_t leave_until;
};

void agent_add_waiter(struct agent *a, struct waiter *w);
void agent_remove_waiter(struct agent *a, struct waiter *w);
/* The connection is gone: the cluster goes with it, if it is held by it. */
void agent_conn_lost(struct agent *a, struct conn *c);
void agent_down(struct agent *a, bool graceful); /* ends the cluster, here and elsewhere; then on_down of it */
/* Lets go of the run directory: who is told that the cluster is down may start one of the same name at once. */
void agent_release(struct agent *a);
void agent_end(struct agent *a);                       /* the loop stops after this round */
void agent_on_event(void *arg, const struct event *e); /* of the cluster; arg: the agent */
extern const struct cluster_ops agent_cluster_ops;     /* arg: the agent */

#endif
