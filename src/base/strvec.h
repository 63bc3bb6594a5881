/* SPDX-License-Identifier: Apache-2.0 */
/* A growing, always NULL-terminated list of owned strings: what an argv is made of. */
#ifndef VSE_BASE_STRVEC_H
#define VSE_BASE_STRVEC_H

#include <stdbool.h>

#include "base/macros.h"

struct strvec {
	char **v; /* NULL-terminated once anything was added; use strvec_argv() to read */
	size_t n;
	size_t cap;
};

#define STRVEC_INIT ((struct strvec){0})
#define _cleanup_strvec_ _cleanup_(strvec_finish)

void strvec_finish(struct strvec *v);
void strvec_add(struct strvec *v, const char *s); /* (copied) */
void strvec_addf(struct strvec *v, const char *fmt, ...) _printf_(2, 3);
void strvec_take(struct strvec *v, char *s);                       /* taken */
void strvec_addv(struct strvec *v, ...) __attribute__((sentinel)); /* each (copied), ends with NULL */
void strvec_copy(struct strvec *dst, const struct strvec *src);    /* appends copies */
void strvec_split(struct strvec *v, const char *s, const char *separators); /* appends non-empty parts */
char **strvec_argv(struct strvec *v); /* NULL-terminated, borrowed until the next change */
bool strvec_has(const struct strvec *v, const char *s);
void strvec_sort(struct strvec *v); /* bytewise */

#endif
