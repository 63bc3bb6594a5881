/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/reaper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/rundir.h"
#include "io/child.h"

#define SWEEP_TRIES 50 /* every 100 ms: for the dead agent's lock to be let go */
#define RESTART_MS 200
#define RESUMES_MAX                                                                                \
	20 /* times that a dead root is followed by another; then the nodes end by themselves */

struct reaper {
	struct loop *loop;
	char *base, *name;
	pid_t pid;
	int pipe; /* the writing end: its loss is the agent's death */
	struct child *watch;
	struct evtimer *again;
};

static void close_all_but(int keep)
{
	if (keep > 3)
		syscall(SYS_close_range, 3, (unsigned)keep - 1, 0);
	syscall(SYS_close_range, (unsigned)keep + 1, ~0u, 0);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
}

/* The root agent of many nodes leaves a journal: another goes on from it, so that the VMs elsewhere live. But one that
 * dies again and again is not worth it: the file's age tells. */
static void take_over(const char *base, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s/journal", base, name),
			    *times = xasprintf("%s/%s/resumed", base, name), *text = NULL;
	unsigned n = 0;
	if (!path_exists(path))
		return;
	if (path_read(times, 16, &text, NULL, NULL) == 0)
		sscanf(text, "%u", &n);
	_cleanup_free_ char *next = xasprintf("%u", n + 1);
	if (n >= RESUMES_MAX || path_replace(times, next, strlen(next), 0600, NULL) < 0)
		return;
	execl("/proc/self/exe", "vse-agent", "--resume", "--base", base, "--name", name, (char *)NULL);
}

static _Noreturn void run(int fd, const char *base, const char *name)
{
	char c;
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_NAME, "vse-reaper");
	if (chdir("/") < 0)
		_exit(1);
	setsid();
	close_all_but(fd);
	int heir = rundir_heir(base, name);
	ssize_t n;
	while ((n = read(fd, &c, 1)) < 0 && errno == EINTR)
		;
	if (n > 0)
		_exit(0); /* a byte: the agent ends in the regular way */
	_cleanup_free_ char *base_name = xasprintf("%s/%s", base, name);
	take_over(base, name);
	if (heir >= 0)
		close(heir);
	for (int i = 0; i < SWEEP_TRIES && path_exists(base_name); i++) {
		rundir_sweep(base, name);
		nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	}
	_exit(0);
}

pid_t reaper_fork(int fd, int writer, const char *base, const char *name)
{
	/* As in io/child.c: the child must not run the agent's signal handlers. */
	sigset_t all, old;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid_t pid = fork();
	if (pid == 0) {
		close(writer);
		run(fd, base, name);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	return pid;
}

static int start(struct reaper *r, struct err *err);

static void on_again(void *arg)
{
	start(arg, NULL);
}

static void on_reaper_end(void *arg, int status _unused_)
{
	struct reaper *r = arg;
	log_warn("the reaper was killed: starting another");
	waitpid(r->pid, NULL, 0);
	child_destroy(r->watch);
	r->watch = NULL;
	close(r->pipe);
	r->pipe = -1;
	evtimer_start(r->again, RESTART_MS, 0);
}

static int start(struct reaper *r, struct err *err)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "start the reaper");
	pid_t pid = reaper_fork(p[0], p[1], r->base, r->name);
	close(p[0]);
	if (pid < 0) {
		close(p[1]);
		return err_errno(err, errno, "start the reaper");
	}
	r->pid = pid;
	r->pipe = p[1];
	r->watch = child_adopt(r->loop, pid, on_reaper_end, r, err);
	return r->watch ? 0 : -1;
}

struct reaper *reaper_create(struct loop *l, const char *base, const char *name, struct err *err)
{
	struct reaper *r = xcalloc(1, sizeof(*r));
	*r = (struct reaper){.loop = l, .base = xstrdup(base), .name = xstrdup(name), .pipe = -1};
	r->again = evtimer_create(l, on_again, r);
	if (start(r, err) < 0) {
		reaper_destroy(r);
		return NULL;
	}
	return r;
}

void reaper_destroy(struct reaper *r)
{
	if (!r)
		return;
	child_destroy(r->watch);
	evtimer_destroy(r->again);
	if (r->pipe >= 0) {
		signal(SIGPIPE, SIG_IGN);
		if (fd_write_all(r->pipe, "", 1) == 0)
			waitpid(r->pid, NULL, 0);
		close(r->pipe);
	}
	free(r->base);
	free(r->name);
	free(r);
}
