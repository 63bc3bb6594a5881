/* SPDX-License-Identifier: Apache-2.0 */
/* The pure parts of the back end `qemu`, its QMP client against a scripted peer, and the KVM probe
 * against devices that are none. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "hypervisor/fake.h"
#include "hypervisor/qemu.h"
#include "hypervisor/qemu_qmp.h"
#include "hypervisor/qemu_state.h"
#include "qmp-peer.h"
#include "tap.h"

/* ---- lines ---- */

static int parse(const char *s, struct qmp_message *m, struct err *e)
{
	return qmp_parse(s, strlen(s), m, e);
}

static void test_lines(void)
{
	struct qmp_message m;
	struct err e = ERR_INIT;
	is_int(parse("{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1,\"microseconds\":2}}", &m, &e),
	       0, "an event");
	ok(m.kind == QMP_EVENT && strcmp(m.name, "STOP") == 0 && !m.data, "its name, no data");
	qmp_message_finish(&m);
	is_int(parse("{\"return\":{\"status\":\"running\"},\"id\":7}", &m, &e), 0, "an answer");
	ok(m.kind == QMP_RETURN && m.id == 7 && json_is_object(m.data), "its id and value");
	qmp_message_finish(&m);
	is_int(parse("{\"id\":8,\"error\":{\"class\":\"GenericError\",\"desc\":\"no disk\"}}", &m, &e),
	       0, "an error");
	ok(m.kind == QMP_ERROR && m.id == 8 && strcmp(m.text, "no disk") == 0, "its id and text");
	qmp_message_finish(&m);
	is_int(parse("{\"QMP\":{\"version\":{\"qemu\":{\"major\":7}},\"capabilities\":[]}}", &m, &e),
	       0, "the greeting");
	ok(m.kind == QMP_GREETING && m.data, "with a version");
	qmp_message_finish(&m);
	is_int(parse("{\"return\":{},\"id\":\"7\"}", &m, &e), 0, "an answer with a foreign id");
	is_int(m.id, 0, "is nobody's");
	qmp_message_finish(&m);
	static const char *const bad[] = {"",
					  "{",
					  "[]",
					  "7",
					  "{}",
					  "{\"event\":7}",
					  "{\"event\":\"STOP\",\"data\":[]}",
					  "{\"error\":{}}",
					  "{\"error\":\"x\"}",
					  "{\"return\":1} {\"return\":2}",
					  "\xff\xfe",
					  "{\"return\":99999999999999999999}"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e = ERR_INIT;
		ok(parse(bad[i], &m, &e) < 0 && e.code == EPROTO, "refused: '%s' (%s)", bad[i], e.text);
	}
}

/* ---- client ---- */

/* QEMU 7.2 sends what it still owed to a client that has died to the next one. */
static void test_leftovers(void)
{
	struct peer p;
	char text[500];
	peer_begin(&p, 60000);
	qmp_command(p.q, "stop", NULL, 60000, peer_on_answer, &p);
	peer_say(&p,
		 "{\"event\":\"STOP\"}\n{\"return\":{},\"id\":1}\n{\"id\":2,\"error\":{\"class\":"
		 "\"GenericError\",\"desc\":\"x\"}}\n" GREETING);
	peer_settle(&p);
	peer_heard(&p, text, sizeof(text));
	is_str(text, "{\"execute\":\"qmp_capabilities\",\"id\":@2}\n",
	       "before the greeting they are passed over");
	peer_say(&p, "{\"return\":{},\"id\":3}\n{\"id\":4,\"error\":{\"class\":\"GenericError\","
		     "\"desc\":\"x\"}}\n{\"return\":{}}\n");
	peer_settle(&p);
	ok(!p.ready && !p.closed && !p.answers && !p.events,
	   "and until the capabilities are answered");
	peer_say(&p,
		 "{\"return\":{},\"id\":@2}\n{\"return\":7,\"id\":1}\n{\"return\":8,\"id\":@1}\n");
	peer_settle(&p);
	is_int(p.ready, 1, "then it is ready");
	is_int(p.answers, 1, "one answer was to this client");
	is_str(p.answer, "0 8", "its own");
	peer_finish(&p);
	peer_begin(&p, 60000);
	peer_say(&p, GREETING);
	peer_settle(&p);
	peer_heard(&p, text, sizeof(text));
	peer_say(&p, "{\"id\":@1,\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"no\"}}\n");
	peer_settle(&p);
	is_int(p.close_code, EPROTO, "capabilities that are refused end it");
	peer_finish(&p);
	peer_negotiate(&p);
	peer_say(&p, GREETING);
	peer_settle(&p);
	is_int(p.close_code, EPROTO, "and so does a second greeting");
	peer_finish(&p);
}

static void test_commands(void)
{
	struct peer p;
	char text[500];
	peer_begin(&p, 60000);
	qmp_command(p.q, "stop", NULL, 60000, peer_on_answer, &p);
	peer_settle(&p);
	peer_heard(&p, text, sizeof(text));
	is_str(text, "", "nothing is sent before the greeting");
	peer_say(&p, GREETING);
	peer_settle(&p);
	peer_heard(&p, text, sizeof(text));
	is_str(text, "{\"execute\":\"qmp_capabilities\",\"id\":@2}\n", "then the capabilities");
	peer_say(&p, "{\"return\": {}, \"id\": @2}\r\n");
	peer_settle(&p);
	peer_heard(&p, text, sizeof(text));
	is_str(text, "{\"execute\":\"stop\",\"id\":@1}\n", "then what was queued");
	qmp_command(p.q, "set-action", json_pack("{s:s}", "reboot", "reset"), 60000, peer_on_answer, &p);
	peer_settle(&p);
	peer_heard(&p, text, sizeof(text));
	is_str(text, "{\"execute\":\"set-action\",\"id\":@3,\"arguments\":{\"reboot\":\"reset\"}}\n",
	       "arguments");
	peer_say(&p,
		 "{\"event\":\"STOP\",\"timestamp\":{}}\r\n{\"return\":{},\"id\":@1}\r\n{\"id\":@3,"
		 "\"err");
	peer_settle(&p);
	is_str(p.event, "STOP", "an event in between");
	is_str(p.answer, "0 {}", "the first answer");
	is_int(p.answers, 1, "half a line is none");
	peer_say(&p, "or\":{\"class\":\"GenericError\",\"desc\":\"no such action\"}}\r\n");
	peer_settle(&p);
	is_str(p.answer, "5 set-action: no such action", "an error names its command");
	peer_say(&p, "{\"return\":{},\"id\":@1}\n{\"return\":{},\"id\":99}\n");
	peer_settle(&p);
	is_int(p.answers, 2, "answers to nothing are ignored");
	peer_finish(&p);
}

static void test_bounds(void)
{
	struct peer p;
	peer_begin(&p, 10);
	while (!p.closed)
		loop_run_once(p.loop);
	is_int(p.close_code, ETIMEDOUT, "no greeting in time");
	peer_finish(&p);
	peer_negotiate(&p);
	qmp_command(p.q, "query-status", NULL, 10, peer_on_answer, &p);
	qmp_command(p.q, "cont", NULL, 60000, peer_on_answer, &p);
	while (!p.answers)
		loop_run_once(p.loop);
	is_str(p.answer, "110 query-status: qemu did not answer in time", "no answer in time");
	peer_say(&p, "{\"return\":{},\"id\":@2}\n{\"return\":3,\"id\":@3}\n");
	peer_settle(&p);
	is_str(p.answer, "0 3", "the late one is dropped, the next one counts");
	is_int(p.answers, 2, "each is told once");
	peer_finish(&p);
}

static void test_closing(void)
{
	struct peer p;
	peer_negotiate(&p);
	qmp_command(p.q, "stop", NULL, 60000, peer_on_answer, &p);
	close(TAKE_FD(p.fd));
	peer_settle(&p);
	is_int(p.closed, 1, "the end is told");
	is_int(p.close_code, 0, "as an end");
	is_str(p.answer, "32 stop: qemu closed QMP", "what was pending fails");
	peer_finish(&p);
	static const char *const nonsense[] = {"hello\n", "{\"QMP\":\n", "[]\n"};
	for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
		peer_begin(&p, 60000);
		peer_say(&p, nonsense[i]);
		peer_settle(&p);
		is_int(p.close_code, EPROTO, "nonsense ends it");
		is_int(p.closed, 1, "once");
		peer_finish(&p);
	}
	peer_negotiate(&p);
	_cleanup_free_ char *line = xmalloc(QMP_LINE_MAX + 100);
	memset(line, 'x', QMP_LINE_MAX + 100);
	for (size_t sent = 0; sent < QMP_LINE_MAX + 100 && !p.closed; peer_settle(&p)) {
		ssize_t n = send(p.fd, line + sent, QMP_LINE_MAX + 100 - sent,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		sent += n > 0 ? (size_t)n : 0;
	}
	is_int(p.close_code, EPROTO, "a line without end ends it");
	peer_finish(&p);
	peer_negotiate(&p);
	p.destroy_at_event = true;
	peer_say(&p, "{\"event\":\"RESET\"}\n{\"event\":\"STOP\"}\n");
	peer_settle(&p);
	is_int(p.events, 1, "destroyed by its own event: no other comes");
	peer_finish(&p);
	peer_negotiate(&p);
	p.destroy_at_answer = true;
	qmp_command(p.q, "stop", NULL, 60000, peer_on_answer, &p);
	qmp_command(p.q, "cont", NULL, 60000, peer_on_answer, &p);
	close(TAKE_FD(p.fd));
	peer_settle(&p);
	is_int(p.answers, 1, "destroyed while the pending ones are told: no other comes");
	is_int(p.closed, 0, "and no end either");
	peer_finish(&p);
}

/* ---- command line ---- */

static const struct qemu_binary new_qemu = {.path = "/usr/bin/qemu-system-x86_64",
					    .version = "7.2.22",
					    .number = 702,
					    .qboot = "/usr/share/qemu/qboot.rom",
					    .microvm = true};

static const struct hv_spec full = {
	.name = "vm3",
	.rank = 3,
	.cpus = 2,
	.memory = 256u << 20,
	.kernel = "/i/bzImage",
	.vmlinux = "/i/vmlinux",
	.initrd = "/i/initrd",
	.cmdline = "vse.root=erofs",
	.root = "/i/a,b.erofs",
	.scratch = "/s/scratch",
	.dir = "/run/vm3",
	.trusted = true,
	.mac = {2, 0, 0, 0, 0, 3},
	.nic = true,
	.outbound = true,
};

static char *join(const struct strvec *v)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < v->n; i++)
		buf_addf(&b, "%s%s", i ? (v->v[i][0] == '-' ? "\n" : " ") : "", v->v[i]);
	return buf_take(&b);
}

static void check_args(const struct hv_spec *spec, const struct qemu_host *host, const char *want,
		       const char *what)
{
	_cleanup_strvec_ struct strvec v = STRVEC_INIT;
	struct err e = ERR_INIT;
	is_int(qemu_args(spec, host, &v, &e), 0, "%s %s", what, e.text);
	_cleanup_free_ char *got = join(&v);
	is_str(got, want, "%s: as expected", what);
}

#define HEAD                                                                                       \
	"/usr/bin/qemu-system-x86_64\n-name guest=vm3\n-nodefaults\n-no-user-config\n-display "    \
	"none\n"                                                                                   \
	"-no-reboot\n"                                                                             \
	"-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n"       \
	"-chardev socket,id=monitor,fd=3,server=on,wait=off\n-mon chardev=monitor,mode=control\n"
#define CONSOLE                                                                                    \
	"-device pvpanic\n-chardev socket,id=console,fd=5,server=on,wait=off\n-serial "            \
	"chardev:console\n"

static void test_args(void)
{
	struct qemu_host host = {.binary = &new_qemu, .accel = "tcg", .tsc_khz = 2596135};
	check_args(
		&full, &host,
		HEAD
		"-accel tcg\n-machine microvm\n-cpu max,-la57,-erms,-cx16\n-smp 2\n-m 256M\n-bios "
		"/usr/share/qemu/qboot.rom\n"
		"-kernel /i/vmlinux\n-initrd /i/initrd\n"
		"-append console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz=2596135 "
		"cryptomgr.notests "
		"i8042.noaux i8042.nokbd"
		" tsc=reliable no_timer_check audit=0 apparmor=0 mitigations=off "
		"init_on_alloc=0 vse.root=erofs\n" CONSOLE
		"-chardev socket,id=channel,fd=4,server=on,wait=off\n-device "
		"virtio-serial-device,max_ports=2\n"
		"-device virtserialport,chardev=channel,name=org.vse.agent.0\n"
		"-blockdev "
		"driver=raw,node-name=root,read-only=on,file.driver=file,file.locking=off,"
		"file.filename=/i/a,,b.erofs\n-device virtio-blk-device,drive=root,serial=root\n"
		"-blockdev "
		"driver=raw,node-name=scratch,cache.no-flush=on,discard=unmap,file.driver=file,"
		"file.locking=off,file.filename=/s/scratch\n-device "
		"virtio-blk-device,drive=scratch,serial=scratch\n"
		"-netdev stream,id=net0,server=on,addr.type=fd,addr.str=6\n"
		"-device virtio-net-device,netdev=net0,mac=02:00:00:00:00:03\n"
		"-netdev user,id=net1,ipv6=off\n-device "
		"virtio-net-device,netdev=net1,mac=52:54:00:12:34:56",
		"everything, TCG");

	/* KVM, an old QEMU, no PVH kernel, no TSC known: the safe words only, PCI, the socket netdev. */
	struct qemu_binary old_qemu = new_qemu;
	old_qemu.number = 602;
	struct hv_spec plain = full;
	plain.vmlinux = plain.scratch = plain.cmdline = NULL;
	plain.outbound = false;
	struct qemu_host kvm = {.binary = &old_qemu, .accel = "kvm"};
	check_args(&plain, &kvm,
		   HEAD
		   "-accel kvm\n-machine q35,vmport=off,smbus=off,sata=off,usb=off\n-cpu "
		   "host\n-smp 2\n-m 256M\n"
		   "-kernel /i/bzImage\n-initrd /i/initrd\n"
		   "-append console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests i8042.noaux "
		   "i8042.nokbd\n" CONSOLE
		   "-chardev socket,id=channel,fd=4,server=on,wait=off\n-device "
		   "virtio-serial-pci,max_ports=2\n"
		   "-device virtserialport,chardev=channel,name=org.vse.agent.0\n"
		   "-blockdev "
		   "driver=raw,node-name=root,read-only=on,file.driver=file,file.locking=off,"
		   "file.filename=/i/a,,b.erofs\n-device virtio-blk-pci,drive=root,serial=root\n"
		   "-netdev socket,id=net0,fd=6\n"
		   "-device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:03,romfile=",
		   "plain, KVM");
}

/* One option of a spec, with its value. */
static void has_args(const struct hv_spec *spec, const char *want, bool has)
{
	struct qemu_host host = {.binary = &new_qemu, .accel = "tcg"};
	_cleanup_strvec_ struct strvec v = STRVEC_INIT;
	struct err e = ERR_INIT;
	is_int(qemu_args(spec, &host, &v, &e), 0, "arguments %s", e.text);
	_cleanup_free_ char *text = join(&v), *line = xasprintf("\n%s\n", want);
	ok(!!strstr(text, line) == has, "%s '%s'", has ? "has" : "has not", want);
}

static void test_args_of_taps(void)
{
	struct hv_spec s = {
		.name = "vm1", .kernel = "/k", .cpus = 1, .memory = 64 << 20, .nic = true, .tap = true};
	struct qemu_host host = {.binary = &new_qemu, .accel = "kvm", .vhost = true};
	char with[HV_SIGNATURE_MAX], without[HV_SIGNATURE_MAX];
	_cleanup_strvec_ struct strvec v = STRVEC_INIT;
	struct err e = ERR_INIT;
	has_args(&s, "-netdev tap,id=net0,fd=6", true);
	is_int(qemu_args(&s, &host, &v, &e), 0, "with vhost: %s", e.text);
	ok(strvec_has(&v, "tap,id=net0,fd=6,vhost=on,vhostfd=9"), "has vhost's descriptor");
	is_int(qemu_signature(&s, &host, with, &e), 0, "its signature: %s", e.text);
	s.tap = false;
	has_args(&s, "-netdev tap,id=net0,fd=6", false);
	is_int(qemu_signature(&s, &host, without, &e), 0, "that without a tap: %s", e.text);
	ok(qemu_signature_check(with, without, &e) < 0 && qemu_signature_check(without, with, &e) < 0,
	   "a save with a tap goes not on without, nor the other way: %s", e.text);
}

static void test_args_of_templates(void)
{
	struct hv_spec s = full;
	has_args(&s, "-incoming defer", false);
	s.template = true;
	has_args(&s, "-object memory-backend-file,id=microvm.ram,size=256M,mem-path=/proc/self/fd/8,share=on",
		 true);
	has_args(&s, "-machine microvm,memory-backend=microvm.ram", true);
	has_args(&s, "-incoming defer", false);
	s.template = false;
	s.from = HV_FROM_TEMPLATE;
	s.machine = "q35";
	has_args(&s, "-object memory-backend-file,id=pc.ram,size=256M,mem-path=/proc/self/fd/8,share=off",
		 true);
	has_args(&s, "-machine q35,vmport=off,smbus=off,sata=off,usb=off,memory-backend=pc.ram", true);
	has_args(&s, "-incoming defer", true);
	has_args(&s, "-S", false); /* it runs by itself */
	s.from = HV_FROM_SAVE;
	s.hugepages = true;
	has_args(&s, "-object memory-backend-memfd,id=pc.ram,size=256M,hugetlb=on,hugetlbsize=2M,prealloc=on,share=on",
		 true);
	has_args(&s, "-machine q35,vmport=off,smbus=off,sata=off,usb=off,memory-backend=pc.ram", true);
	s.hugepages = false;
	const struct hv_mount mounts[] = {{.host = "/a,b", .guest = "/in"},
					  {.host = "/c", .guest = "/out", .rw = true}};
	s.mounts = mounts;
	s.n_mounts = 2;
	has_args(&s, "-fsdev local,id=host0,path=/a,,b,security_model=none,multidevs=remap,readonly=on",
		 true);
	has_args(&s, "-device virtio-9p-pci,fsdev=host0,mount_tag=vse0", true);
	has_args(&s, "-fsdev local,id=host1,path=/c,security_model=none,multidevs=remap", true);
	s.n_mounts = 0;
	has_args(&s, "-S", true);
	has_args(&s, "-machine q35,vmport=off,smbus=off,sata=off,usb=off", true);
}

static void test_args_of_devices(void)
{
	struct hv_spec s = full;
	_cleanup_strvec_ struct strvec addresses = STRVEC_INIT, v = STRVEC_INIT;
	struct qemu_host host = {.binary = &new_qemu, .accel = "tcg", .devices = &addresses};
	struct err e = ERR_INIT;
	strvec_addv(&addresses, "0000:3b:00.1", "0000:3b:00.2", NULL);
	s.machine = "auto";
	is_str(qemu_machine(&s, &host), "q35", "devices want PCI");
	is_int(qemu_args(&s, &host, &v, &e), 0, "arguments %s", e.text);
	_cleanup_free_ char *text = join(&v);
	ok(strstr(text, "\n-device vfio-pci,host=0000:3b:00.1\n-device vfio-pci,host=0000:3b:00.2"),
	   "both");
	s.machine = "microvm";
	ok(qemu_args(&s, &host, &v, &e) < 0 && e.code == EINVAL && strstr(e.text, "q35"), "%s", e.text);
}

static void test_args_refused(void)
{
	struct qemu_host host = {.binary = &new_qemu, .accel = "tcg"};
	_cleanup_strvec_ struct strvec v = STRVEC_INIT;
	struct err e = ERR_INIT;
	struct hv_spec s = full;
	s.machine = "isapc";
	ok(qemu_args(&s, &host, &v, &e) < 0 && e.code == EINVAL, "machine: %s", e.text);
	s = full;
	s.accel = "kvm";
	ok(qemu_args(&s, &host, &v, &e) < 0 && e.code == EINVAL, "accelerator: %s", e.text);
	s = full;
	s.vmlinux = s.kernel = NULL;
	ok(qemu_args(&s, &host, &v, &e) < 0 && e.code == EINVAL, "kernel: %s", e.text);
	s = full;
	is_str(qemu_machine(&s, &host), "microvm", "microvm where it can be");
	s.machine = "q35";
	is_str(qemu_machine(&s, &host), "q35", "q35 where it is asked for");
	/* A guest of another tenant keeps its mitigations, under emulation, too. */
	s = full;
	s.trusted = false;
	is_int(qemu_args(&s, &host, &v, &e), 0, "not trusted");
	_cleanup_free_ char *text = join(&v);
	ok(!strstr(text, "mitigations") && !strstr(text, "init_on_alloc"),
	   "keeps the guest's mitigations");
}

static void test_texts(void)
{
	static const char cpu[] =
		"processor\t: 0\nflags\t\t: fpu tsc constant_tsc\nbogomips\t: 5192.27\n";
	is_int(qemu_tsc_khz(cpu), 2596135, "TSC from BogoMIPS");
	is_int(qemu_tsc_khz("flags\t\t: tsc\nbogomips\t: 5192.27\n"), 0, "not where it is not constant");
	is_int(qemu_tsc_khz("flags : constant_tsc\nBogoMIPS\t: 100.00\n"), 0,
	       "not from another architecture");
	is_int(qemu_tsc_khz(""), 0, "nothing from nothing");
	struct qemu_binary b = {.path = "/q"};
	struct err e = ERR_INIT;
	is_int(qemu_binary_parse("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright", &b, &e),
	       0, "version");
	ok(b.number == 702 && strcmp(b.version, "7.2.22") == 0, "7.2.22");
	is_int(qemu_binary_parse("QEMU emulator version 10.0.3\n", &b, &e), 0, "version of two digits");
	is_int(b.number, 1000, "10.0");
	ok(qemu_binary_parse("QEMU emulator version 4.2.1\n", &b, &e) < 0, "too old: %s", e.text);
	ok(qemu_binary_parse("bash: no\n", &b, &e) < 0, "no version: %s", e.text);
	char out[60];
	qemu_last_words(
		"qemu-system-x86_64: warning: slow\nqemu-system-x86_64: could not open disk\nBye\n",
		out, sizeof(out));
	is_str(out, "could not open disk", "the decisive line");
	qemu_last_words("Segmentation\tfault\n\n", out, sizeof(out));
	is_str(out, "Segmentation?fault", "the last line there is");
	qemu_last_words("qemu: warning: only this", out, sizeof(out));
	is_str(out, "qemu: warning: only this", "a warning is better than nothing");
	qemu_last_words("", out, sizeof(out));
	is_str(out, "", "nothing");
	qemu_last_words(
		"qemu: 0123456789012345678901234567890123456789012345678901234567890123456789\n",
		out, sizeof(out));
	is_int(strlen(out), 59, "cut to fit");
}

/* ---- KVM probe ---- */

struct kvm_answer {
	int n;
	bool works;
	char text[200];
};

static void on_kvm(void *arg, bool works, const char *text)
{
	struct kvm_answer *a = arg;
	a->n++;
	a->works = works;
	snprintf(a->text, sizeof(a->text), "%s", text);
}

static void probe_device(const char *device, const char *want)
{
	struct loop *l = loop_create();
	struct kvm_answer a = {0};
	struct err e = ERR_INIT;
	is_int(qemu_kvm_probe(l, device, on_kvm, &a, &e), 0, "probe of %s begins %s", device, e.text);
	is_int(a.n, 0, "no answer from inside the call");
	loop_run(l); /* ends once the child is reaped, too */
	is_int(a.n, 1, "one answer");
	ok(!a.works && strstr(a.text, want), "%s", a.text);
	loop_destroy(l);
}

static void test_kvm(void)
{
	probe_device("/nonexistent/kvm", "no /nonexistent/kvm");
	probe_device("/dev/null", "is not KVM");
	probe_device("/proc/self/mem/kvm", "Not a directory");
}

/* An agent asks when it starts, and again when it is told what to run. */
static void test_kvm_shared(void)
{
	static const char device[] = "/dev/zero";
	struct loop *l = loop_create();
	struct kvm_answer first = {0}, second = {0}, later = {0};
	struct err e = ERR_INIT;
	is_int(qemu_kvm_probe(l, device, on_kvm, &first, &e), 0, "a first asks");
	is_int(qemu_kvm_probe(l, device, on_kvm, &second, &e), 0, "a second, before the answer");
	loop_run(l);
	ok(first.n == 1 && second.n == 1, "each gets one answer");
	is_str(second.text, first.text, "the same");
	is_int(qemu_kvm_probe(l, device, on_kvm, &later, &e), 0, "a third, soon after");
	is_int(later.n, 1, "has its answer at once");
	is_str(later.text, first.text, "the same");
	loop_destroy(l);
}

struct binary_answer {
	int n;
	unsigned number;
};

static void on_binary(void *arg, const struct qemu_binary *b, const struct err *err _unused_)
{
	struct binary_answer *a = arg;
	a->n++;
	a->number = b ? b->number : 0;
}

static void test_binary_shared(void)
{
	char dir[] = "/tmp/vse-qemu-XXXXXX";
	ok(mkdtemp(dir) != NULL, "a folder");
	_cleanup_free_ char *program = path_join(dir, "qemu"), *count = path_join(dir, "count"),
			    *text = xasprintf("#!/bin/sh\necho asked >>%s\n"
					      "echo QEMU emulator version 8.1.2\n",
					      count),
			    *asked = NULL;
	struct binary_answer a[3] = {0};
	struct err e = ERR_INIT;
	struct loop *l = loop_create();
	is_int(path_write(program, text, strlen(text), 0755, &e), 0, "a program %s", e.text);
	setenv("VSE_QEMU", program, 1);
	is_int(qemu_binary_find(l, on_binary, &a[0], &e), 0, "it is asked %s", e.text);
	is_int(qemu_binary_find(l, on_binary, &a[1], &e), 0, "and again before it answers");
	is_int(a[0].n + a[1].n, 0, "no answer from inside the calls");
	loop_run(l);
	ok(a[0].n == 1 && a[1].n == 1 && a[0].number == 801 && a[1].number == 801, "both hear 8.1");
	is_int(qemu_binary_find(l, on_binary, &a[2], &e), 0, "a third asks later");
	loop_run(l);
	ok(a[2].n == 1 && a[2].number == 801, "and hears it, too");
	ok(path_read(count, 100, &asked, NULL, &e) == 0 && strcmp(asked, "asked\n") == 0,
	   "the program was run once");
	unsetenv("VSE_QEMU");
	loop_destroy(l);
	path_remove(dir, NULL);
}

/* ---- the fake's script ---- */

static void test_script(void)
{
	struct fake_script s = {0};
	_cleanup_strvec_ struct strvec v = STRVEC_INIT;
	struct err e = ERR_INIT;
	strvec_addv(&v, "boot=50ms", "crash-after=2s", "never-ready", "console=a=b",
		    "console-bytes=1K", NULL);
	is_int(fake_script_parse(&s, &v, &e), 0, "script %s", e.text);
	ok(s.boot_ms == 50 && s.crash_ms == 2000 && s.never_ready && s.console_bytes == 1024,
	   "its numbers and flags");
	is_str(s.console, "a=b", "its text");
	fake_script_finish(&s);
	static const char *const bad[] = {"boot",  "boot=", "boot=soon", "never-ready=1",
					  "crash", "=1",    ""};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_strvec_ struct strvec w = STRVEC_INIT;
		strvec_add(&w, bad[i]);
		ok(fake_script_parse(&s, &w, &e) < 0 && e.code == EINVAL, "refused: '%s' (%s)",
		   bad[i], e.text);
		fake_script_finish(&s);
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_lines();
	test_leftovers();
	test_commands();
	test_bounds();
	test_closing();
	test_args();
	test_args_of_taps();
	test_args_of_templates();
	test_args_of_devices();
	test_args_refused();
	test_texts();
	test_kvm();
	test_kvm_shared();
	test_binary_shared();
	test_script();
	return done();
}
