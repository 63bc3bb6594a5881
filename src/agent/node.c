/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/node.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/keeper.h"
#include "agent/moving.h"
#include "agent/resources.h"
#include "agent/services.h"
#include "agent/state.h"
#include "agent/templates.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/rundir.h"
#include "cluster/choose.h"
#include "launcher/launcher.h"

static void fail_calls(struct agent *a, int code, const char *text)
{
	struct err err = ERR_INIT;
	err_set(&err, code, "%s", text);
	for (struct conn *c = a->conns; c; c = conn_next(c))
		conn_fail_calls(c, &err);
}

static void on_fenced(void *arg)
{
	struct agent *a = arg;
	fail_calls(a, ESHUTDOWN, "this node was declared lost: its VMs were ended");
	if (a->cluster)
		cluster_fence(a->cluster);
	mesh_stopped(a->mesh);
}

static void on_end(void *arg, const char *why)
{
	struct agent *a = arg;
	log_info("ending: %s", why);
	if (a->cluster)
		agent_down(a, false);
	else
		agent_end(a);
}

static void on_admitted(void *arg)
{
	struct agent *a = arg;
	a->admitted = true;
	a->kept->page->incarnation = mesh_incarnation(a->mesh);
	node_tell(a);
}

static void on_input(void *arg, int events _unused_)
{
	struct agent *a = arg;
	char some[256];
	ssize_t n = read(STDIN_FILENO, some, sizeof(some));
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	watch_set(a->input, 0);
	if (a->admitted)
		return; /* the overlay knows better whether the root lives */
	log_info("ending: the launcher is gone, and nobody has let this node in");
	agent_end(a);
}

/* A node has no books on others. */
static void on_node_up(void *arg _unused_, uint32_t node _unused_, const json_t *resources _unused_)
{
}

static void on_node_lost(void *arg _unused_, uint32_t node _unused_, const char *why _unused_)
{
}

static void on_node_safe(void *arg _unused_, uint32_t node _unused_)
{
}

static void on_net(void *arg, uint32_t node, struct stream *s)
{
	struct agent *a = arg;
	if (a->fabric)
		fabric_net_link(a->fabric, node, s);
	else
		stream_destroy(s);
}

static void on_bulk(void *arg, uint32_t node, struct stream *s)
{
	struct agent *a = arg;
	if (a->fabric)
		fabric_bulk_link(a->fabric, node, s);
	else
		stream_destroy(s);
}

static void on_state(void *arg, uint32_t node, struct stream *s)
{
	moving_link(arg, node, s);
}

static void on_template(void *arg, uint32_t node, struct stream *s)
{
	templates_link(arg, node, s);
}

static const struct mesh_ops ops = {
	.on_node_up = on_node_up,
	.on_node_lost = on_node_lost,
	.on_node_safe = on_node_safe,
	.on_admitted = on_admitted,
	.on_fenced = on_fenced,
	.on_end = on_end,
	.on_net = on_net,
	.on_bulk = on_bulk,
	.on_state = on_state,
	.on_template = on_template,
};

static int find_self(const struct bootstrap *b, uint32_t index, uint32_t *ret, struct err *err)
{
	struct resources r;
	int at = index ? (int)index - 1 : launcher_self(b->nodes.v, b->nodes.n);
	resources_read(&r);
	if (at < 0 || (size_t)at >= b->nodes.n)
		return err_set(err, ENOENT,
			       "this host, '%s', is none of the cluster's nodes, or more than one",
			       r.host);
	*ret = (uint32_t)at + 1;
	return 0;
}

/* Who follows an agent that was let in, and has nothing of its VMs, is another one to the root. */
static uint32_t incarnation(const struct agent *a)
{
	uint32_t before = a->kept->page->incarnation;
	return !before ? 1 : node_has_saved(a) ? before : 0;
}

/* An agent that follows another goes on with what that one had chosen: the root knows. ret_why: malloc'ed. */
static void choose(const struct agent *a, const struct bootstrap *b, struct strvec *names,
		   struct resources *r, char **ret_why)
{
	if (!b->hypervisors || a->kept->deaths)
		return;
	strvec_split(names, b->hypervisors, ",");
	struct hv_probe p = {0};
	const char *chosen = choose_here(names, b->accel ? b->accel : "auto", &p, ret_why);
	if (p.memory)
		r->memory = p.memory;
	if (p.cpus)
		r->cpus = r->cores = p.cpus;
	r->hypervisor = chosen ? chosen : "";
	r->why = *ret_why;
}

int node_join(struct agent *a, const struct bootstrap *b, uint32_t index, bool input, struct err *err)
{
	struct resources r;
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	_cleanup_free_ char *why = NULL;
	if (find_self(b, index, &a->self, err) < 0)
		return -1;
	resources_read(&r);
	choose(a, b, &names, &r, &why);
	_cleanup_free_ char *offer = resources_json(&r);
	struct mesh_config c = {
		.self = a->self,
		.names = &b->nodes,
		.root = b->root,
		.fanout = b->fanout,
		.beat_ms = b->beat_ms,
		.lost_ms = b->lost_ms,
		.give_up_ms = b->give_up_ms,
		.resources = offer,
		.incarnation = incarnation(a),
		.lease = a->kept->deaths ? a->kept->page->lease : 0,
		.listener = a->kept->listener,
		.port = a->kept->port,
	};
	memcpy(c.id, b->id, sizeof(c.id));
	memcpy(c.secret, b->secret, sizeof(c.secret));
	a->mesh = mesh_create(a, &c, &ops, a, err);
	explicit_bzero(c.secret, sizeof(c.secret));
	if (!a->mesh)
		return -1;
	a->fabric = fabric_create(a, (uint32_t)b->nodes.n, err);
	if (!a->fabric)
		return -1;
	a->report = report_create(a);
	if (input && (a->input = watch_create(a->loop, STDIN_FILENO, on_input, a, NULL)))
		watch_set(a->input, WATCH_READ);
	if (a->kept->deaths)
		node_resume(a);
	else
		mesh_start(a->mesh);
	return 0;
}

/* ---- leaving ---- */

#define LEAVE_MS 10000 /* for the children's answers */
#define ROOT_MS 2000
#define LOOK_MS 5

/* A job that ends may kill the root, when that is on this host, with all that could sweep after it, while its other
 * agents get a signal and time. True: wait. */
static bool root_dies(struct agent *a)
{
	_cleanup_free_ char *dir = path_join(a->base, a->name);
	if (!a->signalled || !path_exists(dir))
		return false;
	if (rundir_alive(a->base, a->name))
		return loop_now(a->loop) < a->leave_until - LEAVE_MS + ROOT_MS;
	rundir_sweep(a->base, a->name);
	return false;
}

static void on_leave(void *arg)
{
	struct agent *a = arg;
	unsigned open = 0;
	for (struct conn *c = a->conns; c; c = conn_next(c))
		open += conn_calls(c);
	if ((!open && !root_dies(a)) || loop_now(a->loop) > a->leave_until)
		agent_end(a);
}

void node_finish(struct agent *a)
{
	watch_destroy(a->input);
	evtimer_destroy(a->leave);
}

void node_leave(struct agent *a)
{
	fail_calls(a, ESHUTDOWN, "the cluster was ended");
	agent_release(a);
	a->leave_until = loop_now(a->loop) + LEAVE_MS;
	a->leave = evtimer_create(a->loop, on_leave, a);
	evtimer_start(a->leave, 0, LOOK_MS);
	for (size_t i = 0; i < a->n_ending; i++)
		if (a->ending[i])
			call_ok(a->ending[i]);
}
