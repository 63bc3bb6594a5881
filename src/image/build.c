/* SPDX-License-Identifier: Apache-2.0 */
/* image_build: the recipe's key, the cache, the lock, and the work itself in the sandbox. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/size.h"
#include "image/apt.h"
#include "image/image.h"
#include "image/kernel.h"
#include "image/manifest.h"
#include "image/modules.h"
#include "image/recipe.h"
#include "image/rootfs.h"
#include "image/run.h"
#include "image/sandbox.h"
#include "image/store.h"
#include "image/tree.h"

/* A minimal root and its packages need 0.5 GB while they are worked on, an MPI set 1 GB. Memory is
 * twice as fast as a disk here (30 s against 60 s for the MPI set). */
#define PVH_BROKEN_SINCE "6.12"
#define MEMORY_LEAST (4ull << 30)
#define LOG_MAX (1u << 20)

struct job {
	struct recipe *r;
	const char *store, *cache;
};

/* --- inside the sandbox --- */

static uint64_t memory_available(void)
{
	_cleanup_free_ char *text = NULL;
	unsigned long long kb = 0;
	if (path_read("/proc/meminfo", 65536, &text, NULL, NULL) < 0)
		return 0;
	const char *p = strstr(text, "MemAvailable:");
	return p && sscanf(p + 13, "%llu", &kb) == 1 ? kb * 1024 : 0;
}

/* VSE_BUILD_ON_DISK=1 keeps the work out of memory. */
static int work_folder(const char *dir, char **ret, bool *ret_memory, struct err *err)
{
	_cleanup_free_ char *work = path_join(dir, "work");
	const char *disk = getenv("VSE_BUILD_ON_DISK");
	uint64_t have = memory_available();
	char options[64];
	if (mkdir(work, 0755) < 0)
		return err_errno(err, errno, "%s", work);
	snprintf(options, sizeof(options), "mode=755,size=%" PRIu64, have / 4 * 3);
	*ret_memory = have >= MEMORY_LEAST && !(disk && strcmp(disk, "1") == 0) &&
		      mount("vse-build", work, "tmpfs", MS_NODEV, options) == 0;
	*ret = TAKE_PTR(work);
	return 0;
}

static void sbin_in_path(void)
{
	const char *p = getenv("PATH");
	_cleanup_free_ char *all = xasprintf("%s:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
					     p ? p : "/usr/local/bin");
	setenv("PATH", all, 1);
}

static int make_base(struct job *j, const char *root, const char *work, struct sandbox_self *self,
		     struct err *err)
{
	struct recipe *r = j->r;
	_cleanup_close_ int own = -1;
	if (r->v->base == VSE_BASE_DISTRO)
		return apt_base(root, work, j->cache, r, self, err);
	sandbox_say(self, "unpack", 0, 0, r->v->base_path);
	int fd = r->base_fd;
	if (r->v->base == VSE_BASE_TAR) {
		fd = own = open(r->v->base_path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return err_errno(err, errno, "base %s", r->v->base_path);
	}
	if (rootfs_unpack(root, fd, r, self, err) < 0)
		return err_prefix(err, "base %s: ", r->v->base_path);
	return 0;
}

/* So that modprobe works in the VM: all of the kernel's modules with depmod's index. */
static int install_modules(const char *root, const struct kernel *k, struct err *err)
{
	_cleanup_free_ char *lib = NULL, *to = NULL;
	if (!k->modules)
		return 0;
	if (rootfs_lib(root, &lib, err) < 0)
		return -1;
	to = path_join(lib, "modules");
	if (!k->in_root) {
		_cleanup_run_ struct run cp = {0};
		struct stat st;
		if (lstat(to, &st) == 0 && !S_ISDIR(st.st_mode))
			return err_set(err, EINVAL, "root: /lib/modules is not a folder");
		if (path_mkdirs(to, 0755, err) < 0)
			return -1;
		strvec_addv(&cp.argv, "cp", "-r", "--no-dereference",
			    "--preserve=mode,timestamps,links", "--", k->modules, to, NULL);
		if (run_ok(&cp, err) < 0)
			return err_prefix(err, "kernel modules: ");
	}
	_cleanup_run_ struct run dep = {0};
	strvec_addv(&dep.argv, "depmod", "-b", root, k->version, NULL);
	if (run_ok(&dep, err) < 0)
		return err_prefix(err, "kernel modules: ");
	return 0;
}

static int make_kernel(struct job *j, const char *root, const char *work, const char *image,
		       struct kernel *k, struct strvec *modules, bool *ret_vmlinux,
		       struct sandbox_self *self, struct err *err)
{
	_cleanup_buf_ struct buf cpio = BUF_INIT;
	_cleanup_free_ char *to = path_join(image, "kernel"), *vmlinux = path_join(image, "vmlinux"),
			    *mods = path_join(image, "modules.cpio"), *data = NULL;
	size_t len;
	sandbox_say(self, "kernel", 0, 0, j->r->v->kernel ? j->r->v->kernel : "auto");
	if (kernel_find(root, work, j->cache, j->r, self, k, err) < 0 ||
	    modules_collect(k->modules, modules, &cpio, err) < 0 || install_modules(root, k, err) < 0)
		return -1;
	if (path_read(k->file, KERNEL_BYTES_MAX, &data, &len, err) < 0 ||
	    path_write(to, data, len, 0644, err) < 0 ||
	    path_write(mods, buf_head(&cpio), buf_len(&cpio), 0644, err) < 0)
		return -1;
	/* Debian's 6.12 entered by PVH panics on microvm (a call of NULL in __ioremap_caller, from virtio_mmio_probe), and
	 * boots there as a bzImage; 6.1 boots both ways. */
	if (k->version && version_compare(k->version, PVH_BROKEN_SINCE) >= 0) {
		*ret_vmlinux = false;
		return 0;
	}
	return kernel_vmlinux(k->file, vmlinux, ret_vmlinux, err);
}

/* squashfs with zstd 3, measured on the minimal image (219 MB) and on Debian's MPI set with systemd (320 MB),
 * two cores, CPU seconds: squashfs zstd-3 64 MB in 1.4 s, 104 MB in 2.1 s; zstd-1 66 and 109 MB in 1.0 and
 * 1.4 s; zstd-9 58 and 96 MB in 4.4 and 6.4 s; erofs (mkfs 1.5) lz4 114 and 175 MB in 0.7 and 0.9 s, lz4hc 103
 * and 159 MB in 4.0 and 5.7 s. Booting reads the same (16 MB of squashfs, 15 MB of erofs for systemd) and takes
 * the same time. erofs 1.5 is not byte-identical from a tree that was made anew; squashfs is. */
static int compress(const char *root, const char *to, int64_t epoch, struct err *err)
{
	_cleanup_run_ struct run p = {0};
	_cleanup_buf_ struct buf out = BUF_INIT;
	int status;
	strvec_addv(&p.argv, "mksquashfs", root, to, "-noappend", "-no-progress", "-quiet", "-comp",
		    "zstd", "-Xcompression-level", "3", "-no-exports", NULL);
	strvec_addf(&p.env, "SOURCE_DATE_EPOCH=%" PRId64, epoch);
	p.capture = &out;
	if (run(&p, &status, err) < 0)
		return -1;
	const char *text = buf_cstr(&out);
	if (strstr(text, "No space left") || strstr(text, "Disk quota"))
		return err_set(err, ENOSPC, "store: no space left while the root was written");
	if (status)
		return err_set(err, EIO, "mksquashfs: %.*s", (int)strcspn(text, "\n"), text);
	return 0;
}

static bool has_sshd(const char *root)
{
	_cleanup_free_ char *p = path_join(root, "usr/sbin/sshd");
	struct stat st;
	return lstat(p, &st) == 0 && S_ISREG(st.st_mode);
}

static int finish_image(struct job *j, const char *root, const char *image, struct timespec started,
			struct manifest_parts *m, struct sandbox_self *self, struct err *err)
{
	char tree[DIGEST_HEX], id[DIGEST_HEX];
	_cleanup_free_ char *status = NULL, *squash = path_join(image, "root.squashfs");
	if (rootfs_read(root, "/var/lib/dpkg/status", 256u << 20, &status, NULL, NULL) < 0)
		status = NULL;
	m->status = status;
	m->has_sshd = has_sshd(root);
	m->tree = tree;
	m->dir = image;
	sandbox_say(self, "root", 0, 0, "compress");
	if (tree_newest(root, started, &m->epoch, err) < 0 ||
	    tree_digest(root, m->epoch, tree, err) < 0 ||
	    compress(root, squash, m->epoch, err) < 0 || manifest_write(j->r, m, id, err) < 0)
		return -1;
	sandbox_result(self, id);
	return 0;
}

static int build_all(struct job *j, const char *dir, const char *work, struct sandbox_self *self,
		     struct err *err)
{
	_cleanup_free_ char *root = path_join(work, "root"), *image = path_join(dir, "image"),
			    *from = path_join(work, "debs"), *to = path_join(dir, "debs");
	_cleanup_strvec_ struct strvec modules = STRVEC_INIT;
	_cleanup_(kernel_finish) struct kernel k = {0};
	struct manifest_parts m = {.modules = &modules};
	struct timespec started;
	/* The clock that the kernel stamps files with: one made from here on is not earlier. */
	clock_gettime(CLOCK_REALTIME_COARSE, &started);
	if (mkdir(root, 0755) < 0 || mkdir(image, 0700) < 0)
		return err_errno(err, errno, "%s", work);
	if (make_base(j, root, work, self, err) < 0 || rootfs_check(root, j->r, err) < 0 ||
	    make_kernel(j, root, work, image, &k, &modules, &m.has_vmlinux, self, err) < 0 ||
	    rootfs_files(root, j->r, err) < 0 || rootfs_steps(root, j->r, self, err) < 0 ||
	    rootfs_neutralize(root, j->r, err) < 0)
		return -1;
	m.kernel_version = k.version;
	m.kernel_package = k.package;
	if (finish_image(j, root, image, started, &m, self, err) < 0)
		return -1;
	/* From memory to the store's disk, where the caller puts them into the cache. */
	_cleanup_run_ struct run cp = {0};
	strvec_addv(&cp.argv, "cp", "-r", "--", from, to, NULL);
	if (path_exists(from) && strcmp(from, to) != 0)
		run_ok(&cp, NULL);
	return 0;
}

static int build_inside(void *arg, struct sandbox_self *self, const char *dir, struct err *err)
{
	_cleanup_free_ char *work = NULL;
	bool memory = false;
	struct statvfs v;
	umask(022);
	sbin_in_path();
	if (work_folder(dir, &work, &memory, err) < 0)
		return -1;
	/* What a program that is killed leaves in its temporary folder goes with the rest. */
	_cleanup_free_ char *tmp = path_join(work, "tmp");
	if (path_mkdirs(tmp, 01777, err) < 0 || chmod(tmp, 01777) < 0)
		return -1;
	setenv("TMPDIR", tmp, 1);
	if (build_all(arg, dir, work, self, err) == 0)
		return 0;
	if (memory && statvfs(work, &v) == 0 && v.f_bavail < v.f_blocks / 100) {
		char s[24];
		size_format((uint64_t)v.f_blocks * v.f_frsize, s);
		return err_set(err, ENOSPC,
			       "build: the root outgrew the %s of memory it was built in: set "
			       "VSE_BUILD_ON_DISK=1",
			       s);
	}
	return -1;
}

/* --- outside --- */

struct log {
	const struct image_build_options *o;
	struct buf text;
};

static void progress(void *arg, const char *step, unsigned done, unsigned total, const char *text)
{
	struct log *l = arg;
	_cleanup_free_ char *line = xasprintf("%s: %s\n", step, text);
	size_t n = strlen(line), have = buf_len(&l->text);
	bool again = have >= n && memcmp(buf_head(&l->text) + have - n, line, n) == 0;
	if (have < LOG_MAX && !again)
		buf_adds(&l->text, line);
	if (strcmp(step, "output") != 0 && l->o->progress)
		l->o->progress(l->o->progress_arg, step, done, total, text);
}

static void save_log(const char *store, const struct vse *v, struct log *l, struct err *err)
{
	_cleanup_free_ char *path = xasprintf("%s/logs/%s.log", store, v->name);
	buf_addf(&l->text, "error: %s\n", err ? err->text : "");
	if (buf_len(&l->text) > 2000 &&
	    path_write(path, buf_head(&l->text), buf_len(&l->text), 0600, NULL) == 0 && err &&
	    strlen(err->text) + strlen(path) + 12 < ERR_TEXT_MAX)
		err_set(err, err->code, "%s (log: %s)", err->text, path);
}

/* The program that reads the base folder as the user, outside the namespace: there every owner has
 * his own number. */
struct folder_reader {
	struct run run;
	pid_t pid;
	int fd;
};

static int reader_start(struct folder_reader *f, struct recipe *r, struct err *err)
{
	int p[2];
	if (r->v->base != VSE_BASE_DIR || r->base_inside)
		return 0;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "base");
	recipe_tar_folder(r, &f->run.argv, &f->run.env);
	f->run.out = p[1];
	int code = run_start(&f->run, &f->pid, &f->fd, err);
	close(p[1]);
	if (code < 0)
		close(p[0]);
	else
		r->base_fd = p[0];
	return code;
}

static int reader_end(struct folder_reader *f, struct recipe *r, struct err *err)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	int status = 0;
	if (f->pid <= 0)
		return 0;
	if (r->base_fd >= 0)
		close(TAKE_FD(r->base_fd));
	f->run.capture = &text;
	int code = run_wait(&f->run, f->pid, f->fd, &status, err);
	close(f->fd);
	run_finish(&f->run);
	if (code < 0 || status == 0)
		return code;
	_cleanup_free_ char *line = xstrndup(buf_cstr(&text), strcspn(buf_cstr(&text), "\n"));
	if (WIFSIGNALED(status) || !*line)
		return err_set(err, EINTR, "base %s: its reader ended early", r->v->base_path);
	return err_set(err, EACCES, "base %s: %s", r->v->base_path, line);
}

static int run_build(struct job *j, const struct image_build_options *o, const char *temp,
		     struct sandbox **ret, char *id, struct err *err)
{
	struct log log = {.o = o, .text = BUF_INIT};
	struct folder_reader reader = {0};
	struct err re = ERR_INIT;
	if (reader_start(&reader, j->r, err) < 0)
		return -1;
	int code = sandbox_run(temp, build_inside, j, &j->r->base_fd, j->r->base_fd >= 0, progress,
			       &log, ret, id, err);
	if (reader_end(&reader, j->r, &re) < 0 && (code == 0 || re.code != EINTR)) {
		/* What it could not read is missing in the root. */
		if (code == 0)
			sandbox_end(*ret);
		code = err_copy(err, &re);
	}
	if (code == 0 && strlen(id) != 64) {
		sandbox_end(*ret);
		code = err_set(err, EIO, "build: it ended without a result");
	}
	if (code < 0)
		save_log(j->store, j->r->v, &log, err);
	buf_finish(&log.text);
	return code;
}

static int build_locked(struct recipe *r, const char *store, const struct image_build_options *o,
			struct image **ret, struct err *err)
{
	_cleanup_free_ char *temp = store_temp(store),
			    *cache = xasprintf("%s/cache/debs/%s", store, r->cache_name);
	struct job j = {r, store, cache};
	struct sandbox *s = NULL;
	char id[SANDBOX_RESULT_MAX];
	recipe_read_apt(r);
	if (recipe_check(r, store, err) < 0 || run_build(&j, o, temp, &s, id, err) < 0)
		return -1;
	int code = store_publish(store, temp, id, r->key, err);
	if (code == 0)
		store_cache_debs(store, temp, r->cache_name);
	sandbox_end(s);
	if (code < 0)
		return -1;
	_cleanup_free_ char *dir = xasprintf("%s/images/%s", store, id);
	return image_load(dir, ret, err);
}

/* In the user's store (which may be NULL), then the site's. */
static int find_input(const char *store, const char *key, struct image **ret, struct err *err)
{
	_cleanup_free_ char *site = store_site(), *id = NULL;
	const char *const stores[] = {store, site};
	for (size_t i = 0; i < ARRAY_SIZE(stores); i++) {
		if (!stores[i] || store_input(stores[i], key, &id, NULL) < 0)
			continue;
		_cleanup_free_ char *dir = xasprintf("%s/images/%s", stores[i], id);
		/* A damaged one is none: the build replaces it. */
		if (image_load(dir, ret, NULL) == 0) {
			store_used(stores[i], key);
			return 0;
		}
		free(TAKE_PTR(id));
	}
	return err_set(err, ENOENT, "no image of this VSE yet: `vse build` makes it");
}

static int with_initrd(const char *store, struct image *i, const struct image_build_options *o,
		       struct image **ret, struct err *err)
{
	if (image_initrd(store, i, o ? o->guest_init : NULL, err) < 0) {
		image_destroy(i);
		return -1;
	}
	*ret = i;
	return 0;
}

int image_find(const struct vse *v, const struct image_build_options *o, struct image **ret,
	       struct err *err)
{
	_cleanup_free_ char *store = NULL;
	_cleanup_(cleanup_recipe) struct recipe *r = NULL;
	struct image *i = NULL;
	if (store_look(o ? o->store : NULL, &store, err) < 0 ||
	    recipe_make(v, store, &r, err) < 0 || find_input(store, r->key, &i, err) < 0)
		return -1;
	return with_initrd(store, i, o, ret, err);
}

static void told_waiting(void *arg)
{
	const struct image_build_options *o = arg;
	if (o->progress)
		o->progress(o->progress_arg, "wait", 0, 0, "another process builds the same input");
}

int image_build(const struct vse *v, const struct image_build_options *options, struct image **ret,
		bool *ret_cached, struct err *err)
{
	static const struct image_build_options none;
	const struct image_build_options *o = options ? options : &none;
	_cleanup_free_ char *store = NULL;
	_cleanup_(cleanup_recipe) struct recipe *r = NULL;
	_cleanup_close_ int lock = -1;
	struct image *i = NULL;
	bool cached = true;
	if (store_look(o->store, &store, err) < 0 || recipe_make(v, store, &r, err) < 0)
		return -1;
	if (o->rebuild || find_input(store, r->key, &i, NULL) < 0) {
		free(TAKE_PTR(store));
		if (o->allow && o->allow(o->allow_arg, err) < 0)
			return -1;
		if (store_open(o->store, &store, err) < 0)
			return -1;
		if (r->base_unknown && o->progress)
			o->progress(o->progress_arg, "base", 0, 0,
				    "has folders that cannot be read: built anew each time");
		store_sweep(store);
		if (store_lock(store, r->key, told_waiting, (void *)o, &lock, err) < 0)
			return -1;
		if (o->rebuild || find_input(store, r->key, &i, NULL) < 0) {
			cached = false;
			if (build_locked(r, store, o, &i, err) < 0)
				return -1;
		}
	}
	if (with_initrd(store, i, o, ret, err) < 0)
		return -1;
	*ret_cached = cached;
	return 0;
}
