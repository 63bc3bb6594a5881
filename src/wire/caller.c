/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/caller.h"

#include <errno.h>

#include "base/alloc.h"
#include "wire/message.h"

struct open_call {
	struct open_call *next;
	uint32_t id;
	const struct caller_ops *ops;
	void *arg;
	struct err *why; /* it cannot go on: ended by on_later(), what still comes for it is dropped */
};

struct caller {
	struct loop *loop;
	struct stream *stream;
	char *peer;
	const struct caller_link_ops *ops;
	void *arg;
	uint32_t last_id;
	struct open_call *calls; /* newest first */
	unsigned n_calls;
	struct evtimer *later;
	struct err lost; /* code 0: the link stands */
	/* A callback may destroy the caller: while one runs (busy) the memory stays, and `dead` says so. */
	int busy;
	bool dead;
	size_t frame_size;
};

static const struct caller_link_ops no_ops;

/* False: the caller was destroyed meanwhile, and is gone now. */
static bool leave(struct caller *c)
{
	bool alive = !c->dead;
	if (--c->busy == 0 && c->dead) {
		free(c->peer);
		free(c);
	}
	return alive;
}

/* ---- the table of calls ---- */

static struct open_call *find(struct caller *c, uint32_t id)
{
	for (struct open_call *p = c->calls; p; p = p->next)
		if (p->id == id)
			return p;
	return NULL;
}

static void end(struct caller *c, struct open_call *p, const json_t *reply, const struct err *err)
{
	struct open_call **at = &c->calls;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	c->n_calls--;
	struct open_call was = *p;
	free(p);
	was.ops->on_end(was.arg, reply, err);
	free(was.why); /* err may be this */
}

/* From the loop: who has made the call does not know its id yet. */
static void end_later(struct caller *c, struct open_call *p, const struct err *err)
{
	if (p->why)
		return;
	p->why = xcalloc(1, sizeof(*p->why));
	err_copy(p->why, err);
	evtimer_start(c->later, 0, 0);
}

/* Those that are doomed now, oldest first; what their ends make anew is for the next round. */
static void end_doomed(struct caller *c)
{
	uint32_t newest = c->last_id;
	for (;;) {
		struct open_call *oldest = NULL;
		for (struct open_call *p = c->calls; p; p = p->next)
			if (p->why && newest - p->id < UINT32_MAX / 2)
				oldest = p;
		if (!oldest)
			return;
		end(c, oldest, NULL, oldest->why);
	}
}

static void on_later(void *arg)
{
	struct caller *c = arg;
	c->busy++;
	end_doomed(c);
	leave(c);
}

/* ---- what comes ---- */

static int one_message(struct caller *c, struct open_call *p, const struct frame *f, struct err *err)
{
	_cleanup_json_ json_t *j = message_read(f, err);
	if (!j)
		return -1;
	struct err why = ERR_INIT;
	if (json_object_get(j, "event")) {
		if (p->ops->on_event)
			p->ops->on_event(p->arg, j);
	} else if (message_is_error(j, &why)) {
		end(c, p, NULL, &why);
	} else {
		end(c, p, j, NULL);
	}
	return 0;
}

/* Any callback may end the call, or the caller. */
static int one_folded(struct caller *c, struct open_call *p, const struct frame *f, struct err *err)
{
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	const char *data;
	size_t n;
	bool eof = f->flags & FRAME_EOF;
	if (frame_folded(f, &ranks, &data, &n, err) < 0)
		return -1;
	if (p->ops->on_folded) {
		p->ops->on_folded(p->arg, &ranks, f->fd, data, n, eof);
		return 0;
	}
	for (uint32_t r = rankset_next(&ranks, 0); r != UINT32_MAX; r = rankset_next(&ranks, r + 1)) {
		p = c->dead ? NULL : find(c, f->id);
		if (!p || p->why || !p->ops->on_data)
			break;
		p->ops->on_data(p->arg, r, f->fd, data, n, eof);
	}
	return 0;
}

static int one_frame(struct caller *c, const struct frame *f, struct err *err)
{
	if (!f->id)
		return c->ops->on_frame ? c->ops->on_frame(c->arg, f, err) : 0;
	struct open_call *p = find(c, f->id);
	if (!p || p->why)
		return 0; /* of a call that has ended */
	if (f->type == FRAME_MESSAGE)
		return one_message(c, p, f, err);
	if (f->type == FRAME_FOLDED)
		return one_folded(c, p, f, err);
	if (f->type == FRAME_DATA && p->ops->on_data)
		p->ops->on_data(p->arg, f->rank, f->fd, f->payload, f->len, f->flags & FRAME_EOF);
	else if (f->type == FRAME_CREDIT && f->fd == 0 && p->ops->on_credit)
		p->ops->on_credit(p->arg, f->rank, frame_credit(f));
	return 0;
}

static void doom_all(struct caller *c)
{
	for (struct open_call *p = c->calls; p; p = p->next)
		end_later(c, p, &c->lost);
}

static void lost(struct caller *c, const struct err *why)
{
	if (c->lost.code)
		return;
	err_set(&c->lost, ECONNRESET, "%s is gone%s%s", c->peer, why->code ? ": " : "",
		why->code ? why->text : "");
	stream_pause(c->stream, true);
	c->busy++;
	if (c->ops->on_lost)
		c->ops->on_lost(c->arg, why);
	if (!c->dead)
		doom_all(c);
	leave(c);
}

static void on_data(void *arg, struct buf *in)
{
	struct caller *c = arg;
	struct frame f;
	struct err err = ERR_INIT;
	int got = 0;
	while (!c->lost.code && (got = frame_read(in, FRAME_MAX_MESSAGE, &f, &err)) == 1) {
		c->busy++;
		c->frame_size = FRAME_HEADER + f.len;
		int rc = one_frame(c, &f, &err);
		c->frame_size = 0;
		if (!leave(c))
			return;
		if (rc < 0) {
			got = -1;
			break;
		}
		frame_drop(in, &f);
	}
	if (got < 0)
		lost(c, &err);
}

static void on_close(void *arg, const struct err *err)
{
	lost(arg, err);
}

static void on_drain(void *arg)
{
	struct caller *c = arg;
	if (c->ops->on_drain && !c->lost.code)
		c->ops->on_drain(c->arg);
}

static const struct stream_ops stream_ops = {
	.on_data = on_data,
	.on_close = on_close,
	.on_drain = on_drain,
};

/* ---- making and ending ---- */

struct caller *caller_create(struct loop *l, struct stream *s, const char *peer,
			     const struct caller_link_ops *ops, void *arg)
{
	struct caller *c = xcalloc(1, sizeof(*c));
	c->loop = l;
	c->stream = s;
	c->peer = xstrdup(peer);
	c->ops = ops ?: &no_ops;
	c->arg = arg;
	c->later = evtimer_create(l, on_later, c);
	stream_set_ops(s, &stream_ops, c);
	return c;
}

void caller_destroy(struct caller *c)
{
	struct err err = ERR_INIT;
	if (!c || c->dead)
		return;
	if (c->lost.code) /* by its owner in on_lost: that is the reason, nobody has interrupted anything */
		err_copy(&err, &c->lost);
	else
		err_set(&err, ECANCELED, "interrupted");
	c->dead = true;
	c->busy++;
	while (c->calls)
		end(c, c->calls, NULL, &err);
	evtimer_destroy(c->later);
	stream_destroy(c->stream);
	leave(c);
}

void caller_lost(struct caller *c, const struct err *why)
{
	if (c->lost.code)
		return;
	err_copy(&c->lost, why);
	if (!c->lost.code)
		c->lost.code = ECONNRESET;
	stream_pause(c->stream, true);
	buf_clear(stream_out(c->stream));
	c->busy++;
	doom_all(c);
	end_doomed(c);
	leave(c);
}

bool caller_is_lost(const struct caller *c)
{
	return c->lost.code != 0;
}

/* ---- asking ---- */

static uint32_t new_id(struct caller *c)
{
	do
		c->last_id++;
	while (!c->last_id || find(c, c->last_id));
	return c->last_id;
}

uint32_t caller_call(struct caller *c, json_t *req, const struct caller_ops *ops, void *arg)
{
	struct open_call *p = xcalloc(1, sizeof(*p));
	uint32_t id = new_id(c);
	*p = (struct open_call){.next = c->calls, .id = id, .ops = ops, .arg = arg};
	c->calls = p;
	c->n_calls++;
	if (c->lost.code)
		end_later(c, p, &c->lost);
	caller_message(c, id, req);
	return id;
}

void caller_message(struct caller *c, uint32_t id, json_t *msg)
{
	struct err err = ERR_INIT;
	struct open_call *p = find(c, id);
	if (!c->lost.code) {
		if (message_write(stream_out(c->stream), id, 0, msg, &err) < 0 && p)
			end_later(c, p, &err);
		stream_flush(c->stream);
	}
	json_decref(msg);
}

void caller_data(struct caller *c, uint32_t id, uint32_t rank, const char *p, size_t n, bool eof)
{
	if (c->lost.code)
		return;
	frame_write_data(stream_out(c->stream), id, rank, 0, p, n, eof);
	stream_flush(c->stream);
}

void caller_credit(struct caller *c, uint32_t id, uint32_t rank, int fd, uint32_t bytes)
{
	if (c->lost.code)
		return;
	frame_write_credit(stream_out(c->stream), id, rank, fd, bytes);
	stream_flush(c->stream);
}

void caller_frame(struct caller *c, const struct frame *f)
{
	struct frame own = *f;
	if (c->lost.code)
		return;
	own.id = 0;
	frame_write(stream_out(c->stream), &own);
	stream_flush(c->stream);
}

int caller_notify(struct caller *c, const json_t *msg, struct err *err)
{
	if (c->lost.code)
		return 0;
	if (message_write(stream_out(c->stream), 0, 0, msg, err) < 0)
		return -1;
	stream_flush(c->stream);
	return 0;
}

static void on_forgotten(void *arg _unused_, const json_t *reply _unused_, const struct err *err _unused_)
{
}

static const struct caller_ops nobody = {.on_end = on_forgotten};

void caller_forget(struct caller *c, uint32_t id)
{
	struct open_call *p = find(c, id);
	if (p)
		p->ops = &nobody; /* stays listed: its id must not be taken for another's */
}

size_t caller_queued(const struct caller *c)
{
	return c->lost.code ? 0 : stream_queued(c->stream);
}

size_t caller_frame_size(const struct caller *c)
{
	return c->frame_size;
}

unsigned caller_open(const struct caller *c)
{
	return c->n_calls;
}

struct stream *caller_stream(struct caller *c)
{
	return c->stream;
}
