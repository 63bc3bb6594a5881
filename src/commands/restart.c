/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/change.h"

static int run(const struct command *cmd, struct args *a)
{
	return change_run(cmd, a);
}

static const struct option_spec options[] = {OPTION_CLUSTER, {0}};

const struct command command_restart = {
	.name = "restart",
	.summary = "end VMs at once and start them anew",
	.usage = CHANGE_USAGE,
	.details = CHANGE_DETAILS
	"\nA restarted VM boots afresh: what it had in memory and on scratch is gone.",
	.options = options,
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
