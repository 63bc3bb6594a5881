/* SPDX-License-Identifier: Apache-2.0 */
/* The states of a VM and what moves it between them, as one table. */
#ifndef VSE_VM_VM_STATE_H
#define VSE_VM_VM_STATE_H

#include <stdbool.h>

enum vm_state {
	VM_PLANNED,  /* placed, not started yet */
	VM_STARTING, /* the hypervisor was asked */
	VM_BOOTING,  /* runs; the guest agent has not said "ready" */
	VM_READY,
	VM_PAUSED,
	VM_STOPPING,
	VM_STOPPED, /* ended as asked, or the guest powered itself off */
	VM_FAILED,  /* did not start, never became ready, or crashed */
};

enum vm_input {
	VM_IN_START,
	VM_IN_RUNNING, /* the hypervisor says so */
	VM_IN_HELLO,   /* a guest agent began (again) */
	VM_IN_READY,
	VM_IN_PAUSED,
	VM_IN_RESUMED,
	VM_IN_STOP,    /* asked to end */
	VM_IN_GONE,    /* ended cleanly */
	VM_IN_CRASHED, /* ended otherwise */
	VM_IN_FAILED,  /* given up: never ready in time, guest set-up failed */
};

/* False: in this state the input means nothing and is to be ignored. */
bool vm_state_next(enum vm_state from, enum vm_input in, enum vm_state *ret);
const char *vm_state_name(enum vm_state s); /* "ready" */
bool vm_state_is_over(enum vm_state s);     /* STOPPED or FAILED: nothing runs */
bool vm_state_is_live(enum vm_state s);     /* a VMM exists or is being started */

#endif
