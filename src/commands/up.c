/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/size.h"
#include "commands/common.h"
#include "commands/start.h"

static int run(const struct command *cmd, struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct started s;
	char took[24];
	int code = start_cluster(cmd, a, a->operands[0], NULL, &s);
	if (code)
		return code < 0 ? EXIT_OK : code;
	int n = vse_size(s.cluster, NULL); /* known: asks nobody */
	if (vse_detach(s.cluster, &e)) {
		started_finish(&s);
		return common_fail(cmd, &e);
	}
	duration_format(s.cluster->ready_ms, took);
	if (!arg_flag(a, "quiet"))
		printf("%s: %d VM%s ready in %s\n", vse_name(s.cluster), n, n == 1 ? "" : "s", took);
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
