/* SPDX-License-Identifier: Apache-2.0 */
/* Templates (vm/template.h) from node to node: each says with its hello which it keeps, the root tells all who keeps what, and a
 * node that has none of a key asks one of those instead of booting its own. */
#ifndef VSE_AGENT_TEMPLATES_H
#define VSE_AGENT_TEMPLATES_H

#include <jansson.h>

#include "vm/template.h"

struct agent;
struct stream;

/* The beginnings of the keys of those that this node keeps; new reference. */
json_t *templates_here(void);
/* Into {"<beginning of a key>": [node, ...]}: `node` says that it keeps one. Nonsense, and what is too much, is left out. */
void templates_add(json_t *all, const char *key, uint32_t node);
/* For the cluster of an agent; arg: the agent. */
extern const struct template_source templates_elsewhere;
/* A link of another node that asks for one; s: taken. */
void templates_link(struct agent *a, uint32_t node, struct stream *s);
void templates_finish(struct agent *a);

#endif
