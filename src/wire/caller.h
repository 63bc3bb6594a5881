/* SPDX-License-Identifier: Apache-2.0 */
/* The asking half of a framed stream: a table of open calls, each a request with its events, data, credit and one
 * reply (wire/message.h). A front end asks its agent with it, an agent those below it in the tree. Frames with id 0
 * belong to no call: they are the owner's. */
#ifndef VSE_WIRE_CALLER_H
#define VSE_WIRE_CALLER_H

#include <jansson.h>

#include "io/stream.h"
#include "wire/frame.h"

struct caller;

/* Of one call. Any may be NULL but on_end. */
struct caller_ops {
	void (*on_event)(void *arg, const json_t *event); /* borrowed */
	void (*on_data)(void *arg, uint32_t rank, int fd, const char *p, size_t n, bool eof);
	/* The same bytes of several VMs. NULL: on_data for each. */
	void (*on_folded)(void *arg, const struct rankset *ranks, int fd, const char *p, size_t n,
			  bool eof);
	void (*on_credit)(void *arg, uint32_t rank, uint32_t bytes); /* of stdin */
	/* Once, last: the {"ok": true} reply (borrowed), or NULL with the reason. The call's id is free after. From
	 * the loop, caller_lost() or caller_destroy(), never while caller_call() or caller_message() runs. */
	void (*on_end)(void *arg, const json_t *reply, const struct err *err);
};

/* Of the link. Any may be NULL. */
struct caller_link_ops {
	/* A whole frame with id 0; its payload is borrowed. -1: it is wrong, the link is lost. NULL: dropped. */
	int (*on_frame)(void *arg, const struct frame *f, struct err *err);
	/* The stream closed or broke (why->code may be 0: the peer closed), or what came was no frame. Once, before the
	 * open calls end with ECONNRESET. */
	void (*on_lost)(void *arg, const struct err *why);
	void (*on_drain)(void *arg); /* caller_queued() went to 0 */
};

/* Takes the stream and becomes its owner (stream_set_ops); bytes that are there unread are read. `peer` (copied)
 * names the other side in errors: "the agent of cluster 'a'". ops NULL: none. Any callback may destroy the caller. */
struct caller *caller_create(struct loop *l, struct stream *s, const char *peer,
			     const struct caller_link_ops *ops, void *arg);
/* Ends open calls with ECANCELED (once the link is lost: with ECONNRESET and the reason) and closes the stream; NULL
 * is fine. */
void caller_destroy(struct caller *c);

/* req: taken. Gives the id for what follows, never 0. What cannot be sent ends the call: E2BIG, or ECONNRESET once
 * the link is lost. How long an answer may take is for the owner to bound. */
uint32_t caller_call(struct caller *c, json_t *req, const struct caller_ops *ops, void *arg);
void caller_message(struct caller *c, uint32_t id, json_t *msg); /* taken */
void caller_data(struct caller *c, uint32_t id, uint32_t rank, const char *p, size_t n, bool eof);
void caller_credit(struct caller *c, uint32_t id, uint32_t rank, int fd, uint32_t bytes);
/* What still comes for this call is dropped; no op of it is called any more. An ended id is fine. */
void caller_forget(struct caller *c, uint32_t id);

/* One frame with id 0; `f->id` is not looked at. Dropped once the link is lost. */
void caller_frame(struct caller *c, const struct frame *f);
/* The same for a message (borrowed). E2BIG: nothing is sent. */
int caller_notify(struct caller *c, const json_t *msg, struct err *err);

/* Bytes that the kernel has not taken yet. The owner bounds them: it asks for no more while they are many, and gives a
 * peer up that does not read. */
size_t caller_queued(const struct caller *c);
/* Bytes of the frame that an op of a call is being called for, its header too; 0: none is. */
size_t caller_frame_size(const struct caller *c);
unsigned caller_open(const struct caller *c); /* calls that have not ended; forgotten ones count */
/* The owner has learnt that the peer is gone or must go (declared dead by the overlay): ends all open calls with why
 * (code and text; 0 becomes ECONNRESET), at once, and reads and sends no more. on_lost is not called. Later calls end
 * with the same reason. */
void caller_lost(struct caller *c, const struct err *why);
bool caller_is_lost(const struct caller *c);
struct stream *caller_stream(struct caller *c); /* borrowed, to look at (stream_fd); its ops stay the caller's */

#endif
