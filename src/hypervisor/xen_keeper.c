/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/proc.h"
#include "hypervisor/xen.h"

#define MAKING_MS                                                                                  \
	120000 /* an xl that makes a domain takes no longer; then the domain is looked for anyway */
#define TRIES 5
#define XL_MS 60000 /* an xl that hangs is killed */

enum { WORD_MAKING, WORD_MADE, WORD_END, WORD_LEAVE };

struct word {
	int what;
	pid_t pid;
};

/* What the child knows; all made before the fork. */
struct keeper {
	char *xl, *name;
	const char *uuid;
	bool keep;
	int pipe, making, model, guard; /* descriptors; all but the pipe: of processes */
};

static int open_process(pid_t pid)
{
	return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

/* True when there is no such domain any more, as far as xl tells. */
static bool call_xl(const struct keeper *k, char *verb)
{
	char *argv[] = {k->xl, verb, k->name, NULL};
	int status = 0;
	pid_t pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);
		for (int i = 0; i < 3 && null >= 0; i++)
			dup2(null, i);
		execv(k->xl, argv);
		_exit(127);
	}
	struct pollfd p = {.fd = open_process(pid), .events = POLLIN};
	if (p.fd >= 0) {
		if (poll(&p, 1, XL_MS) <= 0)
			kill(pid, SIGKILL);
		close(p.fd);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static _Noreturn void end(const struct keeper *k)
{
	char destroy[] = "destroy", domid[] = "domid";
	struct pollfd p = {.fd = k->making, .events = POLLIN};
	if (k->making >= 0)
		poll(&p, 1, MAKING_MS);
	for (int i = 0; i < TRIES && !call_xl(k, destroy) && call_xl(k, domid); i++)
		sleep(1); /* another xl has the lock */
	xen_net_remove(k->uuid);
	_exit(0);
}

static void hear(struct keeper *k, const struct word *w)
{
	switch (w->what) {
	case WORD_MAKING: k->making = open_process(w->pid); break;
	case WORD_MADE:
		if (k->making >= 0)
			close(k->making);
		k->making = -1;
		k->model = open_process(w->pid);
		if (w->pid > 0 && k->model < 0)
			end(k);
		break;
	case WORD_END: end(k);
	default: _exit(0);
	}
}

static _Noreturn void run(struct keeper *k)
{
	for (;;) {
		struct word w;
		struct pollfd p[3] = {{.fd = k->pipe, .events = POLLIN},
				      {.fd = k->model, .events = POLLIN},
				      {.fd = k->guard, .events = POLLIN}};
		if (poll(p, 3, -1) < 0)
			continue;
		if (k->pipe < 0 && (p[1].revents || p[2].revents))
			end(k);
		if (p[2].revents) {
			close(k->guard);
			k->guard = -1;
			k->keep = false;
		}
		if (p[1].revents) { /* the agent sees it, too, and ends the domain while it lives */
			close(k->model);
			k->model = -1;
		}
		if (!p[0].revents)
			continue;
		ssize_t n = read(k->pipe, &w, sizeof(w));
		if (n == (ssize_t)sizeof(w)) {
			hear(k, &w);
			continue;
		}
		if (!k->keep || k->model < 0)
			end(k); /* nobody could adopt it */
		close(k->pipe);
		k->pipe = -1; /* poll() passes over it */
	}
}

static _Noreturn void child(struct keeper *k)
{
	sigset_t none;
	sigemptyset(&none);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	int null = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3 && null >= 0; i++)
		dup2(null, i);
	k->pipe = dup2(k->pipe, 3);
	proc_close_fds(4, UINT_MAX);
	if (chdir("/") < 0)
		_exit(1);
	/* Nobody waits for a keeper: it is no child of the agent, but of the subreaper that starts the agent anew. When
	 * that one ends, too, nobody will adopt. */
	pid_t first = getpid(), pid = fork();
	if (pid)
		_exit(pid < 0);
	while (getppid() == first)
		poll(NULL, 0, 1);
	if (k->keep && getppid() > 1)
		k->guard = open_process(getppid());
	run(k);
}

int xen_keeper_start(const struct xen_id *id, bool keep, int *ret_pipe, struct err *err)
{
	_cleanup_free_ char *xl = xen_program("xl"), *name = xstrdup(id->name);
	int p[2], status = 0;
	if (!xl)
		return err_set(err, ENOENT, "xl: no such program");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p) < 0)
		return err_errno(err, errno, "socketpair");
	struct keeper k = {.xl = xl,
			   .name = name,
			   .uuid = id->uuid,
			   .keep = keep,
			   .pipe = p[1],
			   .making = -1,
			   .model = -1,
			   .guard = -1};
	sigset_t all, old;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old); /* the child must not run our handlers */
	pid_t pid = fork();
	if (pid == 0)
		child(&k);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(p[1]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid < 0 || status) {
		close(p[0]);
		return err_set(err, EAGAIN, "the keeper of the domain cannot be started");
	}
	*ret_pipe = p[0];
	return 0;
}

static void say(int pipe, int what, pid_t pid)
{
	struct word w = {.what = what, .pid = pid};
	if (pipe >= 0)
		send(pipe, &w, sizeof(w), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void xen_keeper_making(int pipe, pid_t pid)
{
	say(pipe, WORD_MAKING, pid);
}

void xen_keeper_made(int pipe, pid_t model)
{
	say(pipe, WORD_MADE, model);
}

void xen_keeper_end(int *pipe)
{
	say(*pipe, WORD_END, 0);
	if (*pipe >= 0)
		close(TAKE_FD(*pipe));
}

void xen_keeper_leave(int *pipe)
{
	say(*pipe, WORD_LEAVE, 0);
	if (*pipe >= 0)
		close(TAKE_FD(*pipe));
}
