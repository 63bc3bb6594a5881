/* SPDX-License-Identifier: Apache-2.0 */
#include "spec/problems.h"

#include <errno.h>
#include <stdarg.h>

#include "base/alloc.h"

void problems_finish(struct problems *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i].text);
	free(p->v);
	*p = (struct problems){0};
}

int problem_add(struct problems *p, size_t line, size_t column, const char *fmt, ...)
{
	va_list ap;
	if (p->n == PROBLEMS_MAX) {
		p->lost++;
		return -1;
	}
	if (p->n == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 8;
		p->v = xreallocarray(p->v, p->cap, sizeof(*p->v));
	}
	struct problem *q = &p->v[p->n++];
	*q = (struct problem){line + 1, column + 1, NULL};
	va_start(ap, fmt);
	if (vasprintf(&q->text, fmt, ap) < 0)
		abort();
	va_end(ap);
	return -1;
}

static bool before(const struct problem *a, const struct problem *b)
{
	return a->line != b->line ? a->line < b->line : a->column < b->column;
}

/* By insertion: few, nearly in order, and equal places keep their order. */
static void sort(struct problems *p)
{
	for (size_t i = 1; i < p->n; i++) {
		struct problem q = p->v[i];
		size_t j = i;
		for (; j && before(&q, &p->v[j - 1]); j--)
			p->v[j] = p->v[j - 1];
		p->v[j] = q;
	}
}

int problems_report(struct problems *p, struct strvec *out, struct err *err)
{
	if (!p->n)
		return 0;
	sort(p);
	for (size_t i = 0; i < p->n; i++)
		strvec_addf(out, "%s:%zu:%zu: %s", p->file, p->v[i].line, p->v[i].column, p->v[i].text);
	if (p->lost)
		strvec_addf(out, "%s: and %zu more problems", p->file, p->lost);
	return err_set(err, EINVAL, "%s:%zu:%zu: %s", p->file, p->v[0].line, p->v[0].column,
		       p->v[0].text);
}
