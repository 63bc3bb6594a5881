/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "client/library.h"

struct vse_error *vse_error_new(void)
{
	return xcalloc(1, sizeof(struct vse_error));
}

void vse_error_finish(struct vse_error *e)
{
	strvec_finish(&e->problems);
	*e = (struct vse_error){0};
}

void vse_error_free(struct vse_error *e)
{
	if (e)
		vse_error_finish(e);
	free(e);
}

int vse_error_code(const struct vse_error *e)
{
	return e->err.code;
}

const char *vse_error_text(const struct vse_error *e)
{
	return e->err.text;
}

const char *vse_error_option(const struct vse_error *e)
{
	return e->option;
}

const char *vse_error_problem(const struct vse_error *e, size_t i)
{
	return i < e->problems.n ? e->problems.v[i] : NULL;
}

int error_code(const struct vse_error *e)
{
	return e->err.code > 0 ? -e->err.code : -EIO;
}

static int set(struct vse_error *e, int code, const char *before, const char *fmt, va_list ap)
{
	char text[ERR_TEXT_MAX];
	vsnprintf(text, sizeof(text), fmt, ap);
	err_set(&e->err, code, "%s%s", before, text);
	return error_code(e);
}

int error_set(struct vse_error *e, int code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int rc = set(e, code, "", fmt, ap);
	va_end(ap);
	return rc;
}

int error_option(struct vse_error *e, const char *option, const char *fmt, ...)
{
	va_list ap;
	snprintf(e->option, sizeof(e->option), "%s", option);
	e->usage = true;
	va_start(ap, fmt);
	int rc = set(e, EINVAL, option, fmt, ap);
	va_end(ap);
	return rc;
}
