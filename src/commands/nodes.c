/* SPDX-License-Identifier: Apache-2.0 */
/* vse nodes: the nodes of a cluster. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
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

static int run(const struct command *cmd, struct args *a)
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

static const struct option_spec options[] = {OPTION_CLUSTER, OPTION_JSON, {0}};

const struct command command_nodes = {
	.name = "nodes",
	.summary = "list the nodes of a cluster: state, VMs, what they offer",
	.options = options,
	.run = run,
};
