/* SPDX-License-Identifier: Apache-2.0 */
/* Events by virtual time: one list for each of the next 65536 ms, in the order of their coming. */
#include <string.h>

#include "base/alloc.h"
#include "world.h"

#define SLOTS 65536u

static struct slot {
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
	struct slot *s = &slots[at % SLOTS];
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

struct event *queue_next(struct world *w)
{
	for (;;) {
		struct slot *s = &slots[w->now % SLOTS];
		struct event *e = s->first;
		if (!e) {
			if (++w->now > w->end_at)
				return NULL;
			continue;
		}
		s->first = e->next;
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
