/* SPDX-License-Identifier: Apache-2.0 */
/* Links between agents: TCP with TLS inside (io/tls.h). Both halves hand over a stream only once the other end has
 * proven that it is a member of the cluster. Programs link tls_dep. */
#ifndef VSE_IO_LINK_H
#define VSE_IO_LINK_H

#include "io/tcp.h"
#include "io/tls.h"

/* ---- the listening half ---- */

#define LINK_PENDING_MAX 128 /* connections of one listener that are not authenticated yet */

struct link_listener;

struct link_listener_ops {
	/* An authenticated link: taken. It has no owner yet: give it one (stream_set_ops) or destroy it, at once.
	 * peer: "10.0.0.7:41234", borrowed. */
	void (*on_link)(void *arg, struct stream *s, const char *peer);
	/* Somebody was refused: for the log (bounded by the caller: a stranger can make many). May be NULL. */
	void (*on_refused)(void *arg, const char *peer, const struct err *why);
};

/* Listens on one port of all `addresses` (numeric, borrowed for the call; NULL or none: on all of the host's).
 * port 0: one that is free. Any callback may destroy the listener.
 * Strangers cannot exhaust memory: at most LINK_PENDING_MAX are kept. When all places are taken, a connection of
 * the source address that holds most of them gives way if it is older than a second; until then the
 * kernel's queue holds the newcomers. */
struct link_listener *link_listener_create(struct loop *l, struct tls_context *t, char *const *addresses,
					   uint16_t port, const struct link_listener_ops *ops,
					   void *arg, struct err *err);
/* The same on a socket that listens already, on that port (fd: taken, also on failure). */
struct link_listener *link_listener_take(struct loop *l, struct tls_context *t, int fd,
					 uint16_t port, const struct link_listener_ops *ops,
					 void *arg, struct err *err);
uint16_t link_listener_port(const struct link_listener *ln);
/* Closes what is not authenticated yet, too; links that were handed over stay. NULL is fine. */
void link_listener_destroy(struct link_listener *ln);

/* ---- the connecting half ---- */

#define LINK_ADDRESSES_MAX 64
#define LINK_STAGGER_MS 250

struct link_dial;

/* Connects to the first of several numeric addresses of one node behind which a member of the cluster answers:
 * they are tried in their order, a new one every LINK_STAGGER_MS or as soon as one has failed, until
 * one link is authenticated or bound_ms have passed. A host that answers but is not ours, or this agent
 * itself (the same private address on every node), is passed over.
 * on_done runs once, from the loop, and ends the dial: with the stream (taken: set its ops at once) and the
 * address that answered, or with s NULL and the reasons of all. `addresses` NULL-terminated, copied.
 * EINVAL (here, not later): none, too many, or one that is not numeric. */
struct link_dial *link_dial(struct loop *l, struct tls_context *t, char *const *addresses,
			    uint16_t port, uint64_t bound_ms,
			    void (*on_done)(void *arg, struct stream *s, const char *address,
					    const struct err *err),
			    void *arg, struct err *err);
/* Gives up: on_done is not called. Only before it was; NULL is fine. */
void link_dial_cancel(struct link_dial *d);

#endif
