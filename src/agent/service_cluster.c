/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster as a whole: create, keep, status, events, down. */
#include <errno.h>
#include <string.h>

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

int service_create(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	struct cluster_spec spec;
	if (a->cluster)
		return err_set(err, EEXIST, "the agent runs cluster '%s' already", a->name);
	if (cluster_spec_read(req, &spec, err) < 0)
		return -1;
	if (strcmp(spec.name, a->name) != 0) {
		cluster_spec_finish(&spec);
		return err_set(err, EINVAL, "this is the agent of cluster '%s'", a->name);
	}
	a->cluster = cluster_create(a->loop, &spec, a->self, a->dir, &agent_cluster_ops, a, err);
	if (!a->cluster)
		return -1;
	cluster_events(a->cluster)->on_event = agent_on_event;
	cluster_events(a->cluster)->arg = a;
	a->holder = call->conn;
	a->creating = call;
	call->ops = &create_ops;
	evtimer_stop(a->lonely);
	struct err why = ERR_INIT;
	if (cluster_start(a->cluster, &why) < 0 && a->creating)
		call_fail(call, &why);
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
			    json_pack("{s:i, s:I, s:I}", "pid", (int)getpid(), "memory",
				      (json_int_t)rss, "cpu_ms", (json_int_t)cpu));
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

const struct call_ops service_down_ops = {.on_end = on_down_end};

int service_down(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	size_t slot = 0;
	/* First of all: who cannot wait for the end may still ask for it. */
	if (a->cluster)
		cluster_down(a->cluster, json_is_true(json_object_get(req, "graceful")));
	else
		agent_end(a); /* its cluster could not be made */
	while (slot < a->n_ending && a->ending[slot])
		slot++;
	if (slot == ARRAY_SIZE(a->ending))
		return err_set(err, EBUSY, "the cluster is being ended already");
	a->ending[slot] = call;
	a->n_ending = MAX(a->n_ending, slot + 1);
	call->ops = &service_down_ops;
	return 0;
}
