/* SPDX-License-Identifier: Apache-2.0 */
/* What happened in a cluster, newest EVENTS_KEPT entries; told to followers as it happens. */
#ifndef VSE_CLUSTER_EVENTS_H
#define VSE_CLUSTER_EVENTS_H

#include <stdint.h>

#include "base/macros.h"

#define EVENTS_KEPT 2000
#define EVENT_NO_RANK UINT32_MAX

struct event {
	uint64_t wall_ns;
	uint32_t rank;    /* EVENT_NO_RANK: of the whole cluster */
	const char *kind; /* "state", "note", "cluster"; lives for ever */
	char *text;
};

struct events {
	struct event ring[EVENTS_KEPT];
	uint64_t count; /* ever added */
	void (*on_event)(void *arg, const struct event *e);
	void *arg;
};

void events_add(struct events *v, uint32_t rank, const char *kind, const char *fmt, ...) _printf_(4, 5);
/* The i-th oldest that is kept; NULL past the newest. */
const struct event *events_at(const struct events *v, uint64_t i);
void events_finish(struct events *v);

#endif
