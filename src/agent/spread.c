/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/spread.h"

#include <errno.h>
#include <string.h>

#include "agent/mesh.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "wire/guestproto.h"
#include "wire/message.h"

#define FOLD_MS 3   /* for equal answers to meet */
#define FOLD_MAX 64 /* distinct answers that wait at once */

/* One direction that the request went: into this agent, or to a child. */
struct hop {
	struct spread *spread;
	struct call *part; /* here; NULL: to a child */
	struct child *child;
	uint32_t id; /* of the call at the child */
	bool over;
	struct rankset ranks;     /* VMs in this direction */
	struct rankset left;      /* of them, those that have not answered */
	uint64_t granted;         /* bytes of stdin it has room for, ever */
	json_int_t ready, failed; /* VMs that start */
	json_int_t have, all;     /* bytes of the image */
};

/* Equal events of several VMs, not sent yet. */
struct folded {
	json_t *event; /* without its rank */
	struct rankset ranks;
};

struct spread {
	struct call *call;
	enum verb verb;
	struct hop *hops;
	size_t n_hops, live;
	bool started, input;
	uint64_t told; /* bytes of stdin the asker may send, ever, as it knows */
	json_t *reply; /* of the hops so far; NULL: none has ended well */
	struct err first;
	struct rankset failed; /* VMs that a hop's error named */
	struct folded folded[FOLD_MAX];
	size_t n_folded;
	struct evtimer *soon;
};

/* ---- what each verb is ---- */

/* Each VM answers with an event of its own; else the hop's reply is all there is. */
static bool answers_by_vm(enum verb v)
{
	return v == VERB_exec || v == VERB_put || v == VERB_get;
}

static bool takes_all(enum verb v)
{
	return v == VERB_status || v == VERB_create || v == VERB_down || v == VERB_move;
}

static bool can_spread(enum verb v)
{
	static const enum verb some[] = {VERB_stop,    VERB_pause,   VERB_resume,
					 VERB_restart, VERB_exec,    VERB_put,
					 VERB_get,     VERB_console, VERB_logs};
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		if (some[i] == v)
			return true;
	return takes_all(v) || v == VERB_launch;
}

/* ---- folding ---- */

static void send_folded(struct spread *s)
{
	for (size_t i = 0; i < s->n_folded; i++) {
		struct folded *f = &s->folded[i];
		_cleanup_buf_ struct buf text = BUF_INIT;
		rankset_format(&f->ranks, &text);
		if (rankset_count(&f->ranks) == 1)
			json_object_set_new(f->event, "rank", json_integer(rankset_next(&f->ranks, 0)));
		else
			json_object_set_new(f->event, "ranks", json_string(buf_cstr(&text)));
		call_event(s->call, f->event);
		rankset_finish(&f->ranks);
	}
	s->n_folded = 0;
	evtimer_stop(s->soon);
}

static void on_soon(void *arg)
{
	send_folded(arg);
}

static void add_all(struct rankset *to, const struct rankset *from)
{
	for (uint32_t r = rankset_next(from, 0); r != UINT32_MAX; r = rankset_next(from, r + 1))
		rankset_add(to, r);
}

/* event: taken; without a rank. */
static void fold(struct spread *s, json_t *event, const struct rankset *ranks)
{
	size_t i = 0;
	while (i < s->n_folded && !json_equal(s->folded[i].event, event))
		i++;
	if (i < s->n_folded) {
		json_decref(event);
	} else {
		if (s->n_folded == FOLD_MAX) {
			send_folded(s);
			i = 0;
		}
		s->folded[i] = (struct folded){.event = event};
		s->n_folded = i + 1;
	}
	add_all(&s->folded[i].ranks, ranks);
	evtimer_start(s->soon, FOLD_MS, 0);
}

/* ---- the end ---- */

static void finish(struct spread *s)
{
	if (!s->started || s->live)
		return;
	send_folded(s);
	if (s->verb == VERB_status && s->call->agent->deploy && s->reply)
		deploy_status(s->call->agent->deploy, s->reply);
	if (!s->first.code) {
		json_t *j = s->reply ? s->reply : json_pack("{s:b}", "ok", 1);
		s->reply = NULL;
		call_reply(s->call, j); /* frees s */
		return;
	}
	_cleanup_buf_ struct buf text = BUF_INIT;
	json_t *j = message_error(&s->first);
	rankset_format(&s->failed, &text);
	if (rankset_count(&s->failed))
		json_object_set_new(j, "ranks", json_string(buf_cstr(&text)));
	call_reply(s->call, j);
}

static void name_failed(struct spread *s, struct hop *h, const json_t *reply)
{
	const char *named = json_string_value(json_object_get(reply, "ranks"));
	if (!named || rankset_parse(&s->failed, named, RANK_MAX, NULL) < 0)
		add_all(&s->failed, &h->ranks);
}

static void merge_status(struct spread *s, const json_t *reply)
{
	json_array_extend(json_object_get(s->reply, "vms"), json_object_get(reply, "vms"));
	json_array_extend(json_object_get(s->reply, "agents"), json_object_get(reply, "agents"));
}

static void merge(struct spread *s, const json_t *reply)
{
	if (!s->reply) {
		s->reply = json_copy((json_t *)reply);
		return;
	}
	if (s->verb == VERB_status) {
		merge_status(s, reply);
	} else if (s->verb == VERB_create) {
		json_int_t ms = json_integer_value(json_object_get(reply, "ready_ms"));
		if (ms > json_integer_value(json_object_get(s->reply, "ready_ms")))
			json_object_set_new(s->reply, "ready_ms", json_integer(ms));
	}
}

/* VMs that did not answer before their direction was lost. */
static void lost(struct hop *h, const struct err *err)
{
	struct spread *s = h->spread;
	if (answers_by_vm(s->verb) && rankset_count(&h->left)) {
		json_t *j = message_error(err);
		json_object_set_new(j, "event", json_string("error"));
		fold(s, j, &h->left);
	}
}

static void tell_credit(struct spread *s)
{
	uint64_t least = UINT64_MAX;
	for (size_t i = 0; i < s->n_hops; i++)
		if (!s->hops[i].over)
			least = MIN(least, s->hops[i].granted);
	if (!s->input || least == UINT64_MAX || least <= s->told)
		return;
	uint64_t more = MIN(least - s->told, (uint64_t)UINT32_MAX);
	s->told += more;
	call_credit(s->call, FRAME_ALL, 0, (uint32_t)more);
}

/* reply: borrowed; NULL with the reason when the hop failed. */
static void hop_end(struct hop *h, const json_t *reply, const struct err *err)
{
	struct spread *s = h->spread;
	struct err why = ERR_INIT;
	h->over = true;
	s->live--;
	if (reply && message_is_error(reply, &why))
		err = &why;
	if (!err) {
		merge(s, reply);
	} else if (answers_by_vm(s->verb)) {
		lost(h, err);
	} else if (s->verb != VERB_status) { /* who is missing there is added by the root */
		if (!s->first.code)
			s->first = *err;
		name_failed(s, h, reply);
	}
	tell_credit(s);
	finish(s);
}

/* ---- what the hops say ---- */

static void progress(struct hop *h, const json_t *e)
{
	struct spread *s = h->spread;
	json_int_t ready = 0, failed = 0;
	h->ready = json_integer_value(json_object_get(e, "ready"));
	h->failed = json_integer_value(json_object_get(e, "failed"));
	for (size_t i = 0; i < s->n_hops; i++) {
		ready += s->hops[i].ready;
		failed += s->hops[i].failed;
	}
	call_event(s->call, json_pack("{s:s, s:I, s:I, s:O*}", "event", "progress", "ready", ready,
				      "failed", failed, "size", json_object_get(e, "size")));
}

static void staging(struct hop *h, const json_t *e)
{
	struct spread *s = h->spread;
	json_int_t have = 0, all = 0;
	h->have = json_integer_value(json_object_get(e, "have"));
	h->all = json_integer_value(json_object_get(e, "all"));
	for (size_t i = 0; i < s->n_hops; i++) {
		have += s->hops[i].have;
		all += s->hops[i].all;
	}
	call_event(s->call, json_pack("{s:s, s:I, s:I}", "event", "staging", "have", have, "all", all));
}

static void answered(struct hop *h, const json_t *e, const char *what)
{
	struct spread *s = h->spread;
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	if (!message_ranks(e, &ranks))
		return;
	if (strcmp(what, "started") != 0)
		for (uint32_t r = rankset_next(&ranks, 0); r != UINT32_MAX;
		     r = rankset_next(&ranks, r + 1))
			rankset_del(&h->left, r);
	json_t *plain = json_copy((json_t *)e);
	json_object_del(plain, "rank");
	json_object_del(plain, "ranks");
	json_object_del(plain, "pid"); /* in its VM; nobody asks for it, and it makes equal answers differ */
	fold(s, plain, &ranks);
}

static void hop_event(struct hop *h, const json_t *e)
{
	const char *what = json_string_value(json_object_get(e, "event"));
	if (!what)
		return;
	if (strcmp(what, "progress") == 0)
		progress(h, e);
	else if (strcmp(what, "staging") == 0)
		staging(h, e);
	else if (json_object_get(e, "rank") || json_object_get(e, "ranks"))
		answered(h, e, what);
	else
		call_event(h->spread->call, json_copy((json_t *)e));
}

static void hop_data(struct hop *h, uint32_t rank, int fd, const char *p, size_t n, bool eof)
{
	if (h->spread->n_folded)
		send_folded(h->spread); /* what a VM said before stays before */
	call_data(h->spread->call, rank, fd, p, n, eof);
}

static void hop_credit(struct hop *h, uint32_t bytes)
{
	h->granted += bytes;
	tell_credit(h->spread);
}

/* ---- the part of this agent ---- */

static void part_json(struct call *part, json_t *j, bool last)
{
	struct hop *h = part->out_arg;
	if (last) {
		h->part = NULL; /* it goes by itself */
		hop_end(h, j, NULL);
	} else {
		hop_event(h, j);
	}
	json_decref(j);
}

static void part_data(struct call *part, uint32_t rank, int fd, const char *p, size_t n, bool eof)
{
	hop_data(part->out_arg, rank, fd, p, n, eof);
}

static void part_credit(struct call *part, uint32_t rank _unused_, int fd, uint32_t bytes)
{
	if (fd == 0)
		hop_credit(part->out_arg, bytes);
}

static size_t part_backlog(const struct call *part)
{
	const struct hop *h = part->out_arg;
	return call_backlog(h->spread->call);
}

static const struct call_out part_out = {
	.json = part_json,
	.data = part_data,
	.credit = part_credit,
	.backlog = part_backlog,
};

/* ---- a child's part ---- */

static void child_event(void *arg, const json_t *e)
{
	hop_event(arg, e);
}

static void child_data(void *arg, uint32_t rank, int fd, const char *p, size_t n, bool eof)
{
	hop_data(arg, rank, fd, p, n, eof);
}

static void child_credit(void *arg, uint32_t rank _unused_, uint32_t bytes)
{
	hop_credit(arg, bytes);
}

static void child_end(void *arg, const json_t *reply, const struct err *err)
{
	struct hop *h = arg;
	h->child = NULL;
	hop_end(h, reply, err);
}

static const struct caller_ops child_ops = {
	.on_event = child_event,
	.on_data = child_data,
	.on_credit = child_credit,
	.on_end = child_end,
};

/* ---- what the asker says ---- */

static void on_message(struct call *call, const char *verb, const json_t *msg)
{
	struct spread *s = call->state;
	for (size_t i = 0; i < s->n_hops; i++) {
		struct hop *h = &s->hops[i];
		if (h->part && h->part->ops && h->part->ops->on_message)
			h->part->ops->on_message(h->part, verb, msg);
		else if (h->child)
			caller_message(child_caller(h->child), h->id, json_copy((json_t *)msg));
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
			caller_data(child_caller(h->child), h->id, rank, p, n, eof);
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
			caller_credit(child_caller(h->child), h->id, rank, fd, bytes);
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
			caller_message(child_caller(h->child), h->id,
				       json_pack("{s:s}", "verb", "cancel"));
			caller_forget(child_caller(h->child), h->id);
		}
		rankset_finish(&h->ranks);
		rankset_finish(&h->left);
	}
	for (size_t i = 0; i < s->n_folded; i++) {
		json_decref(s->folded[i].event);
		rankset_finish(&s->folded[i].ranks);
	}
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

bool spread_wanted(const struct call *call, enum verb v)
{
	const struct agent *a = call->agent;
	/* The root makes and ends the cluster in steps of its own (agent/deploy.h). */
	bool root_step = a->self == 0 && (v == VERB_create || v == VERB_down);
	return a->mesh && call->out != &part_out && can_spread(v) && !root_step;
}

static struct hop *add_hop(struct spread *s, struct child *child)
{
	for (size_t i = 0; i < s->n_hops; i++)
		if (s->hops[i].child == child)
			return &s->hops[i];
	s->hops[s->n_hops] = (struct hop){.spread = s, .child = child, .granted = GUESTPROTO_STDIN_WINDOW};
	return &s->hops[s->n_hops++];
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
	rankset_add(&one, rank);
	if (answers_by_vm(s->verb)) {
		json_t *j = message_error(&err);
		json_object_set_new(j, "event", json_string("error"));
		fold(s, j, &one);
		return;
	}
	err_prefix(&err, "vm%u: ", rank);
	if (!s->first.code)
		s->first = err;
	rankset_add(&s->failed, rank);
}

static void share_ranks(struct spread *s, const struct rankset *ranks)
{
	struct agent *a = s->call->agent;
	const struct cluster_spec *spec = cluster_get_spec(a->cluster);
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1)) {
		uint32_t node = spec->node_of ? spec->node_of[r] : a->self;
		struct child *child = node == a->self ? NULL : mesh_route(a->mesh, node);
		if (node != a->self && !child) {
			no_way(s, r, node);
			continue;
		}
		struct hop *h = add_hop(s, child);
		rankset_add(&h->ranks, r);
		rankset_add(&h->left, r);
	}
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
		h->id = caller_call(child_caller(h->child), mine, &child_ops, h);
		return;
	}
	h->part = call_create(s->call->agent, &part_out, h);
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

int spread_begin(struct call *call, enum verb v, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	struct child *only = NULL;
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	if (v == VERB_launch ? one_agent(a, req, &only, err) < 0
			     : !takes_all(v) && asked(a, req, &ranks, err) < 0)
		return -1;
	struct spread *s = xcalloc(1, sizeof(*s));
	*s = (struct spread){.call = call, .verb = v, .told = GUESTPROTO_STDIN_WINDOW};
	s->input = v == VERB_put || json_integer_value(json_object_get(req, "stdin")) != 0;
	s->soon = evtimer_create(a->loop, on_soon, s);
	s->hops = xcalloc(count_children(a->mesh) + 1, sizeof(*s->hops));
	call->ops = &call_ops;
	call->state = s;
	if (v == VERB_launch) {
		add_hop(s, only);
	} else if (takes_all(v)) {
		if (a->self || v == VERB_status)
			add_hop(s, NULL);
		for (struct child *c = NULL; (c = mesh_child_next(a->mesh, c));)
			add_hop(s, c);
	} else {
		share_ranks(s, &ranks);
	}
	s->live = s->n_hops;
	for (size_t i = 0; i < s->n_hops; i++)
		send_hop(&s->hops[i], req);
	s->started = true;
	finish(s);
	return 0;
}
