/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/rundir.h"
#include "base/size.h"
#include "base/strvec.h"
#include "commands/common.h"

#define ENDED_TRIES 25 /* every 20 ms: an agent closes its connections just before it ends */

static int ask(const char *name, json_t *into, struct vse_error *e)
{
	_cleanup_free_ char *text = NULL;
	struct vse_cluster *c;
	int rc = common_connect(name, &c, e);
	if (rc)
		return rc;
	rc = vse_status(c, &text, e);
	common_disconnect(c);
	if (rc == 0)
		json_array_append_new(into, json_loads(text, 0, NULL));
	return rc;
}

/* A cluster that was listed and has ended before it could answer is none, not a failure; nor is an agent that
 * has yet to be given its cluster (ENOENT). */
static bool is_none(const char *name, const struct vse_error *e)
{
	_cleanup_free_ char *base = NULL;
	if (vse_error_code(e) == ENOENT || rundir_base(&base, NULL) < 0)
		return vse_error_code(e) == ENOENT;
	for (int i = 0; i < ENDED_TRIES; i++) {
		if (!rundir_alive(base, name))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
	return false;
}

static const char *text(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "-";
}

static json_int_t number(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

/* "qemu/kvm": what it runs under, and how. */
static void under(const json_t *vm, char *out, size_t size)
{
	const char *accel = json_string_value(json_object_get(vm, "accel")),
		   *name = text(vm, "hypervisor");
	bool more = accel && accel[0] && strcmp(name, "qemu") == 0;
	snprintf(out, size, "%s%s%s", name, more ? "/" : "", more ? accel : "");
}

static void print_vms(const json_t *cluster, bool all)
{
	size_t i;
	json_t *vm;
	json_array_foreach (json_object_get(cluster, "vms"), i, vm) {
		char up[24] = "-", used[24] = "-", hypervisor[48];
		if (number(vm, "uptime_ms"))
			duration_format((uint64_t)number(vm, "uptime_ms"), up);
		if (number(vm, "memory_used"))
			size_format((uint64_t)number(vm, "memory_used"), used);
		if (all)
			printf("%-16s ", text(cluster, "name"));
		under(vm, hypervisor, sizeof(hypervisor));
		printf("%-8s %-9s %-16s %-10s %-15s %8s %9s  %s\n", text(vm, "name"),
		       text(vm, "state"), text(vm, "node"), hypervisor, text(vm, "address"), up,
		       used, text(vm, "reason"));
	}
}

static void print(const json_t *clusters, bool several)
{
	size_t i;
	json_t *c;
	if (several)
		printf("%-16s ", "CLUSTER");
	printf("%-8s %-9s %-16s %-10s %-15s %8s %9s  %s\n", "VM", "STATE", "NODE", "HYPERVISOR",
	       "ADDRESS", "UPTIME", "MEMORY", "REASON");
	json_array_foreach (clusters, i, c)
		print_vms(c, several);
}

static int run(const struct command *cmd, struct args *a)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	const char *named = a->n_operands ? a->operands[0] : arg_value(a, "cluster");
	int code = EXIT_OK;
	if (named)
		strvec_add(&names, named);
	else if (common_names(&names, &e))
		return common_fail(cmd, &e);
	json_t *clusters = json_array();
	for (size_t i = 0; i < names.n; i++)
		if (ask(names.v[i], clusters, &e) && (named || !is_none(names.v[i], &e)))
			code = common_fail(cmd, &e);
	if (named && !json_array_size(clusters)) {
		json_decref(clusters);
		return code;
	}
	if (arg_flag(a, "json")) {
		json_t *j = json_pack("{s:O}", "clusters", clusters);
		common_print_json(j);
		json_decref(j);
	} else {
		print(clusters, names.n > 1);
	}
	json_decref(clusters);
	return code;
}

static const struct option_spec options[] = {OPTION_CLUSTER, OPTION_JSON, {0}};

const struct command command_ps = {
	.name = "ps",
	.summary = "list VMs: state, node, address, uptime, memory",
	.usage = "[NAME]",
	.details = "Without NAME: every cluster of yours on this node.",
	.options = options,
	.max_args = 1,
	.complete = "cluster",
	.run = run,
};
