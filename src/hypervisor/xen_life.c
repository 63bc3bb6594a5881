/* SPDX-License-Identifier: Apache-2.0 */
/* A VM from its first call of xl to its end. One thing at a time is done (what is asked meanwhile waits in a queue), and its
 * state is what the next `xl list` says, however the call ended: xl's own exit code proves nothing. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/xen_vm.h"
#include "io/child.h"
#include "io/listener.h"

static void end_domain(struct hv_vm *vm);

/* ---- the end ---- */

void xen_close_all(struct hv_vm *vm)
{
	int *fds[] = {&vm->net_fd, &vm->channel_fd, &vm->console_fd};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (*fds[i] >= 0)
			close(TAKE_FD(*fds[i]));
	xen_watch_destroy(TAKE_PTR(vm->watch));
	xen_relay_destroy(TAKE_PTR(vm->relay));
	xen_net_close(TAKE_PTR(vm->net));
	child_destroy(TAKE_PTR(vm->model_child));
	evtimer_stop(vm->timer);
}

static void gone(struct hv_vm *vm)
{
	struct hv_event e = {.type = HV_EVENT_GONE, .fd = -1, .state = vm->end_state, .reason = vm->reason};
	xen_close_all(vm);
	if (vm->nic)
		xen_net_remove(vm->id.uuid);
	xen_keeper_leave(&vm->keeper);
	xen_remove_files(vm->dir);
	hv_tell(&vm->teller, &e);
}

/* No domain, and no program of ours that works on one. */
static void maybe_gone(struct hv_vm *vm)
{
	if (vm->ending && vm->destroyed == UINT64_MAX && !vm->run && !vm->destroy)
		gone(vm);
}

void xen_end(struct hv_vm *vm, enum hv_state state, const char *reason)
{
	if (!vm->ending) {
		vm->ending = true;
		vm->end_state = vm->killed ? HV_SHUTDOWN : state;
		snprintf(vm->reason, sizeof(vm->reason), "%s", vm->killed ? "stopped" : reason);
	}
	end_domain(vm);
}

static void on_destroyed(void *arg, int status _unused_, const char *out _unused_,
			 size_t len _unused_, const char *errors _unused_)
{
	struct hv_vm *vm = arg;
	vm->destroy = NULL;
	/* Whatever it says: it is gone when the list says so. */
	vm->destroyed = xen_watch_ask(vm->watch);
}

/* While xl makes the domain there may be nothing to destroy yet, or half of it: its end comes first. */
static void end_domain(struct hv_vm *vm)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	if (vm->destroy || vm->destroyed == UINT64_MAX || (vm->run && vm->op == XEN_OP_MAKE))
		return;
	strvec_addv(&argv, "xl", "destroy", vm->id.name, NULL);
	if (xen_run(vm->loop, &argv, -1, on_destroyed, vm, &vm->destroy, NULL) < 0)
		evtimer_start(vm->timer, 1000, 0);
}

void xen_on_timer(void *arg)
{
	struct hv_vm *vm = arg;
	if (vm->destroyed == UINT64_MAX)
		maybe_gone(vm);
	else
		end_domain(vm);
}

static void on_model_end(void *arg, int status _unused_)
{
	struct hv_vm *vm = arg;
	if (!vm->ending)
		xen_end(vm, HV_CRASHED, "the domain's device model (qemu) ended; how is not known, it is no child of the agent");
}

/* ---- connections ---- */

static int connect_channel(struct hv_vm *vm, const char *name, struct err *err)
{
	if (strcmp(name, XEN_CHANNEL_0) != 0 && strcmp(name, XEN_CHANNEL_1) != 0)
		return err_set(err, EPROTO, "the domain has no channel for the guest agent");
	_cleanup_free_ char *path = path_join(vm->dir, name);
	return unix_connect(path, &vm->channel_fd, err);
}

/* Next line of what xenstore-read printed, terminated in place. */
static char *line(char **rest)
{
	static char none[1];
	char *s = strsep(rest, "\n");
	return s ? s : none;
}

static int take_connections(struct hv_vm *vm, char *text, struct err *err)
{
	char *rest = text, *tty = line(&rest), *channel = line(&rest), *model = line(&rest);
	vm->model = atoi(model);
	if (vm->model <= 0)
		return err_set(err, EPROTO, "the domain has no device model (qemu)");
	vm->model_child = child_adopt(vm->loop, vm->model, on_model_end, vm, err);
	if (!vm->model_child)
		return err_set(err,
			       ESRCH, "the domain's device model (qemu) ended; how is not known, it is no child of the agent");
	vm->console_fd = xen_open_console(tty, err);
	if (vm->console_fd < 0 || connect_channel(vm, channel, err) < 0)
		return -1;
	if (vm->nic && !(vm->net = xen_net_open(vm->loop, vm->id.uuid, &vm->net_fd, err)))
		return -1;
	return 0;
}

static bool tell_connections(struct hv_vm *vm)
{
	return hv_tell_fd(&vm->teller, HV_EVENT_CHANNEL, &vm->channel_fd) &&
	       hv_tell_fd(&vm->teller, HV_EVENT_CONSOLE, &vm->console_fd) &&
	       hv_tell_fd(&vm->teller, HV_EVENT_NET, &vm->net_fd);
}

/* ---- one call of xl at a time ---- */

bool xen_call(struct hv_vm *vm, enum xen_op op, struct strvec *argv, int fd3)
{
	struct err e = ERR_INIT;
	vm->op = op;
	vm->want = 0;
	if (xen_run(vm->loop, argv, fd3, xen_on_call, vm, &vm->run, &e) == 0)
		return true;
	vm->op = XEN_OP_NONE;
	xen_end(vm, HV_CRASHED, e.text);
	return false;
}

void xen_call_simple(struct hv_vm *vm, enum xen_op op, const char *verb)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	strvec_addv(&argv, "xl", verb, vm->id.name, NULL);
	xen_call(vm, op, &argv, -1);
}

static void connect_all(struct hv_vm *vm)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	strvec_add(&argv, "xenstore-read");
	strvec_addf(&argv, "/local/domain/%u/console/tty", vm->domain.id);
	strvec_addf(&argv, "/local/domain/%u/device/console/1/name", vm->domain.id);
	strvec_addf(&argv, "/local/domain/%u/image/device-model-pid", vm->domain.id);
	xen_call(vm, XEN_OP_CONNECT, &argv, -1);
}

static void start_failed(struct hv_vm *vm, const char *errors, int status)
{
	char text[400];
	xen_explain(vm->id.name, vm->from == HV_FROM_BOOT ? "xl create" : "xl restore", errors,
		    status, text, sizeof(text));
	xen_end(vm, HV_CRASHED, text);
}

static void op_done(struct hv_vm *vm)
{
	vm->op = XEN_OP_NONE;
	vm->want = 0;
	xen_next_op(vm);
}

static void on_connections(struct hv_vm *vm, int status, const char *out, const char *errors)
{
	char text[400];
	struct err e = ERR_INIT;
	_cleanup_free_ char *copy = xstrdup(out);
	vm->op = XEN_OP_NONE;
	if (status) {
		xen_explain(vm->id.name, "xenstore-read", errors, status, text, sizeof(text));
		xen_end(vm, HV_CRASHED, text);
		return;
	}
	if (take_connections(vm, copy, &e) < 0) {
		xen_end(vm, HV_CRASHED, e.text);
		return;
	}
	xen_keeper_made(vm->keeper, vm->model);
	if (vm->from == HV_FROM_BOOT && !vm->adopted) {
		xen_call_simple(vm, XEN_OP_UNPAUSE, "unpause");
		return;
	}
	if (hv_tell_state(&vm->teller, vm->domain.paused ? HV_PAUSED : HV_RUNNING,
			  vm->adopted ? "adopted" : "restored") &&
	    tell_connections(vm))
		xen_next_op(vm);
}

void xen_on_call(void *arg, int status, const char *out, size_t len _unused_, const char *errors)
{
	struct hv_vm *vm = arg;
	vm->run = NULL;
	if (vm->op == XEN_OP_SAVE) {
		vm->saved = status == 0;
		if (status)
			xen_explain(vm->id.name, "xl save", errors, status, vm->out_cause,
				    sizeof(vm->out_cause));
	}
	if (vm->ending) {
		if (vm->op == XEN_OP_MAKE)
			end_domain(vm);
		vm->op = XEN_OP_NONE;
		evtimer_start(vm->timer, 0, 0);
	} else if (vm->op == XEN_OP_MAKE && status) {
		vm->op = XEN_OP_NONE;
		start_failed(vm, errors, status);
	} else if (vm->op == XEN_OP_CONNECT) {
		on_connections(vm, status, out, errors);
	} else {
		vm->want = xen_watch_ask(vm->watch); /* the list has the last word */
	}
}

/* ---- the queue ---- */

void xen_next_op(struct hv_vm *vm)
{
	if (vm->op != XEN_OP_NONE || vm->ending || !vm->queued)
		return;
	enum xen_op op = vm->queue[0];
	vm->queued--;
	memmove(vm->queue, vm->queue + 1, vm->queued * sizeof(vm->queue[0]));
	switch (op) {
	case XEN_OP_PAUSE: xen_call_simple(vm, op, "pause"); break;
	case XEN_OP_RESUME: xen_call_simple(vm, op, "unpause"); break;
	case XEN_OP_SHUTDOWN: xen_call_simple(vm, op, "shutdown"); break;
	case XEN_OP_SAVE:
		/* The guest itself takes part in its save: a paused one is let run for that. */
		vm->was_running = vm->teller.state == HV_RUNNING;
		if (vm->was_running)
			xen_save_begin(vm);
		else
			xen_call_simple(vm, XEN_OP_WAKE, "unpause");
		break;
	default: break;
	}
}

int xen_enqueue(struct hv_vm *vm, enum xen_op op, struct err *err)
{
	if (vm->ending || vm->killed)
		return err_set(err, ESRCH, "the VM is ending");
	if (vm->queued == XEN_QUEUE_MAX)
		return err_set(err, EBUSY, "too much is asked of the VM at once");
	vm->queue[vm->queued++] = op;
	xen_next_op(vm);
	return 0;
}

/* How a pause or resume ended. */
static bool tell_paused(struct hv_vm *vm, bool paused, bool wanted)
{
	struct err e = ERR_INIT;
	if (paused == wanted)
		return hv_tell_state(&vm->teller, paused ? HV_PAUSED : HV_RUNNING,
				     paused ? "paused" : "resumed");
	err_set(&e, EIO, "xl did not do it");
	return hv_tell_failed(&vm->teller, wanted ? "pause" : "resume", &e);
}

static void settled(struct hv_vm *vm, const struct xen_domain *d)
{
	enum xen_op op = vm->op;
	switch (op) {
	case XEN_OP_MAKE:
		xen_relay_destroy(TAKE_PTR(vm->relay)); /* of the state it came from */
		connect_all(vm);
		return;
	case XEN_OP_UNPAUSE:
		if (d->paused) {
			xen_end(vm, HV_CRASHED, "xl unpause: the domain stays paused");
			return;
		}
		vm->op = XEN_OP_NONE;
		if (hv_tell_state(&vm->teller, HV_RUNNING, "started") && tell_connections(vm))
			xen_next_op(vm);
		return;
	case XEN_OP_WAKE: xen_save_begin(vm); return;
	case XEN_OP_SAVE:
		vm->want = UINT64_MAX;
		if (vm->relayed)
			xen_save_end(vm);
		return;
	case XEN_OP_RELEASE_SAVE:
		vm->op = XEN_OP_NONE;
		if (xen_save_failed(vm))
			xen_next_op(vm);
		return;
	case XEN_OP_PAUSE:
	case XEN_OP_RESUME:
		if (tell_paused(vm, d->paused, op == XEN_OP_PAUSE))
			op_done(vm);
		return;
	default: op_done(vm); return;
	}
}

/* Somebody paused it, or let it run, by another xl. */
static void unasked(struct hv_vm *vm, const struct xen_domain *d)
{
	if (vm->teller.state == HV_RUNNING && d->paused)
		hv_tell_state(&vm->teller, HV_PAUSED, "paused from outside");
	else if (vm->teller.state == HV_PAUSED && !d->paused)
		hv_tell_state(&vm->teller, HV_RUNNING, "resumed from outside");
}

static void on_no_domain(struct hv_vm *vm)
{
	if (vm->ending) {
		if (!vm->destroyed && vm->destroy)
			return; /* its own end comes */
		vm->destroyed = UINT64_MAX;
		evtimer_start(vm->timer, 0, 0); /* whoever is told may end the watch we are called by */
		return;
	}
	vm->destroyed = UINT64_MAX;
	vm->ending = true;
	vm->end_state = vm->killed ? HV_SHUTDOWN : HV_CRASHED;
	snprintf(vm->reason, sizeof(vm->reason), "%s",
		 vm->killed ? "stopped"
		 : vm->adopted && !vm->seen
			 ? "the domain ended while no agent looked; how is not known"
			 : "the domain was destroyed by somebody else");
	evtimer_start(vm->timer, 0, 0);
}

void xen_on_list(void *arg, const struct xen_domain *d, uint64_t asked)
{
	struct hv_vm *vm = arg;
	bool making = vm->op == XEN_OP_MAKE && (!vm->want || asked < vm->want);
	if (making && !vm->ending)
		return;
	if (vm->ending && (!vm->destroyed || asked < vm->destroyed))
		return;
	if (!d) {
		on_no_domain(vm);
		return;
	}
	if (vm->ending) {
		if (d->dying)
			on_no_domain(vm);
		else
			evtimer_start(vm->timer, 1000, 0); /* another xl had its lock */
		return;
	}
	vm->domain = *d;
	if (!vm->seen && vm->adopted) {
		vm->seen = true;
		vm->op = XEN_OP_NONE;
		if (!d->shutdown && !d->dying) {
			connect_all(vm);
			return;
		}
	}
	vm->seen = true;
	bool saving = vm->op == XEN_OP_SAVE && d->reason == XEN_REASON_SUSPEND;
	if ((d->shutdown && !saving) || d->dying)
		xen_end(vm, d->shutdown && d->reason == XEN_REASON_POWEROFF ? HV_SHUTDOWN : HV_CRASHED,
			xen_end_text(d->shutdown ? d->reason : -1));
	else if (vm->op == XEN_OP_NONE && !vm->queued)
		unasked(vm, d);
	else if (vm->op != XEN_OP_NONE && vm->want && vm->want != UINT64_MAX && asked >= vm->want)
		settled(vm, d);
}
