/* SPDX-License-Identifier: Apache-2.0 */
/* What the two ends of a VM's move have in common (service_send.c, service_arrive.c). */
#ifndef VSE_AGENT_MOVING_H
#define VSE_AGENT_MOVING_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct agent;
struct stream;

#define MOVING_ID_MAX 32
#define MOVING_PIECE (256u << 10) /* bytes of state or disk in one frame */
#define MOVING_OFFSET 8u          /* before a piece of the disk: where it goes, big endian */
#define MOVING_QUEUE (4u << 20)   /* bytes that wait: then the sender waits, too */

static inline void moving_put_offset(char *p, uint64_t v)
{
	for (unsigned i = 0; i < MOVING_OFFSET; i++)
		p[i] = (char)(v >> (56 - 8 * i));
}

static inline uint64_t moving_get_offset(const char *p)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < MOVING_OFFSET; i++)
		v = v << 8 | (unsigned char)p[i];
	return v;
}

/* Whether the target of a move takes nothing any more. Counted in looks, each a while after the one before, and not in time: a
 * source that did not run for a minute itself has looked once. */
struct moving_stall {
	uint64_t taken;
	unsigned looks;
};

#define MOVING_STALL_LOOKS 10

/* put: bytes that were given to the link since it was opened, queued: those of them that it still has; answer: all is out and
 * the target has to say so; looks: how many are too many. A link that has nothing to carry waits for the source, which may take as long as it wants. */
static inline bool moving_stalls(struct moving_stall *s, uint64_t put, size_t queued, bool answer,
				 unsigned looks)
{
	uint64_t taken = put > queued ? put - queued : 0;
	if (taken > s->taken || !(queued || answer)) {
		s->taken = taken > s->taken ? taken : s->taken;
		s->looks = 0;
		return false;
	}
	return ++s->looks >= looks;
}

/* "rank" and "id" of a request or of a link's first message, within the cluster; id: borrowed from j. */
int moving_read(struct agent *a, const json_t *j, uint32_t *ret_rank, const char **ret_id,
		struct err *err);
/* A link of another agent that brings a VM; s: taken. */
void moving_link(struct agent *a, uint32_t node, struct stream *s);

#endif
