/* SPDX-License-Identifier: Apache-2.0 */
/* Events by virtual time: one list for each of the next 65536 ms, in the order of their coming. */
#include <string.h>

#include "base/alloc.h"
#include "world.h"

#define SLOTS 65536u

static struct bucket {
	struct event *first, **last;
} slots[SLOTS];
static struct event *spare;

struct event *event_new(enum event_type type)
{
	struct event *e = spare;
	if (e)
		spare = e->next;
	else
		e = xmalloc(sizeof(*e));
	e->next = NULL;
	e->conn = NULL;
	e->more = NULL;
	e->a = e->b = e->len = 0;
	e->type = (uint8_t)type;
	e->end = 0;
	return e;
}

void event_free(struct event *e)
{
	free(e->more);
	e->next = spare;
	spare = e;
}

void event_data(struct event *e, const void *data, size_t len)
{
	e->len = (uint32_t)len;
	if (len > sizeof(e->small))
		e->more = xmemdup0(data, len);
	else if (len)
		memcpy(e->small, data, len);
}

static void append(struct event *e, uint64_t at)
{
	struct bucket *s = &slots[at % SLOTS];
	e->next = NULL;
	if (!s->first)
		s->last = &s->first;
	*s->last = e;
	s->last = &e->next;
}

void queue_at(struct world *w, struct event *e, uint64_t at)
{
	e->at = at < w->now ? w->now : at;
	append(e, e->at - w->now < SLOTS ? e->at : w->now + SLOTS - 1);
}

/* The memory of ten thousand agents is in no cache: what the next events will touch is fetched beforehand. */
static void look_ahead(const struct world *w, const struct event *e)
{
	const struct event *first = e->next, *second = first ? first->next : NULL,
			   *third = second ? second->next : NULL;
	if (third && third->conn)
		__builtin_prefetch(third->conn);
	if (second)
		__builtin_prefetch(
			&w->agents[second->conn ? second->conn->end[second->end].agent : second->a]);
	if (!first || first->type > EV_CLOSED)
		return;
	const struct agent *a = &w->agents[first->conn ? first->conn->end[first->end].agent : first->a];
	__builtin_prefetch(a->conns);
	if (a->o)
		for (int i = 0; i < 10; i++)
			__builtin_prefetch((const char *)a->o + i * 64);
}

struct event *queue_next(struct world *w)
{
	for (;;) {
		struct bucket *s = &slots[w->now % SLOTS];
		struct event *e = s->first;
		if (!e) {
			if (++w->now > w->end_at)
				return NULL;
			continue;
		}
		s->first = e->next;
		look_ahead(w, e);
		if (e->at <= w->now)
			return e;
		queue_at(w, e, e->at); /* it was beyond the horizon */
	}
}

void queue_clear(void)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		while (slots[i].first) {
			struct event *e = slots[i].first;
			slots[i].first = e->next;
			free(e->more);
			free(e);
		}
	while (spare) {
		struct event *e = spare;
		spare = e->next;
		free(e);
	}
}
