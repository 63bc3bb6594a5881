/* SPDX-License-Identifier: Apache-2.0 */
/* One VM on this node: its hypervisor handle, its guest channel, its console and its state. */
#ifndef VSE_VM_VM_H
#define VSE_VM_VM_H

#include <stdint.h>

#include "hypervisor/hypervisor.h"
#include "vm/channel.h"
#include "vm/console.h"
#include "vm/vm_state.h"

struct vm;
struct binding;
struct template;

/* What all VMs of one image and one cluster share on a node. Borrowed by every vm: lives longer than they. */
struct vm_profile {
	const struct hypervisor *hypervisor;
	struct hv_probe probe;
	char *kernel, *vmlinux, *initrd, *root, *cmdline;
	const char *machine, *accel; /* as it was asked for; borrowed */
	struct strvec extra_args;
	unsigned cpus;
	uint64_t memory, scratch; /* bytes */
	char *scratch_dir;        /* where scratch disks are made */
	bool nic, outbound, trusted;
	bool tap; /* with nic: eth0 is what ops.make_tap() gives */
	struct binding *binding; /* VMs have CPUs of their own, and memory near them (vm/binding.h); NULL: anywhere */
	bool hugepages;                /* memory in reserved pages */
	const struct hv_mount *mounts; /* host directories; borrowed */
	size_t n_mounts;
	const struct strvec *devices;    /* of the node, for each VM; borrowed, or NULL */
	const struct template *template; /* VMs start from it (vm/template.h) while it is not NULL */
	bool keep; /* notes for vm_adopt() of the next process; VMs outlive this one if their hypervisor can do that */
	uint64_t boot_timeout_ms; /* from start to ready */
	uint64_t stop_timeout_ms; /* a guest that was asked to end is killed after this */
};

struct vm_ops {
	/* After every change of state. `reason` may be "". */
	void (*on_state)(void *arg, struct vm *vm, enum vm_state was, const char *reason);
	/* The Ethernet side of eth0: fd taken. */
	void (*on_net)(void *arg, struct vm *vm, int fd);
	/* With profile->tap, for each start: a tap for this VM's eth0, the caller's. */
	int (*make_tap)(void *arg, struct vm *vm, int *ret_fd, struct err *err);
	/* Writes the "setup" record of this VM. */
	void (*make_setup)(void *arg, struct vm *vm, struct buf *kv);
	/* Something worth an entry in the cluster's events. */
	void (*on_note)(void *arg, struct vm *vm, const char *text);
};

/* `dir`: this VM's folder (made here, 0700). The VM is VM_PLANNED. */
struct vm *vm_create(struct loop *l, uint32_t rank, const char *dir, const struct vm_profile *p,
		     const struct vm_ops *ops, void *arg, struct err *err);
/* Kills what runs, removes the folder. NULL is fine. */
void vm_destroy(struct vm *vm);

/* After vm_create() on the folder of a VM that another process has run (profile->keep): goes on with what the note in
 * that folder says. One that ran is taken over: until it is as it was (vm_is_adopting()), which takes a moment, nothing
 * is told; then on_state comes once, with the state READY or PAUSED and the reason "adopted", or with its end. One that
 * did not run is so again at once, untold: false. */
bool vm_adopt(struct vm *vm);
bool vm_is_adopting(const struct vm *vm);
uint64_t vm_ran_ms(const struct vm *vm); /* how long one ran that has ended; 0: it did not, or nobody saw it */
bool vm_has_run(const struct vm *vm); /* since its start, or since it came here; true of one that has ended since */
bool vm_was_adopted(const struct vm *vm); /* it was taken over, and has run since */
/* Within make_setup: this guest has had its set-up before, since it booted: it stays the machine that it is. */
bool vm_is_set_up(const struct vm *vm);

/* Each begins; the outcome comes by on_state. EBUSY or EINVAL with the reason when the state does not allow it. */
int vm_start(struct vm *vm, struct err *err);
int vm_stop(struct vm *vm, enum hv_stop how, struct err *err);
int vm_pause(struct vm *vm, struct err *err);
int vm_resume(struct vm *vm, struct err *err);
/* vm_pause() for a save into dir, until vm_hold_end() or the VM's end. Who else pauses, resumes, moves or saves it meanwhile has
 * EBUSY. Should this process end before, the one that adopts the VM removes what was written of it, and lets it go on if it did
 * before. */
int vm_hold(struct vm *vm, const char *dir, struct err *err);
/* It goes on, as soon as it can (not before the hypervisor has let go of a save); true: it does not, it was paused before. */
bool vm_hold_end(struct vm *vm);
bool vm_is_held(const struct vm *vm); /* for a save, now */
bool vm_is_held_for(const struct vm *vm, const char *dir);
/* Instead of vm_start(): as it was saved in dir (vm/saved.h). It goes on by itself, from there. */
int vm_restore(struct vm *vm, const char *dir, struct err *err);
/* Writes a paused VM, with its scratch disk, into dir (vm/saved.h). It stays paused. done() once, unless the VM is destroyed
 * before. */
int vm_save(struct vm *vm, const char *dir, const char *id,
	    void (*done)(void *arg, struct vm *vm, const struct err *err), void *arg, struct err *err);
/* Ends a vm_save() without its done(). */
void vm_save_forget(struct vm *vm);

/* ---- vm_move.c: to another node. A VM that was sent stands still until vm_unsend() or its end: whoever sends it has seen
 * to it that only one of the two ever goes on. ---- */

struct vm_send_ops {
	/* Where the hypervisor's state comes out, to be read to its end; fd: taken. */
	void (*on_stream)(void *arg, int fd, const char *signature);
	/* By post-copy: it stands still, and the disk changes no more. Nothing is decided before vm_switch(). */
	void (*on_switch)(void *arg);
	/* It stands still; the stream is whole (its end may still come), and the disk changes no more. */
	void (*on_sent)(void *arg, uint64_t bytes);
	/* Once, last: it goes on here as it was, or has ended. True: it may run elsewhere by now, so that it fails here. */
	bool (*on_failed)(void *arg, const struct err *err);
};

/* Of a VM that is ready. It runs on while its memory is sent; post_copy: until all was sent once, as hypervisor.h says. */
int vm_send(struct vm *vm, bool post_copy, const struct vm_send_ops *ops, void *arg, struct err *err);
/* After on_switch(): the target may go on with it from here on. */
int vm_switch(struct vm *vm, struct err *err);
/* Since vm_switch(), until on_sent(): some of it is there alone, and some here. */
bool vm_is_split(const struct vm *vm);
/* Calls it off, without a word to the ops: it goes on here, or has failed where it was split. Nothing where it was not sent. */
void vm_unsend(struct vm *vm);
bool vm_move_holds(const struct vm *vm, const char *verb, struct err *err); /* true: EBUSY, it is being sent */
uint64_t vm_stands_ms(const struct vm *vm); /* for so long it stands still, to be sent */
int vm_disk(const struct vm *vm);           /* its scratch disk; borrowed; -1: none */
const char *vm_boot(const struct vm *vm);   /* boot id of its guest; "" */

struct vm_arrival {
	int fd;                     /* what on_stream() gave there comes out here; borrowed */
	const char *signature;      /* of on_stream() */
	const char *boot, *from;    /* vm_boot(); the node's name */
	uint64_t ready_ms, scratch; /* vm_ready_ms(); size of its disk */
	bool post_copy;             /* of vm_send() */
};

/* Instead of vm_start(): the VM comes up and stands still, with an empty disk of that size, which the caller fills. arrived()
 * once, from the loop: NULL: it has arrived; else it has ended. */
int vm_receive(struct vm *vm, const struct vm_arrival *a,
	       void (*arrived)(void *arg, struct vm *vm, const struct err *err), void *arg,
	       struct err *err);
/* By post-copy: nothing more of it comes. It fails, if it is not all here or the hypervisor does not say so soon. */
void vm_cut_off(struct vm *vm);
bool vm_is_late(const struct vm *vm); /* by post-copy: some of its memory is still to come */
/* It belongs here from now on: an agent that follows this one adopts it. Then vm_run_taken(). */
int vm_take(struct vm *vm, struct err *err);
int vm_run_taken(struct vm *vm, struct err *err); /* it goes on; on_state follows */

/* Ends it hard, if it runs, and starts it anew. */
int vm_restart(struct vm *vm, struct err *err);
/* Of one that boots: for how long it has given no sign of life (vm/pulse.h). To be asked again and again; 0: it gives some,
 * does not boot, or nobody can tell. */
uint64_t vm_silent_ms(struct vm *vm);
int vm_boot_anew(struct vm *vm,
		 struct err *err); /* vm_restart() of one that boots: from its image, not its template */

bool vm_is_restarting(const struct vm *vm); /* it ends in order to be started anew */
uint32_t vm_rank(const struct vm *vm);
const char *vm_name(const struct vm *vm); /* "vm3" */
enum vm_state vm_get_state(const struct vm *vm);
const char *vm_reason(const struct vm *vm); /* of the last change; "" */
uint64_t vm_uptime_ms(const struct vm *vm); /* since the hypervisor ran it; 0 = does not run */
uint64_t vm_ready_ms(const struct vm *vm);  /* how long it took from start to ready; 0 = not yet */
/* The channel of a VM that is ready; NULL and EBUSY/ESHUTDOWN with the state otherwise. */
struct channel *vm_channel(struct vm *vm, struct err *err);
struct console *vm_console(struct vm *vm);
/* The CPUs that its vCPUs have, in order; NULL: any. Borrowed. */
const unsigned *vm_cpus(const struct vm *vm);
int vm_stats(struct vm *vm, struct hv_stats *ret, struct err *err);

#endif
