/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of a link and a relay between them that can look at, spoil and cut what passes: for tests of io/tls. */
#ifndef VSE_TESTS_TLS_PEERS_H
#define VSE_TESTS_TLS_PEERS_H

#include "io/tls.h"

extern struct loop *loop;

/* One end, and what it has seen. */
struct end {
	struct stream *s;
	struct buf got;
	bool hoard;    /* keep what comes in `got`; else only count it */
	bool careless; /* leave what comes unread */
	size_t bytes;
	int opens, reads, closes, drains;
	struct err why;
	/* Destroy the stream at the first call of that callback: "open", "data", "drain", "close". */
	const char *destroy_at;
	/* Left to send; goes out in pieces of `piece`, whenever the queue is empty. */
	size_t to_send, piece;
	size_t most_queued;
};

extern const struct stream_ops end_ops;
void end_finish(struct end *e);
void end_send(struct end *e); /* the next piece of to_send */

/* The loop, until *what is not 0. Fails the test after a minute. */
bool run_until(const int *what);
void run_rounds(int n); /* so many rounds, each with something due at once */

/* A pair of connected ends over a socket pair. */
void end_pair(struct end *server, struct tls_context *ts, struct end *client, struct tls_context *tc);
/* The same with a relay between. */
struct relay;
enum { UP, DOWN }; /* client to server, server to client */
struct relay *relay_pair(struct end *server, struct tls_context *ts, struct end *client,
			 struct tls_context *tc);
void relay_piece(struct relay *r, size_t bytes);        /* pass so many bytes at a time; 0: all */
void relay_spoil(struct relay *r, int dir, size_t at);  /* flips a bit of the byte at this offset */
const struct buf *relay_seen(struct relay *r, int dir); /* all that has passed */
void relay_cut(struct relay *r);                        /* closes both sides at once */
void relay_destroy(struct relay *r);

#endif
