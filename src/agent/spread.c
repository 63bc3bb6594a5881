/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "agent/spread_state.h"

/* ---- what the asker says ---- */

static void on_message(struct call *call, const char *verb, const json_t *msg)
{
	struct spread *s = call->state;
	for (size_t i = 0; i < s->n_hops; i++) {
		struct hop *h = &s->hops[i];
		if (h->part && h->part->ops && h->part->ops->on_message)
			h->part->ops->on_message(h->part, verb, msg);
		else if (h->child)
			caller_message(child_caller(h->child), h->call, json_copy((json_t *)msg));
	}
}

static void on_data(struct call *call, uint32_t rank, const char *p, size_t n, bool eof)
{
	struct spread *s = call->state;
	for (size_t i = 0; i < s->n_hops; i++) {
		struct hop *h = &s->hops[i];
		if (rank != FRAME_ALL && !rankset_has(&h->ranks, rank))
			continue;
		if (h->part && h->part->ops && h->part->ops->on_data)
			h->part->ops->on_data(h->part, rank, p, n, eof);
		else if (h->child)
			caller_data(child_caller(h->child), h->call, rank, p, n, eof);
	}
}

static void on_credit(struct call *call, uint32_t rank, int fd, uint32_t bytes)
{
	struct spread *s = call->state;
	for (size_t i = 0; i < s->n_hops; i++) {
		struct hop *h = &s->hops[i];
		if (!rankset_has(&h->ranks, rank))
			continue;
		if (h->part && h->part->ops && h->part->ops->on_credit)
			h->part->ops->on_credit(h->part, rank, fd, bytes);
		else if (h->child)
			caller_credit(child_caller(h->child), h->call, rank, fd, bytes);
		return;
	}
}

static void on_end(struct call *call)
{
	struct spread *s = call->state;
	for (size_t i = 0; i < s->n_hops; i++) {
		struct hop *h = &s->hops[i];
		if (h->part)
			call_drop(TAKE_PTR(h->part));
		if (h->child) {
			caller_message(child_caller(h->child), h->call,
				       json_pack("{s:s}", "verb", "cancel"));
			caller_forget(child_caller(h->child), h->call);
		}
		rankset_finish(&h->ranks);
	}
	fanout_destroy(s->books);
	folding_destroy(s->output);
	evtimer_destroy(s->soon);
	rankset_finish(&s->failed);
	json_decref(s->reply);
	free(s->hops);
	free(s);
}

static const struct call_ops call_ops = {
	.on_message = on_message,
	.on_data = on_data,
	.on_credit = on_credit,
	.on_end = on_end,
};

/* ---- the way there ---- */

static bool can_spread(enum verb v)
{
	static const enum verb some[] = {VERB_stop, VERB_pause, VERB_resume, VERB_restart,
					 VERB_exec, VERB_put,   VERB_get,    VERB_console,
					 VERB_logs, VERB_save,  VERB_hold};
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		if (some[i] == v)
			return true;
	return spread_takes_all(v);
}

bool spread_wanted(const struct call *call, enum verb v)
{
	const struct agent *a = call->agent;
	/* The root makes and ends the cluster in steps of its own (agent/deploy.h). */
	bool root_step = a->self == 0 && (v == VERB_create || v == VERB_down);
	return a->mesh && call->out != &spread_part_out && can_spread(v) && !root_step;
}

static struct hop *add_hop(struct spread *s, struct child *child)
{
	for (size_t i = 0; i < s->n_hops; i++)
		if (s->hops[i].child == child)
			return &s->hops[i];
	struct hop *h = &s->hops[s->n_hops++];
	*h = (struct hop){.spread = s, .child = child, .granted = GUESTPROTO_STDIN_WINDOW};
	h->id = child ? (uint32_t)s->n_hops : FANOUT_LOCAL;
	return h;
}

/* The VMs that the request names; `single`: it names one, by "rank". */
static int asked(struct agent *a, const json_t *req, struct rankset *ranks, struct err *err)
{
	uint32_t size = cluster_get_spec(a->cluster)->size;
	const char *text;
	json_int_t rank;
	if (!json_object_get(req, "rank"))
		return message_str(req, "ranks", &text, err) < 0
			       ? -1
			       : rankset_parse(ranks, text, size, err);
	if (message_int(req, "rank", 0, INT32_MAX, &rank, err) < 0)
		return -1;
	if (rank >= (json_int_t)size)
		return err_set(err, ERANGE, "no VM of rank %d (ranks are 0-%u)", (int)rank, size - 1);
	rankset_add(ranks, (uint32_t)rank);
	return 0;
}

/* VMs of a node that cannot be reached are answered for at once. */
static void no_way(struct spread *s, uint32_t rank, uint32_t node)
{
	struct mesh *m = s->call->agent->mesh;
	const char *why = mesh_node_reason(m, node);
	struct err err = ERR_INIT;
	_cleanup_rankset_ struct rankset one = RANKSET_INIT;
	err_set(&err, EHOSTUNREACH, "node %s is lost%s%s", mesh_node_name(m, node),
		why[0] ? ": " : "", why);
	if (!spread_answers_by_vm(s->verb))
		err_prefix(&err, "vm%u: ", rank);
	rankset_add(&one, rank);
	spread_dead(s, &one, &err);
}

static void share_ranks(struct spread *s, const struct rankset *ranks)
{
	struct agent *a = s->call->agent;
	const struct cluster_spec *spec = cluster_get_spec(a->cluster);
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1)) {
		uint32_t node = spec->node_of ? spec->node_of[r] : a->self;
		struct child *child = node == a->self ? NULL : mesh_route(a->mesh, node);
		if (node != a->self && !child)
			no_way(s, r, node);
		else
			rankset_add(&add_hop(s, child)->ranks, r);
	}
	for (size_t i = 0; i < s->n_hops; i++)
		fanout_assign(s->books, s->hops[i].id, &s->hops[i].ranks);
}

static size_t count_children(struct mesh *m)
{
	size_t n = 0;
	for (struct child *c = NULL; (c = mesh_child_next(m, c));)
		n++;
	return n;
}

static void send_hop(struct hop *h, const json_t *req)
{
	struct spread *s = h->spread;
	json_t *mine = json_copy((json_t *)req);
	if (json_object_get(req, "ranks")) {
		_cleanup_buf_ struct buf text = BUF_INIT;
		rankset_format(&h->ranks, &text);
		json_object_set_new(mine, "ranks", json_string(buf_cstr(&text)));
	}
	if (h->child) {
		h->call = caller_call(child_caller(h->child), mine, &spread_child_ops, h);
		return;
	}
	h->part = call_create(s->call->agent, &spread_part_out, h);
	call_begin(h->part, verb_name(s->verb), mine);
	json_decref(mine);
}

/* The direction of a request that is for one agent. */
static int one_agent(struct agent *a, const json_t *req, struct child **ret, struct err *err)
{
	json_int_t to;
	if (message_int(req, "to", 0, UINT32_MAX, &to, err) < 0)
		return -1;
	*ret = to == a->self ? NULL : mesh_route(a->mesh, (uint32_t)to);
	if (to != a->self && !*ret)
		return err_set(err, EHOSTUNREACH, "node %s is lost",
			       mesh_node_name(a->mesh, (uint32_t)to));
	return 0;
}

/* The hops of a request that everybody gets, or one agent alone. */
static void share_hops(struct spread *s, bool one, struct child *only)
{
	struct agent *a = s->call->agent;
	_cleanup_rankset_ struct rankset ids = RANKSET_INIT;
	if (one)
		add_hop(s, only);
	else if (a->self || s->verb == VERB_status)
		add_hop(s, NULL);
	for (struct child *c = NULL; !one && (c = mesh_child_next(a->mesh, c));)
		add_hop(s, c);
	for (size_t i = 0; i < s->n_hops; i++)
		rankset_add(&ids, s->hops[i].id);
	s->books = fanout_create(&ids);
	s->open = rankset_count(&ids);
	for (size_t i = 0; i < s->n_hops; i++) {
		_cleanup_rankset_ struct rankset self = RANKSET_INIT;
		rankset_add(&self, s->hops[i].id);
		fanout_assign(s->books, s->hops[i].id, &self);
	}
}

static struct spread *create(struct call *call, enum verb v, const json_t *req)
{
	struct agent *a = call->agent;
	struct spread *s = xcalloc(1, sizeof(*s));
	*s = (struct spread){.call = call, .verb = v, .told = GUESTPROTO_STDIN_WINDOW};
	s->input = v == VERB_put || json_integer_value(json_object_get(req, "stdin")) != 0;
	s->soon = evtimer_create(a->loop, spread_deliver, s);
	s->hops = xcalloc(count_children(a->mesh) + 1, sizeof(*s->hops));
	call->ops = &call_ops;
	call->state = s;
	return s;
}

/* Its agent may not know that it is being moved: there it has failed, elsewhere it may run in a moment. */
static int check_still(const struct deploy *d, const struct rankset *ranks, struct err *err)
{
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1))
		if (deploy_is_migrating(d, r))
			return err_set(err, EBUSY, "vm%u: is being moved to another node", r);
	return 0;
}

int spread_begin(struct call *call, enum verb v, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	struct child *only = NULL;
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	bool all = spread_takes_all(v), one = v == VERB_launch || v == VERB_send || v == VERB_unsend ||
					      v == VERB_arrive || (all && json_object_get(req, "to"));
	if (one ? one_agent(a, req, &only, err) < 0 : !all && asked(a, req, &ranks, err) < 0)
		return -1;
	if (v == VERB_restart && a->deploy && check_still(a->deploy, &ranks, err) < 0)
		return -1;
	struct spread *s = create(call, v, req);
	if (all) {
		share_hops(s, one, only);
	} else {
		s->open = rankset_count(&ranks);
		s->books = fanout_create(&ranks);
		if (spread_answers_by_vm(v) && s->open > 1)
			s->output = folding_create(&ranks, spread_emit, s);
		share_ranks(s, &ranks);
	}
	s->live = s->n_hops;
	for (size_t i = 0; i < s->n_hops; i++)
		send_hop(&s->hops[i], req);
	s->started = true;
	spread_look(s);
	return 0;
}
