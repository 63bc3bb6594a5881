/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "agent/deploy_state.h"
#include "agent/reaper.h"
#include "agent/templates.h"
#include "hypervisor/hypervisor.h"

#define VM_OVERHEAD                                                                                \
	(64u << 20) /* bytes: a VMM beside its guest's memory (QEMU 7.2 measured: 35-60 MiB) */
#define DOWN_MS 10000
#define GRACEFUL_MS 10000    /* on top of the VMs' own bound */
#define LAUNCHER_END_MS 3000 /* for the launcher to see that its agents are gone */
#define WARN_S 300
#define NAMED_MAX 4 /* nodes whose reason is told in one error */

/* ---- telling ---- */

void deploy_tell(struct deploy *d, const char *text, uint32_t done, uint32_t all)
{
	struct agent *a = d->agent;
	if (a->creating)
		call_event(a->creating, json_pack("{s:s, s:s, s:I, s:I}", "event", "step", "text", text,
						  "done", (json_int_t)done, "all", (json_int_t)all));
}

void deploy_failed(struct deploy *d, const struct err *why)
{
	evtimer_stop(d->bound);
	cluster_elsewhere_started(d->agent->cluster, why);
}

static void failed_text(struct deploy *d, int code, const char *text)
{
	struct err err = ERR_INIT;
	err_set(&err, code, "%s", text);
	deploy_failed(d, &err);
}

/* A request to all goes to those who are there. One whose link was just being made anew has not heard of it. */
static bool passed_over(struct deploy *d, const json_t *reply, struct err *err)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	const char *text = json_string_value(json_object_get(reply, "nodes"));
	_cleanup_rankset_ struct rankset nodes = RANKSET_INIT;
	if (text && rankset_parse(&nodes, text, d->n + 1, err) < 0)
		return true;
	for (uint32_t r = 0; r < s->size; r++)
		if (s->node_of && !rankset_has(&nodes, s->node_of[r])) {
			err_set(err, EHOSTUNREACH, "vm%u: node %s was out of reach for a moment, and has not been told to start it",
				r, d->members[s->node_of[r]].name);
			return true;
		}
	return false;
}

/* ---- down the tree ---- */

static void deploy_json(struct call *call, json_t *j, bool last)
{
	struct deploy *d = call->out_arg;
	struct cluster *c = d->agent->cluster;
	struct err err = ERR_INIT;
	const char *what = json_string_value(json_object_get(j, "event"));
	if (last) {
		d->call = NULL;
		bool bad = message_is_error(j, &err);
		if (d->step == STARTING) {
			bad = bad || passed_over(d, j, &err);
			d->step = UP;
			deploy_on_journal(d); /* before anybody is told: the VMs outlive this agent from now on */
			cluster_elsewhere_started(c, bad ? &err : NULL);
			if (d->allocation && d->allocation->job && d->allocation->job[0])
				evtimer_start(d->clock, 0, DEPLOY_CLOCK_MS);
		} else if (d->step == UP) { /* a move */
			if (bad)
				events_add(cluster_events(c), EVENT_NO_RANK, "node", "%s", err.text);
			deploy_move_next(d);
			deploy_migrations_told(d);
		} else if (d->step == ENDING) {
			d->step = ENDED;
			evtimer_start(d->bound, 0, 0);
		}
	} else if (what && strcmp(what, "progress") == 0) {
		cluster_elsewhere_progress(
			c, (uint32_t)json_integer_value(json_object_get(j, "ready")),
			(uint32_t)json_integer_value(json_object_get(j, "failed")));
	} else if (what && strcmp(what, "staging") == 0) {
		deploy_tell(d, "image to the nodes (MiB)",
			    (uint32_t)(json_integer_value(json_object_get(j, "have")) >> 20),
			    (uint32_t)(json_integer_value(json_object_get(j, "all")) >> 20));
	} else if (d->agent->creating) {
		call_event(d->agent->creating, json_incref(j));
	}
	json_decref(j);
}

void deploy_no_data(struct call *call _unused_, uint32_t rank _unused_, int fd _unused_,
		    const char *p _unused_, size_t n _unused_, bool eof _unused_)
{
}

void deploy_no_credit(struct call *call _unused_, uint32_t rank _unused_, int fd _unused_,
		      uint32_t bytes _unused_)
{
}

size_t deploy_no_backlog(const struct call *call _unused_)
{
	return 0;
}

static const struct call_out deploy_out = {
	.json = deploy_json,
	.data = deploy_no_data,
	.credit = deploy_no_credit,
	.backlog = deploy_no_backlog,
};

void deploy_ask_all(struct deploy *d, enum verb v, const json_t *req)
{
	struct err err = ERR_INIT;
	d->call = call_create(d->agent, &deploy_out, d);
	if (spread_begin(d->call, v, req, &err) < 0)
		call_fail(d->call, &err);
}

/* ---- the VMs ---- */

bool deploy_unfit(const struct member *m)
{
	return m->hypervisor && !m->hypervisor[0];
}

static json_t *hypervisors(const struct deploy *d)
{
	json_t *list = json_array();
	for (uint32_t i = 1; i <= d->n; i++) {
		const char *name = d->members[i].hypervisor;
		json_array_append_new(list, json_string(name ? name : ""));
	}
	return list;
}

/* Who keeps which templates: {"<key>": [node, ...]}. */
static json_t *templates(const struct deploy *d)
{
	json_t *all = json_object(), *key;
	for (uint32_t i = 1; i <= d->n; i++) {
		const json_t *own = d->members[i].up ? d->members[i].templates : NULL;
		size_t at;
		json_array_foreach (own, at, key)
			templates_add(all, json_string_value(key), i);
	}
	return all;
}

json_t *deploy_create_request(struct deploy *d, json_t *files)
{
	const struct cluster_spec *spec = cluster_get_spec(d->agent->cluster);
	json_t *req = json_copy(d->req), *addresses = mesh_addresses(d->agent->mesh);
	json_object_del(req, "launch");
	cluster_spec_write_place(&spec->nodes, spec->node_of, spec->size, req);
	json_object_set_new(req, "hypervisor_of", hypervisors(d));
	json_object_set_new(req, "addresses", addresses);
	json_object_set_new(req, "templates", templates(d));
	if (files)
		json_object_set_new(req, "files", files);
	return req;
}

static void start_vms(struct deploy *d, json_t *files)
{
	json_t *req = deploy_create_request(d, files);
	d->step = STARTING;
	deploy_ask_all(d, VERB_create, req);
	json_decref(req);
}

static void on_offered(void *arg, json_t *files, const struct err *err)
{
	struct deploy *d = arg;
	d->offer = NULL;
	if (err) {
		deploy_failed(d, err);
		return;
	}
	d->files = json_incref(files);
	start_vms(d, files);
}

/* ---- placement ---- */

uint32_t deploy_setting(const struct deploy *d, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(d->launch, key));
	return v > 0 && v < INT32_MAX ? (uint32_t)v : 0;
}

int deploy_plan_options(struct deploy *d, struct plan_options *o, struct err *err)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	const char *policy = json_string_value(json_object_get(d->launch, "place"));
	json_int_t max = json_integer_value(json_object_get(d->launch, "max_per_node"));
	*o = (struct plan_options){.max = (uint32_t)max,
				   .cpus = s->cpus,
				   .memory = s->memory,
				   .overhead = VM_OVERHEAD,
				   .pages = s->hugepages,
				   .oversubscribe = json_is_true(
					   json_object_get(d->launch, "oversubscribe"))};
	/* Its VMs are none: they take neither cores nor memory worth counting. */
	const char *planned = json_string_value(json_object_get(d->launch, "plan"));
	if (strcmp(planned ? planned : s->hypervisor, "fake") == 0)
		o->oversubscribe = true;
	return plan_policy_parse(policy ? policy : "spread", o, err);
}

struct plan_node deploy_plan_node(const struct deploy *d, uint32_t node)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	const struct member *m = &d->members[node];
	/* One that was not heard of since it was let in again by another root has not told its cores. */
	bool cores = s->bind.unit == BINDING_CORES && m->cores;
	struct plan_node n = {.name = m->name,
			      .cpus = cores ? MIN(m->cores, m->cpus) : m->cpus,
			      .memory = m->memory,
			      .pages = m->hugepages,
			      .down = !m->up,
			      .unfit = deploy_unfit(m) ? m->unfit : NULL};
	if (s->hugepages && !m->hugepages && m->up && !n.unfit)
		n.unfit = "hugepages: no reserved pages of 2 MiB are free there";
	return n;
}

/* malloc'ed */
static struct plan_node *plan_nodes(struct deploy *d)
{
	struct plan_node *nodes = xcalloc(d->n, sizeof(*nodes));
	for (uint32_t i = 0; i < d->n; i++) {
		nodes[i] = deploy_plan_node(d, i + 1);
		nodes[i].spare = i + deploy_setting(d, "spare") >= d->n;
	}
	return nodes;
}

/* Nodes where nothing can run these VMs are named; with --missing go-on the others take them all. */
static int check_fit(struct deploy *d, struct err *err)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	uint32_t unfit = 0;
	for (uint32_t i = 1; i <= d->n; i++) {
		const struct member *m = &d->members[i];
		if (!m->up || !deploy_unfit(m))
			continue;
		if (++unfit <= NAMED_MAX)
			buf_addf(&text, "%s%s: %.200s", unfit > 1 ? "; " : "", m->name, m->unfit);
	}
	if (!unfit || (unfit < d->n_up && json_is_true(json_object_get(d->launch, "go_on"))))
		return 0;
	if (unfit > NAMED_MAX)
		buf_addf(&text, "; and %u more", unfit - NAMED_MAX);
	return err_set(err, ENOTSUP, "%u of %u nodes cannot run these VMs: %s%s", unfit, d->n_up,
		       buf_cstr(&text), unfit < d->n_up ? " (--missing go-on does without them)" : "");
}

/* --dry-run: what would be, node by node. */
static void answer_plan(struct deploy *d)
{
	struct plan_options o;
	struct err err = ERR_INIT;
	uint32_t size = cluster_get_spec(d->agent->cluster)->size;
	_cleanup_free_ struct plan_node *nodes = plan_nodes(d);
	_cleanup_free_ uint32_t *node_of = xcalloc(size, sizeof(*node_of));
	if (d->n_up < d->n && !json_is_true(json_object_get(d->launch, "go_on")))
		err_set(&err, EHOSTUNREACH,
			"%u of %u nodes did not come up (--missing go-on does without them)",
			d->n - d->n_up, d->n);
	else if (check_fit(d, &err) == 0 && deploy_plan_options(d, &o, &err) == 0)
		plan_make(&o, nodes, d->n, size, node_of, &err);
	if (err.code)
		memset(node_of, 0, size * sizeof(*node_of));
	json_t *list = json_array();
	for (uint32_t i = 1; !deploy_plan_options(d, &o, NULL) && i <= d->n; i++) {
		_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
		_cleanup_buf_ struct buf text = BUF_INIT, why = BUF_INIT;
		for (uint32_t r = 0; r < size; r++)
			if (node_of[r] == i)
				rankset_add(&ranks, r);
		rankset_format(&ranks, &text);
		plan_why(&o, &nodes[i - 1], rankset_count(&ranks), &why);
		const struct member *m = &d->members[i];
		if (!m->up && m->why)
			buf_addf(&why, ": %s", m->why);
		if (m->up && m->hypervisor && m->hypervisor[0])
			buf_addf(&why, "; under %s%s%s", m->hypervisor, m->unfit[0] ? ": " : "",
				 m->unfit);
		_cleanup_free_ char *clean = text_cleaned(buf_cstr(&why));
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s*}", "name",
						      nodes[i - 1].name, "ranks", buf_cstr(&text),
						      "why", clean, "hypervisor", m->hypervisor));
	}
	call_reply(d->agent->creating, json_pack("{s:b, s:o, s:s}", "ok", 1, "nodes", list,
						 "problem", err.code ? err.text : ""));
}

static int place(struct deploy *d, struct err *err)
{
	struct agent *a = d->agent;
	struct plan_options o;
	uint32_t size = cluster_get_spec(a->cluster)->size;
	_cleanup_free_ struct plan_node *nodes = plan_nodes(d);
	_cleanup_free_ uint32_t *node_of = xcalloc(size, sizeof(*node_of));
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	for (uint32_t i = 0; i < d->n; i++)
		strvec_add(&names, nodes[i].name);
	if (check_fit(d, err) < 0 || deploy_plan_options(d, &o, err) < 0 ||
	    plan_make(&o, nodes, d->n, size, node_of, err) < 0)
		return -1;
	cluster_set_place(a->cluster, &names, node_of);
	return 0;
}

/* Every node has answered, or its time is over. */
static void gathered(struct deploy *d)
{
	struct err err = ERR_INIT;
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	evtimer_stop(d->bound);
	waves_settled(d->waves);
	if (json_object_get(d->launch, "plan")) {
		if (d->agent->creating)
			answer_plan(d);
		return;
	}
	if (place(d, &err) < 0) {
		deploy_failed(d, &err);
		return;
	}
	d->step = STAGING;
	if (!s->image[0]) {
		start_vms(d, NULL);
		return;
	}
	deploy_tell(d, "image to the nodes", 0, 0);
	d->offer = fabric_offer(d->agent->fabric, s, on_offered, d, &err);
	if (!d->offer)
		deploy_failed(d, &err);
}

/* ---- nodes that come, and those that do not ---- */

static void add_reasons(struct deploy *d, struct buf *text)
{
	uint32_t named = 0;
	for (uint32_t i = 1; i <= d->n; i++) {
		const struct member *m = &d->members[i];
		if (m->up || named++ >= NAMED_MAX)
			continue;
		buf_addf(text, "%s%s: %.120s", named > 1 ? "; " : "", m->name,
			 m->why ? m->why : "its agent did not answer in time");
	}
	if (named > NAMED_MAX)
		buf_addf(text, "; and %u more", named - NAMED_MAX);
}

void deploy_look(struct deploy *d)
{
	if (d->step != LAUNCHING || d->n_up + d->n_failed < d->n)
		return;
	bool go_on = json_is_true(json_object_get(d->launch, "go_on")) ||
		     json_object_get(d->launch, "plan");
	if (d->n_up == d->n || (go_on && d->n_up)) {
		gathered(d);
		return;
	}
	_cleanup_buf_ struct buf text = BUF_INIT;
	buf_addf(&text, "%u of %u nodes did not come up: ", d->n - d->n_up, d->n);
	add_reasons(d, &text);
	if (d->n_up)
		buf_adds(&text, " (--missing go-on does without them)");
	failed_text(d, EHOSTUNREACH, buf_cstr(&text));
}

void deploy_give_up_node(struct deploy *d, uint32_t node, const char *why)
{
	struct member *m = &d->members[node];
	if (m->up || m->failed)
		return;
	m->failed = true;
	m->why = xstrdup(why);
	d->n_failed++;
	events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node",
		   "%s did not come up: %s", m->name, why);
	mesh_remove(d->agent->mesh, node);
}

/* Who was on the way to another parent has not heard of the end: it is told so when it says hello. */
static void remove_nodes(struct deploy *d)
{
	for (uint32_t i = 1; d->agent->mesh && !d->removed && i <= d->n; i++)
		mesh_remove(d->agent->mesh, i);
	d->removed = true;
}

static void on_bound(void *arg)
{
	struct deploy *d = arg;
	if (d->step == ENDED) {
		bool wait = !d->removed &&
			    ((d->waves && waves_running(d->waves)) || deploy_growths_run(d));
		remove_nodes(d);
		if (wait)
			evtimer_start(d->bound, LAUNCHER_END_MS, 0);
		else
			cluster_elsewhere_down(d->agent->cluster);
		return;
	}
	if (d->step == ENDING) {
		/* Who did not answer is cut off from everybody, and ends by itself when its lease is over. */
		if (d->call)
			call_drop(TAKE_PTR(d->call));
		d->step = ENDED;
		evtimer_start(d->bound, 0, 0);
		return;
	}
	for (uint32_t i = 1; i <= d->n; i++)
		deploy_give_up_node(d, i, "its agent did not answer in time");
	deploy_look(d);
}

/* Kept over an agent's restart: the one that follows does not choose anew. */
static void note_hypervisor(struct deploy *d, struct member *m, const json_t *resources)
{
	const char *name = json_string_value(json_object_get(resources, "hypervisor")),
		   *why = json_string_value(json_object_get(resources, "why"));
	if (!name || (m->hypervisor && strcmp(name, m->hypervisor) == 0))
		return;
	free(m->hypervisor);
	free(m->unfit);
	m->hypervisor = hypervisor_find(name) ? xstrdup(name) : xstrdup("");
	m->unfit = text_cleaned(why ? why : "");
	events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node", "%s: %s%s%s", m->name,
		   m->hypervisor[0] ? m->hypervisor : "refused", m->unfit[0] ? ": " : "", m->unfit);
}

static void on_node_up(void *arg, uint32_t node, const json_t *resources)
{
	struct deploy *d = arg;
	if (node < 1 || node > d->n)
		return;
	struct member *m = &d->members[node];
	const struct launch_node *given = &m->given;
	const char *host = json_string_value(json_object_get(resources, "host"));
	uint32_t cpus = (uint32_t)json_integer_value(json_object_get(resources, "cpus"));
	uint64_t memory = (uint64_t)json_integer_value(json_object_get(resources, "memory"));
	if (!m->name[0] && host) {
		free(m->name);
		m->name = text_cleaned(host);
	}
	m->cores = (uint32_t)json_integer_value(json_object_get(resources, "cores"));
	uint64_t pages = (uint64_t)json_integer_value(json_object_get(resources, "hugepages"));
	m->hugepages = MAX(m->hugepages, pages); /* one that comes back has its VMs in them */
	/* An agent that follows another does not probe: what it has is what its kernel sees, which under Xen is dom0's share. */
	if (!m->hypervisor || json_object_get(resources, "hypervisor")) {
		m->cpus = given->cores ? MIN(given->cores, cpus ? cpus : given->cores) : cpus;
		m->memory = given->memory && memory ? MIN(given->memory, memory)
						    : given->memory + memory;
	}
	note_hypervisor(d, m, resources);
	json_decref(m->templates);
	m->templates = json_incref(json_object_get(resources, "templates"));
	if (m->up)
		return;
	bool again = m->failed;
	m->up = true;
	m->failed = m->safe = false;
	free(TAKE_PTR(m->why));
	d->n_up++;
	d->n_failed -= again;
	events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node", "%s is up", m->name);
	deploy_note_change(d);
	if (deploy_growth_up(d, node))
		return;
	if (d->step == UP)
		deploy_tell_places(d);
	if (d->step == LAUNCHING) {
		deploy_tell(d, "starting agents", d->n_up, d->n);
		deploy_start_branch(d, node);
	}
	deploy_look(d);
}

static void on_node_lost(void *arg, uint32_t node, const char *why)
{
	struct deploy *d = arg;
	if (node < 1 || node > d->n || !d->members[node].up)
		return;
	struct member *m = &d->members[node];
	m->up = false;
	m->why = xstrdup(why);
	d->n_up--;
	if (d->step >= ENDING)
		return;
	m->failed = true;
	d->n_failed++;
	if (m->removed)
		events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node",
			   "%s was removed", m->name);
	else
		events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node",
			   "%s is lost: %s", m->name, why);
	log_warn("node %s is lost: %s", m->name, why);
	fabric_node_lost(d->agent->fabric, node);
	deploy_migrations_lost(d, node);
	deploy_note_change(d);
	if (d->step == UP && !d->n_up) {
		events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "cluster",
			   "every node is lost: ending");
		evtimer_start(d->forsaken, 0, 0);
	}
	deploy_look(d);
}

static void on_node_safe(void *arg, uint32_t node)
{
	struct deploy *d = arg;
	if (node < 1 || node > d->n || d->step >= ENDING)
		return;
	d->members[node].safe = true;
	events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node",
		   "no VM runs on %s any more", d->members[node].name);
	deploy_recover(d, node);
}

/* The root is not let in by anybody. */
static void no_fence(void *arg _unused_)
{
}

static void on_end(void *arg _unused_, const char *why)
{
	log_warn("the overlay of the root ends: %s", why);
}

static void on_net(void *arg, uint32_t node, struct stream *s)
{
	struct deploy *d = arg;
	if (d->agent->fabric)
		fabric_net_link(d->agent->fabric, node, s);
	else
		stream_destroy(s);
}

static void on_bulk(void *arg, uint32_t node, struct stream *s)
{
	struct deploy *d = arg;
	if (d->agent->fabric)
		fabric_bulk_link(d->agent->fabric, node, s);
	else
		stream_destroy(s);
}

static void on_state(void *arg _unused_, uint32_t node _unused_, struct stream *s)
{
	stream_destroy(s); /* no VM runs here */
}

const struct mesh_ops deploy_mesh_ops = {
	.on_node_up = on_node_up,
	.on_node_lost = on_node_lost,
	.on_node_safe = on_node_safe,
	.on_admitted = no_fence,
	.on_fenced = no_fence,
	.on_end = on_end,
	.on_net = on_net,
	.on_bulk = on_bulk,
	.on_state = on_state,
	.on_template = on_state,
};

/* ---- the job's end ---- */

static void on_forsaken(void *arg)
{
	struct deploy *d = arg;
	agent_down(d->agent, false);
}

static void on_time_left(void *arg, int64_t seconds)
{
	struct deploy *d = arg;
	struct events *events = cluster_events(d->agent->cluster);
	char text[24];
	uint64_t before = deploy_setting(d, "before_end_ms");
	time_query_destroy(TAKE_PTR(d->query));
	d->left_s = seconds;
	if (seconds < 0 || d->step >= ENDING)
		return;
	duration_format((uint64_t)seconds * 1000, text);
	if (before && (uint64_t)seconds * 1000 <= before) {
		events_add(events, EVENT_NO_RANK, "cluster", "the job ends in %s: stopping the VMs",
			   text);
		agent_down(d->agent, true);
		return;
	}
	if (seconds <= WARN_S && !d->warned)
		events_add(events, EVENT_NO_RANK, "cluster", "the job ends in %s", text);
	d->warned = seconds <= WARN_S;
}

static void on_clock(void *arg)
{
	struct deploy *d = arg;
	if (d->step == UP && !d->query && d->allocation)
		d->query = launcher_time_left(d->agent->loop, d->allocation, on_time_left, d);
}

/* ---- life ---- */

bool deploy_wanted(const json_t *req)
{
	return json_is_object(json_object_get(req, "launch"));
}

struct deploy *deploy_make(struct agent *a, const json_t *req)
{
	struct deploy *d = xcalloc(1, sizeof(*d));
	*d = (struct deploy){.agent = a, .req = json_copy((json_t *)req), .held = -1};
	if (!a->request) /* of a root that follows another */
		a->request = json_copy((json_t *)req);
	d->launch = json_object_get(d->req, "launch");
	d->moves = json_object();
	d->bound = evtimer_create(a->loop, on_bound, d);
	d->journal = evtimer_create(a->loop, deploy_on_journal, d);
	d->forsaken = evtimer_create(a->loop, on_forsaken, d);
	d->clock = evtimer_create(a->loop, on_clock, d);
	d->left_s = -1;
	a->deploy = d;
	cluster_start_elsewhere(a->cluster);
	return d;
}

int deploy_start(struct agent *a, const json_t *req, struct err *err)
{
	return deploy_allocate(deploy_make(a, req), err);
}

void deploy_down(struct deploy *d, bool graceful)
{
	struct agent *a = d->agent;
	if (d->step >= ENDING && !(d->step == ENDING && !graceful))
		return;
	allocating_destroy(TAKE_PTR(d->allocating));
	if (d->offer)
		fabric_offer_cancel(TAKE_PTR(d->offer));
	if (d->call)
		call_drop(TAKE_PTR(d->call));
	deploy_growths_stop(d);
	deploy_shrinks_stop(d);
	deploy_migrations_stop(d);
	d->step = ENDING;
	uint64_t bound = graceful ? cluster_get_spec(a->cluster)->stop_timeout_ms + GRACEFUL_MS
				  : DOWN_MS;
	evtimer_start(d->bound, bound, 0);
	if (!a->mesh) {
		d->step = ENDED;
		evtimer_start(d->bound, 0, 0);
		return;
	}
	/* Who is on its way, or was lost and comes back, is told to end as soon as it says hello: a manager that ends it
	 * would do so by SIGKILL, with all that could clean up after it. */
	for (uint32_t i = 1; i <= d->n; i++)
		if (!d->members[i].up)
			mesh_remove(a->mesh, i);
	json_t *req = json_pack("{s:s, s:b}", "verb", "down", "graceful", graceful);
	deploy_ask_all(d, VERB_down, req);
	json_decref(req);
}

void deploy_destroy(struct deploy *d)
{
	if (!d)
		return;
	allocating_destroy(d->allocating);
	if (d->offer)
		fabric_offer_cancel(d->offer);
	if (d->call)
		call_drop(d->call);
	while (d->branches) {
		struct call *call = d->branches->call;
		deploy_branch_end(d->branches);
		call_drop(call);
	}
	deploy_growths_stop(d);
	deploy_growths_destroy(d);
	deploy_shrinks_stop(d);
	deploy_migrations_stop(d);
	waves_destroy(d->waves);
	reaper_drop(d->agent->reaper, d->held);
	allocation_destroy(d->allocation);
	json_decref(d->files);
	for (uint32_t i = 1; d->members && i <= d->n; i++) {
		free(d->members[i].name);
		free(d->members[i].why);
		free(d->members[i].hypervisor);
		free(d->members[i].unfit);
		json_decref(d->members[i].templates);
	}
	free(d->members);
	evtimer_destroy(d->bound);
	json_decref(d->req);
	json_decref(d->moves);
	evtimer_destroy(d->journal);
	evtimer_destroy(d->forsaken);
	evtimer_destroy(d->clock);
	time_query_destroy(d->query);
	bootstrap_finish(&d->bootstrap);
	free(d);
}
