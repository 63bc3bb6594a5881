/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/size.h"
#include "stage/cache.h"

#define UNFINISHED_S 3600
#define KEPT_S                                                                                     \
	(14 * 24 * 3600) /* then it is made anew: what it was made of may be gone for good, and nobody tells */
#define LIMIT (UINT64_C(1) << 30) /* bytes of all; unless VSE_TEMPLATE_LIMIT says */
#define NOTE ".note"
#define LOCK_LOOKS                                                                                 \
	100 /* of a millisecond each: nobody holds it for longer than some renames take */

const char *const kept_names[KEPT_PARTS] = {"memory", "state"};

struct one {
	char key[KEPT_KEY + 1];
	struct timespec used;
	time_t made;
	uint64_t size;
};

bool kept_key_ok(const char *key)
{
	return strlen(key) == KEPT_KEY && strspn(key, "0123456789abcdef") == KEPT_KEY;
}

char *kept_path(const char *folder, const char *key, const char *what)
{
	return xasprintf("%s/%s.%s", folder, key, what);
}

char *kept_folder(void)
{
	const char *asked = getenv("VSE_CACHE");
	_cleanup_free_ char *folder = asked && asked[0] == '/' ? xstrdup(asked)
							       : xasprintf("/var/tmp/vse-cache-%u",
									   (unsigned)geteuid());
	struct cache *c;
	if (cache_open(folder, UINT64_MAX, &c, NULL) < 0)
		return NULL;
	_cleanup_free_ char *path = path_join(cache_folder(c), "templates");
	cache_close(c);
	return mkdir(path, 0700) == 0 || errno == EEXIST ? TAKE_PTR(path) : NULL;
}

uint64_t kept_limit(void)
{
	const char *text = getenv("VSE_TEMPLATE_LIMIT");
	uint64_t v;
	return text && size_parse(text, &v, NULL) == 0 ? v : LIMIT;
}

void kept_used(const char *folder, const char *key)
{
	_cleanup_free_ char *path = kept_path(folder, key, "note");
	utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW);
}

/* No file of its own, which would have to be swept. */
static int lock(const char *folder, struct err *err)
{
	_cleanup_close_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "%s", folder);
	for (int i = 0; i < LOCK_LOOKS; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return TAKE_FD(fd);
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_errno(err, errno, "%s: lock", folder);
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return err_set(err, EBUSY, "%s: others are at work in it", folder);
}

/* ---- all of them ---- */

static int later_first(const void *a, const void *b)
{
	const struct timespec x = ((const struct one *)a)->used, y = ((const struct one *)b)->used;
	if (x.tv_sec != y.tv_sec)
		return x.tv_sec < y.tv_sec ? 1 : -1;
	return x.tv_nsec == y.tv_nsec ? 0 : x.tv_nsec < y.tv_nsec ? 1 : -1;
}

/* made: 0 where its memory is not there. */
static struct one one_of(const char *folder, const char *key)
{
	struct one one = {.size = 0};
	memcpy(one.key, key, KEPT_KEY);
	for (int i = 0; i < KEPT_PARTS; i++) {
		struct stat st;
		_cleanup_free_ char *path = kept_path(folder, key, kept_names[i]);
		if (lstat(path, &st) < 0)
			continue;
		one.size += (uint64_t)st.st_size;
		one.made = i == KEPT_MEMORY ? st.st_mtime : one.made;
	}
	return one;
}

/* malloc'ed; those that have a note, the most recently used first. */
static struct one *all(const char *folder, size_t *ret_n)
{
	DIR *d = opendir(folder);
	struct one *list = NULL;
	struct dirent *e;
	struct stat st;
	*ret_n = 0;
	while (d && (e = readdir(d))) {
		char key[KEPT_KEY + 1] = "";
		if (strlen(e->d_name) != KEPT_KEY + strlen(NOTE) ||
		    strcmp(e->d_name + KEPT_KEY, NOTE) != 0 ||
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			continue;
		memcpy(key, e->d_name, KEPT_KEY);
		if (!kept_key_ok(key))
			continue;
		struct one one = one_of(folder, key);
		one.used = st.st_mtim;
		list = xreallocarray(list, *ret_n + 1, sizeof(*list));
		list[(*ret_n)++] = one;
	}
	if (d)
		closedir(d);
	if (list)
		qsort(list, *ret_n, sizeof(*list), later_first);
	return list;
}

static bool has_note(const char *folder, const char *file)
{
	_cleanup_free_ char *key = xasprintf("%.*s", KEPT_KEY, file),
			    *note = kept_path(folder, key, "note");
	return path_exists(note);
}

/* What is under way, or was when its agent was killed. */
static void sweep_unfinished(const char *folder)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	struct stat st;
	while (d && (e = readdir(d)))
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		    time(NULL) - st.st_mtime > UNFINISHED_S && !has_note(folder, e->d_name))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

/* The note first: one without it is none. Who has its files open goes on. */
static void remove_one(const char *folder, const char *key)
{
	static const char *const files[] = {"note", "memory", "state"};
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *path = kept_path(folder, key, files[i]);
		unlink(path);
	}
}

void kept_sweep(const char *folder, uint64_t limit, const char *key)
{
	size_t n;
	_cleanup_close_ int held = lock(folder, NULL);
	if (held < 0)
		return; /* the next one does it */
	sweep_unfinished(folder);
	_cleanup_free_ struct one *list = all(folder, &n);
	uint64_t sum = key ? one_of(folder, key).size : 0;
	for (size_t i = 0; i < n; i++) {
		bool old = time(NULL) - list[i].made > KEPT_S,
		     own = key && strcmp(list[i].key, key) == 0;
		if (old || (!own && sum + list[i].size > limit))
			remove_one(folder, list[i].key);
		else if (!own)
			sum += list[i].size;
	}
}

size_t kept_list(const char *folder, char (*keys)[KEPT_KEY + 1], size_t max)
{
	size_t n;
	_cleanup_free_ struct one *list = all(folder, &n);
	n = MIN(n, max);
	for (size_t i = 0; i < n; i++)
		memcpy(keys[i], list[i].key, sizeof(keys[i]));
	return n;
}

/* ---- to be read ---- */

int kept_open(const char *folder, const char *key, struct kept *ret, struct err *err)
{
	struct kept k = {.fds = {-1, -1}};
	struct stat st;
	_cleanup_free_ char *note = kept_path(folder, key, "note");
	if (path_read(note, KEPT_NOTE, &k.note, NULL, err) < 0)
		return -1;
	for (int i = 0; i < KEPT_PARTS; i++) {
		_cleanup_free_ char *path = kept_path(folder, key, kept_names[i]);
		k.fds[i] = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (k.fds[i] < 0 || fstat(k.fds[i], &st) < 0 || !S_ISREG(st.st_mode)) {
			err_errno(err, errno ? errno : EINVAL, "%s", path);
			kept_close(&k);
			return -1;
		}
		k.sizes[i] = (uint64_t)st.st_size;
		if (i == KEPT_MEMORY)
			k.age_s = (uint64_t)MAX(time(NULL) - st.st_mtime, 0);
	}
	*ret = k;
	return 0;
}

void kept_close(struct kept *k)
{
	for (int i = 0; i < KEPT_PARTS; i++)
		if (k->fds[i] >= 0)
			close(TAKE_FD(k->fds[i]));
	free(TAKE_PTR(k->note));
}

/* ---- to be there, or not ---- */

int kept_put(const char *folder, const char *key, char *const temps[KEPT_PARTS], const char *note,
	     struct err *err)
{
	_cleanup_free_ char *path = kept_path(folder, key, "note");
	_cleanup_close_ int held = lock(folder, err);
	if (held < 0)
		return -1;
	for (int i = 0; i < KEPT_PARTS; i++) {
		_cleanup_free_ char *to = kept_path(folder, key, kept_names[i]);
		if (rename(temps[i], to) < 0)
			return err_errno(err, errno, "%s", to);
	}
	return path_replace(path, note, strlen(note), 0600, err);
}

bool kept_refuse(const char *folder, const char *key, const char *id)
{
	_cleanup_free_ char *path = kept_path(folder, key, "note"), *text = NULL;
	_cleanup_close_ int held = lock(folder, NULL);
	if (path_read(path, KEPT_NOTE, &text, NULL, NULL) == 0 && strncmp(text, id, strlen(id)) != 0)
		return false;
	if (held >= 0)
		unlink(path);
	return true;
}

/* ---- one that comes ---- */

struct kept_new {
	char *folder, *note, key[KEPT_KEY + 1];
	char *temps[KEPT_PARTS];
	int fds[KEPT_PARTS];
	uint64_t sizes[KEPT_PARTS], got[KEPT_PARTS], age_s;
};

int kept_begin(const char *folder, const char *key, const char *note, const uint64_t want[KEPT_PARTS],
	       uint64_t age_s, struct kept_new **ret, struct err *err)
{
	uint64_t random;
	if (!kept_key_ok(key) || strlen(note) > KEPT_NOTE)
		return err_set(err, EINVAL, "this is no template");
	if (want[0] > kept_limit() || want[1] > kept_limit() - want[0])
		return err_set(err, EFBIG, "a template of %llu MB is more than this node keeps",
			       (unsigned long long)((want[0] + want[1]) / 1000000));
	if (age_s > KEPT_S)
		return err_set(err, ESTALE, "the template is too old");
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return err_errno(err, errno, "random bytes");
	struct kept_new *k = xcalloc(1, sizeof(*k));
	*k = (struct kept_new){
		.folder = xstrdup(folder), .note = xstrdup(note), .fds = {-1, -1}, .age_s = age_s};
	memcpy(k->key, key, sizeof(k->key));
	for (int i = 0; i < KEPT_PARTS; i++) {
		char *path = xasprintf("%s/.%016llx.%s", folder, (unsigned long long)random,
				       kept_names[i]);
		k->sizes[i] = want[i];
		k->temps[i] = path;
		k->fds[i] = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (k->fds[i] < 0) {
			err_errno(err, errno, "%s", path);
			kept_drop(k);
			return -1;
		}
	}
	*ret = k;
	return 0;
}

int kept_add(struct kept_new *k, enum kept_part part, const void *p, size_t n, struct err *err)
{
	if (n > k->sizes[part] - k->got[part])
		return err_set(err, EPROTO, "the template's %s is longer than it was said to be",
			       kept_names[part]);
	if (fd_write_all(k->fds[part], p, n) < 0)
		return err_errno(err, errno, "%s", k->temps[part]);
	k->got[part] += n;
	return 0;
}

int kept_commit(struct kept_new *k, struct err *err)
{
	for (int i = 0; i < KEPT_PARTS; i++)
		if (k->got[i] != k->sizes[i])
			return err_set(err, EBADMSG, "%llu of %llu bytes of the template's %s came",
				       (unsigned long long)k->got[i],
				       (unsigned long long)k->sizes[i], kept_names[i]);
	if (kept_put(k->folder, k->key, k->temps, k->note, err) < 0)
		return -1;
	/* Last: an old file without a note is taken for one that nobody finished. */
	const struct timespec made = {.tv_sec = time(NULL) - (time_t)k->age_s};
	return futimens(k->fds[KEPT_MEMORY], (const struct timespec[]){made, made}) < 0
		       ? err_errno(err, errno, "%s: age of a template", k->folder)
		       : 0;
}

void kept_drop(struct kept_new *k)
{
	if (!k)
		return;
	for (int i = 0; i < KEPT_PARTS; i++) {
		if (k->fds[i] >= 0)
			close(k->fds[i]);
		if (k->temps[i])
			unlink(k->temps[i]);
		free(k->temps[i]);
	}
	free(k->folder);
	free(k->note);
	free(k);
}
