/* SPDX-License-Identifier: Apache-2.0 */
/* A small process beside the agent that outlives it by a moment: when the agent dies in any way, it kills what
 * the agent ran and removes its run directory. */
#ifndef VSE_AGENT_REAPER_H
#define VSE_AGENT_REAPER_H

#include "io/loop.h"

struct reaper;

/* The reaper is started anew should somebody kill it. */
struct reaper *reaper_create(struct loop *l, const char *base, const char *name, struct err *err);
/* Ends it without a sweep. NULL is fine. */
void reaper_destroy(struct reaper *r);

#endif
