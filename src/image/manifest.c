/* SPDX-License-Identifier: Apache-2.0 */
#include "image/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <utime.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/rundir.h"
#include "base/time.h"
#include "image/cpio.h"
#include "image/digest.h"
#include "image/store.h"

#define MANIFEST_MAX (16u << 20)
#define GUEST_MAX (16u << 20)
#define RUN_INITRD_S 3600u /* from being made to being held is a matter of seconds */

/* --- writing --- */

static char *field(const char *stanza, size_t n, const char *name)
{
	size_t k = strlen(name);
	for (const char *l = stanza; l && l < stanza + n;
	     l = memchr(l, '\n', (size_t)(stanza + n - l)), l = l ? l + 1 : l)
		if (strncmp(l, name, k) == 0 && strncmp(l + k, ": ", 2) == 0)
			return xstrndup(l + k + 2, strcspn(l + k + 2, "\n"));
	return NULL;
}

static int by_name(const void *a, const void *b)
{
	json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	int c = strcmp(json_string_value(json_object_get(x, "name")),
		       json_string_value(json_object_get(y, "name")));
	return c ? c
		 : strcmp(json_string_value(json_object_get(x, "architecture")),
			  json_string_value(json_object_get(y, "architecture")));
}

json_t *manifest_packages(const char *status)
{
	json_t **v = NULL, *out = json_array();
	size_t n = 0;
	for (const char *s = status; s && *s;) {
		const char *end = strstr(s, "\n\n");
		size_t len = end ? (size_t)(end - s) : strlen(s);
		_cleanup_free_ char *name = field(s, len, "Package"),
				    *version = field(s, len, "Version"),
				    *arch = field(s, len, "Architecture"),
				    *state = field(s, len, "Status");
		if (name && version && arch && state && strstr(state, " installed")) {
			json_t *p = json_pack("{s:s,s:s,s:s}", "name", name, "version", version,
					      "architecture", arch);
			v = xreallocarray(v, n + 1, sizeof(*v));
			if (p)
				v[n++] = p;
		}
		s = end ? end + 2 : NULL;
	}
	if (n)
		qsort(v, n, sizeof(*v), by_name);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(out, v[i]);
	free(v);
	return out;
}

static int describe(const char *dir, const char *file, char hex[DIGEST_HEX], json_t **ret,
		    struct err *err)
{
	_cleanup_free_ char *p = path_join(dir, file);
	struct stat st;
	if (digest_path(p, hex, err) < 0)
		return -1;
	if (stat(p, &st) < 0)
		return err_errno(err, errno, "%s", p);
	*ret = json_pack("{s:s,s:s,s:I}", "file", file, "sha256", hex, "size", (json_int_t)st.st_size);
	return 0;
}

static void make_id(const struct recipe *r, const struct manifest_parts *p, const char *kernel,
		    const char *modules, char id[DIGEST_HEX])
{
	_cleanup_digest_ struct digest *d = digest_new();
	digest_field(d, "vse image");
	digest_number(d, IMAGE_FORMAT);
	digest_field(d, r->v->name);
	digest_field(d, r->v->arch);
	digest_number(d, r->v->init);
	digest_number(d, r->v->n_env);
	for (size_t i = 0; i < r->v->n_env; i++) {
		digest_field(d, r->v->env[i].name);
		digest_field(d, r->v->env[i].value);
	}
	digest_field(d, p->tree);
	digest_number(d, (uint64_t)p->epoch);
	digest_field(d, kernel);
	digest_field(d, modules);
	digest_number(d, p->modules->n);
	for (size_t i = 0; i < p->modules->n; i++)
		digest_field(d, p->modules->v[i]);
	digest_hex(d, id);
}

int manifest_write(const struct recipe *r, const struct manifest_parts *p, char ret_id[DIGEST_HEX],
		   struct err *err)
{
	char kernel[DIGEST_HEX], modules[DIGEST_HEX], root[DIGEST_HEX], vm[DIGEST_HEX], id[DIGEST_HEX];
	json_t *jk = NULL, *jm = NULL, *jr = NULL, *jv = NULL, *order = json_array();
	if (describe(p->dir, "kernel", kernel, &jk, err) < 0 ||
	    describe(p->dir, "modules.cpio", modules, &jm, err) < 0 ||
	    describe(p->dir, "root.squashfs", root, &jr, err) < 0 ||
	    (p->has_vmlinux && describe(p->dir, "vmlinux", vm, &jv, err) < 0)) {
		json_decref(jk);
		json_decref(jm);
		json_decref(jr);
		json_decref(order);
		return -1;
	}
	make_id(r, p, kernel, modules, id);
	for (size_t i = 0; i < p->modules->n; i++)
		json_array_append_new(order, json_string(p->modules->v[i]));
	json_object_set_new(jk, "version",
			    p->kernel_version ? json_string(p->kernel_version) : json_null());
	json_object_set_new(jk, "package", json_string(p->kernel_package));
	json_object_set_new(jm, "order", order);
	json_object_set_new(jr, "type", json_string("squashfs"));
	json_object_set_new(jr, "tree", json_string(p->tree));
	json_t *env = json_array();
	for (size_t i = 0; i < r->v->n_env; i++)
		json_array_append_new(env, json_pack("[s,s]", r->v->env[i].name, r->v->env[i].value));
	json_t *m = json_pack("{s:i,s:s,s:s,s:s,s:s,s:b,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:O}", "format",
			      IMAGE_FORMAT, "id", id, "name", r->v->name, "architecture", r->v->arch,
			      "init", r->v->init == VSE_INIT_SYSTEMD ? "systemd" : "vse", "sshd",
			      (int)p->has_sshd, "epoch", (json_int_t)p->epoch, "kernel", jk, "vmlinux",
			      jv ? jv : json_null(), "modules", jm, "root", jr, "environment", env,
			      "packages", manifest_packages(p->status), "recipe", r->json);
	if (!m)
		return err_set(err, EINVAL, "manifest: text that is not UTF-8");
	_cleanup_free_ char *text = json_dumps(m, JSON_INDENT(1) | JSON_SORT_KEYS);
	_cleanup_free_ char *path = path_join(p->dir, "manifest.json");
	json_decref(m);
	if (path_write(path, text, strlen(text), 0644, err) < 0)
		return -1;
	memcpy(ret_id, id, DIGEST_HEX);
	return 0;
}

/* --- reading --- */

void image_destroy(struct image *i)
{
	if (!i)
		return;
	char **const strings[] = {&i->id,     &i->dir,  &i->name,      &i->kernel, &i->vmlinux,
				  &i->initrd, &i->root, &i->root_type, &i->arch,   &i->modules};
	for (size_t s = 0; s < ARRAY_SIZE(strings); s++)
		free(*strings[s]);
	json_decref(i->manifest);
	free(i);
}

/* A file of the image by its name in the manifest, which must be a plain name. */
static char *file_of(const struct image *i, const char *part, uint64_t *size)
{
	json_t *o = json_object_get(i->manifest, part);
	const char *f = json_string_value(json_object_get(o, "file"));
	if (!f || strchr(f, '/') || f[0] == '.')
		return NULL;
	json_int_t n = json_integer_value(json_object_get(o, "size"));
	*size += n > 0 ? (uint64_t)n : 0;
	return path_join(i->dir, f);
}

static char *join_modules(json_t *order)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t i;
	json_t *v;
	json_array_foreach (order, i, v)
		if (json_is_string(v))
			buf_addf(&b, "%s%s", buf_len(&b) ? "," : "", json_string_value(v));
	buf_addc(&b, '\0');
	return buf_take(&b);
}

static char *text_of(json_t *o, const char *name)
{
	return xstrdup(json_string_value(json_object_get(o, name)));
}

static int fill(struct image *i, struct err *err)
{
	json_t *m = i->manifest, *root = json_object_get(m, "root");
	i->id = text_of(m, "id");
	i->name = text_of(m, "name");
	i->arch = text_of(m, "architecture");
	i->root_type = text_of(root, "type");
	i->kernel = file_of(i, "kernel", &i->size);
	i->vmlinux = file_of(i, "vmlinux", &i->size);
	i->root = file_of(i, "root", &i->size);
	i->modules = join_modules(json_object_get(json_object_get(m, "modules"), "order"));
	i->has_sshd = json_is_true(json_object_get(m, "sshd"));
	const char *init = json_string_value(json_object_get(m, "init")),
		   *base = strrchr(i->dir, '/') + 1;
	i->init = init && strcmp(init, "systemd") == 0 ? VSE_INIT_SYSTEMD : VSE_INIT_VSE;
	if (!i->id || strlen(i->id) != 64 || !i->name || !i->arch || !i->root_type || !i->kernel ||
	    !i->root)
		return err_set(err, EINVAL, "image %s: damaged manifest.json", i->dir);
	if (strcmp(base, i->id) != 0)
		return err_set(err, EINVAL, "image %s: its manifest.json is of image %.12s", i->dir,
			       i->id);
	return 0;
}

static const struct {
	const char *name;
	bool needed;
} parts[] = {{"kernel", true}, {"modules", true}, {"root", true}, {"vmlinux", false}};

/* By size alone: what a full disk or a broken copy leaves. */
static int check_sizes(const struct image *i, struct err *err)
{
	for (size_t p = 0; p < ARRAY_SIZE(parts); p++) {
		uint64_t size = 0;
		struct stat st;
		if (!parts[p].needed && !json_is_object(json_object_get(i->manifest, parts[p].name)))
			continue;
		_cleanup_free_ char *path = file_of(i, parts[p].name, &size);
		if (!path)
			return err_set(err, EINVAL, "image %s: damaged manifest.json: no %s",
				       i->dir, parts[p].name);
		if (stat(path, &st) < 0)
			return err_errno(err, errno, "image %.12s: damaged: %s", i->id, path);
		if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
			return err_set(err, EINVAL, "image %.12s: damaged: %s has %lld bytes, not %llu",
				       i->id, path, (long long)st.st_size, (unsigned long long)size);
	}
	return 0;
}

int image_verify(const struct image *i, struct err *err)
{
	for (size_t p = 0; p < ARRAY_SIZE(parts); p++) {
		json_t *o = json_object_get(i->manifest, parts[p].name);
		const char *want = json_string_value(json_object_get(o, "sha256"));
		char hex[DIGEST_HEX];
		uint64_t size = 0;
		_cleanup_free_ char *path = file_of(i, parts[p].name, &size);
		if (!path || !want)
			continue;
		if (digest_path(path, hex, err) < 0)
			return -1;
		if (strcmp(hex, want) != 0)
			return err_set(err, EINVAL, "image %.12s: damaged: %s", i->id, path);
	}
	return 0;
}

int image_load(const char *dir, struct image **ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, "manifest.json"), *text = NULL;
	struct stat st;
	json_error_t je;
	if (path_read(path, MANIFEST_MAX, &text, NULL, err) < 0)
		return -1;
	json_t *m = json_loads(text, 0, &je);
	if (!json_is_object(m) || stat(path, &st) < 0) {
		json_decref(m);
		return err_set(err, EINVAL, "image %s: damaged manifest.json: line %d: %s", dir,
			       je.line, je.text);
	}
	struct image *i = xcalloc(1, sizeof(*i));
	i->dir = xstrdup(dir);
	i->manifest = m;
	i->built = (uint64_t)st.st_mtime;
	if (fill(i, err) < 0 || check_sizes(i, err) < 0) {
		image_destroy(i);
		return -1;
	}
	*ret = i;
	return 0;
}

/* --- the initramfs --- */

static char *find_guest(const char *given)
{
	if (given)
		return xstrdup(given);
	static const char *const places[] = {"vse-guest", "../libexec/vse/vse-guest",
					     "../lib/vse/vse-guest"};
	_cleanup_free_ char *self = path_self_dir();
	for (size_t i = 0; self && i < ARRAY_SIZE(places); i++) {
		char *p = path_join(self, places[i]);
		if (path_exists(p))
			return p;
		free(p);
	}
	return NULL;
}

static void compose(struct buf *out, const void *guest, size_t len)
{
	static const char *const dirs[] = {"dev", "proc", "sys", "run", "root", "modules"};
	struct cpio c = CPIO_INIT(out);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		cpio_dir(&c, dirs[i], 0755);
	/* The kernel opens it for /init before devtmpfs is there. */
	cpio_char(&c, "dev/console", 0600, 5, 1);
	cpio_file(&c, "init", 0755, guest, (uint32_t)len);
	cpio_end(&c);
}

/* No name until it is whole, so that a kill leaves nothing; where the file system cannot do that, a
 * name in tmp/. */
static int write_whole(const char *store, const char *dir, const char *path, const struct buf *b,
		       struct err *err)
{
	_cleanup_free_ char *tmp = NULL;
	_cleanup_close_ int fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 && !store)
		return path_write(path, buf_head(b), buf_len(b), 0600, err);
	if (fd < 0) {
		tmp = store_temp(store);
		fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	char link[40];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (fd < 0 || fd_write_all(fd, buf_head(b), buf_len(b)) < 0 || fsync(fd) < 0 ||
	    (tmp ? rename(tmp, path) : linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW)) < 0) {
		int code = errno;
		if (tmp)
			unlink(tmp);
		if (code != EEXIST) /* another process was first */
			return err_errno(err, code, "write %s", path);
	}
	return 0;
}

/* Nobody collects there but who comes next. */
static void sweep_initrds(const char *dir)
{
	uint64_t now = time_wall_ns() / 1000000000u;
	DIR *d = opendir(dir);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		_cleanup_free_ char *p = path_join(dir, e->d_name);
		_cleanup_close_ int lock = -1;
		struct stat st;
		if (lstat(p, &st) == 0 && S_ISREG(st.st_mode) &&
		    (uint64_t)st.st_mtime + RUN_INITRD_S < now &&
		    store_lock_idle(p, "initramfs", &lock, NULL) == 0)
			unlink(p);
	}
	if (d)
		closedir(d);
}

/* *store becomes NULL where it cannot be written. */
static int initrd_folder(const char **store, const char *name, char **ret, struct err *err)
{
	_cleanup_free_ char *own = *store ? path_join(*store, "initrd") : NULL,
			    *there = own ? path_join(own, name) : NULL, *base = NULL;
	if (own && (path_exists(there) || access(own, W_OK) == 0)) {
		*ret = TAKE_PTR(own);
		return 0;
	}
	if (rundir_base(&base, err) < 0)
		return -1;
	_cleanup_free_ char *dir = path_join(base, ".initrd");
	if (path_mkdirs(dir, 0700, err) < 0)
		return -1;
	sweep_initrds(dir);
	*store = NULL;
	*ret = TAKE_PTR(dir);
	return 0;
}

int image_initrd(const char *store, struct image *i, const char *given, struct err *err)
{
	_cleanup_free_ char *guest = find_guest(given), *data = NULL, *mods = NULL,
			    *mod_path = path_join(i->dir, "modules.cpio");
	_cleanup_buf_ struct buf b = BUF_INIT;
	char hex[DIGEST_HEX];
	size_t len, mods_len;
	if (!guest)
		return err_set(err,
			       ENOENT, "vse-guest: not found beside the running program: the installation is not whole");
	if (path_read(guest, GUEST_MAX, &data, &len, err) < 0)
		return -1;
	_cleanup_digest_ struct digest *d = digest_new();
	digest_add(d, data, len);
	digest_hex(d, hex);
	_cleanup_free_ char *name = xasprintf("%s-%.16s", i->id, hex), *dir = NULL;
	if (initrd_folder(&store, name, &dir, err) < 0)
		return -1;
	_cleanup_free_ char *path = path_join(dir, name);
	if (!path_exists(path)) {
		compose(&b, data, len);
		if (path_read(mod_path, 256u << 20, &mods, &mods_len, err) < 0)
			return -1;
		buf_add(&b, mods, mods_len);
		if (write_whole(store, dir, path, &b, err) < 0)
			return -1;
	} else {
		utime(path, NULL); /* in use: not for gc */
	}
	struct stat st;
	free(i->initrd);
	i->initrd = TAKE_PTR(path);
	i->size += stat(i->initrd, &st) == 0 ? (uint64_t)st.st_size : 0;
	return 0;
}
