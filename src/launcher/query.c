/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/text.h"
#include "io/child.h"
#include "launcher/tool.h"

struct query {
	struct tool *tool;
	struct evtimer *timer;
	char *program;
	struct buf out, errors;
	uint64_t timeout_ms;
	size_t max;
	query_fn *on_answer;
	void *arg;
};

static void answer(struct query *q, const struct err *why, int status)
{
	q->on_answer(q->arg, why, status, buf_cstr(&q->out), buf_cstr(&q->errors));
	query_destroy(q);
}

static void on_bytes(void *arg, bool err, const char *data, size_t len)
{
	struct query *q = arg;
	struct buf *b = err ? &q->errors : &q->out;
	struct err why = ERR_INIT;
	if (buf_len(b) + len > q->max) {
		err_set(&why, EFBIG, "%s said more than %zu bytes", q->program, q->max);
		answer(q, &why, -1);
		return;
	}
	buf_add(b, data, len);
}

static void on_exit_of(void *arg, int status)
{
	answer(arg, &ERR_INIT, status);
}

static void on_timeout(void *arg)
{
	struct query *q = arg;
	struct err why = ERR_INIT;
	err_set(&why, ETIMEDOUT, "%s did not answer within %u s", q->program,
		(unsigned)(q->timeout_ms / 1000));
	answer(q, &why, -1);
}

static const struct tool_ops query_ops = {.on_bytes = on_bytes, .on_exit = on_exit_of};

struct query *query_start(struct loop *loop, char *const *argv, uint64_t timeout_ms, size_t max,
			  query_fn *on_answer, void *arg, struct err *err)
{
	struct query *q = xcalloc(1, sizeof(*q));
	struct tool_spec spec = {.argv = argv, .die_with_parent = true};
	*q = (struct query){.timeout_ms = timeout_ms, .max = max, .on_answer = on_answer, .arg = arg};
	q->tool = tool_start(loop, &spec, &query_ops, q, err);
	if (!q->tool) {
		free(q);
		return NULL;
	}
	q->program = xstrdup(argv[0]);
	q->timer = evtimer_create(loop, on_timeout, q);
	evtimer_start(q->timer, timeout_ms, 0);
	return q;
}

void query_destroy(struct query *q)
{
	if (!q)
		return;
	tool_destroy(q->tool);
	evtimer_destroy(q->timer);
	buf_finish(&q->out);
	buf_finish(&q->errors);
	free(q->program);
	free(q);
}

char *last_line(char *text)
{
	size_t n = strlen(text);
	while (n && strchr(" \t\r\n", text[n - 1]))
		text[--n] = '\0';
	char *nl = strrchr(text, '\n');
	return nl ? nl + 1 : text;
}

/* ---- waiting for it ---- */

struct asked {
	const char *program;
	char *out;
	bool over;
	struct err err;
};

static void on_asked(void *arg, const struct err *why, int status, const char *out, const char *errors)
{
	struct asked *a = arg;
	char text[40];
	a->over = true;
	if (why->code) {
		a->err = *why;
	} else if (status != 0) {
		_cleanup_free_ char *said = text_cleaned(errors[0] ? errors : out);
		err_set(&a->err, EIO, "%s: %s: %.300s", a->program, child_status_text(status, text),
			said);
	} else {
		a->out = xstrdup(out);
	}
}

int query_now(char *const *argv, uint64_t timeout_ms, size_t max, char **ret_out, struct err *err)
{
	struct asked a = {.program = argv[0]};
	struct loop *loop = loop_create();
	if (!query_start(loop, argv, timeout_ms, max, on_asked, &a, &a.err))
		a.over = true;
	while (!a.over && loop_run_once(loop))
		;
	while (!a.err.code && loop_run_once(loop)) /* handles give their memory back */
		;
	loop_destroy(loop);
	if (!a.out)
		return err_copy(err, &a.err);
	*ret_out = a.out;
	return 0;
}
