/* SPDX-License-Identifier: Apache-2.0 */
#include "image/kernel.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "image/apt.h"
#include "image/rootfs.h"
#include "image/run.h"

#define SETUP_SECTS 0x1f1
#define MAGIC_HDRS 0x202
#define PROTOCOL 0x206
#define KERNEL_VERSION 0x20e
#define PAYLOAD_OFFSET 0x248
#define PAYLOAD_LENGTH 0x24c
#define HEADER_END 0x250
#define XEN_ELFNOTE_PHYS32_ENTRY 18

static unsigned le16(const unsigned char *p)
{
	return p[0] | (unsigned)p[1] << 8;
}

static uint32_t le32(const unsigned char *p)
{
	return le16(p) | (uint32_t)le16(p + 2) << 16;
}

int bzimage_parse(const unsigned char *d, size_t len, struct bzimage *ret, struct err *err)
{
	struct bzimage b = {0};
	if (len < HEADER_END || memcmp(d + MAGIC_HDRS, "HdrS", 4) != 0)
		return err_set(err, EINVAL, "not a Linux bzImage");
	if (le16(d + PROTOCOL) < 0x208)
		return err_set(err, ENOTSUP, "boot protocol %u.%02u: 2.08 is needed",
			       d[PROTOCOL + 1], d[PROTOCOL]);
	size_t setup = (size_t)(d[SETUP_SECTS] ? d[SETUP_SECTS] : 4) * 512 + 512;
	size_t offset = le32(d + PAYLOAD_OFFSET), length = le32(d + PAYLOAD_LENGTH);
	if (setup > len || offset > len - setup || length > len - setup - offset || length < 8)
		return err_set(err, EINVAL, "damaged bzImage: its payload lies outside the file");
	b.payload = setup + offset;
	b.payload_len = length;
	size_t v = (size_t)le16(d + KERNEL_VERSION) + 0x200;
	if (v > 0x200 && v < MIN(len, setup)) {
		const char *p = (const char *)d + v;
		size_t n = strnlen(p, MIN(len - v, sizeof(b.version) - 1)), word = 0;
		while (word < n && p[word] > ' ' && p[word] < 0x7f && p[word] != '/')
			word++;
		memcpy(b.version, p, word);
	}
	*ret = b;
	return 0;
}

const char *bzimage_compressor(const unsigned char *p, size_t n)
{
	static const struct {
		const char *magic;
		size_t len;
		const char *program;
	} known[] = {{"\x02\x21\x4c\x18", 4, "lz4"},
		     {"\x28\xb5\x2f\xfd", 4, "zstd"},
		     {"\x1f\x8b", 2, "gzip"},
		     {"\xfd"
		      "7zXZ",
		      5, "xz"},
		     {"BZh", 3, "bzip2"},
		     {"\x5d\x00\x00", 3, "lzma"},
		     {"\x89LZO", 4, "lzop"}};
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (n > known[i].len && memcmp(p, known[i].magic, known[i].len) == 0)
			return known[i].program;
	return NULL;
}

/* Notes: 4-byte words namesz, descsz, type; name and desc each padded to 4. */
static bool notes_have_pvh(const unsigned char *p, size_t n)
{
	while (n >= 12) {
		size_t name = le32(p), desc = le32(p + 4), type = le32(p + 8);
		if (name > n || desc > n)
			return false;
		size_t name_end = 12 + (name + 3) / 4 * 4, end = name_end + (desc + 3) / 4 * 4;
		if (name_end > n || end > n)
			return false;
		if (type == XEN_ELFNOTE_PHYS32_ENTRY && name == 4 &&
		    memcmp(p + 12, "Xen", 4) == 0 && desc >= 4)
			return true;
		p += end;
		n -= end;
	}
	return false;
}

bool elf_has_pvh(const unsigned char *d, size_t len)
{
	Elf64_Ehdr h;
	if (len < sizeof(h))
		return false;
	memcpy(&h, d, sizeof(h));
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
	    h.e_ident[EI_DATA] != ELFDATA2LSB || h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phoff > len)
		return false;
	for (size_t i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr ph;
		if ((len - h.e_phoff) / sizeof(ph) <= i)
			return false;
		memcpy(&ph, d + h.e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type == PT_NOTE && ph.p_offset <= len &&
		    ph.p_filesz <= len - ph.p_offset && notes_have_pvh(d + ph.p_offset, ph.p_filesz))
			return true;
	}
	return false;
}

int version_compare(const char *a, const char *b)
{
	while (*a || *b) {
		if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
			char *ea, *eb;
			unsigned long x = strtoul(a, &ea, 10), y = strtoul(b, &eb, 10);
			if (x != y)
				return x < y ? -1 : 1;
			a = ea;
			b = eb;
			continue;
		}
		if (*a != *b)
			return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
		a++;
		b++;
	}
	return 0;
}

void kernel_finish(struct kernel *k)
{
	free(k->file);
	free(k->version);
	free(k->modules);
	free(k->package);
	*k = (struct kernel){0};
}

/* --- where it comes from --- */

/* The newest vmlinuz-VERSION in dir, or NULL. */
static char *newest(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char *best = NULL;
	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, "vmlinuz-", 8) != 0 || !e->d_name[8] ||
		    strstr(e->d_name, "rescue"))
			continue;
		if (!best || version_compare(e->d_name + 8, best) > 0) {
			free(best);
			best = xstrdup(e->d_name + 8);
		}
	}
	if (d)
		closedir(d);
	return best;
}

struct take {
	int kernel, version; /* memfds */
};

/* Inside the root. */
static int take_own(void *arg, struct err *err)
{
	struct take *t = arg;
	_cleanup_free_ char *v = newest("/boot"), *data = NULL;
	size_t len;
	if (!v)
		return err_set(err, ENOENT, "no /boot/vmlinuz-*");
	_cleanup_free_ char *file = xasprintf("/boot/vmlinuz-%s", v),
			    *mods = xasprintf("/lib/modules/%s", v);
	if (!path_exists(mods))
		return err_set(err, ENOENT, "no %s", mods);
	if (path_read(file, KERNEL_BYTES_MAX, &data, &len, err) < 0)
		return -1;
	if (fd_write_all(t->kernel, data, len) < 0 || fd_write_all(t->version, v, strlen(v)) < 0)
		return err_errno(err, errno, "%s", file);
	return 0;
}

static int save(const char *to, const void *data, size_t len, struct err *err)
{
	return path_write(to, data, len, 0644, err);
}

static int from_root(const char *root, const char *dir, struct kernel *k, struct err *err)
{
	_cleanup_close_ int kf = memfd_create("vse", MFD_CLOEXEC),
			    vf = memfd_create("vse", MFD_CLOEXEC);
	struct take t = {kf, vf};
	char version[256] = "";
	_cleanup_free_ char *lib = NULL;
	if (kf < 0 || vf < 0)
		return err_errno(err, errno, "memfd");
	if (rootfs_inside(root, take_own, &t, err) < 0 || rootfs_lib(root, &lib, err) < 0)
		return -1;
	lseek(vf, 0, SEEK_SET);
	fd_read_full(vf, version, sizeof(version) - 1);
	off_t len = lseek(kf, 0, SEEK_END);
	void *p = mmap(NULL, (size_t)len, PROT_READ, MAP_PRIVATE, kf, 0);
	if (len <= 0 || p == MAP_FAILED)
		return err_set(err, EINVAL, "/boot/vmlinuz-%s: empty", version);
	k->file = path_join(dir, "bzImage");
	int code = save(k->file, p, (size_t)len, err);
	munmap(p, (size_t)len);
	k->version = xstrdup(version);
	k->modules = xasprintf("%s/modules/%s", lib, version);
	k->package = xstrdup("base");
	k->in_root = true;
	return code;
}

static char *modules_below(const char *top, const char *version)
{
	static const char *const libs[] = {"lib/modules", "usr/lib/modules"};
	for (size_t i = 0; i < ARRAY_SIZE(libs); i++) {
		char *p = xasprintf("%s/%s/%s", top, libs[i], version);
		if (path_exists(p))
			return p;
		free(p);
	}
	return NULL;
}

static int from_package(const char *root, const char *dir, const char *cache, const struct recipe *r,
			struct sandbox_self *self, struct kernel *k, struct err *err)
{
	if (apt_kernel(root, dir, cache, r, self, &k->package, err) < 0)
		return -1;
	_cleanup_free_ char *x = path_join(dir, "kernel/x"), *boot = path_join(x, "boot");
	k->version = newest(boot);
	if (!k->version)
		return err_set(err, EINVAL, "kernel: package %s has no /boot/vmlinuz-*", k->package);
	k->file = xasprintf("%s/vmlinuz-%s", boot, k->version);
	k->modules = modules_below(x, k->version);
	return 0;
}

static int version_of(const char *path, const char *data, size_t len, char **ret, struct err *err)
{
	const unsigned char *d = (const unsigned char *)data;
	struct bzimage b;
	*ret = NULL;
	if (len > 4 && memcmp(d, ELFMAG, SELFMAG) == 0) {
		const char *banner = memmem(d, len, "Linux version ", 14);
		if (!elf_has_pvh(d, len))
			return err_set(err, EINVAL,
				       "kernel %s: an ELF file without a PVH entry (CONFIG_PVH)", path);
		if (banner && (size_t)(banner - data) + 80 < len)
			*ret = xstrndup(banner + 14, strcspn(banner + 14, " /\n"));
	} else if (bzimage_parse(d, len, &b, err) < 0) {
		return err_prefix(err, "kernel %s: ", path);
	} else if (*b.version) {
		*ret = xstrdup(b.version);
	}
	return 0;
}

char *kernel_host_modules(const char *file)
{
	_cleanup_free_ char *data = NULL, *version = NULL;
	size_t len;
	if (path_read(file, KERNEL_BYTES_MAX, &data, &len, NULL) < 0 ||
	    version_of(file, data, len, &version, NULL) < 0 || !version)
		return NULL;
	return modules_below("", version);
}

static int from_file(const char *root, const char *dir, const struct recipe *r, struct kernel *k,
		     struct err *err)
{
	_cleanup_free_ char *data = NULL, *lib = NULL;
	size_t len;
	if (path_read(r->v->kernel, KERNEL_BYTES_MAX, &data, &len, err) < 0)
		return err_prefix(err, "kernel ");
	if (version_of(r->v->kernel, data, len, &k->version, err) < 0)
		return -1;
	k->file = path_join(dir, "bzImage");
	k->package = xstrdup(strrchr(r->v->kernel, '/') + 1);
	if (save(k->file, data, len, err) < 0)
		return -1;
	/* Its modules: the base's own, else this host's (the usual case: the kernel that runs
	 * here). */
	if (k->version && rootfs_lib(root, &lib, NULL) == 0) {
		k->modules = xasprintf("%s/modules/%s", lib, k->version);
		k->in_root = path_exists(k->modules);
		if (!k->in_root) {
			free(k->modules);
			k->modules = modules_below("", k->version);
		}
	}
	return 0;
}

int kernel_find(const char *root, const char *dir, const char *cache, const struct recipe *r,
		struct sandbox_self *self, struct kernel *ret, struct err *err)
{
	struct kernel k = {0};
	bool automatic = !r->v->kernel || strcmp(r->v->kernel, "auto") == 0;
	int code = -1;
	if (!automatic && r->v->kernel[0] == '/')
		code = from_file(root, dir, r, &k, err);
	else if (automatic && r->v->base != VSE_BASE_DISTRO && from_root(root, dir, &k, NULL) == 0)
		code = 0;
	else {
		kernel_finish(&k);
		code = from_package(root, dir, cache, r, self, &k, err);
	}
	if (code < 0) {
		kernel_finish(&k);
		return -1;
	}
	*ret = k;
	return 0;
}

/* --- vmlinux --- */

static int unpack_payload(const unsigned char *p, size_t len, const char *to, struct err *err)
{
	const char *program = bzimage_compressor(p, len);
	if (!program)
		return err_set(err, ENOTSUP, "kernel: compressed in an unknown way");
	/* All but gzip have the unpacked size appended, which their programs would call garbage. */
	size_t data = strcmp(program, "gzip") == 0 ? len : len - 4;
	_cleanup_close_ int in = memfd_create("vse", MFD_CLOEXEC);
	_cleanup_close_ int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (in < 0 || fd_write_all(in, p, data) < 0 || lseek(in, 0, SEEK_SET) < 0)
		return err_errno(err, errno, "kernel: payload");
	if (out < 0)
		return err_errno(err, errno, "%s", to);
	_cleanup_run_ struct run r = {.in = in, .out = out};
	strvec_addv(&r.argv, program, "-dc", NULL);
	return run_ok(&r, err);
}

static bool file_has_pvh(const char *path)
{
	struct stat st;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0)
		return false;
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return false;
	bool has = elf_has_pvh(p, (size_t)st.st_size);
	munmap(p, (size_t)st.st_size);
	return has;
}

int kernel_vmlinux(const char *file, const char *to, bool *ret_made, struct err *err)
{
	_cleanup_free_ char *data = NULL;
	struct bzimage b;
	size_t len;
	if (path_read(file, KERNEL_BYTES_MAX, &data, &len, err) < 0)
		return -1;
	const unsigned char *d = (const unsigned char *)data;
	*ret_made = false;
	if (elf_has_pvh(d, len)) {
		*ret_made = true;
		return path_write(to, data, len, 0644, err);
	}
	/* Not an x86 bzImage (arm64's Image): it is started as it is. */
	if (bzimage_parse(d, len, &b, NULL) < 0)
		return 0;
	if (unpack_payload(d + b.payload, b.payload_len, to, err) < 0)
		return -1;
	*ret_made = file_has_pvh(to);
	if (!*ret_made)
		unlink(to);
	return 0;
}
