/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/reaper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/rundir.h"
#include "base/strvec.h"
#include "io/child.h"

#define SWEEP_TRIES 50 /* every 100 ms: for the dead agent's lock to be let go */
#define RESTART_MS 200
#define RESUMES_MAX                                                                                \
	20 /* times that a dead root is followed by another; then the nodes end by themselves */

/* What the agent tells its reaper: one message each, HOLD with a descriptor. A keeper tells only the end, by a pipe. */
enum { SAY_END, SAY_HOLD, SAY_DROP };
struct said {
	unsigned char what, slot;
};

struct reaper {
	struct loop *loop;
	char *base, *name;
	pid_t pid;
	int pipe;                  /* a socket's other end: its loss is the agent's death */
	int held[REAPER_HELD_MAX]; /* -1: none */
	struct child *watch;
	struct evtimer *again;
};

static void close_all_but(int keep)
{
	if (keep > 3)
		proc_close_fds(3, (unsigned)keep - 1);
	proc_close_fds((unsigned)keep + 1, UINT_MAX);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
}

static void set_held(int *held, int fd)
{
	if (*held >= 0)
		close(*held);
	*held = fd;
}

/* The root agent of many nodes leaves a journal: another goes on from it, so that the VMs elsewhere live. But one that
 * dies again and again is not worth it: the file's age tells. */
static void take_over(const char *base, const char *name, const int *held)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
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
	strvec_addv(&argv, "vse-agent", "--resume", "--base", base, "--name", name, NULL);
	for (int i = 0; i < REAPER_HELD_MAX; i++)
		if (held[i] >= 0 && fcntl(held[i], F_SETFD, 0) == 0) {
			strvec_add(&argv, "--hold");
			strvec_addf(&argv, "%d", held[i]);
		}
	execv("/proc/self/exe", strvec_argv(&argv));
}

/* One message; false: the agent is dead. */
static bool hear(int fd, struct said *ret, int *ret_fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} u;
	struct iovec v = {.iov_base = ret, .iov_len = sizeof(*ret)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u)};
	ssize_t n;
	*ret = (struct said){0};
	*ret_fd = -1;
	while ((n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (n < 0 && errno == ENOTSOCK)
		while ((n = read(fd, ret, 1)) < 0 && errno == EINTR)
			;
	else if (n > 0 && CMSG_FIRSTHDR(&m) && u.head.cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(&u.head), sizeof(*ret_fd));
	return n > 0;
}

/* Until the agent is dead. Does not return when it ends in the regular way. */
static void listen_to(int fd, int *held)
{
	struct said said;
	int got;
	while (hear(fd, &said, &got)) {
		if (said.what == SAY_END)
			_exit(0);
		if (said.slot < REAPER_HELD_MAX)
			set_held(&held[said.slot], got);
	}
}

static _Noreturn void run(int fd, const char *base, const char *name)
{
	int held[REAPER_HELD_MAX];
	memset(held, -1, sizeof(held));
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
	listen_to(fd, held);
	_cleanup_free_ char *base_name = xasprintf("%s/%s", base, name);
	take_over(base, name, held);
	for (int i = 0; i < REAPER_HELD_MAX; i++)
		set_held(&held[i], -1);
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

static void say(struct reaper *r, unsigned char what, int slot, int fd)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} u = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS}};
	struct said said = {what, (unsigned char)slot};
	struct iovec v = {.iov_base = &said, .iov_len = sizeof(said)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	if (fd >= 0) {
		memcpy(CMSG_DATA(&u.head), &fd, sizeof(fd));
		m.msg_control = &u;
		m.msg_controllen = sizeof(u);
	}
	/* It only ever waits for this, so there is room; one that was killed is started anew, and told all. */
	if (r->pipe >= 0 && sendmsg(r->pipe, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("the reaper does not hear: %s", strerror(errno));
}

int reaper_hold(struct reaper *r, int fd)
{
	int slot = 0;
	while (slot < REAPER_HELD_MAX && r->held[slot] >= 0)
		slot++;
	if (fd < 0 || slot == REAPER_HELD_MAX)
		return -1;
	r->held[slot] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (r->held[slot] < 0)
		return -1;
	say(r, SAY_HOLD, slot, r->held[slot]);
	return slot;
}

void reaper_drop(struct reaper *r, int held)
{
	if (!r || held < 0)
		return;
	set_held(&r->held[held], -1);
	say(r, SAY_DROP, held, -1);
}

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
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p) < 0)
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
	for (int i = 0; i < REAPER_HELD_MAX; i++)
		if (r->held[i] >= 0)
			say(r, SAY_HOLD, i, r->held[i]);
	return r->watch ? 0 : -1;
}

struct reaper *reaper_create(struct loop *l, const char *base, const char *name, struct err *err)
{
	struct reaper *r = xcalloc(1, sizeof(*r));
	*r = (struct reaper){.loop = l, .base = xstrdup(base), .name = xstrdup(name), .pipe = -1};
	memset(r->held, -1, sizeof(r->held));
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
		say(r, SAY_END, 0, -1);
		close(r->pipe); /* in whose queue there is room, or nobody listens */
		waitpid(r->pid, NULL, 0);
	}
	for (int i = 0; i < REAPER_HELD_MAX; i++)
		set_held(&r->held[i], -1);
	free(r->base);
	free(r->name);
	free(r);
}
