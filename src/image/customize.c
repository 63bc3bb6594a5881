/* SPDX-License-Identifier: Apache-2.0 */
/* What the VSE adds to its base: files, build steps; and what must not stay. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "image/rootfs.h"
#include "image/run.h"

#define FOLDER_DEPTH_MAX 128u /* two descriptors a level */

/* --- files --- */

static int parents(const char *path, struct err *err)
{
	_cleanup_free_ char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return 0;
	*slash = '\0';
	return path_mkdirs(dir, 0755, err);
}

static int copy_fd(int from, int to, struct err *err)
{
	_cleanup_free_ char *b = xmalloc(1 << 16);
	for (;;) {
		ssize_t n = read(from, b, 1 << 16);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, errno, "read");
		if (n == 0)
			return 0;
		if (fd_write_all(to, b, (size_t)n) < 0)
			return err_errno(err, errno, "write");
	}
}

struct one_file {
	const struct vse_file *f;
	int source; /* the file or folder on the host, opened outside; -1: inline */
	bool folder;
};

static int put_file(int dirfd, const char *name, int source, const struct vse_file *f, mode_t mode,
		    struct err *err)
{
	/* A link in place of the file (a distribution's /etc/resolv.conf) is replaced, not followed. */
	struct stat st;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
		unlinkat(dirfd, name, 0);
	_cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, errno, "%s", name);
	const char *text = f->content ? f->content : "";
	if (source >= 0 ? copy_fd(source, fd, err) < 0 : fd_write_all(fd, text, strlen(text)) < 0)
		return source >= 0 ? -1 : err_errno(err, errno, "write");
	if (fchown(fd, f->uid, f->gid) < 0 || fchmod(fd, mode) < 0)
		return err_errno(err, errno, "owner %u:%u, mode %04o", f->uid, f->gid, mode);
	return 0;
}

static int put_link(int from, int to, const char *name, const struct vse_file *f, struct err *err)
{
	char target[4097];
	ssize_t n = readlinkat(from, name, target, sizeof(target) - 1);
	if (n < 0)
		return err_errno(err, errno, "%s", name);
	target[n] = '\0';
	unlinkat(to, name, 0);
	if (symlinkat(target, to, name) < 0 ||
	    fchownat(to, name, f->uid, f->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return err_errno(err, errno, "%s", name);
	return 0;
}

static int put_folder(int from, int to, const struct vse_file *f, unsigned depth, struct err *err);

static int put_entry(int from, int to, const char *name, const struct vse_file *f, unsigned depth,
		     struct err *err)
{
	struct stat st;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_errno(err, errno, "%s", name);
	if (S_ISLNK(st.st_mode))
		return put_link(from, to, name, f, err);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return err_set(err, EINVAL, "%s: neither file, folder nor link", name);
	_cleanup_close_ int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (in < 0)
		return err_errno(err, errno, "%s", name);
	/* Set-user-ID and the like are only ever given by the VSE. */
	if (S_ISREG(st.st_mode))
		return put_file(to, name, in, f, st.st_mode & 0777, err);
	if (mkdirat(to, name, 0700) < 0 && errno != EEXIST)
		return err_errno(err, errno, "%s", name);
	/* The base may have a link to a folder there, as /lib is: we are inside the root, it leads nowhere else. */
	_cleanup_close_ int sub = openat(to, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sub < 0)
		return err_errno(err, errno, "%s", name);
	if (put_folder(in, sub, f, depth + 1, err) < 0)
		return err_prefix(err, "%s/", name);
	if (fchown(sub, f->uid, f->gid) < 0 || fchmod(sub, st.st_mode & 0777) < 0)
		return err_errno(err, errno, "%s", name);
	return 0;
}

static int put_folder(int from, int to, const struct vse_file *f, unsigned depth, struct err *err)
{
	if (depth > FOLDER_DEPTH_MAX)
		return err_set(err, ELOOP, "deeper than %u folders", FOLDER_DEPTH_MAX);
	int copy = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), code = 0;
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	if (!d)
		return err_errno(err, errno, "read folder");
	struct dirent *e;
	while (code == 0 && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			code = put_entry(from, to, e->d_name, f, depth, err);
	closedir(d);
	return code;
}

/* Inside the root: its links lead nowhere else. */
static int write_file(void *arg, struct err *err)
{
	struct one_file *o = arg;
	const struct vse_file *f = o->f;
	if (parents(f->path, err) < 0)
		return err_prefix(err, "file %s: ", f->path);
	if (!o->folder) {
		if (put_file(AT_FDCWD, f->path, o->source, f, f->mode & 07777, err) < 0)
			return err_prefix(err, "file %s: ", f->path);
		return 0;
	}
	if (path_mkdirs(f->path, 0755, err) < 0)
		return -1;
	_cleanup_close_ int to = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (to < 0)
		return err_errno(err, errno, "file %s", f->path);
	if (put_folder(o->source, to, f, 0, err) < 0)
		return err_prefix(err, "file %s: ", f->path);
	if (fchown(to, f->uid, f->gid) < 0 || fchmod(to, f->mode & 07777) < 0)
		return err_errno(err, errno, "file %s: owner %u:%u", f->path, f->uid, f->gid);
	return 0;
}

int rootfs_files(const char *root, const struct recipe *r, struct err *err)
{
	for (size_t i = 0; i < r->v->n_files; i++) {
		const struct vse_file *f = &r->v->files[i];
		_cleanup_close_ int fd = -1;
		struct stat st = {0};
		if (f->source &&
		    ((fd = open(f->source, O_RDONLY | O_CLOEXEC)) < 0 || fstat(fd, &st) < 0))
			return err_errno(err, errno, "file %s: %s", f->path, f->source);
		struct one_file o = {f, fd, S_ISDIR(st.st_mode)};
		if (rootfs_inside(root, write_file, &o, err) < 0)
			return -1;
	}
	return 0;
}

/* --- build steps --- */

static const char *const dev_nodes[] = {"null", "zero", "full", "random", "urandom", "tty"};

static int mount_dev(const char *root, struct err *err)
{
	_cleanup_free_ char *dev = path_join(root, "dev");
	if (mount("dev", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k") < 0)
		return err_errno(err, errno, "root: mount /dev");
	for (size_t i = 0; i < ARRAY_SIZE(dev_nodes); i++) {
		_cleanup_free_ char *to = path_join(dev, dev_nodes[i]),
				    *from = path_join("/dev", dev_nodes[i]);
		_cleanup_close_ int fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
		if (fd < 0 || mount(from, to, NULL, MS_BIND, NULL) < 0)
			return err_errno(err, errno, "root: %s", from);
	}
	_cleanup_free_ char *fds = path_join(dev, "fd"), *shm = path_join(dev, "shm");
	(void)!symlink("/proc/self/fd", fds);
	(void)mkdir(shm, 01777);
	return 0;
}

static int mount_all(const char *root, struct err *err)
{
	_cleanup_free_ char *proc = path_join(root, "proc");
	if (mount("/proc", proc, NULL, MS_BIND | MS_REC, NULL) < 0)
		return err_errno(err, errno, "root: mount /proc");
	return mount_dev(root, err);
}

static void unmount_all(const char *root)
{
	_cleanup_free_ char *proc = path_join(root, "proc"), *dev = path_join(root, "dev");
	umount2(dev, MNT_DETACH);
	umount2(proc, MNT_DETACH);
}

static int prepare_fn(void *arg, struct err *err)
{
	/* No package may start a service; names can be looked up. Both go again in neutralize_fn.
	 * */
	static const char policy[] = "#!/bin/sh\nexit 101\n";
	const char *resolv = arg;
	if (path_mkdirs("/usr/sbin", 0755, err) < 0 ||
	    path_write("/usr/sbin/policy-rc.d", policy, sizeof(policy) - 1, 0755, err) < 0)
		return -1;
	unlink("/etc/resolv.conf");
	if (path_mkdirs("/etc", 0755, err) < 0)
		return -1;
	return path_write("/etc/resolv.conf", resolv, strlen(resolv), 0644, err);
}

static void step_line(void *arg, const char *line)
{
	sandbox_say(arg, "output", 0, 0, line);
}

static int one_step(const char *root, const struct recipe *r, size_t i, struct sandbox_self *self,
		    struct err *err)
{
	const char *text = r->v->build.v[i];
	int status, first = (int)strcspn(text, "\n");
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_run_ struct run p = {.root = root,
				      .clean_env = true,
				      .on_line = step_line,
				      .arg = self,
				      .capture = &out,
				      .capture_max = 300};
	strvec_addv(&p.argv, "/bin/sh", "-e", "-c", text, NULL);
	strvec_addv(&p.env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		    "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		    "SOURCE_DATE_EPOCH=" ROOTFS_EPOCH, NULL);
	strvec_copy(&p.env, &r->proxy);
	for (size_t e = 0; e < r->v->n_env; e++)
		strvec_addf(&p.env, "%s=%s", r->v->env[e].name, r->v->env[e].value);
	_cleanup_free_ char *label = xasprintf("%.*s", MIN(first, 60), text);
	sandbox_say(self, "build", (unsigned)i + 1, (unsigned)r->v->build.n, label);
	if (run(&p, &status, err) < 0)
		return err_prefix(err, "build step %zu (%s): ", i + 1, label);
	if (status == 0)
		return 0;
	char how[40];
	run_status_text(status, how);
	/* Its last words, on one line. */
	_cleanup_free_ char *tail = xstrdup(buf_cstr(&out));
	for (char *c = tail; *c; c++)
		if (*c == '\n')
			*c = c[1] ? '|' : '\0';
	return err_set(err, ECANCELED, "build step %zu (%s): %s%s%s", i + 1, label, how,
		       *tail ? ": " : "", tail);
}

int rootfs_steps(const char *root, struct recipe *r, struct sandbox_self *self, struct err *err)
{
	_cleanup_free_ char *resolv = NULL;
	if (!r->v->build.n)
		return 0;
	if (path_read("/etc/resolv.conf", 65536, &resolv, NULL, NULL) < 0)
		resolv = xstrdup("");
	if (rootfs_inside(root, prepare_fn, resolv, err) < 0)
		return -1;
	int code = mount_all(root, err);
	for (size_t i = 0; code == 0 && i < r->v->build.n; i++)
		code = one_step(root, r, i, self, err);
	/* Daemons that a step left would keep files open and write on. We are process 1 here: this
	 * ends all others. */
	if (getpid() == 1)
		kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	unmount_all(root);
	return code;
}

/* --- neutral --- */

/* What the VSE itself puts into the image stays there. */
struct given {
	const struct recipe *r;
	int *folder; /* for each of its files: the source, if that is a folder, opened outside; or -1 */
};

static bool below(const char *path, const char *dir)
{
	size_t n = strlen(dir);
	return strncmp(path, dir, n) == 0 && (path[n] == '/' || !path[n]);
}

/* The path itself, something below it, or something of a folder. */
static bool is_given(const struct given *g, const char *path)
{
	struct stat st;
	for (size_t i = 0; i < g->r->v->n_files; i++) {
		const char *file = g->r->v->files[i].path;
		if (below(file, path))
			return true;
		if (g->folder[i] >= 0 && below(path, file) &&
		    fstatat(g->folder[i], path + strlen(file) + 1, &st, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	}
	return false;
}

static void remove_glob(const struct given *given, const char *pattern)
{
	glob_t g = {0};
	if (glob(pattern, GLOB_NOSORT | GLOB_PERIOD, NULL, &g) == 0)
		for (size_t i = 0; i < g.gl_pathc; i++) {
			const char *base = strrchr(g.gl_pathv[i], '/') + 1;
			if (strcmp(base, ".") != 0 && strcmp(base, "..") != 0 &&
			    !is_given(given, g.gl_pathv[i]))
				path_remove(g.gl_pathv[i], NULL);
		}
	globfree(&g);
}

static int write_text(const char *path, const char *text, struct err *err)
{
	unlink(path);
	if (path_write(path, text, strlen(text), 0644, err) < 0)
		return -1;
	return 0;
}

static int neutralize_fn(void *arg, struct err *err)
{
	const struct given *g = arg;
	struct stat st;
	/* Keys and ids are a VM's own; the guest agent makes them. */
	static const char *const all[] = {"/dev/*",
					  "/proc/*",
					  "/sys/*",
					  "/run/*",
					  "/tmp/*",
					  "/etc/ssh/ssh_host_*",
					  "/var/lib/systemd/random-seed",
					  "/var/lib/dbus/machine-id",
					  "/usr/sbin/policy-rc.d",
					  "/.dockerenv"};
	static const char *const apt[] = {"/var/lib/apt/lists/*",
					  "/var/cache/apt/*",
					  "/var/cache/ldconfig/aux-cache",
					  "/var/cache/debconf/*-old",
					  "/var/lib/dpkg/*-old",
					  "/var/log/*.log",
					  "/var/log/apt/*",
					  "/etc/apt/apt.conf.d/99mmdebstrap",
					  "/var/lib/apt/extended_states.*"};
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		remove_glob(g, all[i]);
	/* A step may have made it a link: to /tmp, or to what must stay. */
	if (lstat("/var/tmp", &st) == 0 && S_ISDIR(st.st_mode))
		remove_glob(g, "/var/tmp/*");
	for (size_t i = 0; i < ARRAY_SIZE(apt) && g->r->v->base == VSE_BASE_DISTRO; i++)
		remove_glob(g, apt[i]);
	if (path_mkdirs("/etc", 0755, err) < 0 || path_mkdirs("/root", 0700, err) < 0 ||
	    (!is_given(g, "/etc/hostname") && write_text("/etc/hostname", "vse\n", err) < 0) ||
	    (!is_given(g, "/etc/resolv.conf") && write_text("/etc/resolv.conf", "", err) < 0))
		return -1;
	if (path_exists("/etc/machine-id"))
		return write_text("/etc/machine-id", "", err);
	return 0;
}

int rootfs_neutralize(const char *root, const struct recipe *r, struct err *err)
{
	struct given g = {r, xcalloc(r->v->n_files + 1, sizeof(int))};
	for (size_t i = 0; i < r->v->n_files; i++)
		g.folder[i] = r->v->files[i].source
				      ? open(r->v->files[i].source, O_PATH | O_DIRECTORY | O_CLOEXEC)
				      : -1;
	/* A step may have put a link in place of a folder that is emptied now. */
	int code = rootfs_folders(root, err);
	if (code == 0 && rootfs_inside(root, neutralize_fn, &g, err) < 0)
		code = err_prefix(err, "root: ");
	for (size_t i = 0; i < r->v->n_files; i++)
		cleanup_close(&g.folder[i]);
	free(g.folder);
	return code;
}
