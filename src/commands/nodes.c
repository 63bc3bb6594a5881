/* SPDX-License-Identifier: Apache-2.0 */
/* vse nodes: the nodes of a cluster, more of them, fewer. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/size.h"
#include "client/options.h"
#include "commands/common.h"

#define ASK_MS 10000

static const char *text(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

static json_int_t vms_of(const json_t *status, const char *node)
{
	json_int_t n = 0;
	size_t i;
	json_t *vm;
	json_array_foreach (json_object_get(status, "vms"), i, vm)
		n += strcmp(text(vm, "node"), node) == 0;
	return n;
}

/* A cluster that runs on this node alone has no list of its own. */
static json_t *this_node(const json_t *status)
{
	char host[256] = "";
	gethostname(host, sizeof(host) - 1);
	json_t *list = json_array();
	json_array_append_new(list,
			      json_pack("{s:i, s:s, s:s, s:s, s:i}", "index", 0, "name", host,
					"state", "up", "reason", "", "vms",
					(int)json_array_size(json_object_get(status, "vms"))));
	return list;
}

static json_t *node_list(const json_t *status)
{
	json_t *list = json_object_get(status, "nodes"), *node;
	size_t i;
	if (!list)
		return this_node(status);
	json_array_foreach (list, i, node)
		json_object_set_new(node, "vms", json_integer(vms_of(status, text(node, "name"))));
	return json_incref(list);
}

static void print(const json_t *nodes)
{
	size_t i;
	json_t *n;
	printf("%-16s %-9s %4s %6s %10s  %s\n", "NODE", "STATE", "VMS", "CPUS", "MEMORY", "REASON");
	json_array_foreach (nodes, i, n) {
		char memory[24] = "-", cpus[24] = "-";
		json_int_t m = json_integer_value(json_object_get(n, "memory")),
			   c = json_integer_value(json_object_get(n, "cpus"));
		if (m)
			size_format((uint64_t)m, memory);
		if (c)
			snprintf(cpus, sizeof(cpus), "%lld", (long long)c);
		printf("%-16s %-9s %4lld %6s %10s  %s\n", text(n, "name"), text(n, "state"),
		       (long long)json_integer_value(json_object_get(n, "vms")), cpus, memory,
		       text(n, "reason"));
	}
}

static void print_job(const json_t *status)
{
	const json_t *left = json_object_get(status, "time_left_s");
	char time[24];
	if (!text(status, "job")[0])
		return;
	printf("%s job %s", text(status, "launcher"), text(status, "job"));
	if (left) {
		duration_format((uint64_t)json_integer_value(left) * 1000, time);
		printf(", %s left", time);
	}
	putchar('\n');
}

static int list(const struct command *cmd, struct args *a)
{
	json_t *status;
	int code = common_ask(cmd, a, json_pack("{s:s}", "verb", "status"), ASK_MS, &status);
	if (code)
		return code;
	json_t *nodes = node_list(status);
	if (arg_flag(a, "json")) {
		json_t *j = json_pack("{s:s, s:s, s:s, s:O*, s:O}", "cluster", text(status, "name"),
				      "launcher", text(status, "launcher"), "job",
				      text(status, "job"), "time_left_s",
				      json_object_get(status, "time_left_s"), "nodes", nodes);
		common_print_json(j);
		json_decref(j);
	} else {
		print(nodes);
		print_job(status);
	}
	json_decref(nodes);
	json_decref(status);
	return EXIT_OK;
}

static int add(const struct command *cmd, struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_options *o;
	struct vse_cluster *c;
	if (a->n_operands > 1)
		return command_usage(cmd,
				     "add takes its nodes from --hosts, --hostfile or --nodes");
	int code = common_options(cmd, a, FOR_NODES, &o);
	if (code)
		return code;
	int rc = common_connect(arg_value(a, "cluster"), &c, &e);
	if (rc == 0) {
		rc = vse_nodes_add(c, o, &e);
		common_disconnect(c);
	}
	vse_options_free(o);
	return rc ? common_fail(cmd, &e) : EXIT_OK;
}

static int leave(const struct command *cmd, struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	_cleanup_buf_ struct buf nodes = BUF_INIT;
	struct vse_cluster *c;
	bool stop = arg_flag(a, "stop"), recover = arg_flag(a, "recover");
	if (a->n_operands < 2)
		return command_usage(cmd, "remove: which nodes?");
	if (stop && recover)
		return command_usage(cmd, "--stop and --recover exclude each other");
	for (int i = 1; i < a->n_operands; i++)
		buf_addf(&nodes, "%s%s", i > 1 ? "," : "", a->operands[i]);
	if (common_connect(arg_value(a, "cluster"), &c, &e))
		return common_fail(cmd, &e);
	int rc = vse_nodes_remove(c, buf_cstr(&nodes),
				  stop      ? "stop"
				  : recover ? "recover"
					    : "refuse",
				  &e);
	common_disconnect(c);
	return rc ? common_fail(cmd, &e) : EXIT_OK;
}

static int run(const struct command *cmd, struct args *a)
{
	static const struct {
		const char *name;
		int (*run)(const struct command *cmd, struct args *a);
	} actions[] = {{"list", list}, {"add", add}, {"remove", leave}};
	const char *action = a->n_operands ? a->operands[0] : "list";
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (strcmp(action, actions[i].name) == 0)
			return actions[i].run(cmd, a);
	return command_usage(cmd, "unknown action '%s': add or remove", action);
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	OPTION_JSON,
	{"hosts", 'H', "LIST", "add: these, as n[1-8],login2", NULL},
	{"hostfile", 0, "FILE", "add: those of this file, one a line", "file"},
	{"nodes", 'N', "N", "add: so many of the resource manager's", NULL},
	{"launcher", 0, "NAME", "add: who has them (default: as the cluster)", NULL},
	{"launcher-arg", 0, "WORD", "add: one more word for the resource manager; repeatable", NULL},
	{"missing", 0, "WHAT", "add: when a node does not come up: abort (default) or go-on",
	 "abort|go-on"},
	{"node-timeout", 0, "TIME", "add: so long for the agents to come up (default 60s)", NULL},
	{"wait", 0, "TIME", "add: so long for the resource manager to give nodes (default 1h)", NULL},
	{"recover", 0, NULL, "remove: VMs there begin anew on other nodes", NULL},
	{"stop", 0, NULL, "remove: VMs there are ended", NULL},
	{0},
};

const struct command command_nodes = {
	.name = "nodes",
	.summary = "list the nodes of a cluster; add or remove some",
	.usage = "[add | remove NODE...]",
	.details = "Without an action: state, VMs and what each node offers.\n"
		   "A node with VMs is removed only with --recover or --stop.",
	.options = options,
	.max_args = -1,
	.complete = "add|remove",
	.run = run,
};
