/* SPDX-License-Identifier: Apache-2.0 */
#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "image/sandbox.h"

int image_store_path(char **ret, struct err *err)
{
	const char *x = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	_cleanup_free_ char *p = NULL;
	if (x && x[0] == '/')
		p = path_join(x, "vse");
	else if (home && home[0] == '/')
		p = path_join(home, ".local/share/vse");
	else
		return err_set(err, ENOENT,
			       "store: neither XDG_DATA_HOME nor HOME is set to an absolute path");
	return store_open(p, ret, err);
}

int store_open(const char *path, char **ret, struct err *err)
{
	static const char *const dirs[] = {"images", "initrd",     "inputs", "locks",
					   "tmp",    "cache/debs", "logs"};
	if (!path)
		return image_store_path(ret, err);
	struct err e = ERR_INIT;
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

char *store_site(void)
{
	const char *s = getenv("VSE_SITE_STORE");
	if (!s)
		s = "/var/lib/vse";
	_cleanup_free_ char *images = path_join(s, "images");
	return *s && path_exists(images) ? xstrdup(s) : NULL;
}

char *store_temp(const char *store)
{
	static unsigned n;
	uint64_t start = 0;
	proc_start_time(getpid(), &start, NULL);
	return xasprintf("%s/tmp/%d-%" PRIu64 "-%u", store, (int)getpid(), start, n++);
}

void store_sweep(const char *store)
{
	_cleanup_free_ char *tmp = path_join(store, "tmp");
	DIR *d = opendir(tmp);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		int pid;
		uint64_t start;
		if (sscanf(e->d_name, "%d-%" SCNu64 "-", &pid, &start) != 2 || proc_alive(pid, start))
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

int store_publish(const char *store, const char *temp, const char *id, const char *key, struct err *err)
{
	_cleanup_free_ char *from = path_join(temp, "image"),
			    *to = xasprintf("%s/images/%s", store, id);
	_cleanup_close_ int gate = -1;
	if (sync_dir(from, err) < 0 || store_gate(store, false, &gate, err) < 0)
		return -1;
	if (rename(from, to) < 0 && errno != EEXIST && errno != ENOTEMPTY)
		return err_errno(err, errno, "store: %s", to);
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

int image_hold(const struct image *i, int *ret_fd, struct err *err)
{
	_cleanup_free_ char *path = path_join(i->dir, "manifest.json");
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "image %.12s", i->id);
	if (lock_file(fd, LOCK_SH) < 0)
		return err_errno(err, errno, "image %.12s: hold", i->id);
	if (!still_there(fd, path))
		return err_set(err, ENOENT, "image %.12s: removed meanwhile", i->id);
	*ret_fd = TAKE_FD(fd);
	return 0;
}
