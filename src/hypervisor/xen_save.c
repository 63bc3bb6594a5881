/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a VM into a stream. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/xen_vm.h"

static bool tell_done(struct hv_vm *vm)
{
	struct hv_event e = {.type = HV_EVENT_DONE,
			     .state = HV_PAUSED,
			     .op = hv_cap_name(vm->out_op),
			     .fd = -1,
			     .signature = vm->signature,
			     .bytes = vm->out_bytes};
	char reason[300];
	if (vm->out_op == HV_CAP_MIGRATE_OUT && !vm->live) {
		snprintf(reason, sizeof(reason), "not live (%s): saved, sent and restored",
			 vm->not_live);
		e.reason = reason;
	}
	return hv_tell(&vm->teller, &e);
}

bool xen_save_failed(struct hv_vm *vm)
{
	struct err e = ERR_INIT;
	err_set(&e, vm->cancelled ? ECANCELED : EIO, "%s", vm->out_cause);
	return hv_tell_failed(&vm->teller, hv_cap_name(vm->out_op), &e);
}

/* A move may have told that the guest stands still, which is let run again. */
static bool tell_as_is(struct hv_vm *vm)
{
	return vm->teller.state != HV_PAUSED || vm->domain.paused ||
	       hv_tell_state(&vm->teller, HV_RUNNING, "goes on after a move that failed");
}

void xen_save_end(struct hv_vm *vm)
{
	if (vm->hold)
		return; /* the domain is being paused: on_held() goes on */
	bool good = vm->saved && !vm->relay_broken && vm->domain.paused && !vm->domain.shutdown;
	xen_relay_destroy(TAKE_PTR(vm->relay));
	if (good) {
		if (vm->teller.state == HV_RUNNING && !hv_tell_state(&vm->teller, HV_PAUSED, "saved"))
			return;
		vm->op = XEN_OP_NONE;
		if (tell_done(vm))
			xen_next_op(vm);
		return;
	}
	if (!vm->out_cause[0] || vm->cancelled)
		snprintf(vm->out_cause, sizeof(vm->out_cause), "%s",
			 vm->cancelled ? "cancelled" : "the stream was cut off");
	if (vm->domain.shutdown) { /* its xl was killed: nothing lets such a guest run again */
		xen_end(vm, HV_CRASHED, vm->out_cause);
		return;
	}
	if (vm->was_running == vm->domain.paused) { /* as it was before */
		xen_call_simple(vm, XEN_OP_RELEASE_SAVE, vm->was_running ? "unpause" : "pause");
		return;
	}
	vm->op = XEN_OP_NONE;
	if (tell_as_is(vm) && xen_save_failed(vm))
		xen_next_op(vm);
}

void xen_on_relayed(void *arg, uint64_t bytes, bool broken)
{
	struct hv_vm *vm = arg;
	vm->relayed = true;
	vm->relay_broken = broken;
	vm->out_bytes = bytes;
	if (vm->live)
		xen_live_relayed(vm);
	if (vm->op == XEN_OP_SAVE && vm->want == UINT64_MAX)
		xen_save_end(vm);
}

int xen_save_open(struct hv_vm *vm, bool live, int *ret_xl, int *ret_out, struct err *err)
{
	int p[2], pair[2];
	if ((live ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) : pipe2(p, O_CLOEXEC)) < 0)
		return err_errno(err, errno, live ? "socketpair" : "pipe");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		close(p[0]);
		close(p[1]);
		return err_errno(err, errno, "socketpair");
	}
	vm->relay = xen_relay_create(vm->loop, p[0], pair[0], xen_on_relayed, vm, err);
	if (!vm->relay) {
		close(p[1]);
		close(pair[1]);
		return -1;
	}
	if (live)
		xen_relay_live(vm->relay);
	*ret_xl = p[1];
	*ret_out = pair[1];
	return 0;
}

/* What was told of when a live migration began, and has had no byte yet. */
static int reopen_stream(struct hv_vm *vm, int *ret_xl, struct err *err)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	if (xen_relay_again(vm->relay, p[0], err) < 0) {
		close(p[1]);
		return -1;
	}
	*ret_xl = p[1];
	return 0;
}

void xen_save_next(struct hv_vm *vm)
{
	vm->saved = vm->relayed = vm->relay_broken = false;
	vm->out_bytes = vm->moved = 0;
	vm->out_cause[0] = '\0';
	vm->live = false;
	vm->was_running = vm->teller.state == HV_RUNNING;
	/* The guest itself takes part in its save: a paused one is let run for that. */
	if (vm->cancelled)
		xen_save_end(vm);
	else if (xen_live_wanted(vm))
		xen_live_begin(vm);
	else if (vm->was_running)
		xen_save_begin(vm);
	else
		xen_call_simple(vm, XEN_OP_WAKE, "unpause");
}

void xen_save_begin(struct hv_vm *vm)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	_cleanup_close_ int xl = -1;
	int out = -1;
	struct err e = ERR_INIT;
	if ((vm->relay ? reopen_stream(vm, &xl, &e) : xen_save_open(vm, false, &xl, &out, &e)) < 0) {
		snprintf(vm->out_cause, sizeof(vm->out_cause), "%.200s", e.text);
		xen_save_end(vm);
		return;
	}
	strvec_addv(&argv, "xl", "save", "-p", vm->id.name, "/proc/self/fd/3", NULL);
	if (!xen_call(vm, XEN_OP_SAVE, &argv, xl, XEN_MAKE_MS)) {
		if (out >= 0)
			close(out);
		return;
	}
	xen_run_ask(vm->run, xen_moves);
	if (out >= 0)
		xen_save_tell_stream(vm, out);
}

void xen_save_tell_stream(struct hv_vm *vm, int out)
{
	hv_tell(&vm->teller, &(struct hv_event){.type = HV_EVENT_STREAM,
						.state = vm->teller.state,
						.op = hv_cap_name(vm->out_op),
						.signature = vm->signature,
						.fd = out});
}

bool xen_save_exited(struct hv_vm *vm, int status, const char *errors)
{
	if (vm->live)
		return xen_live_exited(vm, status, errors);
	vm->saved = status == 0;
	if (WIFSIGNALED(status)) { /* what it had begun may still hold the stream */
		xen_relay_destroy(TAKE_PTR(vm->relay));
		vm->relayed = vm->relay_broken = true;
	}
	if (status)
		xen_explain(vm->id.name, "xl save", errors, status, vm->out_cause,
			    sizeof(vm->out_cause));
	return false;
}

static int begin_out(struct hv_vm *vm, enum hv_cap what, struct err *err)
{
	if (vm->teller.state != HV_RUNNING && vm->teller.state != HV_PAUSED)
		return err_set(err, EBUSY, "the VM is %s", hv_state_name(vm->teller.state));
	vm->out_op = what;
	vm->cancelled = false;
	return xen_enqueue(vm, XEN_OP_SAVE, err);
}

int xen_save(struct hv_vm *vm, struct err *err)
{
	return begin_out(vm, HV_CAP_SAVE, err);
}

int xen_migrate_out(struct hv_vm *vm, struct err *err)
{
	return begin_out(vm, HV_CAP_MIGRATE_OUT, err);
}

/* `xl save` that is killed leaves its guest suspended: it is let run to its end, into nothing. */
int xen_cancel(struct hv_vm *vm, struct err *err _unused_)
{
	vm->cancelled = true;
	if (vm->live)
		xen_live_cancel(vm);
	else if (vm->relay && !vm->relayed)
		xen_relay_drop(vm->relay);
	return 0;
}
