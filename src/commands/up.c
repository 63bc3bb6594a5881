/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/size.h"
#include "commands/common.h"
#include "commands/start.h"

static int run(const struct command *cmd, struct args *a)
{
	struct started s;
	struct err err = ERR_INIT;
	char took[24];
	int code = start_cluster(cmd, a, a->operands[0], NULL, &s);
	if (code)
		return code < 0 ? EXIT_OK : code;
	if (client_ask(s.client, json_pack("{s:s}", "verb", "keep"), 10000, NULL, &err) < 0) {
		started_finish(&s);
		return command_fail(cmd, &err);
	}
	duration_format(s.ready_ms, took);
	if (!arg_flag(a, "quiet"))
		printf("%s: %u VM%s ready in %s\n", s.name, s.size, s.size == 1 ? "" : "s", took);
	started_finish(&s);
	return EXIT_OK;
}

static const struct option_spec options[] = {START_OPTIONS, {0}};

const struct command command_up = {
	.name = "up",
	.summary = "start a virtual cluster and leave it running",
	.usage = "FILE",
	.details = "FILE is a VSE file. Its image is built first, unless it is in the store.",
	.options = options,
	.min_args = 1,
	.max_args = 1,
	.complete = "file",
	.run = run,
};
