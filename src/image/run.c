/* SPDX-License-Identifier: Apache-2.0 */
#include "image/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"

#define LINE_BYTES 4096

void run_finish(struct run *r)
{
	strvec_finish(&r->argv);
	strvec_finish(&r->env);
}

char *run_find(const char *name)
{
	char *p = path_find_program(name);
	if (p || strchr(name, '/'))
		return p;
	/* An ordinary user's PATH often lacks these, and depmod lives there. */
	static const char *const dirs[] = {"/usr/sbin", "/sbin"};
	for (size_t i = 0; !p && i < ARRAY_SIZE(dirs); i++) {
		_cleanup_free_ char *full = path_join(dirs[i], name);
		p = path_find_program(full);
	}
	return p;
}

void run_status_text(int status, char out[40])
{
	if (WIFEXITED(status))
		snprintf(out, 40, "exit %d", WEXITSTATUS(status));
	else
		snprintf(out, 40, "killed by signal %d", WTERMSIG(status));
}

static bool same_name(const char *a, const char *b)
{
	size_t n = strcspn(a, "=");
	return strncmp(a, b, n + 1) == 0;
}

static void make_env(struct run *r, struct strvec *out)
{
	extern char **environ;
	for (char **e = environ; !r->clean_env && *e; e++) {
		bool over = false;
		for (size_t i = 0; i < r->env.n && !over; i++)
			over = same_name(*e, r->env.v[i]);
		if (!over)
			strvec_add(out, *e);
	}
	strvec_copy(out, &r->env);
}

/* In the child, between fork and exec. Gives the errno of what failed. */
static int child_setup(struct run *r, int in, int out, int err_fd)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err_fd, 2) < 0)
		return errno;
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int s = 1; s < 32; s++)
		signal(s, SIG_DFL);
	umask(r->mask ? r->mask : 022);
	if (r->root && (chroot(r->root) < 0 || chdir("/") < 0))
		return errno;
	if (r->cwd && chdir(r->cwd) < 0)
		return errno;
	return 0;
}

static int spawn(struct run *r, const char *prog, int out_fd, pid_t *ret, struct err *err)
{
	_cleanup_strvec_ struct strvec env = STRVEC_INIT;
	make_env(r, &env);
	char **argv = strvec_argv(&r->argv), **envp = strvec_argv(&env);
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int sync[2];
	if (null < 0 || pipe2(sync, O_CLOEXEC) < 0)
		return err_errno(err, errno, "start %s", argv[0]);
	pid_t pid = fork();
	if (pid == 0) {
		int code = child_setup(r, r->in ? r->in : null, r->out ? r->out : out_fd,
				       r->err_fd ? r->err_fd : out_fd);
		if (code == 0) {
			syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
			execve(prog, argv, envp);
			code = errno;
		}
		(void)!write(sync[1], &code, sizeof(code));
		_exit(127);
	}
	int code = pid < 0 ? errno : 0;
	close(sync[1]);
	if (pid > 0 && fd_read_full(sync[0], &code, sizeof(code)) == (ssize_t)sizeof(code))
		waitpid(pid, NULL, 0);
	close(sync[0]);
	if (code)
		return err_errno(err, code, "start %s", argv[0]);
	*ret = pid;
	return 0;
}

int run_start(struct run *r, pid_t *ret_pid, int *ret_fd, struct err *err)
{
	/* Inside a root of its own a program is found by the path given. */
	_cleanup_free_ char *prog = r->root ? xstrdup(r->argv.v[0]) : run_find(r->argv.v[0]);
	if (!prog)
		return err_set(err, ENOENT, "program %s: not found", r->argv.v[0]);
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "start %s", r->argv.v[0]);
	int code = spawn(r, prog, p[1], ret_pid, err);
	close(p[1]);
	if (code < 0)
		close(p[0]);
	else
		*ret_fd = p[0];
	return code;
}

static void keep(struct run *r, const char *data, size_t n)
{
	if (!r->capture)
		return;
	size_t max = r->capture_max ? r->capture_max : 65536;
	buf_add(r->capture, data, n);
	if (buf_len(r->capture) > max)
		buf_consume(r->capture, buf_len(r->capture) - max);
}

/* Gives whole lines to on_line; a line longer than LINE_BYTES comes in pieces. Carriage returns
 * (progress bars) end a line as well. */
static void give_lines(struct run *r, struct buf *b, bool end)
{
	while (buf_len(b)) {
		char *head = buf_head(b);
		size_t n = 0;
		while (n < buf_len(b) && n < LINE_BYTES && head[n] != '\n' && head[n] != '\r')
			n++;
		if (n == buf_len(b) && n < LINE_BYTES && !end)
			return;
		if (r->on_line && n) {
			_cleanup_free_ char *line = xmemdup0(head, n);
			r->on_line(r->arg, line);
		}
		buf_consume(b, n < buf_len(b) && n < LINE_BYTES ? n + 1 : n);
	}
}

/* True while there may be more. */
static bool take_output(struct run *r, int fd, struct buf *lines)
{
	char data[16384];
	ssize_t n = read(fd, data, sizeof(data));
	if (n < 0)
		return errno == EINTR;
	if (n == 0)
		return false;
	keep(r, data, (size_t)n);
	buf_add(lines, data, (size_t)n);
	give_lines(r, lines, false);
	return true;
}

int run_wait(struct run *r, pid_t pid, int fd, int *ret_status, struct err *err)
{
	_cleanup_buf_ struct buf lines = BUF_INIT;
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
	bool ended = false;
	while (p[0].fd >= 0 && !ended) {
		if (poll(p, pidfd < 0 ? 1 : 2, -1) < 0 && errno != EINTR)
			break;
		ended = pidfd >= 0 && (p[1].revents & POLLIN);
		if (p[0].revents && !take_output(r, fd, &lines))
			p[0].fd = -1;
	}
	/* It has ended; what it wrote is in the pipe. A daemon it left may hold the pipe open: do
	 * not wait for it. */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (p[0].fd >= 0 && take_output(r, fd, &lines))
		;
	give_lines(r, &lines, true);
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_errno(err, errno, "wait for %s", r->argv.v[0]);
	*ret_status = status;
	return 0;
}

int run(struct run *r, int *ret_status, struct err *err)
{
	pid_t pid;
	_cleanup_close_ int fd = -1;
	if (run_start(r, &pid, &fd, err) < 0)
		return -1;
	return run_wait(r, pid, fd, ret_status, err);
}

/* The last line that is not blank; changes the text. */
static const char *last_line(char *text)
{
	char *end = text + strlen(text);
	while (end > text && (end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\r'))
		*--end = '\0';
	char *nl = strrchr(text, '\n');
	return nl ? nl + 1 : text;
}

int run_ok(struct run *r, struct err *err)
{
	_cleanup_buf_ struct buf own = BUF_INIT;
	if (!r->capture)
		r->capture = &own;
	int status = 0;
	int code = run(r, &status, err);
	_cleanup_free_ char *text = xstrdup(buf_cstr(r->capture));
	if (r->capture == &own)
		r->capture = NULL;
	if (code < 0 || status == 0)
		return code;
	char how[40];
	run_status_text(status, how);
	const char *line = last_line(text);
	return err_set(err, EIO, "%s: %s", r->argv.v[0], *line ? line : how);
}
