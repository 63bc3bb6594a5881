/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "io/listener.h"
#include "io/stream.h"
#include "wire/message.h"

#define HELLO_MS 10000

struct pending {
	struct pending *next;
	uint32_t id;
	const struct client_ops *ops;
	void *arg;
	struct err *why; /* it cannot go on: ended by on_later(), what still comes for it is dropped */
};

struct client {
	struct loop *loop;
	struct stream *stream;
	char *name;
	uint32_t last_id;
	struct pending *calls;
	struct evtimer *later;
	struct err lost; /* code 0: the connection stands */
	/* A callback may destroy the client: while one runs (busy) the memory stays, and `dead` says so. */
	int busy;
	bool dead;
};

static struct pending *find(struct client *c, uint32_t id)
{
	for (struct pending *p = c->calls; p; p = p->next)
		if (p->id == id)
			return p;
	return NULL;
}

static void end(struct client *c, struct pending *p, const json_t *reply, const struct err *err)
{
	struct pending **at = &c->calls;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	struct pending was = *p;
	free(p);
	was.ops->on_end(was.arg, reply, err);
	free(was.why); /* err may be this */
}

/* From the loop: who has made the call does not know its id yet. */
static void end_later(struct client *c, struct pending *p, const struct err *err)
{
	if (p->why)
		return;
	p->why = xcalloc(1, sizeof(*p->why));
	err_copy(p->why, err);
	evtimer_start(c->later, 0, 0);
}

static int one_message(struct client *c, struct pending *p, const struct frame *f, struct err *err)
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

static int one_frame(struct client *c, const struct frame *f, struct err *err)
{
	struct pending *p = find(c, f->id);
	if (!p || p->why)
		return 0; /* of a call that has ended */
	if (f->type == FRAME_MESSAGE)
		return one_message(c, p, f, err);
	if (f->type == FRAME_DATA && p->ops->on_data)
		p->ops->on_data(p->arg, f->rank, f->fd, f->payload, f->len, f->flags & FRAME_EOF);
	else if (f->type == FRAME_CREDIT && f->fd == 0 && p->ops->on_credit)
		p->ops->on_credit(p->arg, f->rank, frame_credit(f));
	return 0;
}

/* False: the client was destroyed meanwhile, and is gone now. */
static bool leave(struct client *c)
{
	if (--c->busy == 0 && c->dead) {
		free(c->name);
		free(c);
		return false;
	}
	return !c->dead;
}

static void end_all(struct client *c, const struct err *err)
{
	while (c->calls)
		end(c, c->calls, NULL, err);
}

static void on_later(void *arg)
{
	struct client *c = arg;
	struct pending *p = c->calls;
	c->busy++;
	while (p) {
		if (!p->why) {
			p = p->next;
			continue;
		}
		end(c, p, NULL, p->why);
		p = c->calls; /* any of them may be gone now */
	}
	leave(c);
}

static void lost(struct client *c, const struct err *why)
{
	if (c->lost.code)
		return;
	err_set(&c->lost, ECONNRESET, "the agent of cluster '%s' is gone%s%s", c->name,
		why->code ? ": " : "", why->code ? why->text : "");
	stream_pause(c->stream, true);
	for (struct pending *p = c->calls; p; p = p->next)
		end_later(c, p, &c->lost);
}

static void on_data(void *arg, struct buf *in)
{
	struct client *c = arg;
	struct frame f;
	struct err err = ERR_INIT;
	int got;
	while ((got = frame_read(in, FRAME_MAX_MESSAGE, &f, &err)) == 1) {
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
	if (got < 0)
		lost(c, &err);
}

static void on_close(void *arg, const struct err *err)
{
	lost(arg, err);
}

static const struct stream_ops stream_ops = {.on_data = on_data, .on_close = on_close};

/* What is asked may hold a private key: never told to another user's process. */
static int check_peer(int fd, const char *path, struct err *err)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return err_errno(err, errno, "socket %s", path);
	if (peer.uid != geteuid())
		return err_set(err, EPERM, "socket %s: user %u answers there, not an agent of yours",
			       path, (unsigned)peer.uid);
	return 0;
}

int client_connect(struct loop *l, const char *base, const char *name, struct client **ret,
		   struct err *err)
{
	_cleanup_free_ char *path = xasprintf("%s/%s/sock", base, name);
	struct err why = ERR_INIT;
	_cleanup_close_ int fd = -1;
	if (unix_connect(path, &fd, &why) < 0) {
		if (why.code == ENOENT || why.code == ECONNREFUSED)
			return err_set(err, ENOENT, "no cluster '%s' runs (see 'vse ps')", name);
		return err_copy(err, &why);
	}
	if (check_peer(fd, path, err) < 0)
		return -1;
	struct client *c = xcalloc(1, sizeof(*c));
	c->loop = l;
	c->name = xstrdup(name);
	c->later = evtimer_create(l, on_later, c);
	c->stream = stream_create(l, TAKE_FD(fd), &stream_ops, c, err);
	_cleanup_json_ json_t *reply = NULL;
	if (!c->stream ||
	    client_ask(c, json_pack("{s:s, s:i}", "verb", "hello", "version", MESSAGE_VERSION),
		       HELLO_MS, &reply, err) < 0) {
		client_destroy(c);
		return -1;
	}
	*ret = c;
	return 0;
}

void client_destroy(struct client *c)
{
	if (!c)
		return;
	struct err err = ERR_INIT;
	err_set(&err, ECANCELED, "interrupted");
	if (c->dead)
		return;
	c->dead = true;
	c->busy++;
	end_all(c, &err);
	evtimer_destroy(c->later);
	stream_destroy(c->stream);
	leave(c);
}

uint32_t client_call(struct client *c, json_t *req, const struct client_ops *ops, void *arg)
{
	struct pending *p = xcalloc(1, sizeof(*p));
	uint32_t id = ++c->last_id;
	*p = (struct pending){.next = c->calls, .id = id, .ops = ops, .arg = arg};
	c->calls = p;
	if (c->lost.code)
		end_later(c, p, &c->lost);
	client_message(c, id, req);
	return id;
}

void client_message(struct client *c, uint32_t id, json_t *msg)
{
	struct err err = ERR_INIT;
	struct pending *p = find(c, id);
	if (!c->lost.code) {
		if (message_write(stream_out(c->stream), id, 0, msg, &err) < 0 && p)
			end_later(c, p, &err);
		stream_flush(c->stream);
	}
	json_decref(msg);
}

void client_data(struct client *c, uint32_t id, uint32_t rank, const char *p, size_t n, bool eof)
{
	if (c->lost.code)
		return;
	frame_write_data(stream_out(c->stream), id, rank, 0, p, n, eof);
	stream_flush(c->stream);
}

void client_credit(struct client *c, uint32_t id, uint32_t rank, int fd, uint32_t bytes)
{
	if (c->lost.code)
		return;
	frame_write_credit(stream_out(c->stream), id, rank, fd, bytes);
	stream_flush(c->stream);
}

static void on_forgotten(void *arg _unused_, const json_t *reply _unused_, const struct err *err _unused_)
{
}

static const struct client_ops nobody = {.on_end = on_forgotten};

void client_forget(struct client *c, uint32_t id)
{
	struct pending *p = find(c, id);
	if (p)
		p->ops = &nobody; /* stays listed: its id must not be taken for another's */
}

/* ---- one call, waited for ---- */

struct asked {
	bool over;
	json_t *reply;
	struct err err;
};

static void on_ask_end(void *arg, const json_t *reply, const struct err *err)
{
	struct asked *a = arg;
	a->over = true;
	a->reply = reply ? json_incref((json_t *)reply) : NULL;
	if (err)
		a->err = *err;
}

static void on_ask_timeout(void *arg)
{
	struct asked *a = arg;
	a->over = true;
	err_set(&a->err, ETIMEDOUT, "the agent did not answer in time");
}

static const struct client_ops ask_ops = {.on_end = on_ask_end};

int client_ask(struct client *c, json_t *req, uint64_t bound_ms, json_t **ret, struct err *err)
{
	struct asked a = {0};
	struct evtimer *timer = NULL;
	uint32_t id = client_call(c, req, &ask_ops, &a);
	if (bound_ms) {
		timer = evtimer_create(c->loop, on_ask_timeout, &a);
		evtimer_start(timer, bound_ms, 0);
	}
	while (!a.over)
		loop_run_once(c->loop);
	evtimer_destroy(timer);
	client_forget(c, id); /* when it has timed out */
	if (!a.reply)
		return err_copy(err, &a.err);
	if (ret)
		*ret = a.reply;
	else
		json_decref(a.reply);
	return 0;
}

struct loop *client_loop(struct client *c)
{
	return c->loop;
}
