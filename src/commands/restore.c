/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/start.h"

static int run(const struct command *cmd, struct args *a)
{
	struct started s;
	int code = start_restored(cmd, a, a->operands[0], &s);
	return code ? code : start_leave(cmd, a, &s);
}

static const struct option_spec options[] = {
	{"name", 0, "NAME", "name of the cluster (default: the one it had)", NULL},
	{"timeout", 0, "TIME", "a VM that is not ready after this has failed (default 2m)", NULL},
	{"parallel", 0, "N", "VMs that are restored at once (default: CPUs of the node)", NULL},
	WHERE_OPTIONS,
	{"keep-failed", 0, NULL, "leave a cluster that did not come up, for a look at its logs", NULL},
	{"quiet", 'q', NULL, "no progress", NULL},
	{0},
};

const struct command command_restore = {
	.name = "restore",
	.summary = "start a saved virtual cluster where it was",
	.usage = "DIR",
	.details = "DIR is what 'vse save' wrote. It stays, and can be restored again.",
	.options = options,
	.min_args = 1,
	.max_args = 1,
	.complete = "file",
	.run = run,
};
