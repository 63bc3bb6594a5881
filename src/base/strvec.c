/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strvec.h"

#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"

void strvec_finish(struct strvec *v)
{
	for (size_t i = 0; i < v->n; i++)
		free(v->v[i]);
	free(v->v);
	*v = STRVEC_INIT;
}

void strvec_take(struct strvec *v, char *s)
{
	if (v->n + 2 > v->cap) {
		v->cap = v->cap ? v->cap * 2 : 8;
		v->v = xreallocarray(v->v, v->cap, sizeof(*v->v));
	}
	v->v[v->n++] = s;
	v->v[v->n] = NULL;
}

void strvec_add(struct strvec *v, const char *s)
{
	strvec_take(v, xstrdup(s));
}

void strvec_addf(struct strvec *v, const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;
	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		abort();
	va_end(ap);
	strvec_take(v, s);
}

void strvec_addv(struct strvec *v, ...)
{
	va_list ap;
	const char *s;
	va_start(ap, v);
	while ((s = va_arg(ap, const char *)))
		strvec_add(v, s);
	va_end(ap);
}

void strvec_copy(struct strvec *dst, const struct strvec *src)
{
	for (size_t i = 0; i < src->n; i++)
		strvec_add(dst, src->v[i]);
}

void strvec_split(struct strvec *v, const char *s, const char *separators)
{
	while (*(s += strspn(s, separators))) {
		size_t n = strcspn(s, separators);
		strvec_take(v, xstrndup(s, n));
		s += n;
	}
}

char **strvec_argv(struct strvec *v)
{
	if (!v->v) {
		v->cap = 8;
		v->v = xcalloc(v->cap, sizeof(*v->v));
	}
	return v->v;
}

bool strvec_has(const struct strvec *v, const char *s)
{
	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->v[i], s) == 0)
			return true;
	return false;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void strvec_sort(struct strvec *v)
{
	if (v->n)
		qsort(v->v, v->n, sizeof(*v->v), compare);
}
