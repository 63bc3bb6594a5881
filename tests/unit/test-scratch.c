/* SPDX-License-Identifier: Apache-2.0 */
/* A scratch disk whose maker is gone is found again in the process that has it open. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/path.h"
#include "tap.h"
#include "vm/scratch.h"

#define SIZE 65536

/* Stands for a VMM: opens the file by itself, as a VMM does, and waits to be killed. */
static pid_t hold_open(int fd)
{
	int p[2];
	char path[64], c;
	if (pipe(p) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
	pid_t pid = fork();
	if (pid == 0) {
		int own = open(path, O_RDWR);
		close(fd);
		if (own < 0 || pwrite(own, "kept", 4, 4096) != 4 || write(p[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(p[1]);
	bool good = read(p[0], &c, 1) == 1;
	close(p[0]);
	return good ? pid : -1;
}

static void test_adopt(const char *dir, const char *other)
{
	struct err err = ERR_INIT;
	struct stat st;
	char text[5] = "";
	struct scratch *s = scratch_empty(dir, SIZE, &err);
	if (!ok(s, "a disk: %s", err.text))
		return;
	ok(!scratch_adopt(dir, getpid(), &err) && err.code == ENOENT, "none was noted");
	scratch_note(s, dir);
	pid_t pid = hold_open(scratch_fd(s));
	ok(pid > 0, "another process has it open");
	struct scratch *strange = scratch_empty(other, SIZE, NULL);
	scratch_note(strange, other);
	scratch_destroy(s);
	err = (struct err)ERR_INIT;
	s = scratch_adopt(dir, pid, &err);
	if (ok(s, "it is found there, when its maker has closed it: %s", err.text)) {
		ok(pread(scratch_fd(s), text, 4, 4096) == 4, "it can be read");
		is_str(text, "kept", "and has what was written to it");
		ok(pwrite(scratch_fd(s), "more", 4, 0) == 4, "it can be written");
		ok(fstat(scratch_fd(s), &st) == 0 && st.st_nlink == 0 && st.st_size == SIZE,
		   "it has no name, and its size");
	}
	scratch_destroy(s);
	err = (struct err)ERR_INIT;
	ok(!scratch_adopt(other, pid, &err) && err.code == ENOENT, "another disk is not there: %s",
	   err.text);
	scratch_destroy(strange);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ok(!scratch_adopt(dir, pid, &err), "nothing is, once that process has ended");
}

int main(void)
{
	char a[] = "/tmp/vse-unit-XXXXXX", b[] = "/tmp/vse-unit-XXXXXX";
	if (ok(mkdtemp(a) && mkdtemp(b), "two folders"))
		test_adopt(a, b);
	path_remove(a, NULL);
	path_remove(b, NULL);
	return done();
}
