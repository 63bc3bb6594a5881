/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/strvec.h"
#include "wire/archive-format.h"
#include "wire/archive.h"

struct level {
	DIR *dir;
	size_t path_len; /* of the path without this folder */
};

struct archive_writer {
	struct strvec paths;
	size_t next; /* the top entry to come */
	struct level levels[ARCHIVE_DEPTH];
	size_t depth;
	int fd;          /* the file in work, or -1 */
	uint64_t left;   /* bytes of it still to come; UINT64_MAX: up to its end */
	struct buf out;  /* made, not yet fetched */
	struct buf path; /* of the entry in work: for messages */
	XXH3_state_t *content, *meta;
	struct archive_count count;
	bool begun, ended;
};

bool archive_name_ok(const char *name, size_t len)
{
	if (len < 1 || len > NAME_MAX || memchr(name, '/', len) || memchr(name, 0, len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

static const char *last_component(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* "a/b/" is "a/b"; "." and "x/.." become what they are. */
static int top_path(const char *path, char **ret, struct err *err)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	_cleanup_free_ char *p = xstrndup(path, n);
	const char *name = last_component(p);
	if (!archive_name_ok(name, strlen(name))) {
		char *real = realpath(path, NULL);
		if (!real)
			return err_errno(err, errno, "%s", path);
		free(p);
		p = real;
		name = last_component(p);
	}
	if (!archive_name_ok(name, strlen(name)))
		return err_set(err, EINVAL, "%s: has no name to be copied under", path);
	struct stat st;
	if (stat(p, &st) < 0)
		return err_errno(err, errno, "%s", path);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return err_set(err, ENOTSUP, "%s: neither a file nor a folder", path);
	*ret = TAKE_PTR(p);
	return 0;
}

int archive_writer_create(char *const *paths, size_t n, struct archive_writer **ret, struct err *err)
{
	struct archive_writer *w = xcalloc(1, sizeof(*w));
	w->fd = -1;
	for (size_t i = 0; i < n; i++) {
		char *p = NULL;
		if (top_path(paths[i], &p, err) < 0) {
			archive_writer_destroy(w);
			return -1;
		}
		strvec_take(&w->paths, p);
	}
	w->content = XXH3_createState();
	w->meta = XXH3_createState();
	if (!w->content || !w->meta)
		abort();
	XXH3_64bits_reset(w->meta);
	*ret = w;
	return 0;
}

void archive_writer_destroy(struct archive_writer *w)
{
	if (!w)
		return;
	while (w->depth)
		closedir(w->levels[--w->depth].dir);
	if (w->fd >= 0)
		close(w->fd);
	strvec_finish(&w->paths);
	buf_finish(&w->out);
	buf_finish(&w->path);
	XXH3_freeState(w->content);
	XXH3_freeState(w->meta);
	free(w);
}

struct archive_count archive_writer_count(const struct archive_writer *w)
{
	return w->count;
}

static void put_meta(struct archive_writer *w, const void *p, size_t n)
{
	XXH3_64bits_update(w->meta, p, n);
	buf_add(&w->out, p, n);
}

static void put_meta_number(struct archive_writer *w, unsigned bytes, uint64_t v)
{
	unsigned char b[8];
	archive_put(b, bytes, v);
	put_meta(w, b, bytes);
}

static void put_record(struct archive_writer *w, enum archive_kind kind, const char *name,
		       const char *target, const struct stat *st)
{
	unsigned char h[ARCHIVE_HEAD] = {(unsigned char)kind, (unsigned char)strlen(name)};
	archive_put(h + 2, 2, strlen(target));
	if (st) {
		archive_put(h + 4, 4, st->st_mode & 0777);
		archive_put(h + 8, 8, (uint64_t)(int64_t)st->st_mtim.tv_sec);
		archive_put(h + 16, 4, (uint64_t)st->st_mtim.tv_nsec);
	}
	put_meta(w, h, sizeof(h));
	put_meta(w, name, strlen(name));
	put_meta(w, target, strlen(target));
}

static int failed(struct archive_writer *w, int code, struct err *err)
{
	return err_errno(err, code, "%s", buf_cstr(&w->path));
}

static void leave(struct archive_writer *w, size_t path_len)
{
	w->path.end = w->path.start + path_len;
}

static void begin_file(struct archive_writer *w, const char *name, int fd, const struct stat *st)
{
	put_record(w, ARCHIVE_FILE, name, "", st);
	XXH3_64bits_reset(w->content);
	w->fd = fd;
	/* Files of /proc and /sys have content and no size. */
	w->left = st->st_size > 0 ? (uint64_t)st->st_size : UINT64_MAX;
}

static int end_file(struct archive_writer *w)
{
	put_meta_number(w, 4, 0);
	put_meta_number(w, 8, XXH3_64bits_digest(w->content));
	close(TAKE_FD(w->fd));
	w->count.files++;
	return 0;
}

static int step_file(struct archive_writer *w, struct err *err)
{
	char chunk[ARCHIVE_CHUNK];
	if (w->left == 0)
		return end_file(w);
	ssize_t n = read(w->fd, chunk, MIN((uint64_t)sizeof(chunk), w->left));
	if (n < 0)
		return errno == EINTR ? 0 : failed(w, errno, err);
	if (n == 0 && w->left != UINT64_MAX)
		return err_set(err, ESTALE, "%s: became smaller while it was read", buf_cstr(&w->path));
	if (n == 0)
		return end_file(w);
	put_meta_number(w, 4, (uint64_t)n);
	XXH3_64bits_update(w->content, chunk, (size_t)n);
	buf_add(&w->out, chunk, (size_t)n);
	w->count.bytes += (uint64_t)n;
	if (w->left != UINT64_MAX)
		w->left -= (uint64_t)n;
	return 0;
}

static int begin_dir(struct archive_writer *w, const char *name, int fd, const struct stat *st,
		     size_t path_len, struct err *err)
{
	_cleanup_close_ int owned = fd;
	if (w->depth == ARCHIVE_DEPTH)
		return failed(w, ENAMETOOLONG, err);
	DIR *d = fdopendir(fd);
	if (!d)
		return failed(w, errno, err);
	owned = -1;
	put_record(w, ARCHIVE_DIR, name, "", st);
	w->levels[w->depth++] = (struct level){.dir = d, .path_len = path_len};
	return 0;
}

static int put_link(struct archive_writer *w, int dirfd, const char *name, const struct stat *st,
		    struct err *err)
{
	char target[ARCHIVE_TARGET_MAX + 2];
	ssize_t n = readlinkat(dirfd, name, target, sizeof(target));
	if (n < 0)
		return failed(w, errno, err);
	if ((size_t)n > ARCHIVE_TARGET_MAX)
		return failed(w, ENAMETOOLONG, err);
	target[n] = '\0';
	put_record(w, ARCHIVE_LINK, name, target, st);
	return 0;
}

/* Looks before it opens: opening a device can do something. */
static int put_entry(struct archive_writer *w, int dirfd, const char *where, const char *name,
		     bool top, size_t path_len, struct err *err)
{
	struct stat st;
	int follow = top ? 0 : AT_SYMLINK_NOFOLLOW;
	if (fstatat(dirfd, where, &st, follow) < 0) {
		if (errno == ENOENT && !top) /* removed since the folder was read */
			return 0;
		return failed(w, errno, err);
	}
	if (S_ISLNK(st.st_mode))
		return put_link(w, dirfd, name, &st, err);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
		w->count.skipped++;
		return 0;
	}
	int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (top ? 0 : O_NOFOLLOW) |
		    (S_ISDIR(st.st_mode) ? O_DIRECTORY : 0);
	int fd = openat(dirfd, where, flags);
	if (fd < 0)
		return failed(w, errno, err);
	mode_t was = st.st_mode & S_IFMT;
	if (fstat(fd, &st) < 0 || (st.st_mode & S_IFMT) != was) {
		close(fd);
		return failed(w, ESTALE, err);
	}
	if (S_ISDIR(st.st_mode))
		return begin_dir(w, name, fd, &st, path_len, err);
	begin_file(w, name, fd, &st);
	return 0;
}

static int step_dir(struct archive_writer *w, struct err *err)
{
	struct level *l = &w->levels[w->depth - 1];
	errno = 0;
	struct dirent *e = readdir(l->dir);
	if (!e && errno)
		return failed(w, errno, err);
	if (!e) {
		put_record(w, ARCHIVE_UP, "", "", NULL);
		closedir(l->dir);
		leave(w, l->path_len);
		w->depth--;
		return 0;
	}
	if (!archive_name_ok(e->d_name, strlen(e->d_name)))
		return 0; /* "." and ".." */
	size_t path_len = buf_len(&w->path);
	buf_addf(&w->path, "/%s", e->d_name);
	size_t depth = w->depth;
	if (put_entry(w, dirfd(l->dir), e->d_name, e->d_name, false, path_len, err) < 0)
		return -1;
	/* The path stays for messages while the entry is in work: a file's is dropped by its folder's next step. */
	if (w->depth == depth && w->fd < 0)
		leave(w, path_len);
	return 0;
}

static void step_end(struct archive_writer *w)
{
	put_record(w, ARCHIVE_END, "", "", NULL);
	put_meta_number(w, 8, w->count.files);
	put_meta_number(w, 8, w->count.bytes);
	put_meta_number(w, 8, XXH3_64bits_digest(w->meta));
	w->ended = true;
}

static int step(struct archive_writer *w, struct err *err)
{
	if (!w->begun) {
		put_meta(w, ARCHIVE_MAGIC, 8);
		w->begun = true;
	}
	if (w->fd >= 0) {
		if (step_file(w, err) < 0)
			return -1;
		if (w->fd < 0 && w->depth) { /* the file is done: its name leaves the path */
			const char *slash = strrchr(buf_cstr(&w->path), '/');
			leave(w, (size_t)(slash - buf_head(&w->path)));
		}
		return 0;
	}
	if (w->depth)
		return step_dir(w, err);
	if (w->next < w->paths.n) {
		const char *p = w->paths.v[w->next++];
		buf_clear(&w->path);
		buf_adds(&w->path, p);
		return put_entry(w, AT_FDCWD, p, last_component(p), true, 0, err);
	}
	step_end(w);
	return 0;
}

ssize_t archive_writer_read(struct archive_writer *w, void *p, size_t max, struct err *err)
{
	while (buf_len(&w->out) < max && !w->ended)
		if (step(w, err) < 0)
			return -1;
	size_t n = MIN(max, buf_len(&w->out));
	if (n)
		memcpy(p, buf_head(&w->out), n);
	buf_consume(&w->out, n);
	return (ssize_t)n;
}
