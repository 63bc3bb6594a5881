/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/size.h"
#include "base/strvec.h"
#include "io/child.h"
#include "vm/packer.h"
#include "vm/saved.h"

#define NOTE "scratch" /* "DEVICE INODE" of the file */

struct scratch {
	int fd;
	struct child *mkfs;
	struct packer *unpacker; /* instead */
	void (*done)(void *arg, int fd, const struct err *err);
	void *arg;
};

static void on_mkfs(void *arg, int status)
{
	struct scratch *s = arg;
	struct err err = ERR_INIT;
	char text[40];
	if (status != 0)
		err_set(&err, EIO, "scratch disk: mke2fs: %s", child_status_text(status, text));
	s->done(s->arg, status == 0 ? s->fd : -1, &err);
}

/* The name exists between these two calls only where the file system has no O_TMPFILE. */
static int nameless(const char *dir, int *ret_fd, struct err *err)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
		_cleanup_free_ char *path = xasprintf("%s/vse-scratch-XXXXXX", dir);
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
	}
	if (fd < 0)
		return err_errno(err, errno, "scratch disk in %s", dir);
	*ret_fd = fd;
	return 0;
}

static int enough_room(const char *dir, uint64_t size, struct err *err)
{
	struct statvfs v;
	char want[24], have[24];
	if (statvfs(dir, &v) < 0)
		return err_errno(err, errno, "scratch disk in %s", dir);
	uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
	if (room >= size)
		return 0;
	size_format(size, want);
	size_format(room, have);
	return err_set(err, ENOSPC, "scratch disk in %s: %s wanted, %s free; set VSE_SCRATCH to a folder with more",
		       dir, want, have);
}

struct scratch *scratch_create(struct loop *l, const char *dir, uint64_t size,
			       void (*done)(void *arg, int fd, const struct err *err), void *arg,
			       struct err *err)
{
	struct scratch *s = xcalloc(1, sizeof(*s));
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	char path[64];
	*s = (struct scratch){.fd = -1, .done = done, .arg = arg};
	if (enough_room(dir, size, err) < 0 || nameless(dir, &s->fd, err) < 0)
		goto fail;
	if (ftruncate(s->fd, (off_t)size) < 0) {
		err_errno(err, errno, "scratch disk in %s", dir);
		goto fail;
	}
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), s->fd);
	static const char *const words[] = {
		"mke2fs",       "-q",   "-F",
		"-t",           "ext4", "-O",
		"^has_journal", "-E",   "lazy_itable_init=1,nodiscard,root_owner=0:0",
		"-m",           "0"};
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		strvec_add(&argv, words[i]);
	strvec_add(&argv, path);
	/* e2fsprogs lives in sbin, which an ordinary user's PATH often lacks. */
	if (access("/sbin/mke2fs", X_OK) == 0) {
		free(argv.v[0]);
		argv.v[0] = xstrdup("/sbin/mke2fs");
	}
	struct child_spec spec = {.argv = strvec_argv(&argv), .die_with_parent = true};
	s->mkfs = child_start(l, &spec, on_mkfs, s, err);
	if (s->mkfs)
		return s;
fail:
	scratch_destroy(s);
	return NULL;
}

static void on_unpacked(void *arg, const struct err *unpack_err)
{
	struct scratch *s = arg;
	struct err err = ERR_INIT;
	if (unpack_err)
		err_set(&err, unpack_err->code, "scratch disk: %s", unpack_err->text);
	packer_destroy(TAKE_PTR(s->unpacker));
	s->done(s->arg, unpack_err ? -1 : s->fd, &err);
}

struct scratch *scratch_restore(struct loop *l, const char *dir, uint64_t size, const char *packed,
				const char *pack_id,
				void (*done)(void *arg, int fd, const struct err *err), void *arg,
				struct err *err)
{
	struct scratch *s = xcalloc(1, sizeof(*s));
	*s = (struct scratch){.fd = -1, .done = done, .arg = arg};
	_cleanup_close_ int in = saved_open(packed, err);
	if (in >= 0 && enough_room(dir, size, err) == 0 && nameless(dir, &s->fd, err) == 0)
		s->unpacker = packer_start(l, false, PACK_DISK, pack_id, in, s->fd, on_unpacked, s, err);
	if (s->unpacker)
		return s;
	scratch_destroy(s);
	return NULL;
}

struct scratch *scratch_empty(const char *dir, uint64_t size, struct err *err)
{
	struct scratch *s = xcalloc(1, sizeof(*s));
	*s = (struct scratch){.fd = -1};
	if (enough_room(dir, size, err) == 0 && nameless(dir, &s->fd, err) == 0) {
		if (ftruncate(s->fd, (off_t)size) == 0)
			return s;
		err_errno(err, errno, "scratch disk in %s", dir);
	}
	scratch_destroy(s);
	return NULL;
}

/* ---- from one process to the next ---- */

void scratch_note(const struct scratch *s, const char *dir)
{
	struct stat st;
	char text[48];
	struct err err = ERR_INIT;
	_cleanup_free_ char *path = path_join(dir, NOTE);
	if (fstat(s->fd, &st) < 0)
		return;
	int n = snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 "\n", (uint64_t)st.st_dev,
			 (uint64_t)st.st_ino);
	if (path_replace(path, text, (size_t)n, 0600, &err) < 0)
		log_warn("a scratch disk could not be adopted: %s", err.text);
}

static int read_note(const char *dir, struct stat *ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, NOTE), *text = NULL;
	uint64_t dev, ino;
	if (path_read(path, 48, &text, NULL, err) < 0)
		return -1;
	if (sscanf(text, "%" SCNu64 " %" SCNu64, &dev, &ino) != 2)
		return err_set(err, EPROTO, "%s: damaged", path);
	ret->st_dev = (dev_t)dev;
	ret->st_ino = (ino_t)ino;
	return 0;
}

static bool is_it(const struct stat *st, const struct stat *want)
{
	return S_ISREG(st->st_mode) && st->st_dev == want->st_dev && st->st_ino == want->st_ino;
}

/* It has no name: what the kernel shows of another process's descriptors leads to it. -1: that is none of it. */
static int reopen(int fds, const char *name, const struct stat *want)
{
	struct stat st;
	if (fstatat(fds, name, &st, 0) < 0 || !is_it(&st, want))
		return -1;
	_cleanup_close_ int fd = openat(fds, name, O_RDWR | O_CLOEXEC);
	/* The descriptor may have become another file meanwhile. */
	return fd >= 0 && fstat(fd, &st) == 0 && is_it(&st, want) ? TAKE_FD(fd) : -1;
}

struct scratch *scratch_adopt(const char *dir, pid_t vmm, struct err *err)
{
	struct stat want = {0};
	char path[40];
	int fd = -1;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)vmm);
	if (read_note(dir, &want, err) < 0)
		return NULL;
	DIR *d = opendir(path);
	if (!d) {
		err_errno(err, errno, "%s", path);
		return NULL;
	}
	for (struct dirent *e; fd < 0 && (e = readdir(d));)
		if (e->d_name[0] != '.')
			fd = reopen(dirfd(d), e->d_name, &want);
	closedir(d);
	if (fd < 0) {
		err_set(err, ENOENT, "process %d does not have its scratch disk open", (int)vmm);
		return NULL;
	}
	struct scratch *s = xcalloc(1, sizeof(*s));
	*s = (struct scratch){.fd = fd};
	return s;
}

/* ---- */

int scratch_fd(const struct scratch *s)
{
	return s ? s->fd : -1;
}

void scratch_destroy(struct scratch *s)
{
	if (!s)
		return;
	if (s->mkfs)
		child_kill(s->mkfs, 9);
	child_destroy(s->mkfs);
	packer_destroy(s->unpacker);
	if (s->fd >= 0)
		close(s->fd);
	free(s);
}
