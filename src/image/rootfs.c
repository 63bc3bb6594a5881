/* SPDX-License-Identifier: Apache-2.0 */
#include "image/rootfs.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "image/run.h"
#include "image/tarfilter.h"

int rootfs_inside(const char *root, int (*fn)(void *arg, struct err *err), void *arg, struct err *err)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	pid_t pid = fork();
	if (pid == 0) {
		struct err e = ERR_INIT;
		umask(022);
		if (chroot(root) < 0 || chdir("/") < 0)
			err_errno(&e, errno, "chroot %s", root);
		else if (fn(arg, &e) == 0)
			_exit(0);
		(void)fd_write_all(p[1], &e, sizeof(e));
		_exit(1);
	}
	close(p[1]);
	struct err e = ERR_INIT;
	ssize_t n = pid < 0 ? 0 : fd_read_full(p[0], &e, sizeof(e));
	close(p[0]);
	int status = 0;
	if (pid < 0)
		return err_errno(err, errno, "fork");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status == 0)
		return 0;
	return n == (ssize_t)sizeof(e) ? err_copy(err, &e)
				       : err_set(err, EIO, "ended by signal %d", WTERMSIG(status));
}

struct read_args {
	const char *path;
	int fd;
	size_t max;
};

static int read_fn(void *arg, struct err *err)
{
	struct read_args *a = arg;
	_cleanup_free_ char *data = NULL;
	size_t len;
	if (path_read(a->path, a->max, &data, &len, err) < 0)
		return -1;
	return fd_write_all(a->fd, data, len) < 0 ? err_errno(err, errno, "%s", a->path) : 0;
}

int rootfs_read(const char *root, const char *path, size_t max, char **ret, size_t *ret_len,
		struct err *err)
{
	_cleanup_close_ int fd = memfd_create("vse", MFD_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "memfd");
	struct read_args a = {path, fd, max};
	if (rootfs_inside(root, read_fn, &a, err) < 0)
		return -1;
	off_t len = lseek(fd, 0, SEEK_END);
	lseek(fd, 0, SEEK_SET);
	_cleanup_free_ char *data = xmalloc((size_t)len + 1);
	if (fd_read_full(fd, data, (size_t)len) != len)
		return err_set(err, EIO, "%s: short read", path);
	data[len] = '\0';
	*ret = TAKE_PTR(data);
	if (ret_len)
		*ret_len = (size_t)len;
	return 0;
}

static bool real_dir(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int rootfs_lib(const char *root, char **ret, struct err *err)
{
	_cleanup_free_ char *lib = path_join(root, "lib"), *usr = path_join(root, "usr"),
			    *usrlib = path_join(root, "usr/lib");
	if (real_dir(lib)) {
		*ret = TAKE_PTR(lib);
		return 0;
	}
	/* depmod goes through root/lib: where that leads must be inside the root. */
	char target[16] = "";
	ssize_t n = readlink(lib, target, sizeof(target) - 1);
	if (n > 0 && (strcmp(target, "usr/lib") == 0 || strcmp(target, "./usr/lib") == 0) &&
	    real_dir(usr) && real_dir(usrlib)) {
		*ret = TAKE_PTR(usrlib);
		return 0;
	}
	return err_set(err, EINVAL, "root: /lib is neither a folder nor a link to usr/lib");
}

/* --- unpacking --- */

static void tell_note(void *arg, const char *text)
{
	sandbox_say(arg, "note", 0, 0, text);
}

/* A program of the pipeline. Its complaints go to a memory file: nobody reads them before its end.
 * */
struct part {
	struct run run;
	pid_t pid;
	int fd, text;
};

#define PART_INIT ((struct part){.fd = -1, .text = -1})

static void part_finish(struct part *p)
{
	run_finish(&p->run);
	cleanup_close(&p->fd);
	cleanup_close(&p->text);
}

/* end: the descriptor of ours that is the program's other end; writes: it is the program's stdout.
 * */
static int part_start(struct part *p, bool writes, int *ret_end, struct err *err)
{
	int fds[2];
	p->text = memfd_create("vse", MFD_CLOEXEC);
	if (p->text < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(err, errno, "start %s", p->run.argv.v[0]);
	p->run.err_fd = p->text;
	*(writes ? &p->run.out : &p->run.in) = fds[writes];
	int code = run_start(&p->run, &p->pid, &p->fd, err);
	close(fds[writes]);
	if (code < 0)
		close(fds[!writes]);
	else
		*ret_end = fds[!writes];
	return code;
}

/* How it ended: 0, or -1 with its first line; that one is the cause, tar's last says only that
 * there was one. */
static int part_end(struct part *p, struct err *err)
{
	int status;
	char how[40], line[300] = "";
	if (run_wait(&p->run, p->pid, p->fd, &status, err) < 0)
		return -1;
	if (status == 0)
		return 0;
	run_status_text(status, how);
	lseek(p->text, 0, SEEK_SET);
	ssize_t n = fd_read_full(p->text, line, sizeof(line) - 1);
	line[MAX(n, 0)] = '\0';
	line[strcspn(line, "\n")] = '\0';
	int code = strstr(line, "No space left") ? ENOSPC : WIFSIGNALED(status) ? EINTR : EINVAL;
	return err_set(err, code, "%s: %s", p->run.argv.v[0], *line ? line : how);
}

static int filter_into_tar(const char *root, int in, struct tar_filter *f, struct err *err)
{
	_cleanup_(part_finish) struct part tar = PART_INIT;
	struct err fe = ERR_INIT, te = ERR_INIT;
	int to = -1;
	strvec_addv(&tar.run.argv, "tar", "-x", "-f", "-", "-C", root, "--preserve-permissions",
		    "--same-owner", "--numeric-owner", "--delay-directory-restore", "--xattrs",
		    "--xattrs-include=security.capability", "--warning=no-timestamp", NULL);
	if (part_start(&tar, false, &to, err) < 0)
		return -1;
	int code = tar_filter(in, to, f, &fe);
	close(to);
	if (code < 0 && fe.code != EPIPE)
		kill(tar.pid, SIGKILL);
	int ended = part_end(&tar, &te);
	if (code < 0 && fe.code != EPIPE)
		return err_copy(err, &fe);
	return ended < 0 ? err_copy(err, &te) : code < 0 ? err_copy(err, &fe) : 0;
}

int rootfs_unpack(const char *root, int fd, struct recipe *r, struct sandbox_self *self, struct err *err)
{
	bool outside = r->v->base == VSE_BASE_DIR && fd >= 0;
	struct tar_filter f = {.note = tell_note,
			       .arg = self,
			       .map_owner = outside && r->own_uid != 0,
			       .uid = r->own_uid,
			       .gid = r->own_gid};
	if (outside || (r->v->base == VSE_BASE_TAR && !*r->compressor))
		return filter_into_tar(root, fd, &f, err);
	_cleanup_(part_finish) struct part front = PART_INIT;
	struct err fe = ERR_INIT, pe = ERR_INIT;
	int in = -1;
	if (r->v->base == VSE_BASE_DIR)
		recipe_tar_folder(r, &front.run.argv, &front.run.env);
	else
		strvec_addv(&front.run.argv, r->compressor, "-dc", NULL);
	front.run.in = fd < 0 ? 0 : fd;
	if (part_start(&front, true, &in, err) < 0)
		return -1;
	int code = filter_into_tar(root, in, &f, &fe);
	close(in);
	int ended = part_end(&front, &pe);
	/* A damaged compression shows as a cut archive, and its program knows better. But a refused
	 * member makes that program die of a closed pipe. */
	if (ended < 0 && pe.code != EINTR && (code == 0 || strstr(fe.text, "cut off")))
		return err_copy(err, &pe);
	return code < 0 ? err_copy(err, &fe) : 0;
}

/* --- what every root must have --- */

static int make_folder(const char *root, const char *name, mode_t mode, struct err *err)
{
	_cleanup_free_ char *p = path_join(root, name);
	if (!real_dir(p) && (path_remove(p, err) < 0 || mkdir(p, mode) < 0))
		return err_errno(err, errno, "root: /%s", name);
	if (chmod(p, mode) < 0)
		return err_errno(err, errno, "root: /%s", name);
	return 0;
}

static int check_shell(const char *root, const struct recipe *r, struct err *err)
{
	static const char *const paths[] = {"/bin/sh", "/usr/bin/sh", "/bin/busybox", "/sbin/init",
					    "/usr/bin/env"};
	static const struct {
		const char *arch;
		unsigned machine;
	} machines[] = {{"amd64", EM_X86_64}, {"arm64", EM_AARCH64}};
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		_cleanup_free_ char *data = NULL;
		size_t len = 0;
		if (rootfs_read(root, paths[i], 64u << 20, &data, &len, NULL) < 0 ||
		    len < sizeof(Elf64_Ehdr) || memcmp(data, ELFMAG, SELFMAG) != 0)
			continue;
		unsigned machine = ((const Elf64_Ehdr *)(const void *)data)->e_machine;
		for (size_t m = 0; m < ARRAY_SIZE(machines); m++)
			if (strcmp(machines[m].arch, r->v->arch) != 0 && machines[m].machine == machine)
				return err_set(err, EINVAL,
					       "base: its programs are for %s (%s), the VSE says "
					       "architecture %s",
					       machines[m].arch, paths[i], r->v->arch);
		return 0;
	}
	if (r->v->build.n)
		return err_set(err, EINVAL, "base: it has no /bin/sh, and the VSE has build steps");
	return 0;
}

int rootfs_folders(const char *root, struct err *err)
{
	if (make_folder(root, "dev", 0755, err) < 0 || make_folder(root, "proc", 0555, err) < 0 ||
	    make_folder(root, "sys", 0555, err) < 0 || make_folder(root, "run", 0755, err) < 0)
		return -1;
	return make_folder(root, "tmp", 01777, err);
}

int rootfs_check(const char *root, const struct recipe *r, struct err *err)
{
	_cleanup_free_ char *usr = path_join(root, "usr"), *bin = path_join(root, "bin"),
			    *sbin = path_join(root, "sbin");
	if (!path_exists(usr) && !path_exists(bin) && !path_exists(sbin))
		return err_set(err,
			       EINVAL, "base: no root file system: there is no bin, sbin or usr at its top");
	return rootfs_folders(root, err) < 0 ? -1 : check_shell(root, r, err);
}
