/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/common.h"
#include "commands/session.h"

static int run(const struct command *cmd, struct args *a)
{
	struct loop *loop;
	struct client *c;
	struct err err = ERR_INIT;
	json_t *status;
	if (common_connect(arg_value(a, "cluster"), &loop, &c, &err) < 0)
		return command_fail(cmd, &err);
	int code = EXIT_FAILED;
	if (client_ask(c, json_pack("{s:s}", "verb", "size"), 10000, &status, &err) < 0) {
		command_fail(cmd, &err);
	} else {
		uint32_t size = (uint32_t)json_integer_value(json_object_get(status, "size"));
		json_decref(status);
		code = session_run(cmd, a, c, common_ranks(a, "all"), size, a->operands);
	}
	common_disconnect(loop, c);
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
