/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the swarm share: swarm.c serves and knows the peers, swarm_ask.c asks. */
#ifndef VSE_STAGE_SWARM_STATE_H
#define VSE_STAGE_SWARM_STATE_H

#include "stage/swarm.h"

#define NOBODY UINT32_MAX
#define WINDOW 16 /* chunks asked of a provider ahead, a stripe: 4 MiB cover 300 ms at 100 Mbit/s */
#define ASKED_MAX 1024 /* of one peer at once, over all files */
#define WATCHES_MAX 64 /* of one peer at once */

/* A chunk that a peer wants from us. */
struct asked {
	uint8_t key[SHA_SIZE];
	struct swarm_file *file; /* NULL: we do not know that file yet */
	uint32_t idx;
	bool ready;
	uint64_t since; /* when it was asked for; when it was ready */
};

enum peer_state { PEER_NEW, PEER_CONNECTING, PEER_UP, PEER_DOWN };

struct peer {
	struct peer *next;
	uint32_t node;
	enum peer_state state;
	bool banned, lost;
	unsigned fails;    /* connects in a row that failed */
	uint64_t since;    /* of the state */
	uint64_t retry_at; /* while down */
	struct asked *asked;
	uint32_t n_asked, cap_asked;
	uint8_t (*watches)[SHA_SIZE];
	uint32_t n_watches;
	bool sending;     /* a chunk is on its way */
	uint64_t sent_at; /* when it got one the last time */
	uint64_t took;    /* ms a chunk, of late */
	unsigned n_sent;  /* chunks */
};

/* A chunk that we want from a peer. */
struct want {
	uint32_t idx;
	uint32_t node;
	uint64_t asked_at;
	uint64_t touched; /* last piece */
	bool arriving;
};

struct candidate {
	uint32_t node;
	uint64_t refused_until;
};

struct stripe {
	struct candidate cand[PLAN_PROVIDERS];
	unsigned n_cand, depth;
	uint32_t primary, backup;  /* whom we ask and whom we watch; NOBODY */
	uint8_t *backup_has;       /* bits, of backup; NULL until the index is known */
	uint32_t next;             /* no chunk before it is to be asked for */
	uint32_t n_out;            /* wants of this stripe */
	unsigned strikes;          /* chunks that the primary was late with, in a row */
	uint32_t missing;          /* chunks */
	uint32_t sent;             /* chunks that we have sent to somebody */
	uint64_t left, left_start; /* bytes missing; when the index came */
	uint64_t arrived;          /* bytes since the last tick */
	uint64_t rate, present; /* bytes a second: over two seconds, over half a second; the last ones once it is done */
	unsigned rated;    /* ticks in the rate */
	uint64_t touched;  /* last piece from the primary */
	uint64_t began_at; /* first piece; 0: none yet */
	uint64_t progress_at, calm_until, late_until, told_at, useful_at;
};

enum { CHUNK_HAVE = 1, CHUNK_HELD = 2, CHUNK_ASKED = 4, CHUNK_STRIPE = 8, CHUNK_SENT = 16 };

struct swarm_file {
	struct swarm *swarm;
	struct swarm_file *next;
	uint8_t key[SHA_SIZE];
	void *user;
	uint32_t nodes;
	const struct index *index; /* borrowed; NULL until it is known */
	uint8_t *state;            /* per chunk */
	uint32_t missing;          /* chunks */
	uint64_t left, left_start; /* bytes missing; when the index came */
	bool want, passive, paused;
	bool source; /* we had all of it from the start */
	struct want wants[2 * PLAN_STRIPES * WINDOW];
	unsigned n_wants;
	struct stripe stripes[PLAN_STRIPES];
	uint64_t rate, rated_at; /* bytes a second, since the last tick */
};

struct swarm {
	uint32_t self;
	const struct swarm_ops *ops;
	void *arg;
	struct peer *peers;
	struct swarm_file *files;
	uint64_t now;
	uint64_t moved, unasked;
};

struct peer *swarm_peer(struct swarm *s, uint32_t node); /* made if absent */
void swarm_send(struct swarm *s, uint32_t node, enum stage_type type, const struct swarm_file *f,
		uint32_t chunk, uint32_t n);
static inline bool file_has(const struct swarm_file *f, uint32_t idx)
{
	return f->index && (idx == STAGE_INDEX || (idx < f->index->n && f->state[idx] & CHUNK_HAVE));
}
static inline unsigned chunk_stripe(const struct swarm_file *f, uint32_t idx)
{
	return idx != STAGE_INDEX && f->state[idx] & CHUNK_STRIPE;
}

/* swarm_ask.c */
void ask_start(struct swarm_file *f);                /* of a new file: its candidates */
void ask_indexed(struct swarm_file *f);              /* the index is there: deals the stripes */
void ask_update(struct swarm_file *f, uint64_t now); /* chooses providers and fills the windows */
void ask_stop(struct swarm_file *f);                 /* cancels what is asked for */
void ask_tick(struct swarm_file *f, uint64_t now);
void ask_peer_up(struct swarm_file *f, uint32_t node);
void ask_peer_down(struct swarm_file *f, uint32_t node, uint64_t now);
void ask_refused(struct swarm_file *f, uint32_t node, uint32_t idx, uint64_t now);
void ask_offered(struct swarm_file *f, uint32_t node, const struct stage_msg *m);
void ask_be_patient(struct swarm_file *f, uint32_t node, const struct stage_msg *m, uint64_t now);
void ask_got(struct swarm_file *f, uint32_t idx); /* by whatever way: no want for it stays */

#endif
