/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the back end `qemu`: what its files share. Nothing else includes this. */
#ifndef VSE_HYPERVISOR_QEMU_H
#define VSE_HYPERVISOR_QEMU_H

#include <jansson.h>
#include <sched.h>

#include "hypervisor/hypervisor.h"

/* ---- qemu_binary.c: the program and what it can do ---- */

struct qemu_binary {
	char path[512];
	char version[32]; /* "7.2.22" */
	unsigned number;  /* major * 100 + minor: 702 */
	char qboot[512];  /* path of qboot.rom, "" = not there */
	bool microvm;     /* has that machine type */
};

#define QEMU_SINCE_SET_ACTION                                                                      \
	600 /* QMP set-action: reset of a machine that ends when it resets itself */
#define QEMU_SINCE_STREAM 702      /* -netdev stream */
#define QEMU_SINCE_UFFD_DEVICE 800 /* it uses /dev/userfaultfd where that is there */
#define QEMU_OLDEST 502            /* microvm with ACPI; nothing older was tried */

/* Finds $VSE_QEMU, else the usual names in PATH, and asks it for its version once per inode and mtime (who comes
 * while it is asked shares the answer).
 * done(): ret is NULL when there is none that can be used, err says why. */
int qemu_binary_find(struct loop *l,
		     void (*done)(void *arg, const struct qemu_binary *ret, const struct err *err),
		     void *arg, struct err *err);
/* The last one found by this process, or NULL. */
const struct qemu_binary *qemu_binary_known(void);
/* The number in "QEMU emulator version 7.2.22 (...)"; fills version and number. */
int qemu_binary_parse(const char *text, struct qemu_binary *b, struct err *err);

/* ---- qemu_kvm.c: does KVM run a guest? ---- */

/* Runs a small loop in a guest, in a process of its own. text is one line: why it does not work, "" when it does.
 * done() comes within 10 ms as a rule, 0.8 s after a guest was entered that hangs, at worst after 5 s (a node where
 * nothing gets a CPU). The answer is good for 10 s within this process: then done() comes before this returns. Who
 * comes while it is looked for shares it. */
int qemu_kvm_probe(struct loop *l, const char *device,
		   void (*done)(void *arg, bool works, const char *text), void *arg, struct err *err);

/* ---- qemu_pin.c: vCPUs on CPUs of the node ---- */

/* EINVAL: we may not use that CPU ourselves. -1, any, is fine. */
int qemu_pin_check(int cpu, struct err *err);
int qemu_pins_check(const struct hv_spec *spec, struct err *err);
/* Where a VMM with these vCPUs may run: false where it is not pinned. */
bool qemu_pin_set(const struct hv_spec *spec, cpu_set_t *ret);
/* The threads of vCPUs 0..n-1 from the answer of query-cpus-fast. */
int qemu_pin_threads(const json_t *list, unsigned n, pid_t *tids, struct err *err);
/* Puts the thread of that vCPU where on[] says; on[i] -1: any of ours. */
int qemu_pin_apply(const pid_t *tids, const int *on, unsigned n, unsigned vcpu, struct err *err);

/* ---- qemu_memory.c: where memory comes from ---- */

/* That the NUMA nodes are ours, and that there are pages enough. */
int qemu_memory_check(const struct hv_spec *spec, struct err *err);
/* What the kernel of this node does not have. */
void qemu_memory_lacks(struct hv_probe *p);

/* ---- qemu_vfio.c: devices of the node ---- */

/* Addresses for spec.devices, which belong to this VM until they are given back. */
int qemu_devices_take(const struct hv_spec *spec, struct strvec *ret, struct err *err);
void qemu_devices_give(struct strvec *devices);
void qemu_devices_lacks(struct hv_probe *p);

/* ---- qemu_probe.c ---- */

int qemu_probe(struct loop *l, const char *accel, void (*done)(void *arg, const struct hv_probe *p),
	       void *arg, struct err *err);
void qemu_warm(struct loop *l);

/* ---- qemu_args.c: pure ---- */

/* Descriptors of the VMM, as child_start places them. */
enum {
	QEMU_FD_QMP = 3,
	QEMU_FD_CHANNEL,
	QEMU_FD_CONSOLE,
	QEMU_FD_NET,
	QEMU_FD_STATE,
	QEMU_FD_MEMORY,
	QEMU_FD_VHOST,
	QEMU_FDS
};

struct qemu_host {
	const struct qemu_binary *binary;
	const char *accel;            /* "kvm" or "tcg": what the probe chose */
	uint64_t tsc_khz;             /* of this node's TSC, 0 = unknown */
	const struct strvec *devices; /* addresses on the PCI bus for spec.devices; NULL: none */
	bool vhost; /* QEMU_FD_VHOST is /dev/vhost-net: the kernel moves a tap's frames past QEMU */
};

/* The machine type for a spec: its own name, or by what is there. NULL: unknown name. */
const char *qemu_machine(const struct hv_spec *spec, const struct qemu_host *host);
/* It needs QEMU_FD_MEMORY. */
bool qemu_memory_in_file(const struct hv_spec *spec);
/* The whole command line. EINVAL: a spec that cannot be run (unknown machine, accelerator). */
int qemu_args(const struct hv_spec *spec, const struct qemu_host *host, struct strvec *argv,
	      struct err *err);
/* The TSC frequency of this node from the text of /proc/cpuinfo; 0 where it does not say. */
uint64_t qemu_tsc_khz(const char *cpuinfo);
/* What a failed VMM said, in one line: `text` is the end of its stderr. "" when it said nothing. */
void qemu_last_words(const char *text, char *out, size_t size);

#endif
