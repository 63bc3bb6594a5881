/* SPDX-License-Identifier: Apache-2.0 */
/* Starts a program in its own session, with pipes or a terminal. */
#ifndef VSE_GUEST_SPAWN_H
#define VSE_GUEST_SPAWN_H

#include <stdbool.h>

#include "base/err.h"
#include "base/strvec.h"
#include "guest/user.h"

#define SPAWN_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct spawn {
	struct strvec argv; /* at least one; looked for along PATH of `env` */
	struct strvec env;  /* the whole environment */
	struct user user;
	char *cwd;    /* NULL: the user's home, or / where there is none */
	bool tty, in; /* in: a pipe or the terminal as stdin, else /dev/null */
	unsigned rows, cols;
	bool forget_oom; /* our own protection against the OOM killer is not for the program */
};

void spawn_finish(struct spawn *s);
/* Sets or replaces NAME of "NAME=value". */
void spawn_env(struct strvec *env, const char *assignment);
/* ret_fd: our ends of fd 0-2, non-blocking, -1 where there is none; with tty the terminal is ret_fd[1].
 * A program that cannot be run is told on its fd 2, with exit code 127 (not there) or 126, as shells do. */
int spawn_start(struct spawn *s, pid_t *ret_pid, int ret_fd[3], struct err *err);
/* In a new child: default signals, nothing blocked. */
void spawn_reset_signals(void);

#endif
