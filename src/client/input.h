/* SPDX-License-Identifier: Apache-2.0 */
/* Stdin in the event loop. A descriptor in a loop is made non-blocking, and that mode belongs to the open file, which
 * is the user's terminal, or a pipe that other programs read too: theirs would stay so after us. */
#ifndef VSE_CLIENT_INPUT_H
#define VSE_CLIENT_INPUT_H

#include <sys/types.h>

#include "io/loop.h"

struct input;

/* Watches `fd` (borrowed) whose mode stays as it is; fn when it can be read. Made with nothing wanted. NULL: it
 * cannot be watched (closed). */
struct input *input_create(struct loop *l, int fd, void (*fn)(void *arg, int events), void *arg);
void input_want(struct input *in, bool want);
/* As read(2); -1 with EAGAIN or EINTR: later. */
ssize_t input_read(struct input *in, void *p, size_t n);
void input_destroy(struct input *in); /* NULL is fine */

#endif
