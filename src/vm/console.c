/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/console.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "io/stream.h"

/* An emulated serial port hands over byte by byte: after a small piece the next is looked for only this much later, so
 * that a chatty guest costs a wake-up for each piece and not for each byte. */
#define GATHER_MS 5
#define SMALL 4096             /* bytes */
#define DRAIN_MAX (256u << 10) /* bytes: more than a socket holds */
#define INPUT_MAX (64u << 10)  /* bytes typed ahead */

struct console_reader {
	struct console *console;
	struct console_reader *next;
	void (*on_data)(void *arg, const char *p, size_t n);
	void *arg;
};

struct console {
	struct loop *loop;
	char *path, *old_path;
	int log;
	size_t written; /* bytes in the current file */
	uint64_t said;
	struct stream *stream;
	struct evtimer *gather; /* runs while the stream is paused */
	bool gathering;
	struct console_reader *readers;
};

static void keep(struct console *c, const char *p, size_t n)
{
	if (c->written + n > CONSOLE_LOG_MAX / 2 && c->log >= 0) {
		close(c->log);
		c->log = -1;
		rename(c->path, c->old_path);
	}
	if (c->log < 0) {
		c->log = open(c->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		c->written = 0;
	}
	/* A full disk loses log lines, never the VM. */
	if (c->log >= 0 && fd_write_all(c->log, p, n) == 0)
		c->written += n;
}

static void deliver(struct console *c, const char *p, size_t n)
{
	c->said += n;
	keep(c, p, n);
	for (struct console_reader *r = c->readers, *next; r; r = next) {
		next = r->next;
		r->on_data(r->arg, p, n);
	}
}

static void on_data(void *arg, struct buf *in)
{
	struct console *c = arg;
	size_t n = buf_len(in);
	deliver(c, buf_head(in), n);
	buf_consume(in, n);
	if (n >= SMALL || !c->stream)
		return;
	c->gathering = true;
	stream_pause(c->stream, true);
	evtimer_start(c->gather, GATHER_MS, 0);
}

static void on_gathered(void *arg)
{
	struct console *c = arg;
	c->gathering = false;
	if (c->stream)
		stream_pause(c->stream, false);
}

/* What was printed while the stream is paused: the last words of a guest are not to be missed. */
static void drain(struct console *c)
{
	char some[4096];
	ssize_t n;
	for (size_t all = 0; c->stream && c->gathering && all < DRAIN_MAX; all += (size_t)n) {
		n = read(stream_fd(c->stream), some, sizeof(some));
		if (n <= 0)
			return;
		deliver(c, some, (size_t)n);
	}
}

static void on_close(void *arg, const struct err *err _unused_)
{
	struct console *c = arg;
	stream_destroy(c->stream);
	c->stream = NULL;
}

static const struct stream_ops stream_ops = {.on_data = on_data, .on_close = on_close};

struct console *console_create(struct loop *l, const char *log_path)
{
	struct console *c = xcalloc(1, sizeof(*c));
	*c = (struct console){.loop = l,
			      .path = xstrdup(log_path),
			      .old_path = xasprintf("%s.1", log_path),
			      .log = -1};
	c->gather = evtimer_create(l, on_gathered, c);
	/* The log of a VM that is adopted goes on. */
	c->log = open(log_path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	if (c->log >= 0 && fstat(c->log, &st) == 0)
		c->written = (size_t)st.st_size;
	return c;
}

void console_destroy(struct console *c)
{
	if (!c)
		return;
	while (c->readers)
		console_detach(c->readers);
	stream_destroy(c->stream);
	evtimer_destroy(c->gather);
	if (c->log >= 0)
		close(c->log);
	free(c->path);
	free(c->old_path);
	free(c);
}

int console_connect(struct console *c, int fd, struct err *err)
{
	stream_destroy(c->stream);
	c->gathering = false;
	c->stream = stream_create(c->loop, fd, &stream_ops, c, err);
	return c->stream ? 0 : -1;
}

uint64_t console_said(const struct console *c)
{
	return c->said;
}

void console_note(struct console *c, const char *text)
{
	_cleanup_free_ char *line = xasprintf("[vse] %s\n", text);
	keep(c, line, strlen(line));
}

struct console_reader *console_attach(struct console *c,
				      void (*fn)(void *arg, const char *p, size_t n), void *arg)
{
	struct console_reader *r = xcalloc(1, sizeof(*r));
	*r = (struct console_reader){.console = c, .next = c->readers, .on_data = fn, .arg = arg};
	c->readers = r;
	return r;
}

void console_detach(struct console_reader *r)
{
	if (!r)
		return;
	struct console_reader **p = &r->console->readers;
	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	free(r);
}

void console_input(struct console *c, const char *p, size_t n)
{
	if (c->stream && stream_queued(c->stream) + n <= INPUT_MAX)
		stream_write(c->stream, p, n);
}

char *console_tail(struct console *c, size_t max, size_t *ret_len)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	drain(c);
	const char *const files[] = {c->old_path, c->path};
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *data = NULL;
		size_t len;
		if (path_read(files[i], CONSOLE_LOG_MAX, &data, &len, NULL) == 0)
			buf_add(&b, data, len);
	}
	if (buf_len(&b) > max) {
		buf_consume(&b, buf_len(&b) - max);
		const char *line = memchr(buf_head(&b), '\n', buf_len(&b));
		if (line)
			buf_consume(&b, (size_t)(line + 1 - buf_head(&b)));
	}
	*ret_len = buf_len(&b);
	return buf_take(&b);
}

/* The line that ends at `end`; *ret_start is where it begins. */
static size_t last_line(const char *text, size_t end, size_t *ret_start)
{
	while (end && (unsigned char)text[end - 1] <= ' ')
		end--;
	size_t start = end;
	while (start && text[start - 1] != '\n' && text[start - 1] != '\r')
		start--;
	*ret_start = start;
	return end;
}

void console_last_line(struct console *c, char out[121])
{
	size_t len, start, n = 0;
	_cleanup_free_ char *tail = console_tail(c, 4096, &len);
	size_t end = last_line(tail, len, &start);
	/* The kernel's farewell says nothing: the line before it is the cause. */
	if (memmem(tail + start, end - start, "] reboot: ", 10) && start)
		end = last_line(tail, start, &start);
	for (; start < end && n < 120; start++)
		if ((unsigned char)tail[start] >= ' ' && (unsigned char)tail[start] < 0x7f)
			out[n++] = tail[start];
	out[n] = '\0';
}
