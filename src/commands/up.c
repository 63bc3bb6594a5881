/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/start.h"

static int run(const struct command *cmd, struct args *a)
{
	struct started s;
	int code = start_cluster(cmd, a, a->operands[0], NULL, &s);
	if (code)
		return code < 0 ? EXIT_OK : code;
	return start_leave(cmd, a, &s);
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
