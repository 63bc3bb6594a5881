/* SPDX-License-Identifier: Apache-2.0 */
#include "image/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/alloc.h"
#include "base/strvec.h"

#define TREE_DEPTH_MAX 256 /* one descriptor a level */

struct walk {
	/* name: the path below the root ("etc/passwd"); dirfd and base reach it. Nonzero ends the
	 * walk. */
	int (*visit)(struct walk *w, int dirfd, const char *base, const char *name,
		     const struct stat *st, struct err *err);
	bool skip_volatile;
	struct digest *d;
	int64_t epoch, newest;
	struct timespec before;
	uint32_t sub_first, sub_count;
	struct tree_facts facts;
};

static int list_names(int fd, struct strvec *out, struct err *err)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	if (!d) {
		int code = errno;
		if (copy >= 0)
			close(copy);
		return err_errno(err, code, "read folder");
	}
	struct dirent *e;
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			strvec_add(out, e->d_name);
	closedir(d);
	strvec_sort(out);
	return 0;
}

static bool is_volatile(const char *name)
{
	static const char *const v[] = {"dev", "proc", "sys", "run", "tmp"};
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		if (strcmp(name, v[i]) == 0)
			return true;
	return false;
}

static int walk_dir(struct walk *w, int fd, const char *prefix, unsigned depth, struct err *err);

static int walk_entry(struct walk *w, int fd, const char *base, const char *prefix, unsigned depth,
		      struct err *err)
{
	_cleanup_free_ char *name = xasprintf("%s%s%s", prefix, *prefix ? "/" : "", base);
	struct stat st;
	if (fstatat(fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_errno(err, errno, "/%s", name);
	if (w->visit(w, fd, base, name, &st, err) < 0)
		return -1;
	if (!S_ISDIR(st.st_mode) || (w->skip_volatile && !*prefix && is_volatile(base)))
		return 0;
	_cleanup_close_ int sub = openat(fd, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* A folder of a subordinate id is closed to its user outside the namespace. */
	if (sub < 0 && errno == EACCES && w->skip_volatile) {
		w->facts.closed = 1;
		return 0;
	}
	if (sub < 0)
		return err_errno(err, errno, "/%s", name);
	return walk_dir(w, sub, name, depth + 1, err);
}

static int walk_dir(struct walk *w, int fd, const char *prefix, unsigned depth, struct err *err)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	if (depth > TREE_DEPTH_MAX)
		return err_set(err, ELOOP, "/%s: deeper than %d folders", prefix, TREE_DEPTH_MAX);
	struct err e = ERR_INIT;
	if (list_names(fd, &names, &e) < 0) {
		if (e.code == EACCES && w->skip_volatile) {
			w->facts.closed = 1;
			return 0;
		}
		err_copy(err, &e);
		return err_prefix(err, "/%s: ", prefix);
	}
	for (size_t i = 0; i < names.n; i++)
		if (walk_entry(w, fd, names.v[i], prefix, depth, err) < 0)
			return -1;
	return 0;
}

static int walk_root(struct walk *w, const char *dir, struct err *err)
{
	struct stat st;
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "%s", dir);
	if (w->visit(w, fd, ".", "", &st, err) < 0 || walk_dir(w, fd, "", 0, err) < 0)
		return err_prefix(err, "%s: ", dir);
	return 0;
}

static int visit_fingerprint(struct walk *w, int dirfd, const char *base, const char *name,
			     const struct stat *st, struct err *err)
{
	(void)dirfd;
	(void)base;
	(void)err;
	digest_field(w->d, name);
	/* The top folder's own times change when a build mounts or lists beside it; its content is
	 * what counts. */
	const uint64_t v[] = {st->st_mode,
			      st->st_uid,
			      st->st_gid,
			      S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size,
			      (uint64_t)st->st_mtim.tv_sec,
			      (uint64_t)st->st_mtim.tv_nsec,
			      (uint64_t)st->st_ctim.tv_sec,
			      (uint64_t)st->st_ctim.tv_nsec,
			      st->st_ino};
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		digest_number(w->d, v[i]);
	w->facts.entries++;
	if (S_ISREG(st->st_mode))
		w->facts.bytes += (uint64_t)st->st_blocks * 512;
	if (st->st_uid - w->sub_first < w->sub_count || st->st_gid - w->sub_first < w->sub_count)
		w->facts.subordinate = 1;
	return 0;
}

int tree_fingerprint(const char *dir, uint32_t sub_first, uint32_t sub_count,
		     struct tree_facts *ret, struct err *err)
{
	_cleanup_digest_ struct digest *d = digest_new();
	struct walk w = {.visit = visit_fingerprint,
			 .skip_volatile = true,
			 .d = d,
			 .sub_first = sub_first,
			 .sub_count = sub_count};
	if (walk_root(&w, dir, err) < 0)
		return -1;
	digest_hex(d, w.facts.hex);
	*ret = w.facts;
	return 0;
}

static bool is_module(const char *name)
{
	const char *ko = strstr(name, ".ko");
	return ko && (!ko[3] || ko[3] == '.');
}

static int visit_outline(struct walk *w, int dirfd, const char *base, const char *name,
			 const struct stat *st, struct err *err)
{
	(void)dirfd;
	(void)err;
	bool regular = S_ISREG(st->st_mode);
	digest_field(w->d, name);
	digest_number(w->d, st->st_mode);
	digest_number(w->d, regular ? (uint64_t)st->st_size : 0);
	digest_number(w->d, regular && is_module(base) ? (uint64_t)st->st_mtime : 0);
	return 0;
}

int tree_outline(const char *dir, char out[DIGEST_HEX], struct err *err)
{
	_cleanup_digest_ struct digest *d = digest_new();
	struct walk w = {.visit = visit_outline, .d = d};
	if (walk_root(&w, dir, err) < 0)
		return -1;
	digest_hex(d, out);
	return 0;
}

static int visit_newest(struct walk *w, int dirfd, const char *base, const char *name,
			const struct stat *st, struct err *err)
{
	(void)dirfd;
	(void)base;
	(void)name;
	(void)err;
	const struct timespec t = st->st_mtim, b = w->before;
	bool earlier = t.tv_sec < b.tv_sec || (t.tv_sec == b.tv_sec && t.tv_nsec < b.tv_nsec);
	if (S_ISREG(st->st_mode) && earlier && t.tv_sec > w->newest)
		w->newest = t.tv_sec;
	return 0;
}

int tree_newest(const char *dir, struct timespec before, int64_t *ret, struct err *err)
{
	struct walk w = {.visit = visit_newest, .before = before};
	if (walk_root(&w, dir, err) < 0)
		return -1;
	*ret = w.newest;
	return 0;
}

static int add_content(struct digest *d, int dirfd, const char *base, const char *name, struct err *err)
{
	char hex[DIGEST_HEX], caps[64];
	_cleanup_close_ int fd = openat(dirfd, base, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "/%s", name);
	if (digest_fd(fd, hex, err) < 0)
		return err_prefix(err, "/%s: ", name);
	digest_field(d, hex);
	ssize_t n = fgetxattr(fd, "security.capability", caps, sizeof(caps));
	digest_number(d, n > 0 ? (uint64_t)n : 0);
	if (n > 0)
		digest_add(d, caps, (size_t)n);
	return 0;
}

static int add_link(struct digest *d, int dirfd, const char *base, const char *name, struct err *err)
{
	char target[4097];
	ssize_t n = readlinkat(dirfd, base, target, sizeof(target) - 1);
	if (n < 0)
		return err_errno(err, errno, "/%s", name);
	target[n] = '\0';
	digest_field(d, target);
	return 0;
}

static int visit_digest(struct walk *w, int dirfd, const char *base, const char *name,
			const struct stat *st, struct err *err)
{
	int64_t mtime = MIN((int64_t)st->st_mtime, w->epoch);
	digest_field(w->d, name);
	bool dev = S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode);
	const bool owned = w->epoch != TREE_CONTENT_ONLY;
	const uint64_t v[] = {
		st->st_mode,     owned ? st->st_uid : 0,       owned ? st->st_gid : 0,
		(uint64_t)mtime, dev ? major(st->st_rdev) : 0, dev ? minor(st->st_rdev) : 0};
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		digest_number(w->d, v[i]);
	if (S_ISREG(st->st_mode))
		return add_content(w->d, dirfd, base, name, err);
	if (S_ISLNK(st->st_mode))
		return add_link(w->d, dirfd, base, name, err);
	return 0;
}

int tree_digest(const char *dir, int64_t epoch, char out[DIGEST_HEX], struct err *err)
{
	_cleanup_digest_ struct digest *d = digest_new();
	struct walk w = {.visit = visit_digest, .d = d, .epoch = epoch};
	if (walk_root(&w, dir, err) < 0)
		return -1;
	digest_hex(d, out);
	return 0;
}
