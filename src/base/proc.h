/* SPDX-License-Identifier: Apache-2.0 */
/* Processes as /proc shows them. A pid alone may be reused; with its start time it names one process. */
#ifndef VSE_BASE_PROC_H
#define VSE_BASE_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Fills the standard descriptors that are closed, so that nothing else gets their numbers. What is read from or
 * written to one of these fails with EBADF, as it would have. */
void proc_fill_stdio(void);
/* Closes these descriptors, both included; last may be UINT_MAX. Async-signal-safe: for a child after fork. Without
 * close_range(2) (Linux before 5.9) no further than RLIMIT_NOFILE, and 65535. */
void proc_close_fds(unsigned first, unsigned last);
/* Start time in clock ticks since boot (proc(5) stat field 22). ESRCH when there is no such process. */
int proc_start_time(pid_t pid, uint64_t *ret, struct err *err);
/* The process of that start time lives (a zombie does not count). */
bool proc_alive(pid_t pid, uint64_t start);
/* How a process has ended whose parent has not waited for it yet, as waitpid(2) would say. ESRCH: it lives, or is no
 * longer there. */
int proc_exit_status(pid_t pid, uint64_t start, int *ret, struct err *err);
/* A signal by pidfd, only if the start time still matches: never hits a stranger. */
void proc_signal(pid_t pid, uint64_t start, int signo);
void proc_kill(pid_t pid, uint64_t start); /* SIGKILL */
/* The calling thread has this capability (CAP_... of linux/capability.h, 0..63) in effect. */
bool proc_capable(unsigned cap);
/* Resident memory in bytes, CPU time (user+system) in ms; either may be NULL. */
int proc_usage(pid_t pid, uint64_t *ret_rss, uint64_t *ret_cpu_ms, struct err *err);

#endif
