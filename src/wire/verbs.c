/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/verbs.h"

#include <string.h>

static const struct {
	const char *name;
	bool needs_cluster;
} table[] = {
#define VERB_ROW(name, needs, doc) [VERB_##name] = {#name, needs},
	VERBS(VERB_ROW)
#undef VERB_ROW
};

enum verb verb_find(const char *name)
{
	for (int v = 0; v < VERB_COUNT; v++)
		if (strcmp(table[v].name, name) == 0)
			return (enum verb)v;
	return VERB_COUNT;
}

const char *verb_name(enum verb v)
{
	return v < VERB_COUNT ? table[v].name : "?";
}

bool verb_needs_cluster(enum verb v)
{
	return table[v].needs_cluster;
}
