/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines to stderr or a file. Library code logs at debug only; the program's edge logs an error once. */
#ifndef VSE_BASE_LOG_H
#define VSE_BASE_LOG_H

#include <stdbool.h>

#include "base/macros.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* `tag` (borrowed, lives for ever) begins each line; with `stamp` a UTC time goes before it. */
void log_setup(const char *tag, enum log_level level, bool stamp);
bool log_is(enum log_level level);
/* Bytes below 0x20 and 0x7f in the text are printed as '?', so a log line is always one line. */
void log_line(enum log_level level, const char *fmt, ...) _printf_(2, 3);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
