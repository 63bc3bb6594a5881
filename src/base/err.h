/* SPDX-License-Identifier: Apache-2.0 */
/* The error object. It lives on the caller's stack, never allocates and needs no release. A function
 * that can fail takes `struct err *err` last (may be NULL) and returns 0 or -1; its `ret_` outputs are
 * written only on success. One printed line says what, where and why. */
#ifndef VSE_BASE_ERR_H
#define VSE_BASE_ERR_H

#include "base/macros.h"

#define ERR_TEXT_MAX 512

struct err {
	int code; /* an errno value; 0 = no error */
	char text[ERR_TEXT_MAX];
};

#define ERR_INIT ((struct err){0})

/* Sets code (0 becomes EIO) and text; cut to fit. Always returns -1. */
int err_set(struct err *err, int code, const char *fmt, ...) _printf_(3, 4);
/* The same with ": <strerror(code)>" appended. Always returns -1. */
int err_errno(struct err *err, int code, const char *fmt, ...) _printf_(3, 4);
/* Puts context before the text ("node %s: "). Keeps the code. Always returns -1. */
int err_prefix(struct err *err, const char *fmt, ...) _printf_(2, 3);
/* Copies src to dst (either may be NULL). Always returns -1. */
int err_copy(struct err *dst, const struct err *src);

#endif
