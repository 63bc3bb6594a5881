/* SPDX-License-Identifier: Apache-2.0 */
/* One abstraction over hypervisors.
 *
 * A back end is one file that ends in `const struct hypervisor hypervisor_NAME = {...}` plus its word in
 * the list of src/hypervisor/meson.build. hypervisor.c is the only caller of the ops.
 *
 * Contract, for every op:
 *   - it never blocks: it starts the work and returns 0, or refuses with -1 and *err (nothing changed);
 *   - the outcome arrives later as an event, from the loop, never from inside the op;
 *   - a NULL op is a capability the back end lacks: hypervisor.c answers ENOTSUP with `lacks` as the reason;
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
	const char *root;    /* read-only root file system image */
	const char *scratch; /* raw writable disk, or NULL; already made */
	const char *dir; /* this VM's own private folder (0700, short): sockets and the like go here */
	const char *machine; /* "auto", or the back end's own name of a machine type ("microvm", "q35") */
	const char *accel; /* "auto", "kvm", "tcg" */
	bool trusted;      /* single tenant: may relax guest-side mitigations under emulation */
	uint8_t mac[6];    /* of eth0 on the virtual network */
	bool nic;          /* eth0 wanted */
	bool outbound;     /* a second NIC with NAT wanted */
	const struct strvec *extra_args; /* more VMM arguments by the administrator, or NULL */
	/* It lives on when this process ends without hv_release(), so that it can be adopted (HV_CAP_ADOPT). The VMM
	 * then is a child of the nearest process above that is a subreaper (prctl(2)), and dies with that one. */
	bool keep;
};

enum hv_state { HV_STARTING, HV_RUNNING, HV_PAUSED, HV_CRASHED, HV_SHUTDOWN };

enum hv_event_type {
	HV_EVENT_STATE,   /* .state, .reason */
	HV_EVENT_CHANNEL, /* .fd (taken by the receiver): byte stream to the guest agent */
	HV_EVENT_CONSOLE, /* .fd (taken): the console, both ways */
	HV_EVENT_NET, /* .fd (taken): Ethernet frames of eth0, each with a 4-byte big-endian length */
	HV_EVENT_FAILED, /* an op that had begun did not succeed: .op, .err; the VM goes on as it was */
	HV_EVENT_GONE, /* the VM ended and its resources are free: .state HV_SHUTDOWN (clean, or stopped by us) or HV_CRASHED, .reason */
};

struct hv_event {
	enum hv_event_type type;
	enum hv_state state;
	int fd;
	const char *op;
	const char *reason; /* one line, borrowed: "guest powered off", "qemu killed by SIGKILL" */
	const struct err *err;
};

typedef void hv_event_fn(void *arg, const struct hv_event *e);

enum hv_stop { HV_STOP_GRACEFUL, HV_STOP_HARD }; /* ask the guest by ACPI or its like; end it now */

struct hv_stats {
	uint64_t rss;    /* bytes resident on the node, 0 = unknown */
	uint64_t cpu_ms; /* CPU time used on the node */
	pid_t pid;       /* of the VMM, 0 = none */
};

/* What a node can do with this back end; filled by probe. */
struct hv_probe {
	bool usable;
	char why[256];    /* not usable: one line that says why */
	char accel[16];   /* "kvm", "tcg", "xen", "fake", ... */
	char version[64]; /* of the VMM */
	char note[256]; /* said once to the user: "/dev/kvm opens but runs no guest: using TCG"; may be "" */
};

enum hv_capability {
	HV_CAP_PAUSE = 1 << 0,
	HV_CAP_RESET = 1 << 1,
	HV_CAP_SAVE = 1 << 2,
	HV_CAP_MIGRATE = 1 << 3,
	HV_CAP_CLONE = 1 << 4,
	HV_CAP_CONSOLE = 1 << 5,
	HV_CAP_ADOPT = 1 << 6,
	HV_CAP_NET = 1 << 7,
};

struct hypervisor {
	const char *name, *summary;
	unsigned caps;     /* enum hv_capability: data, so that a table can be printed */
	const char *lacks; /* the reason given with ENOTSUP */

	/* Finds out what this node offers. done() is called once, from the loop: as a rule within 0.1 s, at
	 * worst (a program that does not answer) after 10 s. */
	int (*probe)(struct loop *l, const char *accel,
		     void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err);
	/* Begins what a probe will ask, so that one soon after has less to wait for; NULL where that is nothing. */
	void (*warm)(struct loop *l);
	int (*start)(struct loop *l, const struct hv_spec *spec, const struct hv_probe *p,
		     hv_event_fn *fn, void *arg, struct hv_vm **ret, struct err *err);
	/* A VM that a process before this one has started with spec.keep: see Adoption. No probe is needed before. */
	int (*adopt)(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg,
		     struct hv_vm **ret, struct err *err);
	int (*stop)(struct hv_vm *vm, enum hv_stop how, struct err *err);
	int (*pause)(struct hv_vm *vm, struct err *err);
	int (*resume)(struct hv_vm *vm, struct err *err);
	int (*reset)(struct hv_vm *vm, struct err *err);
	int (*stats)(struct hv_vm *vm, struct hv_stats *ret, struct err *err); /* at once, no event */
	/* Frees the state; a VM that still runs is killed first. No event after. */
	void (*release)(struct hv_vm *vm);
};

/* Calls go through these; each checks for the op and answers ENOTSUP with the back end's reason. */
const struct hypervisor *hypervisor_find(const char *name); /* NULL: no such back end */
const struct hypervisor *hypervisor_at(size_t i);           /* NULL past the last: to list them */
int hypervisor_probe(const struct hypervisor *h, struct loop *l, const char *accel,
		     void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err);
/* Begins the slow questions of all back ends' probes ahead of them. Nothing is answered. */
void hypervisor_warm(struct loop *l);

struct hv; /* one VM under one back end */
int hv_start(const struct hypervisor *h, struct loop *l, const struct hv_spec *spec,
	     const struct hv_probe *p, hv_event_fn *fn, void *arg, struct hv **ret, struct err *err);
int hv_adopt(const struct hypervisor *h, struct loop *l, const struct hv_spec *spec,
	     hv_event_fn *fn, void *arg, struct hv **ret, struct err *err);
int hv_stop(struct hv *v, enum hv_stop how, struct err *err);
int hv_pause(struct hv *v, struct err *err);
int hv_resume(struct hv *v, struct err *err);
int hv_reset(struct hv *v, struct err *err);
int hv_stats(struct hv *v, struct hv_stats *ret, struct err *err);
void hv_release(struct hv *v); /* NULL is fine */
const char *hv_state_name(enum hv_state s);

#endif
