/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/strvec.h"
#include "commands/common.h"

static int down(const struct command *cmd, const struct args *a, const char *name)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_cluster *c;
	if (common_connect(name, &c, &e))
		return common_fail(cmd, &e);
	int rc = vse_down(c, arg_flag(a, "graceful"), &e);
	common_disconnect(c);
	return rc ? common_fail(cmd, &e) : EXIT_OK;
}

static int down_all(const struct command *cmd, const struct args *a)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	int code = EXIT_OK;
	if (common_names(&names, &e))
		return common_fail(cmd, &e);
	for (size_t i = 0; i < names.n; i++)
		if (down(cmd, a, names.v[i]) != EXIT_OK)
			code = EXIT_FAILED;
	return code;
}

static int run(const struct command *cmd, struct args *a)
{
	if (arg_flag(a, "all"))
		return a->n_operands ? command_usage(cmd, "--all and a name exclude each other")
				     : down_all(cmd, a);
	return down(cmd, a, a->n_operands ? a->operands[0] : arg_value(a, "cluster"));
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	{"graceful", 'g', NULL, "shut every guest down first (bounded)", NULL},
	{"all", 'a', NULL, "every cluster of yours on this node", NULL},
	{0},
};

const struct command command_down = {
	.name = "down",
	.summary = "end a virtual cluster; nothing of it stays",
	.usage = "[NAME]",
	.options = options,
	.max_args = 1,
	.complete = "cluster",
	.run = run,
};
