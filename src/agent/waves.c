/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/waves.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/state.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/rundir.h"
#include "base/text.h"

/* One start. */
struct wave {
	struct waves *waves;
	struct wave *next;
	struct launching *launching;
	size_t *nodes; /* in the allocation: what the launcher counts by */
};

struct waves {
	struct agent *agent;
	struct waves_config config;
	const struct waves_ops *ops;
	void *arg;
	struct wave *list;
	char *bootstrap_dir;
};

static uint32_t index_of(const struct wave *w, size_t node)
{
	const uint32_t *index = w->waves->config.index;
	return index ? index[w->nodes[node]] : (uint32_t)w->nodes[node] + 1;
}

static void on_started(void *arg, size_t node)
{
	struct wave *w = arg;
	if (w->waves->ops->on_started)
		w->waves->ops->on_started(w->waves->arg, index_of(w, node));
}

static size_t count(const struct wave *w)
{
	size_t n = 0;
	while (w->nodes[n] != SIZE_MAX)
		n++;
	return n;
}

static void on_failed(void *arg, size_t node, const struct err *why)
{
	struct wave *w = arg;
	struct waves *all = w->waves;
	if (node != LAUNCH_ALL) {
		all->ops->on_failed(all->arg, index_of(w, node), why);
		return;
	}
	for (size_t i = 0, n = count(w); i < n; i++)
		all->ops->on_failed(all->arg, index_of(w, i), why);
}

static void end(struct wave *w)
{
	struct wave **p = &w->waves->list;
	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	launching_destroy(w->launching);
	free(w->nodes);
	free(w);
}

static void on_ended(void *arg, const struct err *why)
{
	struct wave *w = arg;
	struct waves *all = w->waves;
	if (why->code)
		on_failed(w, LAUNCH_ALL, why);
	end(w);
	if (!all->list && all->ops->on_ended)
		all->ops->on_ended(all->arg);
}

static void on_output(void *arg, size_t node, const char *line)
{
	struct wave *w = arg;
	const struct waves *all = w->waves;
	_cleanup_free_ char *text = text_cleaned(line);
	log_info("%s: %s",
		 node == LAUNCH_ALL ? all->config.launcher->name
				    : all->config.allocation->nodes[w->nodes[node]].name,
		 text);
}

static const struct launch_ops ops = {
	.on_node_started = on_started,
	.on_node_failed = on_failed,
	.on_ended = on_ended,
	.on_output = on_output,
};

/* A folder that every node sees, for launchers that do not carry standard input: in the user's home. */
static int make_bootstrap_dir(struct waves *w, struct err *err)
{
	const char *home = getenv("HOME");
	/* A manager that carries input may still not do so in every kind of job (Slurm's heterogeneous ones). */
	bool needed = !launcher_carries_input(w->config.launcher);
	if (w->bootstrap_dir || (!needed && launcher_names_nodes(w->config.launcher)))
		return 0;
	if (!home || home[0] != '/')
		return !needed ? 0
			       : err_set(err, ENOENT, "launcher %s needs a folder that all nodes see: HOME is not set",
					 w->config.launcher->name);
	if (rundir_elsewhere(w->agent->dir, home, &w->bootstrap_dir, err) == 0)
		return 0;
	return !needed ? 0 : err_prefix(err, "a folder that all nodes see: ");
}

static unsigned setting(const struct waves *w, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(w->config.options, key));
	return v > 0 && v < INT32_MAX ? (unsigned)v : 0;
}

static struct launching *start(struct wave *wave, size_t n, struct err *err)
{
	struct waves *w = wave->waves;
	_cleanup_strvec_ struct strvec args = STRVEC_INIT;
	_cleanup_free_ char *line = bootstrap_write(w->config.bootstrap, err),
			    *self = realpath("/proc/self/exe", NULL);
	_cleanup_free_ unsigned *index = xcalloc(n, sizeof(*index));
	if (!line || make_bootstrap_dir(w, err) < 0)
		return NULL;
	strvec_add(&args, "--node");
	for (size_t i = 0; i < n; i++)
		index[i] = index_of(wave, i);
	/* An agent that came over ssh has no file of its own any more, but it can still be read. */
	struct launch_agent agent = {.file = self && path_exists(self) ? self : "/proc/self/exe",
				     .stage = true,
				     .args = &args,
				     .index = index,
				     .bootstrap = line,
				     .bootstrap_len = strlen(line),
				     .bootstrap_dir = w->bootstrap_dir};
	struct launch_options o = {
		.parallel = setting(w, "parallel"),
		.connect_ms = setting(w, "connect_ms"),
		.cheap_kex = json_is_true(json_object_get(w->config.options, "cheap_kex")),
		.forget = json_is_true(json_object_get(w->config.options, "forget_agent"))};
	struct launching *l = launcher_start(w->config.launcher, w->agent->loop, w->config.allocation,
					     wave->nodes, n, &agent, &o, &ops, wave, err);
	explicit_bzero(line, strlen(line));
	return l;
}

int waves_start(struct waves *w, const uint32_t *nodes, size_t n, struct err *err)
{
	struct wave *wave = xcalloc(1, sizeof(*wave));
	*wave = (struct wave){.waves = w, .next = w->list, .nodes = xcalloc(n + 1, sizeof(*wave->nodes))};
	w->list = wave;
	for (size_t i = 0; i < n; i++)
		wave->nodes[i] = nodes[i] - 1;
	wave->nodes[n] = SIZE_MAX;
	wave->launching = start(wave, n, err);
	if (wave->launching)
		return 0;
	end(wave);
	return -1;
}

void waves_settled(struct waves *w)
{
	if (w->bootstrap_dir)
		path_remove(w->bootstrap_dir, NULL);
	free(TAKE_PTR(w->bootstrap_dir));
}

bool waves_running(const struct waves *w)
{
	return w->list;
}

struct waves *waves_create(struct agent *a, const struct waves_config *c, const struct waves_ops *o,
			   void *arg)
{
	struct waves *w = xcalloc(1, sizeof(*w));
	*w = (struct waves){.agent = a, .config = *c, .ops = o, .arg = arg};
	return w;
}

void waves_destroy(struct waves *w)
{
	if (!w)
		return;
	while (w->list)
		end(w->list);
	waves_settled(w);
	free(w);
}
