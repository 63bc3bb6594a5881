/* SPDX-License-Identifier: Apache-2.0 */
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"

char *path_join(const char *a, const char *b)
{
	size_t n = strlen(a);
	while (n > 1 && a[n - 1] == '/')
		n--;
	while (*b == '/')
		b++;
	if (n == 1 && a[0] == '/')
		n = 0;
	return xasprintf("%.*s/%s", (int)n, a, b);
}

int path_mkdirs(const char *path, mode_t mode, struct err *err)
{
	_cleanup_free_ char *p = xstrdup(path);
	for (char *c = p + 1;; c++) {
		if (*c != '/' && *c != '\0')
			continue;
		char was = *c;
		*c = '\0';
		if (mkdir(p, mode) < 0 && errno != EEXIST) {
			/* EROFS or EACCES on an ancestor that is there already is no failure. */
			int code = errno;
			struct stat st;
			if (stat(p, &st) < 0 || !S_ISDIR(st.st_mode))
				return err_errno(err, code, "make folder %s", p);
		}
		if (was == '\0')
			break;
		*c = was;
	}
	struct stat st;
	if (stat(path, &st) < 0)
		return err_errno(err, errno, "make folder %s", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "make folder %s: a file is in the way", path);
	return 0;
}

static int remove_at(int dirfd, const char *name)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -1;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == EACCES && fchmodat(dirfd, name, 0700, 0) == 0)
		fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -1;
	}
	int code = 0;
	struct dirent *e;
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (remove_at(fd, e->d_name) < 0 && errno == EACCES && fchmod(fd, 0700) == 0)
			remove_at(fd, e->d_name);
	}
	closedir(d);
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		code = -1;
	return code;
}

int path_remove(const char *path, struct err *err)
{
	if (remove_at(AT_FDCWD, path) < 0)
		return err_errno(err, errno, "remove %s", path);
	return 0;
}

static int read_open(const char *path, int fd, size_t max, char **ret_data, size_t *ret_len,
		     struct err *err)
{
	size_t cap = 4096, len = 0;
	_cleanup_free_ char *data = xmalloc(cap + 1);
	for (;;) {
		ssize_t n = fd_read_full(fd, data + len, cap - len);
		if (n < 0)
			return err_errno(err, errno, "%s", path);
		len += (size_t)n;
		if (len > max)
			return err_set(err, EFBIG, "%s: larger than %zu bytes", path, max);
		if (len < cap)
			break;
		cap *= 2;
		data = xrealloc(data, cap + 1);
	}
	data[len] = '\0';
	*ret_data = TAKE_PTR(data);
	if (ret_len)
		*ret_len = len;
	return 0;
}

int path_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct err *err)
{
	/* The open itself would wait for the other end of a pipe. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "%s", path);
	if (S_ISDIR(st.st_mode))
		return err_errno(err, EISDIR, "%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "%s: not a regular file", path);
	return read_open(path, fd, max, ret_data, ret_len, err);
}

int path_read_any(const char *path, size_t max, char **ret_data, size_t *ret_len, struct err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "%s", path);
	if (S_ISDIR(st.st_mode))
		return err_errno(err, EISDIR, "%s", path);
	return read_open(path, fd, max, ret_data, ret_len, err);
}

static int write_beside(const char *path, const void *data, size_t len, mode_t mode, bool sync,
			struct err *err)
{
	_cleanup_free_ char *tmp = xasprintf("%s.XXXXXX", path);
	_cleanup_close_ int fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "write %s", path);
	if (fd_write_all(fd, data, len) < 0 || fchmod(fd, mode) < 0 || (sync && fsync(fd) < 0) ||
	    rename(tmp, path) < 0) {
		int code = errno;
		unlink(tmp);
		return err_errno(err, code, "write %s", path);
	}
	return 0;
}

int path_write(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
	return write_beside(path, data, len, mode, true, err);
}

int path_replace(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
	return write_beside(path, data, len, mode, false, err);
}

bool path_exists(const char *path)
{
	return access(path, F_OK) == 0;
}

char *path_self_dir(void)
{
	char p[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", p, sizeof(p) - 1);
	if (n <= 0)
		return NULL;
	p[n] = '\0';
	char *slash = strrchr(p, '/');
	return slash ? xstrndup(p, slash == p ? 1 : (size_t)(slash - p)) : NULL;
}

static bool is_program(const char *p)
{
	struct stat st;
	return stat(p, &st) == 0 && S_ISREG(st.st_mode) && access(p, X_OK) == 0;
}

char *path_find_program(const char *name)
{
	if (strchr(name, '/'))
		return is_program(name) ? xstrdup(name) : NULL;
	const char *path = getenv("PATH");
	if (!path || !*path)
		path = "/usr/local/bin:/usr/bin:/bin";
	for (const char *p = path;;) {
		size_t n = strcspn(p, ":");
		_cleanup_free_ char *full = n ? xasprintf("%.*s/%s", (int)n, p, name)
					      : xasprintf("./%s", name);
		if (is_program(full))
			return TAKE_PTR(full);
		if (!p[n])
			return NULL;
		p += n + 1;
	}
}

/* Another program may have made the descriptor non-blocking: it is shared with whoever else has it open. */
static int wait_writable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int n = poll(&p, 1, -1);
	return n < 0 && errno != EINTR ? -1 : 0;
}

int fd_write_all(int fd, const void *data, size_t len)
{
	const char *p = data;
	while (len) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && (errno == EINTR || (errno == EAGAIN && wait_writable(fd) == 0)))
			continue;
		if (n < 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

ssize_t fd_read_full(int fd, void *data, size_t len)
{
	size_t got = 0;
	while (got < len) {
		ssize_t n = read(fd, (char *)data + got, len - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}
