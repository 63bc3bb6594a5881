/* SPDX-License-Identifier: Apache-2.0 */
/* The image room's readers and writers: archives, kernels, modules, apt's files and words. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "image/apt.h"
#include "image/cpio.h"
#include "image/digest.h"
#include "image/kernel.h"
#include "image/manifest.h"
#include "image/modules.h"
#include "image/sources.h"
#include "image/subid.h"
#include "image/tarfilter.h"
#include "tap.h"

static void test_digest(void)
{
	char hex[DIGEST_HEX];
	struct digest *d = digest_new();
	digest_add(d, "abc", 3);
	digest_hex(d, hex);
	digest_free(d);
	is_str(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	       "SHA-256 of abc (FIPS 180-2)");
	char two[2][DIGEST_HEX];
	static const char *const split[2][2] = {{"ab", "c"}, {"a", "bc"}};
	for (int i = 0; i < 2; i++) {
		d = digest_new();
		digest_field(d, split[i][0]);
		digest_field(d, split[i][1]);
		digest_hex(d, two[i]);
		digest_free(d);
	}
	ok(strcmp(two[0], two[1]) != 0, "fields do not run together");
}

static void test_cpio(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct cpio c = CPIO_INIT(&b);
	cpio_dir(&c, "d", 0755);
	cpio_file(&c, "d/f", 0644, "hello", 5);
	cpio_char(&c, "console", 0600, 5, 1);
	cpio_end(&c);
	static const char head[] = "070701"
				   "00000001"
				   "000041ED"
				   "00000000"
				   "00000000"
				   "00000002"
				   "00000000"
				   "00000000"
				   "00000000"
				   "00000000"
				   "00000000"
				   "00000000"
				   "00000002"
				   "00000000"
				   "d\0";
	ok(buf_len(&b) == 512 && memcmp(buf_head(&b), head, 112) == 0, "a folder, byte for byte");
	static const char file[] = "070701"
				   "00000002"
				   "000081A4"
				   "00000000"
				   "00000000"
				   "00000001"
				   "00000000"
				   "00000005"
				   "00000000"
				   "00000000"
				   "00000000"
				   "00000000"
				   "00000004"
				   "00000000"
				   "d/f\0\0\0hello\0\0\0";
	ok(memcmp(buf_head(&b) + 112, file, sizeof(file) - 1) == 0,
	   "a file, name and data padded to 4");
	const char *end = memmem(buf_head(&b), buf_len(&b), "TRAILER!!!", 11);
	ok(end && (end - buf_head(&b)) % 4 == 2, "the closing record");
	ok(memmem(buf_head(&b), buf_len(&b), "00002180", 8) &&
		   memmem(buf_head(&b), buf_len(&b), "0000000500000001", 16),
	   "a device with its numbers");
}

static void put16(unsigned char *p, unsigned v)
{
	p[0] = (unsigned char)v;
	p[1] = (unsigned char)(v >> 8);
}

static void put32(unsigned char *p, uint32_t v)
{
	put16(p, v & 0xffff);
	put16(p + 2, v >> 16);
}

static void make_bzimage(unsigned char *d, size_t len)
{
	memset(d, 0, len);
	d[0x1f1] = 1;
	memcpy(d + 0x202, "HdrS", 4);
	put16(d + 0x206, 0x20f);
	put16(d + 0x20e, 0x100);
	strcpy((char *)d + 0x300, "6.1.0-9-test (gcc)");
	put32(d + 0x248, 16);
	put32(d + 0x24c, 100);
	memcpy(d + 1024 + 16, "\x1f\x8b", 2);
}

static void test_bzimage(void)
{
	unsigned char d[2048];
	struct bzimage b;
	struct err e = ERR_INIT;
	make_bzimage(d, sizeof(d));
	ok(bzimage_parse(d, sizeof(d), &b, &e) == 0 && b.payload == 1040 && b.payload_len == 100,
	   "payload %s", e.text);
	is_str(b.version, "6.1.0-9-test", "version is its first word");
	is_str(bzimage_compressor(d + b.payload, b.payload_len), "gzip", "gzip payload");
	ok(!bzimage_compressor((const unsigned char *)"????", 4), "unknown payload");
	put16(d + 0x206, 0x207);
	ok(bzimage_parse(d, sizeof(d), &b, &e) < 0 && e.code == ENOTSUP, "too old: %s", e.text);
	make_bzimage(d, sizeof(d));
	put32(d + 0x24c, 0xffffffff);
	ok(bzimage_parse(d, sizeof(d), &b, &e) < 0 && e.code == EINVAL, "payload past the end: %s",
	   e.text);
	make_bzimage(d, sizeof(d));
	put32(d + 0x248, 0xfffffff0);
	ok(bzimage_parse(d, sizeof(d), &b, &e) < 0, "offset past the end");
	make_bzimage(d, sizeof(d));
	d[0x1f1] = 255;
	ok(bzimage_parse(d, sizeof(d), &b, &e) < 0, "set-up longer than the file");
	make_bzimage(d, sizeof(d));
	put16(d + 0x20e, 0xffff);
	ok(bzimage_parse(d, sizeof(d), &b, &e) == 0 && !b.version[0],
	   "a version that lies outside is none");
	make_bzimage(d, sizeof(d));
	memset(d + 0x300, 'x', sizeof(d) - 0x300);
	ok(bzimage_parse(d, sizeof(d), &b, &e) == 0 && strlen(b.version) == sizeof(b.version) - 1,
	   "an endless version is cut");
	for (size_t n = 0; n < sizeof(d); n++)
		bzimage_parse(d, n, &b, NULL);
	ok(bzimage_parse(d, 0x24f, &b, &e) < 0, "every shorter length was read within bounds");
}

static size_t make_elf(unsigned char *d, unsigned type, const char *owner, uint32_t namesz)
{
	Elf64_Ehdr h = {.e_phoff = 64, .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1};
	memcpy(h.e_ident, ELFMAG, SELFMAG);
	h.e_ident[EI_CLASS] = ELFCLASS64;
	h.e_ident[EI_DATA] = ELFDATA2LSB;
	Elf64_Phdr p = {.p_type = PT_NOTE, .p_offset = 120, .p_filesz = 24};
	memset(d, 0, 256);
	memcpy(d, &h, sizeof(h));
	memcpy(d + 64, &p, sizeof(p));
	put32(d + 120, namesz);
	put32(d + 124, 4);
	put32(d + 128, type);
	memcpy(d + 132, owner, 4);
	return 144;
}

static void test_pvh(void)
{
	unsigned char d[256];
	size_t n = make_elf(d, 18, "Xen", 4);
	ok(elf_has_pvh(d, n), "PVH note found");
	bool any = false;
	for (size_t i = 0; i < n; i++)
		any |= elf_has_pvh(d, i);
	ok(!any, "no cut file has one");
	make_elf(d, 17, "Xen", 4);
	ok(!elf_has_pvh(d, n), "another Xen note is not it");
	make_elf(d, 18, "GNU", 4);
	ok(!elf_has_pvh(d, n), "another owner is not it");
	make_elf(d, 18, "Xen", 0xfffffffd);
	ok(!elf_has_pvh(d, n), "a note longer than the file");
	Elf64_Ehdr h;
	make_elf(d, 18, "Xen", 4);
	memcpy(&h, d, sizeof(h));
	h.e_phoff = UINT64_MAX - 8;
	memcpy(d, &h, sizeof(h));
	ok(!elf_has_pvh(d, n), "program headers outside the file");
	ok(version_compare("6.1.0-56", "6.1.0-100") < 0 && version_compare("6.10", "6.9") > 0 &&
		   version_compare("6.1", "6.1") == 0,
	   "versions compare as numbers");
}

static size_t make_ko(unsigned char *d, const char *info, size_t info_len)
{
	static const char names[] = "\0.modinfo\0.shstrtab";
	Elf64_Ehdr h = {.e_shoff = 512, .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3, .e_shstrndx = 2};
	memset(d, 0, 1024);
	memcpy(h.e_ident, ELFMAG, SELFMAG);
	h.e_ident[EI_CLASS] = ELFCLASS64;
	Elf64_Shdr s[3] = {{0},
			   {.sh_name = 1, .sh_offset = 200, .sh_size = info_len},
			   {.sh_name = 10, .sh_offset = 100, .sh_size = sizeof(names)}};
	memcpy(d, &h, sizeof(h));
	memcpy(d + 100, names, sizeof(names));
	memcpy(d + 200, info, info_len);
	memcpy(d + 512, s, sizeof(s));
	return 512 + sizeof(s);
}

static void save(const char *dir, const char *name, const void *data, size_t len)
{
	_cleanup_free_ char *p = path_join(dir, name), *parent = xstrdup(p);
	*strrchr(parent, '/') = '\0';
	path_mkdirs(parent, 0755, NULL);
	path_write(p, data, len, 0644, NULL);
}

static void save_ko(const char *dir, const char *name, const char *depends)
{
	unsigned char d[1024];
	char info[200];
	int n = snprintf(info, sizeof(info), "license=GPL%cdepends=%s%cname=x", 0, depends, 0);
	size_t len = make_ko(d, info, (size_t)n);
	save(dir, name, d, len);
}

static void test_modules(void)
{
	unsigned char d[1024];
	_cleanup_strvec_ struct strvec v = STRVEC_INIT, order = STRVEC_INIT, bad = STRVEC_INIT;
	struct err e = ERR_INIT;
	size_t n = make_ko(d, "a=b\0depends=x,y\0", 16);
	ok(modinfo_depends(d, n, &v, &e) == 0 && v.n == 2 && strcmp(v.v[1], "y") == 0, "depends %s",
	   e.text);
	bool crash = false;
	for (size_t i = 0; i < n; i++)
		crash |= modinfo_depends(d, i, &bad, NULL) == 0;
	ok(!crash, "no cut module is one");
	Elf64_Ehdr h;
	memcpy(&h, d, sizeof(h));
	h.e_shstrndx = 9;
	memcpy(d, &h, sizeof(h));
	ok(modinfo_depends(d, n, &bad, &e) < 0, "name table outside");
	_cleanup_free_ char *a = module_name("kernel/drivers/virtio-rng.ko.xz"),
			    *b = module_name("modules.dep"), *c = module_name("x.ko.txt");
	is_str(a, "virtio_rng", "module name");
	ok(!b && !c, "no modules");

	char dir[] = "/tmp/vse-unit-XXXXXX";
	if (!ok(mkdtemp(dir) != NULL, "a folder"))
		return;
	static const char builtin[] = "kernel/fs/ext4/ext4.ko\nkernel/fs/overlayfs/overlay.ko\n";
	save(dir, "modules.builtin", builtin, sizeof(builtin) - 1);
	save_ko(dir, "kernel/v/virtio_blk.ko", "virtio,virtio-ring");
	save_ko(dir, "kernel/v/virtio.ko", "virtio_ring");
	save_ko(dir, "kernel/v/virtio_ring.ko", "");
	save_ko(dir, "kernel/v/virtio_console.ko", "virtio");
	save_ko(dir, "kernel/fs/squashfs.ko", "");
	_cleanup_buf_ struct buf out = BUF_INIT;
	ok(modules_collect(dir, &order, &out, &e) < 0 && strstr(e.text, "virtio_net"),
	   "a missing one is named: %s", e.text);
	save_ko(dir, "kernel/v/virtio_net.ko", "virtio");
	strvec_finish(&order);
	order = STRVEC_INIT;
	buf_clear(&out);
	is_int(modules_collect(dir, &order, &out, &e), 0, "collected %s", e.text);
	_cleanup_buf_ struct buf list = BUF_INIT;
	for (size_t i = 0; i < order.n; i++)
		buf_addf(&list, "%s ", order.v[i]);
	is_str(buf_cstr(&list), "virtio_ring virtio virtio_console virtio_blk virtio_net squashfs ",
	       "each behind what it needs, built-in ones left out");
	ok(memmem(buf_head(&out), buf_len(&out), "modules/virtio_ring.ko", 22) != NULL,
	   "in the archive");
	save_ko(dir, "kernel/v/virtio_ring.ko", "virtio_blk");
	ok(modules_collect(dir, &order, &out, &e) == 0 || e.code == ELOOP, "a circle ends");
	struct strvec fresh = STRVEC_INIT;
	ok(modules_collect(dir, &fresh, &out, &e) < 0 && e.code == ELOOP, "and is an error: %s", e.text);
	strvec_finish(&fresh);
	path_remove(dir, NULL);
}

static void test_sources(void)
{
	_cleanup_sources_ struct apt_sources s = APT_SOURCES_INIT;
	apt_sources_parse_list(
		&s,
		"# deb http://no/debian x main\n"
		"deb [arch=amd64 signed-by=/k.gpg trusted=yes] http://m/debian bookworm main "
		"contrib # x\n"
		"deb-src http://m/debian bookworm main\n deb\thttp://m/debian-security "
		"bookworm-security main\n"
		"deb http://m/debian\ndeb [broken http://m/debian bookworm main\ndebug x y z\n");
	is_int(s.n, 2, "two entries in a list");
	is_str(s.v[0].options, "signed-by=/k.gpg trusted=yes", "options kept");
	is_str(s.v[1].suite, "bookworm-security", "tabs");
	apt_sources_parse_deb822(&s, "# comment\nTypes: deb deb-src\nURIs: http://m/debian\n# in "
				     "between\nSuites: sid\n experimental\n"
				     "Components: main\nSigned-By: /k2.gpg\n\n\nTypes: "
				     "deb\nEnabled: no\nURIs: http://off\nSuites: a\n\n"
				     "types: deb\nuris: http://m/ubuntu/\nsuites: "
				     "jammy\ncomponents: main\nsigned-by:\n -----BEGIN\n x");
	is_int(s.n, 5, "three entries in deb822");
	is_str(s.v[3].suite, "experimental", "a continued field");
	is_str(s.v[4].options, "", "a key in the file is no option");
	struct host_distro host = {"debian", "bookworm"};
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_strvec_ struct strvec comps = STRVEC_INIT;
	struct err e = ERR_INIT;
	is_int(apt_sources_choose(&s, &host, "debian", "bookworm", &comps, &b, &e), 0,
	       "host's own suite");
	is_str(buf_cstr(&b),
	       "deb [signed-by=/k.gpg trusted=yes] http://m/debian bookworm main\n"
	       "deb http://m/debian-security bookworm-security main\n",
	       "with its security updates");
	buf_clear(&b);
	strvec_add(&comps, "universe");
	ok(apt_sources_choose(&s, &host, "ubuntu", "noble", &comps, &b, &e) == 0,
	   "another distribution");
	is_str(buf_cstr(&b), "deb http://m/ubuntu/ noble universe\n", "its archive, the suite wanted");
	buf_clear(&b);
	ok(apt_sources_choose(&s, &host, "debian", "trixie", &comps, &b, &e) == 0, "another suite");
	is_str(buf_cstr(&b),
	       "deb [signed-by=/k.gpg trusted=yes] http://m/debian trixie universe\n"
	       "deb http://m/debian-security trixie-security universe\n",
	       "its security updates too, from where the host has its own");
	buf_clear(&b);
	ok(apt_sources_choose(&s, &host, "debian", "sid", &comps, &b, &e) == 0 &&
		   !strstr(buf_cstr(&b), "sid-"),
	   "which a rolling release has not");
	ok(apt_sources_choose(&s, &host, "devuan", "x", &comps, &b, &e) < 0 && e.code == ENOENT,
	   "none: %s", e.text);
}

static void chosen(const char *list, const char *suite, const char *want, const char *what)
{
	_cleanup_sources_ struct apt_sources s = APT_SOURCES_INIT;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct host_distro host = {"debian", "bookworm"};
	struct strvec none = STRVEC_INIT;
	struct err e = ERR_INIT;
	(strstr(list, "URIs:") ? apt_sources_parse_deb822 : apt_sources_parse_list)(&s, list);
	is_int(apt_sources_choose(&s, &host, "debian", suite, &none, &b, &e), 0, "%s %s", what, e.text);
	is_str(buf_cstr(&b), want, "%s", what);
}

static void test_sources_suites(void)
{
	chosen("deb http://m/debian stable main\ndeb http://m/debian stable-updates main contrib\n"
	       "deb http://m/debian stable-backports main\ndeb http://s/debian-security "
	       "stable-security main\n",
	       "bookworm",
	       "deb http://m/debian bookworm main\ndeb http://m/debian bookworm-updates main\n"
	       "deb http://s/debian-security bookworm-security main\n",
	       "a host that says stable");
	chosen("deb https://download.docker.com/linux/debian bookworm stable\n"
	       "deb https://p/debian/12/prod bookworm main\ndeb https://apt.x bookworm main\n"
	       "deb http://m/debian/ bookworm main\n",
	       "bookworm", "deb http://m/debian/ bookworm main\n", "archives of others");
	chosen("deb http://cache/apt-remote bookworm main\ndeb http://cache/apt-remote "
	       "bookworm/updates main\n",
	       "bookworm", "deb http://cache/apt-remote bookworm main\ndeb http://cache/apt-remote bookworm/updates main\n",
	       "an archive whose URI does not name the distribution");
	chosen("deb http://m/archive/debian/20240101T000000Z bookworm main\ndeb https://apt.x "
	       "bookworm main\n",
	       "bookworm", "deb http://m/archive/debian/20240101T000000Z bookworm main\n",
	       "a snapshot");
	chosen("Types: deb\nURIs: http://m/debian\nSuites: bookworm\nComponents: main\nSigned-By: "
	       "/k.gpg \t\n",
	       "bookworm", "deb [signed-by=/k.gpg] http://m/debian bookworm main\n",
	       "a blank behind a key's name");
}

/* --- tar --- */

static void tar_member(struct buf *b, const char *name, char type, const char *link,
		       const char *data, size_t len)
{
	unsigned char h[512] = {0};
	char *c = (char *)h;
	unsigned sum = 0;
	snprintf(c, 100, "%s", name);
	memcpy(c + 100, "0000644", 8);
	memcpy(c + 108, "0001750", 8);
	memcpy(c + 116, "0001751", 8);
	snprintf(c + 124, 12, "%011zo", len);
	memcpy(c + 136, "00000000000", 12);
	memset(c + 148, ' ', 8);
	c[156] = type;
	snprintf(c + 157, 100, "%s", link);
	memcpy(c + 257,
	       "ustar\0"
	       "00",
	       8);
	for (int i = 0; i < 512; i++)
		sum += h[i];
	snprintf(c + 148, 8, "%06o", sum);
	buf_add(b, h, 512);
	buf_add(b, data, len);
	while (buf_len(b) % 512)
		buf_addc(b, 0);
}

static int notes;
static void count_note(void *arg, const char *text)
{
	(void)arg;
	notes += strstr(text, "device") != NULL;
}

/* Runs the filter over memory; gives its code and what came out. */
static int filter(struct buf *in, struct buf *out, struct tar_filter *f, struct err *e)
{
	_cleanup_close_ int a = memfd_create("a", MFD_CLOEXEC), b = memfd_create("b", MFD_CLOEXEC);
	fd_write_all(a, buf_head(in), buf_len(in));
	lseek(a, 0, SEEK_SET);
	int code = tar_filter(a, b, f, e);
	off_t n = lseek(b, 0, SEEK_END);
	lseek(b, 0, SEEK_SET);
	buf_clear(out);
	buf_reserve(out, (size_t)n);
	out->end += (size_t)fd_read_full(b, out->data + out->end, (size_t)n);
	return code;
}

static void refuse(const char *name, char type, const char *link, const char *data, size_t len,
		   const char *why)
{
	_cleanup_buf_ struct buf in = BUF_INIT, out = BUF_INIT;
	struct tar_filter f = {0};
	struct err e = ERR_INIT;
	tar_member(&in, name, type, link, data, len);
	if (strchr("xL", type))
		tar_member(&in, "ok", '0', "", "", 0);
	ok(filter(&in, &out, &f, &e) < 0 && e.code == EINVAL && strstr(e.text, why),
	   "refused '%s': %s", name, e.text);
	ok(f.members == 0, "nothing was passed on");
}

/* Of a user with a number that the header's field cannot hold. */
static void test_tar_owner(void)
{
	_cleanup_buf_ struct buf in = BUF_INIT, out = BUF_INIT;
	struct err e = ERR_INIT;
	struct tar_filter f = {.map_owner = true, .uid = 5000000, .gid = 01751};
	static const char both[] = "15 uid=5000000\n11 gid=999\n", one[] = "15 uid=5000000\n",
			  other[] = "15 uid=5000001\n28 SCHILY.xattr.x=a\0b\nuid=c\n";
	tar_member(&in, "x", 'x', "", both, sizeof(both) - 1);
	tar_member(&in, "a", '0', "", "", 0);
	tar_member(&in, "x", 'x', "", one, sizeof(one) - 1);
	tar_member(&in, "b", '0', "", "", 0);
	tar_member(&in, "x", 'x', "", other, sizeof(other) - 1);
	tar_member(&in, "c", '0', "", "", 0);
	is_int(filter(&in, &out, &f, &e), 0, "owners in records %s", e.text);
	const char *d = buf_head(&out);
	is_int(buf_len(&out), 512 * (2 + 1 + 1 + 2 + 1 + 2), "a header without records is left out");
	ok(memcmp(d + 512, "11 gid=999\n\0", 12) == 0, "another group's record stays");
	ok(memcmp(d + 1024 + 108, "0000000", 8) == 0 && memcmp(d + 1536 + 108, "0000000", 8) == 0 &&
		   memcmp(d + 1024 + 116, "0000000", 8) == 0,
	   "the owner becomes root");
	ok(memcmp(d + 2560, other, sizeof(other) - 1) == 0 && memcmp(d + 3072 + 108, "0001750", 8) == 0,
	   "another owner's stays, as do attributes");
	is_int(filter(&out, &in, &f, &e), 0, "the result is an archive %s", e.text);
}

static void test_tar(void)
{
	_cleanup_buf_ struct buf in = BUF_INIT, out = BUF_INIT;
	struct err e = ERR_INIT;
	struct tar_filter f = {.note = count_note, .map_owner = true, .uid = 01750, .gid = 7};
	refuse("../evil", '0', "", "x", 1, "../evil");
	refuse("a/../../evil", '0', "", "", 0, "\"..\"");
	refuse("/etc/passwd", '0', "", "", 0, "absolute");
	refuse("h", '1', "../../etc/shadow", "", 0, "hard link");
	refuse("h", '1', "/etc/shadow", "", 0, "absolute");
	refuse("s", '2', "t", "data", 4, "size");
	refuse("p", 'V', "", "", 0, "type");
	refuse("L", 'L', "", "../long", 7, "../long");
	refuse("x", 'x', "", "19 path=../pax/name\n", 20, "damaged");
	refuse("x", 'x', "", "20 path=../pax/name\n", 20, "../pax/name");
	refuse("x", 'x', "", "9999999999 path=x\n", 18, "damaged");
	tar_member(&in, "./", '5', "", "", 0);
	tar_member(&in, "./dev/", '5', "", "", 0);
	tar_member(&in, "./dev/null", '3', "", "", 0);
	tar_member(&in, "./dev/x", '0', "", "data", 4);
	tar_member(&in, "./var/null", '3', "", "", 0);
	tar_member(&in, "x", 'x', "", "19 path=dev//paxed\n", 19);
	tar_member(&in, "short", '0', "", "gone", 4);
	tar_member(&in, "./usr/a..b", '0', "", "hello", 5);
	tar_member(&in, "./usr/link", '2', "../../outside", "", 0);
	is_int(filter(&in, &out, &f, &e), 0, "a good archive %s", e.text);
	is_int(f.members, 4, "members passed on");
	is_int(notes, 1, "a device node outside dev/ is told");
	ok(!memmem(buf_head(&out), buf_len(&out), "gone", 4) &&
		   !memmem(buf_head(&out), buf_len(&out), "null", 4),
	   "nothing of /dev");
	ok(memmem(buf_head(&out), buf_len(&out), "hello", 5) != NULL, "the file is there");
	ok(memcmp(buf_head(&out) + 108, "0000000", 8) == 0 &&
		   memcmp(buf_head(&out) + 116, "0001751", 8) == 0,
	   "owner becomes root, the other group stays");
	ok(tar_compressor((unsigned char *)buf_head(&out), 512) &&
		   !*tar_compressor((unsigned char *)buf_head(&out), 512),
	   "its check sum is right after that");
	struct tar_filter plain = {0};
	for (size_t cut = 1; cut < 4; cut++) {
		_cleanup_buf_ struct buf part = BUF_INIT;
		buf_add(&part, buf_head(&in), buf_len(&in) - 512 * cut + 100);
		ok(filter(&part, &out, &plain, &e) < 0, "cut archive: %s", e.text);
	}
	buf_head(&in)[600] ^= 1;
	ok(filter(&in, &out, &plain, &e) < 0 && strstr(e.text, "damaged"), "damaged header: %s", e.text);
	is_str(tar_compressor((const unsigned char *)"\x28\xb5\x2f\xfd....", 8), "zstd",
	       "zstd by its magic");
	ok(!tar_compressor((const unsigned char *)"hello", 5), "a text is no archive");
}

static void test_apt(void)
{
	struct apt_progress p = {0};
	struct err e = ERR_INIT;
	struct vse v = {.suite = (char *)"bookworm"};
	struct recipe r = {.v = &v};
	apt_progress_line(&p, "0 upgraded, 69 newly installed, 0 to remove and 0 not upgraded.");
	ok(apt_progress_line(&p, "Get:4 http://m/debian bookworm/main amd64 Packages [8790 kB]") &&
		   p.got == 0 && strcmp(p.step, "lists") == 0,
	   "a package list");
	ok(apt_progress_line(&p,
			     "Get:7 http://m/debian bookworm/main amd64 mawk amd64 1.3 [119 kB]") &&
		   p.got == 1 && strcmp(p.text, "mawk") == 0,
	   "a package");
	ok(apt_progress_line(&p, "Setting up libc6:amd64 (2.36-9) ...") && p.set_up == 1 &&
		   strcmp(p.text, "libc6") == 0,
	   "set up");
	ok(p.total == 69 && !apt_progress_line(&p, "Reading package lists..."),
	   "total; other lines tell nothing");
	apt_blame("x\nE: Unable to locate package nosuch\nE: apt-get failed", &r, &e);
	ok(e.code == ENOENT && strstr(e.text, "package nosuch: not in bookworm"), "%s", e.text);
	apt_blame("Err:1 http://m x InRelease\n  Temporary failure resolving 'm'\nE: bad", &r, &e);
	ok(e.code == ENETUNREACH && strstr(e.text, "resolving 'm'"), "%s", e.text);
	apt_blame(
		"E: The repository 'http://m/debian nope Release' does not have a Release file.\n",
		&r, &e);
	ok(e.code == ENOENT && strstr(e.text, "no such suite"), "%s", e.text);
	apt_blame("dpkg: error: cannot write: No space left on device\n", &r, &e);
	is_int(e.code, ENOSPC, "no space");
	apt_blame("", &r, &e);
	ok(e.code == EIO && e.text[0], "silence: %s", e.text);
	_cleanup_strvec_ struct strvec d = STRVEC_INIT;
	apt_kernel_depends("Package: x\nDepends: linux-image-6.1-cloud-amd64 (= 6.1), kmod, "
			   "linux-image-a | linux-modules-b\nX: y\n",
			   &d);
	ok(d.n == 3 && strcmp(d.v[0], "linux-image-6.1-cloud-amd64") == 0 &&
		   strcmp(d.v[2], "linux-modules-b") == 0,
	   "depends");
	json_t *j = manifest_packages(
		"Package: b\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n"
		"Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: "
		"1\n\n"
		"Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 2:1\n");
	ok(json_array_size(j) == 2 &&
		   strcmp(json_string_value(json_object_get(json_array_get(j, 0), "name")), "a") == 0,
	   "installed packages by name");
	json_decref(j);
}

static void test_subid(void)
{
	struct subid_range r;
	ok(subid_parse("root:1:65536\nann:100000:65536\n", "ann", 7, &r) && r.first == 100000 &&
		   r.count == 65536,
	   "by name");
	ok(subid_parse("7:200000:5000\n", "ann", 7, &r) && r.first == 200000, "by number");
	ok(!subid_parse("annabel:1:65536\nann:1:10\nann:x\nann\n", "ann", 7, &r),
	   "no usable range");
	ok(!subid_parse("ann:4294967000:65536\nann:0:65536\n", "ann", 7, &r),
	   "a range outside the ids, or with root in it");
	ok(!subid_parse("ann:1:65536\n:1:65536\n", NULL, 7, &r),
	   "a user without a name has none by name");
	ok(subid_parse("ann:1:65536\n7:200000:5000\n", NULL, 7, &r) && r.first == 200000,
	   "but may have one by number");
	struct err err = ERR_INIT;
	ok(subid_read("/dev/null", "ann", 7, &r, &err) < 0 &&
		   strstr(err.text, "user ann has no range in /dev/null"),
	   "%s", err.text);
	ok(subid_read("/dev/null", NULL, 7, &r, &err) < 0 &&
		   strstr(err.text, "uid 7 has no range in /dev/null"),
	   "%s", err.text);
}

int main(void)
{
	test_digest();
	test_cpio();
	test_bzimage();
	test_pvh();
	test_modules();
	test_sources();
	test_sources_suites();
	test_tar();
	test_tar_owner();
	test_apt();
	test_subid();
	return done();
}
