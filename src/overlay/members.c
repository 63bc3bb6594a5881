/* SPDX-License-Identifier: Apache-2.0 */
#include "overlay/members.h"

#include <string.h>

#include "base/alloc.h"
#include "overlay/overlay.h"
#include "overlay/tree.h"

void members_init(struct members *m, uint32_t k, uint32_t me)
{
	*m = (struct members){.k = k, .me = me, .my_depth = (uint8_t)tree_depth(k, me)};
}

void members_finish(struct members *m)
{
	free(m->v);
	free(m->queue);
	m->v = NULL;
	m->queue = NULL;
}

struct member *members_find(const struct members *m, uint32_t node)
{
	uint32_t at = m->n ? tree_position(m->k, m->me, node) : UINT32_MAX;
	return at < m->n && m->v[at].state ? &m->v[at] : NULL;
}

struct member *members_get(struct members *m, uint32_t node)
{
	uint32_t at = tree_position(m->k, m->me, node);
	if (at >= m->n) {
		uint32_t n = MAX(at + 1, m->n + m->n / 2);
		m->v = xreallocarray(m->v, n, sizeof(*m->v));
		memset(m->v + m->n, 0, (n - m->n) * sizeof(*m->v));
		m->n = n;
	}
	return &m->v[at];
}

static bool newer(const struct member *a, const struct member *b)
{
	if (a->incarnation != b->incarnation)
		return a->incarnation > b->incarnation;
	if (a->seq != b->seq)
		return a->seq > b->seq;
	return a->state > b->state;
}

bool members_merge(struct members *m, uint32_t node, const struct member *news)
{
	struct member *known = members_get(m, node);
	if (!newer(news, known))
		return false;
	m->attached += (news->state == MEMBER_ATTACHED) - (known->state == MEMBER_ATTACHED);
	known->incarnation = news->incarnation;
	known->seq = news->seq;
	known->state = news->state;
	known->depth = news->depth;
	known->tag = news->tag;
	known->parent_tag = news->parent_tag;
	return true;
}

static void grow_queue(struct members *m)
{
	uint32_t cap = m->queue_cap ? m->queue_cap * 2 : 8;
	uint32_t *ring = xreallocarray(NULL, cap, sizeof(*ring));
	for (uint64_t i = m->head; i < m->tail; i++)
		ring[i % cap] = m->queue[i % m->queue_cap];
	free(m->queue);
	m->queue = ring;
	m->queue_cap = cap;
}

static void queue_at(struct members *m, uint32_t at)
{
	if (m->v[at].queued)
		return;
	if (m->tail - m->head == m->queue_cap)
		grow_queue(m);
	m->queue[m->tail++ % m->queue_cap] = at;
	m->v[at].queued = 1;
}

void members_queue(struct members *m, uint32_t node)
{
	queue_at(m, tree_position(m->k, m->me, node));
}

void members_queue_all(struct members *m)
{
	for (uint32_t at = 0; at < m->n; at++)
		if (m->v[at].state)
			queue_at(m, at);
}

uint32_t members_peek(const struct members *m)
{
	return m->head == m->tail ? UINT32_MAX
				  : tree_at(m->k, m->me, m->queue[m->head % m->queue_cap]);
}

uint32_t members_dequeue(struct members *m)
{
	uint32_t node = members_peek(m);
	if (node == UINT32_MAX)
		return node;
	m->v[m->queue[m->head++ % m->queue_cap]].queued = 0;
	return node;
}

uint32_t members_hop(const struct members *m, uint32_t node, uint16_t *ret_slot)
{
	for (;;) {
		const struct member *r = members_find(m, node);
		if (!r || r->state != MEMBER_ATTACHED || r->depth < m->my_depth)
			return OVERLAY_NONE;
		if (r->depth == m->my_depth) {
			*ret_slot = r->slot;
			return node;
		}
		uint16_t tag = r->parent_tag;
		node = tree_ancestor(m->k, node, r->depth);
		r = members_find(m, node);
		if (!r || r->tag != tag)
			return OVERLAY_NONE; /* its parent is another process now, which does not have it */
	}
}
