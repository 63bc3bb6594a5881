/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "wire/archive-format.h"
#include "wire/archive.h"

enum state { MAGIC, HEAD, NAMES, CHUNK_LEN, CHUNK, SUM, TAIL, DONE, FAILED };

struct attributes {
	mode_t mode;
	struct timespec mtime;
};

struct folder {
	int fd;
	bool made; /* by us: mode and time are set when it is left */
	struct attributes attr;
	size_t path_len; /* of the path without it */
};

struct archive_reader {
	enum state state;
	struct buf part; /* bytes of the field in work, until there are `want` */
	size_t want;
	struct folder folders[ARCHIVE_DEPTH + 1]; /* [0] is the target */
	size_t depth;
	char *top_name;      /* replaces the name of the top entry; NULL: it keeps its own */
	char *expected_name; /* all that the top entry may be called; NULL: anything */
	size_t n_top;
	/* the record in work */
	enum archive_kind kind;
	size_t name_len, target_len;
	struct attributes attr;
	/* the file in work */
	int fd;
	char name[256], temp[32];
	uint64_t chunk_left;
	struct buf path; /* for messages */
	XXH3_state_t *content, *meta;
	struct archive_count count;
};

static void expect(struct archive_reader *r, enum state state, size_t want)
{
	r->state = state;
	r->want = want;
	buf_clear(&r->part);
}

int archive_reader_create(int dirfd, const char *name, struct archive_reader **ret, struct err *err)
{
	if (name && !archive_name_ok(name, strlen(name)))
		return err_set(err, EINVAL, "'%s' is no name for a file", name);
	int fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return err_errno(err, errno, "open the target folder");
	struct archive_reader *r = xcalloc(1, sizeof(*r));
	r->folders[0].fd = fd;
	r->fd = -1;
	r->top_name = xstrdup(name);
	r->content = XXH3_createState();
	r->meta = XXH3_createState();
	if (!r->content || !r->meta)
		abort();
	XXH3_64bits_reset(r->meta);
	expect(r, MAGIC, 8);
	*ret = r;
	return 0;
}

void archive_reader_expect(struct archive_reader *r, const char *name)
{
	free(r->expected_name);
	r->expected_name = xstrdup(name);
}

static int here(const struct archive_reader *r)
{
	return r->folders[r->depth].fd;
}

static void drop_file(struct archive_reader *r)
{
	if (r->fd < 0)
		return;
	close(TAKE_FD(r->fd));
	unlinkat(here(r), r->temp, 0);
}

void archive_reader_destroy(struct archive_reader *r)
{
	if (!r)
		return;
	drop_file(r);
	for (size_t i = 0; i <= r->depth; i++)
		close(r->folders[i].fd);
	free(r->top_name);
	free(r->expected_name);
	buf_finish(&r->part);
	buf_finish(&r->path);
	XXH3_freeState(r->content);
	XXH3_freeState(r->meta);
	free(r);
}

struct archive_count archive_reader_count(const struct archive_reader *r)
{
	return r->count;
}

static int damaged(struct archive_reader *r, const char *what, struct err *err)
{
	return err_set(err, EBADMSG, "%s%sthe archive is damaged: %s", buf_cstr(&r->path),
		       buf_len(&r->path) ? ": " : "", what);
}

static int failed(struct archive_reader *r, int code, struct err *err)
{
	return err_errno(err, code, "%s", buf_cstr(&r->path));
}

static void leave(struct archive_reader *r)
{
	/* The path ends where the innermost open folder's name does. */
	const char *p = buf_cstr(&r->path), *slash = strrchr(p, '/');
	r->path.end = r->path.start + (slash ? (size_t)(slash - p) : 0);
}

/* A name that is not there yet, in r->temp. `make` creates it and gives -1 with errno EEXIST if it is taken. */
static int make_temp(struct archive_reader *r, const char *target)
{
	static unsigned turn;
	for (int i = 0; i < 64; i++) {
		struct timespec ts;
		clock_gettime(CLOCK_REALTIME, &ts);
		unsigned x = ((unsigned)ts.tv_nsec ^ (unsigned)getpid() << 12) + ++turn;
		snprintf(r->temp, sizeof(r->temp), ".vse-copy-%08x", x);
		int fd = target ? symlinkat(target, here(r), r->temp)
				: openat(here(r), r->temp,
					 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0 || errno != EEXIST)
			return fd;
	}
	return -1;
}

static int begin_file(struct archive_reader *r, struct err *err)
{
	r->fd = make_temp(r, NULL);
	if (r->fd < 0)
		return failed(r, errno, err);
	XXH3_64bits_reset(r->content);
	expect(r, CHUNK_LEN, 4);
	return 0;
}

static int end_file(struct archive_reader *r, const unsigned char *sum, struct err *err)
{
	if (archive_get(sum, 8) != XXH3_64bits_digest(r->content))
		return damaged(r, "the checksum of the content is wrong", err);
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, r->attr.mtime};
	if (fchmod(r->fd, r->attr.mode) < 0 || futimens(r->fd, times) < 0)
		return failed(r, errno, err);
	int fd = TAKE_FD(r->fd);
	int code = close(fd) < 0 ? errno : 0;
	if (code == 0 && renameat(here(r), r->temp, here(r), r->name) < 0)
		code = errno;
	if (code) {
		unlinkat(here(r), r->temp, 0);
		return failed(r, code, err);
	}
	r->count.files++;
	leave(r);
	expect(r, HEAD, ARCHIVE_HEAD);
	return 0;
}

static int make_link(struct archive_reader *r, const char *target, struct err *err)
{
	if (make_temp(r, target) < 0)
		return failed(r, errno, err);
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, r->attr.mtime};
	utimensat(here(r), r->temp, times, AT_SYMLINK_NOFOLLOW);
	if (renameat(here(r), r->temp, here(r), r->name) < 0) {
		int code = errno;
		unlinkat(here(r), r->temp, 0);
		return failed(r, code, err);
	}
	leave(r);
	expect(r, HEAD, ARCHIVE_HEAD);
	return 0;
}

static int enter_dir(struct archive_reader *r, struct err *err)
{
	if (r->depth == ARCHIVE_DEPTH)
		return failed(r, ENAMETOOLONG, err);
	bool made = mkdirat(here(r), r->name, 0700) == 0;
	if (!made && errno != EEXIST)
		return failed(r, errno, err);
	int fd = openat(here(r), r->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return failed(r, errno == ELOOP ? ENOTDIR : errno, err);
	r->folders[++r->depth] = (struct folder){.fd = fd, .made = made, .attr = r->attr};
	expect(r, HEAD, ARCHIVE_HEAD);
	return 0;
}

static int leave_dir(struct archive_reader *r, struct err *err)
{
	if (r->depth == 0)
		return damaged(r, "it leaves a folder it never entered", err);
	struct folder *f = &r->folders[r->depth];
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, f->attr.mtime};
	if (f->made && (fchmod(f->fd, f->attr.mode) < 0 || futimens(f->fd, times) < 0))
		return failed(r, errno, err);
	close(f->fd);
	r->depth--;
	leave(r);
	expect(r, HEAD, ARCHIVE_HEAD);
	return 0;
}

static int take_head(struct archive_reader *r, const unsigned char *h, struct err *err)
{
	r->kind = h[0];
	r->name_len = h[1];
	r->target_len = (size_t)archive_get(h + 2, 2);
	r->attr = (struct attributes){
		.mode = (mode_t)archive_get(h + 4, 4),
		.mtime = {.tv_sec = (time_t)archive_get(h + 8, 8),
			  .tv_nsec = (long)archive_get(h + 16, 4)},
	};
	if (r->kind < ARCHIVE_FILE || r->kind > ARCHIVE_END)
		return damaged(r, "a record of unknown kind", err);
	if ((r->attr.mode & ~(mode_t)0777) || r->attr.mtime.tv_nsec >= 1000000000)
		return damaged(r, "a record with a bad mode or time", err);
	bool named = r->kind <= ARCHIVE_LINK;
	if (named != (r->name_len > 0) || (r->kind == ARCHIVE_LINK) != (r->target_len > 0) ||
	    r->target_len > ARCHIVE_TARGET_MAX)
		return damaged(r, "a record with a bad name length", err);
	if (r->kind == ARCHIVE_UP)
		return leave_dir(r, err);
	if (r->kind == ARCHIVE_END) {
		if (r->depth)
			return damaged(r, "it ends inside a folder", err);
		if (r->expected_name && !r->n_top)
			return err_set(err, EBADMSG, "nothing was sent instead of '%s'",
				       r->expected_name);
		expect(r, TAIL, 24);
		return 0;
	}
	expect(r, NAMES, r->name_len + r->target_len);
	return 0;
}

/* What was asked for is one entry; whoever sends others (CVE-2019-6111 of scp) would choose what is overwritten. A
 * link there would choose what is read or written next. */
static int check_top(struct archive_reader *r, struct err *err)
{
	if (r->expected_name && strcmp(r->name, r->expected_name) != 0)
		return err_set(err, EBADMSG, "something else than '%s' was sent, and is refused",
			       r->expected_name);
	if (r->expected_name && r->kind == ARCHIVE_LINK)
		return err_set(err, EBADMSG, "'%s' was sent as a link, and is refused",
			       r->expected_name);
	if (r->n_top++ && (r->top_name || r->expected_name))
		return err_set(err, EINVAL, "%s: more than one entry cannot get this name",
			       r->top_name ? r->top_name : r->expected_name);
	if (r->top_name)
		snprintf(r->name, sizeof(r->name), "%s", r->top_name);
	return 0;
}

static int set_name(struct archive_reader *r, const char *name, struct err *err)
{
	if (!archive_name_ok(name, r->name_len))
		return damaged(r, "a name that no file can have", err);
	snprintf(r->name, sizeof(r->name), "%.*s", (int)r->name_len, name);
	if (r->depth == 0 && check_top(r, err) < 0)
		return -1;
	if (buf_len(&r->path))
		buf_addc(&r->path, '/');
	buf_adds(&r->path, r->name);
	return 0;
}

static int take_names(struct archive_reader *r, const char *p, struct err *err)
{
	if (set_name(r, p, err) < 0)
		return -1;
	if (r->kind == ARCHIVE_FILE)
		return begin_file(r, err);
	if (r->kind == ARCHIVE_DIR)
		return enter_dir(r, err);
	if (memchr(p + r->name_len, 0, r->target_len))
		return damaged(r, "a link with a NUL in its target", err);
	_cleanup_free_ char *target = xmemdup0(p + r->name_len, r->target_len);
	return make_link(r, target, err);
}

static int take_chunk_len(struct archive_reader *r, const unsigned char *p, struct err *err)
{
	r->chunk_left = archive_get(p, 4);
	if (r->chunk_left > ARCHIVE_CHUNK)
		return damaged(r, "a chunk that is too long", err);
	if (r->chunk_left)
		expect(r, CHUNK, 0);
	else
		expect(r, SUM, 8);
	return 0;
}

static int take_tail(struct archive_reader *r, const unsigned char *p, struct err *err)
{
	XXH3_64bits_update(r->meta, p, 16);
	if (archive_get(p + 16, 8) != XXH3_64bits_digest(r->meta) ||
	    archive_get(p, 8) != r->count.files || archive_get(p + 8, 8) != r->count.bytes)
		return damaged(r, "the checksum at its end is wrong", err);
	expect(r, DONE, 0);
	return 0;
}

static int take_part(struct archive_reader *r, struct err *err)
{
	_cleanup_buf_ struct buf part = r->part; /* expect() reuses r->part */
	r->part = BUF_INIT;
	const unsigned char *p = (const unsigned char *)buf_head(&part);
	if (r->state != TAIL)
		XXH3_64bits_update(r->meta, p, r->want);
	switch (r->state) {
	case MAGIC:
		if (memcmp(p, ARCHIVE_MAGIC, 8) != 0)
			return err_set(err, EBADMSG, "what came is no archive");
		expect(r, HEAD, ARCHIVE_HEAD);
		return 0;
	case HEAD: return take_head(r, p, err);
	case NAMES: return take_names(r, (const char *)p, err);
	case CHUNK_LEN: return take_chunk_len(r, p, err);
	case SUM: return end_file(r, p, err);
	default: return take_tail(r, p, err);
	}
}

static int take_content(struct archive_reader *r, const char *p, size_t n, struct err *err)
{
	if (fd_write_all(r->fd, p, n) < 0)
		return failed(r, errno, err);
	XXH3_64bits_update(r->content, p, n);
	r->count.bytes += n;
	r->chunk_left -= n;
	if (!r->chunk_left)
		expect(r, CHUNK_LEN, 4);
	return 0;
}

static int feed(struct archive_reader *r, const char *p, size_t n, struct err *err)
{
	while (n) {
		size_t take;
		if (r->state == DONE)
			return damaged(r, "bytes after its end", err);
		if (r->state == CHUNK) {
			take = MIN((uint64_t)n, r->chunk_left);
			if (take_content(r, p, take, err) < 0)
				return -1;
		} else {
			take = MIN(n, r->want - buf_len(&r->part));
			buf_add(&r->part, p, take);
			if (buf_len(&r->part) == r->want && take_part(r, err) < 0)
				return -1;
		}
		p += take;
		n -= take;
	}
	return 0;
}

int archive_reader_feed(struct archive_reader *r, const void *p, size_t n, struct err *err)
{
	if (r->state == FAILED)
		return err_set(err, EBADMSG, "the copy has failed before");
	if (feed(r, p, n, err) == 0)
		return 0;
	drop_file(r);
	r->state = FAILED;
	return -1;
}

int archive_reader_finish(struct archive_reader *r, struct err *err)
{
	if (r->state == DONE)
		return 0;
	if (r->state == FAILED)
		return err_set(err, EBADMSG, "the copy has failed before");
	damaged(r, "it ends too early", err);
	drop_file(r);
	r->state = FAILED;
	return -1;
}

int archive_target(const char *path, bool into, int *ret_dirfd, char **ret_name, struct err *err)
{
	size_t n = strlen(path);
	into = into || (n && path[n - 1] == '/');
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && (into || (errno != ENOENT && errno != ENOTDIR)))
		return err_errno(err, errno, "%s", path);
	if (fd >= 0) {
		*ret_dirfd = fd;
		*ret_name = NULL;
		return 0;
	}
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	if (!archive_name_ok(name, strlen(name)))
		return err_set(err, EINVAL, "%s: is no name for a file", path);
	_cleanup_free_ char *dir = slash ? xstrndup(path, slash == path ? 1 : (size_t)(slash - path))
					 : xstrdup(".");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "%s", dir);
	*ret_dirfd = fd;
	*ret_name = xstrdup(name);
	return 0;
}
