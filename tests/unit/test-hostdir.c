/* SPDX-License-Identifier: Apache-2.0 */
/* Which directories of a node a VM may see, and what a process that serves them cannot do. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/files.h"
#include "io/child_filter.h"
#include "tap.h"

static const char info[] = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
			   "23 22 0:5 / /proc rw,nosuid - proc proc rw\n"
			   "24 22 0:6 / /dev rw shared:2 master:1 - devtmpfs udev rw\n"
			   "25 22 8:2 / /scratch rw - xfs /dev/sdb1 rw\n"
			   "26 25 0:7 / /scratch/jail/proc rw - proc proc rw\n"
			   "27 25 0:8 / /scratch/me rw - nfs server:/me rw\n"
			   "28 22 0:9 / /sys rw - sysfs sysfs rw\n"
			   "29 28 0:10 / /sys/data rw - tmpfs tmpfs rw\n"
			   "30 22 0:11 / /twice rw - proc proc rw\n"
			   "31 22 0:12 / /twice rw - tmpfs tmpfs rw\n"
			   "32 22 0:13 / /again rw - tmpfs tmpfs rw\n"
			   "33 22 0:14 / /again rw - sysfs sysfs rw\n"
			   "nonsense - proc\n - \n\n34 22 0:15 / - proc";

static void judged(const char *dir, const char *say)
{
	_cleanup_free_ char *copy = xstrdup(info);
	struct err e = ERR_INIT;
	int rc = hostdir_judge(copy, dir, &e);
	if (!say)
		is_int(rc, 0, "%s may be seen %s", dir, e.text);
	else
		ok(rc < 0 && e.code == EPERM && strstr(e.text, say), "%s may not: %s", dir, e.text);
}

static void test_judge(void)
{
	judged("/home/me", NULL);
	judged("/scratch/me", NULL);
	judged("/scratch/me/deep", NULL);
	judged("/scratch/jailed", NULL);
	judged("/procession", NULL);
	judged("/sys/data/x", NULL); /* a file system of its own there */
	judged("/twice/x", NULL);    /* what was mounted last is what is seen */
	judged("/proc", "it is the kernel's (proc)");
	judged("/proc/self", "it is the kernel's (proc)");
	judged("/dev", "it is the kernel's (devtmpfs)");
	judged("/sys/class", "it is the kernel's (sysfs)");
	judged("/again/x", "it is the kernel's (sysfs)");
	judged("/scratch", "/scratch/jail/proc is in it");
	judged("/scratch/jail", "/scratch/jail/proc is in it");
}

/* ---- the filter ---- */

static const char *dir;

static int made(const char *name, int flags, mode_t mode)
{
	_cleanup_free_ char *path = path_join(dir, name);
	_cleanup_close_ int fd = open(path, flags, mode);
	return fd < 0 ? errno : 0;
}

static int moded(const char *name, mode_t mode)
{
	_cleanup_free_ char *path = path_join(dir, name);
	return chmod(path, mode) < 0 ? errno : 0;
}

static unsigned mode_of(const char *name)
{
	_cleanup_free_ char *path = path_join(dir, name);
	struct stat st;
	return stat(path, &st) < 0 ? 0 : st.st_mode & 07777;
}

/* In the process that has the filter: the number of the first check that does not hold; 0: all do. */
static int filtered(void)
{
	int line = 0;
#define MUST(x)                                                                                    \
	do {                                                                                       \
		line++;                                                                            \
		if (!(x))                                                                          \
			return line;                                                               \
	} while (0)
	MUST(child_filter_set_id() == 0);
	MUST(made("file", O_WRONLY | O_CREAT, 0666) == 0 && mode_of("file") == 0666);
	MUST(made("suid", O_WRONLY | O_CREAT, 04755) == EPERM);
	MUST(made("sgid", O_WRONLY | O_CREAT, 02755) == EPERM);
	MUST(made("", O_RDWR | O_TMPFILE, 04755) == EPERM);
	MUST(made("file", O_RDONLY, 04755) == 0); /* no mode where nothing is made */
	MUST(made("", O_RDONLY | O_DIRECTORY, 04755) == 0);
	MUST(moded("file", 04755) == EPERM && moded("file", 06700) == EPERM);
	MUST(mode_of("file") == 0666);
	MUST(moded("file", 02755) == 0 && mode_of("file") == 0666); /* in silence */
	MUST(moded("file", 0750) == 0 && mode_of("file") == 0750);
	MUST(moded("file", 02770) == 0 && mode_of("file") == 02770); /* for those who are of the group anyway */
	_cleanup_free_ char *path = path_join(dir, "node"), *file = path_join(dir, "file"),
			    *below = path_join(dir, "below");
	_cleanup_close_ int fd = open(file, O_RDWR);
	MUST(fchmod(fd, 04700) < 0 && errno == EPERM);
	MUST(fchmodat(AT_FDCWD, file, 04700, 0) < 0 && errno == EPERM);
	MUST(mkdir(below, 02777) == 0 && (mode_of("below") & 01777) == 0777); /* umask 0 */
	MUST(mknod(path, S_IFCHR | 0600, makedev(1, 3)) < 0 && errno == EPERM);
	MUST(mknod(path, S_IFBLK | 0600, makedev(8, 0)) < 0 && errno == EPERM);
	MUST(mknod(path, S_IFREG | 04755, 0) < 0 && errno == EPERM);
	MUST(mknod(path, S_IFIFO | 0600, 0) == 0);
	return 0;
}

static void test_filter(void)
{
	char folder[] = "/tmp/vse-test-hostdir.XXXXXX";
	int status = -1;
	dir = mkdtemp(folder);
	if (!ok(dir, "a folder"))
		return;
	pid_t pid = fork();
	if (pid == 0)
		_exit(filtered());
	ok(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status),
	   "a process with the filter");
	is_int(WEXITSTATUS(status), 0, "the first check that does not hold");
	path_remove(dir, NULL);
}

int main(void)
{
	test_judge();
	test_filter();
	return done();
}
