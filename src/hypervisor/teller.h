/* SPDX-License-Identifier: Apache-2.0 */
/* What the back ends share: how a VM's events are told to a receiver that may release the VM meanwhile. */
#ifndef VSE_HYPERVISOR_TELLER_H
#define VSE_HYPERVISOR_TELLER_H

#include "hypervisor/hypervisor.h"

/* Part of a back end's VM, all zero but for fn and arg at first. */
struct hv_teller {
	hv_event_fn *fn;
	void *arg;
	enum hv_state state; /* the newest that was told, HV_STARTING at first */
	bool *released;      /* of the call that is under way; NULL: none is */
};

/* Around what may release the VM. hv_leave() gives false when it did: then the VM is gone, and the teller with it. */
struct hv_hold {
	bool dead, *outer;
};
void hv_enter(struct hv_teller *t, struct hv_hold *h);
bool hv_leave(struct hv_teller *t, struct hv_hold *h);

/* Each gives false when the receiver released the VM. The state of the event is the VM's from now on. */
bool hv_tell(struct hv_teller *t, const struct hv_event *e);
bool hv_tell_state(struct hv_teller *t, enum hv_state state, const char *reason);
bool hv_tell_fd(struct hv_teller *t, enum hv_event_type type, int *fd); /* *fd is taken; -1: nothing to tell */
bool hv_tell_failed(struct hv_teller *t, const char *op, const struct err *err);
/* To be called by release(), before anything is freed. */
void hv_teller_release(struct hv_teller *t);

#endif
