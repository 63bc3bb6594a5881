/* SPDX-License-Identifier: Apache-2.0 */
#include "io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "io/layer.h"

#define READ_CHUNK (64u << 10) /* bytes asked of the kernel at once */
#define IDLE_KEEP 1024u /* bytes: a larger buffer of a plain stream is given back when it idles */
#define IDLE_MS 1000
#define WIRE_MAX (64u << 10) /* encrypted bytes made before the kernel has taken the last ones */

struct stream {
	struct loop *loop;
	struct watch *watch;
	int fd;
	const struct stream_ops *ops;
	void *arg;
	struct buf in, out;
	struct layer *layer; /* NULL: a plain stream */
	struct buf wire; /* with a layer: what is to be written; `out` goes through the layer first */
	struct evtimer *later, *idle;
	struct err *fault; /* how the layer's peer ended; NULL: properly */
	bool paused, ending, end_sent, closed;
	bool fresh;          /* on_data() is due */
	bool opened;         /* on_open() is due */
	bool over;           /* nothing more will be read: on_close() is due */
	bool active, idling; /* since the last look; `idle` runs */
	bool once; /* first used after a rest: what is empty goes back as soon as nobody looks at it */
	bool out_broken; /* writing failed; what the peer sent before that is still read */
	/* A callback may destroy the stream: while one runs (busy) the memory stays, and `dead` says so. */
	int busy;
	bool dead;
};

static bool may_write(const struct stream *s)
{
	return !s->layer || s->layer->open;
}

static void update(struct stream *s)
{
	int events = 0;
	if (s->closed) {
		watch_set(s->watch, 0);
		return;
	}
	/* A handshake goes on while its user does not read. */
	if (!s->over && (!s->paused || !may_write(s)))
		events |= WATCH_READ;
	if (!s->out_broken && (buf_len(&s->wire) || (buf_len(&s->out) && may_write(s))))
		events |= WATCH_WRITE;
	watch_set(s->watch, events);
}

static bool spare(const struct stream *s, const struct buf *b)
{
	return !buf_len(b) && b->cap > (s->layer ? 0 : IDLE_KEEP);
}

static void give_back(struct stream *s)
{
	struct buf *const all[] = {&s->in, &s->out, &s->wire};
	s->once = false;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (spare(s, all[i]))
			buf_finish(all[i]);
}

static void on_idle(void *arg)
{
	struct stream *s = arg;
	if (s->active) {
		s->active = false;
		evtimer_start(s->idle, IDLE_MS, 0);
		return;
	}
	s->idling = false;
	give_back(s);
}

/* Empty buffers of a busy stream are given back only when nothing has passed for a while: it would get each of them
 * from the kernel anew, page by page. After a rest the first use gives them back at once: a thousand streams that get
 * one long message each would else have a thousand large buffers at the same time. */
static void touch(struct stream *s)
{
	s->active = true;
	if (s->idling || !(spare(s, &s->in) || spare(s, &s->out) || spare(s, &s->wire)))
		return;
	s->idling = s->once = true;
	if (!s->idle)
		s->idle = evtimer_create(s->loop, on_idle, s);
	evtimer_start(s->idle, IDLE_MS, 0);
}

/* Frees a stream that was destroyed while a callback ran. False: it is dead. */
static bool leave(struct stream *s)
{
	bool alive = !s->dead;
	if (--s->busy)
		return alive;
	if (s->dead)
		free(s);
	else if (s->once)
		give_back(s);
	return alive;
}

static void closed_with(struct stream *s, const struct err *err)
{
	if (s->closed)
		return;
	s->closed = true;
	update(s);
	s->ops->on_close(s->arg, err);
}

static void closed(struct stream *s, int code, const char *what)
{
	struct err err = ERR_INIT;
	if (code)
		err_errno(&err, code, "%s", what);
	closed_with(s, &err);
}

/* ---- out ---- */

/* Writes what the kernel takes. Gives an errno, 0 when all is well. */
static int push_buf(struct stream *s, struct buf *b)
{
	while (buf_len(b)) {
		/* A peer that left is EPIPE, never a signal: the program may be another's (libvse). */
		ssize_t n = send(s->fd, buf_head(b), buf_len(b), MSG_NOSIGNAL);
		if (n < 0 && errno == ENOTSOCK)
			n = write(s->fd, buf_head(b), buf_len(b));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : errno;
		buf_consume(b, (size_t)n);
	}
	touch(s);
	return 0;
}

/* From `out` through the layer. Only into half a buffer or less: a nearly full one would make tiny records. */
static void fill_wire(struct stream *s)
{
	while (buf_len(&s->out) && buf_len(&s->wire) <= WIRE_MAX / 2) {
		size_t n = MIN(buf_len(&s->out), WIRE_MAX - buf_len(&s->wire));
		s->layer->ops->out(s->layer, buf_head(&s->out), n, &s->wire);
		buf_consume(&s->out, n);
	}
}

static int push_layer(struct stream *s)
{
	for (;;) {
		if (s->layer->open)
			fill_wire(s);
		int code = push_buf(s, &s->wire);
		if (code || buf_len(&s->wire) || !s->layer->open)
			return code;
		if (!buf_len(&s->out) && s->ending && !s->end_sent) {
			s->end_sent = true;
			s->layer->ops->end(s->layer, &s->wire);
		}
		if (!buf_len(&s->out) && !buf_len(&s->wire))
			return 0;
	}
}

static int push(struct stream *s)
{
	int code = s->layer ? push_layer(s) : push_buf(s, &s->out);
	if (code || stream_queued(s) || !s->ending || !may_write(s))
		return code;
	if (shutdown(s->fd, SHUT_WR) < 0 && errno == ENOTSOCK)
		return EPIPE; /* a pipe has one side only: its end is its close */
	return 0;
}

/* The peer of a layered stream is gone, but it may have said why. */
static void broken_layer(struct stream *s, int code)
{
	struct err err = ERR_INIT;
	s->out_broken = true;
	buf_finish(&s->out);
	buf_finish(&s->wire);
	if (s->paused && s->layer->open) { /* its user may wait for the queue to empty before it reads on */
		s->layer->ops->cut(s->layer, code, &err);
		closed_with(s, &err);
	} else {
		update(s);
	}
}

static void writable(struct stream *s)
{
	bool had = stream_queued(s) > 0 && may_write(s);
	int code = push(s);
	if (code && s->layer) {
		broken_layer(s, code);
		return;
	}
	if (code) {
		closed(s, code == EPIPE || code == ECONNRESET ? 0 : code, "write");
		return;
	}
	update(s);
	if (had && !stream_queued(s) && s->ops->on_drain)
		s->ops->on_drain(s->arg);
}

/* ---- in ---- */

/* Tells the owner what is due, in this order: authenticated, bytes, the end. */
static void settle(struct stream *s)
{
	s->busy++;
	if (s->opened) {
		s->opened = false;
		if (s->ops->on_open)
			s->ops->on_open(s->arg);
	}
	while (!s->dead && !s->closed && s->fresh && !s->paused) {
		s->fresh = false;
		s->ops->on_data(s->arg, &s->in);
	}
	if (!s->dead)
		touch(s);
	if (!s->dead && s->over && !s->fresh && (!s->paused || s->fault)) {
		struct err why = s->fault ? *s->fault
					  : ERR_INIT; /* the owner may destroy the stream, then read it */
		closed_with(s, &why);
	}
	leave(s);
}

static void on_later(void *arg)
{
	settle(arg);
}

static void settle_later(struct stream *s)
{
	if (s->closed || !(s->fresh || s->over))
		return;
	if (!s->later)
		s->later = evtimer_create(s->loop, on_later, s);
	evtimer_start(s->later, 0, 0);
}

static void fault(struct stream *s, const struct err *err)
{
	s->over = true;
	s->fault = xmalloc(sizeof(*s->fault));
	*s->fault = *err;
}

static void read_layer(struct stream *s)
{
	struct layer *y = s->layer;
	struct err err = ERR_INIT;
	bool was_open = y->open;
	size_t had = buf_len(&s->in), queued = stream_queued(s), wire = buf_len(&s->wire);
	ssize_t n = read(s->fd, y->scratch, LAYER_SCRATCH);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		y->ops->cut(y, n < 0 ? errno : 0, &err);
		fault(s, &err);
	} else if (y->ops->in(y, y->scratch, (size_t)n, &s->in, &s->wire, &err) < 0) {
		fault(s, &err);
	} else if (y->ended) {
		s->over = true;
	}
	s->opened = y->open && !was_open;
	s->fresh |= buf_len(&s->in) > had;
	/* What the layer answers goes out at once, where nothing is before it; the user's bytes, and that they are out,
	 * are writable()'s. */
	if (!s->out_broken && !wire)
		(void)(queued ? push_buf(s, &s->wire) : push(s));
	update(s);
	settle(s);
}

/* A stream that carries little has a small buffer; one that carries much is read into its large one at once. */
static ssize_t read_some(struct stream *s)
{
	char some[READ_CHUNK];
	bool large = s->in.cap >= READ_CHUNK;
	if (large)
		buf_reserve(&s->in, READ_CHUNK);
	ssize_t n = large ? read(s->fd, s->in.data + s->in.end, s->in.cap - s->in.end)
			  : read(s->fd, some, sizeof(some));
	if (large && n > 0)
		s->in.end += (size_t)n;
	else if (n > 0)
		buf_add(&s->in, some, (size_t)n);
	return n;
}

static void read_plain(struct stream *s)
{
	ssize_t n = read_some(s);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			/* EIO is how a terminal or pty, ECONNRESET how a socket tells that the peer is gone. */
			closed(s, errno == EIO || errno == ECONNRESET ? 0 : errno, "read");
		return;
	}
	if (n == 0) {
		closed(s, 0, NULL);
		return;
	}
	s->fresh = true;
	settle(s);
}

static void on_ready(void *arg, int events)
{
	struct stream *s = arg;
	s->busy++;
	if (events & WATCH_WRITE)
		writable(s);
	if (!s->dead && (events & WATCH_READ) && !s->closed && !s->over &&
	    (!s->paused || !may_write(s))) {
		if (s->layer)
			read_layer(s);
		else
			read_plain(s);
	}
	leave(s);
}

/* ---- making and ending ---- */

struct stream *stream_create_layered(struct loop *l, int fd, struct layer *y,
				     const struct stream_ops *ops, void *arg, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	struct stream *s = xcalloc(1, sizeof(*s));
	s->watch = watch_create(l, fd, on_ready, s, err);
	if (!s->watch) {
		free(s);
		close(fd);
		if (y)
			y->ops->destroy(y);
		return NULL;
	}
	s->loop = l;
	s->fd = fd;
	s->ops = ops;
	s->arg = arg;
	s->layer = y;
	if (y) {
		y->ops->begin(y, s, &s->wire);
		push_buf(s, &s->wire);
	}
	update(s);
	return s;
}

struct stream *stream_create(struct loop *l, int fd, const struct stream_ops *ops, void *arg,
			     struct err *err)
{
	return stream_create_layered(l, fd, NULL, ops, arg, err);
}

/* All that was written is out: says so, that the peer need not take this for a cut. */
static void say_goodbye(struct stream *s)
{
	if (s->fault || s->out_broken || s->end_sent || !s->layer->open || stream_queued(s))
		return;
	s->layer->ops->end(s->layer, &s->wire);
	push_buf(s, &s->wire);
}

void stream_destroy(struct stream *s)
{
	if (!s || s->dead)
		return;
	if (s->layer) {
		say_goodbye(s);
		s->layer->ops->destroy(s->layer);
	}
	s->dead = true;
	watch_destroy(s->watch);
	evtimer_destroy(s->later);
	evtimer_destroy(s->idle);
	close(s->fd);
	buf_finish(&s->in);
	buf_finish(&s->out);
	buf_finish(&s->wire);
	free(s->fault);
	if (!s->busy)
		free(s);
}

void stream_fail(struct stream *s, const struct err *why)
{
	s->busy++;
	closed_with(s, why);
	leave(s);
}

void stream_pause(struct stream *s, bool pause)
{
	s->paused = pause;
	update(s);
	if (!pause)
		settle_later(s);
}

void stream_set_ops(struct stream *s, const struct stream_ops *ops, void *arg)
{
	s->ops = ops;
	s->arg = arg;
	s->fresh = buf_len(&s->in) > 0;
	settle_later(s);
}

void stream_write(struct stream *s, const void *p, size_t n)
{
	if (s->closed || s->out_broken)
		return;
	buf_add(&s->out, p, n);
	stream_flush(s);
}

struct buf *stream_out(struct stream *s)
{
	return &s->out;
}

/* A write error is not told from here (the caller is in the middle of something): the descriptor stays
 * watched, and the loop's next round tells it. */
void stream_flush(struct stream *s)
{
	if (s->closed || s->out_broken) {
		buf_clear(&s->out);
		return;
	}
	if (buf_len(&s->out))
		push(s);
	update(s);
	if (s->once && !s->busy)
		give_back(s);
}

size_t stream_queued(const struct stream *s)
{
	return buf_len(&s->out) + buf_len(&s->wire);
}

void stream_end(struct stream *s)
{
	s->ending = true;
	if (!s->closed && !s->out_broken && !stream_queued(s)) {
		push(s);
		update(s);
	}
}

int stream_fd(const struct stream *s)
{
	return s->fd;
}
