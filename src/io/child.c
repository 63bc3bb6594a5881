/* SPDX-License-Identifier: Apache-2.0 */
#include "io/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "io/child_filter.h"

#define POLL_MS 100 /* without pidfd (Linux before 5.3) a process is looked at this often */

/* As it was before child_raise_limit(): programs that use select(2) break with more. rlim_max 0: not raised. */
static struct rlimit own_limit;

struct child {
	struct loop *loop;
	pid_t pid;
	uint64_t start; /* of an adopted process */
	bool own, ended, forgotten;
	int pidfd;
	struct watch *watch;
	struct evtimer *poll;
	void (*on_exit)(void *arg, int status);
	void *arg;
};

static void release(struct child *c)
{
	watch_destroy(c->watch);
	evtimer_destroy(c->poll);
	if (c->pidfd >= 0)
		close(c->pidfd);
	free(c);
}

static void look(struct child *c)
{
	int status = -1;
	if (c->own) {
		pid_t got = waitpid(c->pid, &status, WNOHANG);
		if (got == 0)
			return;
		if (got < 0) {
			if (errno == EINTR)
				return;
			status = -1;
		}
	} else if (proc_alive(c->pid, c->start)) {
		return;
	} else if (proc_exit_status(c->pid, c->start, &status, NULL) < 0) {
		status = -1;
	}
	c->ended = true;
	if (c->watch)
		watch_set(c->watch, 0);
	if (c->poll)
		evtimer_stop(c->poll);
	if (c->forgotten)
		release(c);
	else
		c->on_exit(c->arg, status); /* may destroy c */
}

static void on_pidfd(void *arg, int events _unused_)
{
	look(arg);
}

static void on_poll(void *arg)
{
	look(arg);
}

static int follow(struct child *c, struct err *err)
{
	c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	if (c->pidfd >= 0) {
		c->watch = watch_create(c->loop, c->pidfd, on_pidfd, c, err);
		if (!c->watch)
			return -1;
		watch_set(c->watch, WATCH_READ);
		return 0;
	}
	if (errno == ESRCH && !c->own)
		return err_set(err, ESRCH, "no process %d", (int)c->pid);
	c->poll = evtimer_create(c->loop, on_poll, c);
	evtimer_start(c->poll, POLL_MS, POLL_MS);
	return 0;
}

/* ---- between fork and exec: async-signal-safe calls only ---- */

/* Two passes, since a target number may be another's source: first all out of the way, then into place. */
static int place_fds(const struct child_spec *spec, int *report)
{
	int n = MAX(spec->n_fds, 3), at[CHILD_FDS_MAX + 1];
	for (int i = 0; i < n; i++) {
		int from = i < spec->n_fds ? spec->fds[i] : -1;
		if (from < 0 && i < 3)
			from = open("/dev/null", O_RDWR);
		at[i] = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, CHILD_FDS_MAX + 1);
		if (from >= 0 && at[i] < 0)
			return -1;
	}
	at[n] = fcntl(*report, F_DUPFD_CLOEXEC, CHILD_FDS_MAX + 1);
	if (at[n] < 0)
		return -1;
	for (int i = 0; i < n; i++) {
		if (at[i] < 0)
			close(i);
		else if (dup2(at[i], i) < 0)
			return -1;
	}
	if (dup3(at[n], n, O_CLOEXEC) < 0)
		return -1;
	*report = n;
	proc_close_fds((unsigned)n + 1, UINT_MAX);
	return 0;
}

/* From the child, which ends, to a grandchild: whose parent then is `keeper`, or this is not possible. */
static int change_parent(pid_t keeper, int report)
{
	pid_t between = getpid(), pid = fork();
	if (pid)
		_exit(pid < 0 ? errno : 0);
	while (getppid() == between)
		nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
	pid = getpid();
	if (write(report, &pid, sizeof(pid)) < 0)
		_exit(126);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == keeper)
		return 0;
	errno = ECHILD; /* it is no subreaper, or has just died */
	return -1;
}

/* The first word of proc_pid_stat(5) is the pid; what follows the program's name, which may have any character but is ended by
 * the last ')', is field 3 and on. */
static void note_pid(const char *path)
{
	char text[1024], *p, *end;
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return;
	text[n] = '\0';
	p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++)
		if ((p = strchr(p, ' ')))
			p++;
	end = p ? strchr(p, ' ') : NULL;
	fd = end ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	if (fd < 0)
		return;
	char *word = strchr(text, ' ') + 1;
	*end = '\n';
	memmove(word, p, (size_t)(end - p) + 1);
	if (write(fd, text, (size_t)(word - text + (end - p) + 1)) < 0)
		unlink(path);
	close(fd);
}

#define MPOL_BIND 2 /* linux/mempolicy.h */

static void lift_memlock(void)
{
	struct rlimit rl;
	if (getrlimit(RLIMIT_MEMLOCK, &rl) < 0)
		return;
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &rl);
}

/* A policy of the process, and not of QEMU's or anybody's own making, is what every program keeps, with all its threads,
 * for all of its memory: its own, what it copies on write, what the kernel takes for it. */
static int bind_to_node(const struct child_spec *spec)
{
	if (spec->cpus && sched_setaffinity(0, sizeof(*spec->cpus), spec->cpus) < 0)
		return -1;
	if (!spec->numa_nodes)
		return 0;
	/* The kernel reads one bit less than it is told. */
	return (int)syscall(SYS_set_mempolicy, MPOL_BIND, &spec->numa_nodes, 65ul);
}

static _Noreturn void run(const struct child_spec *spec, const char *program, int report,
			  pid_t parent, pid_t keeper)
{
	int code;
	sigset_t none;
	sigemptyset(&none);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL); /* an ignored signal would stay ignored across exec */
	sigprocmask(SIG_SETMASK, &none,
		    NULL); /* only now: one may be pending, and the handlers are the parent's */
	/* Before the descriptors get their places: libuv closes some of its own, by number, at a fork. */
	if (spec->die_with_keeper && change_parent(keeper, report) < 0)
		goto fail;
	if (spec->pid_note)
		note_pid(spec->pid_note);
	if (place_fds(spec, &report) < 0)
		goto fail;
	if (own_limit.rlim_max)
		setrlimit(RLIMIT_NOFILE, &own_limit);
	if (spec->lock_memory)
		lift_memlock();
	if (spec->new_session)
		setsid();
	if (spec->die_with_parent) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(127); /* it died before the line above */
	}
	if (spec->cwd && chdir(spec->cwd) < 0)
		goto fail;
	if (spec->nice && setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + spec->nice) < 0)
		errno = 0;
	if (bind_to_node(spec) < 0 || (spec->no_set_id && child_filter_set_id() < 0))
		goto fail;
	if (spec->env)
		execve(program, spec->argv, spec->env);
	else
		execv(program, spec->argv);
fail:
	code = errno;
	if (write(report, &code, sizeof(code)) < 0)
		_exit(126);
	_exit(127);
}

/* ---- */

void child_raise_limit(void)
{
	struct rlimit rl;
	if (own_limit.rlim_max || getrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur >= rl.rlim_max)
		return;
	struct rlimit all = {.rlim_cur = rl.rlim_max, .rlim_max = rl.rlim_max};
	if (setrlimit(RLIMIT_NOFILE, &all) == 0)
		own_limit = rl;
}

int child_spawn(const struct child_spec *spec, pid_t *ret_pid, struct err *err)
{
	_cleanup_free_ char *program = path_find_program(spec->argv[0]);
	if (!program)
		return err_set(err, ENOENT, "%s: no such program%s", spec->argv[0],
			       strchr(spec->argv[0], '/') ? "" : " in PATH");
	int report[2];
	if (pipe2(report, O_CLOEXEC) < 0)
		return err_errno(err, errno, "start %s", spec->argv[0]);
	/* Signals stay blocked across fork: the child must not run the parent's handlers. */
	sigset_t all, old;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid_t parent = getpid(), keeper = getppid(), pid = fork();
	if (pid == 0)
		run(spec, program, report[1], parent, keeper);
	int code = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(report[1]);
	if (pid < 0) {
		close(report[0]);
		return err_errno(err, code, "start %s", spec->argv[0]);
	}
	code = 0;
	int between = 0;
	if (spec->die_with_keeper) {
		waitpid(pid, &between, 0);
		if (fd_read_full(report[0], &pid, sizeof(pid)) != (ssize_t)sizeof(pid)) {
			close(report[0]);
			code = WIFEXITED(between) && WEXITSTATUS(between) ? WEXITSTATUS(between) : EIO;
			return err_errno(err, code, "start %s", spec->argv[0]);
		}
	}
	ssize_t n = fd_read_full(report[0], &code, sizeof(code)); /* ends at exec or at exit: both come at once */
	close(report[0]);
	if (n == (ssize_t)sizeof(code)) {
		if (!spec->die_with_keeper)
			waitpid(pid, NULL, 0);
		return err_errno(err, code, "start %s", program);
	}
	*ret_pid = pid;
	return 0;
}

struct child *child_start(struct loop *l, const struct child_spec *spec,
			  void (*on_exit)(void *arg, int status), void *arg, struct err *err)
{
	pid_t pid;
	if (child_spawn(spec, &pid, err) < 0)
		return NULL;
	if (spec->die_with_keeper) {
		struct child *kept = child_adopt(l, pid, on_exit, arg, err);
		if (!kept)
			kill(pid, SIGKILL);
		return kept;
	}
	struct child *c = xcalloc(1, sizeof(*c));
	*c = (struct child){.loop = l, .pid = pid, .own = true, .pidfd = -1, .on_exit = on_exit, .arg = arg};
	if (follow(c, err) < 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		release(c);
		return NULL;
	}
	return c;
}

struct child *child_adopt(struct loop *l, pid_t pid, void (*on_exit)(void *arg, int status),
			  void *arg, struct err *err)
{
	struct child *c = xcalloc(1, sizeof(*c));
	*c = (struct child){.loop = l, .pid = pid, .pidfd = -1, .on_exit = on_exit, .arg = arg};
	if (proc_start_time(pid, &c->start, err) < 0 || follow(c, err) < 0) {
		release(c);
		return NULL;
	}
	return c;
}

pid_t child_pid(const struct child *c)
{
	return c->pid;
}

void child_kill(struct child *c, int signo)
{
	if (c->ended)
		return;
	if (c->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, c->pidfd, signo, NULL, 0);
	else if (c->own || proc_alive(c->pid, c->start))
		kill(c->pid, signo);
}

void child_destroy(struct child *c)
{
	if (!c)
		return;
	if (c->own && !c->ended)
		c->forgotten = true; /* reaped when it ends; release() follows there */
	else
		release(c);
}

const char *child_status_text(int status, char out[40])
{
	if (status == -1)
		snprintf(out, 40, "ended");
	else if (WIFEXITED(status))
		snprintf(out, 40, "exit %d", WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		snprintf(out, 40, "killed by SIG%s", sigabbrev_np(WTERMSIG(status)) ?: "?");
	else
		snprintf(out, 40, "status %#x", (unsigned)status);
	return out;
}
