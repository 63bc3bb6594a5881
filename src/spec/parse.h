/* SPDX-License-Identifier: Apache-2.0 */
/* Text to a YAML document whose size is bounded in every direction. Internal to spec/. */
#ifndef VSE_SPEC_PARSE_H
#define VSE_SPEC_PARSE_H

#include <yaml.h>

#include "spec/problems.h"

#define PARSE_DEPTH_MAX 16                /* levels of lists and maps */
#define PARSE_ANCHORS_MAX 256             /* libyaml looks through all for each */
#define PARSE_DIRECTIVES_MAX 8            /* likewise; counted as lines that begin with '%' */
#define PARSE_NODES_MAX 65536             /* nodes, each alias counted as all it stands for */
#define PARSE_TEXT_MAX (4u * 1024 * 1024) /* bytes of all scalars, counted so */

/* Gives 0 and a document to be released by yaml_document_delete(), or -1 with the cause added to p. The
 * document has a root, no cycle, no tag but YAML's own of text, list and map, and is within the bounds. */
int parse_yaml(const char *text, size_t len, yaml_document_t *ret, struct problems *p);

#endif
