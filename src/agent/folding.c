/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/folding.h"

#include <string.h>

#include "base/alloc.h"

/* What one VM has said and is held: records, one after the other. */
struct record {
	uint32_t len;             /* of the bytes that follow */
	uint8_t fd, eof, zero[2]; /* no padding: records are compared as bytes */
};

struct said {
	uint32_t rank;   /* first: searched by it */
	uint32_t last;   /* where the last record begins; the buffer is empty: there is none */
	uint32_t at;     /* while flushing: the record that is next */
	uint32_t off[2]; /* bytes of its current block that have come, of stdout and stderr */
	bool ended;
	struct buf held;
};

struct folding {
	folding_emit *emit;
	void *arg;
	struct said *said;   /* ranks rise */
	uint32_t n, live;    /* live: those that go on */
	uint32_t waited_for; /* VMs that go on and hold less than a block */
	uint32_t full;       /* VMs that hold a block or more */
	size_t bytes;        /* held */
};

struct folding *folding_create(const struct rankset *ranks, folding_emit *emit, void *arg)
{
	struct folding *f = xcalloc(1, sizeof(*f));
	*f = (struct folding){.emit = emit, .arg = arg, .n = rankset_count(ranks)};
	f->said = xcalloc(f->n, sizeof(*f->said));
	f->waited_for = f->live = f->n;
	uint32_t r = rankset_next(ranks, 0);
	for (uint32_t i = 0; i < f->n; i++, r = rankset_next(ranks, r + 1))
		f->said[i].rank = r;
	return f;
}

void folding_destroy(struct folding *f)
{
	if (!f)
		return;
	for (uint32_t i = 0; i < f->n; i++)
		buf_finish(&f->said[i].held);
	free(f->said);
	free(f);
}

static struct said *find(struct folding *f, uint32_t rank)
{
	return rank_search(f->said, f->n, sizeof(*f->said), rank);
}

static bool is_full(const struct said *s)
{
	return buf_len(&s->held) >= FOLDING_BLOCK;
}

/* Part of a block: into the last record where it goes on, else into one of its own. */
static void add_piece(struct said *s, int fd, const char *p, size_t n, bool eof)
{
	struct record r;
	uint32_t *off = &s->off[fd == 2];
	bool goes_on = false;
	if (buf_len(&s->held)) {
		memcpy(&r, buf_head(&s->held) + s->last, sizeof(r));
		goes_on = r.fd == fd && !r.eof && *off;
	}
	if (!goes_on) {
		s->last = (uint32_t)buf_len(&s->held);
		r = (struct record){.fd = (uint8_t)fd};
		buf_add(&s->held, &r, sizeof(r));
	}
	r.len += (uint32_t)n;
	r.eof = eof;
	buf_add(&s->held, p, n);
	memcpy(buf_head(&s->held) + s->last, &r, sizeof(r));
	*off = (*off + (uint32_t)n) % FOLDING_BLOCK;
}

static void add(struct said *s, int fd, const char *p, size_t n, bool eof)
{
	do {
		size_t some = MIN(n, (size_t)FOLDING_BLOCK - s->off[fd == 2]);
		add_piece(s, fd, p, some, eof && some == n);
		p += some;
		n -= some;
	} while (n);
}

void folding_add(struct folding *f, const struct rankset *ranks, int fd, const char *p, size_t n,
		 bool eof)
{
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1)) {
		struct said *s = find(f, r);
		if (!s || (!n && !eof))
			continue;
		size_t before = buf_len(&s->held);
		bool was_full = is_full(s);
		add(s, fd, p, n, eof);
		f->bytes += buf_len(&s->held) - before;
		if (was_full || !is_full(s))
			continue;
		f->full++;
		f->waited_for -= !s->ended;
	}
}

void folding_end(struct folding *f, const struct rankset *ranks)
{
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1)) {
		struct said *s = find(f, r);
		if (!s || s->ended)
			continue;
		s->ended = true;
		f->live--;
		f->waited_for -= !is_full(s);
	}
}

uint64_t folding_wait(const struct folding *f)
{
	if (!f->bytes)
		return UINT64_MAX;
	if (!f->waited_for || f->live <= 1 || f->bytes >= FOLDING_HELD_MAX)
		return 0;
	return f->full ? FOLDING_FULL_MS : FOLDING_WAIT_MS;
}

/* ---- flushing ---- */

/* The next record of one VM. */
struct next {
	uint64_t hash; /* of all of it */
	const char *p; /* the record, and its bytes */
	size_t len;
	struct said *said;
};

static uint64_t hash_of(const char *p, size_t n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static int by_hash(const void *a, const void *b)
{
	const struct next *x = a, *y = b;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->said < y->said ? -1 : x->said > y->said;
}

static uint32_t look(struct folding *f, struct next *list)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < f->n; i++) {
		struct said *s = &f->said[i];
		struct record r;
		if (s->at == buf_len(&s->held))
			continue;
		const char *p = buf_head(&s->held) + s->at;
		memcpy(&r, p, sizeof(r));
		size_t len = sizeof(r) + r.len;
		list[n++] = (struct next){.hash = hash_of(p, len), .p = p, .len = len, .said = s};
		s->at += (uint32_t)len;
	}
	qsort(list, n, sizeof(*list), by_hash);
	return n;
}

/* The first of the list goes out, with all that are equal to it; they are crossed out. */
static void emit(struct folding *f, struct next *list, uint32_t n)
{
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	const struct next first = list[0];
	struct record r;
	memcpy(&r, first.p, sizeof(r));
	for (uint32_t i = 0; i < n && list[i].hash == first.hash; i++) {
		if (!list[i].p || list[i].len != first.len || memcmp(list[i].p, first.p, first.len))
			continue;
		rankset_add(&ranks, list[i].said->rank);
		list[i].p = NULL;
	}
	f->emit(f->arg, &ranks, r.fd, first.p + sizeof(r), r.len, r.eof);
}

static void forget(struct folding *f)
{
	f->bytes = f->full = f->waited_for = 0;
	for (uint32_t i = 0; i < f->n; i++) {
		struct said *s = &f->said[i];
		buf_finish(&s->held);
		s->last = s->at = 0;
		f->waited_for += !s->ended;
	}
}

/* In rounds: the next record of everybody in each, so the order of each VM's is kept. */
void folding_flush(struct folding *f)
{
	uint32_t n;
	if (!f->bytes)
		return;
	_cleanup_free_ struct next *list = xcalloc(f->n, sizeof(*list));
	while ((n = look(f, list)))
		for (uint32_t i = 0; i < n; i++)
			if (list[i].p)
				emit(f, list + i, n - i);
	forget(f);
}
