/* SPDX-License-Identifier: Apache-2.0 */
/* Stands between the agent and bwrap. A bwrap that is killed in the moment before its process 1 was let go leaves that one
 * waiting for ever: only what knows both can end both, and it must not be killed by what kills the agent. So this is told by
 * the end of a pipe that the agent is gone, or wants an end, and kills bwrap's whole process group. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/path.h"
#include "base/size.h"
#include "guest/contain.h"
#include "guest/spawn.h"
#include "wire/container.h"

static int complain(const char *what)
{
	fprintf(stderr, "vse-guest: %s: %s\n", what, strerror(errno));
	return 1;
}

/* The image in place of fd UNPACK_FD_IMAGE when only root may read it: a copy without a name. */
static int copy_image(const char *dir)
{
	struct stat st;
	char block[65536];
	ssize_t n;
	if (strcmp(dir, "-") == 0 || fstat(UNPACK_FD_IMAGE, &st) < 0 || (st.st_mode & S_IROTH))
		return 0;
	_cleanup_close_ int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0444);
	if (fd < 0)
		return -1;
	while ((n = read(UNPACK_FD_IMAGE, block, sizeof(block))) > 0)
		if (fd_write_all(fd, block, (size_t)n) < 0)
			return -1;
	return n < 0 || fchmod(fd, 0444) < 0 || dup2(fd, UNPACK_FD_IMAGE) < 0 ? -1 : 0;
}

static int become(const char *uid_text, const char *gid_text, const char *dir)
{
	int64_t uid, gid;
	struct err err = ERR_INIT;
	if (int_parse(uid_text, 0, UINT32_MAX - 1, &uid, &err) < 0 ||
	    int_parse(gid_text, 0, UINT32_MAX - 1, &gid, &err) < 0) {
		errno = EINVAL;
		return -1;
	}
	if (!uid) /* stays who it is */
		return 0;
	if (copy_image(dir) < 0 || setgroups(0, NULL) < 0 ||
	    setresgid((gid_t)gid, (gid_t)gid, (gid_t)gid) < 0)
		return -1;
	return setresuid((uid_t)uid, (uid_t)uid, (uid_t)uid);
}

static pid_t start(char **argv)
{
	pid_t self = getpid(), pid = fork();
	if (pid != 0) {
		if (pid > 0)
			setpgid(pid, pid); /* whoever is first */
		return pid;
	}
	spawn_reset_signals();
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == self)
		execvp(argv[0], argv);
	_exit(complain(argv[0]));
}

/* Ends as it did, so that the agent hears what it would have heard from bwrap. */
static _Noreturn void end_like(int status)
{
	if (!WIFSIGNALED(status))
		_exit(WEXITSTATUS(status));
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	spawn_reset_signals();
	kill(getpid(), WTERMSIG(status));
	_exit(128 + WTERMSIG(status));
}

static void end_when_over(pid_t pid)
{
	siginfo_t info = {0};
	int status = 0;
	/* Not reaped yet: the number is still that of the group. */
	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
		return;
	kill(-pid, SIGKILL);
	waitpid(pid, &status, 0);
	end_like(status);
}

int guard_main(char **argv)
{
	sigset_t set;
	if (become(argv[0], argv[1], argv[2]) < 0)
		return complain("give up root");
	fcntl(CONTAINER_FD_LIFE, F_SETFD, FD_CLOEXEC);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int child = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	pid_t pid = start(argv + 3);
	if (child < 0 || pid < 0)
		return complain("start bwrap");
	for (int fd = 3; fd < CONTAINER_FD_LIFE; fd++) /* their ends are to be seen */
		close(fd);
	prctl(PR_SET_NAME, "vse-guard");
	struct pollfd p[2] = {{.fd = CONTAINER_FD_LIFE, .events = POLLIN},
			      {.fd = child, .events = POLLIN}};
	for (;;) {
		struct signalfd_siginfo s;
		end_when_over(pid);
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents) {
			kill(-pid, SIGKILL);
			p[0].fd = -1;
		}
		while (read(child, &s, sizeof(s)) == sizeof(s))
			;
	}
	kill(-pid, SIGKILL);
	return 1;
}
