/* SPDX-License-Identifier: Apache-2.0 */
/* One VM of the back end `xen`: what xen.c (its begin), xen_life.c and xen_save.c share. Nothing else includes this. */
#ifndef VSE_HYPERVISOR_XEN_VM_H
#define VSE_HYPERVISOR_XEN_VM_H

#include "hypervisor/teller.h"
#include "hypervisor/xen.h"

enum xen_op {
	XEN_OP_NONE,
	XEN_OP_MAKE,
	XEN_OP_CONNECT,
	XEN_OP_UNPAUSE,
	XEN_OP_PAUSE,
	XEN_OP_RESUME,
	XEN_OP_SHUTDOWN,
	XEN_OP_PIN,
	XEN_OP_WAKE,
	XEN_OP_SAVE,
	XEN_OP_RELEASE_SAVE
};

#define XEN_QUEUE_MAX 16

struct hv_vm {
	struct loop *loop;
	struct hv_teller teller;
	char *dir;
	struct xen_id id;
	char signature[HV_SIGNATURE_MAX];
	enum hv_from from;
	bool nic, adopted;

	struct xen_domain domain; /* as last seen */
	bool seen;                /* domain is filled */
	struct xen_watch *watch;
	struct xen_net *net;
	int net_fd, keeper, channel_fd, console_fd;
	pid_t model;
	struct child *model_child;

	enum xen_op op; /* under way */
	struct xen_run *run;
	uint64_t want;  /* number of the list that says how op ended; 0 = its program still runs */
	uint64_t moved; /* bytes of the state at the last look whether any moves */
	uint64_t suspended_at; /* adopted, and found in the middle of a save: since when (ms); 0 = not so */
	enum xen_op queue[XEN_QUEUE_MAX];
	unsigned queued;

	unsigned cpus;
	struct xen_pin *pins; /* of each vCPU: where it is, or is to be */

	/* save and migrate out */
	struct xen_relay *relay;
	enum hv_cap out_op;
	bool was_running, cancelled, saved, relayed, relay_broken;
	bool live;            /* it is xl migrate that runs */
	struct xen_run *hold; /* its xl pause */
	char not_live[200];   /* why it is not */
	uint64_t out_bytes;
	char out_cause[300];

	/* the end */
	struct xen_run *destroy;
	uint64_t destroyed;    /* number of the list that shows that it is no more; 0 = not asked */
	unsigned destroys;     /* calls of it that have ended */
	char undestroyed[200]; /* what the last of them said */
	bool killed, ending;
	enum hv_state end_state;
	char reason[ERR_TEXT_MAX];
	struct evtimer *timer;
	struct evtimer *begin; /* of what was asked for: no event comes from inside an op */
};

/* ---- xen_life.c ---- */

/* Runs xl (fd3, bound_ms as of xen_run()); the outcome comes to that file. False: it cannot be run, and the VM ends. */
bool xen_call(struct hv_vm *vm, enum xen_op op, struct strvec *argv, int fd3, unsigned bound_ms);
void xen_call_simple(struct hv_vm *vm, enum xen_op op, const char *verb);
/* How a program of the VM's ended (xen_run_fn). */
void xen_on_call(void *arg, int status, const char *out, size_t len, const char *errors);
void xen_on_list(void *arg, const struct xen_domain *d, uint64_t asked, const char *why);
/* Of a program that reads or writes the VM's state: bytes move, or are waited for at the other end (xen_run_ask()). */
bool xen_moves(void *arg);
void xen_on_timer(void *arg);
int xen_enqueue(struct hv_vm *vm, enum xen_op op, struct err *err);
void xen_next_op(struct hv_vm *vm); /* if none is under way */
void xen_on_begin(void *arg);
/* Ends the VM; GONE follows. The first reason counts. */
void xen_end(struct hv_vm *vm, enum hv_state state, const char *reason);
void xen_close_all(struct hv_vm *vm);

/* ---- xen_save.c ---- */

void xen_save_next(struct hv_vm *vm);  /* it was asked for, and its turn has come */
void xen_save_begin(struct hv_vm *vm); /* the guest runs */
/* vm->relay, between xl (live: both ways) and who reads the stream. */
int xen_save_open(struct hv_vm *vm, bool live, int *ret_xl, int *ret_out, struct err *err);
void xen_save_tell_stream(struct hv_vm *vm, int out); /* taken */
/* xl has ended; true: another one has begun. */
bool xen_save_exited(struct hv_vm *vm, int status, const char *errors);
void xen_save_end(struct hv_vm *vm);    /* xl and the stream have both come to their end */
bool xen_save_failed(struct hv_vm *vm); /* tells; false: the VM was released */
void xen_on_relayed(void *arg, uint64_t bytes, bool broken);
int xen_save(struct hv_vm *vm, struct err *err);
int xen_migrate_out(struct hv_vm *vm, struct err *err);
int xen_cancel(struct hv_vm *vm, struct err *err);

/* ---- xen_pin.c ---- */

/* EINVAL: a CPU that the node has not. */
int xen_pins_check(const struct hv_spec *spec, struct err *err);
void xen_pins_take(struct hv_vm *vm, const struct hv_spec *spec,
		   bool due);                       /* due: the domain knows nothing of them */
int xen_pin_all(struct hv_vm *vm, struct err *err); /* those that are due, in their turn */
bool xen_pin_next(struct hv_vm *vm);                /* false: none is due */
bool xen_pin_ended(struct hv_vm *vm, int status, const char *errors); /* false: the VM was released */
int xen_pin(struct hv_vm *vm, unsigned vcpu, int cpu, struct err *err);

/* ---- xen_live.c ---- */

bool xen_live_wanted(struct hv_vm *vm); /* for what was asked for; false: vm->not_live says why, if it was a move */
void xen_live_begin(struct hv_vm *vm);
void xen_live_relayed(struct hv_vm *vm);
bool xen_live_exited(struct hv_vm *vm, int status, const char *errors); /* as xen_save_exited() */
void xen_live_cancel(struct hv_vm *vm);

#endif
