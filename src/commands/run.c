/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/common.h"
#include "commands/session.h"
#include "commands/start.h"

static int check(const struct command *cmd, const struct args *a, uint32_t size)
{
	return session_check(cmd, a, common_ranks(a, "all"), size);
}

static int run(const struct command *cmd, struct args *a)
{
	struct started s;
	int code = start_cluster(cmd, a, a->operands[0], check, &s);
	if (code)
		return code < 0 ? EXIT_OK : code;
	code = session_run(cmd, a, s.cluster, common_ranks(a, "all"), a->operands + 1);
	vse_down(s.cluster, 0, NULL);
	started_finish(&s);
	return code;
}

static const struct option_spec options[] = {OPTION_RANK, SESSION_OPTIONS, START_OPTIONS, {0}};

const struct command command_run = {
	.name = "run",
	.summary = "start a virtual cluster, run a command in its VMs, end it",
	.usage = "FILE [--] COMMAND [ARG...]",
	.details = "The command runs in every VM, or in those of --rank; its exit code is this "
		   "one's.\n"
		   "Equal lines of several VMs are folded: vm[0-15]: text.",
	.options = options,
	.min_args = 2,
	.max_args = -1,
	.stop_at_operand = true,
	.complete = "file",
	.run = run,
};
