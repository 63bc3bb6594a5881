/* SPDX-License-Identifier: Apache-2.0 */
#include "client/place.h"

#include <errno.h>
#include <string.h>

#define BEATS 5 /* heartbeats within the time after which a node is lost */

static void fill_texts(const struct vse_options *o, json_t *j)
{
	static const char *const texts[] = {"launcher", "hosts", "hostfile",
					    "start",    "place", "tree"};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (options_text(o, texts[i]))
			json_object_set_new(j, texts[i], json_string(options_text(o, texts[i])));
}

static void fill_numbers(const struct vse_options *o, json_t *j)
{
	static const char *const numbers[][2] = {{"nodes", "nodes"},
						 {"spare", "spare"},
						 {"fanout", "fanout"},
						 {"max-per-node", "max_per_node"}};
	static const char *const times[][2] = {{"node-timeout", "up_ms"},
					       {"wait", "wait_ms"},
					       {"lost-after", "lost_ms"},
					       {"give-up-after", "give_up_ms"},
					       {"before-end", "before_end_ms"}};
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (options_text(o, numbers[i][0]))
			json_object_set_new(j, numbers[i][1],
					    json_integer(options_int(o, numbers[i][0], 0)));
	for (size_t i = 0; i < ARRAY_SIZE(times); i++)
		if (options_text(o, times[i][0]))
			json_object_set_new(j, times[i][1],
					    json_integer((json_int_t)options_ms(o, times[i][0], 0)));
}

json_t *place_request(const struct vse_options *o)
{
	json_t *j = json_object(), *args = json_array();
	const struct strvec *given = options_all(o, "launcher-arg");
	const char *missing = options_text(o, "missing");
	fill_texts(o, j);
	fill_numbers(o, j);
	json_object_set_new(j, "go_on", json_boolean(missing && strcmp(missing, "go-on") == 0));
	json_object_set_new(j, "oversubscribe", json_boolean(options_flag(o, "oversubscribe")));
	json_object_set_new(j, "recover",
			    json_boolean(options_flag(o, "recover") || options_text(o, "spare")));
	json_object_set_new(j, "cheap_kex", json_boolean(options_flag(o, "fast-kex")));
	json_object_set_new(j, "forget_agent", json_boolean(options_flag(o, "no-agent-cache")));
	json_int_t lost = json_integer_value(json_object_get(j, "lost_ms"));
	if (lost)
		json_object_set_new(j, "beat_ms", json_integer(lost / BEATS));
	for (size_t i = 0; i < given->n; i++)
		json_array_append_new(args, json_string(given->v[i]));
	json_object_set_new(j, "args", args);
	return j;
}

/* Options that say nothing where there is only this node. */
static int only_many(const struct vse_options *o, const char *why, struct vse_error *e)
{
	static const char *const some[] = {"nodes",        "start",   "place",
					   "max-per-node", "missing", "launcher-arg"};
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		if (options_text(o, some[i]))
			return error_option(e, some[i], ": all runs on this node (%s): name hosts or a launcher",
					    why);
	return 0;
}

int place_choose(const struct vse_options *o, json_t **ret, char why[LAUNCH_WHY_MAX],
		 struct vse_error *e)
{
	const struct launcher *l;
	struct launch_request r = {.launcher = options_text(o, "launcher"),
				   .hosts = options_text(o, "hosts"),
				   .hostfile = options_text(o, "hostfile"),
				   .nodes = (unsigned)options_int(o, "nodes", 0),
				   .args = options_all(o, "launcher-arg")};
	if (launcher_pick(&r, &l, why, &e->err) < 0) {
		e->usage = e->err.code == EINVAL;
		return error_code(e);
	}
	if (strcmp(l->name, "local") == 0) {
		int rc = only_many(o, why, e);
		if (rc == 0)
			*ret = NULL;
		return rc;
	}
	*ret = place_request(o);
	json_object_set_new(*ret, "launcher", json_string(l->name));
	return 0;
}
