/* SPDX-License-Identifier: Apache-2.0 */
#include "overlay/seen.h"

#include <stdlib.h>

#include "base/alloc.h"

#define BUCKETS 256u

struct entry {
	uint64_t id;
	struct entry *next;  /* in its bucket */
	struct entry *newer; /* among the finished */
	char *answer;        /* NULL and !done: it runs */
	size_t len;
	uint32_t hop;
	bool done;
};

struct seen {
	struct entry *buckets[BUCKETS];
	struct entry *oldest, *newest;
	uint32_t max_done, n_done, n_running;
	size_t max_bytes, bytes;
};

struct seen *seen_create(uint32_t max_done, size_t max_bytes)
{
	struct seen *s = xcalloc(1, sizeof(*s));
	s->max_done = max_done;
	s->max_bytes = max_bytes;
	return s;
}

void seen_destroy(struct seen *s)
{
	for (uint32_t i = 0; s && i < BUCKETS; i++)
		while (s->buckets[i]) {
			struct entry *e = s->buckets[i];
			s->buckets[i] = e->next;
			free(e->answer);
			free(e);
		}
	free(s);
}

static struct entry **find(struct seen *s, uint64_t id)
{
	struct entry **at = &s->buckets[(id ^ id >> 32) * 2654435761u >> 16 & (BUCKETS - 1)];
	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

enum seen_state seen_ask(struct seen *s, uint64_t id, uint32_t hop, const void **ret_answer,
			 size_t *ret_len)
{
	struct entry **at = find(s, id), *e = *at;
	if (!e) {
		e = *at = xcalloc(1, sizeof(*e));
		e->id = id;
		e->hop = hop;
		s->n_running++;
		return SEEN_NEW;
	}
	e->hop = hop;
	if (!e->done)
		return SEEN_RUNNING;
	*ret_answer = e->answer;
	*ret_len = e->len;
	return SEEN_DONE;
}

static void forget_oldest(struct seen *s)
{
	struct entry *e = s->oldest, **at = find(s, e->id);
	*at = e->next;
	s->oldest = e->newer;
	if (!s->oldest)
		s->newest = NULL;
	s->n_done--;
	s->bytes -= e->len;
	free(e->answer);
	free(e);
}

uint32_t seen_finish(struct seen *s, uint64_t id, const void *answer, size_t len)
{
	struct entry *e = *find(s, id);
	if (!e || e->done)
		return 0;
	uint32_t hop = e->hop;
	e->done = true;
	e->answer = xmemdup0(answer, len);
	e->len = len;
	*(s->newest ? &s->newest->newer : &s->oldest) = e;
	s->newest = e;
	s->n_running--;
	s->n_done++;
	s->bytes += len;
	while (s->oldest && (s->n_done > s->max_done || s->bytes > s->max_bytes))
		forget_oldest(s);
	return hop;
}

uint32_t seen_running(const struct seen *s)
{
	return s->n_running;
}
