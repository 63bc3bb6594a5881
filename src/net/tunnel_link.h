/* SPDX-License-Identifier: Apache-2.0 */
/* One link of a tunnel: its streams, its queue, what arrives on it. Part of net/tunnel.h. */
#ifndef VSE_NET_TUNNEL_LINK_H
#define VSE_NET_TUNNEL_LINK_H

#include "net/filter.h"
#include "net/tunnel.h"

/* A stream of a link. */
struct conn {
	struct tlink *link;
	struct stream *stream;
	uint64_t since; /* when it came to be own, held or up */
};

/* One a node that frames have gone to or come from; kept until the tunnel ends. */
struct tlink {
	struct tunnel *t;
	uint32_t node;
	bool asked;   /* ops.connect has been called, or will be (`wanting`), and is not answered */
	bool wanting; /* in the next round */
	bool listed;  /* in t->todo */
	struct conn *up, *own, *held; /* see tunnel_link.c */
	struct buf waiting;           /* records; while nothing is up */
	uint64_t waiting_frames;
	size_t queued;    /* what of t->stats.queued is this link's */
	size_t unflushed; /* bytes added to the stream since its last flush */
	uint64_t used;    /* when a frame last went or came */
	uint64_t retry_at;
	uint32_t retry_ms; /* the last wait; 0: no failure yet */
	struct tlink *next, *next_todo;
};

struct tunnel {
	struct loop *loop;
	struct netswitch *net;
	const struct members *members;
	struct tunnel_config config; /* without zeros */
	const struct tunnel_ops *ops;
	void *arg;
	uint32_t *places;     /* by rank */
	struct tlink **links; /* by node */
	uint32_t n_links;
	struct tlink *all, *todo;
	struct evtimer *round, *tick;
	bool ticking;
	/* Callbacks may destroy the tunnel: while a walk over its links goes on (busy) the links and the tunnel
	 * itself stay in memory, `dead` says so. */
	bool busy, dead;
	struct tunnel_stats stats;
};

/* Adds a frame to the link's stream, or to what waits for one. False: the queues are full. */
bool tlink_enqueue(struct tlink *k, const void *frame, size_t len);
void tlink_flush(struct tlink *k);
/* s: taken. */
void tlink_attach(struct tlink *k, bool dialed, struct stream *s);
/* Our own dial is over without a stream. */
void tlink_dial_failed(struct tlink *k);
/* What is due: a link idle for too long, a go-ahead that does not come. May call ops.closed. */
void tlink_check(struct tlink *k, uint64_t now);
/* Closes every stream and drops what waits. */
void tlink_close(struct tlink *k);

#endif
