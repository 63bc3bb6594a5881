/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's console: kept in a bounded log (two files of at most CONSOLE_LOG_MAX / 2 bytes: FILE and FILE.1), and
 * handed live to whoever is attached. A guest that prints without end costs time, never space. */
#ifndef VSE_VM_CONSOLE_H
#define VSE_VM_CONSOLE_H

#include <stdint.h>

#include "io/loop.h"

#define CONSOLE_LOG_MAX (2u << 20) /* bytes */

struct console;
struct console_reader; /* one who is attached */

struct console *console_create(struct loop *l, const char *log_path);
void console_destroy(struct console *c); /* NULL is fine; the log stays */
/* fd: taken; the one before is closed. */
int console_connect(struct console *c, int fd, struct err *err);
uint64_t console_said(const struct console *c);         /* bytes that the guest has printed */
void console_note(struct console *c, const char *text); /* a line of our own, into the log */
/* on_data gets what is printed from now on. `lag` of a slow reader is bounded by the caller, who detaches. */
struct console_reader *console_attach(struct console *c,
				      void (*on_data)(void *arg, const char *p, size_t n), void *arg);
void console_detach(struct console_reader *r); /* NULL is fine */
void console_input(struct console *c, const char *p,
		   size_t n); /* dropped while nothing is connected or it is stuck */
/* The last bytes of the log, malloc'ed; whole lines. */
char *console_tail(struct console *c, size_t max, size_t *ret_len);
/* The last non-empty line, printable, at most 120 characters; "" when there is none. For error texts. */
void console_last_line(struct console *c, char out[121]);

#endif
