/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "client/library.h"

int vse_event_kind(const struct vse_event *e)
{
	return e->kind;
}

const char *vse_event_ranks(const struct vse_event *e)
{
	return e->ranks ? e->ranks : "";
}

const char *vse_event_text(const struct vse_event *e)
{
	return e->text ? e->text : "";
}

const char *vse_event_json(const struct vse_event *e)
{
	return e->json ? e->json : "";
}

const void *vse_event_data(const struct vse_event *e, size_t *ret_n)
{
	if (ret_n)
		*ret_n = e->n;
	return e->data;
}

int64_t vse_event_number(const struct vse_event *e, const char *what)
{
	for (size_t i = 0; i < ARRAY_SIZE(e->what); i++)
		if (e->what[i] && strcmp(e->what[i], what) == 0)
			return e->number[i];
	return -1;
}
