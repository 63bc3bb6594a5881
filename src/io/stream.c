/* SPDX-License-Identifier: Apache-2.0 */
#include "io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/alloc.h"

#define READ_CHUNK (64u << 10) /* bytes asked of the kernel at once */
#define IDLE_KEEP (16u << 10)  /* a larger buffer is given back once it is empty */

struct stream {
	struct loop *loop;
	struct watch *watch;
	int fd;
	const struct stream_ops *ops;
	void *arg;
	struct buf in, out;
	bool paused, ending, closed;
	bool *destroyed; /* set while a callback runs: it may destroy us */
};

static void update(struct stream *s)
{
	if (s->closed)
		watch_set(s->watch, 0);
	else
		watch_set(s->watch, (s->paused ? 0 : WATCH_READ) | (buf_len(&s->out) ? WATCH_WRITE : 0));
}

static void shrink(struct buf *b)
{
	if (!buf_len(b) && b->cap > IDLE_KEEP)
		buf_finish(b);
}

static void closed(struct stream *s, int code, const char *what)
{
	struct err err = ERR_INIT;
	if (s->closed)
		return;
	s->closed = true;
	if (code)
		err_errno(&err, code, "%s", what);
	update(s);
	s->ops->on_close(s->arg, &err);
}

/* Writes what the kernel takes. Gives an errno, 0 when all is well. */
static int push(struct stream *s)
{
	while (buf_len(&s->out)) {
		ssize_t n = write(s->fd, buf_head(&s->out), buf_len(&s->out));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : errno;
		buf_consume(&s->out, (size_t)n);
	}
	shrink(&s->out);
	if (s->ending && shutdown(s->fd, SHUT_WR) < 0 && errno == ENOTSOCK)
		return EPIPE; /* a pipe has one side only: its end is its close */
	return 0;
}

static void readable(struct stream *s)
{
	bool destroyed = false;
	buf_reserve(&s->in, READ_CHUNK);
	ssize_t n = read(s->fd, s->in.data + s->in.end, s->in.cap - s->in.end);
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
	s->in.end += (size_t)n;
	s->destroyed = &destroyed;
	s->ops->on_data(s->arg, &s->in);
	if (destroyed)
		return;
	s->destroyed = NULL;
	shrink(&s->in);
}

static void writable(struct stream *s)
{
	bool had = buf_len(&s->out) > 0;
	int code = push(s);
	if (code) {
		closed(s, code == EPIPE || code == ECONNRESET ? 0 : code, "write");
		return;
	}
	update(s);
	if (had && !buf_len(&s->out) && s->ops->on_drain)
		s->ops->on_drain(s->arg);
}

static void on_ready(void *arg, int events)
{
	struct stream *s = arg;
	bool destroyed = false;
	if (events & WATCH_WRITE) {
		s->destroyed = &destroyed;
		writable(s);
		if (destroyed)
			return;
		s->destroyed = NULL;
	}
	if ((events & WATCH_READ) && !s->closed && !s->paused)
		readable(s);
}

struct stream *stream_create(struct loop *l, int fd, const struct stream_ops *ops, void *arg,
			     struct err *err)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	struct stream *s = xcalloc(1, sizeof(*s));
	s->watch = watch_create(l, fd, on_ready, s, err);
	if (!s->watch) {
		free(s);
		close(fd);
		return NULL;
	}
	s->loop = l;
	s->fd = fd;
	s->ops = ops;
	s->arg = arg;
	update(s);
	return s;
}

void stream_destroy(struct stream *s)
{
	if (!s)
		return;
	if (s->destroyed)
		*s->destroyed = true;
	watch_destroy(s->watch);
	close(s->fd);
	buf_finish(&s->in);
	buf_finish(&s->out);
	free(s);
}

void stream_pause(struct stream *s, bool pause)
{
	s->paused = pause;
	update(s);
}

void stream_write(struct stream *s, const void *p, size_t n)
{
	if (s->closed)
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
	if (s->closed) {
		buf_clear(&s->out);
		return;
	}
	if (buf_len(&s->out))
		push(s);
	update(s);
}

size_t stream_queued(const struct stream *s)
{
	return buf_len(&s->out);
}

void stream_end(struct stream *s)
{
	s->ending = true;
	if (!s->closed && !buf_len(&s->out))
		shutdown(s->fd, SHUT_WR);
}

int stream_fd(const struct stream *s)
{
	return s->fd;
}
