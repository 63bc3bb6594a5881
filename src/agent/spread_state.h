/* SPDX-License-Identifier: Apache-2.0 */
/* Inside agent/spread*.c: one request that goes over several hops. */
#ifndef VSE_AGENT_SPREAD_STATE_H
#define VSE_AGENT_SPREAD_STATE_H

#include "agent/folding.h"
#include "agent/mesh.h"
#include "agent/spread.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "overlay/fanout.h"
#include "wire/guestproto.h"
#include "wire/message.h"

/* Counts that are added up over the hops. */
enum sum { SUM_PROGRESS, SUM_STAGING, SUMS };

/* One direction that the request went: into this agent, or to a child. */
struct hop {
	struct spread *spread;
	uint32_t id;       /* in the books (overlay/fanout.h) */
	struct call *part; /* here; NULL: to a child */
	struct child *child;
	uint32_t call; /* id of the call at the child */
	bool over;
	struct rankset ranks; /* VMs in this direction */
	uint64_t granted;     /* bytes of stdin it has room for, ever */
	json_int_t sums[SUMS][2]; /* what it said last: VMs that start, ready and failed; bytes of the image, have and all */
};

/* The members of the books are the VMs that are asked, or, of a request to everybody, the hops by their id. */
struct spread {
	struct call *call;
	enum verb verb;
	struct fanout *books;
	struct folding *output; /* NULL: nothing is to be waited for */
	struct hop *hops;
	size_t n_hops, live;
	uint32_t open; /* members that have not answered */
	bool answers;  /* some are settled and not told yet */
	bool started, input;
	bool broken;           /* one VM cannot be held: no other need be */
	uint64_t told;         /* bytes of stdin the asker may send, ever, as it knows */
	json_t *reply;         /* of the hops so far; NULL: none has ended well */
	struct rankset failed; /* of a request to everybody: VMs that a hop's error named */
	struct evtimer *soon;
	uint64_t due; /* when `soon` runs; 0: it does not */
};

/* spread_answers.c */
extern const struct call_out spread_part_out;    /* arg: the hop */
extern const struct caller_ops spread_child_ops; /* arg: the hop */
/* Each VM answers with an event of its own; else the hop's reply is all there is. */
bool spread_answers_by_vm(enum verb v);
/* Everybody is asked, whatever VMs it has. */
bool spread_takes_all(enum verb v);
folding_emit spread_emit; /* arg: the spread */
void spread_deliver(void *arg);
/* Members that are assigned nowhere will not answer. */
void spread_dead(struct spread *s, const struct rankset *members, const struct err *why);
/* After every change: delivers, now or soon, and replies when the last has answered. May free s. */
void spread_look(struct spread *s);

#endif
