/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world: virtual time, hosts, connections that keep their order, and an agent on each host that drives
 * the real overlay as the program does. Everything follows from the seed. */
#ifndef VSE_TESTS_SIM_WORLD_H
#define VSE_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rankset.h"
#include "overlay/fanout.h"
#include "overlay/overlay.h"

#define ROOTS_MAX 8u /* a root that comes back elsewhere is another host */
#define CALLS_MAX 16u
#define QUEUE_BYTES                                                                                \
	(96u << 10) /* of overlay messages under way in one direction of one connection */

struct conn;

enum event_type {
	EV_TICK,
	EV_SYN,       /* a connection arrives */
	EV_CONNECTED, /* it was accepted */
	EV_FAILED,    /* it was refused */
	EV_MESSAGE,   /* of the overlay */
	EV_APP,       /* of a call */
	EV_CLOSED,
	EV_FLUSH,   /* a cut has healed */
	EV_STOPPED, /* the VMs of a fenced node are stopped */
	EV_START_VM,
	EV_RAN,    /* a node has run its part of a call */
	EV_CALLER, /* the one who issues calls wakes up */
	EV_FAULT,
};

struct event {
	struct event *next;
	uint64_t at;
	struct conn *conn;
	void *more; /* owned, or NULL: data is in small */
	uint32_t a, b;
	uint32_t len;
	uint8_t type;
	uint8_t end; /* of conn: the one that it is for */
	uint8_t small[42];
};

struct end {
	uint32_t agent, link;
	uint32_t life;  /* of the agent when it opened this */
	uint64_t last;  /* when the last thing sent to here arrives */
	uint32_t bytes; /* of overlay messages on their way to here */
	bool open;      /* the agent has it */
	bool cut;       /* what is sent to here is held up */
	bool retiring;
	struct event *held, **held_tail; /* what a cut holds up, in order */
};

struct conn {
	struct end end[2];
	uint32_t latency;
	uint32_t refs; /* events and open ends */
	bool answered;
};

struct call;

struct agent {
	struct overlay *o; /* NULL: no process */
	uint32_t id; /* index of the agent: that of the node, or n_max + 1 + number of the root */
	uint32_t index; /* of the node */
	uint32_t life;  /* counts its processes */
	uint32_t incarnation;
	uint64_t tick_at;
	uint32_t island;
	uint32_t slow; /* ms more on its connections */
	bool silent;   /* nothing gets in or out */
	bool removed, admitted, fenced;
	bool ended;
	bool touched; /* by a fault of its own */
	struct slot { /* by the slot of the link */
		struct conn *conn;
		uint32_t end;
	} * conns;
	uint32_t n_conns, n_open, peak_open;
	struct call *calls;
	uint32_t next_request;
	uint32_t n_vms; /* running here */
};

enum vm_state { VM_NONE, VM_ORDERED, VM_WAITING };
struct place {
	uint32_t node, incarnation;
	uint8_t state;
	uint32_t runs_at; /* agent id; 0: nowhere (agent 0 is never used) */
	uint32_t runs_life;
};

struct journal { /* what the root keeps over its own death */
	uint32_t incarnation;
	bool up, lost, safe;
	char address[24];
};

struct issued { /* a call, as the truth knows it */
	uint64_t id;
	struct rankset members;
	uint16_t *ran; /* by member's node: how often */
	bool done, dropped;
	uint64_t at;
};

struct cut {
	uint32_t a, b; /* agents; a does not reach b */
	uint64_t until;
};

struct options {
	uint64_t seed;
	uint32_t agents;
	uint32_t fanout;
	bool no_faults, verbose, scale;
};

struct world {
	struct options opt;
	uint64_t now, random, end_at;
	uint32_t n, n_max;    /* nodes now, and at the end */
	struct agent *agents; /* 1..n_max, then the roots */
	uint32_t root;        /* agent id of the present root */
	uint32_t n_roots;
	uint64_t epoch;
	uint8_t cluster[16];
	uint32_t beat_ms, lost_ms, give_up_ms;
	bool had_faults, to_the_end;
	struct cut cuts[64];
	uint32_t n_cuts;
	struct place *vms;     /* one set of VMs a node */
	struct journal *books; /* by node */
	struct issued *issued;
	uint32_t n_issued;
	uint64_t n_events, n_messages, n_calls_done, n_dead_named, healed, moved, lost, refused;
	uint32_t max_bytes, max_depth, max_actions;
	uint64_t max_memory;
	char failure[256];
};

/* queue.c */
struct event *event_new(enum event_type type);
void event_free(struct event *e);
void event_data(struct event *e, const void *data, size_t len);
void queue_at(struct world *w, struct event *e, uint64_t at); /* taken */
struct event *queue_next(struct world *w);                    /* NULL: after end_at; sets now */
void queue_clear(void);

/* world.c */
uint32_t rnd(struct world *w, uint32_t below);
void fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void world_init(struct world *w, const struct options *opt);
void world_finish(struct world *w);
void world_run(struct world *w);
bool world_step(struct world *w); /* one event; false: none is left before end_at */
struct agent *agent_of(struct world *w, uint32_t id);

/* net.c */
bool is_cut(const struct world *w, uint32_t from, uint32_t to);
void net_connect(struct world *w, struct agent *a, uint32_t link, const char *address);
void net_send(struct world *w, struct agent *a, uint32_t link, enum event_type type,
	      const void *data, size_t len);
void net_close(struct world *w, struct agent *a, uint32_t link);
void net_close_all(struct world *w, struct agent *a); /* its process is gone: the kernel says so to the others */
void net_deliver(struct world *w, struct event *e);
void net_flush(struct world *w, struct event *e);
void net_recheck(struct world *w, uint32_t agent); /* cuts around it have changed */
struct end *net_end(struct agent *a, uint32_t link, struct conn **ret);

/* agent.c */
void agent_start(struct world *w, struct agent *a, uint32_t incarnation);
void agent_exec(struct world *w, struct agent *a); /* another process in its place, the VMs stay */
void agent_kill(struct world *w, struct agent *a); /* the process and its VMs */
void agent_actions(struct world *w, struct agent *a);
void root_begin(struct world *w, uint32_t number);

/* cluster.c: what the root does with VMs */
void cluster_up(struct world *w, uint32_t node, uint32_t incarnation, const char *address);
void cluster_lost(struct world *w, uint32_t node, uint32_t incarnation);
void cluster_safe(struct world *w, uint32_t node, uint32_t incarnation);
void cluster_start_vm(struct world *w, struct agent *a, uint32_t vm, uint32_t incarnation);
void vms_gone(struct world *w, struct agent *a);

/* calls.c */
void calls_issue(struct world *w);
void calls_wake(struct world *w); /* the caller at the root */
void calls_link_lost(struct world *w, struct agent *a, uint32_t link);
void calls_message(struct world *w, struct agent *a, uint32_t link, const void *data, size_t len);
void calls_ran(struct world *w, struct agent *a, const struct event *e);
void calls_drop(struct world *w, struct agent *a);
void calls_retire(struct world *w, struct agent *a, uint32_t link);

/* faults.c */
void faults_plan(struct world *w);
void faults_do(struct world *w, const struct event *e);

/* scale.c */
bool scale(uint32_t agents, uint32_t vms);

/* check.c */
void check_step(struct world *w, struct agent *a);
void check_end(struct world *w);

#endif
