/* SPDX-License-Identifier: Apache-2.0 */
#include "image/modules.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "image/cpio.h"
#include "image/run.h"

#define MODULE_BYTES_MAX (64u << 20)
#define DEPTH_MAX 16u

/* Both transports: microvm has virtio-mmio, q35 has PCI; loading the one that finds no device takes
 * about a millisecond, and one list serves both. Without the required ones a VM could not speak or
 * find its root. */
static const struct {
	const char *name;
	bool required;
} wanted[] = {
	{"virtio_mmio", false},  {"virtio_pci", false},   {"virtio_console", true},
	{"virtio_blk", true},    {"virtio_net", true},    {"pvpanic", false},
	{"pvpanic_mmio", false}, {"squashfs", true},      {"overlay", true},
	{"ext4", false},         {"ipv6", false},         {"af_packet", false},
	{"xen_blkfront", false}, {"xen_netfront", false}, {"9pnet_virtio", false},
	{"9p", false},
};

struct tree {
	struct strvec names, paths; /* module i: its name and file */
	struct strvec builtin;
	struct strvec done, busy;
	struct strvec *order;
	struct cpio *cpio;
	const char *dir;
};

char *module_name(const char *path)
{
	const char *base = strrchr(path, '/');
	base = base ? base + 1 : path;
	const char *ko = strstr(base, ".ko");
	if (!ko || ko == base ||
	    (ko[3] && strcmp(ko + 3, ".xz") != 0 && strcmp(ko + 3, ".zst") != 0 &&
	     strcmp(ko + 3, ".gz") != 0))
		return NULL;
	char *n = xstrndup(base, (size_t)(ko - base));
	for (char *c = n; *c; c++)
		if (*c == '-')
			*c = '_';
	return n;
}

static int modinfo_section(const unsigned char *d, size_t len, const char **ret, size_t *ret_len)
{
	Elf64_Ehdr h;
	Elf64_Shdr names, s;
	if (len < sizeof(h))
		return -1;
	memcpy(&h, d, sizeof(h));
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
	    h.e_shentsize != sizeof(s) || h.e_shoff > len ||
	    (len - h.e_shoff) / sizeof(s) < h.e_shnum || h.e_shstrndx >= h.e_shnum)
		return -1;
	memcpy(&names, d + h.e_shoff + h.e_shstrndx * sizeof(s), sizeof(names));
	if (names.sh_offset > len || names.sh_size > len - names.sh_offset)
		return -1;
	for (size_t i = 0; i < h.e_shnum; i++) {
		memcpy(&s, d + h.e_shoff + i * sizeof(s), sizeof(s));
		if (s.sh_name >= names.sh_size || names.sh_size - s.sh_name < 9 ||
		    memcmp(d + names.sh_offset + s.sh_name, ".modinfo", 9) != 0)
			continue;
		if (s.sh_offset > len || s.sh_size > len - s.sh_offset)
			return -1;
		*ret = (const char *)d + s.sh_offset;
		*ret_len = s.sh_size;
		return 0;
	}
	return -1;
}

int modinfo_depends(const unsigned char *ko, size_t len, struct strvec *out, struct err *err)
{
	const char *p;
	size_t n;
	if (modinfo_section(ko, len, &p, &n) < 0)
		return err_set(err, EINVAL, "not a kernel module");
	while (n) {
		size_t k = strnlen(p, n);
		if (k > 8 && memcmp(p, "depends=", 8) == 0) {
			_cleanup_free_ char *list = xstrndup(p + 8, k - 8);
			strvec_split(out, list, ",");
		}
		k = MIN(k + 1, n);
		p += k;
		n -= k;
	}
	return 0;
}

/* kmod's names treat '-' and '_' alike. */
static void find_modules(struct tree *t, const char *dir, unsigned depth)
{
	DIR *d = depth < DEPTH_MAX ? opendir(dir) : NULL;
	struct dirent *e;
	struct stat st;
	while (d && (e = readdir(d))) {
		_cleanup_free_ char *p = path_join(dir, e->d_name), *name = module_name(e->d_name);
		if (e->d_name[0] == '.' || lstat(p, &st) < 0)
			continue;
		if (S_ISDIR(st.st_mode))
			find_modules(t, p, depth + 1);
		else if (S_ISREG(st.st_mode) && name) {
			strvec_take(&t->names, TAKE_PTR(name));
			strvec_take(&t->paths, TAKE_PTR(p));
		}
	}
	if (d)
		closedir(d);
}

static void read_builtin(struct tree *t)
{
	_cleanup_free_ char *file = path_join(t->dir, "modules.builtin"), *text = NULL;
	if (path_read(file, 4u << 20, &text, NULL, NULL) < 0)
		return;
	char *save = NULL;
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char *n = module_name(l);
		if (n)
			strvec_take(&t->builtin, n);
	}
}

static int read_module(const char *path, char **ret, size_t *ret_len, struct err *err)
{
	size_t n = strlen(path);
	const char *program = strcmp(path + n - 3, ".xz") == 0    ? "xz"
			      : strcmp(path + n - 3, ".gz") == 0  ? "gzip"
			      : strcmp(path + n - 4, ".zst") == 0 ? "zstd"
								  : NULL;
	if (!program)
		return path_read(path, MODULE_BYTES_MAX, ret, ret_len, err);
	_cleanup_close_ int in = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW),
			    out = memfd_create("vse", MFD_CLOEXEC);
	if (in < 0 || out < 0)
		return err_errno(err, errno, "%s", path);
	_cleanup_run_ struct run r = {.in = in, .out = out};
	strvec_addv(&r.argv, program, "-dc", NULL);
	if (run_ok(&r, err) < 0)
		return -1;
	off_t len = lseek(out, 0, SEEK_END);
	if (len < 0 || len > (off_t)MODULE_BYTES_MAX)
		return err_set(err, EFBIG, "%s: too large", path);
	lseek(out, 0, SEEK_SET);
	*ret = xmalloc((size_t)len + 1);
	*ret_len = (size_t)fd_read_full(out, *ret, (size_t)len);
	return 0;
}

static ssize_t find(const struct tree *t, const char *name)
{
	for (size_t i = 0; i < t->names.n; i++)
		if (strcmp(t->names.v[i], name) == 0)
			return (ssize_t)i;
	return -1;
}

/* Depth first: what it depends on goes before it. */
static int add(struct tree *t, const char *name, bool required, struct err *err)
{
	if (strvec_has(&t->done, name) || strvec_has(&t->builtin, name))
		return 0;
	ssize_t at = find(t, name);
	if (at < 0)
		return required ? err_set(err, ENOENT, "kernel: it has no module %s, neither as a file in %s nor built in",
					  name, t->dir)
				: 0;
	if (strvec_has(&t->busy, name))
		return err_set(err, ELOOP, "kernel: module %s depends on itself", name);
	strvec_add(&t->busy, name);
	_cleanup_strvec_ struct strvec needs = STRVEC_INIT;
	_cleanup_free_ char *data = NULL;
	size_t len;
	if (read_module(t->paths.v[at], &data, &len, err) < 0 ||
	    modinfo_depends((const unsigned char *)data, len, &needs, err) < 0)
		return err_prefix(err, "kernel: module %s: ", name);
	for (size_t i = 0; i < needs.n; i++) {
		for (char *c = needs.v[i]; *c; c++)
			if (*c == '-')
				*c = '_';
		if (add(t, needs.v[i], true, err) < 0)
			return -1;
	}
	_cleanup_free_ char *file = xasprintf("modules/%s.ko", name);
	cpio_file(t->cpio, file, 0644, data, (uint32_t)len);
	strvec_add(&t->done, name);
	strvec_add(t->order, name);
	return 0;
}

int modules_collect(const char *dir, struct strvec *order, struct buf *out, struct err *err)
{
	struct cpio c = CPIO_INIT(out);
	struct tree t = {.order = order, .cpio = &c, .dir = dir};
	int code = 0;
	c.ino = 1000; /* behind those of the archive with the guest agent, which goes before this one */
	if (dir) {
		find_modules(&t, dir, 0);
		read_builtin(&t);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wanted) && code == 0 && dir; i++)
		code = add(&t, wanted[i].name, wanted[i].required, err);
	cpio_end(&c);
	strvec_finish(&t.names);
	strvec_finish(&t.paths);
	strvec_finish(&t.builtin);
	strvec_finish(&t.done);
	strvec_finish(&t.busy);
	return code;
}
