/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one program to its end: an argv, never a shell. Blocking; its output comes line by line. The
 * program gets SIGKILL when the calling thread ends. */
#ifndef VSE_IMAGE_RUN_H
#define VSE_IMAGE_RUN_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/strvec.h"

struct run {
	struct strvec argv; /* argv[0] is looked up in PATH, then in /usr/sbin and /sbin */
	struct strvec env;  /* NAME=value, over the caller's own environment */
	bool clean_env;     /* env is all there is */
	int in;             /* its stdin, borrowed; 0 (the default): /dev/null */
	int out;    /* its stdout, borrowed; 0: the same as its stderr, to on_line and the tail */
	int err_fd; /* its stderr, borrowed; 0: to on_line and the tail */
	const char *root; /* chroot to this folder, then to its "/" */
	const char *cwd;
	unsigned mask;                                /* umask; 0: 022 */
	void (*on_line)(void *arg, const char *line); /* may be NULL */
	void *arg;
	struct buf *capture; /* all of stderr and (out == 0) stdout, up to capture_max; may be NULL */
	size_t capture_max; /* 0: 64 KiB; what is longer keeps its end */
};

void run_finish(struct run *r); /* the vectors; not what is borrowed */
#define _cleanup_run_ _cleanup_(run_finish)

/* Starts; *ret_fd is what to read its output from (owned by the caller), given to run_wait. */
int run_start(struct run *r, pid_t *ret_pid, int *ret_fd, struct err *err);
/* Reads until the program ends (not until the last holder of its stdout ends) and gives waitpid's
 * status. */
int run_wait(struct run *r, pid_t pid, int fd, int *ret_status, struct err *err);
int run(struct run *r, int *ret_status, struct err *err);
/* Like run(), and anything but exit 0 is an error: "PROG: <last line of output>". */
int run_ok(struct run *r, struct err *err);
/* "exit 3" or "killed by signal 9". */
void run_status_text(int status, char out[40]);
/* Full path of a tool (PATH, /usr/sbin, /sbin), malloc'ed, or NULL. */
char *run_find(const char *name);

#endif
