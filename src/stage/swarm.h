/* SPDX-License-Identifier: Apache-2.0 */
/* Who asks whom for which chunk: one node's part of it, pure. No I/O, no clock, no randomness: messages, links, arrived
 * chunks and the time (milliseconds, any origin, never going back) are handed in; what is to be done comes out by ops,
 * which only queue it (they do not call back into here). tests/unit/test-stage-sim.c runs many of these over modelled
 * links, stage.c one over real ones.
 *
 * A node asks its parent in each stripe's tree (plan.h) for up to WINDOW chunks ahead, before the parent has them: a
 * chunk goes on the moment it is verified. Beside it, it *watches* the next of its providers: when that has had a chunk
 * for longer than our patience and the parent still has not begun to send it, the chunk is asked there instead; when
 * this happened often, the parent becomes the last choice. Patience grows with what is usual on these links and with the
 * depth, so that who is next to a slow node moves, not all below; who moves tells those below to wait (LATE). */
#ifndef VSE_STAGE_SWARM_H
#define VSE_STAGE_SWARM_H

#include "stage/plan.h"
#include "stage/proto.h"

#define SWARM_TICK_MS 50

struct swarm;
struct swarm_file;

struct swarm_ops {
	void (*connect)(void *arg, uint32_t node);
	void (*send)(void *arg, uint32_t node, const struct stage_msg *m); /* only to nodes with a link */
	void (*ready)(void *arg, uint32_t node); /* swarm_next(node) has something now */
	/* Somebody wants a file of ours whose index we lack: swarm_file_want() it (a shared file that we have whole). */
	void (*wanted)(void *arg, struct swarm_file *f);
};

struct swarm *swarm_create(uint32_t self, const struct swarm_ops *ops, void *arg);
void swarm_destroy(struct swarm *s);            /* its files too; NULL is fine */
void swarm_tick(struct swarm *s, uint64_t now); /* every SWARM_TICK_MS */
bool swarm_busy(const struct swarm *s); /* something is asked for or owed: ticks are needed */

void swarm_link_up(struct swarm *s, uint32_t node, uint64_t now);
void swarm_link_down(struct swarm *s, uint32_t node, uint64_t now); /* or a connect that failed */
void swarm_node_lost(struct swarm *s, uint32_t node, bool lost); /* it is not connected to while lost */
void swarm_ban(struct swarm *s, uint32_t node); /* nothing is asked of it ever again */
bool swarm_banned(const struct swarm *s, uint32_t node);
/* EPROTO: nobody of ours would send this; close the link. */
int swarm_message(struct swarm *s, uint32_t node, const struct stage_msg *m, uint64_t now,
		  struct err *err);
/* The next chunk to send to this node (idx may be STAGE_INDEX), taken off its list. */
bool swarm_next(struct swarm *s, uint32_t node, struct swarm_file **ret_file, uint32_t *ret_idx,
		uint64_t now);

/* ---- files ---- */

/* `nodes`: the trees of this file are over 1..nodes, on every node the same. user: swarm_file_user(). */
struct swarm_file *swarm_file_add(struct swarm *s, const uint8_t key[SHA_SIZE], uint32_t nodes,
				  void *user);
void swarm_file_remove(struct swarm_file *f, uint64_t now); /* who waits for it is told */
struct swarm_file *swarm_file_find(struct swarm *s, const uint8_t key[SHA_SIZE]);
void *swarm_file_user(const struct swarm_file *f);
/* The index is there (borrowed until the file is removed). have_all: so is every chunk. */
void swarm_file_index(struct swarm_file *f, const struct index *x, bool have_all, uint64_t now);
/* Ask for what is missing, the index first. false: stop, and refuse others (another agent is at it). */
void swarm_file_want(struct swarm_file *f, bool want, uint64_t now);
/* While paused nothing is asked for, and nobody is refused. */
void swarm_file_pause(struct swarm_file *f, bool pause, uint64_t now);
/* Chunk idx is being made here: do not ask for it (until swarm_chunk_unhold). */
void swarm_chunk_hold(struct swarm_file *f, uint32_t idx);
void swarm_chunk_unhold(struct swarm_file *f, uint32_t idx, uint64_t now);
/* Chunk idx is here and verified. */
void swarm_chunk_have(struct swarm_file *f, uint32_t idx, uint64_t now);
bool swarm_has(const struct swarm_file *f, uint32_t idx);
uint32_t swarm_missing(const struct swarm_file *f); /* chunks */

/* n bytes of a chunk are arriving from node (n may be 0: its header). False: they are not wanted (any more). */
bool swarm_arriving(struct swarm_file *f, uint32_t idx, uint32_t node, uint32_t n, uint64_t now);
/* All of it has come and was wanted to the end. ok: verified, swarm_chunk_have() (or swarm_file_index()) follows; else
 * it is asked for again, and the caller bans the node. */
void swarm_arrived(struct swarm_file *f, uint32_t idx, uint32_t node, bool ok, uint64_t now);

uint64_t swarm_rate(const struct swarm_file *f); /* bytes a second, of late */
uint64_t swarm_moved(const struct swarm *s);     /* how often a provider was passed by */
uint64_t swarm_unasked(const struct swarm *s);   /* chunks that came and were not wanted */

#endif
