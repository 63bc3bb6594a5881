/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/events.h"

#include <stdarg.h>

#include "base/alloc.h"
#include "base/text.h"
#include "base/time.h"

void events_add(struct events *v, uint32_t rank, const char *kind, const char *fmt, ...)
{
	struct event *e = &v->ring[v->count++ % EVENTS_KEPT];
	va_list ap;
	char text[768];
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_clean(text); /* a guest has a say in it */
	free(e->text);
	*e = (struct event){.wall_ns = time_wall_ns(), .rank = rank, .kind = kind, .text = xstrdup(text)};
	if (v->on_event)
		v->on_event(v->arg, e);
}

const struct event *events_at(const struct events *v, uint64_t i)
{
	uint64_t first = v->count > EVENTS_KEPT ? v->count - EVENTS_KEPT : 0;
	return first + i < v->count ? &v->ring[(first + i) % EVENTS_KEPT] : NULL;
}

void events_finish(struct events *v)
{
	for (size_t i = 0; i < EVENTS_KEPT; i++)
		free(v->ring[i].text);
}
