/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as YAML for people: block style, texts of several lines as blocks. Internal to spec/. */
#ifndef VSE_SPEC_EMIT_H
#define VSE_SPEC_EMIT_H

#include <jansson.h>

#include "spec/schema.h"

/* Malloc'ed. `fields` tells which integers are bytes (written as 512M). The keys of objects are names: letters,
 * digits and '_'. */
char *emit_yaml(const json_t *object, const struct spec_field *fields);

#endif
