/* SPDX-License-Identifier: Apache-2.0 */
/* Palacios has a BIOS and no way to be handed a kernel. So kernel and initramfs are put behind a boot loader: an ISO image
 * by xorriso with isolinux and its master boot record, which boots as a hard disk (Palacios' CD drive ends a VM at the
 * first command it does not know). The root file system is a disk of its own.
 *
 * VMs of one image share the disk by hard links: the first makes it beside its folder, the last removes it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/palacios.h"
#include "io/child.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

#define SHARED_PREFIX ".vse-boot-"

static bool find_in(const char *const *dirs, const char *name, char *out, size_t size)
{
	for (; *dirs; dirs++) {
		snprintf(out, size, "%s/%s", *dirs, name);
		if (access(out, R_OK) == 0)
			return true;
	}
	out[0] = '\0';
	return false;
}

int palacios_loader_find(struct palacios_loader *ret, struct err *err)
{
	/* Debian; Fedora, SUSE and Alpine; Arch */
	static const char *const dirs[] = {"/usr/lib/ISOLINUX", "/usr/lib/syslinux/modules/bios",
					   "/usr/share/syslinux", "/usr/lib/syslinux/bios", NULL};
	struct palacios_loader l = {.xorriso = ""};
	_cleanup_free_ char *xorriso = path_find_program("xorriso");
	if (!xorriso)
		return err_set(err, ENOENT, "xorriso is not there: install the package xorriso");
	snprintf(l.xorriso, sizeof(l.xorriso), "%s", xorriso);
	if (!find_in(dirs, "isolinux.bin", l.isolinux, sizeof(l.isolinux)) ||
	    !find_in(dirs, "isohdpfx.bin", l.mbr, sizeof(l.mbr)))
		return err_set(
			err, ENOENT,
			"isolinux.bin is not there: install the package isolinux (or syslinux)");
	if (!find_in(dirs, "ldlinux.c32", l.ldlinux, sizeof(l.ldlinux)))
		return err_set(err, ENOENT,
			       "ldlinux.c32 is not there: install the package syslinux-common");
	*ret = l;
	return 0;
}

int palacios_check_kernel(const char *path, struct err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char magic[4];
	if (fd < 0)
		return err_errno(err, errno, "kernel %s", path);
	/* Documentation/arch/x86/boot.rst: "HdrS" at 0x202 */
	if (pread(fd, magic, sizeof(magic), 0x202) != (ssize_t)sizeof(magic) ||
	    memcmp(magic, "HdrS", 4) != 0)
		return err_set(err, EINVAL, "kernel %s: not a bzImage", path);
	return 0;
}

/* What the disk is made of: two VMs with the same may share it. */
static int shared_name(const char *kernel, const char *initrd, const char *cmdline, char out[48],
		       struct err *err)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *const files[] = {kernel, initrd};
	for (size_t i = 0; i < ARRAY_SIZE(files) && files[i]; i++) {
		struct stat st;
		if (stat(files[i], &st) < 0)
			return err_errno(err, errno, "%s", files[i]);
		buf_addf(&b, "%s %llu %llu %lld %lld.%ld\n", files[i],
			 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
			 (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	}
	buf_adds(&b, cmdline);
	XXH128_hash_t h = XXH3_128bits(buf_head(&b), buf_len(&b));
	snprintf(out, 48, SHARED_PREFIX "%08x%016llx", (unsigned)h.high64, (unsigned long long)h.low64);
	return 0;
}

static void add_graft(struct strvec *v, const char *at, const char *file)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	buf_addf(&b, "%s=", at);
	for (; *file; file++) { /* xorriso's man page, -graft-points: = and \ are escaped by \ */
		if (*file == '=' || *file == '\\')
			buf_addc(&b, '\\');
		buf_addc(&b, *file);
	}
	strvec_add(v, buf_cstr(&b));
}

static int run(struct strvec *argv, const char *log, struct err *err)
{
	_cleanup_close_ int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct child_spec cs = {.argv = strvec_argv(argv),
				.fds = {-1, out, out},
				.n_fds = 3,
				.die_with_parent = true};
	char how[40];
	pid_t pid;
	int status;
	if (child_spawn(&cs, &pid, err) < 0)
		return err_prefix(err, "boot disk: ");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_errno(err, errno, "boot disk: wait for xorriso");
	if (status == 0)
		return 0;
	_cleanup_free_ char *text = NULL;
	const char *said = "";
	if (path_read(log, 1 << 20, &text, NULL, NULL) == 0) {
		text[strcspn(text, "\n")] = '\0';
		said = text;
	}
	return err_set(err, EIO, "boot disk: xorriso: %s (%.200s)", child_status_text(status, how),
		       said);
}

static int make_iso(const char *dir, const char *iso, const char *kernel, const char *initrd,
		    const char *cmdline, struct err *err)
{
	_cleanup_strvec_ struct strvec v = STRVEC_INIT;
	_cleanup_free_ char *cfg = path_join(dir, "isolinux.cfg"),
			    *log = path_join(dir, "xorriso.log");
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct palacios_loader l;
	if (palacios_loader_find(&l, err) < 0)
		return -1;
	buf_adds(&text, "DEFAULT vse\nPROMPT 0\nTIMEOUT 0\nLABEL vse\nKERNEL /kernel\n");
	buf_addf(&text, "%sAPPEND %s\n", initrd ? "INITRD /initrd\n" : "", cmdline);
	if (path_write(cfg, buf_head(&text), buf_len(&text), 0600, err) < 0)
		return -1;
	strvec_addv(&v, l.xorriso, "-as", "mkisofs", "-quiet", "-o", iso, "-V", "VSE", "-R", "-b",
		    "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot",
		    "-boot-load-size", "4", "-boot-info-table", "-isohybrid-mbr", l.mbr,
		    "-graft-points", NULL);
	add_graft(&v, "isolinux/isolinux.bin", l.isolinux);
	add_graft(&v, "isolinux/ldlinux.c32", l.ldlinux);
	add_graft(&v, "isolinux/isolinux.cfg", cfg);
	add_graft(&v, "kernel", kernel);
	if (initrd)
		add_graft(&v, "initrd", initrd);
	int rc = run(&v, log, err);
	unlink(cfg);
	unlink(log);
	return rc;
}

int palacios_boot_make(const char *dir, const char *kernel, const char *initrd, const char *cmdline,
		       char **ret_path, struct err *err)
{
	char name[48];
	_cleanup_free_ char *iso = path_join(dir, "boot.iso"), *shared = NULL;
	if (shared_name(kernel, initrd, cmdline, name, err) < 0)
		return -1;
	shared = xasprintf("%s/../%s", dir, name);
	unlink(iso);
	if (link(shared, iso) < 0) {
		if (make_iso(dir, iso, kernel, initrd, cmdline, err) < 0) {
			unlink(iso);
			return -1;
		}
		if (link(iso, shared) < 0)
			errno = 0; /* another was faster, or no hard links here: each has its own then */
	}
	*ret_path = TAKE_PTR(iso);
	return 0;
}

/* Called for each VM at its end; who finds that nobody else uses the shared one takes it along. */
void palacios_boot_remove(const char *dir)
{
	_cleanup_free_ char *iso = path_join(dir, "boot.iso"), *parent = path_join(dir, "..");
	struct stat own, st;
	bool had = stat(iso, &own) == 0;
	unlink(iso);
	if (!had || own.st_nlink != 2)
		return;
	DIR *d = opendir(parent);
	for (struct dirent *e; d && (e = readdir(d));)
		if (strncmp(e->d_name, SHARED_PREFIX, strlen(SHARED_PREFIX)) == 0 &&
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    st.st_ino == own.st_ino && st.st_dev == own.st_dev && st.st_nlink == 1)
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}
