/* SPDX-License-Identifier: Apache-2.0 */
#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/time.h"
#include "image/sandbox.h"

#define FOREIGN_S (2u * 86400)

static int user_path(char **ret, struct err *err)
{
	const char *x = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	if (x && x[0] == '/')
		*ret = path_join(x, "vse");
	else if (home && home[0] == '/')
		*ret = path_join(home, ".local/share/vse");
	else
		return err_set(err, ENOENT,
			       "store: neither XDG_DATA_HOME nor HOME is set to an absolute path");
	return 0;
}

int image_store_path(char **ret, struct err *err)
{
	return store_open(NULL, ret, err);
}

int store_open(const char *given, char **ret, struct err *err)
{
	static const char *const dirs[] = {"images", "initrd",     "inputs", "locks",
					   "tmp",    "cache/debs", "logs"};
	_cleanup_free_ char *path = given ? xstrdup(given) : NULL;
	struct err e = ERR_INIT;
	if (!path && user_path(&path, err) < 0)
		return -1;
	if (path_mkdirs(path, 0700, &e) < 0)
		return err_set(err, e.code,
			       "store: %s: set XDG_DATA_HOME to a folder that can be written", e.text);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		_cleanup_free_ char *d = path_join(path, dirs[i]);
		if (path_mkdirs(d, 0700, &e) < 0)
			return err_set(err, e.code, "store: %s: set XDG_DATA_HOME to a folder that can be written",
				       e.text);
	}
	char *real = realpath(path, NULL);
	if (!real)
		return err_errno(err, errno, "store: %s", path);
	*ret = real;
	return 0;
}

int store_look(const char *given, char **ret, struct err *err)
{
	_cleanup_free_ char *path = given ? xstrdup(given) : NULL, *real = NULL, *site = store_site();
	struct err e = ERR_INIT;
	if (store_open(given, ret, &e) == 0)
		return 0;
	if (path || user_path(&path, NULL) == 0) {
		_cleanup_free_ char *images = path_join(path, "images");
		real = path_exists(images) ? realpath(path, NULL) : NULL;
	}
	if (!real && !site)
		return err_copy(err, &e);
	*ret = TAKE_PTR(real);
	return 0;
}

char *store_site(void)
{
	const char *s = getenv("VSE_SITE_STORE");
	if (!s)
		s = "/var/lib/vse";
	_cleanup_free_ char *images = path_join(s, "images");
	return *s && path_exists(images) ? xstrdup(s) : NULL;
}

/* Which kernel and which pid namespace a pid is meant in: a store in a home is shared by many nodes. */
static const char *node_name(void)
{
	static char name[64];
	_cleanup_free_ char *boot = NULL;
	struct stat ns = {0};
	if (!*name) {
		if (path_read("/proc/sys/kernel/random/boot_id", 100, &boot, NULL, NULL) < 0 ||
		    strspn(boot, "0123456789abcdef") < 8)
			boot = xstrdup("00000000");
		(void)!stat("/proc/self/ns/pid", &ns);
		snprintf(name, sizeof(name), "%.8s-%" PRIu64, boot, (uint64_t)ns.st_ino);
	}
	return name;
}

char *store_temp(const char *store)
{
	static unsigned n;
	uint64_t start = 0;
	proc_start_time(getpid(), &start, NULL);
	return xasprintf("%s/tmp/%s-%d-%" PRIu64 "-%u", store, node_name(), (int)getpid(), start, n++);
}

/* A process of this node is dead or not; of another node's only the age of what it left is known. */
static bool is_left(int dir, const char *name)
{
	const char *node = node_name();
	size_t len = strlen(node);
	struct stat st;
	uint64_t start;
	int pid;
	if (strncmp(name, node, len) == 0 && name[len] == '-')
		return sscanf(name + len, "-%d-%" SCNu64 "-", &pid, &start) == 2 &&
		       !proc_alive(pid, start);
	return name[strspn(name, "0123456789abcdef")] == '-' &&
	       fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (uint64_t)st.st_mtime + FOREIGN_S < time_wall_ns() / 1000000000u;
}

void store_sweep(const char *store)
{
	_cleanup_free_ char *tmp = path_join(store, "tmp");
	DIR *d = opendir(tmp);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (!is_left(dirfd(d), e->d_name))
			continue;
		_cleanup_free_ char *p = path_join(tmp, e->d_name);
		sandbox_remove(p, NULL);
	}
	if (d)
		closedir(d);
}

/* The lock file may be removed between open and flock: only a lock on the file that is there now
 * counts. */
static bool still_there(int fd, const char *path)
{
	struct stat a, b;
	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static int lock_file(int fd, int how)
{
	int r;
	while ((r = flock(fd, how)) < 0 && errno == EINTR)
		;
	return r;
}

int store_lock(const char *store, const char *key, void (*told)(void *arg), void *arg, int *ret_fd,
	       struct err *err)
{
	_cleanup_free_ char *path = xasprintf("%s/locks/%s", store, key);
	for (;;) {
		_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			return err_errno(err, errno, "lock %s", path);
		if (lock_file(fd, LOCK_EX | LOCK_NB) < 0) {
			if (errno != EWOULDBLOCK)
				return err_errno(err, errno, "lock %s", path);
			if (told)
				told(arg);
			told = NULL;
			if (lock_file(fd, LOCK_EX) < 0)
				return err_errno(err, errno, "lock %s", path);
		}
		if (!still_there(fd, path))
			continue;
		*ret_fd = TAKE_FD(fd);
		return 0;
	}
}

int store_input(const char *store, const char *key, char **ret_id, struct err *err)
{
	_cleanup_free_ char *path = xasprintf("%s/inputs/%s", store, key), *id = NULL;
	if (path_read(path, 200, &id, NULL, err) < 0)
		return -1;
	id[strcspn(id, "\n")] = '\0';
	if (strlen(id) != 64 || strspn(id, "0123456789abcdef") != 64)
		return err_set(err, ENOENT, "%s: not an image id", path);
	_cleanup_free_ char *dir = xasprintf("%s/images/%s", store, id);
	if (!path_exists(dir))
		return err_set(err, ENOENT, "image %.12s: gone", id);
	*ret_id = TAKE_PTR(id);
	return 0;
}

void store_used(const char *store, const char *key)
{
	_cleanup_free_ char *path = xasprintf("%s/inputs/%s", store, key);
	utimensat(AT_FDCWD, path, NULL, 0); /* a store that is only read has no gc of ours */
}

static int write_input(const char *store, const char *temp, const char *id, const char *key,
		       struct err *err)
{
	_cleanup_free_ char *from = path_join(temp, "input"),
			    *to = xasprintf("%s/inputs/%s", store, key);
	_cleanup_free_ char *text = xasprintf("%s\n", id);
	if (path_write(from, text, strlen(text), 0600, err) < 0)
		return -1;
	if (rename(from, to) < 0)
		return err_errno(err, errno, "%s", to);
	return 0;
}

/* A power cut must not leave a name with half a file behind it. */
static int sync_dir(const char *dir, struct err *err)
{
	DIR *d = opendir(dir);
	if (!d)
		return err_errno(err, errno, "%s", dir);
	struct dirent *e;
	int code = 0;
	while (code == 0 && (e = readdir(d))) {
		_cleanup_close_ int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd >= 0 && strcmp(e->d_name, "..") != 0 && fsync(fd) < 0 && errno != EINVAL)
			code = err_errno(err, errno, "%s/%s", dir, e->d_name);
	}
	closedir(d);
	return code;
}

int store_gate(const char *store, bool closed, int *ret_fd, struct err *err)
{
	_cleanup_free_ char *path = path_join(store, "locks/publish");
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || lock_file(fd, closed ? LOCK_EX : LOCK_SH) < 0)
		return err_errno(err, errno, "lock %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static bool is_whole(const char *dir)
{
	struct image *i = NULL;
	bool whole = image_load(dir, &i, NULL) == 0 && image_verify(i, NULL) == 0;
	image_destroy(i);
	return whole;
}

static int place_image(const char *store, const char *from, const char *id, struct err *err)
{
	_cleanup_free_ char *to = xasprintf("%s/images/%s", store, id);
	for (int i = 0; i < 3; i++) {
		if (rename(from, to) == 0)
			return 0;
		if (errno != EEXIST && errno != ENOTEMPTY)
			return err_errno(err, errno, "store: %s", to);
		if (is_whole(to))
			return 0;
		if (store_drop_image(store, id, err) < 0)
			return err_prefix(err, "a damaged image must be replaced: ");
	}
	return err_set(err, EAGAIN, "store: %s: made anew all the time", to);
}

int store_publish(const char *store, const char *temp, const char *id, const char *key, struct err *err)
{
	_cleanup_free_ char *from = path_join(temp, "image");
	_cleanup_close_ int gate = -1;
	if (sync_dir(from, err) < 0 || store_gate(store, false, &gate, err) < 0 ||
	    place_image(store, from, id, err) < 0)
		return -1;
	return write_input(store, temp, id, key, err);
}

void store_cache_debs(const char *store, const char *temp, const char *name)
{
	_cleanup_free_ char *from = path_join(temp, "debs"),
			    *to = xasprintf("%s/cache/debs/%s", store, name);
	DIR *d = opendir(from);
	struct dirent *e;
	if (d && path_mkdirs(to, 0700, NULL) == 0) {
		while ((e = readdir(d))) {
			_cleanup_free_ char *a = path_join(from, e->d_name),
					    *b = path_join(to, e->d_name);
			if (e->d_name[0] != '.')
				(void)!rename(a, b);
		}
	}
	if (d)
		closedir(d);
}

int store_free(const char *store, uint64_t *ret, struct err *err)
{
	struct statvfs v;
	if (statvfs(store, &v) < 0)
		return err_errno(err, errno, "store %s", store);
	*ret = (uint64_t)v.f_bavail * v.f_frsize;
	return 0;
}

int store_lock_idle(const char *path, const char *what, int *ret_fd, struct err *err)
{
	/* NFS gives an exclusive lock only to who may write. */
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && (errno == EROFS || errno == EACCES))
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_errno(err, errno, "%s", what);
	if (lock_file(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return err_errno(err, errno, "%s: lock %s", what, path);
		return err_set(err, EBUSY, "%s: a running cluster uses it: `vse down` it first", what);
	}
	if (!still_there(fd, path))
		return err_set(err, ENOENT, "%s: removed meanwhile", what);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* EBUSY when one of them is in use: a holder from elsewhere, of an image of the same id. */
static int forget_initrds(const char *store, const char *id, struct err *err)
{
	_cleanup_free_ char *dir = path_join(store, "initrd"), *what = xasprintf("image %.12s", id);
	DIR *d = opendir(dir);
	struct dirent *e;
	struct err le = ERR_INIT;
	int code = 0;
	while (d && code == 0 && (e = readdir(d))) {
		_cleanup_free_ char *p = path_join(dir, e->d_name);
		_cleanup_close_ int lock = -1;
		if (strncmp(e->d_name, id, strlen(id)) != 0)
			continue;
		if (store_lock_idle(p, what, &lock, &le) == 0)
			unlink(p);
		else if (le.code != ENOENT)
			code = err_copy(err, &le);
	}
	if (d)
		closedir(d);
	return code;
}

int store_drop_image(const char *store, const char *id, struct err *err)
{
	_cleanup_free_ char *dir = xasprintf("%s/images/%s", store, id),
			    *manifest = path_join(dir, "manifest.json"),
			    *what = xasprintf("image %.12s", id);
	_cleanup_close_ int lock = -1;
	struct err le = ERR_INIT;
	/* One without a manifest is damaged: nobody can hold it. */
	if (store_lock_idle(manifest, what, &lock, &le) < 0 && le.code != ENOENT)
		return err_copy(err, &le);
	if (forget_initrds(store, id, err) < 0)
		return -1;
	/* Out of sight by one rename; what a kill leaves half removed is swept from tmp/. */
	_cleanup_free_ char *gone = store_temp(store);
	if (rename(dir, gone) < 0)
		return err_errno(err, errno, "remove image %.12s", id);
	return path_remove(gone, err);
}

static int hold_file(const struct image *i, const char *path, int *ret_fd, struct err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return err_errno(err, errno, "image %.12s", i->id);
	if (fd >= 0 && lock_file(fd, LOCK_SH) < 0)
		return err_errno(err, errno, "image %.12s: hold", i->id);
	if (fd < 0 || !still_there(fd, path))
		return err_set(err, ENOENT, "image %.12s: %s: removed meanwhile: try again", i->id,
			       path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Two locks behind one descriptor: that of a socket in whose queue the others lie, open until the
 * last copy of it is closed. */
static int bundle(const int fds[2], int *ret_fd, struct err *err)
{
	int sp[2];
	union {
		char data[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} c = {0};
	char byte = 0;
	struct iovec v = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = c.data,
			   .msg_controllen = sizeof(c.data)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(2 * sizeof(int));
	memcpy(CMSG_DATA(h), fds, 2 * sizeof(int));
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, sp) < 0)
		return err_errno(err, errno, "hold image");
	ssize_t n = sendmsg(sp[0], &m, MSG_NOSIGNAL);
	int code = errno;
	close(sp[0]);
	if (n < 0) {
		close(sp[1]);
		return err_errno(err, code, "hold image");
	}
	*ret_fd = sp[1];
	return 0;
}

/* The manifest first: who removes an image has that one locked until all of it is out of sight. */
int image_hold(const struct image *i, int *ret_fd, struct err *err)
{
	_cleanup_free_ char *path = path_join(i->dir, "manifest.json");
	_cleanup_close_ int manifest = -1, initrd = -1;
	if (hold_file(i, path, &manifest, err) < 0)
		return -1;
	if (!i->initrd) {
		*ret_fd = TAKE_FD(manifest);
		return 0;
	}
	if (hold_file(i, i->initrd, &initrd, err) < 0)
		return -1;
	return bundle((const int[]){manifest, initrd}, ret_fd, err);
}
