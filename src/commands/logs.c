/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/path.h"
#include "base/size.h"
#include "commands/common.h"

#define TAIL_ALL (2 << 20) /* bytes: the whole log is bounded to this (vm/console.h) */

struct follow {
	bool over;
	int signo; /* that interrupted it */
	struct err err;
};

static void on_data(void *arg, uint32_t rank _unused_, int fd _unused_, const char *p, size_t n,
		    bool eof _unused_)
{
	struct follow *f = arg;
	if (fd_write_all(STDOUT_FILENO, p, n) < 0) {
		f->over = true;
		if (errno != EPIPE)
			err_errno(&f->err, errno, "write output");
	}
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct follow *f = arg;
	f->over = true;
	if (!reply && err->code != ESHUTDOWN)
		f->err = *err;
}

static const struct client_ops ops = {.on_data = on_data, .on_end = on_end};

static void on_interrupt(void *arg, int signo)
{
	struct follow *f = arg;
	f->over = true;
	f->signo = signo;
}

static int run(const struct command *cmd, struct args *a)
{
	struct follow f = {0};
	struct loop *loop;
	struct client *c;
	int64_t rank;
	if (int_parse(common_vm_text(a->operands[0]), 0, 999999, &rank, &f.err) < 0)
		return command_usage(cmd, "%s: not a VM (such as vm3 or 3)", a->operands[0]);
	if (common_connect(arg_value(a, "cluster"), &loop, &c, &f.err) < 0)
		return command_fail(cmd, &f.err);
	struct interrupts *in = interrupts_create(loop, on_interrupt, &f);
	uint32_t id = client_call(c,
				  json_pack("{s:s, s:I, s:b, s:i}", "verb", "logs", "rank",
					    (json_int_t)rank, "follow", arg_flag(a, "follow"),
					    "tail", TAIL_ALL),
				  &ops, &f);
	while (!f.over)
		loop_run_once(loop);
	client_forget(c, id);
	interrupts_destroy(in);
	common_disconnect(loop, c);
	if (f.signo)
		return 128 + f.signo;
	return f.err.code ? common_refused(cmd, &f.err) : EXIT_OK;
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	{"follow", 'f', NULL, "go on with what is printed from now on", NULL},
	{0},
};

const struct command command_logs = {
	.name = "logs",
	.summary = "print what a VM wrote to its console",
	.usage = "VM",
	.details =
		"The log is bounded: of a VM that prints without end the newest 1-2 MiB are kept.",
	.options = options,
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
