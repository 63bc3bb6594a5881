/* SPDX-License-Identifier: Apache-2.0 */
/* The pure parts of the back end `palacios`, and its probe and checks against a folder of texts. What an ioctl does is
 * tests/system/contract-palacios.t's matter. The texts are in the form that a real module was seen to write. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/palacios.h"
#include "tap.h"
#include "wire/frame.h"
#include "wire/kv.h"

/* ---- the guest image ---- */

static void test_image(void)
{
	/* Counted by hand from the description of the format: the table begins at 33, the file's bytes at 65. The sum of
	 * "AB" is ('A' << 4) + 'B' + 1. */
	static const char golden[] = "v3vee\0\0\1"
				     "\5\0\0\0"
				     "<vm/>"
				     "\0\0\0\0\0\0\0\0"
				     "\1\0\0\0\0\0\0\0"
				     "\0\0\0\0"
				     "\2\0\0\0"
				     "\x41\0\0\0\0\0\0\0"
				     "\x53\4\0\0\0\0\0\0"
				     "\0\0\0\0\0\0\0\0"
				     "AB";
	static const char golden_v0[] = "v3vee\0\0\0"
					"\5\0\0\0"
					"<vm/>"
					"\0\0\0\0\0\0\0\0"
					"\0\0\0\0\0\0\0\0"
					"\0\0\0\0\0\0\0";
	_cleanup_buf_ struct buf b = BUF_INIT, v0 = BUF_INIT, two = BUF_INIT;
	struct err e = ERR_INIT;
	const struct palacios_file file = {.data = "AB", .size = 2};
	is_int(palacios_image_write(&b, 1, "<vm/>", &file, 1, &e), 0, "an image with a file %s", e.text);
	ok(buf_len(&b) == sizeof(golden) - 1 && memcmp(buf_head(&b), golden, sizeof(golden) - 1) == 0,
	   "golden bytes (%zu)", buf_len(&b));
	is_int(palacios_image_write(&v0, 0, "<vm/>", NULL, 0, &e), 0, "an image of version 0");
	ok(buf_len(&v0) == sizeof(golden_v0) && memcmp(buf_head(&v0), golden_v0, sizeof(golden_v0)) == 0,
	   "golden bytes (%zu)", buf_len(&v0));
	unsigned char bytes[4096];
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)i;
	const struct palacios_file files[] = {{.data = "", .size = 0},
					      {.data = bytes, .size = sizeof(bytes)}};
	is_int(palacios_image_write(&two, 1, "<vm/>", files, 2, &e), 0, "two files, one of them empty");
	uint64_t sum, offset;
	memcpy(&offset, buf_head(&two) + 33 + 24 + 8, 8);
	memcpy(&sum, buf_head(&two) + 33 + 24 + 16, 8);
	is_int(offset, 33 + 2 * 24 + 8, "the second begins where the first ends");
	is_int(sum, 0x62e4b2e, "a sum that was folded many times"); /* as another program has it */
	ok(palacios_image_write(&two, 2, "<vm/>", NULL, 0, &e) < 0 && e.code == EINVAL,
	   "no version 2: %s", e.text);
	const struct palacios_file huge = {.data = bytes, .size = 0x7fffffff};
	ok(palacios_image_write(&two, 1, "<vm/>", &huge, 1, &e) < 0 && e.code == EFBIG, "2 GiB: %s",
	   e.text);
}

/* ---- the machine ---- */

static int config(const struct palacios_machine *m, struct buf *b, struct err *e)
{
	*e = ERR_INIT;
	buf_clear(b);
	return palacios_config(m, b, e);
}

static void test_config(void)
{
	static const unsigned cpus[] = {2, 0}, far[] = {31};
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_strvec_ struct strvec extra = STRVEC_INIT;
	struct err e;
	struct palacios_machine m = {.memory = 256u << 20,
				     .cpus = 2,
				     .target_cpus = cpus,
				     .boot = "/a/boot.iso",
				     .root = "/b & c/<root>",
				     .extra = &extra};
	is_int(config(&m, &b, &e), 0, "a machine %s", e.text);
	const char *x = buf_cstr(&b);
	static const char *const parts[] = {
		"<vm class=\"PC\">\n<memory alignment=\"4KB\">256</memory>\n",
		"<paging mode=\"nested\"><large_pages>true</large_pages></paging>\n",
		"<cores count=\"2\"><core target_cpu=\"2\"/><core "
		"target_cpu=\"0\"/></cores>\n<devices>\n",
		"class=\"BOCHS_DEBUG\"",
		"<device class=\"PCI\" id=\"pci0\"/>",
		"<device class=\"PIIX3\" id=\"southbridge\"><bus>pci0</bus></device>",
		"<device class=\"SERIAL\" id=\"serial\"/>",
		"name=\"com1\"><frontend tag=\"serial\" com_port=\"1\"/>",
		"name=\"com2\"><frontend tag=\"serial\" com_port=\"2\"/>",
		"<device class=\"IDE\" "
		"id=\"ide0\"><bus>pci0</bus><controller>southbridge</controller></device>",
		"<device class=\"FILEDISK\" id=\"boot\"><path>/a/boot.iso</path><frontend "
		"tag=\"ide0\">",
		"<device class=\"LNX_VIRTIO_BLK\" id=\"blk\"><bus>pci0</bus></device>",
		"<device class=\"FILEDISK\" id=\"root\"><path>/b &amp; "
		"c/&lt;root&gt;</path><frontend tag=\"blk\"/>",
		"<bootseq>hd</bootseq>",
		"<start>0xd0</start><end>0xde</end><mode>IGNORE</mode>",
		"</devices>\n</vm>\n"};
	const char *at = x;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const char *found = strstr(at, parts[i]);
		if (ok(found, "in its place: %s", parts[i]))
			at = found;
	}
	ok(!strstr(x, "writable"), "nothing can be written to");
	m.scratch = "/s";
	strvec_addv(&extra, "-paging", "shadow", "-device", "HPET,id=hpet,irq=<2>", NULL);
	is_int(config(&m, &b, &e), 0, "with a scratch disk and words of the site's %s", e.text);
	x = buf_cstr(&b);
	ok(strstr(x, "id=\"scratch\" writable=\"1\"><path>/s</path>"),
	   "the scratch disk can be written to");
	ok(strstr(x, "<paging mode=\"shadow\"><strategy>VTLB</strategy></paging>"),
	   "shadow paging");
	ok(strstr(x, "<device class=\"HPET\" id=\"hpet\"><irq>&lt;2&gt;</irq></device>"),
	   "a device of the site's");
	static const char *const bad[][2] = {{"-nosuch", "x"},       {"-device", NULL},
					     {"-device", "A B"},     {"-device", "A,b"},
					     {"-device", "A,id=\""}, {"-device", "A,b=\n"},
					     {"-paging", "none"},    {"-device", "A,<b>=c"}};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_strvec_ struct strvec words = STRVEC_INIT;
		strvec_add(&words, bad[i][0]);
		if (bad[i][1])
			strvec_add(&words, bad[i][1]);
		m.extra = &words;
		ok(config(&m, &b, &e) < 0 && e.code == EINVAL, "refused: %s", e.text);
	}
	m.extra = NULL;
	m.root = "relative";
	ok(config(&m, &b, &e) < 0 && e.code == EINVAL, "refused: %s", e.text);
	m.root = "/a\nb";
	ok(config(&m, &b, &e) < 0 && e.code == EINVAL, "refused: a path with a line feed");
	m.root = NULL;
	m.memory++;
	ok(config(&m, &b, &e) < 0 && e.code == EINVAL, "refused: %s", e.text);
	m.memory--;
	m.target_cpus = far;
	m.cpus = 1;
	ok(config(&m, &b, &e) < 0 && e.code == EINVAL, "refused: %s", e.text);
}

static void test_cmdline(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	char much[2100];
	is_int(palacios_cmdline("vse.init=vse", true, &b, &e), 0, "a command line");
	ok(strncmp(buf_cstr(&b), "console=ttyS1,115200 quiet panic=-1 reboot=t vse.ch=ttyS0 ", 57) == 0 &&
		   strstr(buf_cstr(&b), "mitigations=off") && strstr(buf_cstr(&b), " vse.init=vse"),
	   "console, channel and what was given: %s", buf_cstr(&b));
	memset(much, 'x', sizeof(much) - 1);
	much[sizeof(much) - 1] = '\0';
	ok(palacios_cmdline(much, false, &b, &e) < 0 && e.code == EINVAL, "too long: %s", e.text);
	buf_clear(&b);
	ok(palacios_cmdline("a\nAPPEND b", false, &b, &e) < 0 && e.code == EINVAL,
	   "a line feed: %s", e.text);
}

/* ---- what the module says ---- */

static void test_guests(void)
{
	static const char text[] =
		"vm-a\t/dev/v3-vm0\trunning\t1 vcores\t8 regions\t33554432 mem\tgeneral\n"
		"bad line\n"
		"vm-b\t/dev/v3-vm7\t<unable to get data for this VM>\n"
		"vm-c\t/dev/v3-vm99\trunning\t1 vcores\n"
		"vm-d\t/dev/v3-vm1\tERROR\t2 vcores\t1 regions\t134217728 mem\tgeneral\n"
		"vm-e\t/dev/v3-vm2\tresetting or so\t1 vcores";
	struct palacios_guest v[PALACIOS_VMS_MAX];
	is_int(palacios_guests(text, v, PALACIOS_VMS_MAX), 4, "four VMs");
	ok(strcmp(v[0].name, "vm-a") == 0 && v[0].number == 0 && v[0].state == PALACIOS_RUNNING &&
		   v[0].vcores == 1 && v[0].memory == 33554432,
	   "the first");
	ok(v[1].number == 7 && v[1].state == PALACIOS_LOST, "one whose create crashed");
	ok(v[2].state == PALACIOS_ERROR && v[2].vcores == 2, "one in error");
	is_int(v[3].state, PALACIOS_UNKNOWN, "an unknown word");
	is_int(palacios_guests(text, v, 2), 2, "no more than there is room for");
}

static void test_cores(void)
{
	static const char text[] =
		"----------------------------------------------------------------------------------"
		"-----\n"
		"Entry: 0\nName: vm-a\nDevice: /dev/v3-vm0\nType: general\nState: running\n"
		"Cores: 2 (2 shown)\nRegions: 8\nMemsize: 33554432 (33554432 ROS)\n"
		"   vcore 0 running on pcore 0 12238 exits rip=0x1f real physical nested \n"
		"   vcore 1 stopped on pcore 1 2 exits rip=0x1f real physical nested \n"
		"   region 0 has HPAs 0x1-0x2 (node 0) GPA 0x0 \n"
		"Entry: 1\nName: vm-b\n"
		"   vcore 0 running on pcore 1 5 exits rip=0x0 real physical nested \n"
		"   vcore 1 running on pcore 4000000000 5 exits\n";
	struct palacios_cores c;
	palacios_cores(text, "vm-a", &c);
	ok(c.vcores == 2 && c.running == 1 && c.exits == 12240, "vm-a: 2 vcores, one runs");
	ok(c.on[0] == 1 && c.on[1] == 2, "and where those of all are");
	palacios_cores(text, "vm", &c);
	ok(c.vcores == 0 && c.exits == 0, "a name is no prefix");
}

static void test_info(void)
{
	static const char text[] =
		"kernel MAX_ORDER:\t11\n"
		"number of nodes:\t2\n"
		"number of cpus: \t2\n\n"
		"palacios compiled mem_block_size:\t134217728\npalacios run-time "
		"mem_block_size:\t4194304\n";
	struct palacios_info i;
	struct err e = ERR_INIT;
	is_int(palacios_info(text, &i, &e), 0, "v3-info %s", e.text);
	ok(i.nodes == 2 && i.cpus == 2 && i.block == 4194304, "nodes, CPUs, block size");
	ok(palacios_info("number of cpus: 2\n", &i, &e) < 0 && e.code == EPROTO,
	   "no block size: %s", e.text);
	is_int(palacios_free_blocks(
		       "  order 12: 3 free blocks\n"
		       "    Base Addr=00000000abcd, order=27, size=134217728, free=134217728\n"
		       "    Base Addr=(null), order=22, size=4194304, free=4194303\n"
		       "    Base Addr=1, order=23, size=8388608, free=8388607\n",
		       4194304),
	       32 + 0 + 1, "whole blocks of each pool");
}

static void test_log(void)
{
	static const char text[] =
		"6,10,100,-;usb 1-1: new device\n"
		"3,11,101,-;palacios (pcore 1): ERROR at dev_mgr.c(80): Could not find device "
		"nosuch\n"
		" SUBSYSTEM=x palacios (pcore 1): ERROR at a(1): no\n"
		"3,12,102,-;palacios (pcore 1 vm other vcore 0): ERROR at x.c(1): of another\n"
		"7,13,103,-;palacios (pcore 1 vm mine): all is well\n"
		"3,14,104,-;palacios (pcore 1 vm mine vcore 0): ERROR at vm.c(5): gave up\033[1m\n"
		"3,15,105,-;palacios (pcore 1 vm mine): ERROR at vm.c(6): third\n";
	char said[200], few[12];
	palacios_kernel_errors(text, "mine", said, sizeof(said));
	is_str(said, "Could not find device nosuch; gave up?[1m", "the first two that are ours, clean");
	palacios_kernel_errors(text, "mine", few, sizeof(few));
	is_str(few, "Could not f", "cut to fit");
	palacios_kernel_errors("", "mine", said, sizeof(said));
	is_str(said, "", "nothing");
}

/* ---- last words ---- */

static void say(struct palacios_words *w, const char *verb, const char *how)
{
	_cleanup_buf_ struct buf kv = BUF_INIT, out = BUF_INIT;
	kv_adds(&kv, "verb", verb);
	kv_adds(&kv, "how", how);
	frame_write(&out, &(struct frame){.type = FRAME_MESSAGE,
					  .len = (uint32_t)buf_len(&kv),
					  .payload = buf_head(&kv)});
	for (size_t i = 0; i < buf_len(&out); i++) /* in the smallest pieces */
		palacios_words_channel(w, buf_head(&out) + i, 1);
}

static void print(struct palacios_words *w, const char *text)
{
	for (; *text; text++)
		palacios_words_console(w, text, 1);
}

static void test_words(void)
{
	struct palacios_words w = {0};
	say(&w, "hello", NULL);
	is_str(w.bye, "", "no goodbye yet");
	say(&w, "bye", "reboot");
	is_str(w.bye, "reboot", "goodbye, to reboot");
	print(&w, "a Kernel panic - not syncing\r\n[    1.5] Kernel pan");
	ok(!w.panicked && !w.halted, "no panic yet");
	print(&w, "ic - not syncing: sysrq\r\n");
	ok(w.panicked && !w.halted, "panic");
	print(&w, "reboot: System halted\n");
	ok(w.halted, "halted");
	palacios_words_clear(&w);
	ok(!w.panicked && !w.halted && !w.bye[0], "all forgotten");
	char junk[4096];
	memset(junk, 0xff, sizeof(junk));
	palacios_words_channel(&w, junk, sizeof(junk));
	ok(w.lost, "nonsense is passed over");
	say(&w, "bye", "poweroff");
	is_str(w.bye, "", "and what follows");
	say(&w, "hello", NULL);
	say(&w, "bye", "poweroff");
	is_str(w.bye, "poweroff", "until the next hello");
	palacios_words_console(&w, junk, sizeof(junk));
	palacios_words_clear(&w);
}

/* ---- a saved VM ---- */

static void fill(const char *dir, const char *name, const char *text)
{
	_cleanup_free_ char *path = path_join(dir, name);
	path_write(path, text, strlen(text), 0600, NULL);
}

static int read_from(const char *path, const char *dir, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	*e = ERR_INIT;
	path_remove(dir, NULL);
	mkdir(dir, 0700);
	return palacios_state_read(fd, dir, e);
}

static void test_state(const char *tmp)
{
	_cleanup_free_ char *from = path_join(tmp, "from"), *to = path_join(tmp, "to"),
			    *file = path_join(tmp, "state"), *back = path_join(to, "memory_img"),
			    *text = NULL, *all = NULL;
	struct err e = ERR_INIT;
	uint64_t bytes = 0;
	size_t len;
	struct stat st;
	mkdir(from, 0700);
	fill(from, "memory_img", "all of it");
	fill(from, "x", "");
	int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	is_int(palacios_state_write(fd, from, &bytes, &e), 0, "a folder as a stream %s", e.text);
	close(fd);
	ok(stat(file, &st) == 0 && (uint64_t)st.st_size == bytes, "of so many bytes");
	is_int(read_from(file, to, &e), 0, "and back %s", e.text);
	ok(path_read(back, 100, &text, NULL, NULL) == 0 && strcmp(text, "all of it") == 0,
	   "the same");
	path_read(file, 4096, &all, &len, NULL);
	unsigned passed = 0, silent = 0;
	for (size_t i = 0; i < len; i++) { /* a bit here, an end there */
		all[i] ^= 1;
		path_write(file, all, len, 0600, NULL);
		/* A bit in a name makes another name, which the module would miss: that is its load's matter. */
		passed += read_from(file, to, &e) == 0;
		silent += e.code == 0;
		all[i] ^= 1;
		path_write(file, all, i, 0600, NULL);
		if (read_from(file, to, &e) == 0 || e.code != EBADMSG)
			ok(false, "cut after %zu bytes: %s", i, e.text);
	}
	is_int(passed, strlen("memory_img") + 1,
	       "one changed bit is noticed everywhere but in the names");
	is_int(silent, passed, "each with its error");
	symlink("/etc/passwd", back);
	path_remove(from, NULL);
	mkdir(from, 0700);
	_cleanup_free_ char *link = path_join(from, "link");
	symlink("/etc/passwd", link);
	fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	ok(palacios_state_write(fd, from, &bytes, &e) < 0, "a link is not followed: %s", e.text);
	close(fd);
	char sig[HV_SIGNATURE_MAX];
	palacios_signature(2, 1 << 20, sig);
	is_int(palacios_check_signature(sig, 2, 1 << 20, &e), 0, "the same machine");
	ok(palacios_check_signature(sig, 1, 1 << 20, &e) < 0 && e.code == EINVAL, "another: %s", e.text);
}

/* ---- a node ---- */

struct probed {
	struct hv_probe p;
	int n;
};

static void on_probe(void *arg, const struct hv_probe *p)
{
	struct probed *r = arg;
	r->p = *p;
	r->n++;
}

static struct hv_probe probe(const char *accel)
{
	struct loop *l = loop_create();
	struct probed r = {.n = 0};
	palacios_probe(l, accel, on_probe, &r, NULL);
	while (!r.n && loop_run_once(l))
		;
	loop_run_once(l);
	loop_destroy(l);
	return r.p;
}

static void put(const char *root, const char *path, const char *text)
{
	_cleanup_free_ char *full = xasprintf("%s%s", root, path), *dir = xstrdup(full);
	*strrchr(dir, '/') = '\0';
	path_mkdirs(dir, 0755, NULL);
	path_write(full, text, strlen(text), 0644, NULL);
}

#define GUEST(name) name "\t/dev/v3-vm0\trunning\t1 vcores\t2 regions\t268435456 mem\tgeneral\n"

static void test_checks(const char *root)
{
	struct err e = ERR_INIT;
	struct palacios_guest g;
	is_int(palacios_check_create("vm-b", 256u << 20, 2, &e), 0,
	       "two blocks and one for Palacios are there %s", e.text);
	ok(palacios_check_create("vm-b", 257u << 20, 2, &e) < 0 && e.code == ENOMEM,
	   "one block more: %s", e.text);
	ok(palacios_check_create("vm-b", 0, 2, &e) < 0, "no memory: %s", e.text);
	ok(palacios_check_create("vm-b", 256u << 20, 5, &e) < 0 && e.code == EINVAL,
	   "five CPUs of four: %s", e.text);
	ok(palacios_check_create("vm-a", 256u << 20, 1, &e) < 0 && e.code == EEXIST,
	   "its name is taken: %s", e.text);
	ok(palacios_check_create("a b", 256u << 20, 1, &e) < 0 && e.code == EINVAL, "a bad name");
	ok(palacios_look("vm-a", &g, &e) == 1 && palacios_look("vm", &g, &e) == 0,
	   "looked up by the whole name");
	char name[PALACIOS_NAME_MAX + 1];
	palacios_name_of(getpid(), "vm3", name);
	ok(!palacios_is_orphan(name), "%s has a keeper", name);
	ok(!palacios_is_orphan("vse.1.2") && !palacios_is_orphan("vm-a"),
	   "what others made is nobody's orphan");
	char *pid = strchr(name, '.') + 1;
	_cleanup_free_ char *dead = xasprintf("vse.%d.1%s", 4000000, strchr(strchr(pid, '.') + 1, '.'));
	ok(palacios_is_orphan(dead), "%s has none", dead);
	_cleanup_free_ char *elsewhere = xasprintf("vse.%d.1.77-vm3", 4000000);
	ok(!palacios_is_orphan(elsewhere), "of another machine's processes nothing is known");
	put(root, "/proc/v3vee/v3-mem0", "");
	ok(palacios_check_create("vm-b", 1u << 20, 1, &e) < 0 && e.code == ENOMEM,
	   "an empty pool: %s", e.text);
	_cleanup_free_ char *gone = xasprintf("%s/proc/v3vee/v3-mem0", root);
	unlink(gone);
	ok(palacios_check_create("vm-b", 1u << 20, 1, &e) < 0, "a pool that cannot be read: %s", e.text);
}

static void test_probe(const char *tmp)
{
	_cleanup_free_ char *root = path_join(tmp, "root");
	struct palacios_loader loader;
	struct err e = ERR_INIT;
	setenv("VSE_PALACIOS_ROOT", root, 1);
	struct hv_probe p = probe("auto");
	ok(!p.usable && strstr(p.why, "not loaded"), "no module: %s", p.why);
	put(root, "/proc/v3vee/v3-guests", "V3 GUESTS (1)\nvm-a: [vm_id=0]\n");
	p = probe("auto");
	ok(!p.usable && strstr(p.why, "Pitt"), "the other line: %s", p.why);
	put(root, "/proc/v3vee/v3-guests", GUEST("vm-a"));
	put(root, "/proc/v3vee/v3-info",
	    "number of nodes:\t1\n"
	    "number of cpus: \t4\npalacios run-time mem_block_size:\t134217728\n");
	put(root, "/proc/v3vee/v3-mem0", "    Base Addr=1, order=29, size=536870912, free=402653184\n");
	p = probe("auto");
	ok(!p.usable && strstr(p.why, "/dev/v3vee"), "no device: %s", p.why);
	put(root, "/dev/v3vee", "");
	p = probe("auto");
	if (palacios_loader_find(&loader, &e) == 0)
		ok(p.usable && strcmp(p.accel, "palacios") == 0 && strstr(p.version, "NU line") &&
			   strstr(p.note, "384 MiB"),
		   "usable: %s; %s", p.version, p.note);
	else
		ok(!p.usable && strcmp(p.why, e.text) == 0, "no boot loader: %s", p.why);
	p = probe("kvm");
	ok(!p.usable && strstr(p.why, "kvm"), "no other accelerator: %s", p.why);
	test_checks(root);
	unsetenv("VSE_PALACIOS_ROOT");
}

static void test_messages(void)
{
	int pair[2], fd = -1;
	struct palacios_message m = {.kind = PALACIOS_DO, .op = PALACIOS_OP_SAVE, .cpu = -1}, got;
	if (!ok(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "a pair"))
		return;
	is_int(palacios_message_read(pair[1], &got, &fd), 0, "nothing yet");
	ok(palacios_message_write(pair[0], &m, 0) == 0 &&
		   palacios_message_read(pair[1], &got, &fd) == 1 && fd > 0 &&
		   got.op == PALACIOS_OP_SAVE && got.cpu == -1,
	   "a message with a descriptor");
	close(fd);
	ok(send(pair[0], "x", 1, 0) == 1 && palacios_message_read(pair[1], &got, &fd) < 0,
	   "a short one is none");
	close(pair[0]);
	ok(palacios_message_read(pair[1], &got, &fd) < 0, "the other end is gone");
	close(pair[1]);
	for (int i = PALACIOS_OP_START; i <= PALACIOS_OP_UNDO; i++)
		ok(palacios_op_name((enum palacios_op)i)[0], "%s",
		   palacios_op_name((enum palacios_op)i));
}

int main(void)
{
	_cleanup_free_ char *tmp = xasprintf("%s/vse-palacios.XXXXXX", getenv("TMPDIR") ?: "/tmp");
	if (!mkdtemp(tmp))
		return 1;
	test_image();
	test_config();
	test_cmdline();
	test_guests();
	test_cores();
	test_info();
	test_log();
	test_words();
	test_state(tmp);
	test_probe(tmp);
	test_messages();
	path_remove(tmp, NULL);
	return done();
}
