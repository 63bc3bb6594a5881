/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/swarm.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "stage/swarm_state.h"

#define UNKNOWN_MS                                                                                 \
	10000 /* a file we have not heard of is waited for so long: its name may be on its way here */
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 10000
#define SENT_MIN 8   /* chunks: the first ones only fill buffers */
#define SLOW_TIMES 4 /* a link that takes so much longer than the quickest is slow */
#define SLOW_MIN_MS 20
#define SLOW_MAX_MS 1000
#define LEAD 4 /* chunks by which one stripe may be ahead of the other */

struct swarm *swarm_create(uint32_t self, const struct swarm_ops *ops, void *arg)
{
	struct swarm *s = xcalloc(1, sizeof(*s));
	s->self = self;
	s->ops = ops;
	s->arg = arg;
	return s;
}

static void free_file(struct swarm_file *f)
{
	for (unsigned i = 0; i < PLAN_STRIPES; i++)
		free(f->stripes[i].backup_has);
	free(f->state);
	free(f);
}

void swarm_destroy(struct swarm *s)
{
	if (!s)
		return;
	for (struct swarm_file *f = s->files, *next; f; f = next) {
		next = f->next;
		free_file(f);
	}
	for (struct peer *p = s->peers, *next; p; p = next) {
		next = p->next;
		free(p->asked);
		free(p->watches);
		free(p);
	}
	free(s);
}

struct peer *swarm_peer(struct swarm *s, uint32_t node)
{
	for (struct peer *p = s->peers; p; p = p->next)
		if (p->node == node)
			return p;
	struct peer *p = xcalloc(1, sizeof(*p));
	p->node = node;
	p->next = s->peers;
	s->peers = p;
	return p;
}

void swarm_send(struct swarm *s, uint32_t node, enum stage_type type, const struct swarm_file *f,
		uint32_t chunk, uint32_t n)
{
	struct stage_msg m = {.type = type, .chunk = chunk, .n = n};
	memcpy(m.key, f->key, SHA_SIZE);
	if (swarm_peer(s, node)->state == PEER_UP)
		s->ops->send(s->arg, node, &m);
}

/* ---- serving ---- */

static void drop_asked(struct peer *p, uint32_t i)
{
	p->n_asked--;
	memmove(&p->asked[i], &p->asked[i + 1], (p->n_asked - i) * sizeof(*p->asked));
}

static void refuse(struct swarm *s, struct peer *p, uint32_t i)
{
	struct stage_msg m = {.type = STAGE_NO, .chunk = p->asked[i].idx};
	memcpy(m.key, p->asked[i].key, SHA_SIZE);
	drop_asked(p, i);
	s->ops->send(s->arg, p->node, &m);
}

static bool watches(const struct peer *p, const uint8_t key[SHA_SIZE])
{
	for (uint32_t i = 0; i < p->n_watches; i++)
		if (memcmp(p->watches[i], key, SHA_SIZE) == 0)
			return true;
	return false;
}

static void tell_all(struct swarm *s, struct peer *p, const struct swarm_file *f)
{
	if (!f->index || !f->index->n || f->missing == f->index->n)
		return;
	uint32_t n = f->index->n;
	_cleanup_free_ uint8_t *bits = xcalloc(n / 8 + 1, 1);
	for (uint32_t i = 0; i < n; i++)
		if (f->state[i] & CHUNK_HAVE)
			bits[i / 8] |= (uint8_t)(1u << i % 8);
	struct stage_msg m = {.type = STAGE_HAVE, .n = n, .bits = bits};
	memcpy(m.key, f->key, SHA_SIZE);
	s->ops->send(s->arg, p->node, &m);
}

static bool set_ready(struct asked *a)
{
	a->ready = true;
	a->since = a->file->swarm->now;
	return true;
}

/* Chunk idx can be sent from now on. */
static void available(struct swarm_file *f, uint32_t idx)
{
	struct swarm *s = f->swarm;
	uint8_t bit = 1;
	struct stage_msg have = {.type = STAGE_HAVE, .chunk = idx, .n = 1, .bits = &bit};
	memcpy(have.key, f->key, SHA_SIZE);
	for (struct peer *p = s->peers; p; p = p->next) {
		bool ready = false;
		for (uint32_t i = 0; i < p->n_asked; i++)
			if (p->asked[i].file == f && p->asked[i].idx == idx)
				ready = set_ready(&p->asked[i]);
		if (p->state != PEER_UP)
			continue;
		if (idx != STAGE_INDEX && watches(p, f->key))
			s->ops->send(s->arg, p->node, &have);
		if (ready)
			s->ops->ready(s->arg, p->node);
	}
}

/* All at once: what every peer asked for and waits for, and one message to who watches. */
static void all_available(struct swarm_file *f)
{
	struct swarm *s = f->swarm;
	for (struct peer *p = s->peers; p; p = p->next) {
		bool ready = false;
		for (uint32_t i = 0; i < p->n_asked; i++)
			if (p->asked[i].file == f && file_has(f, p->asked[i].idx))
				ready = set_ready(&p->asked[i]);
		if (p->state != PEER_UP)
			continue;
		if (watches(p, f->key))
			tell_all(s, p, f);
		if (ready)
			s->ops->ready(s->arg, p->node);
	}
}

/* Answers NO to everything asked that cannot come. */
static void refuse_waiting(struct swarm_file *f)
{
	for (struct peer *p = f->swarm->peers; p; p = p->next)
		for (uint32_t i = p->n_asked; i-- > 0;)
			if (p->asked[i].file == f && !p->asked[i].ready)
				refuse(f->swarm, p, i);
}

static int on_get(struct swarm *s, struct peer *p, const struct stage_msg *m, uint64_t now,
		  struct err *err)
{
	struct swarm_file *f = swarm_file_find(s, m->key);
	for (uint32_t i = 0; i < p->n_asked; i++)
		if (p->asked[i].idx == m->chunk && memcmp(p->asked[i].key, m->key, SHA_SIZE) == 0)
			return 0;
	if (p->n_asked == ASKED_MAX)
		return err_set(err, EPROTO, "staging: more than %d chunks asked for at once", ASKED_MAX);
	if (f && f->index && m->chunk != STAGE_INDEX && m->chunk >= f->index->n)
		return err_set(err, EPROTO, "staging: chunk %u of %u asked for", m->chunk, f->index->n);
	if (p->n_asked == p->cap_asked) {
		p->cap_asked = p->cap_asked ? 2 * p->cap_asked : 32;
		p->asked = xreallocarray(p->asked, p->cap_asked, sizeof(*p->asked));
	}
	struct asked *a = &p->asked[p->n_asked++];
	*a = (struct asked){.file = f, .idx = m->chunk, .since = now};
	memcpy(a->key, m->key, SHA_SIZE);
	if (!f)
		return 0;
	a->ready = file_has(f, m->chunk);
	if (a->ready)
		s->ops->ready(s->arg, p->node);
	else if (f->passive)
		refuse(s, p, p->n_asked - 1);
	else if (!f->want)
		s->ops->wanted(s->arg, f);
	return 0;
}

static void on_cancel(struct peer *p, const struct stage_msg *m)
{
	for (uint32_t i = 0; i < p->n_asked; i++)
		if (p->asked[i].idx == m->chunk && memcmp(p->asked[i].key, m->key, SHA_SIZE) == 0) {
			drop_asked(p, i);
			return;
		}
}

static int on_watch(struct swarm *s, struct peer *p, const struct stage_msg *m, struct err *err)
{
	struct swarm_file *f = swarm_file_find(s, m->key);
	for (uint32_t i = 0; i < p->n_watches; i++)
		if (memcmp(p->watches[i], m->key, SHA_SIZE) == 0) {
			if (!m->n)
				memcpy(p->watches[i], p->watches[--p->n_watches], SHA_SIZE);
			return 0;
		}
	if (!m->n)
		return 0;
	if (p->n_watches == WATCHES_MAX)
		return err_set(err, EPROTO, "staging: more than %d files watched at once", WATCHES_MAX);
	if (!p->watches)
		p->watches = xmalloc(WATCHES_MAX * sizeof(*p->watches));
	memcpy(p->watches[p->n_watches++], m->key, SHA_SIZE);
	if (f && f->index)
		tell_all(s, p, f);
	else if (f && !f->want && !f->passive)
		s->ops->wanted(s->arg, f);
	return 0;
}

/* It takes far longer than others do, or does not take what is ready for it since then: its line is the narrow place. */
static bool is_slow(const struct swarm *s, const struct peer *p, uint64_t since)
{
	uint64_t limit = SLOW_MAX_MS;
	for (const struct peer *q = s->peers; q; q = q->next)
		if (q->n_sent >= SENT_MIN)
			limit = MIN(limit, SLOW_TIMES * q->took + SLOW_MIN_MS);
	return p->took > limit || s->now - MAX(p->sent_at, since) > limit;
}

static bool is_new(const struct asked *a)
{
	return a->idx != STAGE_INDEX && !(a->file->state[a->idx] & CHUNK_SENT);
}

/* A source brings both stripes into the swarm at the same pace, as its children's links are seldom equally quick, and
 * whoever takes them. */
static bool is_ahead(const struct swarm *s, const struct peer *p, const struct asked *a)
{
	const struct swarm_file *f = a->file;
	if (!f->source || a->idx == STAGE_INDEX)
		return false;
	unsigned stripe = chunk_stripe(f, a->idx);
	if (f->stripes[stripe].sent <= f->stripes[1 - stripe].sent + LEAD)
		return false;
	for (const struct peer *q = s->peers; q; q = q->next)
		for (uint32_t i = 0; q != p && i < q->n_asked; i++) {
			const struct asked *b = &q->asked[i];
			if (b->file == f && b->ready && is_new(b) &&
			    chunk_stripe(f, b->idx) != stripe && !is_slow(s, q, b->since))
				return true;
		}
	return false;
}

static struct asked *first_ready(const struct swarm *s, const struct peer *p)
{
	for (uint32_t i = 0; i < p->n_asked; i++)
		if (p->asked[i].ready && !is_ahead(s, p, &p->asked[i]))
			return &p->asked[i];
	return NULL;
}

/* Who was kept waiting so that others could catch up. */
static void wake(struct swarm *s, const struct peer *except)
{
	for (struct peer *p = s->peers; p; p = p->next)
		if (p != except && p->state == PEER_UP && !p->sending && first_ready(s, p))
			s->ops->ready(s->arg, p->node);
}

bool swarm_next(struct swarm *s, uint32_t node, struct swarm_file **ret_file, uint32_t *ret_idx,
		uint64_t now)
{
	struct peer *p = swarm_peer(s, node);
	s->now = now;
	if (p->sending) {
		p->took = (3 * p->took + (now - p->sent_at) + 2) / 4;
		p->n_sent++;
	}
	struct asked *a = first_ready(s, p);
	p->sending = a != NULL;
	p->sent_at = now;
	if (a) {
		struct swarm_file *f = *ret_file = a->file;
		uint32_t idx = *ret_idx = a->idx;
		if (is_new(a)) {
			f->state[idx] |= CHUNK_SENT;
			f->stripes[chunk_stripe(f, idx)].sent++;
		}
		drop_asked(p, (uint32_t)(a - p->asked));
	}
	wake(s, p);
	return a != NULL;
}

int swarm_message(struct swarm *s, uint32_t node, const struct stage_msg *m, uint64_t now,
		  struct err *err)
{
	struct peer *p = swarm_peer(s, node);
	struct swarm_file *f = swarm_file_find(s, m->key);
	s->now = now;
	switch (m->type) {
	case STAGE_GET: return on_get(s, p, m, now, err);
	case STAGE_CANCEL: on_cancel(p, m); return 0;
	case STAGE_WATCH: return on_watch(s, p, m, err);
	case STAGE_NO:
		if (f)
			ask_refused(f, node, m->chunk, now);
		return 0;
	case STAGE_HAVE:
		if (f)
			ask_offered(f, node, m);
		return 0;
	case STAGE_LATE:
		if (f)
			ask_be_patient(f, node, m, now);
		return 0;
	case STAGE_HELLO:
	case STAGE_CHUNK:
	case STAGE_PIECE:
	case STAGE_TYPES: break;
	}
	return err_set(err, EPROTO, "staging: a message out of place");
}

/* ---- links ---- */

void swarm_link_up(struct swarm *s, uint32_t node, uint64_t now)
{
	struct peer *p = swarm_peer(s, node);
	p->state = PEER_UP;
	p->since = now;
	p->fails = 0;
	for (struct swarm_file *f = s->files; f; f = f->next) {
		ask_peer_up(f, node);
		ask_update(f, now);
	}
}

void swarm_link_down(struct swarm *s, uint32_t node, uint64_t now)
{
	struct peer *p = swarm_peer(s, node);
	uint64_t wait = (uint64_t)RETRY_MIN_MS << MIN(p->fails, 4u);
	p->state = PEER_DOWN;
	p->since = now;
	p->retry_at = now + MIN(wait, (uint64_t)RETRY_MAX_MS);
	p->fails++;
	p->n_asked = p->n_watches = 0;
	p->sending = false;
	p->n_sent = 0;
	p->took = 0;
	for (struct swarm_file *f = s->files; f; f = f->next) {
		ask_peer_down(f, node, now);
		ask_update(f, now);
	}
}

void swarm_node_lost(struct swarm *s, uint32_t node, bool lost)
{
	struct peer *p = swarm_peer(s, node);
	p->lost = lost;
	p->retry_at = 0;
	p->fails = 0;
}

void swarm_ban(struct swarm *s, uint32_t node)
{
	swarm_peer(s, node)->banned = true;
}

bool swarm_banned(const struct swarm *s, uint32_t node)
{
	for (const struct peer *p = s->peers; p; p = p->next)
		if (p->node == node)
			return p->banned;
	return false;
}

/* ---- files ---- */

struct swarm_file *swarm_file_add(struct swarm *s, const uint8_t key[SHA_SIZE], uint32_t nodes,
				  void *user)
{
	struct swarm_file *f = xcalloc(1, sizeof(*f));
	f->swarm = s;
	f->user = user;
	f->nodes = nodes;
	memcpy(f->key, key, SHA_SIZE);
	f->next = s->files;
	s->files = f;
	for (struct peer *p = s->peers; p; p = p->next)
		for (uint32_t i = 0; i < p->n_asked; i++)
			if (memcmp(p->asked[i].key, key, SHA_SIZE) == 0)
				p->asked[i].file = f;
	ask_start(f);
	return f;
}

void swarm_file_remove(struct swarm_file *f, uint64_t now)
{
	struct swarm *s = f->swarm;
	struct swarm_file **at = &s->files;
	swarm_file_want(f, false, now);
	for (struct peer *p = s->peers; p; p = p->next)
		for (uint32_t i = p->n_asked; i-- > 0;)
			if (p->asked[i].file == f)
				refuse(s, p, i);
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	free_file(f);
}

struct swarm_file *swarm_file_find(struct swarm *s, const uint8_t key[SHA_SIZE])
{
	for (struct swarm_file *f = s->files; f; f = f->next)
		if (memcmp(f->key, key, SHA_SIZE) == 0)
			return f;
	return NULL;
}

void *swarm_file_user(const struct swarm_file *f)
{
	return f->user;
}

/* What was asked for before the index was known may be beyond its end: such a peer is wrong, and gets nothing. */
static void drop_beyond(struct swarm_file *f)
{
	for (struct peer *p = f->swarm->peers; p; p = p->next)
		for (uint32_t i = p->n_asked; i-- > 0;)
			if (p->asked[i].file == f && p->asked[i].idx != STAGE_INDEX &&
			    p->asked[i].idx >= f->index->n)
				refuse(f->swarm, p, i);
}

void swarm_file_index(struct swarm_file *f, const struct index *x, bool have_all, uint64_t now)
{
	f->index = x;
	f->state = xcalloc(x->n + 1, 1);
	f->missing = have_all ? 0 : x->n;
	f->passive = f->passive && !have_all;
	f->source = have_all;
	if (have_all)
		memset(f->state, CHUNK_HAVE, x->n);
	ask_indexed(f);
	drop_beyond(f);
	if (have_all)
		all_available(f);
	else
		available(f, STAGE_INDEX);
	ask_update(f, now);
}

void swarm_file_want(struct swarm_file *f, bool want, uint64_t now)
{
	f->want = want;
	f->passive = !want && (!f->index || f->missing);
	if (want) {
		ask_update(f, now);
		return;
	}
	ask_stop(f);
	if (f->passive)
		refuse_waiting(f);
}

void swarm_file_pause(struct swarm_file *f, bool pause, uint64_t now)
{
	f->paused = pause;
	ask_update(f, now);
}

void swarm_chunk_hold(struct swarm_file *f, uint32_t idx)
{
	f->state[idx] |= CHUNK_HELD;
}

void swarm_chunk_unhold(struct swarm_file *f, uint32_t idx, uint64_t now)
{
	f->state[idx] &= (uint8_t)~CHUNK_HELD;
	struct stripe *st = &f->stripes[chunk_stripe(f, idx)];
	st->next = MIN(st->next, idx);
	ask_update(f, now);
}

void swarm_chunk_have(struct swarm_file *f, uint32_t idx, uint64_t now)
{
	if (f->state[idx] & CHUNK_HAVE)
		return;
	ask_got(f, idx);
	f->state[idx] = (uint8_t)((f->state[idx] & CHUNK_STRIPE) | CHUNK_HAVE);
	f->missing--;
	f->stripes[chunk_stripe(f, idx)].missing--;
	f->stripes[chunk_stripe(f, idx)].left -= f->index->chunks[idx].size;
	available(f, idx);
	if (!f->missing)
		ask_stop(f);
	else
		ask_update(f, now);
}

bool swarm_has(const struct swarm_file *f, uint32_t idx)
{
	return file_has(f, idx);
}

uint32_t swarm_missing(const struct swarm_file *f)
{
	return f->missing;
}

uint64_t swarm_rate(const struct swarm_file *f)
{
	return f->rate;
}

uint64_t swarm_moved(const struct swarm *s)
{
	return s->moved;
}

uint64_t swarm_unasked(const struct swarm *s)
{
	return s->unasked;
}

/* ---- time ---- */

static void refuse_unknown(struct swarm *s, struct peer *p, uint64_t now)
{
	for (uint32_t i = p->n_asked; i-- > 0;)
		if (!p->asked[i].file && now - p->asked[i].since > UNKNOWN_MS)
			refuse(s, p, i);
}

void swarm_tick(struct swarm *s, uint64_t now)
{
	s->now = now;
	for (struct peer *p = s->peers; p; p = p->next)
		refuse_unknown(s, p, now);
	wake(s, NULL);
	for (struct swarm_file *f = s->files; f; f = f->next)
		if (f->want && (!f->index || f->missing))
			ask_tick(f, now);
}

bool swarm_busy(const struct swarm *s)
{
	for (const struct swarm_file *f = s->files; f; f = f->next)
		if (f->want && (!f->index || f->missing))
			return true;
	for (const struct peer *p = s->peers; p; p = p->next)
		if (p->n_asked)
			return true;
	return false;
}
