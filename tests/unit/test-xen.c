/* SPDX-License-Identifier: Apache-2.0 */
/* The pure parts of the back end `xen`: what it tells xl, and what it understands of what xl says. */
#include <errno.h>

#include "base/alloc.h"
#include "hypervisor/xen.h"
#include "tap.h"

static const uint8_t random_bytes[16] = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0xf7, 0x88,
					 0xff, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01};

static struct hv_spec a_spec(void)
{
	return (struct hv_spec){.name = "vm3",
				.rank = 3,
				.cpus = 2,
				.memory = (256u << 20) + 1,
				.kernel = "/i/bzImage",
				.vmlinux = "/i/vmlinux",
				.initrd = "/i/initrd",
				.cmdline = "vse.root=squashfs:vda:mem",
				.root = "/i/root",
				.dir = "/run/vse/my cluster/3",
				.machine = "auto"};
}

/* ---- the configuration ---- */

static void test_identity(void)
{
	struct hv_spec s = a_spec();
	struct xen_id id;
	xen_identify(&s, random_bytes, &id);
	is_str(id.uuid, "11223344-5566-4788-bfaa-bbccddeeff01", "a UUID of version 4");
	is_str(id.name, "vse-my-cluster-3-11223344", "the name tells cluster and rank");
	s.dir = "/0123456789012345678901234567890123456789012345678901234567890123456789/x";
	s.rank = UINT32_MAX;
	xen_identify(&s, random_bytes, &id);
	ok(strlen(id.name) < XEN_NAME_MAX && strstr(id.name, "-4294967295-11223344"),
	   "a long one is cut before the rank: %s", id.name);
}

static void test_types(void)
{
	struct hv_spec s = a_spec();
	struct err e = ERR_INIT;
	enum xen_type t;
	struct xen_host both = {.pv = true, .hvm = true}, pv = {.pv = true}, hvm = {.hvm = true};
	ok(xen_type(&s, &both, &t, &e) == 0 && t == XEN_PVH, "auto is PVH");
	ok(xen_type(&s, &pv, &t, &e) == 0 && t == XEN_PV, "without HVM it is PV");
	s.vmlinux = NULL;
	ok(xen_type(&s, &both, &t, &e) == 0 && t == XEN_PV, "a bzImage alone is PV");
	ok(xen_type(&s, &hvm, &t, &e) == 0 && t == XEN_HVM, "or HVM");
	s.machine = "pvh";
	ok(xen_type(&s, &both, &t, &e) == 0 && t == XEN_PVH, "what is asked for");
	ok(xen_type(&s, &pv, &t, &e) < 0 && e.code == EINVAL, "%s", e.text);
	s.machine = "microvm";
	ok(xen_type(&s, &both, &t, &e) < 0 && e.code == EINVAL, "%s", e.text);
}

static void test_config(void)
{
	struct hv_spec s = a_spec();
	struct xen_id id;
	struct err e = ERR_INIT;
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_strvec_ struct strvec extra = STRVEC_INIT;
	unsigned pins[] = {4, 7};
	strvec_addv(&extra, "-device", "say \"x\"", NULL);
	s.dir = "/run/vse/c/3";
	s.scratch = "/s/a disk, raw";
	s.nic = true;
	s.pins = pins;
	s.extra_args = &extra;
	memcpy(s.mac, (uint8_t[]){2, 0, 0, 0, 0, 0xfe}, 6);
	xen_identify(&s, random_bytes, &id);
	is_int(xen_config(&s, &id, XEN_PV, "vsebr", &b, &e), 0, "a configuration %s", e.text);
	is_str(buf_cstr(&b),
	       "name = \"vse-c-3-11223344\"\n"
	       "uuid = \"11223344-5566-4788-bfaa-bbccddeeff01\"\n"
	       "type = \"pv\"\n"
	       "memory = 257\nmaxmem = 257\nvcpus = 2\n"
	       "kernel = \"/i/vmlinux\"\n"
	       "ramdisk = \"/i/initrd\"\n"
	       "cmdline = \"console=hvc0 quiet panic=-1 vse.ch=hvc1 cryptomgr.notests "
	       "vse.root=squashfs:vda:mem\"\n"
	       "disk = [ \"format=raw,vdev=xvda,access=ro,target=/i/root\", "
	       "\"format=raw,vdev=xvdb,access=rw,backendtype=qdisk,target=/s/a disk, raw\" ]\n"
	       "channel = [ \"name=ch0,connection=socket,path=/run/vse/c/3/ch0\", "
	       "\"name=ch1,connection=socket,path=/run/vse/c/3/ch1\" ]\n"
	       "vif = [ \"mac=02:00:00:00:00:fe,bridge=vsebr,script=vif-bridge,type=vif\" ]\n"
	       "cpus = [ \"4\", \"7\" ]\n"
	       "device_model_args = [ \"-device\", 'say \"x\"' ]\n"
	       "on_poweroff = \"preserve\"\non_reboot = \"preserve\"\non_crash = \"preserve\"\n"
	       "on_watchdog = \"preserve\"\non_soft_reset = \"preserve\"\n"
	       "vga = \"none\"\nnographic = 1\n",
	       "as it is meant to be");
	buf_clear(&b);
	s.nic = false;
	is_int(xen_config(&s, &id, XEN_HVM, NULL, &b, &e), 0, "HVM %s", e.text);
	ok(strstr(buf_cstr(&b), "kernel = \"/i/bzImage\"\n"), "HVM takes the bzImage");
	ok(strstr(buf_cstr(&b), "vdev=xvde,") && strstr(buf_cstr(&b), "vdev=xvdf,"),
	   "and disks that are no IDE disks");
}

static void refused(const struct hv_spec *s, const char *what)
{
	struct xen_id id;
	struct err e = ERR_INIT;
	_cleanup_buf_ struct buf b = BUF_INIT;
	xen_identify(s, random_bytes, &id);
	ok(xen_config(s, &id, XEN_PV, "br", &b, &e) < 0 && e.code == EINVAL, "%s: %s", what, e.text);
}

static void test_config_refuses(void)
{
	struct hv_spec s = a_spec();
	s.cmdline = "x\nextra = \"y\"";
	refused(&s, "a second line");
	s.cmdline = "a=\"b\" c='d'";
	refused(&s, "both quotes");
	s.cmdline = "a\\b";
	refused(&s, "a backslash");
	s = a_spec();
	s.dir = "/run/a,b/3";
	refused(&s, "a comma in the socket's path");
	s = a_spec();
	s.vmlinux = s.kernel = NULL;
	refused(&s, "no kernel");
	s = a_spec();
	s.accel = "kvm";
	refused(&s, "another accelerator");
}

/* ---- xl info, xl list ---- */

static const char info417[] =
	"host                   : dom0\n"
	"virt_caps              : pv hvm hap gnttab-v1 gnttab-v2\n"
	"nr_cpus                : 2\n"
	"free_memory            : 1256\n"
	"xen_major              : 4\n"
	"xen_version            : 4.17.6-pre\n"
	"xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_64 \n";

static void test_info(void)
{
	struct xen_host h;
	struct err e = ERR_INIT;
	is_int(xen_parse_info(info417, &h, &e), 0, "xl info of 4.17 %s", e.text);
	ok(h.number == 417 && h.pv && h.hvm && h.free == 1256ull << 20 && h.cpus == 2,
	   "what it says");
	is_str(h.version, "4.17.6-pre", "the version");
	is_int(xen_parse_info("virt_caps : hvm_directio\nxen_caps : xen-3.0-x86_64\nxen_version : "
			      "4.11.4\n",
			      &h, &e),
	       0, "xl info of 4.11");
	ok(h.number == 411 && h.pv && !h.hvm, "PV only");
	ok(xen_parse_info("host : a\n", &h, &e) < 0 && e.code == EPROTO, "%s", e.text);
}

static const char list[] =
	"Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID         "
	"                   Reason-Code\tSecurity Label\n"
	"Domain-0                                     0   768     1     r-----      14.7 "
	"00000000-0000-0000-0000-000000000000        -                -\n"
	"a b                                          3   192     1     -b----       2.1 "
	"11223344-5566-4788-bfaa-bbccddeeff01        -                -\n"
	"vse-c-4-aa                                   4   192     2     --p---       0.0 "
	"11223344-5566-4788-bfaa-bbccddeeff02        -                -\n"
	"vse-c-5-aa                                   5   192     2     ---s--     100.9 "
	"11223344-5566-4788-bfaa-bbccddeeff03        0\n"
	"vse-c-6-aa                                   6   192     2     ---sc-     100.9 "
	"11223344-5566-4788-bfaa-bbccddeeff04        3                -\n"
	"(null)                                       7     0     1     --ps-d       1.0 "
	"11223344-5566-4788-bfaa-bbccddeeff05       ff                -\n";

static void test_list(void)
{
	struct xen_domain d;
	ok(xen_parse_list(list, "11223344-5566-4788-BFAA-BBCCDDEEFF01", &d),
	   "a domain by its UUID");
	is_str(d.name, "a b", "its name may have blanks");
	ok(d.id == 3 && d.memory == 192u << 20 && d.cpu_ms == 2100 && !d.paused && !d.shutdown &&
		   !d.dying && d.reason == -1,
	   "what the row says");
	ok(xen_parse_list(list, "11223344-5566-4788-bfaa-bbccddeeff02", &d) && d.paused, "paused");
	ok(xen_parse_list(list, "11223344-5566-4788-bfaa-bbccddeeff03", &d) && d.shutdown &&
		   d.reason == XEN_REASON_POWEROFF,
	   "powered off, with no label");
	ok(xen_parse_list(list, "11223344-5566-4788-bfaa-bbccddeeff04", &d) && d.shutdown &&
		   d.reason == XEN_REASON_CRASH,
	   "crashed");
	ok(xen_parse_list(list, "11223344-5566-4788-bfaa-bbccddeeff05", &d) && d.dying, "dying");
	ok(!xen_parse_list(list, "11223344-5566-4788-bfaa-bbccddeeff09", &d), "none of that UUID");
	ok(!xen_parse_list("", "x", &d), "nothing");
}

static void test_long(void)
{
	static const char text[] =
		"[{\"domid\":0,\"config\":{\"c_info\":{\"type\":\"pv\",\"uuid\":\"u0\"}}},"
		"{\"domid\":8,\"config\":{\"c_info\":{\"type\":\"pvh\",\"uuid\":\"u1\",\"domid\":"
		"4294967295},"
		"\"disks\":[{\"vdev\":\"xvda\"},{\"vdev\":\"xvdb\"}]}}]";
	struct err e = ERR_INIT;
	int type;
	size_t disks;
	is_int(xen_parse_long(text, strlen(text), "U1", &type, &disks, &e), 0, "a domain %s", e.text);
	ok(type == XEN_PVH && disks == 2, "its type and disks");
	ok(xen_parse_long(text, strlen(text), "u2", &type, &disks, &e) < 0 && e.code == ESRCH, "%s",
	   e.text);
	ok(xen_parse_long("[", 1, "u2", &type, &disks, &e) < 0 && e.code == EPROTO, "%s", e.text);
}

/* ---- errors ---- */

static void cause(const char *text, const char *want)
{
	char out[300];
	xen_cause(text, out, sizeof(out));
	is_str(out, want, "the cause");
}

static void test_causes(void)
{
	cause("", "");
	cause("Parsing config from x\nlibxl: error: libxl_dom.c:1:f: xc_dom_boot_mem_init: can't "
	      "allocate low memory for domain: Out of memory\n"
	      "libxl: error: libxl_domain.c:1183:libxl__destroy_domid: Domain 4:unable to destroy "
	      "domain\n",
	      "too little free memory on the node (xl info: free_memory)");
	cause("libxl: error: libxl_create.c:1:libxl__domain_make: Domain 5:Domain with name "
	      "\"pv1\" already exists.\n",
	      "a domain of this name is there already");
	cause("libxl: error: libxl_device.c:1:disk_try_backend: Disk vdev=xvda failed to stat: "
	      "/no/f: No such file or directory\n",
	      "disk /no/f: No such file or directory");
	cause("libxl: error: libxl_exec.c:1:x: script: Could not find bridge device "
	      "nosuchbr\nlibxl: error: libxl_create.c:1:x: Domain 5:unable to add vif devices\n",
	      "there is no bridge nosuchbr");
	cause("xc: error: failed to open file '/guests/nonexistent': No such file or directory: "
	      "Internal error\n",
	      "kernel or initramfs: '/guests/nonexistent': No such file or directory: Internal "
	      "error");
	cause("libxl: error: libxl_aoutils.c:1:f: killing execution of /etc/xen/scripts/block add "
	      "because of timeout\n",
	      "a hotplug script took longer than libxl waits (40 s)");
	cause("nosuch is an invalid domain identifier (rc=-6)\n", "there is no such domain");
	cause("Error: Domain '77' does not exist.\n", "there is no such domain");
	cause("Failed to enable logdirty: 95,22,0\n", XEN_NO_LOG_DIRTY);
	cause("libxl: error: libxl_x.c:12:libxl__new: Domain 5:what nobody knows\nmore\n",
	      "what nobody knows");
	cause("first\nlibxl: error: libxl_x.c:12:libxl__new: second\n", "second");
	cause("only\tthis\n", "only this");
}

/* Messages of xl 4.17 that were seen, or stand in its text. */
static void test_more_causes(void)
{
	static const char gone[] = "there is no such domain";
	cause("Can't get domid of domain name 'nosuch', maybe this domain does not exist.\n", gone);
	cause("libxl: error: libxl_domain.c:1:libxl_domain_pause: Domain 77:Pausing domain: No "
	      "such process\n",
	      gone);
	cause("unable to get domain type for domid=77\n", gone);
	cause("destroy failed (rc=-21)\n", gone);
	cause("destroy failed (rc=-15)\n", "another xl works on this domain");
	cause("Can't get domain name of domain id '77', maybe this domain does not exist.\n", gone);
	cause("unable to retrieve domain configuration\n",
	      "xl knows no configuration of this domain: it is gone, or another tool's");
	cause("Can't open restore file: No such file or directory\n",
	      "the saved state cannot be opened: No such file or directory");
	cause("Failed to read config file: /v/xl.cfg: No such file or directory\n",
	      "xl cannot read the configuration");
	cause("/v/xl.cfg:1: config parsing error near `x y': lexical error\n"
	      "Failed to parse config: Invalid argument\n",
	      "xl does not understand the configuration: near `x y': lexical error");
	cause("Domain name must be specified.\n",
	      "xl does not understand the configuration: no name");
	cause("Neither kernel nor bootloader specified\n",
	      "xl does not understand the configuration: no kernel");
	cause("Config file not specified and none in save file\n", "xl was given no configuration");
	cause("command not implemented\n", "this xl does not know the command");
	cause("Usage: xl [-vtTfN] vcpu-pin [option]\n",
	      "this xl does not know the command, or a word of it");
	cause("Could not set affinity for vcpu `0'.\n",
	      "the vCPU cannot be put onto this CPU (xl cpupool-list -c)");
	cause("PV control interface not available: external graceful shutdown not possible.\n",
	      "the guest cannot be asked: no driver of Xen runs in it");
	cause("Parsing config from /v/xl.cfg\nxc: error: segment kernel too large (0x4b3d > 0x4000 "
	      "- "
	      "0x1000 pages): Internal error\n",
	      "the kernel does not fit: the VM has too little memory");
	cause("Saving to migration stream new xl format (info 0x3/0x0/1432)\n"
	      "xc: error: Failed to write page data to stream (32 = Broken pipe): Internal error\n"
	      "Migration failed, resuming at sender.\n",
	      "nobody reads the state any more");
	cause("Saving to migration stream new xl format (info 0x3/0x0/831)\n"
	      "xc: info: Saving domain 19, type x86 HVM\n"
	      "libxl: error: libxl_utils.c:505:libxl_read_exactly: file/stream truncated reading "
	      "ipc "
	      "msg header from domain 19 save/restore helper stdout pipe\n"
	      "libxl: error: libxl_exec.c:127:libxl_report_child_exitstatus: domain 19 "
	      "save/restore "
	      "helper [3027] died due to fatal signal Broken pipe\n"
	      "migration sender: libxl_domain_suspend failed (rc=-3)\n",
	      "nobody reads the state any more, or xl's helper was ended");
	cause("Saving to migration stream new xl format (info 0x3/0x0/1432)\n"
	      "xc: error: Failed to enable logdirty: 95,22,0 (95 = Operation not supported): "
	      "Internal error\n"
	      "migration sender: libxl_domain_suspend failed (rc=-3)\n"
	      "Migration failed, resuming at sender.\n",
	      XEN_NO_LOG_DIRTY);
	cause("Loading new save file /proc/self/fd/3 (new xl fmt info 0x3/0x0/1432)\n"
	      " Savefile contains xl domain config in JSON format\n"
	      "xc: error: Failed to read Record Header from stream (0 = Success): Internal error\n",
	      "the saved state is damaged or cut off");
	cause("libxl: error: libxl_dm.c:1:f: Domain 3:device model /usr/bin/q is not executable\n",
	      "the device model (qemu) is not installed (Debian: qemu-system-xen)");
}

/* ---- any bytes ---- */

static uint32_t seed = 1;

static unsigned any(unsigned n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static void test_fuzz(void)
{
	static const char *const seeds[] = {
		list, info417, "libxl: error: libxl_x.c:1:f: Domain 5:failed to stat: x\n"};
	unsigned bad = 0;
	for (unsigned i = 0; i < 20000; i++) {
		const char *s = seeds[i % ARRAY_SIZE(seeds)];
		size_t n = strlen(s), from = any((unsigned)n), len = any((unsigned)(n - from) + 1);
		_cleanup_free_ char *text = xmalloc(len + 1);
		memcpy(text, s + from, len);
		text[len] = '\0';
		for (unsigned k = any(8); len && k; k--)
			text[any((unsigned)len)] = (char)any(256);
		char out[64];
		struct xen_domain d;
		struct xen_host h;
		struct err e = ERR_INIT;
		int type;
		size_t disks;
		for (const char *p = text; *p; p += strcspn(p, "\n") + (p[strcspn(p, "\n")] == '\n'))
			if (xen_parse_row(p, strcspn(p, "\n"), &d))
				bad += strlen(d.uuid) != XEN_UUID_LEN || strlen(d.name) >= XEN_NAME_MAX;
		xen_parse_info(text, &h, &e);
		xen_parse_long(text, len, "u", &type, &disks, &e);
		xen_cause(text, out, sizeof(out));
		bad += strlen(out) >= sizeof(out) || strchr(out, '\n') != NULL;
	}
	is_int(bad, 0, "20000 damaged texts break nothing");
}

/* ---- the stream of xl migrate ---- */

static void add_record(struct buf *b, uint32_t type, const char *body)
{
	uint32_t head[2] = {type, (uint32_t)strlen(body)};
	buf_add(b, head, sizeof(head));
	buf_adds(b, body);
	while (buf_len(b) % 8)
		buf_addc(b, '\0');
}

/* docs/specs/libxl-migration-stream and libxc-migration-stream of Xen. */
static void a_stream(struct buf *b)
{
	static const char magic[32] = "Xen saved domain, xl format\n \0 \r",
			  libxl[16] = "LibxlFmt\0\0\0\2",
			  libxc[24] = "\377\377\377\377\377\377\377\377XENF\0\0\0\3", domain[16];
	uint32_t xl[4] = {0x01020304, 3, 0, 16};
	buf_add(b, magic, sizeof(magic));
	buf_add(b, xl, sizeof(xl));
	buf_adds(b, "{\"c_info\": {}}..");
	buf_add(b, libxl, sizeof(libxl));
	add_record(b, 1, "");
	buf_add(b, libxc, sizeof(libxc));
	buf_add(b, domain, sizeof(domain));
	add_record(b, 0x10, "policy");
	add_record(b, 1, "a page");
	add_record(b, 0, "");
	add_record(b, 2, "a record of libxl's");
	add_record(b, 0, "");
}

static void test_stream(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	a_stream(&b);
	size_t n = buf_len(&b), fed = 0, pages_at = 0;
	struct xen_stream s = {0};
	bool early = false;
	for (size_t i = 0; i < n; i++) {
		early = early || xen_stream_whole(&s);
		fed += xen_stream_feed(&s, buf_head(&b) + i, 1);
		pages_at = s.pages && !pages_at ? i : pages_at;
	}
	ok(!early && fed == n && xen_stream_whole(&s) && !xen_stream_bad(&s),
	   "whole with its last byte");
	is_int(pages_at, 48 + 16 + 16 + 8 + 24 + 16 + 16 + 8 - 1,
	       "the memory begins with the head of its first record");
	buf_adds(&b, "more");
	s = (struct xen_stream){0};
	ok(xen_stream_feed(&s, buf_head(&b), n + 4) == n && xen_stream_whole(&s),
	   "what follows is not of it");
	buf_head(&b)[65] = 'l'; /* of "LibxlFmt" */
	s = (struct xen_stream){0};
	ok(xen_stream_feed(&s, buf_head(&b), n) < n && xen_stream_bad(&s), "another format");
	s = (struct xen_stream){0};
	xen_stream_feed(&s, "Usage: xl", 9);
	ok(!xen_stream_bad(&s) && !xen_stream_whole(&s), "too short to be anything");
}

int main(void)
{
	test_identity();
	test_types();
	test_config();
	test_config_refuses();
	test_info();
	test_list();
	test_long();
	test_causes();
	test_more_causes();
	test_stream();
	test_fuzz();
	return done();
}
