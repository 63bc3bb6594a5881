/* SPDX-License-Identifier: Apache-2.0 */
/* What can stand between a stream's user and the wire: TLS. Within io/ only. It is reached through a table, so that
 * programs which have no TLS need not link it. */
#ifndef VSE_IO_LAYER_H
#define VSE_IO_LAYER_H

#include "io/stream.h"

#define LAYER_SCRATCH (64u << 10) /* bytes read from the wire at once */

struct layer;

struct layer_ops {
	/* Once, first: appends what opens the conversation to `wire`. */
	void (*begin)(struct layer *y, struct stream *s, struct buf *wire);
	/* n bytes came: appends the user's to `plain`, what must be answered to `wire`. -1: broken, why; what was
	 * appended before is good. */
	int (*in)(struct layer *y, const char *p, size_t n, struct buf *plain, struct buf *wire,
		  struct err *err);
	/* The connection ended, or broke with this errno, before `ended` was set: says what that means. */
	void (*cut)(struct layer *y, int code, struct err *err);
	void (*out)(struct layer *y, const char *p, size_t n, struct buf *wire); /* when open */
	void (*end)(struct layer *y, struct buf *wire); /* when open, once */
	void (*destroy)(struct layer *y);
};

struct layer {
	const struct layer_ops *ops;
	char *scratch; /* LAYER_SCRATCH bytes, shared by all layers of a thread */
	bool open;     /* the user's bytes may pass, both ways */
	bool ended;    /* the peer has ended its side properly */
};

/* fd and y: taken, also on failure. */
struct stream *stream_create_layered(struct loop *l, int fd, struct layer *y,
				     const struct stream_ops *ops, void *arg, struct err *err);
/* From the loop: the layer's own reason to give up (a timeout). */
void stream_fail(struct stream *s, const struct err *why);

#endif
