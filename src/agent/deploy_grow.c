/* SPDX-License-Identifier: Apache-2.0 */
/* More nodes for a cluster that runs. */
#include <errno.h>
#include <string.h>

#include "agent/deploy_state.h"
#include "agent/reaper.h"
#include "agent/services.h"

#define UP_MS 60000 /* for the agents to come, unless asked otherwise */
#define NODES_MAX 100000
#define LEAVE_MS 3000 /* for agents that are not wanted to end by themselves */

/* Kept as long as the cluster: the connections of its launcher are its agents' standard input. One of which no node is left
 * goes at once, and its allocation with it. */
struct growth {
	struct deploy *deploy;
	struct growth *next;
	json_t *options;
	struct allocating *allocating;
	struct allocation *allocation;
	int held;        /* by the reaper */
	uint32_t *index; /* by position in the allocation: which node it became; 0: none */
	uint32_t limit;  /* of those that are there no more than so many are wanted; 0: all */
	struct waves *waves;
	uint32_t first, n, left; /* nodes first..first+n-1; left: neither up nor failed */
	struct fabric_offer *offer;
	struct call *asker, *join; /* NULL: gone; not under way */
	struct evtimer *bound;
	bool failed;
};

static bool is_new(const struct growth *g, uint32_t node)
{
	return g && g->n && node >= g->first && node - g->first < g->n;
}

static void growth_end(struct growth *g, const struct err *why)
{
	struct deploy *d = g->deploy;
	json_t *names = json_array();
	evtimer_stop(g->bound);
	d->growing = NULL;
	for (uint32_t i = g->first; i < g->first + g->n; i++) {
		struct member *m = &d->members[i];
		if (why && !m->removed)
			deploy_forget_node(d, i);
		m->joining = false;
		if (!m->removed)
			json_array_append_new(names, json_string(m->name));
	}
	deploy_note_change(d);
	g->failed = why != NULL;
	if (why)
		evtimer_start(g->bound, g->waves && waves_running(g->waves) ? LEAVE_MS : 0, 0);
	struct call *asker = TAKE_PTR(g->asker);
	if (!asker)
		json_decref(names);
	else if (why)
		call_fail(asker, why), json_decref(names);
	else
		call_reply(asker, json_pack("{s:b, s:o}", "ok", 1, "nodes", names));
}

static void failed(struct growth *g, int code, const char *fmt, const char *text)
{
	struct err err = ERR_INIT;
	err_set(&err, code, fmt, text);
	growth_end(g, &err);
}

static void tell(struct growth *g, const char *text)
{
	if (g->asker)
		call_event(g->asker,
			   json_pack("{s:s, s:s, s:I, s:I}", "event", "step", "text", text, "done",
				     (json_int_t)(g->n - g->left), "all", (json_int_t)g->n));
}

/* They are members: VMs that found no room before may find it there. */
static void joined(struct growth *g)
{
	struct deploy *d = g->deploy;
	for (uint32_t i = g->first; i < g->first + g->n; i++) {
		d->members[i].joining = false;
		if (!d->members[i].removed)
			events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node",
				   "%s was added", d->members[i].name);
	}
	growth_end(g, NULL);
	for (uint32_t i = 1; i <= d->n; i++)
		if (d->members[i].safe)
			deploy_recover(d, i);
}

static void join_json(struct call *call, json_t *j, bool last)
{
	struct growth *g = call->out_arg;
	struct err err = ERR_INIT;
	if (last) {
		g->join = NULL;
		if (message_is_error(j, &err))
			growth_end(g, &err);
		else
			joined(g);
	}
	json_decref(j);
}

static const struct call_out join_out = {
	.json = join_json,
	.data = deploy_no_data,
	.credit = deploy_no_credit,
	.backlog = deploy_no_backlog,
};

/* Everybody learns who is there; who is new learns what the cluster is, and gets its files. */
static void join(struct growth *g)
{
	struct deploy *d = g->deploy;
	struct err err = ERR_INIT;
	json_t *req = json_pack("{s:s, s:o}", "verb", "join", "create",
				deploy_create_request(d, json_incref(d->files)));
	tell(g, "joining");
	g->join = call_create(d->agent, &join_out, g);
	if (spread_begin(g->join, VERB_join, req, &err) < 0)
		call_fail(g->join, &err);
	json_decref(req);
}

static void on_offered(void *arg, json_t *files, const struct err *err)
{
	struct growth *g = arg;
	g->offer = NULL;
	if (err) {
		growth_end(g, err);
		return;
	}
	g->deploy->files = files;
	join(g);
}

/* All have come, or failed to. */
static void gathered(struct growth *g)
{
	struct deploy *d = g->deploy;
	struct err err = ERR_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT;
	uint32_t up = 0;
	evtimer_stop(g->bound);
	waves_settled(g->waves);
	for (uint32_t i = g->first; i < g->first + g->n; i++) {
		struct member *m = &d->members[i];
		bool fits = m->up && !deploy_unfit(m);
		const char *why = m->up ? m->unfit : m->why;
		up += fits;
		if (!fits && buf_len(&text) < ERR_TEXT_MAX / 2)
			buf_addf(&text, "%s%s: %.120s", buf_len(&text) ? "; " : "", m->name,
				 why ? why : "it did not come up");
		if (!fits)
			deploy_forget_node(d, i);
	}
	if (!up || (up < g->n && !json_is_true(json_object_get(g->options, "go_on")))) {
		failed(g, EHOSTUNREACH, "none was added: %s", buf_cstr(&text));
		return;
	}
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	if (!s->image[0] || d->files) {
		join(g);
		return;
	}
	/* This root was started again: it has not offered them yet. */
	g->offer = fabric_offer(d->agent->fabric, s, on_offered, g, &err);
	if (!g->offer)
		growth_end(g, &err);
}

static void look(struct growth *g)
{
	tell(g, "starting agents");
	if (!g->left && !g->join && !g->offer)
		gathered(g);
}

bool deploy_growth_up(struct deploy *d, uint32_t node)
{
	struct member *m = &d->members[node];
	if (!is_new(d->growing, node) || !m->joining)
		return false;
	d->growing->left -= !m->counted; /* it may come a second time, as another incarnation */
	m->counted = true;
	look(d->growing);
	return true;
}

static void give_up(struct growth *g, uint32_t node, const char *why)
{
	const struct member *m = &g->deploy->members[node];
	if (!m->joining || m->up || m->failed || m->removed)
		return;
	deploy_give_up_node(g->deploy, node, why);
	g->left--;
}

static void on_failed(void *arg, uint32_t node, const struct err *why)
{
	struct growth *g = arg;
	if (g->deploy->growing != g || !node)
		return; /* whether a node lives is the overlay's to say */
	give_up(g, node, why->text);
	look(g);
}

static void on_ended(void *arg)
{
	struct growth *g = arg;
	if (g->failed)
		evtimer_start(g->bound, 0, 0);
	deploy_launch_ended(g->deploy);
}

static const struct waves_ops waves_ops = {.on_failed = on_failed, .on_ended = on_ended};

static void growth_destroy(struct growth *g)
{
	struct growth **at = &g->deploy->growths;
	while (*at && *at != g)
		at = &(*at)->next;
	if (*at)
		*at = g->next;
	if (g->deploy->growing == g)
		g->deploy->growing = NULL;
	allocating_destroy(g->allocating);
	if (g->offer)
		fabric_offer_cancel(g->offer);
	if (g->join)
		call_drop(TAKE_PTR(g->join));
	waves_destroy(g->waves);
	reaper_drop(g->deploy->agent->reaper, g->held);
	allocation_destroy(g->allocation);
	evtimer_destroy(g->bound);
	json_decref(g->options);
	free(g->index);
	free(g);
}

static void on_bound(void *arg)
{
	struct growth *g = arg;
	if (g->failed) {
		growth_destroy(g);
		return;
	}
	for (uint32_t i = g->first; i < g->first + g->n; i++)
		give_up(g, i, "its agent did not answer in time");
	look(g);
}

static bool is_member(const struct deploy *d, const char *name)
{
	for (uint32_t i = 1; i <= d->n; i++)
		if (!d->members[i].removed && strcmp(d->members[i].name, name) == 0)
			return true;
	return false;
}

/* Which nodes of the allocation are new: numbered from the next index on. */
static int choose(struct growth *g, struct err *err)
{
	struct deploy *d = g->deploy;
	const struct allocation *al = g->allocation;
	bool named = json_object_get(g->options, "hosts") ||
		     json_object_get(g->options, "hostfile");
	g->index = xcalloc(MAX(al->n_nodes, (size_t)1), sizeof(*g->index));
	for (size_t i = 0; i < al->n_nodes && (!g->limit || g->n < g->limit); i++) {
		const char *name = al->nodes[i].name;
		if (!name[0])
			return err_set(err, ENOTSUP, "launcher %s does not tell the names of its nodes: none can be added",
				       al->launcher->name);
		if (!is_member(d, name))
			g->index[i] = d->n + ++g->n;
		else if (named)
			return err_set(err, EEXIST, "%s is a node of the cluster already", name);
	}
	if (!g->n || g->n < g->limit)
		return err_set(err, ENOSPC, "%u of %zu nodes that there are would be new", g->n,
			       al->n_nodes);
	if (d->n + g->n > NODES_MAX)
		return err_set(err, EINVAL, "a cluster has at most %d nodes", NODES_MAX);
	return 0;
}

static void add_members(struct growth *g)
{
	struct deploy *d = g->deploy;
	struct agent *a = d->agent;
	g->first = d->n + 1;
	g->left = g->n;
	d->members = xreallocarray(d->members, d->n + g->n + (size_t)1, sizeof(*d->members));
	for (size_t i = 0; i < g->allocation->n_nodes; i++) {
		if (!g->index[i])
			continue;
		const char *name = g->allocation->nodes[i].name;
		d->members[++d->n] = (struct member){.name = xstrdup(name),
						     .joining = true,
						     .given = g->allocation->nodes[i]};
		d->members[d->n].given.name = NULL;
		strvec_add(&d->bootstrap.nodes, name);
	}
	mesh_add_nodes(a->mesh, &d->bootstrap.nodes);
	fabric_set_nodes(a->fabric, d->n);
	cluster_add_nodes(a->cluster, &d->bootstrap.nodes);
	d->grown = true;
	deploy_note_change(d);
}

static int start_agents(struct growth *g, struct err *err)
{
	struct deploy *d = g->deploy;
	struct waves_config c = {.launcher = d->launcher ? d->launcher : g->allocation->launcher,
				 .allocation = g->allocation,
				 .index = g->index,
				 .bootstrap = &d->bootstrap,
				 .options = d->launch};
	_cleanup_free_ uint32_t *at = xcalloc(g->n, sizeof(*at));
	uint32_t n = 0;
	for (size_t i = 0; i < g->allocation->n_nodes; i++)
		if (g->index[i])
			at[n++] = (uint32_t)i + 1;
	g->waves = waves_create(d->agent, &c, &waves_ops, g);
	json_int_t bound = json_integer_value(json_object_get(g->options, "up_ms"));
	evtimer_start(g->bound, bound > 0 ? (uint64_t)bound : UP_MS, 0);
	tell(g, "starting agents");
	return waves_start(g->waves, at, n, err);
}

static void on_allocated(void *arg, struct allocation *al)
{
	struct growth *g = arg;
	struct err err = ERR_INIT;
	allocating_destroy(TAKE_PTR(g->allocating));
	g->allocation = al;
	g->held = reaper_hold(g->deploy->agent->reaper, allocation_hold_fd(al));
	if (choose(g, &err) < 0) {
		g->n = 0;
		growth_end(g, &err);
		return;
	}
	add_members(g);
	if (start_agents(g, &err) < 0)
		growth_end(g, &err);
}

static void on_not_allocated(void *arg, const struct err *why)
{
	struct growth *g = arg;
	allocating_destroy(TAKE_PTR(g->allocating));
	growth_end(g, why);
}

static void on_allocation_progress(void *arg, const char *text)
{
	tell(arg, text);
}

static const struct allocate_ops allocate_ops = {
	.on_progress = on_allocation_progress,
	.on_ready = on_allocated,
	.on_failed = on_not_allocated,
};

static int allocate(struct growth *g, struct err *err)
{
	struct deploy *d = g->deploy;
	const json_t *o = g->options, *item;
	_cleanup_strvec_ struct strvec args = STRVEC_INIT;
	char why[LAUNCH_WHY_MAX];
	size_t i;
	json_array_foreach (json_object_get(o, "args"), i, item)
		if (json_is_string(item))
			strvec_add(&args, json_string_value(item));
	const char *how = json_string_value(json_object_get(o, "launcher"));
	struct launch_request r = {
		.launcher = how ? how : json_string_value(json_object_get(d->launch, "launcher")),
		.hosts = json_string_value(json_object_get(o, "hosts")),
		.hostfile = json_string_value(json_object_get(o, "hostfile")),
		.nodes = (unsigned)json_integer_value(json_object_get(o, "nodes")),
		.args = &args,
		.wait_ms = (uint64_t)json_integer_value(json_object_get(o, "wait_ms"))};
	const struct launcher *tells;
	if (launcher_pick(&r, &tells, why, err) < 0)
		return -1;
	/* Of an allocation that is there already some nodes are ours: which are new is seen when all are told. */
	if (launcher_probe(tells, why) == LAUNCH_INSIDE) {
		g->limit = r.nodes;
		r.nodes = 0;
	}
	g->allocating = launcher_allocate(tells, d->agent->loop, &r, &allocate_ops, g, err);
	return g->allocating ? 0 : -1;
}

void deploy_growths_stop(struct deploy *d)
{
	struct growth *g = d->growing;
	if (!g)
		return;
	allocating_destroy(TAKE_PTR(g->allocating));
	if (g->offer)
		fabric_offer_cancel(TAKE_PTR(g->offer));
	if (g->join)
		call_drop(TAKE_PTR(g->join));
	evtimer_stop(g->bound);
	d->growing = NULL;
	struct err err = ERR_INIT;
	err_set(&err, ESHUTDOWN, "the cluster is being ended");
	if (g->asker)
		call_fail(TAKE_PTR(g->asker), &err);
}

void deploy_growths_destroy(struct deploy *d)
{
	while (d->growths)
		growth_destroy(d->growths);
}

bool deploy_growths_run(const struct deploy *d)
{
	for (const struct growth *g = d->growths; g; g = g->next)
		if (g->waves && waves_running(g->waves))
			return true;
	return false;
}

static void asker_gone(struct call *call)
{
	struct growth *g = call->state;
	if (g)
		g->asker = NULL; /* it goes on all the same */
}

static const struct call_ops asker_ops = {.on_end = asker_gone};

int service_add_nodes(struct call *call, const json_t *req, struct err *err)
{
	struct deploy *d = call->agent->deploy;
	if (!d)
		return err_set(err, ENOTSUP, "the cluster runs on this node alone, and stays there");
	if (d->step != UP || d->growing)
		return err_set(err, EBUSY,
			       d->growing ? "nodes are being added already" : "the cluster is not up");
	struct growth *g = xcalloc(1, sizeof(*g));
	*g = (struct growth){.deploy = d, .next = d->growths, .held = -1};
	g->options = json_deep_copy(json_object_get(req, "launch"));
	g->bound = evtimer_create(d->agent->loop, on_bound, g);
	d->growths = d->growing = g;
	if (allocate(g, err) < 0) {
		growth_destroy(g);
		return -1;
	}
	g->asker = call;
	call->ops = &asker_ops;
	call->state = g;
	return 0;
}
