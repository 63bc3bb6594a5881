/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/channel.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "io/stream.h"
#include "wire/guestproto.h"
#include "wire/resync.h"

#define QUEUE_MAX (64u << 20) /* bytes */
#define KNOCK_MS 500 /* a guest that saw the host go says hello within 100 ms of its time */
#define KNOCK_MAX_MS 8000
/* A guest that was spoken to has answered by then. Much longer than that takes where many are cloned at once (3 s were
 * too few of 16 on two processors): one that is knocked at needlessly is set up twice. */
#define TAKEN_UP_MS 15000
#define KNOCK_SOON_MS                                                                              \
	20 /* the guest of a clone, or of a VM that was restored or moved, as a rule sees nothing go */

struct request {
	struct channel *channel;
	struct request *next;
	uint32_t id;
	const struct request_ops *ops; /* NULL: abandoned */
	void *arg;
	uint64_t credit[3]; /* bytes the guest may still send on each fd */
};

struct channel {
	struct stream *stream;
	const struct channel_ops *ops;
	void *arg;
	uint32_t last_id;
	struct request *requests;
	struct loop *loop;
	struct evtimer *knock; /* NULL: the guest has said hello, or was never attached to */
	bool attaching;        /* and it was not ready since */
	bool taken_up;         /* what comes first is no rest of anything */
	uint64_t knock_ms;
	/* A callback may destroy the channel: while one runs (busy) the memory stays, and `dead` says so. */
	int busy;
	bool dead;
};

static struct request *find(struct channel *c, uint32_t id)
{
	for (struct request *r = c->requests; r; r = r->next)
		if (r->id == id)
			return r;
	return NULL;
}

static void unlink_request(struct request *r)
{
	struct request **p = &r->channel->requests;
	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
}

static void end(struct request *r, const struct err *err)
{
	unlink_request(r);
	if (r->ops)
		r->ops->on_end(r->arg, err);
	free(r);
}

static void end_all(struct channel *c, const struct err *err)
{
	while (c->requests)
		end(c->requests, err);
}

/* False: the channel was destroyed meanwhile, and is gone now. */
static bool leave(struct channel *c)
{
	if (--c->busy == 0 && c->dead) {
		free(c);
		return false;
	}
	return !c->dead;
}

static void message_without_id(struct channel *c, const char *verb, const char *kv, size_t len)
{
	_cleanup_free_ char *text = kv_dup(kv, len, "text");
	if (strcmp(verb, "hello") == 0) {
		_cleanup_free_ char *boot = kv_dup(kv, len, "boot");
		uint64_t version = kv_num(kv, len, "version", 0);
		if (version == GUESTPROTO_VERSION) {
			/* It begins anew, and knows nothing of what it was asked. */
			struct err gone = ERR_INIT;
			err_set(&gone, ECONNRESET, "the guest agent began anew");
			end_all(c, &gone);
			if (c->dead)
				return;
			c->ops->on_hello(c->arg, boot ? boot : "");
			return;
		}
		_cleanup_free_ char *why =
			xasprintf("guest agent speaks version %llu of the protocol, this agent %d: "
				  "build the image again",
				  (unsigned long long)version, GUESTPROTO_VERSION);
		c->ops->on_failed(c->arg, why);
	} else if (strcmp(verb, "ready") == 0) {
		c->attaching = false;
		c->ops->on_ready(c->arg);
	} else if (strcmp(verb, "failed") == 0) {
		c->ops->on_failed(c->arg, text ? text : "no reason given");
	} else if (strcmp(verb, "bye") == 0) {
		_cleanup_free_ char *how = kv_dup(kv, len, "how");
		c->ops->on_bye(c->arg, how ? how : "");
	} else if (strcmp(verb, "log") == 0) {
		c->ops->on_log(c->arg, text ? text : "");
	}
}

/* The messages that end a request. */
static bool is_last(const char *verb)
{
	static const char *const last[] = {"exit", "done", "error", "pong", "stats"};
	for (size_t i = 0; i < ARRAY_SIZE(last); i++)
		if (strcmp(verb, last[i]) == 0)
			return true;
	return false;
}

static void message_of_request(struct request *r, const char *verb, const char *kv, size_t len)
{
	struct channel *c = r->channel;
	uint32_t id = r->id;
	if (strcmp(verb, "error") == 0) {
		struct err err = ERR_INIT;
		_cleanup_free_ char *text = kv_dup(kv, len, "text");
		err_set(&err, (int)kv_num(kv, len, "code", EIO), "%s", text ? text : "no reason given");
		end(r, &err);
		return;
	}
	if (r->ops)
		r->ops->on_message(r->arg, verb, kv, len);
	r = find(c, id); /* the callback may have destroyed the channel, which ends its requests */
	if (r && is_last(verb))
		end(r, NULL);
}

static int one_frame(struct channel *c, const struct frame *f, struct err *err)
{
	struct request *r = f->id ? find(c, f->id) : NULL;
	if (f->type == FRAME_MESSAGE) {
		if (!kv_check(f->payload, f->len))
			return err_set(err, EPROTO, "guest sent a malformed message");
		_cleanup_free_ char *verb = kv_dup(f->payload, f->len, "verb");
		if (!verb)
			return err_set(err, EPROTO, "guest sent a malformed verb");
		if (!f->id)
			message_without_id(c, verb, f->payload, f->len);
		else if (r)
			message_of_request(r, verb, f->payload, f->len);
	} else if (r && r->ops) {
		if (f->type == FRAME_DATA && f->len > r->credit[f->fd])
			return err_set(err, EPROTO, "guest sent more output than it was asked for");
		if (f->type == FRAME_DATA)
			r->credit[f->fd] -= f->len;
		if (f->type == FRAME_DATA)
			r->ops->on_data(r->arg, f->fd, f->payload, f->len, f->flags & FRAME_EOF);
		else
			r->ops->on_credit(r->arg, f->fd, frame_credit(f));
	}
	return 0;
}

static void broken(struct channel *c, const struct err *err)
{
	struct err gone = ERR_INIT;
	err_set(&gone, err->code == EPROTO ? EPROTO : ECONNRESET, "%s",
		err->code ? err->text : "the guest agent is gone");
	c->busy++;
	stream_pause(c->stream, true);
	end_all(c, &gone);
	if (!c->dead)
		c->ops->on_close(c->arg, &gone);
	leave(c);
}

/* One that is paused, or slow, has the last knock still before it. */
static void on_knock(void *arg)
{
	struct channel *c = arg;
	c->taken_up = false;
	if (!stream_queued(c->stream)) {
		resync_knock(stream_out(c->stream));
		stream_flush(c->stream);
	}
	c->knock_ms = MIN(c->knock_ms * 2, (uint64_t)KNOCK_MAX_MS);
	evtimer_start(c->knock, c->knock_ms, 0);
}

static void knock_from_now(struct channel *c)
{
	c->knock_ms = KNOCK_MS;
	if (!c->knock)
		c->knock = evtimer_create(c->loop, on_knock, c);
	evtimer_start(c->knock, c->knock_ms, 0);
}

static void on_data(void *arg, struct buf *in)
{
	struct channel *c = arg;
	struct frame f;
	struct err err = ERR_INIT;
	int got;
	/* What we have to say to a guest is bounded by windows; one that does not read but keeps asking is not. */
	if (stream_queued(c->stream) > QUEUE_MAX) {
		err_set(&err, EPROTO, "guest does not read what it asks for");
		broken(c, &err);
		return;
	}
	if (c->knock && !c->taken_up && !resync_find(in))
		return;
	evtimer_destroy(TAKE_PTR(c->knock));
	while ((got = frame_read(in, FRAME_MAX_GUEST, &f, &err)) == 1) {
		c->busy++;
		int rc = one_frame(c, &f, &err);
		if (!leave(c))
			return;
		if (rc < 0) {
			got = -1;
			break;
		}
		frame_drop(in, &f);
	}
	if (got < 0 && c->attaching) {
		/* A second knock that came while it answered the first cut that answer off. */
		buf_consume(in, buf_len(in));
		knock_from_now(c);
	} else if (got < 0) {
		broken(c, &err);
	}
}

static void on_close(void *arg, const struct err *err)
{
	broken(arg, err);
}

static const struct stream_ops stream_ops = {.on_data = on_data, .on_close = on_close};

struct channel *channel_create(struct loop *l, int fd, const struct channel_ops *ops, void *arg,
			       struct err *err)
{
	struct channel *c = xcalloc(1, sizeof(*c));
	c->ops = ops;
	c->arg = arg;
	c->loop = l;
	c->stream = stream_create(l, fd, &stream_ops, c, err);
	if (!c->stream) {
		free(c);
		return NULL;
	}
	return c;
}

void channel_knock_soon(struct channel *c)
{
	c->knock_ms = KNOCK_MS / 2;
	evtimer_start(c->knock, KNOCK_SOON_MS, 0);
}

struct channel *channel_attach(struct loop *l, int fd, const struct channel_ops *ops, void *arg,
			       struct err *err)
{
	struct channel *c = channel_create(l, fd, ops, arg, err);
	if (!c)
		return NULL;
	c->attaching = true;
	knock_from_now(c);
	return c;
}

struct channel *channel_take_up(struct loop *l, int fd, const struct channel_ops *ops, void *arg,
				struct err *err)
{
	struct channel *c = channel_attach(l, fd, ops, arg, err);
	if (!c)
		return NULL;
	c->taken_up = true;
	evtimer_start(c->knock, TAKEN_UP_MS, 0);
	return c;
}

void channel_destroy(struct channel *c)
{
	if (!c)
		return;
	struct err err = ERR_INIT;
	err_set(&err, ECONNRESET, "the VM was ended");
	if (c->dead)
		return; /* from within its own end: the first call goes on */
	c->dead = true;
	c->busy++;
	end_all(c, &err);
	evtimer_destroy(TAKE_PTR(c->knock));
	stream_destroy(c->stream);
	leave(c);
}

static void send_message(struct channel *c, uint32_t id, const struct buf *kv)
{
	frame_write(stream_out(c->stream), &(struct frame){
						   .len = (uint32_t)buf_len(kv),
						   .type = FRAME_MESSAGE,
						   .id = id,
						   .payload = buf_len(kv) ? buf_head(kv) : NULL,
					   });
	stream_flush(c->stream);
}

void channel_send(struct channel *c, const struct buf *kv)
{
	send_message(c, 0, kv);
}

struct request *channel_request(struct channel *c, const struct buf *kv,
				const struct request_ops *ops, void *arg)
{
	struct request *r = xcalloc(1, sizeof(*r));
	do {
		c->last_id++;
	} while (c->last_id == 0 || find(c, c->last_id));
	*r = (struct request){.channel = c, .next = c->requests, .id = c->last_id, .ops = ops, .arg = arg};
	r->credit[1] = r->credit[2] = buf_len(kv) ? kv_num(buf_head(kv), buf_len(kv), "window", 0) : 0;
	c->requests = r;
	send_message(c, r->id, kv);
	return r;
}

void request_message(struct request *r, const struct buf *kv)
{
	send_message(r->channel, r->id, kv);
}

void request_data(struct request *r, int fd, const void *p, size_t n, bool eof)
{
	struct buf *out = stream_out(r->channel->stream);
	const char *at = p;
	while (n > FRAME_MAX_GUEST) {
		frame_write_data(out, r->id, 0, fd, at, FRAME_MAX_GUEST, false);
		at += FRAME_MAX_GUEST;
		n -= FRAME_MAX_GUEST;
	}
	frame_write_data(out, r->id, 0, fd, at, n, eof);
	stream_flush(r->channel->stream);
}

void request_credit(struct request *r, int fd, uint32_t bytes)
{
	r->credit[fd] += bytes;
	frame_write_credit(stream_out(r->channel->stream), r->id, 0, fd, bytes);
	stream_flush(r->channel->stream);
}

void request_abandon(struct request *r)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	r->ops = NULL; /* stays listed until the guest has ended it, so that its id is not used again */
	kv_adds(&kv, "verb", "cancel");
	request_message(r, &kv);
}
