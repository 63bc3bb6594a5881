/* SPDX-License-Identifier: Apache-2.0 */
/* A VM on its way from one node to another, seen from each of the two. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "vm/vm_inside.h"

/* ---- sending ---- */

int vm_send(struct vm *vm, bool post_copy, const struct vm_send_ops *ops, void *arg, struct err *err)
{
	if (vm->state != VM_READY || vm->send_ops || vm->unsent || vm->pausing)
		return err_set(err, EBUSY, "%s: cannot be moved: it is %s", vm->name,
			       vm->send_ops || vm->unsent ? "being moved"
			       : vm->pausing              ? "being paused"
							  : vm_state_name(vm->state));
	if (vm->profile->scratch && !vm->scratch)
		return err_set(err, ENOTSUP, "%s: its scratch disk is of an agent that has died: it cannot be moved",
			       vm->name);
	vm->send_ops = ops;
	vm->send_arg = arg;
	vm->sent = vm->split = false;
	if ((post_copy ? hv_post_copy : hv_migrate_out)(vm->hv, err) == 0)
		return 0;
	vm->send_ops = NULL;
	return -1;
}

int vm_switch(struct vm *vm, struct err *err)
{
	if (!vm->send_ops || !vm->hv)
		return err_set(err, ESRCH, "%s: is not being moved", vm->name);
	if (hv_switch_over(vm->hv, err) < 0)
		return -1;
	vm->split = true;
	return 0;
}

bool vm_is_split(const struct vm *vm)
{
	return vm->split && vm->send_ops;
}

void vm_unsend(struct vm *vm)
{
	if (!vm->send_ops)
		return;
	vm->send_ops = NULL;
	if (vm->split) {
		vm->split = false;
		vm_fail(vm, "lost on its way to another node: some of its memory was there "
			    "(post-copy)");
		return;
	}
	vm->unsent = !vm->sent; /* its end is still to come */
	if (vm->sent && vm->hv)
		hv_resume(vm->hv, NULL);
	else if (vm->hv)
		hv_cancel(vm->hv, NULL);
	vm->sent = false;
}

uint64_t vm_stands_ms(const struct vm *vm)
{
	return vm->stands ? loop_now(vm->loop) - vm->stands : 0;
}

#define CUT_MS 10000 /* for the end of what has come before */

static void on_cut(void *arg)
{
	vm_fail(arg, "the rest of its memory did not come: its move by post-copy broke off");
}

bool vm_is_late(const struct vm *vm)
{
	return vm->post_copy && vm->hv;
}

void vm_cut_off(struct vm *vm)
{
	if (!vm->post_copy || !vm->hv || vm->cut)
		return;
	vm->cut = evtimer_create(vm->loop, on_cut, vm);
	evtimer_start(vm->cut, CUT_MS, 0);
}

static void on_done(struct vm *vm, const struct hv_event *e)
{
	if (!vm->unsent && !vm->send_ops) {
		vm->post_copy = false;
		evtimer_destroy(TAKE_PTR(vm->cut));
		return;
	}
	if (vm->unsent) { /* it was too late to call it off */
		vm->unsent = false;
		hv_resume(vm->hv, NULL);
	} else if (vm->send_ops) {
		vm->sent = true;
		vm->split = false;
		if (e->reason) { /* not while it runs: it stood still all the time, which was told late */
			vm->ops->on_note(vm->arg, vm, e->reason);
			vm->stands = vm->flows;
		}
		vm->send_ops->on_sent(vm->send_arg, e->bytes);
	}
}

static bool on_failed(struct vm *vm, const struct err *err)
{
	const struct vm_send_ops *ops = TAKE_PTR(vm->send_ops);
	vm->unsent = vm->sent = vm->split = false;
	return ops && ops->on_failed(vm->send_arg, err);
}

bool vm_move_event(struct vm *vm, const struct hv_event *e)
{
	if (e->type == HV_EVENT_STATE && e->state == HV_PAUSED && vm->send_ops)
		vm->stands = loop_now(vm->loop);
	if (!e->op || (strcmp(e->op, hv_cap_name(HV_CAP_MIGRATE_OUT)) != 0 &&
		       strcmp(e->op, hv_cap_name(HV_CAP_POST_COPY)) != 0))
		return false;
	switch (e->type) {
	case HV_EVENT_STREAM:
		vm->flows = loop_now(vm->loop);
		if (vm->send_ops)
			vm->send_ops->on_stream(vm->send_arg, e->fd, e->signature);
		else
			close(e->fd);
		return true;
	case HV_EVENT_SWITCH:
		if (vm->send_ops)
			vm->send_ops->on_switch(vm->send_arg);
		return true;
	case HV_EVENT_DONE: on_done(vm, e); return true;
	case HV_EVENT_FAILED:
		if (on_failed(vm, e->err))
			vm_fail(vm, "its hypervisor failed when its move had been switched over");
		return true;
	default: return e->type == HV_EVENT_PROGRESS;
	}
}

bool vm_move_holds(const struct vm *vm, const char *verb, struct err *err)
{
	if (!vm->send_ops && !vm->unsent)
		return false;
	err_set(err, EBUSY, "%s: cannot %s: it is being moved to another node", vm->name, verb);
	return true;
}

/* ---- arriving ---- */

int vm_receive(struct vm *vm, const struct vm_arrival *a,
	       void (*arrived)(void *arg, struct vm *vm, const struct err *err), void *arg,
	       struct err *err)
{
	const struct vm_profile *p = vm->profile;
	if (a->scratch != p->scratch)
		return err_set(err, EINVAL, "%s: its scratch disk has another size there", vm->name);
	if (vm_begin(vm, err) < 0)
		return -1;
	evtimer_stop(vm->timer); /* who receives it knows how long it may take */
	vm->boot = xstrdup(a->boot);
	vm->attach = vm->set_up = true;
	vm->ready_after = a->ready_ms;
	snprintf(vm->came, sizeof(vm->came), "came from %.60s", a->from);
	if (p->scratch && !(vm->scratch = scratch_empty(p->scratch_dir, p->scratch, err)))
		goto failed;
	vm->state_fd = a->fd;
	vm->signature = a->signature;
	vm->post_copy = a->post_copy;
	vm->on_arrived = arrived;
	vm->arrived_arg = arg;
	int rc = vm_start_hv(vm, scratch_fd(vm->scratch), err);
	vm->signature = NULL;
	if (rc == 0)
		return 0;
failed:
	vm->on_arrived = NULL;
	vm_fail(vm, err->text);
	return -1;
}

void vm_move_add(const struct vm *vm, struct hv_spec *spec)
{
	if (!vm->on_arrived)
		return;
	spec->from = HV_FROM_MIGRATION;
	spec->from_fd = vm->state_fd;
	spec->signature = vm->signature;
	spec->post_copy = vm->post_copy;
}

bool vm_move_arrived(struct vm *vm)
{
	if (!vm->on_arrived || vm->held)
		return false;
	vm->held = true;
	vm->on_arrived(vm->arrived_arg, vm, NULL);
	return true;
}

void vm_move_lost(struct vm *vm)
{
	struct err e = ERR_INIT;
	void (*arrived)(void *arg, struct vm *vm, const struct err *err) = vm->on_arrived;
	err_set(&e, ESHUTDOWN, "%s: it ended while it was moved", vm->name);
	vm->on_arrived = NULL;
	vm->held = vm->post_copy = false;
	evtimer_destroy(TAKE_PTR(vm->cut));
	on_failed(vm, &e);
	if (arrived)
		arrived(vm->arrived_arg, vm, &e);
}

int vm_take(struct vm *vm, struct err *err)
{
	if (!vm->held)
		return err_set(err, EBUSY, "%s: has not arrived", vm->name);
	vm->held = false;
	vm->on_arrived = NULL;
	if (vm->profile->keep) /* what it was: so it is adopted, should this process end now */
		vm_note_write(vm, VM_READY);
	return 0;
}

int vm_run_taken(struct vm *vm, struct err *err)
{
	evtimer_start(vm->timer, vm->profile->boot_timeout_ms, 0);
	return hv_resume(vm->hv, err);
}

int vm_disk(const struct vm *vm)
{
	return scratch_fd(vm->scratch);
}

const char *vm_boot(const struct vm *vm)
{
	return vm->boot ? vm->boot : "";
}
