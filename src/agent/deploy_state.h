/* SPDX-License-Identifier: Apache-2.0 */
/* Inside agent/deploy*.c: a cluster over many nodes, as the root agent has it. */
#ifndef VSE_AGENT_DEPLOY_STATE_H
#define VSE_AGENT_DEPLOY_STATE_H

#include "agent/deploy.h"
#include "agent/bootstrap.h"
#include "agent/fabric.h"
#include "agent/spread.h"
#include "agent/state.h"
#include "agent/waves.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/size.h"
#include "base/text.h"
#include "cluster/plan.h"
#include "launcher/launcher.h"
#include "overlay/overlay.h"
#include "wire/message.h"

enum step { ALLOCATING, LAUNCHING, STAGING, STARTING, UP, ENDING, ENDED };

struct member {
	char *name, *why; /* why: it did not come, or was lost */
	uint32_t cpus, cores;
	uint64_t memory, hugepages;
	bool up, failed;
	bool direct;      /* the root starts its agent itself */
	bool counted;     /* while it is added: that it came up */
	bool joining;     /* its agent comes up, or learns what the cluster is: takes no VMs yet */
	bool leaving;     /* it is being removed: takes no VMs any more */
	bool removed;     /* no member any more */
	bool safe;        /* lost, and none of its VMs can run any more */
	bool recover;     /* its VMs begin anew elsewhere, whatever the cluster's option says */
	char *hypervisor; /* that its agent has chosen; "": none fits; NULL: it was not asked to */
	char *unfit; /* why what comes before it cannot be used there, or nothing can; "" = nothing to say */
	json_t *templates;        /* that it keeps; NULL: none */
	struct launch_node given; /* what its allocation says of it; no name */
};

struct deploy {
	struct agent *agent;
	json_t *req, *launch; /* launch: borrowed from req */
	enum step step;
	const struct launcher *launcher;
	struct allocating *allocating;
	struct allocation *allocation;
	int held; /* by the reaper: the allocation */
	struct waves *waves;
	struct branch *branches; /* requests to agents to start their children */
	bool tree, told_flat;
	struct member *members; /* 1..n */
	uint32_t n, n_up, n_failed;
	struct evtimer *bound;
	bool removed; /* at the end: no node is a member any more */
	bool grown;   /* nodes were added: one that comes back may not know of them */
	json_t *files; /* of the image, as they are offered; NULL: none, or not offered by this root */
	struct growth *growths, *growing; /* deploy_grow.c; growing: under way */
	struct shrink *shrinks;           /* deploy_shrink.c: under way */
	struct migration *migrations;     /* deploy_migrate.c: not settled */
	struct moving *movings;           /* the requests for them */
	struct fabric_offer *offer;
	struct call *call; /* the request that goes down the tree: create, then moves, then down */
	json_t *moves;     /* that wait until the one before is over */
	bool start_moved;  /* the VMs among them are started */
	struct bootstrap bootstrap;
	struct evtimer *journal;  /* writes it soon */
	struct evtimer *forsaken; /* ends a cluster that has no node any more */
	struct evtimer *clock;    /* asks for the time that is left of the job */
	struct time_query *query;
	int64_t left_s; /* of the job; -1: not known, or no limit */
	bool warned;
};

struct branch {
	struct deploy *deploy;
	struct branch *next;
	struct call *call;
	uint32_t node;
};

#define DEPLOY_CLOCK_MS                                                                            \
	30000 /* between questions for the time left: each runs a program of the manager */

/* deploy.c */
struct deploy *deploy_make(struct agent *a, const json_t *req);
void deploy_tell(struct deploy *d, const char *text, uint32_t done, uint32_t all);
void deploy_failed(struct deploy *d, const struct err *why);           /* the start, for good */
void deploy_ask_all(struct deploy *d, enum verb v, const json_t *req); /* d->call is under way after */
uint32_t deploy_setting(const struct deploy *d, const char *key); /* a number of the "launch" object; 0: none */
struct plan_node deploy_plan_node(const struct deploy *d, uint32_t node); /* borrows from it */
int deploy_plan_options(struct deploy *d, struct plan_options *o, struct err *err);
bool deploy_unfit(const struct member *m); /* no hypervisor there can run these VMs */
void deploy_look(struct deploy *d);        /* has every node come, or failed to? */
void deploy_give_up_node(struct deploy *d, uint32_t node, const char *why);
extern const struct mesh_ops deploy_mesh_ops;
/* Answers of a request of the root's own that carries no data. */
/* What an agent is told of the cluster. files: taken; NULL: none. New reference. */
json_t *deploy_create_request(struct deploy *d, json_t *files);
void deploy_no_data(struct call *call, uint32_t rank, int fd, const char *p, size_t n, bool eof);
void deploy_no_credit(struct call *call, uint32_t rank, int fd, uint32_t bytes);
size_t deploy_no_backlog(const struct call *call);
/* deploy_journal.c */
void deploy_on_journal(void *arg);
int deploy_write_journal(struct deploy *d, struct err *err); /* at once; nothing while the cluster is not up */
void deploy_note_change(struct deploy *d);                   /* it is written soon */
/* deploy_launch.c */
int deploy_allocate(struct deploy *d, struct err *err);
int deploy_make_mesh(struct deploy *d, const json_t *journal,
		     struct err *err); /* journal: of the root before; or NULL */
void deploy_start_branch(struct deploy *d, uint32_t node); /* it has come up: its children are its own to start */
void deploy_branch_end(struct branch *b);
void deploy_launch_ended(struct deploy *d); /* some launcher's last process is gone */
/* deploy_recover.c */
void deploy_recover(struct deploy *d, uint32_t node); /* no VM of this node can run any more */
void deploy_tell_places(struct deploy *d);
void deploy_move_next(struct deploy *d);
void deploy_add_move(struct deploy *d, uint32_t node, const struct rankset *ranks);
int deploy_check_room(struct deploy *d, struct err *err); /* for the VMs of the nodes that leave; ENOSPC */
/* deploy_migrate.c */
void deploy_migrations_told(struct deploy *d); /* all agents know where the VMs are */
void deploy_migrations_stop(struct deploy *d);
void deploy_migrations_lost(struct deploy *d, uint32_t node); /* it takes no VMs any more */
json_t *deploy_migrations_journal(const struct deploy *d);    /* new reference */
void deploy_migrations_resume(struct deploy *d, const json_t *list);
/* deploy_grow.c */
bool deploy_growth_up(struct deploy *d, uint32_t node); /* false: it is none that is being added */
bool deploy_growths_run(const struct deploy *d);        /* a launcher's process of theirs does */
void deploy_growths_stop(struct deploy *d);             /* the one under way fails */
void deploy_growths_destroy(struct deploy *d);
/* deploy_shrink.c */
/* What stands for its name in the list that new nodes look for their own in: no host's (RFC 2606). */
#define DEPLOY_REMOVED_NAME "removed.invalid"
void deploy_forget_node(struct deploy *d, uint32_t node); /* it is a member no more, from now on */
void deploy_shrinks_stop(struct deploy *d);

#endif
