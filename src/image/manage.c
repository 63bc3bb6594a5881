/* SPDX-License-Identifier: Apache-2.0 */
/* Finding, listing and removing what is in the store. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "image/image.h"
#include "image/sandbox.h"
#include "image/store.h"

#define DAY_S 86400u

static bool is_id(const char *s)
{
	return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

struct list {
	struct image **v;
	size_t n;
};

static void list_add(struct list *l, const char *store)
{
	_cleanup_free_ char *images = path_join(store, "images");
	DIR *d = opendir(images);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		struct image *i = NULL;
		_cleanup_free_ char *dir = path_join(images, e->d_name);
		/* One that another process removes right now is no failure. */
		if (!is_id(e->d_name) || image_load(dir, &i, NULL) < 0)
			continue;
		l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
		l->v[l->n++] = i;
	}
	if (d)
		closedir(d);
}

static int newest_first(const void *a, const void *b)
{
	const struct image *x = *(struct image *const *)a, *y = *(struct image *const *)b;
	if (x->built != y->built)
		return x->built < y->built ? 1 : -1;
	return strcmp(x->id, y->id);
}

int image_list(const char *store, struct image ***ret, size_t *ret_n, struct err *err)
{
	_cleanup_free_ char *own = NULL, *site = store_site();
	struct list l = {0};
	if (store_look(store, &own, err) < 0)
		return -1;
	if (own)
		list_add(&l, own);
	if (site && (!own || strcmp(site, own) != 0))
		list_add(&l, site);
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), newest_first);
	*ret = l.v;
	*ret_n = l.n;
	return 0;
}

/* The index of what ref names: a name (the list is newest first), else an id or a prefix of one. */
static int pick(struct image **v, size_t n, const char *ref, size_t *ret, struct err *err)
{
	size_t len = strlen(ref), hits = 0;
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i]->name, ref) == 0) {
			*ret = i;
			return 0;
		}
	bool hex = len >= 4 && len <= 64 && strspn(ref, "0123456789abcdef") == len;
	const char *id = NULL;
	for (size_t i = 0; i < n && hex; i++)
		if (strncmp(v[i]->id, ref, len) == 0 && (!id || strcmp(id, v[i]->id) != 0)) {
			if (!hits++)
				*ret = i;
			id = v[i]->id;
		}
	if (hits == 1)
		return 0;
	if (hits > 1)
		return err_set(err, ENOTUNIQ,
			       "image %s: %zu images begin with that: give more digits", ref, hits);
	return err_set(err, ENOENT, "image %s: no such image: `vse images` lists them", ref);
}

int image_open(const char *store, const char *ref, struct image **ret, struct err *err)
{
	_cleanup_free_ struct image **v = NULL;
	_cleanup_free_ char *own = NULL;
	size_t n = 0, at = 0;
	if (store_look(store, &own, err) < 0 || image_list(store, &v, &n, err) < 0)
		return -1;
	int code = pick(v, n, ref, &at, err);
	for (size_t i = 0; i < n; i++)
		if (code < 0 || i != at)
			image_destroy(v[i]);
	if (code < 0)
		return -1;
	/* Without a guest agent beside this program the image can still be shown and removed. */
	(void)!image_initrd(own, v[at], NULL, NULL);
	*ret = v[at];
	return 0;
}

static uint64_t tree_size(const char *path)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return 0;
	if (!S_ISDIR(st.st_mode))
		return (uint64_t)st.st_size;
	uint64_t sum = 0;
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
			_cleanup_free_ char *p = path_join(path, e->d_name);
			sum += tree_size(p);
		}
	if (d)
		closedir(d);
	return sum;
}

int image_remove(const char *store, const struct image *i, struct err *err)
{
	_cleanup_free_ char *own = NULL;
	if (store_look(store, &own, err) < 0)
		return -1;
	_cleanup_free_ char *expect = own ? xasprintf("%s/images/%s", own, i->id) : NULL;
	if (!expect || strcmp(expect, i->dir) != 0)
		return err_set(err, EROFS, "image %.12s: belongs to the site's store %s, not to yours",
			       i->id, i->dir);
	return store_drop_image(own, i->id, err);
}

/* Calls fn for every entry of store/sub; adds up what it says it freed. */
static uint64_t each(const char *store, const char *sub,
		     uint64_t (*fn)(const char *store, const char *path, const char *name, uint64_t limit),
		     uint64_t limit)
{
	_cleanup_free_ char *dir = path_join(store, sub);
	uint64_t sum = 0;
	DIR *d = opendir(dir);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		_cleanup_free_ char *p = path_join(dir, e->d_name);
		if (e->d_name[0] != '.')
			sum += fn(store, p, e->d_name, limit);
	}
	if (d)
		closedir(d);
	return sum;
}

/* A lock file nobody holds and no input needs. */
static uint64_t gc_lock(const char *store, const char *path, const char *name, uint64_t limit)
{
	_cleanup_free_ char *id = NULL;
	(void)limit;
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && store_input(store, name, &id, NULL) < 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlink(path);
	return 0;
}

static uint64_t gc_file(const char *store, const char *path, const char *name, uint64_t limit)
{
	struct stat st;
	(void)store;
	(void)name;
	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_mtime >= limit ||
	    unlink(path) < 0)
		return 0;
	return (uint64_t)st.st_size;
}

static uint64_t gc_cache(const char *store, const char *path, const char *name, uint64_t limit)
{
	_cleanup_free_ char *sub = path_join("cache/debs", name);
	uint64_t sum = each(store, sub, gc_file, limit);
	(void)rmdir(path);
	return sum;
}

static bool has_image(const char *store, const char *id)
{
	_cleanup_free_ char *dir = store ? xasprintf("%s/images/%.64s", store, id) : NULL;
	return dir && path_exists(dir);
}

/* One in use stays; one of no image goes; the others (an older vse's, one of a site image) by age. */
static uint64_t gc_initrd(const char *store, const char *path, const char *name, uint64_t limit)
{
	_cleanup_free_ char *site = store_site();
	_cleanup_close_ int lock = -1;
	bool known = has_image(store, name) || has_image(site, name);
	if (store_lock_idle(path, "initramfs", &lock, NULL) < 0)
		return 0;
	return gc_file(store, path, name, known ? limit : UINT64_MAX);
}

struct input {
	char *key, *id, *name;
	struct timespec used;
};

struct inputs {
	struct input *v;
	size_t n;
};

static void inputs_finish(struct inputs *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].key);
		free(l->v[i].id);
		free(l->v[i].name);
	}
	free(l->v);
}

/* Those of an image that is whole; the others are deleted. */
static void inputs_read(const char *store, struct inputs *l)
{
	_cleanup_free_ char *dir = path_join(store, "inputs");
	DIR *d = opendir(dir);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		_cleanup_free_ char *id = NULL;
		struct image *image = NULL;
		struct stat st;
		if (e->d_name[0] == '.')
			continue;
		if (store_input(store, e->d_name, &id, NULL) == 0) {
			_cleanup_free_ char *p = xasprintf("%s/images/%s", store, id);
			(void)!image_load(p, &image, NULL);
		}
		if (!image || fstatat(dirfd(d), e->d_name, &st, 0) < 0) {
			unlinkat(dirfd(d), e->d_name, 0);
		} else {
			l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
			l->v[l->n++] = (struct input){.key = xstrdup(e->d_name),
						      .id = TAKE_PTR(id),
						      .name = xstrdup(image->name),
						      .used = st.st_mtim};
		}
		image_destroy(image);
	}
	if (d)
		closedir(d);
}

static bool used_before(const struct input *a, const struct input *b)
{
	if (a->used.tv_sec != b->used.tv_sec)
		return a->used.tv_sec < b->used.tv_sec;
	if (a->used.tv_nsec != b->used.tv_nsec)
		return a->used.tv_nsec < b->used.tv_nsec;
	return strcmp(a->key, b->key) < 0;
}

/* An edited VSE file leaves the input it was before. The one last used of a name stays. */
static bool is_superseded(const struct inputs *l, const struct input *i)
{
	for (size_t k = 0; k < l->n; k++)
		if (strcmp(l->v[k].name, i->name) == 0 && used_before(i, &l->v[k]))
			return true;
	return false;
}

/* What is left is wanted. */
static void gc_inputs(const char *store, uint64_t limit, struct strvec *ret_wanted)
{
	struct inputs l = {0};
	inputs_read(store, &l);
	for (size_t i = 0; i < l.n; i++) {
		_cleanup_free_ char *path = xasprintf("%s/inputs/%s", store, l.v[i].key);
		if ((uint64_t)l.v[i].used.tv_sec >= limit || !is_superseded(&l, &l.v[i]) ||
		    unlink(path) < 0)
			strvec_add(ret_wanted, l.v[i].id);
	}
	inputs_finish(&l);
}

static uint64_t gc_images(const char *store, const struct strvec *wanted)
{
	_cleanup_free_ char *dir = path_join(store, "images");
	uint64_t sum = 0;
	DIR *d = opendir(dir);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (!is_id(e->d_name) || strvec_has(wanted, e->d_name))
			continue;
		_cleanup_free_ char *p = path_join(dir, e->d_name);
		uint64_t size = tree_size(p);
		/* EBUSY: in use, and so not garbage. */
		if (store_drop_image(store, e->d_name, NULL) == 0)
			sum += size;
	}
	if (d)
		closedir(d);
	return sum;
}

int image_gc(const char *store, unsigned keep_days, uint64_t *ret_freed, struct err *err)
{
	_cleanup_free_ char *own = NULL;
	_cleanup_close_ int gate = -1;
	_cleanup_strvec_ struct strvec wanted = STRVEC_INIT;
	if (store_open(store, &own, err) < 0 || store_gate(own, true, &gate, err) < 0)
		return -1;
	uint64_t now = time_wall_ns() / 1000000000u, age = (uint64_t)keep_days * DAY_S;
	uint64_t limit = keep_days == 0 ? UINT64_MAX : now > age ? now - age : 0;
	_cleanup_free_ char *tmp = path_join(own, "tmp");
	uint64_t before = tree_size(tmp);
	store_sweep(own);
	uint64_t after = tree_size(tmp), sum = before > after ? before - after : 0;
	gc_inputs(own, limit, &wanted);
	sum += gc_images(own, &wanted);
	sum += each(own, "initrd", gc_initrd, limit);
	sum += each(own, "cache/debs", gc_cache, limit);
	sum += each(own, "logs", gc_file, limit);
	each(own, "locks", gc_lock, 0);
	*ret_freed = sum;
	return 0;
}
