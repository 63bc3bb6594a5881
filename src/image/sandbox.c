/* SPDX-License-Identifier: Apache-2.0 */
#include "image/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "image/run.h"
#include "image/subid.h"

#define TELL_MS 1000
#define REMOVE_TRIES 100
#define REMOVE_PAUSE_NS 20000000

enum kind { SAY_MAP, SAY_PROGRESS, SAY_RESULT, SAY_ERROR, SAY_DONE };

/* One packet of the socket pair: the same program at both ends. */
struct say {
	enum kind kind;
	unsigned done, total;
	char step[32];
	struct err err; /* text: of progress, result or error */
};

struct sandbox {
	int fd;
	pid_t keeper;
};

struct sandbox_self {
	int fd;
};

struct keeper {
	const char *dir;
	sandbox_fn *fn;
	void *arg;
	int fd;
	const int *keep;
	size_t n_keep;
	bool user_ns;
};

static void say(int fd, enum kind kind, const struct err *e)
{
	struct say m = {.kind = kind};
	if (e)
		m.err = *e;
	while (send(fd, &m, sizeof(m), MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

void sandbox_say(struct sandbox_self *self, const char *step, unsigned done, unsigned total,
		 const char *text)
{
	struct say m = {.kind = SAY_PROGRESS, .done = done, .total = total};
	snprintf(m.step, sizeof(m.step), "%s", step);
	snprintf(m.err.text, sizeof(m.err.text), "%s", text ? text : "");
	while (send(self->fd, &m, sizeof(m), MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

void sandbox_result(struct sandbox_self *self, const char *result)
{
	struct err e = ERR_INIT;
	snprintf(e.text, sizeof(e.text), "%s", result);
	say(self->fd, SAY_RESULT, &e);
}

/* --- init: pid 1 of the namespace --- */

static int init_setup(struct err *err)
{
	if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
		return err_errno(err, errno, "build: new mount namespace");
	/* Nothing mounted from here on is seen outside. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_errno(err, errno, "build: make mounts private");
	/* A container may hide parts of /proc, and then the kernel refuses a new one: keep the
	 * outer one. */
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL) < 0)
		log_debug("build: own /proc: %s", strerror(errno));
	(void)!sethostname("vse", 3);
	return 0;
}

static void init_main(struct keeper *k, int go)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	char c;
	if (read(go, &c, 1) != 1) /* the keeper ended before the line above */
		_exit(1);
	close(go);
	for (int s = 1; s < 32; s++)
		signal(s, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	struct err e = ERR_INIT;
	struct sandbox_self self = {.fd = k->fd};
	if (init_setup(&e) < 0 || k->fn(k->arg, &self, k->dir, &e) < 0) {
		say(k->fd, SAY_ERROR, &e);
		_exit(1);
	}
	_exit(0);
}

/* --- keeper --- */

static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Keeps nothing of the caller's open but what the build was given: its sockets must close when it
 * ends. */
static void close_others(struct keeper *k)
{
	int null = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3 && null >= 0; i++)
		dup2(null, i);
	int keep[SANDBOX_KEEP_MAX + 1], n = 0;
	keep[n++] = k->fd;
	for (size_t i = 0; i < k->n_keep && i < SANDBOX_KEEP_MAX; i++)
		keep[n++] = k->keep[i];
	qsort(keep, (size_t)n, sizeof(*keep), by_value);
	unsigned from = 3;
	for (int i = 0; i < n; i++) {
		if ((unsigned)keep[i] > from)
			proc_close_fds(from, (unsigned)keep[i] - 1);
		from = MAX(from, (unsigned)keep[i] + 1);
	}
	proc_close_fds(from, UINT_MAX);
}

static int map_me(struct keeper *k, struct err *err)
{
	if (!k->user_ns)
		return 0;
	if (unshare(CLONE_NEWUSER) < 0) {
		if (errno == EPERM || errno == ENOSPC || errno == EINVAL)
			return err_set(
				err, EPERM,
				"build: this host does not allow user namespaces to ordinary users "
				"(%s): ask the "
				"administrator (sysctl user.max_user_namespaces, "
				"kernel.unprivileged_userns_clone, "
				"kernel.apparmor_restrict_unprivileged_userns) or build as root",
				strerror(errno));
		return err_errno(err, errno, "build: new user namespace");
	}
	say(k->fd, SAY_MAP, NULL);
	char c;
	if (recv(k->fd, &c, 1, 0) != 1)
		return err_set(err, ECANCELED, "build: interrupted");
	if (c != 'm') /* the caller knows why */
		return err_set(err, ECANCELED, "build: no id map");
	/* Supplementary groups stay: files that are the user's only through one of them can still
	 * be read. */
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_errno(err, errno, "build: become root of the user namespace");
	return 0;
}

static pid_t start_init(struct keeper *k, struct err *err)
{
	int go[2];
	if (unshare(CLONE_NEWPID) < 0)
		return err_errno(err, errno, "build: new pid namespace%s",
				 k->user_ns ? "" : " (root without CAP_SYS_ADMIN cannot build)");
	if (pipe2(go, O_CLOEXEC) < 0)
		return err_errno(err, errno, "build: pipe");
	pid_t pid = fork();
	if (pid == 0) {
		close(go[1]);
		init_main(k, go[0]);
	}
	if (pid < 0)
		err_errno(err, errno, "build: fork");
	close(go[0]);
	if (pid > 0)
		(void)!write(go[1], "g", 1);
	close(go[1]);
	return pid;
}

/* Waits for init or for the end of the caller, whichever is first; nothing runs in the namespace
 * after. */
static void watch(struct keeper *k, pid_t init)
{
	int pidfd = (int)syscall(SYS_pidfd_open, init, 0), status = 0;
	struct pollfd p[2] = {{.fd = k->fd, .events = POLLRDHUP}, {.fd = pidfd, .events = POLLIN}};
	pid_t got = 0;
	while (got == 0) {
		/* Linux before 5.3 has no pidfd: look now and then. */
		poll(p, 2, pidfd < 0 ? 200 : -1);
		if (p[0].revents)
			kill(init, SIGKILL);
		got = waitpid(init, &status, p[0].revents ? 0 : WNOHANG);
		if (got < 0 && errno == EINTR)
			got = 0;
	}
	if (pidfd >= 0)
		close(pidfd);
	if (WIFSIGNALED(status)) {
		struct err e = ERR_INIT;
		err_set(&e, EINTR, "build: ended by signal %d%s", WTERMSIG(status),
			WTERMSIG(status) == SIGKILL ? " (out of memory?)" : "");
		say(k->fd, SAY_ERROR, &e);
	}
}

static void keeper_main(struct keeper *k)
{
	setsid(); /* Ctrl-C on the terminal is the caller's: its end is what tells us */
	prctl(PR_SET_NAME, "vse-keeper");
	for (int s = 1; s < 32; s++)
		if (s != SIGCHLD && s != SIGSEGV && s != SIGABRT && s != SIGBUS && s != SIGFPE &&
		    s != SIGILL)
			signal(s, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	close_others(k);
	struct err e = ERR_INIT;
	pid_t init = -1;
	bool made = mkdir(k->dir, 0700) == 0;
	if (!made)
		err_errno(&e, errno, "%s", k->dir);
	else if (map_me(k, &e) == 0)
		init = start_init(k, &e);
	if (init > 0)
		watch(k, init);
	else
		say(k->fd, SAY_ERROR, &e);
	say(k->fd, SAY_DONE, NULL);
	/* The caller publishes what fn made and then closes its end; or it has died. */
	char c;
	ssize_t n;
	while ((n = recv(k->fd, &c, 1, 0)) > 0 || (n < 0 && errno == EINTR))
		;
	if (made)
		path_remove(k->dir, NULL);
	_exit(0);
}

/* --- the caller's side --- */

static int take_messages(struct sandbox *s, image_progress_fn *progress, void *arg, char *result,
			 struct err *err)
{
	struct say m, last = {0};
	bool failed = false;
	struct err e = ERR_INIT;
	for (;;) {
		/* A step that is long in coming tells again where it stands, so that the time goes on. */
		struct pollfd p = {.fd = s->fd, .events = POLLIN};
		if (poll(&p, 1, TELL_MS) == 0) {
			if (last.step[0] && progress)
				progress(arg, last.step, last.done, last.total, last.err.text);
			continue;
		}
		ssize_t n = recv(s->fd, &m, sizeof(m), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != (ssize_t)sizeof(m))
			return failed ? err_copy(err, &e)
				      : err_set(err, ECHILD,
						"build: the process that runs it was killed");
		m.step[sizeof(m.step) - 1] = m.err.text[ERR_TEXT_MAX - 1] = '\0';
		if (m.kind == SAY_PROGRESS) {
			if (strcmp(m.step, "output") != 0)
				last = m;
			if (progress)
				progress(arg, m.step, m.done, m.total, m.err.text);
		}
		if (m.kind == SAY_RESULT)
			snprintf(result, SANDBOX_RESULT_MAX, "%.*s", SANDBOX_RESULT_MAX - 1, m.err.text);
		else if (m.kind == SAY_ERROR && !failed) {
			failed = true;
			e = m.err;
		} else if (m.kind == SAY_MAP) {
			bool mapped = subid_map(s->keeper, &e) == 0;
			failed = !mapped;
			(void)!send(s->fd, mapped ? "m" : "x", 1, MSG_NOSIGNAL);
		} else if (m.kind == SAY_DONE)
			return failed ? err_copy(err, &e) : 0;
	}
}

static int run_once(const char *dir, sandbox_fn *fn, void *arg, const int *keep, size_t n_keep,
		    image_progress_fn *progress, void *progress_arg, struct sandbox **ret,
		    char ret_result[SANDBOX_RESULT_MAX], struct err *err)
{
	int sp[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp) < 0)
		return err_errno(err, errno, "build: socket pair");
	struct keeper k = {.dir = dir,
			   .fn = fn,
			   .arg = arg,
			   .fd = sp[1],
			   .keep = keep,
			   .n_keep = n_keep,
			   .user_ns = geteuid() != 0};
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		close(sp[0]);
		keeper_main(&k);
	}
	close(sp[1]);
	if (pid < 0) {
		close(sp[0]);
		return err_errno(err, errno, "build: fork");
	}
	struct sandbox *s = xcalloc(1, sizeof(*s));
	*s = (struct sandbox){.fd = sp[0], .keeper = pid};
	ret_result[0] = '\0';
	if (take_messages(s, progress, progress_arg, ret_result, err) < 0) {
		sandbox_end(s);
		return -1;
	}
	*ret = s;
	return 0;
}

void sandbox_end(struct sandbox *s)
{
	if (!s)
		return;
	close(s->fd);
	while (waitpid(s->keeper, NULL, 0) < 0 && errno == EINTR)
		;
	free(s);
}

static int remove_fn(void *arg, struct sandbox_self *self, const char *dir, struct err *err)
{
	(void)self;
	(void)dir;
	return path_remove(arg, err);
}

int sandbox_remove(const char *path, struct err *err)
{
	if (path_remove(path, err) == 0)
		return 0;
	if (geteuid() == 0)
		return -1;
	_cleanup_free_ char *own = xasprintf("%s.rm", path), *copy = xstrdup(path);
	struct sandbox *s = NULL;
	char result[SANDBOX_RESULT_MAX];
	if (run_once(own, remove_fn, copy, NULL, 0, NULL, NULL, &s, result, err) < 0)
		return -1;
	sandbox_end(s);
	return 0;
}

int sandbox_run(const char *dir, sandbox_fn *fn, void *arg, const int *keep, size_t n_keep,
		image_progress_fn *progress, void *progress_arg, struct sandbox **ret,
		char ret_result[SANDBOX_RESULT_MAX], struct err *err)
{
	if (run_once(dir, fn, arg, keep, n_keep, progress, progress_arg, ret, ret_result, err) == 0)
		return 0;
	/* There is something left only if the keeper itself was killed. The kernel then ends what ran in the
	 * namespace, which may write into the folder until it has. */
	for (int i = 0; path_exists(dir) && i < REMOVE_TRIES; i++)
		if (sandbox_remove(dir, NULL) < 0)
			nanosleep(&(struct timespec){.tv_nsec = REMOVE_PAUSE_NS}, NULL);
	return -1;
}

int sandbox_check(struct err *err)
{
	return geteuid() == 0 ? 0 : subid_check(err);
}
