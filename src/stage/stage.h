/* SPDX-License-Identifier: Apache-2.0 */
/* Files to all nodes, once: the bulk plane of a cluster (docs/staging.md).
 *
 * A file is named by its content and travels as chunks that its content cuts (256 KiB on average, 512 KiB at most),
 * each named by its SHA-256. The list of a file's chunks is its *index*; the index's SHA-256 comes by the control
 * plane (struct stage_file), so everything that comes by bulk links is verified against what the root said. A chunk
 * goes on to other nodes as soon as it is verified; one that a node has, in any file of its cache, does not travel.
 *
 * Nodes are told by index: 0 is the root, 1..n the others. Two trees over 1..n by arithmetic, in each of which every
 * other node is a leaf, carry half of the chunks each: every node sends about as much as it receives, every byte leaves
 * the root once. A node that is dead or slow is passed by; nobody has to say so (but stage_node_lost() is faster).
 *
 * The agent on the root:   stage_offer() -> on_offer(file) -> stage_file_json() into the control plane
 * The agent on each node:  stage_file_read() -> stage_fetch() -> on_done(path) -> VMs use `path` -> stage_release()
 * All of them:             ops.connect(node) -> dial, TLS, first frame -> stage_attach(node, stream)
 *                          accepted link, its first frame says bulk and names the node -> stage_attach(node, stream)
 *
 * Callbacks come from the loop only, never from within a function of this header; they may call anything here,
 * stage_destroy() too. Nothing blocks for long: what is read, hashed or copied on the disk goes in slices of at most
 * some milliseconds. Memory: 40 bytes a chunk of the files in work (6 MB for 40 GiB), and per link its stream's queues
 * of at most 256 KiB each way. Needs libcrypto. */
#ifndef VSE_STAGE_STAGE_H
#define VSE_STAGE_STAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/loop.h"
#include "io/stream.h"

#define STAGE_NODES_MAX (1u << 20)  /* one past the largest index of a node */
#define STAGE_HASH 32               /* bytes of a SHA-256 */
#define STAGE_CHUNKS_MAX (1u << 20) /* of one file: 256 GiB at the average; EFBIG above */
#define STAGE_PATH_MAX 4096         /* with the closing NUL */

struct stage;
struct stage_job;

/* What the root says of a file: small, goes over the control plane as it is. */
struct stage_file {
	uint8_t index[STAGE_HASH];  /* SHA-256 of the index: the file's name on the bulk plane */
	uint8_t hash[STAGE_HASH];   /* SHA-256 of the content */
	uint8_t sample[STAGE_HASH]; /* SHA-256 of some blocks of the content (stage_file_sample()) */
	uint64_t size;              /* bytes */
	uint32_t nodes;             /* the trees for this file are over nodes 1..nodes */
	/* Where the root has it: a node that sees the very same file there copies nothing. "" = do not look. */
	char path[STAGE_PATH_MAX];
	uint64_t inode;    /* of path on the root */
	uint64_t mtime_ns; /* since 1970 */
	uint32_t uid;      /* its owner */
};

/* As JSON (new reference), and back: EPROTO names what is wrong with it. */
json_t *stage_file_json(const struct stage_file *f);
int stage_file_read(const json_t *j, struct stage_file *ret, struct err *err);

struct stage_ops {
	/* A link to `node` is wanted. The answer, now or later, is stage_attach() or stage_connect_failed(); until
	 * then it is not asked again for this node. Let the dial have a time limit (10 s). */
	void (*connect)(void *arg, uint32_t node);
	/* A link ended, for the log. code 0: the peer closed it; EPROTO: what it sent is no message of ours; EBADMSG:
	 * it sent a chunk with the wrong hash (it is not asked again, and not let in again); else the stream's error.
	 * May be NULL. */
	void (*closed)(void *arg, uint32_t node, const struct err *err);
};

struct stage_config {
	uint32_t self;    /* this node's index */
	uint32_t nodes;   /* the other nodes are 1..nodes; more may join later */
	const char *name; /* this node's, for errors ("node7"); copied; NULL: "node <self>" */
	/* The cache's folder, absolute, made if absent; copied. Any number of agents, users and nodes may use one at
	 * once: each user has a folder of his own in it (mode 0700). One that others may write to must have the
	 * sticky bit. NULL: no cache; then files can be offered, and fetched only where nothing is to be copied. */
	const char *cache;
	uint64_t cache_limit; /* bytes of this user's files in it; the least recently used go first. 0: no limit */
};

/* ops borrowed. EINVAL; EPERM, EACCES, EROFS..: the cache's folder cannot be used (the text says why). */
int stage_create(struct loop *l, const struct stage_config *config, const struct stage_ops *ops,
		 void *arg, struct stage **ret, struct err *err);
/* Closes every link, ends every offer and job (their callbacks do not run), unlinks what is not whole. NULL is fine. */
void stage_destroy(struct stage *s);

/* ---- nodes and links ---- */

/* A link to `node`, made at our wish or accepted: an authenticated stream whose first frame has been read. Taken; its
 * owner becomes this room (stream_set_ops). Both directions serve both nodes; two links between two nodes are fine. */
void stage_attach(struct stage *s, uint32_t node, struct stream *stream);
/* The link that ops.connect asked for cannot be made now. Asked again later, with growing waits. err may be NULL. */
void stage_connect_failed(struct stage *s, uint32_t node, const struct err *err);
/* The overlay has lost this node: its links are closed, it is not asked for links. Back: it may be used again. */
void stage_node_lost(struct stage *s, uint32_t node);
void stage_node_back(struct stage *s, uint32_t node);
/* Nodes up to this index exist now (late joiners; never fewer than before). Files that are under way keep their trees;
 * the new nodes hang themselves on to nodes that were there. */
void stage_set_nodes(struct stage *s, uint32_t nodes);

/* ---- the root's side ---- */

/* Gets a file ready to be fetched by other nodes: cuts and hashes it (about 1 s a GiB and core; in slices), or finds
 * its index in the cache when the file is the one it was. on_offer runs once: err->code 0 and f (borrowed for the
 * call), or what is wrong. The file is served from where it is and must not change; it is read through the descriptor
 * that was opened here, so renaming or unlinking it does no harm. */
struct stage_job *stage_offer(struct stage *s, const char *path,
			      void (*on_offer)(void *arg, const struct stage_file *f,
					       const struct err *err),
			      void *arg);

/* ---- every node's side ---- */

/* Makes the file be here. on_done runs once: err->code 0, and `path` (borrowed, lives as long as the job) is a whole,
 * verified file to be read only. It stays there until the job is released: in the cache it is locked against removal.
 * A job that is done goes on serving other nodes, so keep it while the cluster is being brought up.
 * Where nothing had to be copied, `path` is the root's own (a shared store), or that of an earlier fetch in the cache.
 * On the root itself (self 0) it is the offered file's path.
 * Failures end the job's work (release it all the same): ENOSPC (disk full: the text says where and how much is
 * missing), EDQUOT, ENOBUFS (does not fit in the cache's limit beside what is in use), EIO...; the text begins with the
 * node's name. A node that cannot be reached is no failure: the job waits, and goes on when it is there again. */
struct stage_job *stage_fetch(struct stage *s, const struct stage_file *f,
			      void (*on_done)(void *arg, const char *path, const struct err *err),
			      void *arg);

/* Ends an offer or a fetch, whatever its state; no callback of it runs after. A file in the cache may then be removed
 * when room is needed; one that is not whole is gone. NULL is fine. */
void stage_release(struct stage_job *j);

/* ---- progress ---- */

enum stage_state {
	STAGE_INDEXING, /* offer: cutting and hashing. fetch: waiting for the index */
	STAGE_WAITING,  /* another agent that shares the cache is fetching this file */
	STAGE_FETCHING,
	STAGE_CHECKING, /* reading what is in the cache already */
	STAGE_DONE,
	STAGE_FAILED,
};
const char *stage_state_name(enum stage_state state); /* "indexing"... */

/* Where the bytes of a file came from: here + kept + received == size, once it is done. */
struct stage_progress {
	enum stage_state state;
	uint64_t size;
	uint64_t here;     /* bytes in place as a whole file (shared store, cache) */
	uint64_t kept;     /* bytes of chunks that other files of the cache had */
	uint64_t received; /* bytes of verified chunks that came over links */
	uint64_t wasted;   /* bytes that came and were of no use: twice, or with the wrong hash */
	uint64_t sent;     /* bytes of chunks that went to other nodes */
	uint64_t left_ms;  /* estimate; UINT64_MAX: unknown */
};
void stage_job_progress(const struct stage_job *j, struct stage_progress *ret);

/* Of many nodes' progress with one file, folded on the way up the tree: the JSON has the size of one answer. */
struct stage_sum {
	uint32_t nodes, done, failed;
	uint64_t bytes, have; /* to be there, and there, over all nodes */
	uint64_t kept, received, wasted, sent;
	uint64_t left_ms; /* the slowest node's; UINT64_MAX: unknown */
	uint32_t slowest; /* the node with the most bytes missing; UINT32_MAX: none */
	uint64_t missing; /* its missing bytes */
};
#define STAGE_SUM_INIT ((struct stage_sum){.slowest = UINT32_MAX})
void stage_sum_add(struct stage_sum *sum, uint32_t node, const struct stage_progress *p);
void stage_sum_merge(struct stage_sum *sum, const struct stage_sum *below);
json_t *stage_sum_json(const struct stage_sum *sum); /* new reference */
int stage_sum_read(const json_t *j, struct stage_sum *ret, struct err *err);

/* Of all jobs since the start, for the log and the tests. */
struct stage_stats {
	uint64_t chunks_received, chunks_sent, bytes_received, bytes_sent;
	uint64_t chunks_bad;   /* wrong hash on arrival; as many nodes were banned, or fewer */
	uint64_t chunks_twice; /* arrived though they were there */
	uint64_t messages_bad; /* links closed for what is no message */
	uint64_t moved;        /* a slow or dead node was passed by */
	uint32_t links;        /* now */
};
void stage_get_stats(const struct stage *s, struct stage_stats *ret);

#endif
