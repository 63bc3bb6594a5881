/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster as a whole: create, keep, status, events, down. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "agent/node.h"
#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "base/proc.h"
#include "wire/message.h"

#define FOLLOWER_BACKLOG                                                                           \
	(4u << 20) /* bytes: a follower that reads no more than this behind is cut off */

int service_hello(struct call *call, const json_t *req, struct err *err)
{
	json_int_t version;
	if (message_int(req, "version", 0, INT32_MAX, &version, err) < 0)
		return -1;
	if (version != MESSAGE_VERSION)
		return err_set(err, EPROTO, "the agent of cluster '%s' speaks version %d, this vse %d: use the vse that started it",
			       call->agent->name, MESSAGE_VERSION, (int)version);
	call_reply(call, json_pack("{s:b, s:i, s:s, s:s}", "ok", 1, "version", MESSAGE_VERSION,
				   "name", call->agent->name, "program", VSE_VERSION));
	return 0;
}

/* ---- create ---- */

static void on_create_end(struct call *call)
{
	call->agent->creating = NULL;
}

static const struct call_ops create_ops = {.on_end = on_create_end};

/* No VM of the cluster is here, nor anywhere yet. */
static void place_nowhere(struct cluster_spec *s)
{
	free(s->node_of);
	s->node_of = xcalloc(s->size, sizeof(*s->node_of));
	memset(s->node_of, 0xff, s->size * sizeof(*s->node_of));
}

static int begin_cluster(struct agent *a, const json_t *req, struct err *err)
{
	if (deploy_wanted(req))
		return deploy_start(a, req, err);
	if (a->fabric && fabric_join(a->fabric, a->cluster, err) < 0)
		return -1;
	return cluster_start(a->cluster, err);
}

/* req: of a node, with the paths of its own files. */
static int create(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	struct cluster_spec spec;
	if (cluster_spec_read(req, &spec, err) < 0)
		return -1;
	if (strcmp(spec.name, a->name) != 0) {
		cluster_spec_finish(&spec);
		return err_set(err, EINVAL, "this is the agent of cluster '%s'", a->name);
	}
	json_decref(a->templates);
	a->templates = json_incref(json_object_get(req, "templates"));
	if (deploy_wanted(req))
		place_nowhere(&spec);
	a->cluster = cluster_create(a->loop, &spec, a->self, a->dir, &agent_cluster_ops, a, err);
	if (!a->cluster)
		return -1;
	if (!a->self && !a->request)
		a->request = json_copy((json_t *)req);
	cluster_events(a->cluster)->on_event = agent_on_event;
	cluster_events(a->cluster)->arg = a;
	if (a->kept)
		node_created(a, req);
	a->holder = call->conn; /* NULL on a node of many: its parent may change */
	a->creating = call;
	call->ops = &create_ops;
	evtimer_stop(a->lonely);
	struct err why = ERR_INIT;
	if (begin_cluster(a, req, &why) < 0 && a->creating)
		call_fail(call, &why);
	return 0;
}

/* A node's: the files come first. */
struct fetching {
	struct call *call;
	json_t *req;
	struct fabric_fetch *fetch;
	struct evtimer *timer; /* tells how it stands, and gives up when nothing comes */
	uint64_t have, since;
};

#define FETCH_TELL_MS 500
#define FETCH_STALL_MS 60000 /* without a byte */

static void on_fetch_end(struct call *call)
{
	struct fetching *f = call->state;
	if (f->fetch)
		fabric_fetch_cancel(f->fetch);
	evtimer_destroy(f->timer);
	json_decref(f->req);
	free(f);
}

static const struct call_ops fetch_ops = {.on_end = on_fetch_end};

static void on_fetched(void *arg, const json_t *paths, const struct err *err)
{
	struct fetching *f = arg;
	struct call *call = f->call;
	struct err why = ERR_INIT;
	f->fetch = NULL;
	if (!paths) {
		call_fail(call, err);
		return;
	}
	_cleanup_json_ json_t *req = json_incref(f->req);
	json_object_update(req, (json_t *)paths);
	on_fetch_end(call);
	call->ops = NULL;
	call->state = NULL;
	if (call->agent->cluster)
		err_set(&why, EEXIST, "the agent runs a cluster already");
	if (why.code || create(call, req, &why) < 0)
		call_fail(call, &why);
}

static void on_fetching(void *arg)
{
	struct fetching *f = arg;
	struct agent *a = f->call->agent;
	uint64_t have, all;
	fabric_fetch_progress(f->fetch, &have, &all);
	if (have != f->have) {
		f->have = have;
		f->since = loop_now(a->loop);
		call_event(f->call, json_pack("{s:s, s:I, s:I}", "event", "staging", "have",
					      (json_int_t)have, "all", (json_int_t)all));
	} else if (loop_now(a->loop) - f->since > FETCH_STALL_MS) {
		struct err err = ERR_INIT;
		err_set(&err, ETIMEDOUT,
			"%s: image: %" PRIu64 " of %" PRIu64
			" bytes are here, and nothing came for %d s",
			mesh_node_name(a->mesh, a->self), have, all, FETCH_STALL_MS / 1000);
		call_fail(f->call, &err);
	}
}

static int fetch(struct call *call, const json_t *req, const json_t *files, struct err *err)
{
	struct fetching *f = xcalloc(1, sizeof(*f));
	*f = (struct fetching){.call = call, .req = json_copy((json_t *)req)};
	call->ops = &fetch_ops;
	call->state = f;
	f->since = loop_now(call->agent->loop);
	f->timer = evtimer_create(call->agent->loop, on_fetching, f);
	f->fetch = fabric_fetch(call->agent->fabric, files, on_fetched, f, err);
	if (!f->fetch)
		return -1;
	evtimer_start(f->timer, FETCH_TELL_MS, FETCH_TELL_MS);
	return 0;
}

int service_create(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	const json_t *files = json_object_get(req, "files"),
		     *addresses = json_object_get(req, "addresses");
	if (a->cluster)
		return err_set(err, EEXIST, "the agent runs cluster '%s' already", a->name);
	if (a->mesh && addresses)
		mesh_set_addresses(a->mesh, addresses);
	return a->fabric && files ? fetch(call, req, files, err) : create(call, req, err);
}

/* Nodes were added: who runs the cluster learns of them, who does not is one of them. */
int service_join(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	const json_t *create = json_object_get(req, "create"),
		     *addresses = json_object_get(create, "addresses");
	if (service_know_nodes(a, create, err) < 0)
		return -1;
	if (!a->cluster)
		return service_create(call, create, err);
	if (a->mesh && addresses) {
		mesh_set_addresses(a->mesh, addresses);
		node_joined(a, addresses);
	}
	call_ok(call);
	return 0;
}

int service_keep(struct call *call, const json_t *req _unused_, struct err *err _unused_)
{
	call->agent->holder = NULL;
	call_ok(call);
	return 0;
}

/* ---- status ---- */

int service_status(struct call *call, const json_t *req _unused_, struct err *err _unused_)
{
	uint64_t rss = 0, cpu = 0;
	proc_usage(getpid(), &rss, &cpu, NULL);
	json_t *j = cluster_status(call->agent->cluster);
	json_object_set_new(j, "ok", json_true());
	json_object_set_new(j, "agent",
			    json_pack("{s:i, s:I, s:I, s:I}", "pid", (int)getpid(), "memory",
				      (json_int_t)rss, "cpu_ms", (json_int_t)cpu, "answer_bytes",
				      (json_int_t)call->agent->answer_bytes));
	if (call->agent->deploy && !call->agent->mesh)
		deploy_status(call->agent->deploy, j);
	call_reply(call, j);
	return 0;
}

int service_size(struct call *call, const json_t *req _unused_, struct err *err _unused_)
{
	call_reply(call, json_pack("{s:b, s:i}", "ok", 1, "size",
				   (int)cluster_get_spec(call->agent->cluster)->size));
	return 0;
}

/* ---- events ---- */

static json_t *event_json(const struct event *e)
{
	return json_pack("{s:s, s:I, s:o, s:s, s:s}", "event", "event", "time_ns",
			 (json_int_t)e->wall_ns, "rank",
			 e->rank == EVENT_NO_RANK ? json_null() : json_integer(e->rank), "kind",
			 e->kind, "text", e->text);
}

static void on_follow(struct waiter *w, const struct event *e)
{
	struct err err = ERR_INIT;
	if (call_backlog(w->call) > FOLLOWER_BACKLOG) {
		err_set(&err, EPIPE, "events came faster than they were read");
		call_fail(w->call, &err);
		return;
	}
	call_event(w->call, event_json(e));
}

static void on_follow_end(struct call *call)
{
	agent_remove_waiter(call->agent, call->state);
	free(call->state);
}

static const struct call_ops follow_ops = {.on_end = on_follow_end};

int service_events(struct call *call, const json_t *req, struct err *err _unused_)
{
	const struct events *events = cluster_events(call->agent->cluster);
	const struct event *e;
	for (uint64_t i = 0; (e = events_at(events, i)); i++)
		call_event(call, event_json(e));
	if (!json_is_true(json_object_get(req, "follow"))) {
		call_ok(call);
		return 0;
	}
	struct waiter *w = xcalloc(1, sizeof(*w));
	*w = (struct waiter){.call = call, .on_event = on_follow};
	call->ops = &follow_ops;
	call->state = w;
	agent_add_waiter(call->agent, w);
	return 0;
}

/* ---- down ---- */

static void on_down_end(struct call *call)
{
	struct agent *a = call->agent;
	for (size_t i = 0; i < a->n_ending; i++)
		if (a->ending[i] == call)
			a->ending[i] = NULL;
}

static const struct call_ops down_ops = {.on_end = on_down_end};

int service_down(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	size_t slot = 0;
	/* First of all: who cannot wait for the end may still ask for it. */
	if (a->cluster)
		agent_down(a, json_is_true(json_object_get(req, "graceful")));
	else
		agent_end(a); /* its cluster could not be made */
	while (slot < a->n_ending && a->ending[slot])
		slot++;
	if (slot == ARRAY_SIZE(a->ending))
		return err_set(err, EBUSY, "the cluster is being ended already");
	a->ending[slot] = call;
	a->n_ending = MAX(a->n_ending, slot + 1);
	call->ops = &down_ops;
	return 0;
}
