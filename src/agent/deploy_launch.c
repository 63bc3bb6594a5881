/* SPDX-License-Identifier: Apache-2.0 */
/* The nodes, and the start of their agents: all from here, or in a tree. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "agent/deploy_state.h"
#include "agent/reaper.h"
#include "base/rundir.h"
#include "cluster/choose.h"

#define NODES_MAX 100000
#define UP_MS 60000 /* from the start of the agents until all have joined, unless asked otherwise */

/* ---- the start of the agents ---- */

/* With more nodes than fit below the root, agents that came by ssh start those of their children. */
static uint32_t fanout(const struct deploy *d)
{
	return d->bootstrap.fanout ? d->bootstrap.fanout : OVERLAY_FANOUT;
}

static void start_here(struct deploy *d, const uint32_t *nodes, size_t n)
{
	struct err err = ERR_INIT;
	if (!n || waves_start(d->waves, nodes, n, &err) == 0)
		return;
	for (size_t i = 0; i < n; i++)
		deploy_give_up_node(d, nodes[i], err.text);
}

/* The children of a node that nobody has started yet. */
static size_t children(struct deploy *d, uint32_t node, uint32_t **ret)
{
	uint32_t k = fanout(d);
	uint32_t *list = xcalloc(k, sizeof(*list));
	size_t n = 0;
	for (uint64_t i = (uint64_t)node * k + 1; i <= (uint64_t)node * k + k && i <= d->n; i++)
		if (!d->members[i].up && !d->members[i].failed && !d->members[i].direct)
			list[n++] = (uint32_t)i;
	*ret = list;
	return n;
}

static void start_children_here(struct deploy *d, uint32_t node)
{
	_cleanup_free_ uint32_t *list = NULL;
	size_t n = children(d, node, &list);
	for (size_t i = 0; i < n; i++)
		d->members[list[i]].direct = true;
	start_here(d, list, n);
}

void deploy_branch_end(struct branch *b)
{
	struct branch **p = &b->deploy->branches;
	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
	free(b);
}

static void branch_failed(struct deploy *d, const json_t *j)
{
	json_int_t node = json_integer_value(json_object_get(j, "node"));
	const char *why = json_string_value(json_object_get(j, "error"));
	if (node < 1 || node > d->n || d->members[node].up || d->members[node].direct ||
	    d->step != LAUNCHING)
		return;
	if (!d->told_flat) {
		_cleanup_free_ char *text = text_cleaned(why ? why : "");
		events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node",
			   "nodes cannot start agents on one another, the root does it: %s: %s",
			   d->members[node].name, text);
	}
	d->told_flat = true;
	d->members[node].direct = true;
	start_here(d, &(uint32_t){(uint32_t)node}, 1);
}

static void branch_json(struct call *call, json_t *j, bool last)
{
	struct branch *b = call->out_arg;
	struct deploy *d = b->deploy;
	struct err err = ERR_INIT;
	const char *what = json_string_value(json_object_get(j, "event"));
	if (last) {
		uint32_t node = b->node;
		deploy_branch_end(b);
		if (message_is_error(j, &err) && d->step == LAUNCHING)
			start_children_here(d, node);
	} else if (what && strcmp(what, "failed") == 0) {
		branch_failed(d, j);
	}
	json_decref(j);
}

static const struct call_out branch_out = {
	.json = branch_json,
	.data = deploy_no_data,
	.credit = deploy_no_credit,
	.backlog = deploy_no_backlog,
};

/* A node has come up: its children are its own to start. */
void deploy_start_branch(struct deploy *d, uint32_t node)
{
	struct err err = ERR_INIT;
	_cleanup_free_ uint32_t *list = NULL;
	_cleanup_free_ char *line = bootstrap_write(&d->bootstrap, NULL);
	size_t n = d->tree ? children(d, node, &list) : 0;
	if (!n || !line)
		return;
	json_t *nodes = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(nodes, json_integer(list[i]));
	json_t *req = json_pack("{s:s, s:I, s:o, s:s, s:s, s:O}", "verb", "launch", "to",
				(json_int_t)node, "nodes", nodes, "launcher", d->launcher->name,
				"bootstrap", line, "options", d->launch);
	explicit_bzero(line, strlen(line));
	struct branch *b = xcalloc(1, sizeof(*b));
	*b = (struct branch){.deploy = d, .next = d->branches, .node = node};
	d->branches = b;
	struct call *call = call_create(d->agent, &branch_out, b);
	b->call = call;
	if (spread_begin(call, VERB_launch, req, &err) < 0)
		call_fail(call, &err);
	json_decref(req);
}

static void on_launch_failed(void *arg, uint32_t node, const struct err *why)
{
	struct deploy *d = arg;
	if (d->step != LAUNCHING)
		return; /* whether a node lives is the overlay's to say */
	deploy_give_up_node(d, node, why->text);
	if (d->tree)
		start_children_here(d, node);
	deploy_look(d);
}

void deploy_launch_ended(struct deploy *d)
{
	if (d->step == ENDED)
		evtimer_start(d->bound, 0, 0);
}

static void on_launch_ended(void *arg)
{
	deploy_launch_ended(arg);
}

static const struct waves_ops waves_ops = {.on_failed = on_launch_failed, .on_ended = on_launch_ended};

static int make_secret(struct bootstrap *b, struct err *err)
{
	if (getrandom(b->secret, sizeof(b->secret), 0) == sizeof(b->secret) &&
	    getrandom(b->id, sizeof(b->id), 0) == sizeof(b->id))
		return 0;
	return err_errno(err, errno, "random bytes for the cluster's secret");
}

/* journal: of the mesh of the root before; may be NULL. */
int deploy_make_mesh(struct deploy *d, const json_t *journal, struct err *err)
{
	struct agent *a = d->agent;
	struct bootstrap *b = &d->bootstrap;
	struct mesh_config c = {.names = &b->nodes,
				.fanout = b->fanout,
				.beat_ms = b->beat_ms,
				.lost_ms = b->lost_ms,
				.give_up_ms = b->give_up_ms,
				.journal = journal};
	memcpy(c.id, b->id, sizeof(c.id));
	memcpy(c.secret, b->secret, sizeof(c.secret));
	a->mesh = mesh_create(a, &c, &deploy_mesh_ops, d, err);
	explicit_bzero(c.secret, sizeof(c.secret));
	if (!a->mesh)
		return -1;
	free(b->root);
	b->root = mesh_address(a->mesh);
	a->fabric = fabric_create(a, d->n, err);
	return a->fabric ? 0 : -1;
}

static int launch(struct deploy *d, struct err *err)
{
	const char *how = json_string_value(json_object_get(d->launch, "tree"));
	struct waves_config c = {.launcher = d->launcher,
				 .allocation = d->allocation,
				 .bootstrap = &d->bootstrap,
				 .options = d->launch};
	_cleanup_free_ uint32_t *nodes = xcalloc(d->n, sizeof(*nodes));
	d->waves = waves_create(d->agent, &c, &waves_ops, d);
	d->tree = launcher_names_nodes(d->launcher) && launcher_carries_input(d->launcher) &&
		  d->n > fanout(d) && !(how && strcmp(how, "flat") == 0);
	uint32_t n = d->tree ? fanout(d) : d->n;
	for (uint32_t i = 0; i < n; i++) {
		nodes[i] = i + 1;
		d->members[i + 1].direct = true;
	}
	return waves_start(d->waves, nodes, n, err);
}

/* What the nodes choose among. One name that was given is no choice: it is tried when the VMs start, unless it alone knows
 * how many VMs a node has room for. */
static int set_hypervisors(struct deploy *d, struct err *err)
{
	const char *planned = json_string_value(json_object_get(d->launch, "plan"));
	struct cluster_spec s = *cluster_get_spec(d->agent->cluster); /* borrowed */
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	_cleanup_buf_ struct buf list = BUF_INIT;
	s.hypervisor = (char *)(planned ? planned : s.hypervisor);
	const struct hypervisor *one = hypervisor_find(s.hypervisor);
	if (!choose_several(&s) && !(one && one->own_node))
		return 0;
	if (choose_names(&s, &names, NULL, err) < 0)
		return -1;
	for (size_t i = 0; i < names.n; i++)
		buf_addf(&list, "%s%s", i ? "," : "", names.v[i]);
	d->bootstrap.hypervisors = xstrdup(buf_cstr(&list));
	d->bootstrap.accel = xstrdup(s.accel);
	return 0;
}

static int start_agents(struct deploy *d, struct err *err)
{
	struct bootstrap *b = &d->bootstrap;
	d->step = LAUNCHING;
	deploy_tell(d, "starting agents", 0, d->n);
	if (make_secret(b, err) < 0)
		return -1;
	b->name = xstrdup(d->agent->name);
	b->home = rundir_home(d->agent->base);
	b->fanout = deploy_setting(d, "fanout");
	b->beat_ms = deploy_setting(d, "beat_ms");
	b->lost_ms = deploy_setting(d, "lost_ms");
	b->give_up_ms = deploy_setting(d, "give_up_ms");
	for (size_t i = 0; i < d->n; i++)
		strvec_add(&b->nodes, d->allocation->nodes[i].name);
	if (set_hypervisors(d, err) < 0)
		return -1;
	if (deploy_make_mesh(d, NULL, err) < 0 || launch(d, err) < 0)
		return -1;
	mesh_start(d->agent->mesh);
	uint32_t bound = deploy_setting(d, "up_ms");
	evtimer_start(d->bound, bound ? bound : UP_MS, 0);
	return 0;
}

/* ---- the nodes ---- */

static void on_allocation_progress(void *arg, const char *text)
{
	deploy_tell(arg, text, 0, 0);
}

static void on_allocated(void *arg, struct allocation *al)
{
	struct deploy *d = arg;
	struct err err = ERR_INIT;
	allocating_destroy(TAKE_PTR(d->allocating));
	d->allocation = al;
	d->held = reaper_hold(d->agent->reaper, allocation_hold_fd(al));
	d->n = (uint32_t)al->n_nodes;
	d->members = xcalloc(d->n + 1, sizeof(*d->members));
	for (uint32_t i = 1; i <= d->n; i++) {
		d->members[i].name = xstrdup(al->nodes[i - 1].name);
		d->members[i].given = al->nodes[i - 1];
		d->members[i].given.name = NULL;
	}
	if (!d->n || d->n > NODES_MAX)
		err_set(&err, EINVAL, "%u nodes: 1 to %d are possible", d->n, NODES_MAX);
	if (err.code || start_agents(d, &err) < 0)
		deploy_failed(d, &err);
}

static void on_not_allocated(void *arg, const struct err *why)
{
	struct deploy *d = arg;
	allocating_destroy(TAKE_PTR(d->allocating));
	deploy_failed(d, why);
}

static const struct allocate_ops allocate_ops = {
	.on_progress = on_allocation_progress,
	.on_ready = on_allocated,
	.on_failed = on_not_allocated,
};

int deploy_allocate(struct deploy *d, struct err *err)
{
	_cleanup_strvec_ struct strvec args = STRVEC_INIT;
	char why[LAUNCH_WHY_MAX];
	const json_t *item, *list = json_object_get(d->launch, "args");
	size_t i;
	json_array_foreach (list, i, item)
		if (json_is_string(item))
			strvec_add(&args, json_string_value(item));
	struct launch_request r = {
		.launcher = json_string_value(json_object_get(d->launch, "launcher")),
		.hosts = json_string_value(json_object_get(d->launch, "hosts")),
		.hostfile = json_string_value(json_object_get(d->launch, "hostfile")),
		.nodes = deploy_setting(d, "nodes"),
		.args = &args,
		.wait_ms = deploy_setting(d, "wait_ms")};
	const struct launcher *tells;
	if (launcher_pick(&r, &tells, why, err) < 0)
		return -1;
	const char *how = json_string_value(json_object_get(d->launch, "start"));
	d->launcher = how ? launcher_find(how) : tells;
	if (!d->launcher)
		return err_set(err, EINVAL, "--start %.40s: there is no launcher of that name", how);
	deploy_tell(d, "getting nodes", 0, 0);
	d->allocating = launcher_allocate(tells, d->agent->loop, &r, &allocate_ops, d, err);
	return d->allocating ? 0 : -1;
}
