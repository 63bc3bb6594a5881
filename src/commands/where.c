/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/where.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "base/size.h"
#include "base/text.h"

#define MS_MAX 86400000 /* 24 h */
#define BEATS 5         /* heartbeats within the time after which a node is lost */

static int number(const struct command *cmd, const struct args *a, const char *name,
		  const char *key, json_t *j)
{
	struct err err = ERR_INIT;
	const char *text = arg_value(a, name);
	int64_t v;
	if (!text)
		return 0;
	if (int_parse(text, 1, 1000000, &v, &err) < 0)
		return command_usage(cmd, "--%s: %s", name, err.text);
	json_object_set_new(j, key, json_integer(v));
	return 0;
}

static int duration(const struct command *cmd, const struct args *a, const char *name,
		    uint64_t least, const char *key, json_t *j)
{
	struct err err = ERR_INIT;
	const char *text = arg_value(a, name);
	uint64_t ms;
	if (!text)
		return 0;
	if (duration_parse(text, &ms, &err) < 0)
		return command_usage(cmd, "--%s: %s", name, err.text);
	if (ms < least || ms > MS_MAX)
		return command_usage(cmd, "--%s %s: from %.1fs to 24h", name, text,
				     (double)least / 1000);
	json_object_set_new(j, key, json_integer((json_int_t)ms));
	return 0;
}

static int text(const struct command *cmd, const struct args *a, const char *name, json_t *j)
{
	const char *v = arg_value(a, name);
	if (v && json_object_set_new(j, name, json_string(v)) < 0)
		return command_usage(cmd, "--%s: not UTF-8 text", name);
	return 0;
}

/* The agent that reads it runs in another folder. */
static int hostfile(const struct command *cmd, const struct args *a, json_t *j)
{
	const char *given = arg_value(a, "hostfile");
	_cleanup_free_ char *path = given ? realpath(given, NULL) : NULL;
	if (!given)
		return 0;
	if (!path)
		return command_usage(cmd, "--hostfile %s: %s", given, strerror(errno));
	if (json_object_set_new(j, "hostfile", json_string(path)) < 0)
		return command_usage(cmd, "--hostfile: not UTF-8 text");
	return 0;
}

static int placement(const struct command *cmd, const struct args *a, json_t *j)
{
	const char *how = arg_value(a, "place"), *missing = arg_value(a, "missing");
	if (how && strcmp(how, "spread") != 0 && strcmp(how, "pack") != 0 && !strchr(how, ':'))
		return command_usage(cmd, "--place %s: spread, pack, or a map as n1:2,n2:1", how);
	if (missing && strcmp(missing, "abort") != 0 && strcmp(missing, "go-on") != 0)
		return command_usage(cmd, "--missing %s: abort or go-on", missing);
	json_object_set_new(j, "go_on", json_boolean(missing && strcmp(missing, "go-on") == 0));
	json_object_set_new(j, "oversubscribe", json_boolean(arg_flag(a, "oversubscribe")));
	json_object_set_new(j, "recover",
			    json_boolean(arg_flag(a, "recover") || arg_value(a, "spare")));
	json_object_set_new(j, "cheap_kex", json_boolean(arg_flag(a, "fast-kex")));
	return 0;
}

static int fill(const struct command *cmd, const struct args *a, json_t *j)
{
	struct err err = ERR_INIT;
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	int code = 0;
	if (arg_value(a, "hosts") && hostlist_expand(arg_value(a, "hosts"), &names, &err) < 0)
		return command_usage(cmd, "--hosts: %s", err.text);
	static const char *const texts[] = {"launcher", "hosts", "start", "place", "tree"};
	for (size_t i = 0; !code && i < ARRAY_SIZE(texts); i++)
		code = text(cmd, a, texts[i], j);
	if (!code)
		code = hostfile(cmd, a, j);
	if (!code)
		code = placement(cmd, a, j);
	if (!code)
		code = number(cmd, a, "nodes", "nodes", j);
	if (!code)
		code = number(cmd, a, "spare", "spare", j);
	if (!code)
		code = number(cmd, a, "fanout", "fanout", j);
	if (!code)
		code = number(cmd, a, "max-per-node", "max_per_node", j);
	if (!code)
		code = duration(cmd, a, "node-timeout", 100, "up_ms", j);
	if (!code)
		code = duration(cmd, a, "wait", 100, "wait_ms", j);
	if (!code)
		code = duration(cmd, a, "lost-after", 500, "lost_ms", j);
	if (!code)
		code = duration(cmd, a, "give-up-after", 2000, "give_up_ms", j);
	if (!code)
		code = duration(cmd, a, "before-end", 1000, "before_end_ms", j);
	json_int_t lost = json_integer_value(json_object_get(j, "lost_ms"));
	if (lost)
		json_object_set_new(j, "beat_ms", json_integer(lost / BEATS));
	json_t *args = json_array();
	for (size_t i = 0; i < arg_values(a, "launcher-arg")->n; i++)
		json_array_append_new(args, json_string(arg_values(a, "launcher-arg")->v[i]));
	json_object_set_new(j, "args", args);
	return code;
}

/* Options that say nothing where there is only this node. */
static int only_many(const struct command *cmd, const struct args *a, const char *why)
{
	static const char *const some[] = {"nodes",        "start",   "place",
					   "max-per-node", "missing", "launcher-arg"};
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		if (arg_values(a, some[i])->n)
			return command_usage(cmd, "--%s: all runs on this node (%s): name --hosts or --launcher",
					     some[i], why);
	return 0;
}

int where_choose(const struct command *cmd, const struct args *a, json_t **ret, char why[LAUNCH_WHY_MAX])
{
	struct err err = ERR_INIT;
	json_t *j = json_object();
	const struct launcher *l;
	int code = fill(cmd, a, j);
	const json_t *n = json_object_get(j, "nodes");
	struct launch_request r = {.launcher = arg_value(a, "launcher"),
				   .hosts = arg_value(a, "hosts"),
				   .hostfile = json_string_value(json_object_get(j, "hostfile")),
				   .nodes = (unsigned)json_integer_value(n),
				   .args = arg_values(a, "launcher-arg")};
	if (!code && launcher_pick(&r, &l, why, &err) < 0)
		code = err.code == EINVAL ? command_usage(cmd, "%s", err.text)
					  : command_fail(cmd, &err);
	const char *start = arg_value(a, "start");
	if (!code && start && !launcher_find(start))
		code = command_usage(cmd, "--start %s: there is no launcher of that name", start);
	bool local = !code && strcmp(l->name, "local") == 0;
	if (local)
		code = only_many(cmd, a, why);
	if (code || local)
		json_decref(j);
	else
		json_object_set_new(j, "launcher", json_string(l->name));
	if (!code)
		*ret = local ? NULL : j;
	return code;
}
