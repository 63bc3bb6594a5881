/* SPDX-License-Identifier: Apache-2.0 */
#include "overlay/fanout.h"

#include <string.h>

#include "base/alloc.h"

#define ALL UINT32_MAX

struct range {
	uint32_t a, b;
};

struct group {
	uint64_t hash;
	char *answer;
	size_t len;
	bool dead;
	uint32_t n;
	struct range *ranges; /* not bitmaps: a thousand distinct answers must not cost a thousand of those */
	uint32_t n_ranges, cap, taken;
};

struct hop {
	uint32_t id, n;
	struct rankset set; /* outstanding behind it */
};

struct fanout {
	uint32_t left;       /* outstanding */
	struct rankset idle; /* outstanding, assigned nowhere */
	struct hop *hops;
	uint32_t n_hops;
	struct group *groups;
	uint32_t n_groups, groups_cap;
	uint32_t *table; /* open hashing: index of the group + 1 */
	uint32_t table_size, take_from;
	bool told;
};

struct fanout *fanout_create(const struct rankset *members)
{
	struct fanout *f = xcalloc(1, sizeof(*f));
	f->left = rankset_count(members);
	if (f->left) {
		f->idle.n_words = members->n_words;
		f->idle.words = xcalloc(members->n_words, sizeof(*members->words));
		memcpy(f->idle.words, members->words, members->n_words * sizeof(*members->words));
	}
	return f;
}

void fanout_destroy(struct fanout *f)
{
	if (!f)
		return;
	for (uint32_t i = 0; i < f->n_groups; i++) {
		free(f->groups[i].answer);
		free(f->groups[i].ranges);
	}
	for (uint32_t i = 0; i < f->n_hops; i++)
		rankset_finish(&f->hops[i].set);
	rankset_finish(&f->idle);
	free(f->groups);
	free(f->hops);
	free(f->table);
	free(f);
}

static struct hop *find_hop(const struct fanout *f, uint32_t id)
{
	for (uint32_t i = 0; i < f->n_hops; i++)
		if (f->hops[i].id == id)
			return &f->hops[i];
	return NULL;
}

static struct hop *get_hop(struct fanout *f, uint32_t id)
{
	struct hop *h = find_hop(f, id);
	if (h)
		return h;
	f->hops = xreallocarray(f->hops, f->n_hops + (size_t)1, sizeof(*f->hops));
	f->hops[f->n_hops] = (struct hop){.id = id};
	return &f->hops[f->n_hops++];
}

uint32_t fanout_assign(struct fanout *f, uint32_t id, const struct rankset *set)
{
	struct hop *h = get_hop(f, id);
	uint32_t n = 0;
	for (uint32_t r = rankset_next(set, 0); r != UINT32_MAX; r = rankset_next(set, r + 1)) {
		if (!rankset_has(&f->idle, r))
			continue;
		rankset_del(&f->idle, r);
		rankset_add(&h->set, r);
		n++;
	}
	h->n += n;
	return n;
}

/* ---- Groups. */

static uint64_t hash_of(const void *answer, size_t len, bool dead)
{
	const unsigned char *p = answer;
	uint64_t h = UINT64_C(0xcbf29ce484222325) + dead; /* FNV-1a */
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static void grow_table(struct fanout *f)
{
	free(f->table);
	f->table_size = f->table_size ? f->table_size * 2 : 16;
	f->table = xcalloc(f->table_size, sizeof(*f->table));
	for (uint32_t i = 0; i < f->n_groups; i++) {
		uint32_t at = (uint32_t)f->groups[i].hash & (f->table_size - 1);
		while (f->table[at])
			at = (at + 1) & (f->table_size - 1);
		f->table[at] = i + 1;
	}
}

static uint32_t get_group(struct fanout *f, const void *answer, size_t len, bool dead)
{
	uint64_t hash = hash_of(answer, len, dead);
	if (f->n_groups * 2 >= f->table_size)
		grow_table(f);
	uint32_t at = (uint32_t)hash & (f->table_size - 1);
	for (; f->table[at]; at = (at + 1) & (f->table_size - 1)) {
		const struct group *g = &f->groups[f->table[at] - 1];
		if (g->hash == hash && g->dead == dead && g->len == len &&
		    (!len || memcmp(g->answer, answer, len) == 0))
			return f->table[at] - 1;
	}
	if (f->n_groups == f->groups_cap) {
		f->groups_cap = f->groups_cap ? f->groups_cap * 2 : 4;
		f->groups = xreallocarray(f->groups, f->groups_cap, sizeof(*f->groups));
	}
	f->groups[f->n_groups] = (struct group){
		.hash = hash, .answer = len ? xmemdup0(answer, len) : NULL, .len = len, .dead = dead};
	f->table[at] = ++f->n_groups;
	return f->n_groups - 1;
}

static void group_add(struct group *g, uint32_t rank)
{
	g->n++;
	if (g->n_ranges > g->taken && g->ranges[g->n_ranges - 1].b + 1 == rank) {
		g->ranges[g->n_ranges - 1].b = rank;
		return;
	}
	if (g->n_ranges == g->cap) {
		g->cap = g->cap ? g->cap * 2 : 2;
		g->ranges = xreallocarray(g->ranges, g->cap, sizeof(*g->ranges));
	}
	g->ranges[g->n_ranges++] = (struct range){rank, rank};
}

/* Those of `set` that are in `from` are settled. */
static uint32_t settle(struct fanout *f, struct rankset *from, const struct rankset *set,
		       const void *answer, size_t len, bool dead)
{
	uint32_t n = 0, group = 0;
	for (uint32_t r = rankset_next(set, 0); r != UINT32_MAX; r = rankset_next(set, r + 1)) {
		if (!rankset_has(from, r))
			continue;
		if (!n++)
			group = get_group(f, answer, len, dead);
		rankset_del(from, r);
		group_add(&f->groups[group], r);
		f->take_from = MIN(f->take_from, group);
	}
	f->left -= n;
	return n;
}

uint32_t fanout_answer(struct fanout *f, uint32_t id, const struct rankset *set, const void *answer,
		       size_t len)
{
	struct hop *h = find_hop(f, id);
	if (!h)
		return 0;
	uint32_t n = settle(f, &h->set, set, answer, len, false);
	h->n -= n;
	return n;
}

uint32_t fanout_dead(struct fanout *f, const struct rankset *set, const void *why, size_t len)
{
	return settle(f, &f->idle, set, why, len, true);
}

uint32_t fanout_lost(struct fanout *f, uint32_t id, struct rankset *ret)
{
	struct hop *h = find_hop(f, id);
	if (!h)
		return 0;
	uint32_t n = h->n;
	for (uint32_t r = rankset_next(&h->set, 0); r != UINT32_MAX; r = rankset_next(&h->set, r + 1)) {
		rankset_add(&f->idle, r);
		rankset_add(ret, r);
	}
	rankset_finish(&h->set);
	*h = f->hops[--f->n_hops];
	return n;
}

static uint32_t add_all(const struct rankset *from, struct rankset *to)
{
	uint32_t n = 0;
	for (uint32_t r = rankset_next(from, 0); r != UINT32_MAX; r = rankset_next(from, r + 1), n++)
		if (to)
			rankset_add(to, r);
	return n;
}

uint32_t fanout_outstanding(const struct fanout *f, uint32_t id, struct rankset *ret)
{
	uint32_t n = id == ALL ? add_all(&f->idle, ret) : 0;
	for (uint32_t i = 0; i < f->n_hops; i++)
		if (id == ALL || f->hops[i].id == id)
			n += add_all(&f->hops[i].set, ret);
	return n;
}

bool fanout_done(struct fanout *f)
{
	bool now = !f->left && !f->told;
	f->told |= now;
	return now;
}

uint32_t fanout_groups(const struct fanout *f)
{
	return f->n_groups;
}

static void show(const struct group *g, struct fanout_group *ret)
{
	*ret = (struct fanout_group){.answer = g->answer ? g->answer : "",
				     .len = g->len,
				     .dead = g->dead,
				     .n = g->n,
				     .any = g->ranges[0].a};
}

void fanout_group(const struct fanout *f, uint32_t i, struct fanout_group *ret, struct rankset *set)
{
	const struct group *g = &f->groups[i];
	show(g, ret);
	for (uint32_t j = 0; j < g->n_ranges; j++)
		rankset_add_range(set, g->ranges[j].a, g->ranges[j].b);
}

bool fanout_take(struct fanout *f, struct fanout_group *ret, struct rankset *set)
{
	for (; f->take_from < f->n_groups; f->take_from++) {
		struct group *g = &f->groups[f->take_from];
		if (g->taken == g->n_ranges)
			continue;
		show(g, ret);
		ret->n = 0;
		ret->any = g->ranges[g->taken].a;
		for (; g->taken < g->n_ranges; g->taken++) {
			rankset_add_range(set, g->ranges[g->taken].a, g->ranges[g->taken].b);
			ret->n += g->ranges[g->taken].b - g->ranges[g->taken].a + 1;
		}
		return true;
	}
	return false;
}
