/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes: started from an argv, never through a shell; watched by pidfd, so that a process
 * this agent did not start (it was adopted) is watched the same way. */
#ifndef VSE_IO_CHILD_H
#define VSE_IO_CHILD_H

#include <sched.h>
#include <stdint.h>
#include <sys/types.h>

#include "io/loop.h"

struct child;

#define CHILD_FDS_MAX 16

struct child_spec {
	char *const *argv; /* argv[0] is looked up in PATH unless it has a slash */
	char *const *env;  /* NULL: the parent's */
	const char *cwd;   /* NULL: the parent's */
	/* Descriptor i of the child is fds[i] of the parent (borrowed); -1 gives /dev/null for 0-2, and is
	 * left closed above. Nothing else is inherited. */
	int fds[CHILD_FDS_MAX];
	int n_fds;
	bool die_with_parent; /* PR_SET_PDEATHSIG: SIGKILL when the thread that started it ends */
	/* Instead: it outlives us. It becomes a child of our parent, which must be a subreaper
	 * (PR_SET_CHILD_SUBREAPER; else ECHILD), and gets SIGKILL when that one ends. How it ended is known as long as
	 * our parent has not waited for it. */
	bool die_with_keeper;
	/* A file that has "PID START\n" (start: field 22 of proc_pid_stat(5)) before the program begins, so that no end of ours
	 * comes too early for it; NULL: none. That it cannot be written is no error. */
	const char *pid_note;
	bool new_session;      /* setsid() */
	int nice;              /* added to the nice value; 0 = unchanged */
	const cpu_set_t *cpus; /* where its threads may run; NULL: where the parent's may */
	/* For one that makes files as others tell it: none gets a set-user-id bit (EPERM), nor a set-group-id bit with which
	 * others could execute it, or becomes a device node; nor does it gain rights by what it executes. Its umask is 0.
	 * Much as RestrictSUIDSGID= of systemd.exec(5). */
	bool no_set_id;
	bool lock_memory; /* it may lock as much memory as we might (RLIMIT_MEMLOCK) */
	uint64_t numa_nodes; /* bit i: it gets memory from NUMA node i, and from none without a bit; 0: as the parent */
};

/* Raises this process's limit of open descriptors (RLIMIT_NOFILE) to what it may have; children get the one it
 * had. Once, at start; without effect where it cannot be raised. */
void child_raise_limit(void);

/* Starts. on_exit(arg, status as of waitpid(2)) runs once from the loop. A program that cannot be
 * executed is an error here (ENOENT, EACCES...), not an exit status. */
struct child *child_start(struct loop *l, const struct child_spec *spec,
			  void (*on_exit)(void *arg, int status), void *arg, struct err *err);
/* The same without a loop: the caller waits for the process, or leaves it to init by ending first. */
int child_spawn(const struct child_spec *spec, pid_t *ret_pid, struct err *err);
/* Watches a process that is not a child; its exit status is given as -1 where it cannot be known. ESRCH. */
struct child *child_adopt(struct loop *l, pid_t pid, void (*on_exit)(void *arg, int status),
			  void *arg, struct err *err);
pid_t child_pid(const struct child *c);
void child_kill(struct child *c, int signo); /* does nothing once it has ended */
/* Forgets the process; does not kill it. A child that still runs is reaped in the background. */
void child_destroy(struct child *c); /* NULL is fine */
/* "exit 3", "killed by SIGSEGV". */
const char *child_status_text(int status, char out[40]);

#endif
