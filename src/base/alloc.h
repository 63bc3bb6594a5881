/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation that cannot fail: out of memory aborts with one line. Sizes that come from a file or the
 * wire are bounded by their reader before they get here. */
#ifndef VSE_BASE_ALLOC_H
#define VSE_BASE_ALLOC_H

#include "base/macros.h"

void *xmalloc(size_t size);
void *xcalloc(size_t n, size_t size); /* zeroed */
void *xrealloc(void *p, size_t size);
void *xreallocarray(void *p, size_t n, size_t size);
char *xstrdup(const char *s); /* NULL gives NULL */
char *xstrndup(const char *s, size_t n);
char *xmemdup0(const void *p, size_t n); /* n bytes and a closing NUL */
char *xasprintf(const char *fmt, ...) _printf_(1, 2);

#endif
