/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's end of a guest's channel (wire/guestproto.h): hello, setup, and any number of requests side by
 * side. Nothing here looks at what a request is about. */
#ifndef VSE_VM_CHANNEL_H
#define VSE_VM_CHANNEL_H

#include "io/loop.h"
#include "wire/frame.h"
#include "wire/kv.h"

struct channel;
struct request; /* one request under way */

struct channel_ops {
	void (*on_hello)(void *arg, const char *boot); /* a boot id: another one means that the guest rebooted */
	void (*on_ready)(void *arg);
	void (*on_failed)(void *arg, const char *text);
	void (*on_bye)(void *arg, const char *how);
	void (*on_log)(void *arg, const char *text);
	/* The stream ended or carried nonsense; every request was ended before. Only channel_destroy() after. */
	void (*on_close)(void *arg, const struct err *err);
};

struct request_ops {
	void (*on_message)(void *arg, const char *verb, const char *kv, size_t len);
	void (*on_data)(void *arg, int fd, const char *p, size_t n, bool eof);
	void (*on_credit)(void *arg, int fd, uint32_t bytes);
	/* Called once, last: NULL when the guest ended it in the regular way (its "exit", "done", "pong"... came by
	 * on_message); else why not. The request is gone when this returns. */
	void (*on_end)(void *arg, const struct err *err);
};

/* fd: taken. */
struct channel *channel_create(struct loop *l, int fd, const struct channel_ops *ops, void *arg,
			       struct err *err);
/* The same for a guest that was running before this process: what is left of an older conversation is thrown away
 * until the guest says hello, and one that does not is made to. */
struct channel *channel_attach(struct loop *l, int fd, const struct channel_ops *ops, void *arg,
			       struct err *err);
/* Of one that was just attached to, whose guest as a rule has not noticed: nobody is waited for that may say hello by itself. */
void channel_knock_soon(struct channel *c);
/* The same for a guest that has said its hello and nothing else, and has heard nothing (a clone's): it is spoken to at once.
 * One that does not answer within some seconds is knocked at. */
struct channel *channel_take_up(struct loop *l, int fd, const struct channel_ops *ops, void *arg,
				struct err *err);
void channel_destroy(struct channel *c); /* ends every request with ECONNRESET; NULL is fine */
/* Sends a message that belongs to no request ("setup", "shutdown"); kv is a finished record. */
void channel_send(struct channel *c, const struct buf *kv);
struct request *channel_request(struct channel *c, const struct buf *kv,
				const struct request_ops *ops, void *arg);
void request_message(struct request *r, const struct buf *kv); /* "signal", "resize", "cancel" */
void request_data(struct request *r, int fd, const void *p, size_t n, bool eof);
void request_credit(struct request *r, int fd, uint32_t bytes);
/* Forgets it: the guest is told to cancel, and what still comes is dropped. No callback after. */
void request_abandon(struct request *r);

#endif
