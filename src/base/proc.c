/* SPDX-License-Identifier: Apache-2.0 */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/path.h"

void proc_fill_stdio(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
			return;
}

struct stat_fields {
	char state;
	uint64_t utime, stime, start, rss_pages;
	int exit_status;
};

/* proc(5): "pid (comm) state ppid ... utime(14) stime(15) ... starttime(22) vsize(23) rss(24) ... exit_code(52)". The
 * comm may hold spaces and brackets, so fields are counted from the last ')'. */
static int read_stat(pid_t pid, struct stat_fields *ret, struct err *err)
{
	char name[40];
	_cleanup_free_ char *text = NULL;
	snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
	if (pid <= 0 || path_read(name, 65536, &text, NULL, NULL) < 0)
		return err_set(err, ESRCH, "no process %d", (int)pid);
	const char *p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
			 " %*d %*d %*d %*d %*d %*d %" SCNu64 " %*u %" SCNu64,
			 &ret->state, &ret->utime, &ret->stime, &ret->start, &ret->rss_pages) != 5)
		return err_set(err, ESRCH, "no process %d", (int)pid);
	const char *last = strrchr(p, ' '); /* Linux adds no fields after it since 3.5 */
	ret->exit_status = last ? atoi(last) : -1;
	return 0;
}

void proc_close_fds(unsigned first, unsigned last)
{
	struct rlimit rl;
	if (syscall(SYS_close_range, first, last, 0u) == 0)
		return;
	unsigned max = getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < 65536 ? (unsigned)rl.rlim_cur
										 : 65536;
	for (unsigned fd = first; fd <= last && fd < max; fd++)
		close((int)fd);
}

int proc_start_time(pid_t pid, uint64_t *ret, struct err *err)
{
	struct stat_fields f;
	if (read_stat(pid, &f, err) < 0)
		return -1;
	*ret = f.start;
	return 0;
}

bool proc_alive(pid_t pid, uint64_t start)
{
	struct stat_fields f;
	return read_stat(pid, &f, NULL) == 0 && f.start == start && f.state != 'Z' && f.state != 'X';
}

int proc_exit_status(pid_t pid, uint64_t start, int *ret, struct err *err)
{
	struct stat_fields f;
	if (read_stat(pid, &f, err) < 0)
		return -1;
	if (f.start != start || f.state != 'Z')
		return err_set(err, ESRCH, "process %d has not ended", (int)pid);
	*ret = f.exit_status;
	return 0;
}

void proc_signal(pid_t pid, uint64_t start, int signo)
{
	if (pid <= 1)
		return;
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	/* Once the pidfd is held, a matching start time proves that it is the process meant. */
	if (!proc_alive(pid, start))
		return;
	if (fd >= 0)
		syscall(SYS_pidfd_send_signal, fd, signo, NULL, 0);
	else if (errno == ENOSYS || errno == EPERM)
		kill(pid, signo); /* Linux before 5.3: the window for reuse is the best there is */
}

void proc_kill(pid_t pid, uint64_t start)
{
	proc_signal(pid, start, SIGKILL);
}

bool proc_capable(unsigned cap)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
	return cap < 64 && syscall(SYS_capget, &head, data) == 0 &&
	       data[cap / 32].effective & 1u << cap % 32;
}

int proc_usage(pid_t pid, uint64_t *ret_rss, uint64_t *ret_cpu_ms, struct err *err)
{
	struct stat_fields f;
	if (read_stat(pid, &f, err) < 0)
		return -1;
	if (ret_rss)
		*ret_rss = f.rss_pages * (uint64_t)sysconf(_SC_PAGESIZE);
	if (ret_cpu_ms)
		*ret_cpu_ms = (f.utime + f.stime) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
	return 0;
}
