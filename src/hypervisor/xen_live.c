/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that runs on while its memory travels: `xl migrate`, the only xl that can (`xl save` stops the guest first). It
 * wants another xl at the end of a command of ours, to talk to. What answers is this file: the stream goes to the agent's
 * link instead, and ends where the state in it ends. Then, while xl waits for "domain received", the suspended domain is
 * paused, too, and the command ended: xl takes its target for lost and wakes the domain, which so stands still until it is
 * known who shall have it, like after `xl save -p`. From there on nothing that dies lets it run by itself. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/xen_vm.h"

/* xl hands this to a shell itself; nothing in it is anybody's data. With -s "" there is no ssh. It says what `xl
 * migrate-receive` says first, carries the stream to our socket, and ends with the one or the other (tools/xl/xl_migrate.c). */
static const char receiver[] =
	"printf 'xl migration receiver ready, send binary domain data.\\n'; "
	"{ read -r end <&3; kill $$; } >/dev/null & cat >&3; kill $! 2>/dev/null";

/* Found out once: Xen without shadow paging cannot log what a PV guest writes. */
static bool no_pv;

static bool is_pv(const struct hv_vm *vm)
{
	return strstr(vm->signature, " type=pv ");
}

bool xen_live_wanted(struct hv_vm *vm)
{
	vm->not_live[0] = '\0';
	if (vm->out_op != HV_CAP_MIGRATE_OUT)
		return false;
	if (!vm->was_running)
		snprintf(vm->not_live, sizeof(vm->not_live), "it was paused");
	else if (no_pv && is_pv(vm))
		snprintf(vm->not_live, sizeof(vm->not_live), XEN_NO_LOG_DIRTY);
	return !vm->not_live[0];
}

void xen_live_begin(struct hv_vm *vm)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	_cleanup_close_ int xl = -1;
	int out = -1;
	struct err e = ERR_INIT;
	if (xen_save_open(vm, true, &xl, &out, &e) < 0) {
		snprintf(vm->out_cause, sizeof(vm->out_cause), "%.200s", e.text);
		xen_save_end(vm);
		return;
	}
	vm->live = true;
	strvec_addv(&argv, "xl", "migrate", "-s", "", vm->id.name, receiver, NULL);
	if (!xen_call(vm, XEN_OP_SAVE, &argv, xl, XEN_MAKE_MS)) {
		close(out);
		return;
	}
	xen_run_ask(vm->run, xen_moves);
	xen_save_tell_stream(vm, out);
}

static void end_command(struct hv_vm *vm)
{
	xen_relay_destroy(TAKE_PTR(vm->relay));
}

static void on_held(void *arg, int status, const char *out _unused_, size_t len _unused_,
		    const char *errors)
{
	struct hv_vm *vm = arg;
	vm->hold = NULL;
	if (status)
		xen_explain(vm->id.name, "xl pause", errors, status, vm->out_cause,
			    sizeof(vm->out_cause));
	end_command(vm);
	if (vm->ending)
		evtimer_start(vm->timer, 0, 0);
	else if (vm->op == XEN_OP_SAVE && !vm->run) /* xl ended by itself: what it left is looked at now */
		vm->want = xen_watch_ask(vm->watch);
}

void xen_live_relayed(struct hv_vm *vm)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	struct err e = ERR_INIT;
	if (vm->relay_broken) {
		if (!xen_relay_fresh(vm->relay)) /* else xl may have found that it cannot: its end tells */
			end_command(vm);
		return;
	}
	strvec_addv(&argv, "xl", "pause", vm->id.name, NULL);
	if (xen_run(vm->loop, &argv, -1, XEN_CHANGE_MS, on_held, vm, &vm->hold, &e) < 0) {
		snprintf(vm->out_cause, sizeof(vm->out_cause), "%.200s", e.text);
		end_command(vm);
	}
}

/* Whether the guest is saved instead: nothing has gone out yet, and nobody has called it off. */
static bool falls_back(struct hv_vm *vm)
{
	if (vm->ending || vm->cancelled || !vm->relay || !xen_relay_fresh(vm->relay))
		return false;
	no_pv = no_pv || (is_pv(vm) && strstr(vm->out_cause, XEN_NO_LOG_DIRTY));
	snprintf(vm->not_live, sizeof(vm->not_live), "%.199s", vm->out_cause);
	vm->out_cause[0] = '\0';
	vm->live = vm->relayed = vm->relay_broken = false;
	return true;
}

bool xen_live_exited(struct hv_vm *vm, int status, const char *errors)
{
	vm->saved = vm->relayed && !vm->relay_broken && !WIFSIGNALED(status);
	if (vm->saved)
		return false; /* it was we who ended its command */
	xen_explain(vm->id.name, "xl migrate", errors, status, vm->out_cause, sizeof(vm->out_cause));
	if (falls_back(vm)) {
		xen_save_begin(vm);
		return true;
	}
	xen_live_cancel(vm);
	return false;
}

void xen_live_cancel(struct hv_vm *vm)
{
	if (vm->relayed && !vm->relay_broken)
		return; /* all is there */
	end_command(vm);
	vm->relayed = vm->relay_broken = true;
}
