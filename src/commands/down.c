/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/alloc.h"
#include "base/rundir.h"
#include "base/strvec.h"
#include "commands/common.h"

#define DOWN_MS 10000
#define GRACEFUL_MS 60000

static int down(const struct command *cmd, const struct args *a, const char *name)
{
	struct loop *loop;
	struct client *c;
	struct err err = ERR_INIT;
	bool graceful = arg_flag(a, "graceful");
	if (common_connect(name, &loop, &c, &err) < 0)
		return command_fail(cmd, &err);
	int rc = client_ask(c, json_pack("{s:s, s:b}", "verb", "down", "graceful", graceful),
			    graceful ? GRACEFUL_MS : DOWN_MS, NULL, &err);
	common_disconnect(loop, c);
	return rc < 0 ? command_fail(cmd, &err) : EXIT_OK;
}

static int down_all(const struct command *cmd, const struct args *a)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	struct err err = ERR_INIT;
	_cleanup_free_ char *base = common_base(cmd);
	int code = EXIT_OK;
	if (!base)
		return EXIT_FAILED;
	if (rundir_list(base, &names, &err) < 0)
		return command_fail(cmd, &err);
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
