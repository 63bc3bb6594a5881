/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/launcher.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "launcher/backend.h"
#include "launcher/site.h"

#define LAUNCHER(x) extern const struct launcher launcher_##x;
#include "launcher/launchers.def"
#undef LAUNCHER

static const struct launcher *const table[] = {
#define LAUNCHER(x) &launcher_##x,
#include "launcher/launchers.def"
#undef LAUNCHER
};

/* The nearest enclosing manager first, as `nearer` below has them; a site's own comes before all. */
static const char *const order[] = {"flux", "slurm", "alps", "pals", "torque", "pbs"};

const struct launcher *launcher_at(size_t i)
{
	return i < ARRAY_SIZE(table) ? table[i] : site_launcher_at(i - ARRAY_SIZE(table));
}

const struct launcher *launcher_find(const char *name)
{
	const struct launcher *l;
	for (size_t i = 0; (l = launcher_at(i)); i++)
		if (strcmp(l->name, name) == 0)
			return l;
	return NULL;
}

int launcher_launch(const struct launcher *l, const struct launch *what, struct err *err)
{
	if (!l->launch)
		return err_set(err, ENOTSUP, "launcher %s cannot start the root agent", l->name);
	return l->launch(what, err) < 0 ? err_prefix(err, "launcher %s: ", l->name) : 0;
}

/* ---- which ---- */

enum launch_fit launcher_probe(const struct launcher *l, char why[LAUNCH_WHY_MAX])
{
	why[0] = '\0';
	return l->probe(l, why);
}

static const struct launcher *enclosing(char why[LAUNCH_WHY_MAX])
{
	const struct launcher *l;
	for (size_t i = 0; (l = site_launcher_at(i)); i++)
		if (launcher_probe(l, why) == LAUNCH_INSIDE)
			return l;
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		if ((l = launcher_find(order[i])) && launcher_probe(l, why) == LAUNCH_INSIDE)
			return l;
	return NULL;
}

static int named(const struct launch_request *r, const struct launcher **ret,
		 char why[LAUNCH_WHY_MAX], struct err *err)
{
	const struct launcher *l = launcher_find(r->launcher);
	if (!l)
		return err_set(err, EINVAL, "launcher '%.40s': there is none of that name", r->launcher);
	snprintf(why, LAUNCH_WHY_MAX, "asked for");
	*ret = l;
	return 0;
}

int launcher_pick(const struct launch_request *r, const struct launcher **ret,
		  char why[LAUNCH_WHY_MAX], struct err *err)
{
	if (r->launcher)
		return named(r, ret, why, err);
	*ret = enclosing(why);
	if (*ret)
		return 0;
	bool hosts = r->hosts || r->hostfile;
	*ret = launcher_find(hosts ? "ssh" : "local");
	snprintf(why, LAUNCH_WHY_MAX,
		 hosts ? "hosts were given" : "in no allocation, and no hosts were given");
	return 0;
}

/* ---- which nodes ---- */

struct allocating *launcher_allocate(const struct launcher *l, struct loop *loop,
				     const struct launch_request *r, const struct allocate_ops *ops,
				     void *arg, struct err *err)
{
	if (!l->allocate) {
		err_set(err, ENOTSUP, "launcher %s knows no nodes", l->name);
		return NULL;
	}
	struct allocating *a = allocating_new(l, loop, r->nodes, ops, arg);
	if (l->allocate(a, r, err) == 0)
		return a;
	err_prefix(err, "launcher %s: ", l->name);
	allocating_destroy(a);
	return NULL;
}

struct time_query *launcher_time_left(struct loop *loop, const struct allocation *a,
				      void (*on_answer)(void *arg, int64_t seconds), void *arg)
{
	struct time_query *q = time_query_new(loop, on_answer, arg);
	int64_t now = (int64_t)time(NULL);
	if (a->end_time)
		time_query_answer(q, MAX(a->end_time - now, (int64_t)0));
	else if (!a->launcher->time_left || a->launcher->time_left(q, a, NULL) < 0)
		time_query_answer(q, -1);
	return q;
}

/* ---- start ---- */

bool launcher_carries_input(const struct launcher *l)
{
	return l->carries_input;
}

bool launcher_names_nodes(const struct launcher *l)
{
	return l->names_nodes;
}

struct launching *launcher_start(const struct launcher *how, struct loop *loop,
				 const struct allocation *a, const size_t *nodes, size_t n_nodes,
				 const struct launch_agent *agent, const struct launch_options *o,
				 const struct launch_ops *ops, void *arg, struct err *err)
{
	struct launch_options all = launch_options_filled(o);
	struct launch_start s = {.allocation = a, .nodes = nodes, .n = n_nodes, .agent = agent, .o = &all};
	if (!how->start) {
		err_set(err, ENOTSUP, "launcher %s cannot start agents on nodes", how->name);
		return NULL;
	}
	struct launching *l = launching_new(how, loop, &s, ops, arg, err);
	if (l && how->start(l, &s, err) == 0)
		return l;
	err_prefix(err, "launcher %s: ", how->name);
	launching_destroy(l);
	return NULL;
}
