/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "io/child.h"
#include "io/stream.h"

#define LAST_WORDS_MS                                                                              \
	500 /* outputs that a grandchild holds open are waited for so long after the end */
#define TERM_MS 5000

struct output {
	struct tool *tool;
	struct stream *stream; /* NULL: ended */
	struct buf rest;       /* not a whole line yet */
	bool err, skip;        /* skip: the rest of a line that was cut */
};

struct tool {
	struct loop *loop;
	struct child *child;
	struct stream *in; /* NULL: none, or closed */
	struct output out[2];
	struct evtimer *timer;
	const struct tool_ops *ops;
	void *arg;
	int status;
	bool exited;
	/* A callback may destroy the tool: then it stays (busy) until the callback is over, or its process is. */
	int busy;
	bool dead;
};

static void close_streams(struct tool *t)
{
	stream_destroy(TAKE_PTR(t->in));
	for (int i = 0; i < 2; i++)
		stream_destroy(TAKE_PTR(t->out[i].stream));
}

static void release(struct tool *t)
{
	if (t->busy || (t->child && !t->exited))
		return;
	for (int i = 0; i < 2; i++)
		buf_finish(&t->out[i].rest);
	child_destroy(t->child);
	evtimer_destroy(t->timer);
	free(t);
}

/* A callback is over. */
static void leave(struct tool *t)
{
	t->busy--;
	if (t->dead)
		release(t);
}

static void finish(struct tool *t)
{
	if (t->dead || !t->exited || t->out[0].stream || t->out[1].stream)
		return;
	evtimer_stop(t->timer);
	t->ops->on_exit(t->arg, t->status);
}

/* ---- what it prints ---- */

/* Takes one line off; false: there is no whole one. A last line at the end of the output needs no newline. */
static bool next_line(struct output *o, bool end, char line[TOOL_LINE_MAX + 1])
{
	struct buf *in = &o->rest;
	for (;;) {
		size_t have = buf_len(in);
		const char *nl = have ? memchr(buf_head(in), '\n', have) : NULL;
		size_t n = nl ? (size_t)(nl - buf_head(in)) : have;
		if (!have || (!nl && !end && n <= TOOL_LINE_MAX && !o->skip))
			return false;
		bool skip = o->skip;
		size_t cut = MIN(n, (size_t)TOOL_LINE_MAX);
		memcpy(line, buf_head(in), cut);
		line[cut] = '\0';
		o->skip = !nl && !end;
		buf_consume(in, nl ? n + 1 : n);
		if (skip)
			continue;
		while (cut && line[cut - 1] == '\r')
			line[--cut] = '\0';
		text_clean(line);
		return true;
	}
}

static void tell(struct output *o, bool end)
{
	struct tool *t = o->tool;
	char line[TOOL_LINE_MAX + 1];
	if (t->ops->on_bytes) {
		if (buf_len(&o->rest))
			t->ops->on_bytes(t->arg, o->err, buf_head(&o->rest), buf_len(&o->rest));
		buf_clear(&o->rest);
		return;
	}
	while (!t->dead && next_line(o, end, line))
		t->ops->on_line(t->arg, o->err, line);
}

static void on_out(void *arg, struct buf *in)
{
	struct output *o = arg;
	struct tool *t = o->tool;
	buf_add(&o->rest, buf_head(in), buf_len(in));
	buf_clear(in);
	t->busy++;
	tell(o, false);
	leave(t);
}

static void on_out_end(void *arg, const struct err *err _unused_)
{
	struct output *o = arg;
	struct tool *t = o->tool;
	stream_destroy(TAKE_PTR(o->stream));
	t->busy++;
	tell(o, true);
	finish(t);
	leave(t);
}

static const struct stream_ops out_ops = {.on_data = on_out, .on_close = on_out_end};

/* ---- its input ---- */

static void on_in(void *arg _unused_, struct buf *in)
{
	buf_clear(in); /* a pipe's writing end has nothing to read */
}

static void on_in_end(void *arg, const struct err *err _unused_)
{
	struct tool *t = arg;
	stream_destroy(TAKE_PTR(t->in)); /* it reads no more: its exit tells why */
}

static void on_in_drain(void *arg)
{
	struct tool *t = arg;
	t->busy++;
	if (t->ops->on_drain)
		t->ops->on_drain(t->arg);
	leave(t);
}

static const struct stream_ops in_ops = {.on_data = on_in, .on_close = on_in_end, .on_drain = on_in_drain};

void tool_write(struct tool *t, const void *data, size_t len)
{
	if (t->in)
		stream_write(t->in, data, len);
}

bool tool_input_empty(const struct tool *t)
{
	return t->in && !stream_queued(t->in);
}

int tool_input_fd(const struct tool *t)
{
	return t->in ? stream_fd(t->in) : -1;
}

void tool_end_input(struct tool *t)
{
	stream_destroy(TAKE_PTR(t->in));
}

/* ---- its life ---- */

static void on_exit_of(void *arg, int status)
{
	struct tool *t = arg;
	t->exited = true;
	t->status = status;
	if (t->dead) {
		release(t);
		return;
	}
	evtimer_start(t->timer, LAST_WORDS_MS, 0);
	t->busy++;
	finish(t);
	leave(t);
}

static void on_timer(void *arg)
{
	struct tool *t = arg;
	if (t->dead) { /* SIGTERM did not end it */
		child_kill(t->child, SIGKILL);
		return;
	}
	t->busy++;
	for (int i = 0; i < 2 && !t->dead; i++) {
		stream_destroy(TAKE_PTR(t->out[i].stream));
		tell(&t->out[i], true);
	}
	finish(t);
	leave(t);
}

static int open_pipe(int fd[2], bool input, struct err *err)
{
	if (pipe2(fd, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	if (input) { /* [0] is always ours */
		int child = fd[0];
		fd[0] = fd[1];
		fd[1] = child;
	}
	return 0;
}

static int start(struct tool *t, const struct tool_spec *spec, struct err *err)
{
	int p[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, rc = 0;
	for (int i = 0; i < 3 && rc == 0; i++)
		if (i || spec->input)
			rc = open_pipe(p[i], i == 0, err);
	struct child_spec c = {.argv = spec->argv,
			       .env = spec->env,
			       .fds = {p[0][1], p[1][1], p[2][1]},
			       .n_fds = 3,
			       .die_with_parent = spec->die_with_parent};
	if (rc == 0)
		t->child = child_start(t->loop, &c, on_exit_of, t, err);
	for (int i = 0; i < 3; i++)
		cleanup_close(&p[i][1]);
	if (t->child && spec->input)
		t->in = stream_create(t->loop, TAKE_FD(p[0][0]), &in_ops, t, err);
	for (int i = 0; t->child && i < 2; i++)
		t->out[i].stream = stream_create(t->loop, TAKE_FD(p[i + 1][0]), &out_ops,
						 &t->out[i], err);
	for (int i = 0; i < 3; i++)
		cleanup_close(&p[i][0]);
	return t->child && (t->in || !spec->input) && t->out[0].stream && t->out[1].stream ? 0 : -1;
}

struct tool *tool_start(struct loop *loop, const struct tool_spec *spec, const struct tool_ops *ops,
			void *arg, struct err *err)
{
	struct tool *t = xcalloc(1, sizeof(*t));
	*t = (struct tool){.loop = loop, .ops = ops, .arg = arg};
	t->out[0].tool = t->out[1].tool = t;
	t->out[1].err = true;
	t->timer = evtimer_create(loop, on_timer, t);
	if (start(t, spec, err) == 0)
		return t;
	tool_destroy(t);
	return NULL;
}

void tool_destroy(struct tool *t)
{
	if (!t)
		return;
	close_streams(t);
	t->dead = true;
	if (t->child && !t->exited) {
		child_kill(t->child, SIGTERM);
		evtimer_start(t->timer, TERM_MS, 0);
	}
	release(t);
}

void tool_set_ops(struct tool *t, const struct tool_ops *ops, void *arg)
{
	t->ops = ops;
	t->arg = arg;
}

static void drop_bytes(void *arg _unused_, bool err _unused_, const char *data _unused_,
		       size_t len _unused_)
{
}

static void drop_tool(void *arg, int status _unused_)
{
	tool_destroy(arg);
}

void tool_release(struct tool *t)
{
	static const struct tool_ops ops = {.on_bytes = drop_bytes, .on_exit = drop_tool};
	tool_set_ops(t, &ops, t);
	tool_end_input(t);
}
