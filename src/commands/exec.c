/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/common.h"
#include "commands/session.h"

static int run(const struct command *cmd, struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_cluster *c;
	if (common_connect(arg_value(a, "cluster"), &c, &e))
		return common_fail(cmd, &e);
	int size = vse_size(c, &e);
	int code = size < 0 ? common_fail(cmd, &e)
			    : session_run(cmd, a, c, common_ranks(a, "all"), a->operands);
	common_disconnect(c);
	return code;
}

static const struct option_spec options[] = {OPTION_CLUSTER, OPTION_RANK, SESSION_OPTIONS, {0}};

const struct command command_exec = {
	.name = "exec",
	.summary = "run a command in the VMs of a cluster",
	.usage = "[--] COMMAND [ARG...]",
	.details = "The command runs in every VM, or in those of --rank. Exit code: the command's "
		   "own; of several\n"
		   "the greatest. 128 + N: ended by signal N.",
	.options = options,
	.min_args = 1,
	.max_args = -1,
	.stop_at_operand = true,
	.run = run,
};
