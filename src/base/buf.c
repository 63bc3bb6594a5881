/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"

void buf_finish(struct buf *b)
{
	free(b->data);
	*b = BUF_INIT;
}

void buf_clear(struct buf *b)
{
	b->start = b->end = 0;
}

void buf_reserve(struct buf *b, size_t n)
{
	if (b->cap - b->end >= n)
		return;
	if (b->start) {
		memmove(b->data, b->data + b->start, buf_len(b));
		b->end -= b->start;
		b->start = 0;
		if (b->cap - b->end >= n)
			return;
	}
	size_t cap = MAX(b->cap * 2, (size_t)64);
	while (cap - b->end < n)
		cap *= 2;
	b->data = xrealloc(b->data, cap);
	b->cap = cap;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	if (!n)
		return;
	buf_reserve(b, n);
	memcpy(b->data + b->end, p, n);
	b->end += n;
}

void buf_adds(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_addc(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n > 0) {
		buf_reserve(b, (size_t)n + 1);
		vsnprintf(b->data + b->end, (size_t)n + 1, fmt, again);
		b->end += (size_t)n;
	}
	va_end(again);
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= buf_len(b));
	b->start += n;
	if (b->start == b->end)
		b->start = b->end = 0;
}

const char *buf_cstr(struct buf *b)
{
	buf_reserve(b, 1);
	b->data[b->end] = '\0';
	return b->data + b->start;
}

char *buf_take(struct buf *b)
{
	char *s;
	buf_cstr(b);
	if (b->start) {
		s = xmemdup0(buf_head(b), buf_len(b));
		buf_finish(b);
		return s;
	}
	s = b->data;
	*b = BUF_INIT;
	return s;
}
