/* SPDX-License-Identifier: Apache-2.0 */
/* The root image of containers becomes a folder, in a user namespace with the container's ids and
 * without a network, so that the files get their owners and what reads the image can do no harm. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/size.h"
#include "guest/contain.h"
#include "wire/container.h"

#define KEEP_S (7 * 86400) /* a root that nobody used for so long makes room */
#define LOOK_NS 20000000

static int complain(const char *what)
{
	fprintf(stderr, "vse-guest: %s: %s\n", what, strerror(errno));
	return 1;
}

/* Together with others on the lock of a tree that is there, else alone. Waited for by looking: who sleeps for a lock of his
 * own sleeps on when the tree has come, for as long as the container that was faster to hold it runs. */
static int wait_lock(int fd, const char *whole)
{
	for (;;) {
		bool there = path_exists(whole);
		if (flock(fd, (there ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) {
			if (!there || path_exists(whole))
				return 0;
			flock(fd, LOCK_UN);
		} else if (errno != EWOULDBLOCK && errno != EINTR) {
			return -1;
		}
		nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
	}
}

static int lock(const char *path, const char *whole)
{
	struct stat a, b;
	for (;;) {
		_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0 || wait_lock(fd, whole) < 0)
			return -1;
		/* Swept between the two calls: only a lock on the file that is there now counts. */
		if (fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino)
			return TAKE_FD(fd);
	}
}

static int run_unsquashfs(const char *to)
{
	char image[40];
	int status;
	snprintf(image, sizeof(image), "/proc/self/fd/%d", UNPACK_FD_IMAGE);
	pid_t pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (null >= 0)
			dup2(null, 1);
		execlp("unsquashfs", "unsquashfs", "-n", "-no-xattrs", "-d", to, image, (char *)NULL);
		_exit(complain("unsquashfs"));
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return complain("unsquashfs");
	/* 2: all but what only the node's root may make, device nodes (unsquashfs(1)); a VM's /dev is none of these. */
	if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2))
		return 0;
	fprintf(stderr, "vse-guest: unsquashfs did not unpack the root image (status %#x)\n",
		(unsigned)status);
	return 1;
}

static bool is_root(const char *dir)
{
	_cleanup_free_ char *bin = path_join(dir, "bin"), *usr = path_join(dir, "usr");
	struct stat st;
	return lstat(bin, &st) == 0 || lstat(usr, &st) == 0;
}

static int unpack(const char *whole)
{
	_cleanup_free_ char *part = xasprintf("%s.new", whole), *root = path_join(part, "root");
	struct err err = ERR_INIT;
	if (path_exists(whole))
		return 0; /* another did it while we waited for the lock */
	if (path_remove(part, &err) < 0) {
		fprintf(stderr, "vse-guest: %s\n", err.text);
		return 1;
	}
	if (mkdir(part, 0700) < 0)
		return complain(part);
	if (run_unsquashfs(root) != 0 || !is_root(root)) {
		fprintf(stderr, "vse-guest: the root image holds no root file system\n");
		path_remove(part, NULL);
		return 1;
	}
	return rename(part, whole) < 0 ? complain(whole) : 0;
}

/* A tree is whole while it has its name: who is killed at this leaves the other name, which means nothing. Something that
 * cannot be removed keeps its lock, so that the next one tries again. */
static void remove_tree(const char *whole, const char *name)
{
	_cleanup_free_ char *part = xasprintf("%s.new", whole);
	if (path_remove(part, NULL) == 0 && (rename(whole, part) == 0 || errno == ENOENT) &&
	    path_remove(part, NULL) == 0)
		unlink(name);
}

/* HOST-BOOT-...: what a former boot of this node unpacked is never used again. */
static bool former_boot(const char *name, const char *key)
{
	size_t host = strcspn(key, "-"), boot = host + 1;
	if (!key[host])
		return false;
	boot += strcspn(key + boot, "-") + 1;
	return strncmp(name, key, host + 1) == 0 && strncmp(name, key, boot) != 0;
}

/* KEY.lock is touched by every use; a container holds it for as long as it runs. */
static void sweep(const char *dir, const char *key)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	struct stat st;
	while (d && (e = readdir(d))) {
		const char *dot = strrchr(e->d_name, '.');
		if (!dot || strcmp(dot, ".lock") != 0 || fstatat(dirfd(d), e->d_name, &st, 0) < 0 ||
		    (st.st_mtime > time(NULL) - KEEP_S && !former_boot(e->d_name, key)))
			continue;
		_cleanup_close_ int fd = openat(dirfd(d), e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		_cleanup_free_ char *root = xasprintf("%s/%.*s", dir, (int)(dot - e->d_name), e->d_name),
				    *name = path_join(dir, e->d_name);
		remove_tree(root, name);
	}
	if (d)
		closedir(d);
}

int unpack_main(const char *dir, const char *key)
{
	_cleanup_free_ char *whole = path_join(dir, key), *name = xasprintf("%s.lock", whole);
	umask(022);
	_cleanup_close_ int held = lock(name, whole);
	if (held < 0)
		return complain(name);
	futimens(held, NULL); /* used now: nobody else takes it for one to be swept, while it changes its kind below */
	int rc = unpack(whole);
	if (rc == 0) {
		flock(held, LOCK_SH); /* sweeping may take long, and others want to hold the tree */
		sweep(dir, key);
	}
	return rc;
}
