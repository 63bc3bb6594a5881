/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/call.h"

#include <errno.h>
#include <string.h>

#include "agent/services.h"
#include "agent/spread.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "base/log.h"
#include "io/stream.h"
#include "wire/message.h"

#define CALLS_MAX 1024 /* of one connection at once */

struct conn {
	struct agent *agent;
	struct conn *next;
	struct stream *stream;
	const struct conn_link_ops *link; /* to another agent; NULL: a front end */
	void *link_arg;
	struct call *calls;
	unsigned n_calls;
	/* Handling a frame may destroy the connection: while that goes on (busy) the memory stays, `dead` says so. */
	int busy;
	bool dead;
};

struct conn *conn_next(const struct conn *c)
{
	return c->next;
}

/* ---- calls ---- */

static struct call *find(struct conn *c, uint32_t id)
{
	for (struct call *k = c->calls; k; k = k->next)
		if (k->id == id)
			return k;
	return NULL;
}

static void unlink_call(struct call *call)
{
	struct call **p = &call->conn->calls;
	while (*p != call)
		p = &(*p)->next;
	*p = call->next;
	call->conn->n_calls--;
}

static void end(struct call *call)
{
	if (call->conn)
		unlink_call(call);
	if (call->ops && call->ops->on_end)
		call->ops->on_end(call);
	free(call);
}

static void send_json(struct conn *c, uint32_t id, json_t *j)
{
	struct err err = ERR_INIT;
	if (message_write(stream_out(c->stream), id, 0, j, &err) < 0) {
		_cleanup_json_ json_t *instead = message_error(&err);
		message_write(stream_out(c->stream), id, 0, instead, NULL);
	}
	stream_flush(c->stream);
	json_decref(j);
}

static void conn_json(struct call *call, json_t *j, bool last _unused_)
{
	send_json(call->conn, call->id, j);
}

static void conn_data(struct call *call, uint32_t rank, int fd, const char *p, size_t n, bool eof)
{
	frame_write_data(stream_out(call->conn->stream), call->id, rank, fd, p, n, eof);
	stream_flush(call->conn->stream);
}

static void conn_folded(struct call *call, const struct rankset *ranks, int fd, const char *p,
			size_t n, bool eof)
{
	frame_write_folded(stream_out(call->conn->stream), call->id, ranks, fd, p, n, eof);
	stream_flush(call->conn->stream);
}

static void conn_credit(struct call *call, uint32_t rank, int fd, uint32_t bytes)
{
	frame_write_credit(stream_out(call->conn->stream), call->id, rank, fd, bytes);
	stream_flush(call->conn->stream);
}

size_t conn_backlog(const struct conn *c)
{
	return stream_queued(c->stream);
}

static size_t conn_call_backlog(const struct call *call)
{
	return conn_backlog(call->conn);
}

static const struct call_out conn_out = {
	.json = conn_json,
	.data = conn_data,
	.folded = conn_folded,
	.credit = conn_credit,
	.backlog = conn_call_backlog,
};

struct call *call_create(struct agent *a, const struct call_out *out, void *out_arg)
{
	struct call *call = xcalloc(1, sizeof(*call));
	*call = (struct call){.agent = a, .out = out, .out_arg = out_arg};
	return call;
}

void call_drop(struct call *call)
{
	end(call);
}

void call_reply(struct call *call, json_t *j)
{
	call->out->json(call, j, true);
	end(call);
}

void call_ok(struct call *call)
{
	call_reply(call, json_pack("{s:b}", "ok", 1));
}

void call_fail(struct call *call, const struct err *err)
{
	call_reply(call, message_error(err));
}

void call_event(struct call *call, json_t *j)
{
	if (j) /* an event that cannot be told is no reason to end the call */
		call->out->json(call, j, false);
}

void call_data(struct call *call, uint32_t rank, int fd, const char *p, size_t n, bool eof)
{
	call->out->data(call, rank, fd, p, n, eof);
}

void call_folded(struct call *call, const struct rankset *ranks, int fd, const char *p, size_t n,
		 bool eof)
{
	uint32_t r = rankset_next(ranks, 0);
	if (call->out->folded && rankset_next(ranks, r + 1) != UINT32_MAX) {
		call->out->folded(call, ranks, fd, p, n, eof);
		return;
	}
	for (; r != UINT32_MAX; r = rankset_next(ranks, r + 1))
		call->out->data(call, r, fd, p, n, eof);
}

void call_credit(struct call *call, uint32_t rank, int fd, uint32_t bytes)
{
	call->out->credit(call, rank, fd, bytes);
}

size_t call_backlog(const struct call *call)
{
	return call->out->backlog(call);
}

/* ---- frames ---- */

void call_begin(struct call *call, const char *name, const json_t *msg)
{
	struct err err = ERR_INIT;
	enum verb v = verb_find(name);
	service_fn *fn = v < VERB_COUNT ? service_find(v) : NULL;
	int rc = -1;
	call->verb = v;
	if (!fn)
		err_set(&err, ENOSYS, "this agent knows no '%.40s'", name);
	else if (call->conn && call->conn->n_calls > CALLS_MAX)
		err_set(&err, EAGAIN, "too many requests at once on one connection");
	else if (verb_needs_cluster(v) && !call->agent->cluster)
		err_set(&err, ENOENT, "the agent runs no cluster yet");
	else
		rc = spread_wanted(call, v) ? spread_begin(call, v, msg, &err) : fn(call, msg, &err);
	if (rc < 0)
		call_fail(call, &err);
}

static int begin(struct conn *c, uint32_t id, const json_t *msg, const char *name)
{
	struct call *call = call_create(c->agent, &conn_out, NULL);
	call->conn = c;
	call->id = id;
	call->next = c->calls;
	c->calls = call;
	c->n_calls++;
	call_begin(call, name, msg);
	return 0;
}

static int one_message(struct conn *c, const struct frame *f, struct err *err)
{
	_cleanup_json_ json_t *msg = message_read(f, err);
	const char *verb;
	if (!msg || message_str(msg, "verb", &verb, err) < 0)
		return -1;
	if (!f->id)
		return err_set(err, EPROTO, "request without an id");
	struct call *call = find(c, f->id);
	if (!call)
		return verb_find(verb) == VERB_cancel ? 0 : begin(c, f->id, msg, verb);
	if (verb_find(verb) == VERB_cancel) {
		end(call); /* without an answer: nobody waits for it */
		return 0;
	}
	if (call->ops && call->ops->on_message)
		call->ops->on_message(call, verb, msg);
	return 0;
}

static int one_frame(struct conn *c, const struct frame *f, struct err *err)
{
	if (!f->id && c->link) {
		c->link->on_frame(c->link_arg, f);
		return 0;
	}
	if (f->type == FRAME_MESSAGE)
		return one_message(c, f, err);
	/* What comes for a call that has just ended is late, not wrong. */
	struct call *call = find(c, f->id);
	if (!call || !call->ops)
		return 0;
	if (f->type == FRAME_DATA && call->ops->on_data)
		call->ops->on_data(call, f->rank, f->payload, f->len, f->flags & FRAME_EOF);
	else if (f->type == FRAME_CREDIT && call->ops->on_credit)
		call->ops->on_credit(call, f->rank, f->fd, frame_credit(f));
	return 0;
}

static void lost(struct conn *c, const struct err *why)
{
	const struct conn_link_ops *link = c->link;
	void *arg = c->link_arg;
	conn_destroy(c);
	if (link)
		link->on_lost(arg, why);
}

static void on_data(void *arg, struct buf *in)
{
	struct conn *c = arg;
	struct frame f;
	struct err err = ERR_INIT;
	int got;
	while ((got = frame_read(in, FRAME_MAX_MESSAGE, &f, &err)) == 1) {
		c->busy++;
		int rc = one_frame(c, &f, &err);
		c->busy--;
		if (c->dead) {
			free(c);
			return;
		}
		if (rc < 0) {
			got = -1;
			break;
		}
		frame_drop(in, &f);
	}
	if (got < 0) {
		if (!c->link)
			log_warn("a front end was cut off: %s", err.text);
		lost(c, &err);
	}
}

static void on_close(void *arg, const struct err *err)
{
	lost(arg, err);
}

static const struct stream_ops ops = {.on_data = on_data, .on_close = on_close};

static struct conn *add(struct agent *a)
{
	struct conn *c = xcalloc(1, sizeof(*c));
	c->agent = a;
	c->next = a->conns;
	a->conns = c;
	return c;
}

void conn_create(struct agent *a, int fd)
{
	struct conn *c = add(a);
	c->stream = stream_create(a->loop, fd, &ops, c, NULL);
	if (!c->stream)
		conn_destroy(c);
}

struct conn *conn_create_link(struct agent *a, struct stream *s, const struct conn_link_ops *link,
			      void *arg)
{
	struct conn *c = add(a);
	c->link = link;
	c->link_arg = arg;
	c->stream = s;
	stream_set_ops(s, &ops, c);
	return c;
}

void conn_frame(struct conn *c, const struct frame *f)
{
	frame_write(stream_out(c->stream), f);
	stream_flush(c->stream);
}

bool conn_is_link(const struct conn *c)
{
	return c->link;
}

unsigned conn_calls(const struct conn *c)
{
	return c->n_calls;
}

void conn_fail_calls(struct conn *c, const struct err *err)
{
	for (struct call *k = c->calls, *next; k; k = next) {
		next = k->next;
		if (k->verb != VERB_down)
			call_fail(k, err);
	}
}

void conn_destroy(struct conn *c)
{
	c->dead = true;
	while (c->calls)
		end(c->calls);
	struct conn **p = &c->agent->conns;
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	agent_conn_lost(c->agent, c);
	stream_destroy(c->stream);
	if (!c->busy)
		free(c);
}
