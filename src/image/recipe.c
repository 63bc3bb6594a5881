/* SPDX-License-Identifier: Apache-2.0 */
#include "image/recipe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/size.h"
#include "base/time.h"
#include "image/kernel.h"
#include "image/run.h"
#include "image/sandbox.h"
#include "image/sources.h"
#include "image/store.h"
#include "image/subid.h"
#include "image/tarfilter.h"
#include "image/tree.h"

/* A minimal Debian image is 70-150 MB in the store; packages are cached beside it. */
#define ROOM_DISTRO (400ull << 20)
#define ROOM_LEAST (64ull << 20)

const char *recipe_host_arch(void)
{
	static struct utsname u;
	if (uname(&u) < 0)
		return "unknown";
	if (strcmp(u.machine, "x86_64") == 0)
		return "amd64";
	return strcmp(u.machine, "aarch64") == 0 ? "arm64" : u.machine;
}

void recipe_free(struct recipe *r)
{
	if (!r)
		return;
	if (r->base_fd >= 0)
		close(r->base_fd);
	json_decref(r->json);
	free(r->sources);
	free(r->sources_problem);
	free(r->cache_name);
	strvec_finish(&r->apt);
	strvec_finish(&r->proxy);
	free(r);
}

static json_t *strings(const struct strvec *v)
{
	json_t *a = json_array();
	for (size_t i = 0; i < v->n; i++)
		json_array_append_new(a, json_string(v->v[i]));
	return a;
}

static int add_files(struct recipe *r, struct err *err)
{
	json_t *a = json_array();
	json_object_set_new(r->json, "files", a);
	for (size_t i = 0; i < r->v->n_files; i++) {
		const struct vse_file *f = &r->v->files[i];
		char hex[DIGEST_HEX];
		struct stat st;
		if (f->source) {
			if (stat(f->source, &st) < 0)
				return err_errno(err, errno, "file %s: %s", f->path, f->source);
			if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
				return err_set(err, EINVAL, "file %s: %s: neither file nor folder",
					       f->path, f->source);
			if (S_ISDIR(st.st_mode) ? tree_digest(f->source, TREE_CONTENT_ONLY, hex, err) < 0
						: digest_path(f->source, hex, err) < 0)
				return err_prefix(err, "file %s: ", f->path);
		} else {
			_cleanup_digest_ struct digest *d = digest_new();
			digest_add(d, f->content ? f->content : "", f->content ? strlen(f->content) : 0);
			digest_hex(d, hex);
		}
		json_array_append_new(a, json_pack("{s:s,s:i,s:i,s:i,s:s}", "path", f->path, "mode",
						   (int)f->mode, "uid", (int)f->uid, "gid",
						   (int)f->gid, "sha256", hex));
	}
	return 0;
}

static void add_sources(struct recipe *r, const char *distro, const char *suite)
{
	_cleanup_sources_ struct apt_sources s = APT_SOURCES_INIT;
	_cleanup_buf_ struct buf out = BUF_INIT;
	struct host_distro host;
	struct err e = ERR_INIT;
	const struct vse *v = r->v;
	host_distro_read(&host, "/etc/os-release");
	if (!distro) {
		distro = host.id;
		suite = host.suite;
	}
	r->cache_name = xasprintf("%s-%s-%s", distro, suite, v->arch);
	for (char *c = r->cache_name; *c; c++)
		if (*c == '/')
			*c = '_';
	if (v->mirror) {
		buf_addf(&out, "deb %s %s", v->mirror, suite);
		for (size_t i = 0; i < v->components.n; i++)
			buf_addf(&out, " %s", v->components.v[i]);
		buf_adds(&out, v->components.n ? "\n" : " main\n");
	} else if (apt_sources_read(&s, "/etc/apt", &e) < 0 ||
		   apt_sources_choose(&s, &host, distro, suite, &v->components, &out, &e) < 0) {
		r->sources_problem = xstrdup(e.text);
		return;
	}
	r->sources = buf_take(&out);
}

/* As root of the namespace nothing that a subordinate id owns is closed. */
static int look_inside(void *arg, struct sandbox_self *self, const char *dir, struct err *err)
{
	struct recipe *r = arg;
	struct tree_facts f;
	char text[SANDBOX_RESULT_MAX];
	(void)dir;
	if (tree_fingerprint(r->v->base_path, 0, 0, &f, err) < 0)
		return -1;
	snprintf(text, sizeof(text), "%s %" PRIu64 " %d", f.hex, f.bytes, f.closed);
	sandbox_result(self, text);
	return 0;
}

static void fingerprint_inside(struct recipe *r, const char *store, struct tree_facts *f)
{
	_cleanup_free_ char *temp = store ? store_temp(store) : NULL;
	char result[SANDBOX_RESULT_MAX];
	struct sandbox *s = NULL;
	struct tree_facts in = {0};
	if (temp && sandbox_run(temp, look_inside, r, NULL, 0, NULL, NULL, &s, result, NULL) == 0) {
		sandbox_end(s);
		if (sscanf(result, "%64s %" SCNu64 " %d", in.hex, &in.bytes, &in.closed) == 3) {
			memcpy(f->hex, in.hex, sizeof(f->hex));
			f->bytes = in.bytes;
			f->closed = in.closed;
		}
	}
}

static int add_dir(struct recipe *r, const char *store, json_t *base, struct err *err)
{
	struct tree_facts f;
	struct subid_range u = {0}, g = {0};
	struct stat st;
	if (stat(r->v->base_path, &st) < 0)
		return err_errno(err, errno, "base %s", r->v->base_path);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "base %s: not a folder", r->v->base_path);
	if (geteuid() != 0)
		subid_ranges(&u, &g, NULL); /* without a range nothing can be owned by it */
	if (tree_fingerprint(r->v->base_path, u.first, u.count, &f, err) < 0)
		return err_prefix(err, "base ");
	if (f.closed && f.subordinate)
		fingerprint_inside(r, store, &f);
	json_object_set_new(base, "fingerprint", json_string(f.hex));
	/* A change below a closed folder would not be seen: no two keys are the same. */
	r->base_unknown = f.closed;
	if (f.closed)
		json_object_set_new(base, "fingerprint",
				    json_sprintf("%d %llu", (int)getpid(),
						 (unsigned long long)time_wall_ns()));
	r->base_bytes = f.bytes;
	r->base_inside = f.subordinate;
	return 0;
}

static int add_tar(struct recipe *r, json_t *base, struct err *err)
{
	unsigned char head[512];
	struct stat st;
	_cleanup_close_ int fd = open(r->v->base_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "base %s", r->v->base_path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "base %s: not a regular file", r->v->base_path);
	ssize_t n = fd_read_full(fd, head, sizeof(head));
	r->compressor = n > 0 ? tar_compressor(head, (size_t)n) : NULL;
	if (!r->compressor)
		return err_set(err, EINVAL,
			       "base %s: not a tar archive (plain, gzip, xz, zstd, bzip2 or lz4)",
			       r->v->base_path);
	_cleanup_free_ char *f = xasprintf("%llu:%llu:%lld:%lld.%09ld:%lld.%09ld",
					   (unsigned long long)st.st_dev,
					   (unsigned long long)st.st_ino, (long long)st.st_size,
					   (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
					   (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	json_object_set_new(base, "fingerprint", json_string(f));
	r->base_bytes = (uint64_t)st.st_size * (*r->compressor ? 3 : 1);
	return 0;
}

static bool kernel_is_file(const struct vse *v)
{
	return v->kernel && v->kernel[0] == '/';
}

static int add_base(struct recipe *r, const char *store, struct err *err)
{
	static const char *const kinds[] = {"distribution", "folder", "archive"};
	json_t *base = json_pack("{s:s}", "kind", kinds[r->v->base]);
	json_object_set_new(r->json, "base", base);
	bool distro = r->v->base == VSE_BASE_DISTRO;
	add_sources(r, distro ? r->v->distro : NULL, distro ? r->v->suite : NULL);
	/* Where the kernel comes from, unless it is a file or the base has one, which only a build sees. */
	if (!distro && r->sources && !kernel_is_file(r->v))
		json_object_set_new(base, "repositories", json_string(r->sources));
	if (!distro)
		return r->v->base == VSE_BASE_DIR ? add_dir(r, store, base, err)
						  : add_tar(r, base, err);
	if (!r->sources)
		return err_set(err, ENOENT, "%s", r->sources_problem);
	json_object_set_new(base, "distribution", json_string(r->v->distro));
	json_object_set_new(base, "suite", json_string(r->v->suite));
	json_object_set_new(base, "repositories", json_string(r->sources));
	return 0;
}

static int add_kernel(struct recipe *r, struct err *err)
{
	const char *k = r->v->kernel ? r->v->kernel : "auto";
	if (strcmp(k, "auto") == 0 && r->v->n_mounts)
		k = "auto, with 9p";
	char hex[DIGEST_HEX];
	json_object_set_new(r->json, "kernel", json_string(k));
	if (!kernel_is_file(r->v))
		return 0;
	struct stat st;
	if (stat(k, &st) == 0 && !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "kernel %s: not a regular file", k);
	if (digest_path(k, hex, err) < 0)
		return err_prefix(err, "kernel ");
	json_object_set_new(r->json, "kernel", json_string(hex));
	_cleanup_free_ char *modules = kernel_host_modules(k);
	if (!modules)
		return 0;
	if (tree_outline(modules, hex, err) < 0)
		return err_prefix(err, "kernel modules ");
	json_object_set_new(r->json, "host_modules", json_string(hex));
	return 0;
}

static void make_key(struct recipe *r)
{
	_cleanup_digest_ struct digest *d = digest_new();
	_cleanup_free_ char *text = json_dumps(r->json, JSON_COMPACT | JSON_SORT_KEYS);
	digest_field(d, text);
	digest_hex(d, r->key);
	/* What a host calls its inodes must not make two hosts' manifests differ. */
	json_object_del(json_object_get(r->json, "base"), "fingerprint");
	json_object_del(r->json, "host_modules");
}

int recipe_make(const struct vse *v, const char *store, struct recipe **ret, struct err *err)
{
	struct recipe *r = xcalloc(1, sizeof(*r));
	*r = (struct recipe){.v = v,
			     .base_fd = -1,
			     .compressor = "",
			     .own_uid = (uint32_t)getuid(),
			     .own_gid = (uint32_t)getgid()};
	_cleanup_strvec_ struct strvec packages = STRVEC_INIT;
	strvec_copy(&packages, &v->packages);
	strvec_sort(&packages);
	json_t *env = json_array();
	for (size_t i = 0; i < v->n_env; i++)
		json_array_append_new(env, json_pack("[s,s]", v->env[i].name, v->env[i].value));
	r->json = json_pack("{s:i,s:s,s:s,s:s,s:o,s:o,s:o}", "format", IMAGE_FORMAT, "name",
			    v->name, "architecture", v->arch, "init",
			    v->init == VSE_INIT_SYSTEMD ? "systemd" : "vse", "packages",
			    strings(&packages), "environment", env, "build", strings(&v->build));
	if (!r->json)
		err_set(err, EINVAL, "VSE %s: text that is not UTF-8", v->name);
	if (!r->json || add_base(r, store, err) < 0 || add_files(r, err) < 0 || add_kernel(r, err) < 0) {
		recipe_free(r);
		return -1;
	}
	make_key(r);
	*ret = r;
	return 0;
}

/* The host's proxies, retries, certificate settings and date checks: "the host's own apt
 * configuration". */
void recipe_read_apt(struct recipe *r)
{
	static const char *const kept[] = {"Acquire::Check-Valid-Until",
					   "Acquire::Check-Date",
					   "Acquire::Retries",
					   "Acquire::http::",
					   "Acquire::https::",
					   "Acquire::ftp::",
					   "Acquire::Force",
					   "Acquire::Queue-Mode"};
	static const char *const vars[] = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy"};
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_run_ struct run p = {.capture = &out, .capture_max = 1 << 20};
	strvec_addv(&p.argv, "apt-config", "dump", "--no-empty", "--format", "%F \"%v\";%n",
		    "Acquire", NULL);
	if (run_ok(&p, NULL) < 0)
		return;
	_cleanup_free_ char *text = buf_take(&out);
	char *save = NULL;
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
			if (strncmp(l, kept[i], strlen(kept[i])) == 0)
				strvec_add(&r->apt, l);
	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		if (getenv(vars[i]))
			strvec_addf(&r->proxy, "%s=%s", vars[i], getenv(vars[i]));
}

void recipe_tar_folder(const struct recipe *r, struct strvec *argv, struct strvec *env)
{
	/* Only the pax format has extended attributes; of those we take what works in any guest. */
	strvec_addv(argv, "tar", "-c", "-f", "-", "--format=posix",
		    "--pax-option=delete=atime,delete=ctime", "--numeric-owner", "--xattrs",
		    "--xattrs-include=security.capability", "--exclude=./dev/*",
		    "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./run/*",
		    "--exclude=./tmp/*", "-C", r->v->base_path, ".", NULL);
	strvec_add(env, "LC_ALL=C");
}

/* As root of the namespace, into a folder: the tree is worked on before it becomes an image.
 * Nothing for other architectures' translations and no documentation: 57 s and 282 MB with it, 50 s
 * and 254 MB without, measured on an MPI set. */
void recipe_mmdebstrap(const struct recipe *r, const char *root, const char *list, struct strvec *argv)
{
	strvec_addv(argv, "mmdebstrap", "--mode=unshare", "--variant=minbase", "--format=directory",
		    "--verbose", "--skip=check/empty,download/empty,essential/unlink,cleanup/apt/lists,cleanup/apt/cache",
		    "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		    "--dpkgopt=path-exclude=/usr/share/locale/*",
		    "--dpkgopt=path-exclude=/usr/share/info/*", NULL);
	strvec_addf(argv, "--architectures=%s", r->v->arch);
	/* Written to the root's apt.conf.d/99mmdebstrap, which does not stay in the image. */
	strvec_add(argv, "--aptopt=Acquire::Languages \"none\";");
	strvec_add(argv, "--aptopt=APT::Install-Recommends \"false\";");
	for (size_t i = 0; i < r->apt.n; i++)
		strvec_addf(argv, "--aptopt=%s", r->apt.v[i]);
	if (r->v->init == VSE_INIT_SYSTEMD)
		strvec_add(argv, "--include=systemd-sysv,dbus,udev,kmod");
	for (size_t i = 0; i < r->v->packages.n; i++)
		strvec_addf(argv, "--include=%s", r->v->packages.v[i]);
	strvec_addv(argv, r->v->suite, root, list, NULL);
}

static int need(const char *program, const char *package, struct err *err)
{
	_cleanup_free_ char *p = run_find(program);
	if (p)
		return 0;
	return err_set(err, ENOENT, "build: program %s: not found: install the package %s", program,
		       package);
}

static int check_arch(const struct recipe *r, struct err *err)
{
	static const struct {
		const char *arch, *qemu;
	} emulated[] = {{"amd64", "x86_64"}, {"arm64", "aarch64"}};
	bool runs = r->v->base == VSE_BASE_DISTRO || r->v->build.n;
	if (!runs || strcmp(r->v->arch, recipe_host_arch()) == 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(emulated); i++) {
		_cleanup_free_ char *p = xasprintf("/proc/sys/fs/binfmt_misc/qemu-%s", emulated[i].qemu);
		if (strcmp(r->v->arch, emulated[i].arch) == 0 && path_exists(p))
			return 0;
	}
	return err_set(err, ENOTSUP,
		       "build: architecture %s: this host is %s and cannot run its programs: "
		       "install the packages "
		       "qemu-user-static and binfmt-support, or build on such a machine",
		       r->v->arch, recipe_host_arch());
}

static int check_room(const struct recipe *r, const char *store, struct err *err)
{
	uint64_t have, want = r->v->base == VSE_BASE_DISTRO ? ROOM_DISTRO : ROOM_LEAST + r->base_bytes;
	char h[24], w[24];
	if (store_free(store, &have, err) < 0)
		return -1;
	if (have >= want)
		return 0;
	size_format(have, h);
	size_format(want, w);
	return err_set(err, ENOSPC,
		       "store %s: %s free, this build needs about %s: `vse image gc`, or set "
		       "XDG_DATA_HOME to a "
		       "larger file system",
		       store, h, w);
}

int recipe_check(const struct recipe *r, const char *store, struct err *err)
{
	const struct vse *v = r->v;
	if ((v->base == VSE_BASE_DISTRO &&
	     (need("mmdebstrap", "mmdebstrap", err) < 0 || need("dpkg-deb", "dpkg", err) < 0)) ||
	    need("mksquashfs", "squashfs-tools", err) < 0 || need("depmod", "kmod", err) < 0 ||
	    (v->base != VSE_BASE_DISTRO && need("tar", "tar", err) < 0))
		return -1;
	if (*r->compressor) {
		const char *pack = strcmp(r->compressor, "xz") == 0 ? "xz-utils" : r->compressor;
		if (need(r->compressor, pack, err) < 0)
			return -1;
	}
	if (sandbox_check(err) < 0 || check_arch(r, err) < 0)
		return -1;
	return check_room(r, store, err);
}
