/* SPDX-License-Identifier: Apache-2.0 */
/* The asking half of the swarm: providers, windows, patience. */
#include <string.h>

#include "base/alloc.h"
#include "stage/swarm_state.h"

#define CONNECT_MS 1000 /* a link that is being made the first time is waited for so long */
#define REFUSED_MS 2000 /* who said NO is not asked for so long */
#define INDEX_MS 1000   /* so long the index may take before another is asked */
#define PATIENCE_MIN_MS 300
#define PATIENCE_MAX_MS 5000
#define PATIENCE_CHUNKS 6 /* times of an average chunk at the present rate */
#define CALM_MAX_MS 2000
#define STRIKES 3
#define NARROW                                                                                     \
	3 /* a provider whose other stripe comes so many times slower than ours has a narrow line */
#define PARALLEL 4    /* chunks asked of the backup at once, when this stripe is behind the other */
#define ROTATE_MS 250 /* then, a backup that has nothing of use is replaced after this */
#define AVERAGE (256u << 10)

/* ---- wants ---- */

static struct want *find(struct swarm_file *f, uint32_t idx)
{
	for (unsigned i = 0; i < f->n_wants; i++)
		if (f->wants[i].idx == idx)
			return &f->wants[i];
	return NULL;
}

static struct stripe *stripe_of(struct swarm_file *f, uint32_t idx)
{
	return &f->stripes[chunk_stripe(f, idx)];
}

static bool offers(const struct swarm_file *f, const struct stripe *st, uint32_t idx)
{
	return f->index && st->backup != NOBODY && idx != STAGE_INDEX &&
	       st->backup_has[idx / 8] & 1u << idx % 8;
}

static void set_want(struct want *w, uint32_t node, uint64_t now)
{
	w->node = node;
	w->asked_at = w->touched = now;
	w->arriving = false;
}

static struct want *add_want(struct swarm_file *f, uint32_t idx, uint32_t node, uint64_t now)
{
	if (f->n_wants == ARRAY_SIZE(f->wants))
		return NULL;
	struct stripe *st = stripe_of(f, idx);
	struct want *w = &f->wants[f->n_wants++];
	*w = (struct want){.idx = idx};
	set_want(w, node, now);
	if (!st->n_out++)
		st->progress_at = now;
	if (idx != STAGE_INDEX)
		f->state[idx] |= CHUNK_ASKED;
	return w;
}

/* Forgets a want; its chunk is missing again, unless it has come. */
static void drop_want(struct swarm_file *f, struct want *w)
{
	struct stripe *st = stripe_of(f, w->idx);
	st->n_out--;
	if (w->idx != STAGE_INDEX) {
		f->state[w->idx] &= (uint8_t)~CHUNK_ASKED;
		st->next = MIN(st->next, w->idx);
	}
	*w = f->wants[--f->n_wants];
}

static void cancel(struct swarm_file *f, struct want *w)
{
	swarm_send(f->swarm, w->node, STAGE_CANCEL, f, w->idx, 0);
}

/* Takes back what was asked of a node in a stripe (both: -1). What is arriving is let be, unless gone. */
static void take_back(struct swarm_file *f, uint32_t node, int stripe, bool gone)
{
	for (unsigned i = f->n_wants; i-- > 0;) {
		struct want *w = &f->wants[i];
		if (w->node != node || (stripe >= 0 && chunk_stripe(f, w->idx) != (unsigned)stripe))
			continue;
		if (w->arriving && !gone)
			continue;
		if (!gone)
			cancel(f, w);
		drop_want(f, w);
	}
}

/* ---- whom to ask ---- */

void ask_start(struct swarm_file *f)
{
	for (unsigned s = 0; s < PLAN_STRIPES; s++) {
		struct stripe *st = &f->stripes[s];
		uint32_t nodes[PLAN_PROVIDERS];
		uint32_t self = f->swarm->self;
		st->n_cand = self ? plan_providers(f->nodes, s, self, nodes) : 0;
		st->depth = self && self <= f->nodes ? plan_depth(f->nodes, s, self) : 8;
		for (unsigned i = 0; i < st->n_cand; i++)
			st->cand[i] = (struct candidate){.node = nodes[i]};
		st->primary = st->backup = NOBODY;
	}
}

void ask_indexed(struct swarm_file *f)
{
	uint64_t bytes[PLAN_STRIPES] = {0};
	for (unsigned s = 0; s < PLAN_STRIPES; s++)
		f->stripes[s].backup_has = xcalloc(f->index->n / 8 + 1, 1);
	for (uint32_t i = 0; i < f->index->n; i++) {
		unsigned s = bytes[1] < bytes[0];
		f->state[i] |= s ? CHUNK_STRIPE : 0;
		bytes[s] += f->index->chunks[i].size;
		if (f->state[i] & CHUNK_HAVE)
			continue;
		f->stripes[s].missing++;
		f->stripes[s].left += f->index->chunks[i].size;
	}
	for (unsigned s = 0; s < PLAN_STRIPES; s++) {
		f->stripes[s].left_start = f->stripes[s].left;
		f->stripes[s].backup = NOBODY; /* what it told could not be understood yet */
	}
}

static bool connect_due(struct swarm *s, struct peer *p, uint64_t now)
{
	if (p->state == PEER_NEW || (p->state == PEER_DOWN && now >= p->retry_at)) {
		p->state = PEER_CONNECTING;
		p->since = now;
		s->ops->connect(s->arg, p->node);
		return true;
	}
	return false;
}

/* The first candidate from `from` on that can be asked, or is worth waiting for. n_cand: none. */
static unsigned choose(struct swarm_file *f, struct stripe *st, unsigned from, uint64_t now)
{
	for (unsigned i = from; i < st->n_cand; i++) {
		struct peer *p = swarm_peer(f->swarm, st->cand[i].node);
		if (p->banned || p->lost || now < st->cand[i].refused_until)
			continue;
		connect_due(f->swarm, p, now);
		if (p->state == PEER_UP ||
		    (p->state == PEER_CONNECTING && !p->fails && now - p->since < CONNECT_MS))
			return i;
	}
	return st->n_cand;
}

static bool watched_elsewhere(const struct swarm_file *f, const struct stripe *st, uint32_t node)
{
	for (unsigned s = 0; s < PLAN_STRIPES; s++)
		if (&f->stripes[s] != st && f->stripes[s].backup == node)
			return true;
	return false;
}

static void watch(struct swarm_file *f, struct stripe *st, uint32_t node)
{
	if (st->backup == node)
		return;
	if (st->backup != NOBODY && !watched_elsewhere(f, st, st->backup))
		swarm_send(f->swarm, st->backup, STAGE_WATCH, f, 0, 0);
	bool known = node != NOBODY && watched_elsewhere(f, st, node);
	st->backup = node;
	if (f->index)
		memset(st->backup_has, 0, f->index->n / 8 + 1);
	if (node == NOBODY)
		return;
	if (known) /* else it would send only what comes from now on */
		swarm_send(f->swarm, node, STAGE_WATCH, f, 0, 0);
	swarm_send(f->swarm, node, STAGE_WATCH, f, 0, 1);
}

static void fill(struct swarm_file *f, unsigned s, uint64_t now)
{
	struct stripe *st = &f->stripes[s];
	if (!f->index) {
		if (!s && !find(f, STAGE_INDEX) && add_want(f, STAGE_INDEX, st->primary, now))
			swarm_send(f->swarm, st->primary, STAGE_GET, f, STAGE_INDEX, 0);
		return;
	}
	for (; st->n_out < WINDOW && st->next < f->index->n; st->next++) {
		uint8_t state = f->state[st->next];
		if (state & (CHUNK_HAVE | CHUNK_HELD | CHUNK_ASKED) || chunk_stripe(f, st->next) != s)
			continue;
		if (!add_want(f, st->next, st->primary, now))
			return;
		swarm_send(f->swarm, st->primary, STAGE_GET, f, st->next, 0);
	}
}

static bool asking(const struct swarm_file *f)
{
	return f->want && !f->paused && (!f->index || f->missing);
}

static void update_stripe(struct swarm_file *f, unsigned s, uint64_t now)
{
	struct stripe *st = &f->stripes[s];
	unsigned a = choose(f, st, 0, now), b = choose(f, st, a + 1, now);
	uint32_t primary = a < st->n_cand ? st->cand[a].node : NOBODY;
	if (primary != st->primary) {
		if (st->primary != NOBODY)
			take_back(f, st->primary, (int)s, false);
		st->primary = primary;
		st->strikes = 0;
		st->progress_at = st->touched = now; /* silent from now on, not since ever */
	}
	uint32_t backup = b < st->n_cand ? st->cand[b].node : NOBODY;
	if (f->index && (backup == NOBODY || swarm_peer(f->swarm, backup)->state == PEER_UP))
		watch(f, st, backup);
	if (primary != NOBODY && swarm_peer(f->swarm, primary)->state == PEER_UP)
		fill(f, s, now);
}

void ask_update(struct swarm_file *f, uint64_t now)
{
	if (!asking(f))
		return;
	for (unsigned s = 0; s < PLAN_STRIPES; s++)
		update_stripe(f, s, now);
}

void ask_stop(struct swarm_file *f)
{
	while (f->n_wants) {
		cancel(f, &f->wants[0]);
		drop_want(f, &f->wants[0]);
	}
	for (unsigned s = 0; s < PLAN_STRIPES; s++) {
		watch(f, &f->stripes[s], NOBODY);
		f->stripes[s].primary = NOBODY;
	}
}

/* ---- what happens ---- */

void ask_peer_up(struct swarm_file *f, uint32_t node)
{
	for (unsigned s = 0; s < PLAN_STRIPES; s++)
		for (unsigned i = 0; i < f->stripes[s].n_cand; i++)
			if (f->stripes[s].cand[i].node == node)
				f->stripes[s].cand[i].refused_until = 0;
}

static void refused_by(struct stripe *st, uint32_t node, uint64_t now)
{
	for (unsigned i = 0; i < st->n_cand; i++)
		if (st->cand[i].node == node)
			st->cand[i].refused_until = now + REFUSED_MS;
}

void ask_refused(struct swarm_file *f, uint32_t node, uint32_t idx, uint64_t now)
{
	if (!f->index && idx != STAGE_INDEX)
		return;
	struct want *w = idx == STAGE_INDEX || idx < f->index->n ? find(f, idx) : NULL;
	if (!w || w->node != node)
		return;
	drop_want(f, w);
	for (unsigned s = 0; s < PLAN_STRIPES; s++)
		refused_by(&f->stripes[s], node, now);
	ask_update(f, now);
}

void ask_offered(struct swarm_file *f, uint32_t node, const struct stage_msg *m)
{
	if (!f->index || m->chunk + m->n > f->index->n)
		return;
	for (unsigned s = 0; s < PLAN_STRIPES; s++) {
		struct stripe *st = &f->stripes[s];
		if (st->backup != node)
			continue;
		for (uint32_t i = 0; i < m->n; i++)
			if (m->bits[i / 8] & 1u << i % 8)
				st->backup_has[(m->chunk + i) / 8] |= (uint8_t)(1u << (m->chunk + i) % 8);
	}
}

/* How far, in ms, a stripe may fall behind the other one before its provider is taken for slow. */
static uint64_t patience(const struct swarm_file *f, const struct stripe *st)
{
	uint64_t average = f->index && f->index->n ? f->index->size / f->index->n : AVERAGE;
	uint64_t t = f->rate ? PATIENCE_CHUNKS * average * 1000 / f->rate : PATIENCE_MAX_MS;
	t = MIN(MAX(t, PATIENCE_MIN_MS), PATIENCE_MAX_MS);
	return t * (4 + MIN(st->depth, 16u)) / 4;
}

void ask_got(struct swarm_file *f, uint32_t idx)
{
	struct want *w = find(f, idx);
	if (!w)
		return;
	cancel(f, w);
	drop_want(f, w);
}

bool swarm_arriving(struct swarm_file *f, uint32_t idx, uint32_t node, uint32_t n, uint64_t now)
{
	if (!f->want || file_has(f, idx) ||
	    (f->index ? idx != STAGE_INDEX && idx >= f->index->n : idx != STAGE_INDEX))
		return false;
	if (idx != STAGE_INDEX && f->state[idx] & CHUNK_HELD)
		return false;
	struct want *w = find(f, idx);
	if (w && w->node != node) {
		if (n || w->arriving)
			return false;
		cancel(f, w); /* its CANCEL came too late: take it, now that it is on its way */
		set_want(w, node, now);
	}
	if (!w && (n || !(w = add_want(f, idx, node, now))))
		return false;
	struct stripe *st = stripe_of(f, idx);
	w->arriving = true;
	w->touched = now;
	if (!st->began_at)
		st->began_at = now;
	st->arrived += n;
	st->progress_at = now;
	if (node == st->primary)
		st->touched = now;
	return true;
}

void swarm_arrived(struct swarm_file *f, uint32_t idx, uint32_t node, bool ok, uint64_t now)
{
	struct want *w = find(f, idx);
	if (!w || w->node != node)
		return;
	struct stripe *st = stripe_of(f, idx);
	if (ok && node == st->primary)
		st->strikes -= st->strikes > 0;
	drop_want(f, w);
	if (!ok)
		ask_update(f, now);
}

/* ---- time ---- */

/* Who waits for this stripe's chunks from us must not take us for the slow one. */
static void tell_late(struct swarm_file *f, unsigned s, uint64_t now)
{
	struct stripe *st = &f->stripes[s];
	uint32_t rate = (uint32_t)MIN(f->stripes[1 - s].rate >> 10, (uint64_t)UINT32_MAX);
	if (now - st->told_at < PATIENCE_MIN_MS && st->told_at)
		return;
	st->told_at = now;
	for (struct peer *p = f->swarm->peers; p; p = p->next)
		for (uint32_t i = 0; i < p->n_asked; i++) {
			const struct asked *a = &p->asked[i];
			if (a->file != f || a->ready || a->idx == STAGE_INDEX ||
			    chunk_stripe(f, a->idx) != s)
				continue;
			swarm_send(f->swarm, p->node, STAGE_LATE, f, rate, s);
			break;
		}
}

void ask_be_patient(struct swarm_file *f, uint32_t node, const struct stage_msg *m, uint64_t now)
{
	unsigned stripe = m->n;
	struct stripe *st = &f->stripes[stripe];
	if (st->primary != node || now < st->late_until ||
	    f->stripes[1 - stripe].rate >> 10 > (uint64_t)NARROW * m->chunk)
		return;
	uint64_t t = MIN(2 * patience(f, st), CALM_MAX_MS);
	st->calm_until = MAX(st->calm_until, now + t);
	st->late_until = now + 4 * t; /* it cannot keep us waiting by this again and again */
	tell_late(f, stripe, now);
}

void ask_peer_down(struct swarm_file *f, uint32_t node, uint64_t now)
{
	for (unsigned s = 0; s < PLAN_STRIPES; s++) {
		if (f->stripes[s].backup == node)
			f->stripes[s].backup = NOBODY; /* it has forgotten that we watch */
		if (f->stripes[s].primary != node || !asking(f))
			continue;
		f->swarm->moved++;
		f->stripes[s].calm_until = now + MIN(patience(f, &f->stripes[s]), CALM_MAX_MS);
		if (f->index)
			tell_late(f, s, now);
	}
	take_back(f, node, -1, true);
}

static void to_tail(struct stripe *st, uint32_t node)
{
	for (unsigned i = 0; i + 1 < st->n_cand; i++)
		if (st->cand[i].node == node) {
			struct candidate c = st->cand[i];
			st->cand[i] = st->cand[i + 1];
			st->cand[i + 1] = c;
		}
}

static void steal(struct swarm_file *f, struct stripe *st, struct want *w, uint64_t now)
{
	cancel(f, w);
	set_want(w, st->backup, now);
	swarm_send(f->swarm, st->backup, STAGE_GET, f, w->idx, 0);
}

/* The index: asked of one after the other. */
static void tick_index(struct swarm_file *f, uint64_t now)
{
	struct want *w = find(f, STAGE_INDEX);
	struct stripe *st = &f->stripes[0];
	if (!w || now - w->touched < INDEX_MS)
		return;
	unsigned at = 0;
	while (at < st->n_cand && st->cand[at].node != w->node)
		at++;
	for (unsigned i = 1; i <= st->n_cand; i++) {
		struct candidate *c = &st->cand[(at + i) % st->n_cand];
		struct peer *p = swarm_peer(f->swarm, c->node);
		if (p->banned || p->lost || now < c->refused_until)
			continue;
		connect_due(f->swarm, p, now);
		if (p->state != PEER_UP)
			continue;
		cancel(f, w);
		set_want(w, c->node, now);
		swarm_send(f->swarm, c->node, STAGE_GET, f, STAGE_INDEX, 0);
		return;
	}
}

/* How far this stripe is behind the other one, in ms at the other's rate. Where our own line is the narrow place, both
 * are equally far. */
static uint64_t behind(const struct swarm_file *f, unsigned s)
{
	const struct stripe *st = &f->stripes[s], *other = &f->stripes[1 - s];
	if (!other->left_start || !other->rate)
		return 0;
	double done = 1 - (double)other->left / (double)other->left_start;
	double gap = done * (double)st->left_start - (double)(st->left_start - st->left);
	return gap > 0 ? (uint64_t)(gap * 1000 / (double)other->rate) : 0;
}

/* Behind, and falling back further: who only was behind once has a provider that is as good as any. */
static bool is_late(const struct swarm_file *f, unsigned s, uint64_t t, uint64_t now)
{
	const struct stripe *st = &f->stripes[s], *other = &f->stripes[1 - s];
	uint64_t started = st->began_at > other->began_at ? st->began_at - other->began_at : 0;
	if (behind(f, s) > t + started / 2 && st->present < other->present * 6 / 10)
		return true;
	return st->n_out && now - st->touched > 4 * t;
}

/* What the backup has and the primary is not sending is asked of the backup. */
static void steal_late(struct swarm_file *f, unsigned s, uint64_t t, uint64_t now)
{
	struct stripe *st = &f->stripes[s];
	bool late = now >= st->calm_until && is_late(f, s, t, now);
	for (unsigned i = f->n_wants; i-- > 0;) {
		struct want *w = &f->wants[i];
		if (w->idx == STAGE_INDEX || chunk_stripe(f, w->idx) != s ||
		    (w->arriving && now - w->touched < t))
			continue;
		if (late && w->node == st->primary && now - w->asked_at > t / 2 &&
		    offers(f, st, w->idx)) {
			steal(f, st, w, now);
			st->strikes++;
		} else if (w->node != st->primary && now - w->asked_at > 4 * t) {
			cancel(f, w);
			drop_want(f, w);
		}
	}
}

/* The last chunk that the backup has and that nobody is sending us yet. */
static uint32_t useful(const struct swarm_file *f, unsigned s)
{
	const struct stripe *st = &f->stripes[s];
	uint32_t best = STAGE_INDEX;
	for (unsigned i = 0; i < f->n_wants; i++) {
		const struct want *w = &f->wants[i];
		if (w->idx != STAGE_INDEX && chunk_stripe(f, w->idx) == s && w->node == st->primary &&
		    !w->arriving && offers(f, st, w->idx) && (best == STAGE_INDEX || w->idx > best))
			best = w->idx;
	}
	return best;
}

/* The other stripe is done and this one is far behind, after a stall: many nodes have little to send by now. Two are
 * asked at once, from both ends of what is asked for. */
static void catch_up(struct swarm_file *f, unsigned s, uint64_t now)
{
	struct stripe *st = &f->stripes[s];
	unsigned asked = 0;
	if (st->backup == NOBODY)
		return;
	for (unsigned i = 0; i < f->n_wants; i++)
		asked += f->wants[i].node == st->backup;
	if (asked)
		st->useful_at = now;
	for (; asked < PARALLEL; asked++) {
		uint32_t idx = useful(f, s);
		if (idx == STAGE_INDEX)
			break;
		steal(f, st, find(f, idx), now);
		st->useful_at = now;
	}
	if (now - st->useful_at > ROTATE_MS) {
		st->useful_at = now;
		to_tail(st, st->backup);
	}
}

static void tick_stripe(struct swarm_file *f, unsigned s, uint64_t now)
{
	struct stripe *st = &f->stripes[s];
	uint64_t t = patience(f, st);
	if (is_late(f, s, t / 2, now)) /* before they run out of patience themselves */
		tell_late(f, s, now);
	steal_late(f, s, t, now);
	if (!f->stripes[1 - s].missing && behind(f, s) > t / 2)
		catch_up(f, s, now);
	if (st->strikes >= STRIKES && now >= st->calm_until) {
		f->swarm->moved++;
		st->calm_until = now + MIN(2 * t, CALM_MAX_MS);
		to_tail(st, st->primary);
	} else if (st->n_out && now - st->progress_at > MAX(3 * t, 1000) && st->backup != NOBODY) {
		/* Nothing comes, and who is watched has nothing either: watch another one. */
		st->progress_at = now;
		to_tail(st, st->backup);
	}
}

/* Means over the last seconds, or over less at the beginning. */
static void measure(struct swarm_file *f, uint64_t now)
{
	uint64_t dt = now - f->rated_at;
	bool first = !f->rated_at;
	f->rated_at = now;
	if (first || !dt)
		return;
	f->rate = 0;
	for (unsigned s = 0; s < PLAN_STRIPES; s++) {
		struct stripe *st = &f->stripes[s];
		if (st->arrived || st->rated)
			st->rated = MIN(st->rated + 1, 40u);
		if (st->rated && st->missing) {
			uint64_t rate = st->arrived * 1000 / dt, k = MIN(st->rated, 10u);
			st->rate = ((st->rated - 1) * st->rate + rate) / st->rated;
			st->present = ((k - 1) * st->present + rate) / k;
		}
		st->arrived = 0;
		f->rate += st->rate;
	}
}

void ask_tick(struct swarm_file *f, uint64_t now)
{
	measure(f, now);
	if (!f->index)
		tick_index(f, now);
	else
		for (unsigned s = 0; s < PLAN_STRIPES; s++)
			tick_stripe(f, s, now);
	ask_update(f, now);
}
