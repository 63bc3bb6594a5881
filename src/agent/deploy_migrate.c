/* SPDX-License-Identifier: Apache-2.0 */
/* VMs move as they run, one after the other; the root decides where each is (docs/migration.md).
 * The source sends it and holds it ("send"). Only when it stands still in both places is it decided, and written to the
 * journal, that the target shall have it ("arrive"); the source is asked to let go of it ("move", which all hear) when the target
 * has said that it runs there, and asked until it has heard: its link may be cut just then. A target that says it has not got it, or whose VMs can run no more, leaves it to the source
 * ("unsend"). By post-copy the source may say, asked so, that it cannot go on there any more: then it is the target's, if that can
 * run it; and the source is kept until the target has all of it. Questions that are not answered are asked again; a root that
 * follows goes on with them. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "agent/deploy_state.h"
#include "agent/services.h"
#include "base/time.h"

#define AGAIN_MS 300
#define FED_MS 50
#define TIMEOUT_MS 600000 /* unless the request says */

enum migration_step { SENDING, TAKING, KEEPING, TELLING, FEEDING, LEAVING, SETTLING };

struct migration {
	struct migration *next;
	struct deploy *deploy;
	struct moving *asker; /* NULL: gone, or of the root before */
	enum migration_step step;
	uint32_t rank, from, to;
	bool post_copy;
	char id[33];
	struct call *call;
	struct call *canceller; /* by post-copy: waits for whether it was too late; NULL: none */
	struct evtimer *again, *bound;
	uint64_t begun, sent_at, stood_ms, bytes, disk, downtime_ms, late_ms;
	uint64_t there; /* since when it runs there; 0: before this root */
	struct err why; /* of one that stays where it was, or is lost */
	bool lost;      /* by post-copy: it has ended in the middle */
};

/* A "migrate" request. */
struct moving {
	struct moving *next;
	struct deploy *deploy;
	struct call *call;
	struct rankset left, failed;
	uint32_t to;
	bool post_copy;
	uint64_t bound_ms;
	struct migration *now;
	json_t *moved;
	struct err first;
};

static void ask(struct migration *m);
static void on_again(void *arg);
static void go_on(struct moving *r);

/* ---- one VM ---- */

static struct events *events_of(const struct migration *m)
{
	return cluster_events(m->deploy->agent->cluster);
}

static void note_moved(const struct migration *m)
{
	struct moving *r = m->asker;
	const char *from = m->deploy->members[m->from].name, *to = m->deploy->members[m->to].name;
	_cleanup_free_ char *stood = m->downtime_ms ? xasprintf(", stood still for %" PRIu64 " ms",
								m->downtime_ms)
						    : xstrdup("");
	events_add(events_of(m), m->rank, "node", "moved from %s to %s in %" PRIu64 " ms%s", from,
		   to, time_mono_ms() - m->begun, stood);
	if (r)
		json_array_append_new(r->moved,
				      json_pack("{s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "rank",
						(int)m->rank, "from", from, "to", to, "downtime_ms",
						(json_int_t)m->downtime_ms, "total_ms",
						(json_int_t)(time_mono_ms() - m->begun), "bytes",
						(json_int_t)m->bytes, "disk", (json_int_t)m->disk,
						"late_ms", (json_int_t)m->late_ms));
}

static void add_failed(struct moving *r, uint32_t rank, const struct err *why)
{
	if (!rankset_count(&r->failed)) {
		r->first = *why;
		err_prefix(&r->first, "vm%u: ", rank);
	}
	rankset_add(&r->failed, rank);
}

static void note_failed(const struct migration *m)
{
	struct moving *r = m->asker;
	if (m->lost)
		events_add(events_of(m), m->rank, "node", "lost on its way from %s to %s: %s",
			   m->deploy->members[m->from].name, m->deploy->members[m->to].name,
			   m->why.text);
	else
		events_add(events_of(m), m->rank, "node", "stays on %s: %s",
			   m->deploy->members[m->from].name, m->why.text);
	if (r)
		add_failed(r, m->rank, &m->why);
}

static void answer_canceller(struct migration *m, const struct err *err)
{
	struct call *call = TAKE_PTR(m->canceller);
	if (!call)
		return;
	call->state = NULL;
	if (err)
		call_fail(call, err);
	else
		call_reply(call, json_pack("{s:b, s:[]}", "ok", 1, "moved"));
}

static void unlink_migration(struct migration *m)
{
	answer_canceller(m, NULL);
	struct migration **at = &m->deploy->migrations;
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	if (m->call)
		call_drop(TAKE_PTR(m->call));
	if (m->asker)
		m->asker->now = NULL;
	evtimer_destroy(m->again);
	evtimer_destroy(m->bound);
	free(m);
}

static void end(struct migration *m)
{
	struct deploy *d = m->deploy;
	struct moving *r = m->asker;
	uint32_t from = m->from;
	bool stays = m->why.code && !m->lost;
	_cleanup_rankset_ struct rankset one = RANKSET_INIT;
	rankset_add(&one, m->rank);
	if (m->why.code)
		note_failed(m);
	else
		note_moved(m);
	unlink_migration(m);
	deploy_note_change(d);
	if (stays) { /* what there was to tell of it meanwhile was not */
		deploy_add_move(d, from, &one);
		deploy_move_next(d);
	}
	if (stays && d->members[from].safe && !d->members[from].up)
		deploy_recover(d, from); /* nobody looked after this VM until now */
	if (r)
		go_on(r);
}

static void keep(struct migration *m, const struct err *why)
{
	m->step = KEEPING;
	m->why = *why;
	evtimer_stop(m->bound);
	deploy_on_journal(m->deploy);
	ask(m);
}

static void tell(struct migration *m)
{
	struct deploy *d = m->deploy;
	_cleanup_rankset_ struct rankset one = RANKSET_INIT;
	rankset_add(&one, m->rank);
	m->step = TELLING;
	cluster_move(d->agent->cluster, m->rank, m->to, false, NULL);
	deploy_on_journal(d);
	deploy_add_move(d, m->to, &one);
	deploy_move_next(d);
}

void deploy_migrations_told(struct deploy *d)
{
	if (d->call || json_object_size(d->moves))
		return;
	for (struct migration *m = d->migrations; m; m = m->next)
		if (m->step == TELLING) {
			m->step = m->post_copy ? FEEDING : LEAVING;
			evtimer_start(m->again, 0, 0);
		}
}

/* ---- what is answered ---- */

static uint64_t number(const json_t *j, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(j, key));
	return v > 0 ? (uint64_t)v : 0;
}

static void on_sent(struct migration *m, const json_t *j, struct err *err)
{
	const char *text = json_string_value(json_object_get(j, "error"));
	if (!err->code && !json_is_true(json_object_get(j, "sent")))
		err_set(err, (int)number(j, "code") ?: EIO, "%s", text ? text : "it was not sent");
	if (err->code && json_is_true(json_object_get(j, "refused"))) {
		m->why = *err;
		end(m);
		return;
	}
	if (err->code) {
		keep(m, err);
		return;
	}
	m->bytes = number(j, "bytes");
	m->disk = number(j, "disk");
	m->stood_ms = number(j, "stood_ms");
	m->sent_at = time_mono_ms();
	m->step = TAKING;
	evtimer_stop(m->bound);
	if (deploy_write_journal(m->deploy, err) <
	    0) { /* from here on it may run there, and the next root must know */
		err_prefix(err, "the journal cannot be written: ");
		keep(m, err);
		return;
	}
	on_again(m);
}

static void on_taken(struct migration *m, const json_t *j)
{
	struct err err = ERR_INIT;
	const char *text = json_string_value(json_object_get(j, "error"));
	if (!json_is_true(json_object_get(j, "taken"))) {
		err_set(&err, EIO, "%s", text && text[0] ? text : "it was not taken");
		keep(m, &err);
		return;
	}
	uint64_t now = time_mono_ms(), since = number(j, "since_ms");
	if (m->sent_at)
		m->downtime_ms = m->stood_ms +
				 (now - m->sent_at > since ? now - m->sent_at - since : 0);
	m->there = now;
	tell(m);
}

/* By post-copy the source could not go on: some of it was there by then. */
static void on_split(struct migration *m)
{
	struct err late = ERR_INIT;
	m->step = TAKING;
	evtimer_start(m->again, AGAIN_MS, 0);
	if (deploy_write_journal(m->deploy, &late) <
	    0) { /* as in on_sent(): the next root must know; so it is asked anew */
		m->step = KEEPING;
		return;
	}
	m->why = (struct err)ERR_INIT;
	err_set(&late, EBUSY, "vm%u: it is too late: some of its memory is on %s alone", m->rank,
		m->deploy->members[m->to].name);
	answer_canceller(m, &late);
}

static void on_fed(struct migration *m, const json_t *j)
{
	if (!json_is_true(json_object_get(j, "fed"))) {
		evtimer_start(m->again, FED_MS, 0);
		return;
	}
	m->bytes = MAX(m->bytes, number(j, "bytes"));
	m->late_ms = m->there ? time_mono_ms() - m->there : 0;
	m->step = LEAVING;
	evtimer_start(m->again, 0, 0);
}

/* Its VMs can run no more, whatever it would answer. */
static bool is_dead(const struct migration *m, uint32_t node)
{
	const struct member *of = &m->deploy->members[node];
	return of->safe && (of->removed || !of->up);
}

static void settle(struct migration *m)
{
	m->step = SETTLING;
	evtimer_start(m->again, 0, 0);
}

/* By post-copy it may be lost until the target has said that it has all of it. */
static void on_settled(struct migration *m, const json_t *j, const struct err *err)
{
	const char *text = json_string_value(json_object_get(j, "error"));
	if (m->post_copy && err->code && !is_dead(m, m->to)) {
		evtimer_start(m->again, AGAIN_MS, 0);
		return;
	}
	if (m->post_copy && json_is_true(json_object_get(j, "late"))) {
		evtimer_start(m->again, FED_MS, 0);
		return;
	}
	m->lost = m->post_copy && (err->code || json_is_true(json_object_get(j, "over")));
	if (m->lost)
		err_set(&m->why, EIO, "%s",
			err->code ? "the node was lost before it had said that it has all of it"
			: text    ? text
				  : "it has ended");
	end(m);
}

/* By post-copy it may be that what was kept had to be ended. */
static void on_kept(struct migration *m, const json_t *j)
{
	m->lost = m->post_copy && json_is_true(json_object_get(j, "over"));
	end(m);
}

static void answered(struct migration *m, const json_t *j, struct err *err)
{
	if (m->step == SENDING)
		on_sent(m, j, err);
	else if (m->step == SETTLING)
		on_settled(m, j, err);
	else if (err->code) /* perhaps it was done, perhaps not */
		evtimer_start(m->again, AGAIN_MS, 0);
	else if (m->step == TAKING)
		on_taken(m, j);
	else if (m->step == FEEDING)
		on_fed(m, j);
	else if (m->step == LEAVING)
		settle(m);
	else if (json_is_true(json_object_get(j, "split")))
		on_split(m);
	else
		on_kept(m, j);
}

static void on_json(struct call *call, json_t *j, bool last)
{
	struct migration *m = call->out_arg;
	struct err err = ERR_INIT;
	if (last) {
		m->call = NULL;
		message_is_error(j, &err);
		answered(m, j, &err);
	}
	json_decref(j);
}

static const struct call_out out = {
	.json = on_json,
	.data = deploy_no_data,
	.credit = deploy_no_credit,
	.backlog = deploy_no_backlog,
};

/* ---- what is asked ---- */

/* What deploy_move_next() told all agents, to the source alone. */
static json_t *leave_request(const struct migration *m)
{
	const struct strvec *names = &cluster_get_spec(m->deploy->agent->cluster)->nodes;
	json_t *all = json_array();
	char node[16], rank[16];
	for (size_t i = 0; m->deploy->grown && i < names->n; i++)
		json_array_append_new(all, json_string(names->v[i]));
	snprintf(node, sizeof(node), "%u", m->to);
	snprintf(rank, sizeof(rank), "%u", m->rank);
	return json_pack("{s:s, s:I, s:{s:s}, s:b, s:o}", "verb", verb_name(VERB_move), "to",
			 (json_int_t)m->from, "place", node, rank, "start", 0, "nodes", all);
}

static void ask(struct migration *m)
{
	static const struct {
		enum verb verb;
		bool target;
	} asks[] = {[SENDING] = {VERB_send, false},   [TAKING] = {VERB_arrive, true},
		    [KEEPING] = {VERB_unsend, false}, [FEEDING] = {VERB_unsend, false},
		    [LEAVING] = {VERB_move, false},   [SETTLING] = {VERB_arrive, true}};
	struct err err = ERR_INIT;
	uint32_t whom = asks[m->step].target ? m->to : m->from;
	enum verb v = asks[m->step].verb;
	json_t *req = v == VERB_move
			      ? leave_request(m)
			      : json_pack("{s:s, s:I, s:I, s:s, s:I, s:b, s:b, s:b, s:b}", "verb",
					  verb_name(v), "to", (json_int_t)whom, "rank",
					  (json_int_t)m->rank, "id", m->id, "node", (json_int_t)m->to,
					  "ready", m->step == SETTLING, "post_copy", m->post_copy,
					  "fed", m->step == FEEDING, "lost", is_dead(m, m->to));
	m->call = call_create(m->deploy->agent, &out, m);
	if (spread_begin(m->call, v, req, &err) < 0)
		call_fail(m->call, &err); /* m may be gone after */
	json_decref(req);
}

static void on_again(void *arg)
{
	struct migration *m = arg;
	struct err err = ERR_INIT;
	if (m->step == TAKING && is_dead(m, m->to)) {
		err_set(&err, EHOSTDOWN, "%s was lost before it said that the VM runs there",
			m->deploy->members[m->to].name);
		keep(m, &err);
	} else if (m->step == KEEPING && is_dead(m, m->from)) {
		end(m);
	} else if ((m->step == LEAVING || m->step == FEEDING) && is_dead(m, m->from)) {
		settle(m);
	} else if (m->step == TAKING && m->deploy->call) { /* it may tell the old place */
		evtimer_start(m->again, 1, 0);
	} else if (!m->call && m->step != TELLING) {
		ask(m);
	}
}

static void on_bound(void *arg)
{
	struct migration *m = arg;
	struct err err = ERR_INIT;
	if (m->step != SENDING)
		return;
	err_set(&err, ETIMEDOUT, "not moved in time");
	if (m->call)
		call_drop(TAKE_PTR(m->call));
	keep(m, &err);
}

void deploy_migrations_lost(struct deploy *d, uint32_t node)
{
	struct migration *next;
	for (struct migration *m = d->migrations; m; m = next) {
		struct err err = ERR_INIT;
		next = m->next;
		if (m->step != SENDING || m->to != node)
			continue;
		err_set(&err, EHOSTUNREACH, "%s is lost", d->members[node].name);
		if (m->call)
			call_drop(TAKE_PTR(m->call));
		keep(m, &err);
	}
}

static struct migration *make(struct deploy *d, uint32_t rank, uint32_t from, uint32_t to)
{
	struct migration *m = xcalloc(1, sizeof(*m));
	*m = (struct migration){.next = d->migrations, .deploy = d, .rank = rank, .from = from, .to = to};
	m->begun = time_mono_ms();
	m->again = evtimer_create(d->agent->loop, on_again, m);
	m->bound = evtimer_create(d->agent->loop, on_bound, m);
	d->migrations = m;
	return m;
}

bool deploy_is_migrating(const struct deploy *d, uint32_t rank)
{
	const struct migration *m = d->migrations;
	while (m && (m->rank != rank || m->step >= TELLING))
		m = m->next;
	return m != NULL;
}

/* ---- a request ---- */

static void moving_destroy(struct moving *r)
{
	struct moving **at = &r->deploy->movings;
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	if (r->now)
		r->now->asker = NULL;
	rankset_finish(&r->left);
	rankset_finish(&r->failed);
	json_decref(r->moved);
	free(r);
}

static void finish(struct moving *r)
{
	struct call *call = TAKE_PTR(r->call);
	_cleanup_buf_ struct buf ranks = BUF_INIT;
	json_t *j;
	rankset_format(&r->failed, &ranks);
	if (rankset_count(&r->failed))
		j = json_pack("{s:b, s:i, s:s, s:s, s:O}", "ok", 0, "code", r->first.code, "error",
			      r->first.text, "ranks", buf_cstr(&ranks), "moved", r->moved);
	else
		j = json_pack("{s:b, s:O}", "ok", 1, "moved", r->moved);
	moving_destroy(r);
	if (call) {
		call->state = NULL;
		call_reply(call, j);
	} else {
		json_decref(j);
	}
}

static int check_target(const struct moving *r, struct err *err)
{
	struct deploy *d = r->deploy;
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	const struct member *m = &d->members[r->to];
	struct plan_options o;
	uint32_t here = 0;
	if (!m->up || m->joining || m->leaving || m->removed)
		return err_set(err, EHOSTUNREACH, "%s takes no VMs now%s%s", m->name,
			       m->why ? ": " : "", m->why ? m->why : "");
	if (deploy_plan_options(d, &o, err) < 0)
		return -1;
	for (uint32_t i = 0; i < s->size; i++)
		here += s->node_of[i] == r->to;
	for (const struct migration *w = d->migrations; w; w = w->next)
		here += w->to == r->to && w->step < TELLING; /* on its way */
	struct plan_node node = deploy_plan_node(d, r->to);
	return here < plan_room(&o, &node)
		       ? 0
		       : err_set(err, ENOSPC, "%s has no room for one more VM", m->name);
}

/* 1: it is on its way. */
static int start(struct moving *r, uint32_t rank, struct err *err)
{
	struct deploy *d = r->deploy;
	uint32_t from = cluster_get_spec(d->agent->cluster)->node_of[rank];
	uint64_t random[2];
	if (from == r->to)
		return 0;
	if (!d->members[from].up)
		return err_set(err, EHOSTUNREACH, "vm%u: %s is lost", rank, d->members[from].name);
	for (const struct migration *m = d->migrations; m; m = m->next)
		if (m->rank == rank)
			return err_set(err, EBUSY, "vm%u: is being moved", rank);
	if (check_target(r, err) < 0)
		return err_prefix(err, "vm%u: ", rank);
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return err_errno(err, errno, "random bytes");
	struct migration *m = make(d, rank, from, r->to);
	snprintf(m->id, sizeof(m->id), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
	m->post_copy = r->post_copy;
	m->asker = r;
	r->now = m;
	if (deploy_write_journal(d, err) < 0) {
		unlink_migration(m);
		return err_prefix(err, "the journal cannot be written: ");
	}
	evtimer_start(m->bound, r->bound_ms, 0);
	ask(m);
	return 1;
}

static void go_on(struct moving *r)
{
	for (uint32_t rank; (rank = rankset_next(&r->left, 0)) != UINT32_MAX;) {
		struct err err = ERR_INIT;
		rankset_del(&r->left, rank);
		int rc = r->call ? start(r, rank, &err) : 0;
		if (rc > 0)
			return;
		if (rc < 0 && !rankset_count(&r->failed))
			r->first = err;
		if (rc < 0)
			rankset_add(&r->failed, rank);
	}
	finish(r);
}

/* Who asked is gone: what is on its way and not decided is called off. */
static void on_call_end(struct call *call)
{
	struct moving *r = call->state;
	if (!r)
		return;
	struct migration *m = r->now;
	struct err err = ERR_INIT;
	moving_destroy(r);
	if (!m || m->step != SENDING)
		return;
	err_set(&err, ECANCELED, "cancelled");
	if (m->call)
		call_drop(TAKE_PTR(m->call));
	keep(m, &err);
}

static const struct call_ops ops = {.on_end = on_call_end};

static uint32_t find_node(const struct deploy *d, const char *name)
{
	for (uint32_t i = 1; i <= d->n; i++)
		if (!d->members[i].removed && strcmp(d->members[i].name, name) == 0)
			return i;
	return 0;
}

/* Of other requests, which tell of it. */
static int call_off(struct deploy *d, const struct rankset *ranks, struct err *why)
{
	struct migration *next;
	int n = 0;
	for (struct moving *r = d->movings; r; r = r->next)
		for (uint32_t rank = rankset_next(&r->left, 0); rank != UINT32_MAX;
		     rank = rankset_next(&r->left, rank + 1)) {
			if (!rankset_has(ranks, rank))
				continue;
			rankset_del(&r->left, rank);
			add_failed(r, rank, why);
			n++;
		}
	for (struct migration *m = d->migrations; m; m = next) {
		next = m->next;
		if (m->step != SENDING || !rankset_has(ranks, m->rank))
			continue;
		if (m->call)
			call_drop(TAKE_PTR(m->call));
		keep(m, why);
		n++;
	}
	return n;
}

static void on_canceller_end(struct call *call)
{
	struct migration *m = call->state;
	if (m)
		m->canceller = NULL;
}

/* One of these that has to be asked first, since it may be too late. */
static struct migration *find_doubtful(struct deploy *d, const struct rankset *ranks)
{
	struct migration *m = d->migrations;
	while (m &&
	       (m->step != KEEPING || !m->post_copy || m->canceller || !rankset_has(ranks, m->rank)))
		m = m->next;
	return m;
}

static int cancel(struct call *call, const json_t *req, struct err *err)
{
	static const struct call_ops waits = {.on_end = on_canceller_end};
	struct deploy *d = call->agent->deploy;
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	struct err why = ERR_INIT;
	err_set(&why, ECANCELED, "cancelled");
	if (service_ranks(call->agent, req, &ranks, err) < 0)
		return -1;
	if (!call_off(d, &ranks, &why))
		return err_set(err, ESRCH, "none of these VMs is on its way, or it is too late");
	struct migration *m = find_doubtful(d, &ranks);
	if (m) {
		m->canceller = call;
		call->state = m;
		call->ops = &waits;
		return 0;
	}
	call_reply(call, json_pack("{s:b, s:[]}", "ok", 1, "moved"));
	return 0;
}

int service_migrate(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	struct deploy *d = a->deploy;
	const char *node;
	json_int_t bound = TIMEOUT_MS;
	struct rankset ranks = RANKSET_INIT;
	if (!d)
		return err_set(err, ENOTSUP, "the cluster runs on this node alone");
	if (d->step != UP)
		return err_set(err, EBUSY, "the cluster is not up");
	if (json_is_true(json_object_get(req, "cancel")))
		return cancel(call, req, err);
	if (message_str(req, "node", &node, err) < 0 ||
	    (json_object_get(req, "timeout_ms") &&
	     message_int(req, "timeout_ms", 1, INT32_MAX, &bound, err) < 0))
		return -1;
	if (cluster_spec_can_leave(cluster_get_spec(a->cluster), "migrate", err) < 0)
		return -1;
	uint32_t to = find_node(d, node);
	if (!to)
		return err_set(err, EINVAL, "the cluster has no node '%.60s'", node);
	if (service_ranks(a, req, &ranks, err) < 0) {
		rankset_finish(&ranks);
		return -1;
	}
	struct moving *r = xcalloc(1, sizeof(*r));
	*r = (struct moving){.next = d->movings, .deploy = d, .call = call, .left = ranks, .to = to};
	r->post_copy = json_is_true(json_object_get(req, "post_copy"));
	r->bound_ms = (uint64_t)bound;
	r->moved = json_array();
	d->movings = r;
	call->ops = &ops;
	call->state = r;
	go_on(r);
	return 0;
}

/* ---- the journal, and the end ---- */

json_t *deploy_migrations_journal(const struct deploy *d)
{
	json_t *list = json_array();
	for (const struct migration *m = d->migrations; m; m = m->next)
		if (m->step < SETTLING)
			json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:s, s:b, s:b}",
							      "rank", (json_int_t)m->rank, "from",
							      (json_int_t)m->from, "to",
							      (json_int_t)m->to, "id", m->id, "taking",
							      m->step != SENDING && m->step != KEEPING,
							      "post_copy", m->post_copy));
	return list;
}

void deploy_migrations_resume(struct deploy *d, const json_t *list)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	const json_t *v;
	size_t i;
	json_array_foreach (list, i, v) {
		uint64_t rank = number(v, "rank"), from = number(v, "from"), to = number(v, "to");
		const char *id = json_string_value(json_object_get(v, "id"));
		if (rank >= s->size || from < 1 || from > d->n || to < 1 || to > d->n || !id)
			continue;
		struct migration *m = make(d, (uint32_t)rank, (uint32_t)from, (uint32_t)to);
		snprintf(m->id, sizeof(m->id), "%.32s", id);
		m->post_copy = json_is_true(json_object_get(v, "post_copy"));
		m->step = json_is_true(json_object_get(v, "taking")) ? TAKING : KEEPING;
		if (m->step == KEEPING)
			err_set(&m->why, ECANCELED, "the root agent was started again meanwhile");
		evtimer_start(m->again, AGAIN_MS, 0);
	}
}

void deploy_migrations_stop(struct deploy *d)
{
	struct err err = ERR_INIT;
	err_set(&err, ESHUTDOWN, "the cluster is being ended");
	while (d->movings) {
		struct call *call = TAKE_PTR(d->movings->call);
		moving_destroy(d->movings);
		if (call) {
			call->state = NULL;
			call_fail(call, &err);
		}
	}
	while (d->migrations)
		unlink_migration(d->migrations);
}
