/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>

#include "base/alloc.h"
#include "base/path.h"

#define TTY_GROUP 5 /* Debian's and the LSB's gid of "tty" */
#define OPEN_FILES                                                                                 \
	1024 /* soft limit of a program: select(2) works up to here; the hard limit is far higher */

extern char **environ;

void spawn_finish(struct spawn *s)
{
	strvec_finish(&s->argv);
	strvec_finish(&s->env);
	free(TAKE_PTR(s->cwd));
}

void spawn_env(struct strvec *env, const char *assignment)
{
	size_t n = strcspn(assignment, "=");
	for (size_t i = 0; i < env->n; i++)
		if (strncmp(env->v[i], assignment, n) == 0 && env->v[i][n] == '=') {
			free(env->v[i]);
			env->v[i] = xstrdup(assignment);
			return;
		}
	strvec_add(env, assignment);
}

void spawn_reset_signals(void)
{
	sigset_t none;
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void limit_files(void)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur > OPEN_FILES) {
		r.rlim_cur = OPEN_FILES;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static _Noreturn void give_up(const char *what, int code)
{
	dprintf(2, "vse: %s: %s\n", what, code == ENOENT ? "not found" : strerror(code));
	_exit(code == ENOENT || code == ENOTDIR ? 127 : 126);
}

static void change_folder(const struct spawn *s)
{
	if (s->cwd) {
		if (chdir(s->cwd) < 0) {
			dprintf(2, "vse: %s: %s\n", s->cwd, strerror(errno));
			_exit(126);
		}
	} else if (chdir(s->user.home) < 0 && chdir("/") < 0) {
		give_up("/", errno);
	}
}

static _Noreturn void run(struct spawn *s)
{
	umask(022);
	limit_files();
	if (s->forget_oom) {
		_cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
		if (fd >= 0)
			fd_write_all(fd, "0", 1);
	}
	if (user_become(&s->user) < 0) {
		dprintf(2, "vse: become %s: %s\n", s->user.name, strerror(errno));
		_exit(126);
	}
	change_folder(s);
	char **argv = strvec_argv(&s->argv);
	environ = strvec_argv(&s->env);
	execvp(argv[0], argv);
	if (errno == ENOEXEC && strchr(argv[0], '/')) {
		/* A script without "#!": shells run it themselves. */
		struct strvec sh = STRVEC_INIT;
		strvec_add(&sh, "/bin/sh");
		strvec_copy(&sh, &s->argv);
		execv("/bin/sh", strvec_argv(&sh));
	}
	give_up(argv[0], errno);
}

struct ends {
	int ours[3], theirs[3];
};

static void close_all(int fd[3])
{
	for (int i = 0; i < 3; i++)
		if (fd[i] >= 0)
			close(TAKE_FD(fd[i]));
}

static int make_pipes(struct ends *e, bool in)
{
	for (int i = 0; i < 3; i++) {
		int p[2];
		if (i == 0 && !in) {
			if ((e->theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
				return -1;
			continue;
		}
		if (pipe2(p, O_CLOEXEC) < 0)
			return -1;
		e->theirs[i] = p[i != 0];
		e->ours[i] = p[i == 0];
		fcntl(e->ours[i], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

/* The slave is opened through the master: no path, so it works before and without /dev/pts in a chroot. */
static int make_terminal(struct ends *e, const struct spawn *s)
{
	int zero = 0;
	struct winsize size = {.ws_row = (unsigned short)s->rows, .ws_col = (unsigned short)s->cols};
	e->ours[1] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (e->ours[1] < 0 || ioctl(e->ours[1], TIOCSPTLCK, &zero) < 0)
		return -1;
	e->theirs[0] = ioctl(e->ours[1], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (e->theirs[0] < 0)
		return -1;
	if (s->rows && s->cols)
		ioctl(e->ours[1], TIOCSWINSZ, &size);
	if (fchown(e->theirs[0], s->user.uid, TTY_GROUP) == 0)
		fchmod(e->theirs[0], 0620);
	return 0;
}

/* Whatever descriptors we were started with are not the program's. close_range(2) is in Linux 5.9; all of
 * our own are close-on-exec anyway. */
static void close_others(void)
{
#ifdef SYS_close_range
	syscall(SYS_close_range, 3u, ~0u, 0u);
#endif
}

static _Noreturn void child(struct spawn *s, struct ends *e, int begun)
{
	spawn_reset_signals();
	setsid();
	if (s->tty)
		ioctl(e->theirs[0], TIOCSCTTY, 0);
	close(begun);
	for (int i = 0; i < 3; i++)
		if (dup2(s->tty ? e->theirs[0] : e->theirs[i], i) < 0)
			_exit(126);
	close_others();
	run(s);
}

/* A signal to the process group must not come before there is one: waits for the child's setsid(). */
static pid_t fork_child(struct spawn *s, struct ends *e)
{
	int begun[2];
	char c;
	if (pipe2(begun, O_CLOEXEC) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0)
		child(s, e, begun[1]);
	int code = errno;
	close(begun[1]);
	while (pid > 0 && read(begun[0], &c, 1) < 0 && errno == EINTR)
		;
	close(begun[0]);
	errno = code;
	return pid;
}

int spawn_start(struct spawn *s, pid_t *ret_pid, int ret_fd[3], struct err *err)
{
	struct ends e = {{-1, -1, -1}, {-1, -1, -1}};
	int code = s->tty ? make_terminal(&e, s) : make_pipes(&e, s->in);
	pid_t pid = code < 0 ? -1 : fork_child(s, &e);
	if (pid < 0) {
		code = errno;
		close_all(e.ours);
		close_all(e.theirs);
		return err_errno(err, code, "start %s", s->argv.v[0]);
	}
	close_all(e.theirs);
	memcpy(ret_fd, e.ours, sizeof(e.ours));
	*ret_pid = pid;
	return 0;
}
