/* SPDX-License-Identifier: Apache-2.0 */
/* Agents on their way to nodes: any number of starts by one launcher, of nodes that are told by index. The root has
 * one; with ssh over many nodes each agent of the tree has one for its own children ("launch" requests). */
#ifndef VSE_AGENT_WAVES_H
#define VSE_AGENT_WAVES_H

#include <jansson.h>

#include "agent/bootstrap.h"
#include "launcher/launcher.h"

struct agent;
struct waves;

struct waves_config {
	const struct launcher *launcher;
	const struct allocation *allocation; /* nodes[i - 1] is node i; borrowed as long as the waves live */
	const uint32_t *index; /* where that is not so: nodes[i - 1] is node index[i - 1]; NULL; borrowed likewise */
	const struct bootstrap *bootstrap; /* likewise */
	const json_t *options;             /* "launch" of the create message; likewise */
};

struct waves_ops {
	void (*on_started)(void *arg, uint32_t node); /* it gets its bootstrap; may be NULL */
	void (*on_failed)(void *arg, uint32_t node, const struct err *why);
	void (*on_ended)(void *arg); /* none of the starts runs any more; may be NULL */
};

struct waves *waves_create(struct agent *a, const struct waves_config *c,
			   const struct waves_ops *ops, void *arg);
/* Ends what it started here. NULL is fine. */
void waves_destroy(struct waves *w);
/* nodes: positions in the allocation, from 1. */
int waves_start(struct waves *w, const uint32_t *nodes, size_t n, struct err *err);
bool waves_running(const struct waves *w);
/* Every agent that will come has come: a file that they were to read, with the secret in it, is removed. */
void waves_settled(struct waves *w);

#endif
