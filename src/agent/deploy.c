/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/deploy.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "agent/bootstrap.h"
#include "agent/fabric.h"
#include "agent/spread.h"
#include "agent/state.h"
#include "agent/waves.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/size.h"
#include "base/text.h"
#include "cluster/plan.h"
#include "launcher/launcher.h"
#include "overlay/overlay.h"
#include "wire/message.h"

#define NODES_MAX 100000
#define UP_MS 60000 /* from the start of the agents until all have joined, unless asked otherwise */
#define VM_OVERHEAD                                                                                \
	(64u << 20) /* bytes: a VMM beside its guest's memory (QEMU 7.2 measured: 35-60 MiB) */
#define DOWN_MS 10000
#define GRACEFUL_MS 10000    /* on top of the VMs' own bound */
#define LAUNCHER_END_MS 3000 /* for the launcher to see that its agents are gone */
#define JOURNAL "journal"
#define JOURNAL_MS 20            /* changes that come together are written together */
#define JOURNAL_MAX (256u << 20) /* bytes */
#define CLOCK_MS 30000 /* between questions for the time left: each runs a program of the manager */
#define WARN_S 300
#define NAMED_MAX 4 /* nodes whose reason is told in one error */

enum step { ALLOCATING, LAUNCHING, STAGING, STARTING, UP, ENDING, ENDED };

struct member {
	char *name, *why; /* why: it did not come, or was lost */
	uint32_t cpus;
	uint64_t memory;
	bool up, failed;
	bool direct; /* the root starts its agent itself */
};

struct deploy {
	struct agent *agent;
	json_t *req, *launch; /* launch: borrowed from req */
	enum step step;
	const struct launcher *launcher;
	struct allocating *allocating;
	struct allocation *allocation;
	struct waves *waves;
	struct branch *branches; /* requests to agents to start their children */
	bool tree, told_flat;
	struct member *members; /* 1..n */
	uint32_t n, n_up, n_failed;
	struct evtimer *bound;
	struct fabric_offer *offer;
	struct call *call; /* the request that goes down the tree: create, then moves, then down */
	json_t *moves;     /* that wait until the one before is over */
	struct bootstrap bootstrap;
	struct evtimer *journal;  /* writes it soon */
	struct evtimer *forsaken; /* ends a cluster that has no node any more */
	struct evtimer *clock;    /* asks for the time that is left of the job */
	struct time_query *query;
	int64_t left_s; /* of the job; -1: not known, or no limit */
	bool warned;
};

static void move_next(struct deploy *d);
static void start_branch(struct deploy *d, uint32_t node);

/* ---- the journal ---- */

/* One file, replaced as a whole: what a root that is started again needs to know. It holds the secret: it lies in the
 * run directory (0700) and has mode 0600. Until the cluster is up there is none: who dies before then takes the
 * start with him. */
static void on_journal(void *arg)
{
	struct deploy *d = arg;
	struct agent *a = d->agent;
	struct err err = ERR_INIT;
	const struct cluster_spec *s = cluster_get_spec(a->cluster);
	if (d->step != UP)
		return;
	json_t *req = json_copy(d->req), *nodes = json_array();
	cluster_spec_write_place(&s->nodes, s->node_of, s->size, req);
	for (uint32_t i = 1; i <= d->n; i++) {
		const struct member *m = &d->members[i];
		json_array_append_new(nodes, json_pack("{s:s, s:b, s:I, s:I, s:s*}", "name", m->name,
						       "up", m->up, "cpus", (json_int_t)m->cpus,
						       "memory", (json_int_t)m->memory, "why", m->why));
	}
	_cleanup_free_ char *line = bootstrap_write(&d->bootstrap, &err),
			    *path = path_join(a->dir, JOURNAL);
	_cleanup_json_ json_t *j =
		json_pack("{s:o, s:s, s:o, s:o, s:s, s:s}", "req", req, "bootstrap",
			  line ? line : "", "mesh", mesh_journal(a->mesh), "nodes", nodes,
			  "launcher", d->launcher ? d->launcher->name : "", "job",
			  d->allocation && d->allocation->job ? d->allocation->job : "");
	_cleanup_free_ char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	if (!text || path_write(path, text, strlen(text), 0600, &err) < 0)
		log_warn("the journal cannot be written: %s", err.text);
}

static void note_change(struct deploy *d)
{
	if (d->step == UP)
		evtimer_start(d->journal, JOURNAL_MS, 0);
}

/* ---- telling ---- */

static void tell(struct deploy *d, const char *text, uint32_t done, uint32_t all)
{
	struct agent *a = d->agent;
	if (a->creating)
		call_event(a->creating, json_pack("{s:s, s:s, s:I, s:I}", "event", "step", "text", text,
						  "done", (json_int_t)done, "all", (json_int_t)all));
}

static void failed(struct deploy *d, const struct err *why)
{
	evtimer_stop(d->bound);
	cluster_elsewhere_started(d->agent->cluster, why);
}

static void failed_text(struct deploy *d, int code, const char *text)
{
	struct err err = ERR_INIT;
	err_set(&err, code, "%s", text);
	failed(d, &err);
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
			d->step = UP;
			on_journal(d); /* before anybody is told: the VMs outlive this agent from now on */
			cluster_elsewhere_started(c, bad ? &err : NULL);
			if (d->allocation && d->allocation->job && d->allocation->job[0])
				evtimer_start(d->clock, 0, CLOCK_MS);
		} else if (d->step == UP) { /* a move */
			if (bad)
				events_add(cluster_events(c), EVENT_NO_RANK, "node", "%s", err.text);
			move_next(d);
		} else if (d->step == ENDING) {
			d->step = ENDED;
			evtimer_start(d->bound,
				      d->waves && waves_running(d->waves) ? LAUNCHER_END_MS : 0, 0);
		}
	} else if (what && strcmp(what, "progress") == 0) {
		cluster_elsewhere_progress(
			c, (uint32_t)json_integer_value(json_object_get(j, "ready")),
			(uint32_t)json_integer_value(json_object_get(j, "failed")));
	} else if (what && strcmp(what, "staging") == 0) {
		tell(d, "image to the nodes (MiB)",
		     (uint32_t)(json_integer_value(json_object_get(j, "have")) >> 20),
		     (uint32_t)(json_integer_value(json_object_get(j, "all")) >> 20));
	} else if (d->agent->creating) {
		call_event(d->agent->creating, json_incref(j));
	}
	json_decref(j);
}

static void no_data(struct call *call _unused_, uint32_t rank _unused_, int fd _unused_,
		    const char *p _unused_, size_t n _unused_, bool eof _unused_)
{
}

static void no_credit(struct call *call _unused_, uint32_t rank _unused_, int fd _unused_,
		      uint32_t bytes _unused_)
{
}

static size_t no_backlog(const struct call *call _unused_)
{
	return 0;
}

static const struct call_out deploy_out = {
	.json = deploy_json,
	.data = no_data,
	.credit = no_credit,
	.backlog = no_backlog,
};

static void ask_all(struct deploy *d, enum verb v, const json_t *req)
{
	struct err err = ERR_INIT;
	d->call = call_create(d->agent, &deploy_out, d);
	if (spread_begin(d->call, v, req, &err) < 0)
		call_fail(d->call, &err);
}

/* ---- the VMs ---- */

static void start_vms(struct deploy *d, json_t *files)
{
	const struct cluster_spec *spec = cluster_get_spec(d->agent->cluster);
	json_t *req = json_copy(d->req), *addresses = mesh_addresses(d->agent->mesh);
	json_object_del(req, "launch");
	cluster_spec_write_place(&spec->nodes, spec->node_of, spec->size, req);
	json_object_set_new(req, "addresses", addresses);
	if (files)
		json_object_set_new(req, "files", files);
	d->step = STARTING;
	ask_all(d, VERB_create, req);
	json_decref(req);
}

static void on_offered(void *arg, json_t *files, const struct err *err)
{
	struct deploy *d = arg;
	d->offer = NULL;
	if (err)
		failed(d, err);
	else
		start_vms(d, files);
}

/* ---- placement ---- */

static uint32_t setting(const struct deploy *d, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(d->launch, key));
	return v > 0 && v < INT32_MAX ? (uint32_t)v : 0;
}

static int plan_options(struct deploy *d, struct plan_options *o, struct err *err)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	const char *policy = json_string_value(json_object_get(d->launch, "place"));
	json_int_t max = json_integer_value(json_object_get(d->launch, "max_per_node"));
	*o = (struct plan_options){.max = (uint32_t)max,
				   .cpus = s->cpus,
				   .memory = s->memory,
				   .overhead = VM_OVERHEAD,
				   .oversubscribe = json_is_true(
					   json_object_get(d->launch, "oversubscribe"))};
	/* Its VMs are none: they take neither cores nor memory worth counting. */
	if (strcmp(s->hypervisor, "fake") == 0)
		o->oversubscribe = true;
	return plan_policy_parse(policy ? policy : "spread", o, err);
}

static int place(struct deploy *d, struct err *err)
{
	struct agent *a = d->agent;
	struct plan_options o;
	uint32_t size = cluster_get_spec(a->cluster)->size;
	_cleanup_free_ struct plan_node *nodes = xcalloc(d->n, sizeof(*nodes));
	_cleanup_free_ uint32_t *node_of = xcalloc(size, sizeof(*node_of));
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	for (uint32_t i = 0; i < d->n; i++) {
		const struct member *m = &d->members[i + 1];
		nodes[i] = (struct plan_node){.name = m->name,
					      .cpus = m->cpus,
					      .memory = m->memory,
					      .down = !m->up,
					      .spare = i + setting(d, "spare") >= d->n};
		strvec_add(&names, m->name);
	}
	if (plan_options(d, &o, err) < 0 || plan_make(&o, nodes, d->n, size, node_of, err) < 0)
		return -1;
	cluster_set_place(a->cluster, &names, node_of);
	return 0;
}

/* ---- VMs of lost nodes ---- */

/* A node that comes back has missed what was moved meanwhile; to the others this is no news. */
static void tell_places(struct deploy *d)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	json_t *j = json_object();
	cluster_spec_write_place(&s->nodes, s->node_of, s->size, j);
	json_decref(d->moves);
	d->moves = json_incref(json_object_get(j, "place"));
	json_decref(j);
	move_next(d);
}

static void move_next(struct deploy *d)
{
	if (d->step != UP || d->call || !json_object_size(d->moves))
		return;
	json_t *req = json_pack("{s:s, s:o, s:b}", "verb", "move", "place", d->moves, "start",
				json_is_true(json_object_get(d->launch, "recover")));
	d->moves = json_object();
	ask_all(d, VERB_move, req);
	json_decref(req);
}

/* The node with the most room left, given what each has now; 0: none has any. */
static uint32_t roomiest(struct deploy *d, const struct plan_options *o, const uint32_t *used)
{
	uint32_t best = 0;
	int64_t most = 0;
	for (uint32_t i = 1; i <= d->n; i++) {
		const struct member *m = &d->members[i];
		struct plan_node node = {
			.name = m->name, .cpus = m->cpus, .memory = m->memory, .down = !m->up};
		int64_t left = (int64_t)plan_room(o, &node) - used[i];
		if (left > most) {
			most = left;
			best = i;
		}
	}
	return best;
}

static void add_move(struct deploy *d, uint32_t node, const struct rankset *ranks)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	char key[16];
	snprintf(key, sizeof(key), "%u", node);
	const char *before = json_string_value(json_object_get(d->moves, key));
	buf_addf(&text, "%s%s", before ? before : "", before ? "," : "");
	rankset_format(ranks, &text);
	json_object_set_new(d->moves, key, json_string(buf_cstr(&text)));
}

/* One VM of a lost node begins anew on another. */
static void recover_vm(struct deploy *d, uint32_t rank, uint32_t from, uint32_t to)
{
	struct cluster *c = d->agent->cluster;
	_cleanup_rankset_ struct rankset one = RANKSET_INIT;
	if (!to) {
		events_add(cluster_events(c), rank, "node",
			   "lost with %s: no other node has room for it", d->members[from].name);
		return;
	}
	events_add(cluster_events(c), rank, "node", "lost with %s: begins anew on %s",
		   d->members[from].name, d->members[to].name);
	rankset_add(&one, rank);
	cluster_move(c, rank, to, false, NULL);
	note_change(d);
	add_move(d, to, &one);
}

/* No VM of this node can run any more. */
static void recover(struct deploy *d, uint32_t node)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	struct plan_options o;
	struct err err = ERR_INIT;
	_cleanup_free_ uint32_t *used = xcalloc(d->n + 1, sizeof(*used));
	if (d->step != UP || !json_is_true(json_object_get(d->launch, "recover")) ||
	    plan_options(d, &o, &err) < 0)
		return;
	for (uint32_t r = 0; r < s->size; r++)
		used[s->node_of[r]]++;
	for (uint32_t r = 0; r < s->size; r++) {
		if (s->node_of[r] != node)
			continue;
		uint32_t to = roomiest(d, &o, used);
		used[to]++;
		recover_vm(d, r, node, to);
	}
	move_next(d);
}

/* Every node has answered, or its time is over. */
static void gathered(struct deploy *d)
{
	struct err err = ERR_INIT;
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	evtimer_stop(d->bound);
	waves_settled(d->waves);
	if (place(d, &err) < 0) {
		failed(d, &err);
		return;
	}
	d->step = STAGING;
	if (!s->image[0]) {
		start_vms(d, NULL);
		return;
	}
	tell(d, "image to the nodes", 0, 0);
	d->offer = fabric_offer(d->agent->fabric, s, on_offered, d, &err);
	if (!d->offer)
		failed(d, &err);
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

static void look(struct deploy *d)
{
	if (d->step != LAUNCHING || d->n_up + d->n_failed < d->n)
		return;
	bool go_on = json_is_true(json_object_get(d->launch, "go_on"));
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

static void give_up_node(struct deploy *d, uint32_t node, const char *why)
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

static void on_bound(void *arg)
{
	struct deploy *d = arg;
	if (d->step == ENDED) {
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
		give_up_node(d, i, "its agent did not answer in time");
	look(d);
}

static void on_node_up(void *arg, uint32_t node, const json_t *resources)
{
	struct deploy *d = arg;
	if (node < 1 || node > d->n)
		return;
	struct member *m = &d->members[node];
	static const struct launch_node unknown;
	const struct launch_node *given = d->allocation ? &d->allocation->nodes[node - 1] : &unknown;
	const char *host = json_string_value(json_object_get(resources, "host"));
	uint32_t cpus = (uint32_t)json_integer_value(json_object_get(resources, "cpus"));
	uint64_t memory = (uint64_t)json_integer_value(json_object_get(resources, "memory"));
	if (!m->name[0] && host) {
		free(m->name);
		m->name = text_cleaned(host);
	}
	m->cpus = given->cores ? MIN(given->cores, cpus ? cpus : given->cores) : cpus;
	m->memory = given->memory && memory ? MIN(given->memory, memory) : given->memory + memory;
	if (m->up)
		return;
	bool again = m->failed;
	m->up = true;
	m->failed = false;
	free(TAKE_PTR(m->why));
	d->n_up++;
	d->n_failed -= again;
	events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node", "%s is up", m->name);
	note_change(d);
	if (d->step == UP)
		tell_places(d);
	if (d->step == LAUNCHING) {
		tell(d, "starting agents", d->n_up, d->n);
		start_branch(d, node);
	}
	look(d);
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
	events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node", "%s is lost: %s",
		   m->name, why);
	log_warn("node %s is lost: %s", m->name, why);
	fabric_node_lost(d->agent->fabric, node);
	note_change(d);
	if (d->step == UP && !d->n_up) {
		events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "cluster",
			   "every node is lost: ending");
		evtimer_start(d->forsaken, 0, 0);
	}
	look(d);
}

static void on_node_safe(void *arg, uint32_t node)
{
	struct deploy *d = arg;
	if (node < 1 || node > d->n || d->step >= ENDING)
		return;
	events_add(cluster_events(d->agent->cluster), EVENT_NO_RANK, "node",
		   "no VM runs on %s any more", d->members[node].name);
	recover(d, node);
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

static const struct mesh_ops mesh_ops = {
	.on_node_up = on_node_up,
	.on_node_lost = on_node_lost,
	.on_node_safe = on_node_safe,
	.on_admitted = no_fence,
	.on_fenced = no_fence,
	.on_end = on_end,
	.on_net = on_net,
	.on_bulk = on_bulk,
};

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
		give_up_node(d, nodes[i], err.text);
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

struct branch {
	struct deploy *deploy;
	struct branch *next;
	struct call *call;
	uint32_t node;
};

static void branch_end(struct branch *b)
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
		branch_end(b);
		if (message_is_error(j, &err) && d->step == LAUNCHING)
			start_children_here(d, node);
	} else if (what && strcmp(what, "failed") == 0) {
		branch_failed(d, j);
	}
	json_decref(j);
}

static const struct call_out branch_out = {
	.json = branch_json,
	.data = no_data,
	.credit = no_credit,
	.backlog = no_backlog,
};

/* A node has come up: its children are its own to start. */
static void start_branch(struct deploy *d, uint32_t node)
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
	give_up_node(d, node, why->text);
	if (d->tree)
		start_children_here(d, node);
	look(d);
}

static void on_launch_ended(void *arg)
{
	struct deploy *d = arg;
	if (d->step == ENDED)
		evtimer_start(d->bound, 0, 0);
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
static int make_mesh(struct deploy *d, const json_t *journal, struct err *err)
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
	a->mesh = mesh_create(a, &c, &mesh_ops, d, err);
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

static int start_agents(struct deploy *d, struct err *err)
{
	struct bootstrap *b = &d->bootstrap;
	d->step = LAUNCHING;
	tell(d, "starting agents", 0, d->n);
	if (make_secret(b, err) < 0)
		return -1;
	b->name = xstrdup(d->agent->name);
	b->fanout = setting(d, "fanout");
	b->beat_ms = setting(d, "beat_ms");
	b->lost_ms = setting(d, "lost_ms");
	b->give_up_ms = setting(d, "give_up_ms");
	for (size_t i = 0; i < d->n; i++)
		strvec_add(&b->nodes, d->allocation->nodes[i].name);
	if (make_mesh(d, NULL, err) < 0 || launch(d, err) < 0)
		return -1;
	mesh_start(d->agent->mesh);
	uint32_t bound = setting(d, "up_ms");
	evtimer_start(d->bound, bound ? bound : UP_MS, 0);
	return 0;
}

/* ---- the nodes ---- */

static void on_allocation_progress(void *arg, const char *text)
{
	tell(arg, text, 0, 0);
}

static void on_allocated(void *arg, struct allocation *al)
{
	struct deploy *d = arg;
	struct err err = ERR_INIT;
	allocating_destroy(TAKE_PTR(d->allocating));
	d->allocation = al;
	d->n = (uint32_t)al->n_nodes;
	d->members = xcalloc(d->n + 1, sizeof(*d->members));
	for (uint32_t i = 1; i <= d->n; i++)
		d->members[i].name = xstrdup(al->nodes[i - 1].name);
	if (!d->n || d->n > NODES_MAX)
		err_set(&err, EINVAL, "%u nodes: 1 to %d are possible", d->n, NODES_MAX);
	if (err.code || start_agents(d, &err) < 0)
		failed(d, &err);
}

static void on_not_allocated(void *arg, const struct err *why)
{
	struct deploy *d = arg;
	allocating_destroy(TAKE_PTR(d->allocating));
	failed(d, why);
}

static const struct allocate_ops allocate_ops = {
	.on_progress = on_allocation_progress,
	.on_ready = on_allocated,
	.on_failed = on_not_allocated,
};

static int allocate(struct deploy *d, struct err *err)
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
		.nodes = setting(d, "nodes"),
		.args = &args,
		.wait_ms = setting(d, "wait_ms")};
	const struct launcher *tells;
	if (launcher_pick(&r, &tells, why, err) < 0)
		return -1;
	const char *how = json_string_value(json_object_get(d->launch, "start"));
	d->launcher = how ? launcher_find(how) : tells;
	if (!d->launcher)
		return err_set(err, EINVAL, "--start %.40s: there is no launcher of that name", how);
	tell(d, "getting nodes", 0, 0);
	d->allocating = launcher_allocate(tells, d->agent->loop, &r, &allocate_ops, d, err);
	return d->allocating ? 0 : -1;
}

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
	uint64_t before = setting(d, "before_end_ms");
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

static struct deploy *make(struct agent *a, const json_t *req)
{
	struct deploy *d = xcalloc(1, sizeof(*d));
	*d = (struct deploy){.agent = a, .req = json_copy((json_t *)req)};
	d->launch = json_object_get(d->req, "launch");
	d->moves = json_object();
	d->bound = evtimer_create(a->loop, on_bound, d);
	d->journal = evtimer_create(a->loop, on_journal, d);
	d->forsaken = evtimer_create(a->loop, on_forsaken, d);
	d->clock = evtimer_create(a->loop, on_clock, d);
	d->left_s = -1;
	a->deploy = d;
	cluster_start_elsewhere(a->cluster);
	return d;
}

int deploy_start(struct agent *a, const json_t *req, struct err *err)
{
	return allocate(make(a, req), err);
}

static int read_journal(struct agent *a, json_t **ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(a->dir, JOURNAL), *text = NULL;
	size_t len;
	json_error_t where;
	if (path_read(path, JOURNAL_MAX, &text, &len, err) < 0)
		return -1;
	*ret = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	return *ret ? 0 : err_set(err, EPROTO, "%s: line %d: %s", path, where.line, where.text);
}

static int resume_members(struct deploy *d, const json_t *nodes, struct err *err)
{
	const json_t *v;
	size_t i;
	d->n = (uint32_t)json_array_size(nodes);
	if (d->n != d->bootstrap.nodes.n)
		return err_set(err, EPROTO, "the journal has %u nodes, and the names of %zu", d->n,
			       d->bootstrap.nodes.n);
	d->members = xcalloc(d->n + 1, sizeof(*d->members));
	json_array_foreach (nodes, i, v) {
		struct member *m = &d->members[i + 1];
		const char *name = json_string_value(json_object_get(v, "name"));
		*m = (struct member){
			.name = xstrdup(name ? name : ""),
			.why = xstrdup(json_string_value(json_object_get(v, "why"))),
			.cpus = (uint32_t)json_integer_value(json_object_get(v, "cpus")),
			.memory = (uint64_t)json_integer_value(json_object_get(v, "memory")),
			.up = json_is_true(json_object_get(v, "up"))};
		m->failed = !m->up;
		d->n_up += m->up;
		d->n_failed += m->failed;
	}
	return 0;
}

int deploy_resume(struct agent *a, struct err *err)
{
	_cleanup_json_ json_t *j = NULL;
	struct cluster_spec spec;
	if (read_journal(a, &j, err) < 0)
		return -1;
	const json_t *req = json_object_get(j, "req");
	const char *line = json_string_value(json_object_get(j, "bootstrap")),
		   *launcher = json_string_value(json_object_get(j, "launcher"));
	if (cluster_spec_read(req, &spec, err) < 0)
		return -1;
	a->cluster = cluster_create(a->loop, &spec, 0, a->dir, &agent_cluster_ops, a, err);
	if (!a->cluster)
		return -1;
	cluster_events(a->cluster)->on_event = agent_on_event;
	cluster_events(a->cluster)->arg = a;
	struct deploy *d = make(a, req);
	d->launcher = launcher ? launcher_find(launcher) : NULL;
	if (bootstrap_parse(line ? line : "", line ? strlen(line) : 0, &d->bootstrap, err) < 0 ||
	    resume_members(d, json_object_get(j, "nodes"), err) < 0 ||
	    make_mesh(d, json_object_get(j, "mesh"), err) < 0)
		return -1;
	d->step = UP;
	cluster_elsewhere_started(a->cluster, NULL);
	events_add(cluster_events(a->cluster), EVENT_NO_RANK, "cluster",
		   "the root agent was started again");
	mesh_start(a->mesh);
	note_change(d);
	return 0;
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
	d->step = ENDING;
	uint64_t bound = graceful ? cluster_get_spec(a->cluster)->stop_timeout_ms + GRACEFUL_MS
				  : DOWN_MS;
	evtimer_start(d->bound, bound, 0);
	if (!a->mesh) {
		d->step = ENDED;
		evtimer_start(d->bound, 0, 0);
		return;
	}
	json_t *req = json_pack("{s:s, s:b}", "verb", "down", "graceful", graceful);
	ask_all(d, VERB_down, req);
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
		branch_end(d->branches);
		call_drop(call);
	}
	waves_destroy(d->waves);
	allocation_destroy(d->allocation);
	for (uint32_t i = 1; d->members && i <= d->n; i++) {
		free(d->members[i].name);
		free(d->members[i].why);
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

/* ---- status ---- */

static json_t *lost_vm(struct deploy *d, uint32_t rank)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	uint32_t node = s->node_of ? s->node_of[rank] : 0;
	const struct member *m = node >= 1 && node <= d->n ? &d->members[node] : NULL;
	bool begun = d->step >= STARTING;
	char ip[16];
	_cleanup_free_ char *name = xasprintf("vm%u", rank);
	address_ipv4_text(address_ipv4(&s->subnet, rank), ip);
	_cleanup_free_ char *reason = xasprintf("%s", !begun        ? ""
						      : m && m->why ? m->why
						      : m && m->up  ? "its node runs it no more"
								    : "its node does not answer");
	_cleanup_free_ char *clean = text_cleaned(reason);
	return json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:s}", "rank", (int)rank,
			 "name", name, "state", begun ? "lost" : "planned", "reason", clean, "address",
			 ip, "uptime_ms", (json_int_t)0, "ready_ms", (json_int_t)0, "memory_used",
			 (json_int_t)0, "cpu_ms", (json_int_t)0, "pid", 0, "node", m ? m->name : "");
}

static json_t *node_list(struct deploy *d)
{
	json_t *list = json_array();
	for (uint32_t i = 1; i <= d->n; i++) {
		const struct member *m = &d->members[i];
		_cleanup_free_ char *why = text_cleaned(m->why ? m->why : "");
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s, s:I, s:I}", "index",
						      (int)i, "name", m->name, "state",
						      m->up       ? "up"
						      : m->failed ? "lost"
								  : "starting",
						      "reason", why, "cpus", (json_int_t)m->cpus,
						      "memory", (json_int_t)m->memory));
	}
	return list;
}

void deploy_status(struct deploy *d, json_t *status)
{
	uint32_t size = cluster_get_spec(d->agent->cluster)->size;
	json_t **by_rank = xcalloc(size, sizeof(json_t *)), *vm, *all = json_array();
	size_t i;
	json_array_foreach (json_object_get(status, "vms"), i, vm) {
		json_int_t r = json_integer_value(json_object_get(vm, "rank"));
		if (r >= 0 && r < size)
			by_rank[r] = vm;
	}
	for (uint32_t r = 0; r < size; r++) {
		if (by_rank[r])
			json_array_append(all, by_rank[r]);
		else
			json_array_append_new(all, lost_vm(d, r));
	}
	free(by_rank);
	json_object_set_new(status, "vms", all);
	json_object_set_new(status, "nodes", node_list(d));
	if (d->left_s >= 0)
		json_object_set_new(status, "time_left_s", json_integer(d->left_s));
	json_object_set_new(status, "launcher", json_string(d->launcher ? d->launcher->name : ""));
	json_object_set_new(status, "job",
			    json_string(d->allocation && d->allocation->job ? d->allocation->job : ""));
}
