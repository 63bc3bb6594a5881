/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/alloc.h"
#include "base/size.h"
#include "base/strvec.h"
#include "io/child.h"
#include "vm/packer.h"
#include "vm/saved.h"

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
