/* SPDX-License-Identifier: Apache-2.0 */
/* A program of the site that a launcher runs: srun, ssh, flux. Its input is written to as it takes it, what it prints
 * comes by line, its end comes after its last line. */
#ifndef VSE_LAUNCHER_TOOL_H
#define VSE_LAUNCHER_TOOL_H

#include "base/strvec.h"
#include "io/loop.h"

#define TOOL_LINE_MAX 1024 /* bytes; a longer line is cut there */

struct tool;

/* From the loop; each may destroy the tool. */
struct tool_ops {
	/* One of the two. Without its newline, made printable (base/text.h); `err`: from standard error. */
	void (*on_line)(void *arg, bool err, char *line);
	void (*on_bytes)(void *arg, bool err, const char *data, size_t len);
	void (*on_drain)(void *arg); /* all input was taken; may be NULL */
	/* As of waitpid(2). Last call. */
	void (*on_exit)(void *arg, int status);
};

struct tool_spec {
	char *const *argv;
	char *const *env;     /* NULL: ours */
	bool input;           /* has one; else it reads /dev/null */
	bool die_with_parent; /* SIGKILL when we die: where the end of its input would not end it */
};

struct tool *tool_start(struct loop *loop, const struct tool_spec *spec, const struct tool_ops *ops,
			void *arg, struct err *err);
void tool_set_ops(struct tool *t, const struct tool_ops *ops, void *arg);
void tool_write(struct tool *t, const void *data,
		size_t len); /* queued (copied); dropped once it has closed its input */
bool tool_input_empty(const struct tool *t); /* it has an input, and has taken all */
void tool_end_input(struct tool *t);
int tool_input_fd(const struct tool *t); /* what ends it when all who have it open have closed it; -1: closed */
/* Ends it: its input closes and it gets SIGTERM, after 5 s SIGKILL. It is reaped in the background, without any
 * further call. NULL is fine. */
void tool_destroy(struct tool *t);

/* Lets it end by itself: its input closes, its output is read and dropped until then, nothing further is told. */
void tool_release(struct tool *t);

/* A program that is asked something: what it printed, at most `max` bytes, when it ended. */
struct query;
/* status as of waitpid(2); out and err are NUL-terminated, borrowed. why->code is not 0 when it did not end within its
 * time (ETIMEDOUT) or said too much (EFBIG). Destroys itself after the call. */
typedef void query_fn(void *arg, const struct err *why, int status, const char *out, const char *errors);
struct query *query_start(struct loop *loop, char *const *argv, uint64_t timeout_ms, size_t max,
			  query_fn *on_answer, void *arg, struct err *err);
void query_destroy(struct query *q); /* before its answer; NULL is fine */
/* The same, and waits: for the short questions of launcher_probe(). An exit code other than 0 is an error with what it
 * said. *ret_out is malloc'ed. */
int query_now(char *const *argv, uint64_t timeout_ms, size_t max, char **ret_out, struct err *err);

/* "text" without white space at its end, its last line only, in place. */
char *last_line(char *text);

#endif
