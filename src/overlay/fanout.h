/* SPDX-License-Identifier: Apache-2.0 */
/* One call, asked of a set of members (ranks of VMs, or nodes) over several hops (links to children, or this agent
 * itself), and its answers coming back. Pure bookkeeping; the caller sends and receives. It is complete exactly once:
 * when every member has answered or was named dead, never before.
 *
 * How it is used, on each agent on the way:
 *   f = fanout_create(&members);
 *   for each hop: fanout_assign(f, hop, &subset), send the call and the subset there;
 *   on an answer from a hop: fanout_answer(f, hop, &ranks, answer, len);
 *   on the loss of a hop: fanout_lost(f, hop, &set) gives who has not answered there, then
 *     fanout_dead(f, &set, "node 7: lost", n): they may have done what was asked, so it is not asked of them twice;
 *   after each of these: if (fanout_done(f)), all groups go up and f is destroyed. Groups may go up earlier too:
 *     fanout_take() gives those that are new since the last time. */
#ifndef VSE_OVERLAY_FANOUT_H
#define VSE_OVERLAY_FANOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rankset.h"

#define FANOUT_LOCAL 0u /* the hop that is this agent itself; links are never 0 */

struct fanout;

struct fanout *fanout_create(const struct rankset *members); /* (copied); may be empty */
void fanout_destroy(struct fanout *f);

/* These members are asked over this hop. Only members that are outstanding and not assigned anywhere are taken;
 * gives how many that were. */
uint32_t fanout_assign(struct fanout *f, uint32_t hop, const struct rankset *set);
/* An answer. Only members outstanding behind that very hop are taken (a late, doubled or foreign answer changes
 * nothing); gives how many. Equal answers (byte by byte) are folded. The caller bounds len. */
uint32_t fanout_answer(struct fanout *f, uint32_t hop, const struct rankset *set,
		       const void *answer, size_t len);
/* The hop is gone: adds to `ret` exactly who was outstanding behind it. They are unassigned now and still
 * outstanding. Gives how many. */
uint32_t fanout_lost(struct fanout *f, uint32_t hop, struct rankset *ret);
/* Names members as dead, with a reason that is folded like an answer. Only outstanding members that are assigned
 * nowhere are taken; gives how many. */
uint32_t fanout_dead(struct fanout *f, const struct rankset *set, const void *why, size_t len);

/* Outstanding members: all (hop OVERLAY_NONE's value, UINT32_MAX), or those behind one hop. Added to ret (may be
 * NULL). Gives how many. */
uint32_t fanout_outstanding(const struct fanout *f, uint32_t hop, struct rankset *ret);
/* True exactly once: the first time it is asked after the last member was settled. */
bool fanout_done(struct fanout *f);

struct fanout_group {
	const void *answer; /* borrowed from f until it is changed or destroyed */
	size_t len;
	bool dead;    /* answer is the reason */
	uint32_t n;   /* how many members */
	uint32_t any; /* one of them */
};
uint32_t fanout_groups(const struct fanout *f); /* how many: distinct answers */
void fanout_group(const struct fanout *f, uint32_t i, struct fanout_group *ret,
		  struct rankset *set); /* adds to set */
/* The next group with members that were not taken before, and just those, added to `set`; false: none. */
bool fanout_take(struct fanout *f, struct fanout_group *ret, struct rankset *set);

#endif
