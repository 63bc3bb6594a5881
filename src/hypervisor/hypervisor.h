/* SPDX-License-Identifier: Apache-2.0 */
/* One abstraction over hypervisors.
 *
 * A back end is one file that ends in `const struct hypervisor hypervisor_NAME = {...}` plus its word in
 * the list of src/hypervisor/meson.build. hypervisor.c is the only caller of the ops.
 *
 * Contract, for every op:
 *   - it never blocks: it starts the work and returns 0, or refuses with -1 and *err (nothing changed);
 *   - the outcome arrives later as an event, from the loop, never from inside the op;
 *   - what a back end cannot do is data: `lacks` has the reason, one line without a full stop that makes sense after
 *     "save: not supported: ". What only this node cannot do (its version, its kernel, how the VMM was compiled) is said
 *     by the probe in the same form. hypervisor.c answers both with ENOTSUP before the op is called. An op that finds
 *     out only when it is called returns ENOTSUP and its reason by itself;
 *   - one at a time of save, snapshot and migrate out: another one, and a reset, is EBUSY meanwhile (hypervisor.c);
 *   - a VM's state comes from the hypervisor, never from our belief: HV_EVENT_STATE follows what QMP, xl
 *     or the ioctl says, also when nobody asked (the guest powered off, somebody killed the VMM);
 *   - exactly one HV_EVENT_GONE ends every VM that was started, after which only release is called;
 *   - a guest that resets itself ends its VM (HV_CRASHED): a kernel that panics at boot must not boot for ever.
 *     Who heard its "bye how=reboot" knows that it was a reboot, and may start the VM anew;
 *   - after a reset that was asked for, HV_EVENT_CHANNEL comes again with a new descriptor: the one before is
 *     of no use (what was half sent on it is cut off) and is closed by its owner.
 *
 * Adoption. A VM that was started with spec.keep outlives the process that started it, however that ends, and another
 * process adopts it. What that needs is in the VM's own folder (spec.dir): sockets that can be connected to again,
 * names, small files; nothing of it is secret. The folder also names the VMM for whoever sweeps (base/rundir.h).
 *   - adopt takes the spec that the VM was started with; what has no use any more (the scratch disk's path) may be
 *     NULL. It never waits for the VMM. ENOENT: nothing in the folder can be adopted; then nothing was begun;
 *   - what follows is what follows a start: HV_EVENT_STATE with the state that the hypervisor reports (running or
 *     paused, reason "adopted"), then CHANNEL, CONSOLE and NET with new descriptors. Or GONE alone: it has ended
 *     meanwhile (its reason as far as that can still be known), or cannot be reached; then it was killed;
 *   - streams that were cut begin in the middle: the guest agent is asked for a new hello by who gets the channel
 *     (wire/guestproto.h), Ethernet begins anew with a whole frame;
 *   - who adopts is as good an owner as who started: every op works, and release kills. */
#ifndef VSE_HYPERVISOR_HYPERVISOR_H
#define VSE_HYPERVISOR_HYPERVISOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/strvec.h"
#include "io/loop.h"

struct hv_vm; /* a back end's own state of one VM; opaque above */

/* Where a VM's state comes from. All but HV_FROM_BOOT need the same machine as the VM had whose state it is: same cpus,
 * memory, machine, nic, outbound, scratch size and the same bytes of kernel, initrd and root. */
enum hv_from {
	HV_FROM_BOOT, /* kernel and initrd */
	HV_FROM_SAVE, /* restore: of save(). Comes up HV_PAUSED, at the very instruction where the save took it */
	HV_FROM_MIGRATION, /* migrate in: the other end of migrate_out(). Comes up HV_PAUSED when the last byte was taken
			    * over, HV_STARTING until then. Who resumes it has made sure that the source never runs again */
	HV_FROM_TEMPLATE, /* clone: of snapshot(). Comes up HV_RUNNING, its memory copied on write. Two clones have the
			    * same randomness, clock, MAC and names until the guest agent was told its own */
};

#define HV_MOUNTS_MAX 8

/* A directory of the node that the VM sees. The back end gives it a tag, "vse0" for the first, by which the guest agent
 * mounts it where it belongs (wire/guestproto.h, "mount"); a container has it there already. Everything in it is done as the
 * user that this process is, with no right that he has not, and never outside of the directory: links in it lead where
 * they lead inside the VM. No file in it gets a set-id bit or becomes a device node. */
struct hv_mount {
	const char *host, *guest; /* absolute */
	bool rw;
};

/* What to run. All strings borrowed for the call only. */
struct hv_spec {
	const char *name; /* "vm3": for process titles and logs */
	uint32_t rank;
	unsigned cpus;       /* >= 1 */
	uint64_t memory;     /* bytes */
	const char *kernel;  /* bzImage */
	const char *vmlinux; /* uncompressed PVH ELF or NULL */
	const char *initrd;
	const char *cmdline; /* what /init needs ("vse.root=..."); the back end puts its own words before it */
	const char *root; /* read-only root file system image */
	const char *scratch; /* raw writable disk, or NULL; already made, and already restored where the state is */
	const char *dir; /* this VM's own private folder (0700, short): sockets and the like go here */
	const char *machine; /* "auto", or the back end's own name of a machine type ("microvm", "q35") */
	const char *accel; /* "auto", "kvm", "tcg" */
	bool trusted;      /* single tenant: may relax guest-side mitigations under emulation */
	uint8_t mac[6];    /* of eth0 on the virtual network */
	bool nic;          /* eth0 wanted */
	bool tap; /* with nic: eth0 is that tap device (IFF_VNET_HDR), and HV_EVENT_NET does not come */
	int tap_fd;    /* borrowed for the call; of no use to adopt, the VMM has it already */
	bool outbound; /* a second NIC with NAT wanted */
	const struct strvec *extra_args; /* more VMM arguments by the administrator, or NULL */
	/* It lives on when this process ends without hv_release(), so that it can be adopted (HV_CAP_ADOPT). A VMM that
	 * is a process becomes a child of our parent, which must be a subreaper (io/child.h), and dies with that one. */
	bool keep;

	enum hv_from from;
	/* Not HV_FROM_BOOT: where the state is read from, from here to its end, in order and never sought: pipe, file, or
	 * (migration) a socket that goes both ways. Borrowed for the call: a back end keeps a dup(). */
	int from_fd;
	/* Not HV_FROM_BOOT: the signature that came with HV_EVENT_DONE; the back end refuses with EINVAL and the
	 * difference what it cannot take over (another version of the VMM, another machine). NULL: not checked. */
	const char *signature;
	/* Its memory is kept in memory_fd (a memfd or a file of that size, shared), so that snapshot() can make a
	 * template of it. HV_FROM_TEMPLATE: memory_fd is that of the template, mapped privately and never changed, also
	 * when it is sealed against writing. Borrowed for the call. */
	bool template;
	int memory_fd;

	/* The node's CPU for each of the `cpus` vCPUs, in order; NULL: not pinned. A VMM that is a process stays with all
	 * its threads on these. On adoption too, where they are now is put right. EINVAL: one that we may not use. */
	const unsigned *pins;
	/* Bit i: memory comes from NUMA node i of the node, and from none without a bit, also what is copied on write; 0:
	 * from anywhere. What a template and its clones share lies where the template put it. EINVAL: none of ours. */
	uint64_t numa_nodes;
	/* Memory in pages of 2 MiB that were reserved, all of them taken at the start. ENOMEM: there are too few, EINVAL:
	 * memory is no whole number of them. Not with HV_FROM_TEMPLATE or spec.template: ENOTSUP. */
	bool hugepages;
	/* HV_CAP_HOST_DIR. Not to be saved, moved or restored with them (hypervisor.c: ENOTSUP): what is open in there is of
	 * this node. Snapshots and clones have the same number of them; a template has none mounted. */
	const struct hv_mount *mounts;
	size_t n_mounts; /* at most HV_MOUNTS_MAX */
	/* HV_FROM_MIGRATION from a post_copy(): it is HV_PAUSED as soon as it could be resumed, and the rest of its memory comes
	 * while it runs: DONE (.op "post-copy") when all is there; it is neither saved nor moved before. Where that breaks off it is GONE
	 * as HV_CRASHED, but a VMM that waits for such memory itself may be unable to say so. */
	bool post_copy;
	/* HV_CAP_DEVICES: PCI devices of the node that the VM has for itself, by name (base/pci.h), or NULL. Nothing can be saved,
	 * moved or cloned with them. The back end finds one of each kind that is free, or refuses: see hypervisor/vfio.h. */
	const struct strvec *devices;
};

enum hv_state { HV_STARTING, HV_RUNNING, HV_PAUSED, HV_CRASHED, HV_SHUTDOWN };

enum hv_event_type {
	HV_EVENT_STATE,   /* .state, .reason */
	HV_EVENT_CHANNEL, /* .fd (taken by the receiver): byte stream to the guest agent */
	HV_EVENT_CONSOLE, /* .fd (taken): the console, both ways */
	HV_EVENT_NET, /* .fd (taken): Ethernet frames of eth0, each with a 4-byte big-endian length */
	HV_EVENT_STREAM, /* .op, .fd (taken): the state that a save, snapshot or migrate out writes, to be read to its end.
			  * Of migrate out it goes both ways: to be joined, byte for byte, with the target's from_fd */
	HV_EVENT_SWITCH, /* .op "post-copy": the VM is HV_PAUSED and waits for switch_over() */
	HV_EVENT_PROGRESS, /* .op, .bytes so far, .total (0 = unknown); may be left out, at most 10 a second */
	HV_EVENT_DONE, /* .op has done what it was asked for: .signature, .bytes. The stream is whole, and
			* its end follows (or came before); .reason when it was done in another way than asked */
	HV_EVENT_FAILED, /* an op that had begun did not succeed: .op, .err; the VM goes on as it was */
	HV_EVENT_GONE, /* the VM ended and its resources are free: .state HV_SHUTDOWN (clean, or stopped by us) or HV_CRASHED, .reason */
};

#define HV_SIGNATURE_MAX 256 /* bytes with the terminator; printable ASCII, one line */

struct hv_event {
	enum hv_event_type type;
	enum hv_state state;
	int fd;
	const char *op;     /* hv_cap_name() of what it is about: "save" */
	const char *reason; /* one line, borrowed: "guest powered off", "qemu killed by SIGKILL" */
	const struct err *err;
	const char *signature; /* of save, snapshot (with DONE), migrate out (with STREAM): what a start from it needs; borrowed */
	uint64_t bytes, total;
};

typedef void hv_event_fn(void *arg, const struct hv_event *e);

enum hv_stop { HV_STOP_GRACEFUL, HV_STOP_HARD }; /* ask the guest by ACPI or its like; end it now */

struct hv_stats {
	uint64_t rss;    /* bytes resident on the node, 0 = unknown */
	uint64_t cpu_ms; /* CPU time used on the node, 0 = unknown */
	pid_t pid;       /* of the VMM, 0 = none */
};

/* What a back end may be able to do: the rows of the matrix that `vse doctor` prints, hv_cap_name() gives their names.
 * Those that are an op are said so. */
enum hv_cap {
	HV_CAP_START, /* op: boots a VM of a VSE image */
	HV_CAP_KERNEL, /* the VM has a kernel of its own, of its image: it can panic, and stands between it and the node */
	HV_CAP_ADOPT, /* takes over a VM that runs already, after the agent was started anew */
	HV_CAP_STOP_GRACEFUL, /* op stop: asks the guest (ACPI or its like) */
	HV_CAP_STOP_HARD,     /* op stop */
	HV_CAP_PAUSE,         /* op, and resume */
	HV_CAP_RESET,         /* op */
	HV_CAP_SAVE,          /* op: to a stream, on this node */
	HV_CAP_RESTORE,       /* start from a save */
	HV_CAP_MIGRATE_OUT,   /* op: while the guest runs */
	HV_CAP_MIGRATE_IN,    /* start from a migration */
	HV_CAP_POST_COPY, /* op, and switch over: migrate out that ends also where the guest writes faster than the link carries */
	HV_CAP_SNAPSHOT,  /* op: makes a template of a running VM */
	HV_CAP_CLONE,     /* start from a template */
	HV_CAP_CONSOLE,   /* HV_EVENT_CONSOLE comes */
	HV_CAP_NET,       /* spec.nic: HV_EVENT_NET comes */
	HV_CAP_TAP,       /* spec.tap */
	HV_CAP_OUTBOUND,  /* spec.outbound */
	HV_CAP_SCRATCH,   /* spec.scratch */
	HV_CAP_STATS,     /* op */
	HV_CAP_PIN,       /* spec.pins, and op */
	HV_CAP_NUMA,      /* spec.numa_nodes */
	HV_CAP_HUGEPAGES, /* spec.hugepages */
	HV_CAP_HOST_DIR,  /* spec.mounts */
	HV_CAP_DEVICES,   /* spec.devices */
	HV_CAPS
};

#define HV_LACK_MAX 100 /* bytes with the terminator */

/* What a node can do with this back end; filled by probe. */
struct hv_probe {
	bool usable;
	char why[256];    /* not usable: one line that says why */
	char accel[16];   /* "kvm", "tcg", "xen", "fake", ... */
	char version[64]; /* of the VMM */
	char node_type[64]; /* what of the node a running guest's state depends on: the same where it can go on; "" = nothing */
	char note[256]; /* said once to the user: "/dev/kvm opens but runs no guest: using TCG"; may be "" */
	/* What the VMM has for VMs, where a process of the node cannot see it (dom0 is a guest itself); 0: what that sees. */
	uint64_t memory; /* bytes */
	unsigned cpus;
	char lacks[HV_CAPS][HV_LACK_MAX]; /* what this node cannot do though the back end can, and why; "" = it can */
};

struct hypervisor {
	const char *name, *summary;
	/* Its own words, with blanks; NULL: "auto" alone. Where it is one of several it is not asked for the others' words. */
	const char *accels, *machines;
	bool own_node; /* its probes tell memory and cpus */
	bool hangs_up; /* a guest's channel, when it is restored or moved: its agent says hello by itself */
	/* Why the back end cannot do it on any node; NULL: it can (unless the probe says otherwise). Data, so that a
	 * table can be printed. Every op that is NULL needs its reason here. */
	const char *lacks[HV_CAPS];

	/* Finds out what this node offers. done() is called once, from the loop: as a rule within 0.1 s, at
	 * worst (a program that does not answer) after 10 s. */
	int (*probe)(struct loop *l, const char *accel,
		     void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err);
	/* Begins what a probe will ask, so that one soon after has less to wait for; NULL where that is nothing. */
	void (*warm)(struct loop *l);

	/* Begins a VM from spec.from. Then STATE (HV_RUNNING or HV_PAUSED) once it exists, CHANNEL, CONSOLE and NET with
	 * their descriptors. A VM that does not come up (a damaged stream) is GONE as HV_CRASHED with the reason, and
	 * has run no instruction of the guest where it was to be restored. After HV_FROM_SAVE and HV_FROM_MIGRATION the
	 * channel is attached to a guest agent that runs already: the first bytes may be the rest of a frame, and a "hello"
	 * (with the boot id it had) is asked for as wire/guestproto.h says. Requests of before are lost. */
	int (*start)(struct loop *l, const struct hv_spec *spec, const struct hv_probe *p,
		     hv_event_fn *fn, void *arg, struct hv_vm **ret, struct err *err);
	/* A VM that a process before this one has started with spec.keep: see Adoption. No probe is needed before. */
	int (*adopt)(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg,
		     struct hv_vm **ret, struct err *err);
	int (*stop)(struct hv_vm *vm, enum hv_stop how, struct err *err);
	int (*pause)(struct hv_vm *vm, struct err *err);
	int (*resume)(struct hv_vm *vm, struct err *err);
	int (*reset)(struct hv_vm *vm, struct err *err);

	/* Writes memory, vCPUs and devices of a VM that is HV_RUNNING or HV_PAUSED; not its scratch disk. Then STREAM; at
	 * the end the VM is HV_PAUSED (told by STATE if it was not) and DONE comes with the signature. From DONE until
	 * resume or stop the scratch disk does not change and belongs to the saved state: who saves copies it then.
	 * A receiver that closes the stream early makes it FAILED, as does cancel: the VM is then as it was before, running
	 * or paused. A back end that can only save to files or folders of the hypervisor's own (Palacios) spools them
	 * within spec.dir and writes them to the stream; it must not be told apart from outside. */
	int (*save)(struct hv_vm *vm, struct err *err);

	/* Moves a VM that is HV_RUNNING or HV_PAUSED to where the stream leads. STREAM, then PROGRESS while the guest runs
	 * on, then DONE: the VM is HV_PAUSED here, and is resumed only if the target has not got it and never will (then it
	 * goes on as if nothing had been); else it is stopped, and after that the target resumed: exactly one runs. FAILED
	 * (also: stream cut, cancelled): it goes on here as it was, and the target's GONE is HV_CRASHED. The scratch disk
	 * does not travel: it is shared, or copied by the caller between DONE and the target's resume. A back end that
	 * cannot do it live here (Xen PV without log-dirty mode) saves into the same stream, and DONE has it as .reason. */
	int (*migrate_out)(struct hv_vm *vm, struct err *err);

	/* As migrate_out(), of a VM that is HV_RUNNING, to a target with spec.post_copy; the stream must go both ways. STREAM; when its
	 * memory was sent once, and is not all there yet, or when it is: STATE (HV_PAUSED) and SWITCH. The scratch disk does
	 * not change from then on. It can be called off until switch_over(): FAILED, and it goes on here. After
	 * switch_over() the target becomes HV_PAUSED and may be resumed; this VM never goes on again unless FAILED comes, and
	 * has to be kept until DONE: all is there. Where the stream breaks off before it is GONE as HV_CRASHED, and so is the
	 * target: it is lost. */
	int (*post_copy)(struct hv_vm *vm, struct err *err);
	int (*switch_over)(struct hv_vm *vm, struct err *err);

	/* Makes a template of a VM that was started with spec.template and is HV_RUNNING: STREAM gives the state without the
	 * memory, which is in memory_fd. After DONE the VM is HV_PAUSED for good: only stop and release are called, and only
	 * after them is memory_fd whole and may be sealed. */
	int (*snapshot)(struct hv_vm *vm, struct err *err);

	/* Ends a save, snapshot, migrate out or post-copy (before its switch) under way: FAILED with ECANCELED follows, or DONE if
	 * it was done by then. */
	int (*cancel)(struct hv_vm *vm, struct err *err);

	/* Puts a vCPU (0..cpus-1) onto a CPU of the node, from now on; -1: onto any. At once, and no event; but
	 * a back end that has to ask another program does it soon after, and tells FAILED "pin" when that did not do it. */
	int (*pin)(struct hv_vm *vm, unsigned vcpu, int cpu, struct err *err);
	int (*stats)(struct hv_vm *vm, struct hv_stats *ret, struct err *err); /* at once, no event */
	/* Frees the state; a VM that still runs is killed first. No event after. */
	void (*release)(struct hv_vm *vm);
};

/* Calls go through these; each checks for the op and answers ENOTSUP with the back end's reason. */
const struct hypervisor *hypervisor_find(const char *name); /* NULL: no such back end */
const struct hypervisor *hypervisor_at(size_t i);           /* NULL past the last: to list them */
/* `word` if it is one of `words` (an accelerator of h->accels, say), else "auto". Borrowed. */
const char *hypervisor_word(const char *words, const char *word);

int hypervisor_probe(const struct hypervisor *h, struct loop *l, const char *accel,
		     void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err);
/* Begins the slow questions of all back ends' probes ahead of them. Nothing is answered. */
void hypervisor_warm(struct loop *l);

/* Why this cannot be done with this back end (p NULL), or on the node that p is about; NULL: it can. Borrowed. */
const char *hypervisor_lacks(const struct hypervisor *h, const struct hv_probe *p, enum hv_cap cap);
const char *hv_cap_name(enum hv_cap cap); /* "migrate out" */
const char *hv_cap_help(enum hv_cap cap); /* half a line, for tables */

/* That each of them is a directory of this node which may be seen from a VM (hostdir.c): what the site forbids belongs there,
 * and nowhere else. hv_start() asks it again. */
int hypervisor_check_mounts(const struct hv_mount *mounts, size_t n, struct err *err);

struct hv; /* one VM under one back end */
/* p: borrowed, outlives the VM. ENOTSUP also for what spec wants and the back end or node lacks (from, pins, ...). */
int hv_start(const struct hypervisor *h, struct loop *l, const struct hv_spec *spec,
	     const struct hv_probe *p, hv_event_fn *fn, void *arg, struct hv **ret, struct err *err);
int hv_adopt(const struct hypervisor *h, struct loop *l, const struct hv_spec *spec,
	     hv_event_fn *fn, void *arg, struct hv **ret, struct err *err);
int hv_stop(struct hv *v, enum hv_stop how, struct err *err);
int hv_pause(struct hv *v, struct err *err);
int hv_resume(struct hv *v, struct err *err);
int hv_reset(struct hv *v, struct err *err);
int hv_save(struct hv *v, struct err *err);
int hv_migrate_out(struct hv *v, struct err *err);
int hv_post_copy(struct hv *v, struct err *err);
int hv_switch_over(struct hv *v, struct err *err); /* EINVAL: it does not wait for that */
int hv_snapshot(struct hv *v, struct err *err);
/* EINVAL: nothing of the kind is under way; EBUSY: it was switched over. */
int hv_cancel(struct hv *v, struct err *err);
int hv_pin(struct hv *v, unsigned vcpu, int cpu, struct err *err);
int hv_stats(struct hv *v, struct hv_stats *ret, struct err *err);
void hv_release(struct hv *v); /* NULL is fine */
const char *hv_state_name(enum hv_state s);

/* How often a back end has told an event from inside save, migrate out or snapshot, which it may not: for tests. */
unsigned hv_told_inside(void);

#endif
