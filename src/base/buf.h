/* SPDX-License-Identifier: Apache-2.0 */
/* A growing byte buffer with a read position: append at the end, consume from the front. */
#ifndef VSE_BASE_BUF_H
#define VSE_BASE_BUF_H

#include "base/macros.h"

struct buf {
	char *data;   /* owned; may be NULL while empty */
	size_t start; /* first unread byte */
	size_t end;   /* one past the last byte */
	size_t cap;
};

#define BUF_INIT ((struct buf){0})
#define _cleanup_buf_ _cleanup_(buf_finish)

void buf_finish(struct buf *b); /* frees the memory; the buffer is empty and usable again */
static inline size_t buf_len(const struct buf *b)
{
	return b->end - b->start;
}
static inline char *buf_head(const struct buf *b) /* valid until the next change; NULL: nothing was ever added */
{
	return b->data ? b->data + b->start : NULL; /* no arithmetic on NULL, not even of 0 */
}
void buf_clear(struct buf *b);             /* keeps the memory */
void buf_reserve(struct buf *b, size_t n); /* room for n more bytes at data+end */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_adds(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) _printf_(2, 3);
void buf_consume(struct buf *b, size_t n); /* n <= buf_len(b) */
/* The content as a NUL-terminated string, owned by the buffer. "" when empty. */
const char *buf_cstr(struct buf *b);
/* Hands the content over as a malloc'ed NUL-terminated string; the buffer is empty after. */
char *buf_take(struct buf *b);

#endif
