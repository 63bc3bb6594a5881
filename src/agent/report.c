/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/report.h"

#include <string.h>

#include "agent/state.h"
#include "base/alloc.h"
#include "base/text.h"
#include "wire/message.h"

#define EVENT_NODE "node" /* the kind of what is told of a node itself */
#define BUNDLE_MS 50
#define AGAIN_MS 200
#define BUNDLE_MAX 1000 /* events: half of what the root keeps */

struct report {
	struct agent *agent;
	json_t *events;
	struct evtimer *soon;
};

static void on_soon(void *arg)
{
	struct report *r = arg;
	if (!mesh_has_parent(r->agent->mesh)) { /* there will be one soon */
		evtimer_start(r->soon, AGAIN_MS, 0);
		return;
	}
	json_t *bundle = json_pack("{s:o}", "events", r->events);
	r->events = json_array();
	mesh_report(r->agent->mesh, bundle);
	json_decref(bundle);
}

static void add(struct report *r, json_t *event)
{
	if (json_array_size(r->events) >= BUNDLE_MAX) {
		json_decref(event);
		return;
	}
	if (!json_array_size(r->events))
		evtimer_start(r->soon, BUNDLE_MS, 0);
	json_array_append_new(r->events, event);
}

struct report *report_create(struct agent *a)
{
	struct report *r = xcalloc(1, sizeof(*r));
	*r = (struct report){.agent = a, .events = json_array()};
	r->soon = evtimer_create(a->loop, on_soon, r);
	return r;
}

void report_destroy(struct report *r)
{
	if (!r)
		return;
	json_decref(r->events);
	evtimer_destroy(r->soon);
	free(r);
}

void report_event(struct report *r, const struct event *e)
{
	_cleanup_free_ char *text = text_cleaned(e->text);
	bool node = strcmp(e->kind, EVENT_NODE) == 0;
	if (e->rank != EVENT_NO_RANK || node) /* the root tells of the cluster as a whole */
		add(r, json_pack("{s:o, s:s, s:s}", "rank",
				 e->rank == EVENT_NO_RANK ? json_null() : json_integer(e->rank),
				 "kind", e->kind, "text", text));
}

/* What an event's kind points to lives for ever. */
static const char *known_kind(const char *text)
{
	static const char *const kinds[] = {"state", "note", EVENT_NODE};
	for (size_t i = 0; text && i < ARRAY_SIZE(kinds); i++)
		if (strcmp(kinds[i], text) == 0)
			return kinds[i];
	return NULL;
}

static void keep(struct agent *a, const json_t *e)
{
	json_int_t rank = EVENT_NO_RANK;
	const char *kind = known_kind(json_string_value(json_object_get(e, "kind"))), *text;
	json_int_t size = (json_int_t)cluster_get_spec(a->cluster)->size;
	bool node = kind && strcmp(kind, EVENT_NODE) == 0 && json_is_null(json_object_get(e, "rank"));
	if (!kind || (!node && message_int(e, "rank", 0, size - 1, &rank, NULL) < 0) ||
	    message_str(e, "text", &text, NULL) < 0)
		return;
	events_add(cluster_events(a->cluster), (uint32_t)rank, kind, "%s", text);
}

void report_bundle(struct agent *a, const json_t *bundle)
{
	const json_t *e;
	size_t i;
	json_array_foreach (json_object_get(bundle, "events"), i, e) {
		if (a->report)
			add(a->report, json_incref((json_t *)e));
		else if (a->cluster && i < BUNDLE_MAX)
			keep(a, e);
	}
}
