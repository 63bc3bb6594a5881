/* SPDX-License-Identifier: Apache-2.0 */
/* From a spec to QEMU's command line. Pure: the unit test compares it with golden text. The choices are
 * measured ones; docs/hypervisors.md has the numbers. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "hypervisor/qemu.h"
#include "wire/guestproto.h"

/* A value within QEMU's "key=value,key=value": a comma in it is doubled. */
static char *quoted(const char *s)
{
	char *out = xmalloc(2 * strlen(s) + 1), *o = out;
	for (; *s; s++) {
		*o++ = *s;
		if (*s == ',')
			*o++ = ',';
	}
	*o = '\0';
	return out;
}

/* 5-level paging only makes the kernel's page tables deeper under emulation. CMPXCHG16B, as TCG of QEMU 7.2 does it,
 * leaves garbage in the flags now and then: Linux 6.12, whose allocator lives by it, crashed in 2 of 18 boots, and in
 * none of 24 without it. Later versions keep it: distributions built for x86-64-v2 ask for it.
 * Where the processor says that "rep movsb" is fast (ERMS; since 8.0 TCG has FSRM, and for "rep stosb" FZRM and FSRS), kernel and C
 * library copy by it, which TCG does byte by byte: without ERMS Linux 6.1 cleared memory 6 times as fast, and wrote to a tmpfs 3
 * times as fast. */
static const char *emulated_cpu(const struct qemu_binary *b)
{
	return b->number < 800   ? "max,-la57,-erms,-cx16"
	       : b->number < 900 ? "max,-la57,-erms,-fsrm"
				 : "max,-la57,-erms,-fsrm,-fzrm,-fsrs";
}

bool qemu_memory_in_file(const struct hv_spec *spec)
{
	return spec->template || spec->from == HV_FROM_TEMPLATE;
}

const char *qemu_machine(const struct hv_spec *spec, const struct qemu_host *host)
{
	const char *m = spec->machine ? spec->machine : "auto";
	if (strcmp(m, "auto") == 0)
		/* microvm is the fastest to start, but only with a PVH kernel and qboot, and without PCI. */
		return !host->devices && spec->vmlinux && host->binary->microvm &&
				       host->binary->qboot[0]
			       ? "microvm"
			       : "q35";
	if (strcmp(m, "microvm") == 0)
		return "microvm";
	return strcmp(m, "q35") == 0 ? "q35" : NULL;
}

static void add_kernel_words(struct buf *b, const struct hv_spec *spec, const struct qemu_host *host)
{
	bool tcg = strcmp(host->accel, "tcg") == 0;
	/* reboot=t: a triple fault. The kernel's own choice asks a keyboard controller that microvm has not, in some
	 * 600,000 port reads: nothing under TCG, seconds under KVM, minutes under nested KVM. */
	buf_adds(b, "console=ttyS0 quiet panic=-1 reboot=t");
	/* microvm has neither HPET nor PM timer: when the vCPU loses its CPU during the PIT calibration the
	 * guest finds no TSC and hangs. Known, it calibrates nothing. Under TCG the guest sees the host's TSC. */
	if (host->tsc_khz)
		buf_addf(b, " tsc_early_khz=%" PRIu64, host->tsc_khz);
	/* The self tests of the kernel's ciphers are 0.3 s of the boot under TCG; no such devices are there. */
	buf_adds(b, " cryptomgr.notests i8042.noaux i8042.nokbd");
	if (tcg)
		/* Without tsc=reliable the watchdog drops the TSC on a loaded node, and an idle guest then costs
		 * ten times the CPU. Under KVM the guest has kvm-clock and needs none of this. */
		buf_adds(b, " tsc=reliable no_timer_check audit=0 apparmor=0");
	if (tcg && spec->trusted)
		buf_adds(b, " mitigations=off init_on_alloc=0");
	if (spec->cmdline && spec->cmdline[0])
		buf_addf(b, " %s", spec->cmdline);
}

/* The memory of a template, or of what starts from it, is a file; in reserved pages (qemu_memory.c) too. Named as QEMU names the memory it makes by itself
 * (default_ram_id in hw/i386): so a clone can be saved, and restored into a machine without such a file. */
static void add_memory(struct strvec *v, const struct hv_spec *spec, const char *ram, uint64_t mib)
{
	strvec_add(v, "-object");
	if (spec->hugepages) {
		strvec_addf(v,
			    "memory-backend-memfd,id=%s,size=%" PRIu64
			    "M,hugetlb=on,hugetlbsize=2M,prealloc=on,share=on",
			    ram, mib);
		return;
	}
	strvec_addf(v, "memory-backend-file,id=%s,size=%" PRIu64 "M,mem-path=/proc/self/fd/%d,share=%s",
		    ram, mib, QEMU_FD_MEMORY, spec->template ? "on" : "off");
}

static void add_machine(struct strvec *v, const struct hv_spec *spec, const struct qemu_host *host,
			const char *machine)
{
	bool tcg = strcmp(host->accel, "tcg") == 0, pvh = spec->vmlinux != NULL;
	bool q35 = strcmp(machine, "q35") == 0, own = qemu_memory_in_file(spec) || spec->hugepages;
	const char *ram = q35 ? "pc.ram" : "microvm.ram";
	uint64_t mib = (spec->memory + (1u << 20) - 1) >> 20;
	if (own)
		add_memory(v, spec, ram, mib);
	strvec_addv(v, "-accel", host->accel, "-machine", NULL);
	strvec_addf(v, "%s%s%s", q35 ? "q35,vmport=off,smbus=off,sata=off,usb=off" : machine,
		    own ? ",memory-backend=" : "", own ? ram : "");
	strvec_addv(v, "-cpu", tcg ? emulated_cpu(host->binary) : "host", NULL);
	strvec_add(v, "-smp");
	strvec_addf(v, "%u", spec->cpus);
	strvec_add(v, "-m");
	strvec_addf(v, "%" PRIu64 "M", mib);
	/* qboot boots PVH kernels only. */
	if (pvh && host->binary->qboot[0])
		strvec_addv(v, "-bios", host->binary->qboot, NULL);
	_cleanup_buf_ struct buf words = BUF_INIT;
	add_kernel_words(&words, spec, host);
	strvec_addv(v, "-kernel", pvh ? spec->vmlinux : spec->kernel, NULL);
	if (spec->initrd)
		strvec_addv(v, "-initrd", spec->initrd, NULL);
	strvec_addv(v, "-append", buf_cstr(&words), NULL);
}

static void add_disk(struct strvec *v, const char *id, const char *path, const char *options,
		     const char *bus)
{
	_cleanup_free_ char *q = quoted(path);
	strvec_add(v, "-blockdev");
	/* locking=off: many VMs share the root, a scratch disk has one user by construction, and the locks of
	 * a parallel file system are slow or not there. */
	strvec_addf(v, "driver=raw,node-name=%s,%s,file.driver=file,file.locking=off,file.filename=%s",
		    id, options, q);
	strvec_add(v, "-device");
	strvec_addf(v, "virtio-blk-%s,drive=%s,serial=%s", bus, id, id);
}

static void add_socket(struct strvec *v, const char *id, int fd)
{
	strvec_add(v, "-chardev");
	/* We listen, QEMU accepts: an agent that comes back can connect anew. */
	strvec_addf(v, "socket,id=%s,fd=%d,server=on,wait=off", id, fd);
}

static void add_channel(struct strvec *v, const char *bus)
{
	add_socket(v, "channel", QEMU_FD_CHANNEL);
	strvec_add(v, "-device");
	strvec_addf(v, "virtio-serial-%s,max_ports=2", bus);
	strvec_add(v, "-device");
	strvec_addf(v, "virtserialport,chardev=channel,name=%s", GUESTPROTO_PORT);
}

static void add_eth0(struct strvec *v, const struct hv_spec *spec, const struct qemu_host *host)
{
	strvec_add(v, "-netdev");
	if (spec->tap && host->vhost)
		strvec_addf(v, "tap,id=net0,fd=%d,vhost=on,vhostfd=%d", QEMU_FD_NET, QEMU_FD_VHOST);
	else if (spec->tap)
		strvec_addf(v, "tap,id=net0,fd=%d", QEMU_FD_NET);
	else if (host->binary->number >= QEMU_SINCE_STREAM)
		strvec_addf(v, "stream,id=net0,server=on,addr.type=fd,addr.str=%d", QEMU_FD_NET);
	else
		strvec_addf(v, "socket,id=net0,fd=%d", QEMU_FD_NET);
}

static void add_nics(struct strvec *v, const struct hv_spec *spec, const struct qemu_host *host,
		     const char *bus)
{
	bool pci = strcmp(bus, "pci") == 0;
	const uint8_t *m = spec->mac;
	if (spec->nic) {
		add_eth0(v, spec, host);
		strvec_add(v, "-device");
		strvec_addf(v, "virtio-net-%s,netdev=net0,mac=%02x:%02x:%02x:%02x:%02x:%02x%s", bus,
			    m[0], m[1], m[2], m[3], m[4], m[5], pci ? ",romfile=" : "");
	}
	if (spec->outbound) {
		/* A network of its own for each VM, so the address may be the same in all; the guest tells the two
		 * NICs apart by eth0's MAC, which it is told. */
		strvec_addv(v, "-netdev", "user,id=net1,ipv6=off", "-device", NULL);
		strvec_addf(v, "virtio-net-%s,netdev=net1,mac=52:54:00:12:34:56%s", bus,
			    pci ? ",romfile=" : "");
	}
}

/* security_model=none: owner and mode of a file are those it has on the node, so that a user finds inside what he has outside;
 * all is done with QEMU's rights, and what those do not allow (chown) is left out. The other models keep owners, modes,
 * links and devices in extended attributes or files beside: not what programs on the node could use, and not
 * there on every file system. That nothing gets a set-id bit is the filter's (io/child.h). */
static void add_mounts(struct strvec *v, const struct hv_spec *spec, const char *bus)
{
	for (size_t i = 0; i < spec->n_mounts; i++) {
		_cleanup_free_ char *q = quoted(spec->mounts[i].host);
		strvec_add(v, "-fsdev");
		strvec_addf(v, "local,id=host%zu,path=%s,security_model=none,multidevs=remap%s", i,
			    q, spec->mounts[i].rw ? "" : ",readonly=on");
		strvec_add(v, "-device");
		strvec_addf(v, "virtio-9p-%s,fsdev=host%zu,mount_tag=vse%zu", bus, i, i);
	}
}

int qemu_args(const struct hv_spec *spec, const struct qemu_host *host, struct strvec *argv,
	      struct err *err)
{
	const char *machine = qemu_machine(spec, host);
	if (!machine)
		return err_set(err, EINVAL,
			       "machine type %s: unknown, allowed are auto, microvm and q35",
			       spec->machine);
	if (spec->accel && strcmp(spec->accel, "auto") != 0 && strcmp(spec->accel, host->accel) != 0)
		return err_set(err, EINVAL, "accelerator %s: this node was probed for %s",
			       spec->accel, host->accel);
	if (!spec->vmlinux && !spec->kernel)
		return err_set(err, EINVAL, "no kernel given");
	const char *bus = strcmp(machine, "microvm") == 0 ? "device" : "pci";
	if (host->devices && strcmp(bus, "pci") != 0)
		return err_set(err, EINVAL,
			       "machine type %s: has no PCI for devices of the node; q35 has", machine);
	_cleanup_free_ char *name = quoted(spec->name);
	strvec_addv(argv, host->binary->path, "-name", NULL);
	strvec_addf(argv, "guest=%s", name);
	strvec_addv(argv, "-nodefaults", "-no-user-config", "-display", "none", NULL);
	/* A guest that resets itself ends its VMM: the reason is then known, and a kernel that panics at boot
	 * does not boot for ever. A reset that is asked for is let through (qemu.c). */
	strvec_add(argv, "-no-reboot");
	strvec_addv(argv, "-sandbox",
		    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", NULL);
	add_socket(argv, "monitor", QEMU_FD_QMP);
	strvec_addv(argv, "-mon", "chardev=monitor,mode=control", NULL);
	add_machine(argv, spec, host, machine);
	/* Its state comes by QEMU_FD_STATE, when QMP says so; it stands still until it is resumed, but for a clone. */
	if (spec->from != HV_FROM_BOOT)
		strvec_addv(argv, "-incoming", "defer", NULL);
	if (spec->from == HV_FROM_SAVE || spec->from == HV_FROM_MIGRATION)
		strvec_add(argv, "-S");
	/* With it a guest whose kernel panics says so (modules pvpanic, pvpanic-mmio); without, it just resets. */
	strvec_addv(argv, "-device", "pvpanic", NULL);
	add_socket(argv, "console", QEMU_FD_CONSOLE);
	strvec_addv(argv, "-serial", "chardev:console", NULL);
	add_channel(argv, bus);
	if (spec->root)
		add_disk(argv, "root", spec->root, "read-only=on", bus);
	if (spec->scratch) /* it lives as long as its VM: nothing to flush for */
		add_disk(argv, "scratch", spec->scratch, "cache.no-flush=on,discard=unmap", bus);
	add_nics(argv, spec, host, bus);
	add_mounts(argv, spec, bus);
	for (size_t i = 0; host->devices && i < host->devices->n; i++) {
		strvec_add(argv, "-device");
		strvec_addf(argv, "vfio-pci,host=%s", host->devices->v[i]);
	}
	if (spec->extra_args)
		strvec_copy(argv, spec->extra_args);
	return 0;
}

uint64_t qemu_tsc_khz(const char *cpuinfo)
{
	/* x86: BogoMIPS is twice the TSC's MHz where the kernel knows the TSC (loops_per_jiffy is taken from it,
	 * arch/x86/kernel/tsc.c), and worthless where the TSC is not constant. */
	const char *p = strstr(cpuinfo, "\nbogomips");
	double mips;
	if (!p || !strstr(cpuinfo, "constant_tsc") || sscanf(p + 9, " : %lf", &mips) != 1 ||
	    mips < 200 || mips > 40000)
		return 0;
	return (uint64_t)(mips * 500 + 0.5);
}

static bool is_warning(const char *s, size_t n)
{
	return memmem(s, n, "warning:", 8) != NULL;
}

void qemu_last_words(const char *text, char *out, size_t size)
{
	const char *best = NULL;
	size_t best_len = 0;
	bool best_own = false;
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		bool own = strncmp(p, "qemu", 4) == 0 && !is_warning(p, n);
		/* The last line that is QEMU's own and no warning; else the last that says anything. */
		if (n && (own || !best_own)) {
			best = p;
			best_len = n;
			best_own = own;
		}
		p += n + (p[n] == '\n');
	}
	const char *colon = best_own ? memmem(best, best_len, ": ", 2) : NULL;
	if (colon) { /* "qemu-system-x86_64: what": the back end's name comes before it anyway */
		best_len -= (size_t)(colon + 2 - best);
		best = colon + 2;
	}
	snprintf(out, size, "%.*s", (int)best_len, best ? best : "");
	for (char *c = out; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}
