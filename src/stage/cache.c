/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"

#define BOOT_ID 36 /* characters of a boot id */
#define OFFER_KEEP_S                                                                               \
	(30 * 24 * 3600) /* an offered file's index that was not used for so long goes */

struct cache {
	char *folder; /* with the user's id */
	uint64_t limit;
	char boot[BOOT_ID + 1];
};

static char *in(const struct cache *c, const char *sub, const uint8_t key[SHA_SIZE], const char *suffix)
{
	char hex[SHA_HEX];
	sha_hex(key, hex);
	return xasprintf("%s/%s/%s%s", c->folder, sub, hex, suffix);
}

char *cache_path(const struct cache *c, const uint8_t key[SHA_SIZE])
{
	return in(c, "files", key, "");
}

const char *cache_folder(const struct cache *c)
{
	return c->folder;
}

/* ---- the folder ---- */

static int make_folder(const char *path, struct err *err)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_errno(err, errno, "cache: cannot make %s", path);
	return 0;
}

/* The folder itself may belong to others; what is below our own one must not be in others' hands. */
static int check_folders(const char *folder, const char *own, struct err *err)
{
	struct stat st;
	if (stat(folder, &st) < 0)
		return err_errno(err, errno, "cache %s", folder);
	if (st.st_mode & 0022 && !(st.st_mode & S_ISVTX))
		return err_set(err, EPERM,
			       "cache %s: others may write to it, and it has no sticky bit", folder);
	if (make_folder(own, err) < 0)
		return -1;
	if (lstat(own, &st) < 0)
		return err_errno(err, errno, "cache %s", own);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 0077)
		return err_set(err, EPERM, "cache %s: it is not a folder of this user's alone", own);
	return 0;
}

static void sweep_offers(const struct cache *c)
{
	_cleanup_free_ char *path = path_join(c->folder, "offers");
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		struct stat st;
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode) && time(NULL) - st.st_mtime > OFFER_KEEP_S)
			unlinkat(dirfd(d), e->d_name, 0);
	}
	if (d)
		closedir(d);
}

int cache_open(const char *folder, uint64_t limit, struct cache **ret, struct err *err)
{
	static const char *const subs[] = {"files", "incoming", "offers"};
	if (folder[0] != '/')
		return err_set(err, EINVAL, "cache '%s': not an absolute path", folder);
	_cleanup_free_ char *own = xasprintf("%s/%u", folder, (unsigned)geteuid());
	if (path_mkdirs(folder, 0700, err) < 0 || check_folders(folder, own, err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(subs); i++) {
		_cleanup_free_ char *sub = path_join(own, subs[i]);
		if (make_folder(sub, err) < 0)
			return -1;
	}
	if (access(own, R_OK | W_OK | X_OK) < 0)
		return err_errno(err, errno, "cache %s", own);
	struct cache *c = xcalloc(1, sizeof(*c));
	c->folder = TAKE_PTR(own);
	c->limit = limit;
	_cleanup_free_ char *boot = NULL;
	size_t n;
	if (path_read("/proc/sys/kernel/random/boot_id", 256, &boot, &n, NULL) == 0 && n >= BOOT_ID)
		memcpy(c->boot, boot, BOOT_ID);
	sweep_offers(c);
	*ret = c;
	return 0;
}

void cache_close(struct cache *c)
{
	if (!c)
		return;
	free(c->folder);
	free(c);
}

/* Held while files come and go. Its holders are quick, so it is waited for. */
static int lock_all(struct cache *c, struct err *err)
{
	_cleanup_free_ char *path = path_join(c->folder, "lock");
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(err, errno, "cache: %s", path);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR) {
			int code = errno;
			close(fd);
			return err_errno(err, code, "cache: lock %s", path);
		}
	return fd;
}

/* ---- indexes beside the files ---- */

static int read_index(const char *path, struct index **ret, char boot[BOOT_ID + 1], struct err *err)
{
	_cleanup_free_ char *data = NULL;
	size_t n;
	if (path_read(path, INDEX_BYTES_MAX + BOOT_ID, &data, &n, err) < 0)
		return -1;
	if (n < BOOT_ID)
		return err_set(err, EPROTO, "%s: too short", path);
	if (index_parse(data, n - BOOT_ID, ret, err) < 0)
		return err_prefix(err, "%s: ", path);
	memcpy(boot, data + n - BOOT_ID, BOOT_ID);
	boot[BOOT_ID] = '\0';
	return 0;
}

static int write_index(const struct cache *c, const char *path, const struct index *x, struct err *err)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	index_write(x, &out);
	buf_add(&out, c->boot, BOOT_ID);
	return path_write(path, buf_head(&out), buf_len(&out), 0600, err);
}

/* Takes the shared lock on an index that is still in place. */
static int hold(const char *path, struct err *err)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st, now;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "cache: %s", path);
	if (flock(fd, LOCK_SH | LOCK_NB) < 0) /* it is being removed */
		return err_set(err, ENOENT, "cache: %s: being removed", path);
	if (stat(path, &now) < 0 || now.st_ino != st.st_ino)
		return err_set(err, ENOENT, "cache: %s: removed", path);
	return TAKE_FD(fd);
}

int cache_find(struct cache *c, const uint8_t key[SHA_SIZE], int *ret_fd, int *ret_hold,
	       struct index **ret_index, bool *ret_trusted, struct err *err)
{
	_cleanup_free_ char *path = in(c, "files", key, ""),
			    *index_path = in(c, "files", key, ".index");
	char boot[BOOT_ID + 1];
	struct stat st;
	_cleanup_close_ int held = hold(index_path, err);
	if (held < 0)
		return -1;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "cache: %s", path);
	struct index *x;
	if (read_index(index_path, &x, boot, err) < 0)
		return -1;
	if (memcmp(x->key, key, SHA_SIZE) != 0 || (uint64_t)st.st_size != x->size) {
		index_free(x);
		return err_set(err, EBADMSG, "cache: %s is damaged", path);
	}
	futimens(held, NULL);
	*ret_trusted = c->boot[0] && strcmp(boot, c->boot) == 0;
	*ret_index = x;
	*ret_fd = TAKE_FD(fd);
	*ret_hold = TAKE_FD(held);
	return 0;
}

void cache_trust(struct cache *c, const uint8_t key[SHA_SIZE], const struct index *x)
{
	/* In place: it is flocked by this inode. The boot id is the last thing in it. */
	_cleanup_free_ char *path = in(c, "files", key, ".index");
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	off_t at = INDEX_HEADER + (off_t)INDEX_ENTRY * x->n;
	if (fd >= 0 && c->boot[0] && pwrite(fd, c->boot, BOOT_ID, at) < 0)
		return; /* then it is verified again next time */
}

void cache_drop(struct cache *c, const uint8_t key[SHA_SIZE])
{
	_cleanup_free_ char *path = in(c, "files", key, ""),
			    *index_path = in(c, "files", key, ".index");
	_cleanup_close_ int lock _unused_ = lock_all(c, NULL);
	unlink(index_path);
	unlink(path);
}

/* ---- room ---- */

struct old {
	char hex[SHA_HEX];
	uint64_t size;
	struct timespec used;
};

struct census {
	struct old *files;
	size_t n, cap;
	uint64_t used, promised; /* bytes of whole files; of those that others are fetching */
};

static int by_use(const void *a, const void *b)
{
	const struct old *x = a, *y = b;
	if (x->used.tv_sec != y->used.tv_sec)
		return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
	return x->used.tv_nsec < y->used.tv_nsec ? -1 : x->used.tv_nsec > y->used.tv_nsec;
}

static void count_file(struct census *k, int dir, const char *name)
{
	uint8_t key[SHA_SIZE];
	struct stat st, used;
	char index_name[SHA_HEX + 8];
	if (strlen(name) != SHA_HEX - 1 || sha_from_hex(name, key) < 0 ||
	    fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	snprintf(index_name, sizeof(index_name), "%s.index", name);
	if (fstatat(dir, index_name, &used, AT_SYMLINK_NOFOLLOW) < 0) {
		unlinkat(dir, name, 0); /* its owner died between the two names, which come under our lock */
		return;
	}
	if (k->n == k->cap) {
		k->cap = k->cap ? 2 * k->cap : 32;
		k->files = xreallocarray(k->files, k->cap, sizeof(*k->files));
	}
	struct old *o = &k->files[k->n++];
	*o = (struct old){.size = (uint64_t)st.st_size, .used = used.st_mtim};
	memcpy(o->hex, name, SHA_HEX);
	k->used += o->size;
}

/* A claim whose lock is free is that of a dead process. */
static void count_claim(struct census *k, int dir, const char *name, const char *own)
{
	uint8_t key[SHA_SIZE];
	char text[32] = "", part[SHA_HEX + 8];
	if (strlen(name) != SHA_HEX - 1 || sha_from_hex(name, key) < 0 || strcmp(name, own) == 0)
		return;
	_cleanup_close_ int fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		snprintf(part, sizeof(part), "%s.part", name);
		unlinkat(dir, part, 0);
		unlinkat(dir, name, 0);
		return;
	}
	if (pread(fd, text, sizeof(text) - 1, 0) > 0)
		k->promised += strtoull(text, NULL, 10);
}

static void take_census(struct cache *c, const char *own, struct census *k)
{
	_cleanup_free_ char *files = path_join(c->folder, "files"),
			    *claims = path_join(c->folder, "incoming");
	DIR *d = opendir(files);
	for (struct dirent *e; d && (e = readdir(d));)
		count_file(k, dirfd(d), e->d_name);
	if (d)
		closedir(d);
	d = opendir(claims);
	for (struct dirent *e; d && (e = readdir(d));)
		count_claim(k, dirfd(d), e->d_name, own);
	if (d)
		closedir(d);
	if (k->n)
		qsort(k->files, k->n, sizeof(*k->files), by_use);
}

/* Removes the least recently used file that nobody holds. False: there is none. */
static bool evict(struct cache *c, struct census *k)
{
	for (size_t i = 0; i < k->n; i++) {
		struct old *o = &k->files[i];
		_cleanup_free_ char *path = xasprintf("%s/files/%s", c->folder, o->hex);
		_cleanup_free_ char *index_path = xasprintf("%s.index", path);
		if (!o->size && !o->hex[0])
			continue;
		_cleanup_close_ int fd = open(index_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		unlink(index_path);
		unlink(path);
		k->used -= o->size;
		*o = (struct old){0};
		return true;
	}
	return false;
}

static int no_room(struct cache *c, int code, const struct census *k, uint64_t size, struct err *err)
{
	struct statvfs vfs;
	if (code == ENOBUFS)
		return err_set(err, code,
			       "cache %s: its limit is %" PRIu64 " bytes, %" PRIu64
			       " of them in use, and %" PRIu64 " are needed: %" PRIu64
			       " are missing",
			       c->folder, c->limit, k->used + k->promised, size,
			       k->used + k->promised + size - c->limit);
	uint64_t have = statvfs(c->folder, &vfs) == 0 ? (uint64_t)vfs.f_bavail * vfs.f_frsize : 0;
	return err_set(err, code,
		       "cache %s: %s: %" PRIu64 " bytes are needed, %" PRIu64 " are free: %" PRIu64
		       " are missing",
		       c->folder, code == EDQUOT ? "over the quota" : "disk full", size, have,
		       size > have ? size - have : 0);
}

static int open_temp(struct cache *c, const uint8_t key[SHA_SIZE], struct err *err)
{
	_cleanup_free_ char *dir = path_join(c->folder, "incoming"),
			    *part = in(c, "incoming", key, ".part");
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0400);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT)) {
		unlink(part);
		fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
	}
	return fd < 0 ? err_errno(err, errno, "cache: a new file in %s", dir) : fd;
}

/* Takes the space now, so that a full disk is told before anything travels. */
static int allocate(int fd, uint64_t size)
{
	struct statvfs vfs;
	if (!size)
		return 0;
	int rc;
	while ((rc = fallocate(fd, 0, 0, (off_t)size)) < 0 && errno == EINTR)
		;
	if (rc == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return errno;
	if (fstatvfs(fd, &vfs) == 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize < size)
		return ENOSPC;
	return ftruncate(fd, (off_t)size) < 0 ? errno : 0;
}

static int make_room(struct cache *c, struct census *k, int fd, uint64_t size, struct err *err)
{
	while (c->limit && k->used + k->promised + size > c->limit)
		if (!evict(c, k))
			return no_room(c, ENOBUFS, k, size, err);
	int code;
	while ((code = allocate(fd, size)) == ENOSPC || code == EDQUOT)
		if (!evict(c, k))
			return no_room(c, code, k, size, err);
	return code ? err_errno(err, code, "cache %s: %" PRIu64 " bytes", c->folder, size) : 0;
}

int cache_temp(struct cache *c, const uint8_t key[SHA_SIZE], int lock, uint64_t size, int *ret_fd,
	       struct err *err)
{
	struct census k = {0};
	char own[SHA_HEX], text[32];
	sha_hex(key, own);
	_cleanup_close_ int all = lock_all(c, err);
	if (all < 0)
		return -1;
	_cleanup_close_ int fd = open_temp(c, key, err);
	if (fd < 0)
		return -1;
	take_census(c, own, &k);
	int rc = make_room(c, &k, fd, size, err);
	free(k.files);
	if (rc < 0)
		return -1;
	int n = snprintf(text, sizeof(text), "%" PRIu64 "\n", size);
	if (ftruncate(lock, 0) < 0 || pwrite(lock, text, (size_t)n, 0) < 0)
		return err_errno(err, errno, "cache %s: a claim", c->folder);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* ---- claims ---- */

int cache_claim(struct cache *c, const uint8_t key[SHA_SIZE], int *ret_lock, struct err *err)
{
	_cleanup_free_ char *path = in(c, "incoming", key, "");
	for (int tries = 0; tries < 8; tries++) {
		_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat st, now;
		if (fd < 0 || fstat(fd, &st) < 0)
			return err_errno(err, errno, "cache: %s", path);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return err_errno(err, errno == EWOULDBLOCK ? EBUSY : errno, "cache: %s", path);
		if (stat(path, &now) < 0 || now.st_ino != st.st_ino)
			continue; /* its last owner has just removed it */
		*ret_lock = TAKE_FD(fd);
		return 0;
	}
	return err_set(err, EBUSY, "cache: %s: much in demand", path);
}

void cache_unclaim(struct cache *c, const uint8_t key[SHA_SIZE], int lock)
{
	_cleanup_free_ char *path = in(c, "incoming", key, ""), *part = in(c, "incoming", key, ".part");
	unlink(part);
	unlink(path);
	close(lock);
}

int cache_publish(struct cache *c, const uint8_t key[SHA_SIZE], int fd, const struct index *x,
		  int *ret_hold, struct err *err)
{
	_cleanup_free_ char *path = in(c, "files", key, ""),
			    *index_path = in(c, "files", key, ".index");
	_cleanup_free_ char *part = in(c, "incoming", key, ".part");
	char self[40];
	struct stat st;
	_cleanup_close_ int all = lock_all(c, err);
	if (all < 0 || fstat(fd, &st) < 0)
		return -1;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	int rc = st.st_nlink ? rename(part, path)
			     : linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
	if (rc < 0 && errno != EEXIST)
		return err_errno(err, errno, "cache: %s", path);
	if (write_index(c, index_path, x, err) < 0) {
		unlink(path);
		return -1;
	}
	int held = hold(index_path, err);
	if (held < 0)
		return -1;
	*ret_hold = held;
	return 0;
}

void cache_each(struct cache *c, void (*fn)(void *arg, const struct index *x, int fd), void *arg)
{
	_cleanup_free_ char *files = path_join(c->folder, "files");
	DIR *d = opendir(files);
	for (struct dirent *e; d && (e = readdir(d));) {
		uint8_t key[SHA_SIZE];
		char boot[BOOT_ID + 1];
		struct index *x;
		if (strlen(e->d_name) != SHA_HEX - 1 || sha_from_hex(e->d_name, key) < 0)
			continue;
		_cleanup_free_ char *index_path = in(c, "files", key, ".index");
		_cleanup_close_ int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 || read_index(index_path, &x, boot, NULL) < 0)
			continue;
		fn(arg, x, fd);
		index_free(x);
	}
	if (d)
		closedir(d);
}

/* ---- offers ---- */

static char *offer_path(const struct cache *c, const struct stat *st)
{
	return xasprintf("%s/offers/%jx-%jx-%jx-%jx.%09ld", c->folder, (uintmax_t)st->st_dev,
			 (uintmax_t)st->st_ino, (uintmax_t)st->st_size,
			 (uintmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

int cache_offer_load(struct cache *c, const struct stat *st, struct index **ret, struct err *err)
{
	_cleanup_free_ char *path = offer_path(c, st);
	char boot[BOOT_ID + 1];
	struct index *x;
	if (read_index(path, &x, boot, err) < 0)
		return -1;
	if (x->size != (uint64_t)st->st_size) {
		index_free(x);
		return err_set(err, ENOENT, "%s: of another file", path);
	}
	utimensat(AT_FDCWD, path, NULL, 0);
	*ret = x;
	return 0;
}

void cache_offer_save(struct cache *c, const struct stat *st, const struct index *x)
{
	_cleanup_free_ char *path = offer_path(c, st);
	write_index(c, path, x, NULL); /* without it the file is read again next time */
}
