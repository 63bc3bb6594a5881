/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share: stage.c has the nodes, the loop's work and the callbacks, link.c the links, entry.c
 * what is done with one file. */
#ifndef VSE_STAGE_STATE_H
#define VSE_STAGE_STATE_H

#include "io/loop.h"
#include "io/stream.h"
#include "stage/cache.h"
#include "stage/stage.h"
#include "stage/swarm.h"

#define SLICE (1u << 20) /* bytes read and hashed before the loop goes on: some milliseconds */

struct entry;
struct link;

enum work {
	WORK_NONE,
	WORK_START, /* look where the file may be already */
	WORK_INDEX, /* an offered file is read */
	WORK_CHECK, /* a file of the cache is read */
	WORK_COPY,  /* chunks that other files have are copied */
	WORK_SAME,  /* chunks that this file has twice are copied */
};

/* A chunk that is copied on this node. */
struct copy {
	int fd; /* of sources[] */
	uint64_t offset;
	uint32_t idx;
};

/* One file; several jobs may be about it. */
struct entry {
	struct stage *stage;
	struct entry *next;
	unsigned jobs;
	bool offer;
	struct stage_file file;
	struct swarm_file *swarm;
	struct index *index;
	struct index *damaged; /* being checked: not yet what the swarm knows */
	int fd;                /* the content; -1 */
	int hold;              /* locks it in the cache; -1 */
	int claim;             /* we are the one that fetches it into this cache; -1 */
	char *path;            /* where it is, once it is whole */
	struct stat st;        /* of an offered file, as it was */
	bool shared;           /* it is the root's own */
	enum stage_state state;
	enum work work;
	struct err err; /* why it failed */
	struct stage_progress progress;
	/* under way */
	struct index_builder *builder;
	struct sha *sha;
	uint64_t at;  /* offset, or number of the chunk */
	int *sources; /* descriptors */
	unsigned n_sources;
	struct copy *copies;
	uint32_t n_copies, cap_copies, n_same;
	uint64_t look_again_at; /* waiting for another agent */
};

struct stage_job {
	struct stage *stage;
	struct stage_job *next;
	struct entry *entry; /* NULL: failed before there was one */
	void (*on_offer)(void *arg, const struct stage_file *f, const struct err *err);
	void (*on_done)(void *arg, const char *path, const struct err *err);
	void *arg;
	struct err err;
	bool told;
};

struct notice { /* to be told from the loop */
	struct notice *next;
	uint32_t node;
	bool closed; /* else: connect */
	struct err err;
};

struct stage {
	struct loop *loop;
	const struct stage_ops *ops;
	void *arg;
	uint32_t self, nodes;
	char *name;
	struct cache *cache; /* NULL: none */
	struct swarm *swarm;
	struct entry *entries;
	struct stage_job *jobs;
	struct link *links;
	struct notice *notices, **notices_tail;
	struct evtimer *work, *tick, *idle;
	bool ticking, working;
	int busy; /* a callback of the owner runs */
	bool dead;
	struct stage_stats stats;
};

/* stage.c */
void stage_work(struct stage *s); /* there is something to be done from the loop */
void stage_wake(struct stage *s); /* the swarm may need ticks */
uint64_t stage_now(struct stage *s);
void stage_tell(struct stage *s, uint32_t node, bool closed, const struct err *err);

/* entry.c */
struct entry *entry_find(struct stage *s, const uint8_t key[SHA_SIZE]);
struct entry *entry_new(struct stage *s, bool offer);
void entry_free(struct entry *e);
bool entry_busy(const struct entry *e); /* entry_work() has something to do */
void entry_work(struct entry *e);       /* one slice */
void entry_tick(struct entry *e, uint64_t now);
void entry_fail(struct entry *e, const struct err *err);
void entry_got_index(struct entry *e, struct index *x); /* taken */
void entry_got_chunk(struct entry *e, uint32_t idx);    /* it is written and verified */
void entry_checkpoint(struct entry *e);                 /* is it whole now? */
void entry_serve(struct entry *e);                      /* into the swarm, as what is whole */

/* place.c: where a file may be already */
int place_sample(int fd, uint64_t size, uint8_t out[SHA_SIZE], struct err *err);
bool place_shared(const struct stage_file *f, int *ret_fd);
void place_find_copies(struct entry *e); /* fills e->copies, and holds these chunks */

/* link.c */
void link_create(struct stage *s, uint32_t node, struct stream *stream);
void stage_link_send(struct stage *s, uint32_t node, const struct stage_msg *m);
void link_want_pump(struct stage *s, uint32_t node);
bool link_pump_all(struct stage *s); /* false: nothing is left to be put out now */
void link_close_node(struct stage *s, uint32_t node, const struct err *err);
void link_close_all(struct stage *s);
void link_forget(struct stage *s, const struct entry *e); /* it ends: what is under way for it is dropped */
void link_close_idle(struct stage *s, uint64_t now);
bool link_any(const struct stage *s);
bool link_to(struct stage *s, uint32_t node);

#endif
