/* SPDX-License-Identifier: Apache-2.0 */
/* agent -> (a moment's process) -> shadow -> keeper. The shadow is nobody's child for long, so that the agent's end is not
 * its own, and it leaves the agent's session and process group. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "hypervisor/palacios.h"
#include "io/child.h"

enum { FD_CONTROL = 3, FD_CLEANED, FD_CLEANED_READ, FD_FROM, FDS_END };

char *palacios_keeper_socket(const char *dir)
{
	return path_join(dir, "keeper");
}

/* ---- how a kept VM ended while no agent was there ---- */

static char *ended_path(const char *dir)
{
	return path_join(dir, "ended");
}

void palacios_ended_write(const char *dir, enum hv_state state, const char *reason)
{
	_cleanup_free_ char *path = ended_path(dir),
			    *text = xasprintf("%d %s\n", state == HV_SHUTDOWN, reason);
	path_write(path, text, strlen(text), 0600, NULL);
}

bool palacios_ended_read(const char *dir, enum hv_state *ret_state, char *reason, size_t size)
{
	_cleanup_free_ char *path = ended_path(dir), *text = NULL;
	if (path_read(path, 4096, &text, NULL, NULL) < 0 || strlen(text) < 3)
		return false;
	*ret_state = text[0] == '1' ? HV_SHUTDOWN : HV_CRASHED;
	snprintf(reason, size, "%.*s", (int)strcspn(text + 2, "\n"), text + 2);
	return true;
}

/* ---- the processes ---- */

/* Only these stay open, under their numbers; the agent's locks and sockets are none of ours. */
static int place_fds(const int fds[FDS_END])
{
	int at[FDS_END], null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < FDS_END; i++) {
		int from = i < FD_CONTROL ? null : fds[i];
		at[i] = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, 64);
		if (from >= 0 && at[i] < 0)
			return -1;
	}
	for (int i = 0; i < FDS_END; i++) {
		if (at[i] < 0)
			close(i);
		else if (dup3(at[i], i, i < FD_CONTROL ? 0 : O_CLOEXEC) < 0)
			return -1;
	}
	proc_close_fds(FDS_END, UINT_MAX);
	return 0;
}

static volatile sig_atomic_t keeper_pid;

static void on_term(int signo _unused_)
{
	if (keeper_pid > 0)
		kill((pid_t)keeper_pid, SIGKILL);
}

/* The VM is a kept one: it lives as long as the process that looks after this session's orphans (init at the latest). */
static void die_with_subreaper(pid_t first)
{
	while (getppid() == first)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	signal(SIGTERM, on_term);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static void clean(const char *name, const struct hv_spec *spec, int status)
{
	const char *dir = spec->dir;
	struct err e = ERR_INIT;
	char how[40];
	int lock;
	if (palacios_lock(&lock, &e) == 0) {
		palacios_remove(name, &e);
		close(lock);
	}
	palacios_boot_remove(dir);
	_cleanup_free_ char *save = path_join(dir, "save"), *load = path_join(dir, "load"),
			    *socket = palacios_keeper_socket(dir);
	path_remove(save, NULL);
	path_remove(load, NULL);
	_cleanup_free_ char *text = e.code ? xasprintf("%s, and its VM could not be removed: %s",
						       child_status_text(status, how), e.text)
					   : xstrdup(child_status_text(status, how));
	/* No agent: whoever adopts the VM will ask how it ended. */
	if ((status != 0 || e.code) && fd_write_all(FD_CLEANED, text, strlen(text)) < 0 && spec->keep) {
		_cleanup_free_ char *reason = xasprintf("the VM's keeper ended: %s", text);
		palacios_ended_write(spec->dir, HV_CRASHED, reason);
	}
	unlink(socket);
}

static _Noreturn void shadow(const struct hv_spec *spec, const int fds[FDS_END], pid_t first)
{
	char name[PALACIOS_NAME_MAX + 1];
	sigset_t none;
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	for (size_t i = 0; i < 4; i++)
		signal((const int[]){SIGHUP, SIGINT, SIGTERM, SIGPIPE}[i], SIG_IGN);
	setsid();
	prctl(PR_SET_NAME, "vse-v3-shadow");
	if (place_fds(fds) < 0 || chdir("/") < 0)
		_exit(1);
	if (spec->keep)
		die_with_subreaper(first);
	pid_t parent = getpid(), pid = fork();
	if (pid < 0)
		_exit(1);
	if (pid == 0)
		palacios_keep(spec, FD_CONTROL, fds[FD_FROM] < 0 ? -1 : FD_FROM, FD_CLEANED_READ,
			      parent);
	keeper_pid = pid;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	palacios_name_of(pid, spec->name, name);
	close(FD_CONTROL);
	close(FD_CLEANED_READ);
	close(FD_FROM);
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	keeper_pid = 0;
	clean(name, spec, status);
	_exit(0);
}

/* The signal mask is the caller's duty: between fork and shadow() no handler of the agent may run. */
static int fork_twice(const struct hv_spec *spec, const int fds[FDS_END], struct err *err)
{
	sigset_t all, old;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid_t pid = fork();
	int code = errno, status = 0;
	if (pid == 0) {
		pid_t first = getpid(), second = fork();
		if (second == 0)
			shadow(spec, fds, first);
		_exit(second < 0);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (pid < 0)
		return err_errno(err, code, "fork");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status == 0 ? 0 : err_set(err, EAGAIN, "no process can be started");
}

/* The keeper's first word, which it says before anything else. */
static int first_word(struct palacios_keeper *k, struct err *err)
{
	struct palacios_message m;
	int fd = -1;
	fcntl(k->control, F_SETFL, fcntl(k->control, F_GETFL) & ~O_NONBLOCK);
	char c;
	if (recv(k->control, &c, 1, MSG_PEEK) <= 0 ||
	    palacios_message_read(k->control, &m, &fd) != 1 || m.kind != PALACIOS_HELLO)
		return err_set(err, EIO, "the keeper did not start");
	if (fd >= 0)
		close(fd); /* ours already */
	k->pid = m.pid;
	proc_start_time(k->pid, &k->start, NULL);
	return 0;
}

int palacios_keeper_start(const struct hv_spec *spec, struct palacios_keeper *ret, struct err *err)
{
	int pair[2], cleaned[2], fds[FDS_END] = {-1, -1, -1, -1, -1, -1, -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, errno, "socketpair");
	if (pipe2(cleaned, O_CLOEXEC | O_NONBLOCK) < 0) {
		close(pair[0]);
		close(pair[1]);
		return err_errno(err, errno, "pipe");
	}
	fds[FD_CONTROL] = pair[1];
	fds[FD_CLEANED] = cleaned[1];
	fds[FD_CLEANED_READ] = cleaned[0];
	fds[FD_FROM] = spec->from == HV_FROM_BOOT ? -1 : spec->from_fd;
	struct palacios_keeper k = {.control = pair[0], .cleaned = cleaned[0]};
	int rc = fork_twice(spec, fds, err);
	close(pair[1]);
	close(cleaned[1]);
	if (rc < 0 || first_word(&k, err) < 0) {
		close(k.control);
		close(k.cleaned);
		return -1;
	}
	*ret = k;
	return 0;
}
