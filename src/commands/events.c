/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>

#include "base/alloc.h"
#include "base/text.h"
#include "base/time.h"
#include "commands/common.h"

struct follow {
	bool json, over;
	int signo; /* that interrupted it */
	struct err err;
};

static void on_event(void *arg, const json_t *e)
{
	struct follow *f = arg;
	if (f->json) {
		_cleanup_free_ char *line = json_dumps(e, JSON_COMPACT);
		puts(line ? line : "{}");
	} else {
		char when[24], who[16] = "cluster";
		const json_t *rank = json_object_get(e, "rank");
		_cleanup_free_ char *text = text_cleaned(
			json_string_value(json_object_get(e, "text")));
		time_format((uint64_t)json_integer_value(json_object_get(e, "time_ns")) / 1000000000u,
			    when);
		if (json_is_integer(rank))
			snprintf(who, sizeof(who), "vm%lld", (long long)json_integer_value(rank));
		printf("%s %-8s %s\n", when, who, text);
	}
	fflush(stdout);
	if (ferror(stdout))
		f->over = true;
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct follow *f = arg;
	f->over = true;
	/* The cluster's end is the regular end of following it. */
	if (!reply && err->code != ESHUTDOWN)
		f->err = *err;
}

static const struct client_ops ops = {.on_event = on_event, .on_end = on_end};

static void on_interrupt(void *arg, int signo)
{
	struct follow *f = arg;
	f->over = true;
	f->signo = signo;
}

static int run(const struct command *cmd, struct args *a)
{
	struct follow f = {.json = arg_flag(a, "json")};
	struct loop *loop;
	struct client *c;
	const char *named = a->n_operands ? a->operands[0] : arg_value(a, "cluster");
	if (common_connect(named, &loop, &c, &f.err) < 0)
		return command_fail(cmd, &f.err);
	struct interrupts *in = interrupts_create(loop, on_interrupt, &f);
	uint32_t id = client_call(
		c, json_pack("{s:s, s:b}", "verb", "events", "follow", arg_flag(a, "follow")), &ops, &f);
	while (!f.over)
		loop_run_once(loop);
	client_forget(c, id);
	interrupts_destroy(in);
	common_disconnect(loop, c);
	if (f.signo)
		return 128 + f.signo;
	return f.err.code ? command_fail(cmd, &f.err) : EXIT_OK;
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	{"follow", 'f', NULL, "go on with what happens from now on", NULL},
	OPTION_JSON,
	{0},
};

const struct command command_events = {
	.name = "events",
	.summary = "what happened in a cluster",
	.usage = "[NAME]",
	.details = "With --json one object a line.",
	.options = options,
	.max_args = 1,
	.complete = "cluster",
	.run = run,
};
