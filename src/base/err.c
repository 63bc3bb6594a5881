/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
	if (!err)
		return -1;
	/* A caller may pass err->text as an argument: format aside first. */
	char text[ERR_TEXT_MAX] = "";
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err->code = code ? code : EIO;
	memcpy(err->text, text, strlen(text) + 1); /* no more: errors travel between processes as they are */
	return -1;
}

int err_errno(struct err *err, int code, const char *fmt, ...)
{
	if (!err)
		return -1;
	char text[ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(err, code, "%s: %s", text, strerror(code));
}

int err_prefix(struct err *err, const char *fmt, ...)
{
	if (!err)
		return -1;
	char pre[ERR_TEXT_MAX], text[2 * ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(pre, sizeof(pre), fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text), "%s%s", pre, err->text);
	return err_set(err, err->code, "%s", text);
}

int err_copy(struct err *dst, const struct err *src)
{
	if (dst && src)
		*dst = *src;
	return -1;
}
