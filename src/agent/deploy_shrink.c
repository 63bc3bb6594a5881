/* SPDX-License-Identifier: Apache-2.0 */
/* Fewer nodes for a cluster that runs. An index is never used twice: a node that is added again is another one. */
#include <errno.h>
#include <string.h>

#include "agent/deploy_state.h"
#include "agent/services.h"

#define DOWN_MS 15000 /* for a node to end its VMs */

enum vms { VMS_REFUSE, VMS_STOP, VMS_RECOVER };

struct leaving {
	struct shrink *shrink;
	struct call *call; /* the node's "down"; NULL: it is over */
	uint32_t node;
};

struct shrink {
	struct deploy *deploy;
	struct shrink *next;
	struct call *asker;
	struct leaving *list;
	size_t n, left;
	enum vms vms;
	struct evtimer *bound;
	bool asking;
};

static void shrink_destroy(struct shrink *s)
{
	struct shrink **at = &s->deploy->shrinks;
	while (*at && *at != s)
		at = &(*at)->next;
	if (*at)
		*at = s->next;
	for (size_t i = 0; i < s->n; i++) {
		s->deploy->members[s->list[i].node].leaving = false;
		if (s->list[i].call)
			call_drop(TAKE_PTR(s->list[i].call));
	}
	if (s->asker)
		s->asker->state = NULL;
	evtimer_destroy(s->bound);
	free(s->list);
	free(s);
}

void deploy_shrinks_stop(struct deploy *d)
{
	struct err err = ERR_INIT;
	err_set(&err, ESHUTDOWN, "the cluster is being ended");
	while (d->shrinks) {
		struct call *asker = TAKE_PTR(d->shrinks->asker);
		if (asker) {
			asker->state = NULL;
			call_fail(asker, &err);
		}
		shrink_destroy(d->shrinks);
	}
}

void deploy_forget_node(struct deploy *d, uint32_t node)
{
	struct member *m = &d->members[node];
	if (m->removed)
		return;
	m->removed = true;
	free(d->bootstrap.nodes.v[node - 1]);
	d->bootstrap.nodes.v[node - 1] = xstrdup(DEPLOY_REMOVED_NAME);
	d->n_failed += !m->failed && !m->up;
	m->failed = true;
	mesh_remove(d->agent->mesh, node); /* which tells that it is lost, if it was up */
}

/* ended: the node itself has said that no VM runs there any more. */
static void node_left(struct leaving *l, bool ended)
{
	struct shrink *s = l->shrink;
	struct deploy *d = s->deploy;
	struct member *m = &d->members[l->node];
	m->recover = s->vms == VMS_RECOVER;
	m->safe = m->safe || ended;
	deploy_forget_node(d, l->node);
	if (m->safe)
		deploy_recover(d, l->node);
	s->left--;
}

static void shrink_look(struct shrink *s)
{
	if (s->left || s->asking)
		return;
	deploy_note_change(s->deploy);
	struct call *asker = TAKE_PTR(s->asker);
	if (asker) {
		asker->state = NULL;
		call_ok(asker);
	}
	shrink_destroy(s);
}

static void left_json(struct call *call, json_t *j, bool last)
{
	struct leaving *l = call->out_arg;
	struct err err = ERR_INIT;
	if (last) {
		l->call = NULL;
		node_left(l, !message_is_error(j, &err));
		shrink_look(l->shrink);
	}
	json_decref(j);
}

static const struct call_out left_out = {
	.json = left_json,
	.data = deploy_no_data,
	.credit = deploy_no_credit,
	.backlog = deploy_no_backlog,
};

static void on_shrink_bound(void *arg)
{
	struct shrink *s = arg;
	for (size_t i = 0; i < s->n; i++)
		if (s->list[i].call) {
			call_drop(TAKE_PTR(s->list[i].call));
			node_left(&s->list[i], false);
		}
	shrink_look(s);
}

static void end_node(struct shrink *s, struct leaving *l)
{
	struct deploy *d = s->deploy;
	struct err err = ERR_INIT;
	if (!d->members[l->node].up) {
		node_left(l, false);
		return;
	}
	json_t *req = json_pack("{s:s, s:I, s:b}", "verb", "down", "to", (json_int_t)l->node,
				"graceful", 0);
	l->call = call_create(d->agent, &left_out, l);
	if (spread_begin(l->call, VERB_down, req, &err) < 0)
		call_fail(l->call, &err);
	json_decref(req);
}

static uint32_t find_node(const struct deploy *d, const char *name)
{
	for (uint32_t i = 1; i <= d->n; i++)
		if (!d->members[i].removed && strcmp(d->members[i].name, name) == 0)
			return i;
	return 0;
}

static int read_leaving(struct shrink *s, const json_t *names, struct err *err)
{
	struct deploy *d = s->deploy;
	const json_t *v;
	size_t i;
	s->list = xcalloc(MAX(json_array_size(names), (size_t)1), sizeof(*s->list));
	json_array_foreach (names, i, v) {
		const char *name = json_string_value(v);
		uint32_t node = find_node(d, name ? name : "");
		if (!node)
			return err_set(err, EINVAL, "the cluster has no node '%.60s'", name ? name : "");
		if (d->members[node].joining || d->members[node].leaving)
			return err_set(err, EBUSY, "%s is being %s", name,
				       d->members[node].joining ? "added" : "removed");
		d->members[node].leaving = true;
		s->list[s->n++] = (struct leaving){.shrink = s, .node = node};
	}
	return s->n ? 0 : err_set(err, EPROTO, "message: 'nodes' is empty");
}

/* What becomes of their VMs must have been said, and be possible. */
static int check_vms(struct shrink *s, struct err *err)
{
	struct deploy *d = s->deploy;
	const struct cluster_spec *spec = cluster_get_spec(d->agent->cluster);
	uint32_t stay = 0;
	for (uint32_t i = 1; i <= d->n; i++)
		stay += d->members[i].up && !d->members[i].leaving && !d->members[i].joining;
	if (!stay)
		return err_set(err, EBUSY, "no node would be left ('vse down' ends the cluster)");
	for (uint32_t r = 0; s->vms == VMS_REFUSE && r < spec->size; r++)
		if (d->members[spec->node_of[r]].leaving)
			return err_set(err, EBUSY, "%s has VMs (vm%u): --recover starts them anew on other nodes, --stop ends them",
				       d->members[spec->node_of[r]].name, r);
	return s->vms == VMS_RECOVER ? deploy_check_room(d, err) : 0;
}

static void shrink_asker_gone(struct call *call)
{
	struct shrink *s = call->state;
	if (s)
		s->asker = NULL;
}

static const struct call_ops shrink_ops = {.on_end = shrink_asker_gone};

static int read_vms(const json_t *req, enum vms *ret, struct err *err)
{
	static const char *const words[] = {"refuse", "stop", "recover"};
	const char *text;
	if (message_str(req, "vms", &text, err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(words[i], text) == 0) {
			*ret = (enum vms)i;
			return 0;
		}
	return err_set(err, EINVAL, "VMs: '%.20s': refuse, stop or recover", text);
}

int service_remove_nodes(struct call *call, const json_t *req, struct err *err)
{
	struct deploy *d = call->agent->deploy;
	enum vms vms = VMS_REFUSE;
	if (!d)
		return err_set(err, ENOTSUP, "the cluster runs on this node alone: 'vse down' ends it");
	if (d->step != UP)
		return err_set(err, EBUSY, "the cluster is not up");
	if (read_vms(req, &vms, err) < 0)
		return -1;
	struct shrink *s = xcalloc(1, sizeof(*s));
	*s = (struct shrink){.deploy = d, .next = d->shrinks, .vms = vms, .asking = true};
	s->bound = evtimer_create(d->agent->loop, on_shrink_bound, s);
	d->shrinks = s;
	if (read_leaving(s, json_object_get(req, "nodes"), err) < 0 || check_vms(s, err) < 0) {
		shrink_destroy(s);
		return -1;
	}
	s->asker = call;
	call->ops = &shrink_ops;
	call->state = s;
	s->left = s->n;
	evtimer_start(s->bound, DOWN_MS, 0);
	for (size_t i = 0; i < s->n; i++)
		end_node(s, &s->list[i]);
	s->asking = false;
	shrink_look(s);
	return 0;
}
