/* SPDX-License-Identifier: Apache-2.0 */
/* What the hops of a request say, put together. Who has answered and who has not is in the books (overlay/fanout.h), which
 * the simulator drives too: nothing is complete before its last member was answered for, nobody is answered for twice. */
#include <errno.h>
#include <string.h>

#include "agent/spread_state.h"

bool spread_answers_by_vm(enum verb v)
{
	return v == VERB_exec || v == VERB_put || v == VERB_get;
}

bool spread_takes_all(enum verb v)
{
	return v == VERB_status || v == VERB_create || v == VERB_down || v == VERB_move ||
	       v == VERB_launch || v == VERB_join || v == VERB_send || v == VERB_unsend ||
	       v == VERB_arrive;
}

static void add_all(struct rankset *to, const struct rankset *from)
{
	for (uint32_t r = rankset_next(from, 0); r != UINT32_MAX; r = rankset_next(from, r + 1))
		rankset_add(to, r);
}

/* ---- on to who asked ---- */

void spread_emit(void *arg, const struct rankset *ranks, int fd, const char *p, size_t n, bool eof)
{
	struct spread *s = arg;
	call_folded(s->call, ranks, fd, p, n, eof);
}

static void tell_answer(struct spread *s, const struct fanout_group *g, const struct rankset *ranks)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	json_t *event = json_loadb(g->answer, g->len, 0, NULL);
	if (g->n == 1) {
		json_object_set_new(event, "rank", json_integer(g->any));
	} else {
		rankset_format(ranks, &text);
		json_object_set_new(event, "ranks", json_string(buf_cstr(&text)));
	}
	call_event(s->call, event);
}

/* Output first: an answer is the last that a VM says. */
void spread_deliver(void *arg)
{
	struct spread *s = arg;
	struct fanout_group g;
	s->due = 0;
	evtimer_stop(s->soon);
	if (s->output)
		folding_flush(s->output);
	while (s->answers) {
		_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
		s->answers = fanout_take(s->books, &g, &ranks);
		if (s->answers)
			tell_answer(s, &g, &ranks);
	}
}

/* The first failure of all, and whom any of them is about. */
static json_t *failure(struct spread *s)
{
	_cleanup_rankset_ struct rankset named = RANKSET_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT;
	json_t *first = NULL;
	for (uint32_t i = 0; i < fanout_groups(s->books); i++) {
		_cleanup_rankset_ struct rankset set = RANKSET_INIT;
		struct fanout_group g;
		fanout_group(s->books, i, &g, &set);
		if (!g.dead)
			continue;
		if (!first)
			first = json_loadb(g.answer, g.len, 0, NULL);
		if (!spread_takes_all(s->verb))
			add_all(&named, &set);
	}
	add_all(&named, &s->failed);
	rankset_format(&named, &text);
	if (first && rankset_count(&named))
		json_object_set_new(first, "ranks", json_string(buf_cstr(&text)));
	return first;
}

static void finish(struct spread *s)
{
	if (!fanout_done(s->books) && !s->broken)
		return;
	if (spread_answers_by_vm(s->verb)) {
		spread_deliver(s);
		call_ok(s->call); /* frees s */
		return;
	}
	if (s->verb == VERB_status && s->call->agent->deploy && s->reply)
		deploy_status(s->call->agent->deploy, s->reply);
	json_t *j = failure(s);
	if (!j)
		j = s->reply ? TAKE_PTR(s->reply) : json_pack("{s:b}", "ok", 1);
	call_reply(s->call, j); /* frees s */
}

void spread_look(struct spread *s)
{
	if (!s->started)
		return;
	if (!s->live || s->broken) {
		finish(s);
		return;
	}
	if (!spread_answers_by_vm(s->verb))
		return;
	uint64_t wait = s->output ? folding_wait(s->output) : 0, now = loop_now(s->call->agent->loop);
	if (wait == UINT64_MAX && s->answers)
		wait = s->open ? FOLDING_WAIT_MS : 0;
	if (wait == UINT64_MAX || (s->due && s->due <= now + wait && wait))
		return;
	if (!wait) {
		spread_deliver(s);
		return;
	}
	s->due = now + wait;
	evtimer_start(s->soon, wait, 0);
}

/* ---- the books ---- */

/* j: taken. malloc'ed. */
static char *text_of(json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(j);
	return text ? text : xstrdup("{}");
}

static char *error_text(const struct spread *s, const struct err *why)
{
	json_t *j = message_error(why);
	if (spread_answers_by_vm(s->verb))
		json_object_set_new(j, "event", json_string("error"));
	return text_of(j);
}

static void settled(struct spread *s, uint32_t n, const struct rankset *members)
{
	s->open -= n;
	s->answers = s->answers || n;
	if (s->output)
		folding_end(s->output, members);
}

void spread_dead(struct spread *s, const struct rankset *members, const struct err *why)
{
	_cleanup_free_ char *text = error_text(s, why);
	s->broken = s->broken || s->verb == VERB_hold;
	settled(s, fanout_dead(s->books, members, text, strlen(text)), members);
}

static void answer(struct hop *h, const struct rankset *members, const char *text)
{
	struct spread *s = h->spread;
	settled(s, fanout_answer(s->books, h->id, members, text, strlen(text)), members);
}

/* ---- the end of a hop ---- */

/* Who has answered, by index. */
static void merge_nodes(json_t *all, const json_t *reply)
{
	const char *texts[] = {json_string_value(json_object_get(all, "nodes")),
			       json_string_value(json_object_get(reply, "nodes"))};
	_cleanup_rankset_ struct rankset nodes = RANKSET_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_rankset_ struct rankset some = RANKSET_INIT;
		if (texts[i] && rankset_parse(&some, texts[i], RANK_MAX, NULL) == 0)
			add_all(&nodes, &some);
	}
	rankset_format(&nodes, &text);
	json_object_set_new(all, "nodes", json_string(buf_cstr(&text)));
}

static void merge(struct spread *s, const json_t *reply)
{
	if (!reply)
		return;
	if (!s->reply) {
		s->reply = json_copy((json_t *)reply);
	} else if (s->verb == VERB_status) {
		json_array_extend(json_object_get(s->reply, "vms"), json_object_get(reply, "vms"));
		json_array_extend(json_object_get(s->reply, "agents"),
				  json_object_get(reply, "agents"));
	} else if (s->verb == VERB_create) {
		json_int_t ms = json_integer_value(json_object_get(reply, "ready_ms"));
		if (ms > json_integer_value(json_object_get(s->reply, "ready_ms")))
			json_object_set_new(s->reply, "ready_ms", json_integer(ms));
		merge_nodes(s->reply, reply);
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

/* Of the VMs of a hop that failed those that its reply names have failed; no name: all. */
static void some_failed(struct hop *h, const json_t *reply)
{
	struct spread *s = h->spread;
	const char *named = json_string_value(json_object_get(reply, "ranks"));
	_cleanup_rankset_ struct rankset bad = RANKSET_INIT, good = RANKSET_INIT;
	if (!named || rankset_parse(&bad, named, RANK_MAX, NULL) < 0)
		return;
	if (spread_takes_all(s->verb)) {
		add_all(&s->failed, &bad);
		return;
	}
	for (uint32_t r = rankset_next(&h->ranks, 0); r != UINT32_MAX;
	     r = rankset_next(&h->ranks, r + 1))
		if (!rankset_has(&bad, r))
			rankset_add(&good, r);
	answer(h, &good, "");
}

/* Who has not answered in this direction will not: it is named, never left out. */
static void give_up(struct hop *h, const struct err *why)
{
	_cleanup_rankset_ struct rankset left = RANKSET_INIT;
	if (fanout_lost(h->spread->books, h->id, &left))
		spread_dead(h->spread, &left, why);
}

static void ended_well(struct hop *h, const json_t *reply)
{
	struct spread *s = h->spread;
	_cleanup_rankset_ struct rankset hop = RANKSET_INIT;
	struct err why = ERR_INIT;
	merge(s, reply);
	rankset_add(&hop, h->id);
	if (!spread_answers_by_vm(s->verb))
		answer(h, spread_takes_all(s->verb) ? &hop : &h->ranks, "");
	err_set(&why, EPROTO, "its agent ended the request without an answer of it");
	give_up(h, &why);
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
	if (!err || s->verb == VERB_status) { /* who is missing in a status is added by the root */
		ended_well(h, err ? NULL : reply);
	} else {
		some_failed(h, reply);
		give_up(h, err);
	}
	tell_credit(s);
	spread_look(s);
}

/* ---- what the hops say ---- */

/* The event of all hops: two counts of each, as it said them last, are added up. */
static void add_up(struct hop *h, enum sum which, const json_t *e, const char *first, const char *second)
{
	struct spread *s = h->spread;
	json_t *all = json_copy((json_t *)e);
	json_int_t a = 0, b = 0;
	h->sums[which][0] = json_integer_value(json_object_get(e, first));
	h->sums[which][1] = json_integer_value(json_object_get(e, second));
	for (size_t i = 0; i < s->n_hops; i++) {
		a += s->hops[i].sums[which][0];
		b += s->hops[i].sums[which][1];
	}
	json_object_set_new(all, first, json_integer(a));
	json_object_set_new(all, second, json_integer(b));
	call_event(s->call, all);
}

/* The last word of some VMs. */
static void answered(struct hop *h, const json_t *e)
{
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	if (!message_ranks(e, &ranks))
		return;
	json_t *plain = json_copy((json_t *)e);
	json_object_del(plain, "rank");
	json_object_del(plain, "ranks");
	_cleanup_free_ char *text = text_of(plain);
	answer(h, &ranks, text);
	spread_look(h->spread);
}

static void hop_event(struct hop *h, const json_t *e)
{
	struct spread *s = h->spread;
	const char *what = json_string_value(json_object_get(e, "event"));
	if (!what)
		return;
	if (strcmp(what, "progress") == 0)
		add_up(h, SUM_PROGRESS, e, "ready", "failed");
	else if (strcmp(what, "staging") == 0)
		add_up(h, SUM_STAGING, e, "have", "all");
	else if (spread_answers_by_vm(s->verb) && strcmp(what, "started") != 0)
		answered(h, e);
	else if (!s->output) /* that each of many has started is no news to anybody */
		call_event(s->call, json_copy((json_t *)e));
}

static void hop_data(struct hop *h, const struct rankset *ranks, int fd, const char *p, size_t n,
		     bool eof)
{
	struct spread *s = h->spread;
	if (!s->output) {
		call_folded(s->call, ranks, fd, p, n, eof);
		return;
	}
	folding_add(s->output, ranks, fd, p, n, eof);
	spread_look(s);
}

static void hop_data_of(struct hop *h, uint32_t rank, int fd, const char *p, size_t n, bool eof)
{
	struct spread *s = h->spread;
	_cleanup_rankset_ struct rankset one = RANKSET_INIT;
	if (!s->output) {
		call_data(s->call, rank, fd, p, n, eof);
		return;
	}
	if (rank < RANK_MAX)
		rankset_add(&one, rank);
	hop_data(h, &one, fd, p, n, eof);
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
	hop_data_of(part->out_arg, rank, fd, p, n, eof);
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

const struct call_out spread_part_out = {
	.json = part_json,
	.data = part_data,
	.credit = part_credit,
	.backlog = part_backlog,
};

/* ---- a child's part ---- */

/* What answers weigh is shown in the status: equal ones must not (bench/scale). */
static void weigh(const struct hop *h)
{
	if (spread_answers_by_vm(h->spread->verb))
		h->spread->call->agent->answer_bytes += caller_frame_size(child_caller(h->child));
}

static void child_event(void *arg, const json_t *e)
{
	weigh(arg);
	hop_event(arg, e);
}

static void child_data(void *arg, uint32_t rank, int fd, const char *p, size_t n, bool eof)
{
	weigh(arg);
	hop_data_of(arg, rank, fd, p, n, eof);
}

static void child_folded(void *arg, const struct rankset *ranks, int fd, const char *p, size_t n,
			 bool eof)
{
	weigh(arg);
	hop_data(arg, ranks, fd, p, n, eof);
}

static void child_credit(void *arg, uint32_t rank _unused_, uint32_t bytes)
{
	hop_credit(arg, bytes);
}

static void child_end(void *arg, const json_t *reply, const struct err *err)
{
	struct hop *h = arg;
	weigh(h);
	h->child = NULL;
	hop_end(h, reply, err);
}

const struct caller_ops spread_child_ops = {
	.on_event = child_event,
	.on_data = child_data,
	.on_folded = child_folded,
	.on_credit = child_credit,
	.on_end = child_end,
};
