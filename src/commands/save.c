/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "commands/common.h"

/* "NAME-20261122-213000", in the current folder. */
static char *default_dir(const char *name)
{
	char when[24];
	time_t now = time(NULL);
	struct tm tm;
	localtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y%m%d-%H%M%S", &tm);
	return xasprintf("%s-%s", name, when);
}

static int run(const struct command *cmd, struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_cluster *c;
	if (common_connect(a->n_operands ? a->operands[0] : arg_value(a, "cluster"), &c, &e))
		return common_fail(cmd, &e);
	const char *to = arg_value(a, "to");
	_cleanup_free_ char *dir = to ? xstrdup(to) : default_dir(vse_name(c));
	int rc = vse_save(c, dir, &e);
	if (!rc && arg_flag(a, "down"))
		rc = vse_down(c, 0, &e);
	common_disconnect(c);
	if (rc)
		return common_fail(cmd, &e);
	if (!arg_flag(a, "quiet"))
		printf("%s\n", dir);
	return EXIT_OK;
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	{"to", 0, "DIR", "a new folder, that all nodes share (default: NAME-TIME here)", "file"},
	{"down", 0, NULL, "end the cluster when it is saved", NULL},
	{"quiet", 'q', NULL, "do not print the folder", NULL},
	{0},
};

const struct command command_save = {
	.name = "save",
	.summary = "write a virtual cluster to a folder, as it is",
	.usage = "[NAME]",
	.details = "All VMs are held while memory and scratch disks are written, and then go on.",
	.options = options,
	.max_args = 1,
	.complete = "cluster",
	.run = run,
};
