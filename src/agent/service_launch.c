/* SPDX-License-Identifier: Apache-2.0 */
/* launch: an agent of the tree starts those of its children, so that the root opens a few connections and not one for
 * each node. A child that cannot be started from here (nodes need not be able to reach one another by ssh) is told;
 * the root then does it. */
#include <errno.h>
#include <string.h>

#include "agent/services.h"
#include "agent/state.h"
#include "agent/waves.h"
#include "base/alloc.h"
#include "wire/message.h"

/* Lives as long as the agent: the launchers' connections are the started agents' standard input. */
struct launch_part {
	struct agent *agent;
	struct launch_part *next;
	struct call *call; /* NULL: answered */
	struct bootstrap bootstrap;
	struct allocation allocation;
	json_t *options;
	struct waves *waves;
	size_t open; /* neither started nor failed */
};

static void settle(struct launch_part *p)
{
	if (--p->open == 0 && p->call)
		call_ok(p->call);
}

static void on_started(void *arg, uint32_t node _unused_)
{
	settle(arg);
}

static void on_failed(void *arg, uint32_t node, const struct err *why)
{
	struct launch_part *p = arg;
	if (!p->call || !p->open)
		return; /* it had started, and has ended since: the overlay's to tell */
	call_event(p->call, json_pack("{s:s, s:I, s:s}", "event", "failed", "node",
				      (json_int_t)node, "error", why->text));
	settle(p);
}

static const struct waves_ops waves_ops = {.on_started = on_started, .on_failed = on_failed};

static void on_call_end(struct call *call)
{
	struct launch_part *p = call->state;
	p->call = NULL;
}

static const struct call_ops ops = {.on_end = on_call_end};

void service_launch_finish(struct agent *a)
{
	while (a->launches) {
		struct launch_part *p = a->launches;
		a->launches = p->next;
		waves_destroy(p->waves);
		for (size_t i = 0; i < p->allocation.n_nodes; i++)
			free(p->allocation.nodes[i].name);
		free(p->allocation.nodes);
		bootstrap_finish(&p->bootstrap);
		json_decref(p->options);
		free(p);
	}
}

static void fill_allocation(struct launch_part *p, const struct launcher *l)
{
	const struct strvec *names = &p->bootstrap.nodes;
	p->allocation = (struct allocation){.launcher = l, .job = (char *)"", .n_nodes = names->n};
	p->allocation.nodes = xcalloc(names->n, sizeof(*p->allocation.nodes));
	for (size_t i = 0; i < names->n; i++)
		p->allocation.nodes[i].name = xstrdup(names->v[i]);
}

static int read_nodes(const json_t *req, size_t n_names, uint32_t **ret, size_t *ret_n, struct err *err)
{
	const json_t *list = json_object_get(req, "nodes"), *v;
	size_t i, n = json_array_size(list);
	_cleanup_free_ uint32_t *nodes = xcalloc(MAX(n, (size_t)1), sizeof(*nodes));
	json_array_foreach (list, i, v) {
		json_int_t node = json_integer_value(v);
		if (node < 1 || (size_t)node > n_names)
			return err_set(err, EPROTO, "message: 'nodes' names one that is none");
		nodes[i] = (uint32_t)node;
	}
	*ret_n = n;
	*ret = TAKE_PTR(nodes);
	return n ? 0 : err_set(err, EPROTO, "message: 'nodes' is empty");
}

int service_launch(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	const char *line, *name;
	_cleanup_free_ uint32_t *nodes = NULL;
	size_t n;
	if (message_str(req, "bootstrap", &line, err) < 0 ||
	    message_str(req, "launcher", &name, err) < 0)
		return -1;
	const struct launcher *l = launcher_find(name);
	if (!l)
		return err_set(err, ENOENT, "launcher '%.40s' is not known here", name);
	struct launch_part *p = xcalloc(1, sizeof(*p));
	*p = (struct launch_part){.agent = a,
				  .next = a->launches,
				  .options = json_deep_copy(json_object_get(req, "options"))};
	a->launches = p;
	if (bootstrap_parse(line, strlen(line), &p->bootstrap, err) < 0)
		return -1;
	fill_allocation(p, l);
	if (read_nodes(req, p->bootstrap.nodes.n, &nodes, &n, err) < 0)
		return -1;
	p->open = n;
	p->waves = waves_create(a,
				&(struct waves_config){.launcher = l,
						       .allocation = &p->allocation,
						       .bootstrap = &p->bootstrap,
						       .options = p->options},
				&waves_ops, p);
	if (waves_start(p->waves, nodes, n, err) < 0)
		return -1;
	p->call = call;
	call->ops = &ops;
	call->state = p;
	return 0;
}
