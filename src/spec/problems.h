/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that is wrong with one file, gathered and given in file order. */
#ifndef VSE_SPEC_PROBLEMS_H
#define VSE_SPEC_PROBLEMS_H

#include <stddef.h>

#include "base/err.h"
#include "base/strvec.h"

#define PROBLEMS_MAX 100

struct problem {
	size_t line, column; /* from 1 */
	char *text;
};

struct problems {
	const char *file; /* borrowed */
	struct problem *v;
	size_t n, cap, lost; /* lost: how many came after the first PROBLEMS_MAX */
};

void problems_finish(struct problems *p);
/* Lines and columns are counted from 0, as libyaml does. Always gives -1. */
int problem_add(struct problems *p, size_t line, size_t column, const char *fmt, ...) _printf_(4, 5);
/* Appends each as "file:line:column: text", sorted. With none: 0; else -1 with err set to the first (EINVAL). */
int problems_report(struct problems *p, struct strvec *out, struct err *err);

#endif
