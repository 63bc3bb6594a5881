/* SPDX-License-Identifier: Apache-2.0 */
/* A small process beside the agent that outlives it by a moment: when the agent dies in any way, it kills what
 * the agent ran and removes its run directory. */
#ifndef VSE_AGENT_REAPER_H
#define VSE_AGENT_REAPER_H

#include <sys/types.h>

#include "io/loop.h"

struct reaper;

#define REAPER_HELD_MAX 64

/* The process alone: it waits for the end of `fd`, a pipe's reading end, or for a byte, which ends it without a sweep.
 * writer: what it must not hold open. Gives its pid, a child; -1 with errno. */
pid_t reaper_fork(int fd, int writer, const char *base, const char *name);

/* The reaper is started anew should somebody kill it. */
struct reaper *reaper_create(struct loop *l, const char *base, const char *name, struct err *err);
/* Has the reaper keep this descriptor open, too (dup'ed): what lives as long as somebody has it open outlives the agent, and
 * goes to the root that follows it (--hold); without one it ends with the reaper. -1: there are too many. */
int reaper_hold(struct reaper *r, int fd);
void reaper_drop(struct reaper *r, int held); /* what reaper_hold() gave; -1 is fine */
/* Ends it without a sweep. NULL is fine. */
void reaper_destroy(struct reaper *r);

#endif
