/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/size.h"
#include "commands/common.h"

static void print(const json_t *moved)
{
	size_t i;
	json_t *m;
	json_array_foreach (moved, i, m) {
		char bytes[24];
		json_int_t all = json_integer_value(json_object_get(m, "bytes")) +
				 json_integer_value(json_object_get(m, "disk"));
		size_format((uint64_t)all, bytes);
		json_int_t stood = json_integer_value(json_object_get(m, "downtime_ms"));
		json_int_t late = json_integer_value(json_object_get(m, "late_ms"));
		printf("vm%lld: moved from %s to %s in %.2f s (%s)",
		       (long long)json_integer_value(json_object_get(m, "rank")),
		       json_string_value(json_object_get(m, "from")),
		       json_string_value(json_object_get(m, "to")),
		       (double)json_integer_value(json_object_get(m, "total_ms")) / 1000, bytes);
		if (stood)
			printf(", stood still for %.2f s", (double)stood / 1000);
		if (late)
			printf(", its memory was whole %.2f s later", (double)late / 1000);
		putchar('\n');
	}
}

static int timeout(const struct command *cmd, const struct args *a, unsigned *ret)
{
	struct err err = ERR_INIT;
	const char *text = arg_value(a, "timeout");
	uint64_t ms = 0;
	if (text && (duration_parse(text, &ms, &err) < 0 || ms < 1 || ms > INT32_MAX))
		return command_usage(cmd, "--timeout: %s", err.code ? err.text : "out of range");
	*ret = (unsigned)ms;
	return EXIT_OK;
}

static int run(const struct command *cmd, struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_cluster *c;
	char *text = NULL;
	unsigned ms = 0;
	int code = timeout(cmd, a, &ms);
	if (code)
		return code;
	if (!arg_value(a, "to") && !arg_flag(a, "cancel"))
		return command_usage(cmd, "--to NODE: to which node?");
	if (arg_value(a, "to") && arg_flag(a, "cancel"))
		return command_usage(cmd, "--cancel and --to: one of them");
	if (arg_flag(a, "post-copy") && arg_flag(a, "cancel"))
		return command_usage(cmd, "--cancel and --post-copy: one of them");
	if (common_connect(arg_value(a, "cluster"), &c, &e))
		return common_fail(cmd, &e);
	int rc = (arg_flag(a, "post-copy") ? vse_migrate_post_copy
					   : vse_migrate)(c, common_vm_text(a->operands[0]),
							  arg_value(a, "to"), ms, &text, &e);
	common_disconnect(c);
	if (rc)
		return common_fail(cmd, &e);
	json_t *moved = json_loads(text ? text : "[]", 0, NULL);
	if (arg_flag(a, "json"))
		common_print_json(moved);
	else if (!arg_flag(a, "quiet"))
		print(moved);
	json_decref(moved);
	vse_free(text);
	return EXIT_OK;
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	{"to", 0, "NODE", "the node of the cluster that takes them", NULL},
	{"cancel", 0, NULL, "call off what another 'vse migrate' moves; it fails then", NULL},
	{"post-copy", 0, NULL,
	 "go on there before all memory has come; lost where the link or a node fails by then", NULL},
	{"timeout", 0, "TIME", "a VM that was not moved by then stays (default 10m)", NULL},
	OPTION_JSON,
	{"quiet", 'q', NULL, "do not print how long it took", NULL},
	{0},
};

const struct command command_migrate = {
	.name = "migrate",
	.summary = "move VMs to another node, as they run",
	.usage = "RANKS (--to NODE | --cancel)",
	.details = "RANKS: 3, or 0-3,7, or all. One VM moves after the other.",
	.options = options,
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
