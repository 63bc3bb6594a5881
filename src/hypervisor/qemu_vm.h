/* SPDX-License-Identifier: Apache-2.0 */
/* One VM under QEMU, for qemu.c (its life) and qemu_ops.c (what is done with one that runs). */
#ifndef VSE_HYPERVISOR_QEMU_VM_H
#define VSE_HYPERVISOR_QEMU_VM_H

#include "base/buf.h"
#include "hypervisor/qemu.h"
#include "hypervisor/qemu_qmp.h"
#include "hypervisor/qemu_state.h"
#include "hypervisor/teller.h"
#include "io/child.h"
#include "io/stream.h"

#define QEMU_COMMAND_MS 20000
#define QEMU_SOCKS 4

struct hv_vm {
	struct loop *loop;
	struct hv_teller to;
	char *dir;
	unsigned qemu; /* version number, as in struct qemu_binary */
	struct child *child;
	struct stream *errors;
	struct buf tail; /* the end of stderr */
	struct qmp *qmp;
	struct qemu_out out;
	struct qemu_settle settle; /* adopted: of what its owner before had begun; coming: of what comes */
	enum hv_cap out_op;        /* what `out` is for */
	bool was_running;          /* before a save */
	enum hv_from from;
	char signature[HV_SIGNATURE_MAX];
	struct evtimer *timer;
	struct strvec devices; /* addresses on the PCI bus, ours until it is released */
	unsigned vcpus;
	uint64_t reserved; /* bytes of its memory that are in reserved pages: no part of what is resident */
	pid_t *tids;                /* of the vCPUs; 0: not known yet */
	int *on;                    /* the CPU that each is pinned to, -1: none */
	int fds[QEMU_SOCKS];        /* our ends, until they are handed out */
	int net_vmm;                /* QEMU before 7.2: its end of eth0, until it was started */
	bool listening[QEMU_SOCKS]; /* the socket's file is ours to remove */
	bool adopted, template;
	bool post_copy; /* it comes so, and some of its memory is still to come; it may run once it came */
	bool came, late;     /* late: it was to come so */
	bool exited, killed; /* killed: by hv_stop() */
	int status;          /* of waitpid, once exited */
	char shutdown[64];   /* reason of QMP's SHUTDOWN event, "" = none came */
	char failure[512];   /* why we gave it up, "" = we did not */
};

/* qemu.c: it ends, for this reason. */
void qemu_give_up(struct hv_vm *vm, const char *why);

/* qemu_ops.c: ops of hypervisor.h, by their names there. */
int qemu_stop(struct hv_vm *vm, enum hv_stop how, struct err *err);
int qemu_pause(struct hv_vm *vm, struct err *err);
int qemu_resume(struct hv_vm *vm, struct err *err);
int qemu_reset(struct hv_vm *vm, struct err *err);
int qemu_save(struct hv_vm *vm, struct err *err);
int qemu_migrate_out(struct hv_vm *vm, struct err *err);
int qemu_post_copy(struct hv_vm *vm, struct err *err);
int qemu_switch_over(struct hv_vm *vm, struct err *err);
int qemu_snapshot(struct hv_vm *vm, struct err *err);
int qemu_cancel(struct hv_vm *vm, struct err *err);
int qemu_pin(struct hv_vm *vm, unsigned vcpu, int cpu, struct err *err);
int qemu_stats(struct hv_vm *vm, struct hv_stats *ret, struct err *err);

#endif
