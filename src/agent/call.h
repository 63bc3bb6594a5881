/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the agent: connections of those who ask (front ends, the parent agent), and the calls (requests) they make.
 *
 * A service is a function per verb (agent/services.h). It either replies at once, or keeps the call and replies
 * later; what follows under the call's id, and the loss of the connection, comes through call_ops. A call may also
 * be a part of another call of this agent (agent/spread.h): where its answers go is behind call_out. */
#ifndef VSE_AGENT_CALL_H
#define VSE_AGENT_CALL_H

#include <jansson.h>

#include <stdbool.h>

#include "base/err.h"
#include "base/rankset.h"
#include "io/stream.h"
#include "wire/frame.h"
#include "wire/verbs.h"

struct agent;
struct conn;
struct call;

struct call_ops {
	/* A follow-up message ("signal", "resize"). May be NULL. */
	void (*on_message)(struct call *call, const char *verb, const json_t *msg);
	/* Bytes of stdin for a rank or FRAME_ALL. May be NULL. */
	void (*on_data)(struct call *call, uint32_t rank, const char *p, size_t n, bool eof);
	void (*on_credit)(struct call *call, uint32_t rank, int fd, uint32_t bytes);
	/* The call ends, for whatever reason (answered, or the front end is gone): free call->state. */
	void (*on_end)(struct call *call);
};

/* Where the answers of a call go. */
struct call_out {
	/* j: taken. `last`: the call is gone after. */
	void (*json)(struct call *call, json_t *j, bool last);
	void (*data)(struct call *call, uint32_t rank, int fd, const char *p, size_t n, bool eof);
	/* The same bytes of several VMs. NULL: data() for each. */
	void (*folded)(struct call *call, const struct rankset *ranks, int fd, const char *p,
		       size_t n, bool eof);
	void (*credit)(struct call *call, uint32_t rank, int fd, uint32_t bytes);
	size_t (*backlog)(const struct call *call);
};

struct call {
	struct agent *agent;
	struct conn *conn; /* NULL: a part of another call */
	uint32_t id;
	enum verb verb;
	const struct call_out *out;
	void *out_arg;
	const struct call_ops *ops; /* set by the service that keeps the call */
	void *state;
	struct call *next;
};

/* j: taken. The call is gone after. */
void call_reply(struct call *call, json_t *j);
void call_ok(struct call *call);
void call_fail(struct call *call, const struct err *err);
/* j: taken. The call goes on. */
void call_event(struct call *call, json_t *j);
void call_data(struct call *call, uint32_t rank, int fd, const char *p, size_t n, bool eof);
void call_folded(struct call *call, const struct rankset *ranks, int fd, const char *p, size_t n,
		 bool eof);
void call_credit(struct call *call, uint32_t rank, int fd, uint32_t bytes);
/* Bytes the front end has not taken yet: what it may not fall behind on is checked against this. */
size_t call_backlog(const struct call *call);

/* A call of this agent itself, or a part of one. The caller hands it to call_begin(). */
struct call *call_create(struct agent *a, const struct call_out *out, void *out_arg);
/* Runs the service of `verb`: on failure the call is answered. The call may be gone after. */
void call_begin(struct call *call, const char *verb, const json_t *msg);
/* Ends it without an answer. Not for the calls of a connection. */
void call_drop(struct call *call);

/* A front end that connected. fd: taken. */
void conn_create(struct agent *a, int fd);
/* Another agent that asks over a link: s is taken, its ops become the connection's. Frames with id 0 and the loss of
 * the link go to `ops`; after on_lost the connection is gone. */
struct conn_link_ops {
	void (*on_frame)(void *arg, const struct frame *f);
	void (*on_lost)(void *arg, const struct err *why);
};
struct conn *conn_create_link(struct agent *a, struct stream *s, const struct conn_link_ops *ops,
			      void *arg);
void conn_frame(struct conn *c, const struct frame *f); /* sends one with id 0 */
bool conn_is_link(const struct conn *c);
size_t conn_backlog(const struct conn *c); /* bytes that were not taken yet */
unsigned conn_calls(const struct conn *c); /* that are open */
/* Ends every call and closes; on_lost is not called. */
void conn_destroy(struct conn *c);
/* Answers every call with err, but for those that wait for the end of the cluster. */
void conn_fail_calls(struct conn *c, const struct err *err);
struct conn *conn_next(const struct conn *c);

#endif
