/* SPDX-License-Identifier: Apache-2.0 */
/* Joins the switches of many nodes into one network. Each rank lives on one node; a table says which. A frame
 * that the local switch has no port for goes over a link to the rank's node and is handed to the switch there.
 * One link a pair of nodes, made when the first frame wants to go, closed when it has been idle.
 *
 * A link is a stream (io/stream.h) that is authenticated and encrypted already; the tunnel asks for one with
 * ops.connect and never dials. On it go records: a frame behind its 4-byte big-endian length, just what a port of
 * the switch speaks, so that frames go from the stream's buffer to the port uncopied. All frames of a round of
 * the loop go in one write. The side that was dialed sends one record of length 0 first, the *go-ahead*; the side
 * that dialed sends nothing before it. So two nodes that dial each other at once end on one link and no flow
 * ever changes links while both work: what the node of the lower index dialed wins.
 *
 * Nothing here grows: a link has a bounded queue, all links together have one, and what does not fit is dropped
 * and counted, as a switch does; TCP recovers. So it is with frames that come while a link is being made, or
 * before the next try after a failure (backoff).
 *
 * A node is trusted with its own ranks only. What arrives is checked as if it came from a port (net/filter.h): it
 * must be from a rank that the table has on that node, in MAC and IP, and for a rank that the table has here.
 * A length that is none closes the link.
 *
 * ops.connect and ops.closed are called from the loop only, never from within a function of this header or of
 * the switch. They may call anything here, tunnel_destroy() too.
 *
 * Memory: 4 bytes a rank, 8 a node, about 0.2 KB a link besides its stream; a queue up to twice
 * its bound where the peer does not keep up. */
#ifndef VSE_NET_TUNNEL_H
#define VSE_NET_TUNNEL_H

#include "io/loop.h"
#include "io/stream.h"
#include "net/switch.h"

#define TUNNEL_NODES_MAX (1u << 20) /* one past the largest index of a node */
#define TUNNEL_NOWHERE UINT32_MAX   /* a rank that is on no node now */

struct tunnel;

struct tunnel_ops {
	/* A frame wants to go to `node`: make a link to it. The answer, now or later, is tunnel_attach(.., true, ..)
	 * or tunnel_failed(); until then this is not asked again for the node. Let the dial have a time limit. */
	void (*connect)(void *arg, uint32_t node);
	/* A link ended that was not closed from here, for the log. err->code 0: the peer closed it; EPROTO: what
	 * it sent is no link's; ETIMEDOUT: no go-ahead came; else the stream's error. May be NULL. */
	void (*closed)(void *arg, uint32_t node, const struct err *err);
};

struct tunnel_config {         /* 0 means the value in brackets */
	uint32_t self;         /* this node's index */
	uint32_t idle_ms;      /* a link without a frame either way for so long is closed [60000] */
	uint32_t retry_min_ms; /* first wait after a failure, then twice as long each time... [100] */
	uint32_t retry_max_ms; /* ...up to this [10000] */
	uint32_t answer_ms;    /* how long a dialed link waits for the go-ahead [15000] */
	uint32_t link_queue;   /* bytes: the queue of one link [1 MiB], of one that is being made */
	size_t total_queue;    /* bytes: the queues of all links together [64 MiB] */
};

struct tunnel_stats {
	uint64_t sent, sent_bytes;         /* frames queued to a link; bytes without length words */
	uint64_t received, received_bytes; /* frames handed to the switch */
	uint64_t writes;                   /* flushes of a link: sent / writes is the batch */
	uint64_t dropped_full;             /* sending: the peer does not keep up */
	uint64_t dropped_link; /* sending: no link, and the wait for the next try or the making's queue is full */
	uint64_t dropped_unknown; /* sending: the table has the rank on no other node */
	uint64_t dropped_spoof; /* received: not from a rank of that node, or forged or malformed */
	uint64_t dropped_strayed; /* received: for a rank that is not here (the peer's table is older or newer) */
	uint64_t bad;          /* links closed for what is no record */
	uint64_t asked;        /* calls of ops.connect */
	uint64_t opened, lost; /* links that came to be used; of these, that ended not by us */
	uint64_t closed_idle;
	uint32_t links; /* in use now */
	size_t queued;  /* bytes in all queues now, at most (a little more than is still there) */
};

/* Becomes the switch's uplink. n is borrowed and must outlive the tunnel. Every rank starts TUNNEL_NOWHERE.
 * ops borrowed. */
struct tunnel *tunnel_create(struct loop *l, struct netswitch *n, const struct tunnel_config *config,
			     const struct tunnel_ops *ops, void *arg);
void tunnel_destroy(struct tunnel *t); /* closes every link, drops what is queued; NULL is fine */

/* Ranks first..first+count-1 are on `node` from now on (config.self: here). A frame that is queued still goes
 * where the rank was. ERANGE: no such rank or node; then nothing has changed. */
int tunnel_place(struct tunnel *t, uint32_t first, uint32_t count, uint32_t node, struct err *err);
uint32_t tunnel_node(const struct tunnel *t, uint32_t rank); /* TUNNEL_NOWHERE also where there is no such rank */

/* A ready stream to or from `node`, whose identity has been proven by whoever made it. dialed: it was made here,
 * for ops.connect or unasked. Taken, also where this fails; its ops become the tunnel's. Bytes that came behind
 * the link's first frame may be in its input still. Called from the stream's own on_data: return at once after.
 * ERANGE: no such node, or this one. */
int tunnel_attach(struct tunnel *t, uint32_t node, bool dialed, struct stream *s, struct err *err);
/* The dial that ops.connect asked for came to nothing. What waited for it is dropped; the next frame after the
 * backoff asks again. */
void tunnel_failed(struct tunnel *t, uint32_t node);
/* The node is lost (or leaves): its links are closed, what is queued is dropped, and a dial that is under way is
 * forgotten (a tunnel_attach() of it is welcome still). It may come back: the next frame for it asks anew, at
 * once, so place its ranks elsewhere or nowhere first. */
void tunnel_detach(struct tunnel *t, uint32_t node);
bool tunnel_linked(const struct tunnel *t, uint32_t node); /* in use: frames go at once */

void tunnel_stats(const struct tunnel *t, struct tunnel_stats *ret);

#endif
