/* SPDX-License-Identifier: Apache-2.0 */
/* What an agent knows of the nodes below it: a record each, merged by maximum, and the queue of those that its parent
 * has not been told of. */
#ifndef VSE_OVERLAY_MEMBERS_H
#define VSE_OVERLAY_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum member_state { /* at equal incarnation and seq the larger wins */
		    MEMBER_UNKNOWN,
		    MEMBER_ATTACHED,
		    MEMBER_CLOSED, /* its parent saw the link close */
		    MEMBER_SILENT, /* its parent heard nothing for lost_ms */
};

struct member {
	uint32_t incarnation;
	uint32_t seq;        /* how often it has attached in this incarnation */
	uint16_t tag;        /* of its process: see struct upward */
	uint16_t parent_tag; /* of the process that it is attached to */
	uint16_t slot;       /* of its link, when it is attached to this very agent */
	uint8_t state;
	uint8_t depth : 7; /* of the parent */
	uint8_t queued : 1;
};

struct members {
	uint32_t k, me;
	uint8_t my_depth;
	struct member *v; /* by tree_position() */
	uint32_t n;
	uint32_t *queue; /* a ring of positions, each at most once: never longer than n */
	uint32_t queue_cap;
	uint64_t head, tail; /* counted from the beginning: the ring's index is modulo its size */
	uint64_t acked;      /* all before are known to the root */
	uint32_t attached;   /* how many records say so */
};

void members_init(struct members *m, uint32_t k, uint32_t me);
void members_finish(struct members *m);
/* The record, or NULL: nothing is known. */
struct member *members_find(const struct members *m, uint32_t node);
/* The record, made if need be; the node must be below. */
struct member *members_get(struct members *m, uint32_t node);
/* Merges what is said of a node. True: it was news. */
bool members_merge(struct members *m, uint32_t node, const struct member *news);
void members_queue(struct members *m, uint32_t node); /* its record goes upwards */
void members_queue_all(struct members *m);
/* The next in the queue is taken out: UINT32_MAX when empty. */
uint32_t members_dequeue(struct members *m);
uint32_t members_peek(const struct members *m);
/* The child of ours through which the node hangs, by the records alone: *ret_slot. OVERLAY_NONE: not attached. */
uint32_t members_hop(const struct members *m, uint32_t node, uint16_t *ret_slot);

#endif
