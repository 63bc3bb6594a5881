/* SPDX-License-Identifier: Apache-2.0 */
/* A buffered byte stream over a socket, pipe or terminal: bytes in are handed to on_data, bytes out are
 * queued and written as the peer takes them. The owner bounds both: it pauses reading, and it looks at
 * stream_queued() before it adds more (on_drain says when the queue has emptied). */
#ifndef VSE_IO_STREAM_H
#define VSE_IO_STREAM_H

#include "base/buf.h"
#include "io/loop.h"

struct stream;

struct stream_ops {
	/* New bytes: `in` holds all that is unread; consume what is understood, the rest stays. */
	void (*on_data)(void *arg, struct buf *in);
	/* The peer closed (err->code 0) or the stream broke. Called once; then only stream_destroy(). */
	void (*on_close)(void *arg, const struct err *err);
	/* The queue went from not empty to empty; never from within stream_flush(). May be NULL. */
	void (*on_drain)(void *arg);
	/* The peer is authenticated (io/tls.h); never called on a plain stream. May be NULL. */
	void (*on_open)(void *arg);
};

/* fd: taken, made non-blocking; read and written both unless it is one-way. Reading starts at once. ops may be NULL
 * where stream_set_ops() follows at once. */
struct stream *stream_create(struct loop *l, int fd, const struct stream_ops *ops, void *arg,
			     struct err *err);
void stream_destroy(struct stream *s); /* closes at once, drops what is queued; NULL is fine */
void stream_pause(struct stream *s, bool pause); /* stop or go on reading */
/* Gives the stream another owner. Unread bytes stay: the new owner's on_data() gets them when the running one returns,
 * else in the loop's next round (not while paused). */
void stream_set_ops(struct stream *s, const struct stream_ops *ops, void *arg);
/* Appends to the queue and tries to write. Never blocks, never fails: a broken stream reports itself. */
void stream_write(struct stream *s, const void *p, size_t n);
/* The queue itself, to append frames to; call stream_flush() after. */
struct buf *stream_out(struct stream *s);
void stream_flush(struct stream *s);
size_t stream_queued(const struct stream *s); /* bytes not yet taken by the kernel */
/* Closes the writing side once the queue is out. */
void stream_end(struct stream *s);
int stream_fd(const struct stream *s);

#endif
