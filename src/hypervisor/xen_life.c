/* SPDX-License-Identifier: Apache-2.0 */
/* A VM from its first call of xl to its end. One thing at a time is done (what is asked meanwhile waits in a queue), and its
 * state is what the next `xl list` says, however the call ended: xl's own exit code proves nothing. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "hypervisor/xen_vm.h"
#include "io/child.h"
#include "io/listener.h"

#define DESTROYS 10 /* tries to destroy a domain; a keeper goes on for a while */
#define ENDED_UNSEEN "the domain ended while no agent looked; how is not known"
#define SUSPENDED_MS 180000 /* a guest that is being saved by an xl of before; then it stays so */

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
	evtimer_stop(vm->begin);
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
	if (vm->ending && vm->destroyed == UINT64_MAX && !vm->run && !vm->hold && !vm->destroy)
		gone(vm);
}

void xen_end(struct hv_vm *vm, enum hv_state state, const char *reason)
{
	if (!vm->ending) {
		vm->ending = true;
		vm->end_state = vm->killed ? HV_SHUTDOWN : state;
		snprintf(vm->reason, sizeof(vm->reason), "%s", vm->killed ? "stopped" : reason);
	}
	if (vm->op == XEN_OP_MAKE || vm->live)
		xen_relay_destroy(TAKE_PTR(vm->relay)); /* so that a restore or a live migration comes to its end */
	end_domain(vm);
}

static void on_destroyed(void *arg, int status, const char *out _unused_, size_t len _unused_,
			 const char *errors)
{
	struct hv_vm *vm = arg;
	vm->destroy = NULL;
	vm->destroys++;
	if (status)
		xen_explain(vm->id.name, "xl destroy", errors, status, vm->undestroyed,
			    sizeof(vm->undestroyed));
	/* Whatever it says: it is gone when the list says so. */
	vm->destroyed = xen_watch_ask(vm->watch);
}

/* While xl makes the domain there may be nothing to destroy yet, or half of it: its end comes first. */
static void end_domain(struct hv_vm *vm)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	struct err e = ERR_INIT;
	if (vm->destroy || vm->destroyed == UINT64_MAX || (vm->run && vm->op == XEN_OP_MAKE))
		return;
	strvec_addv(&argv, "xl", "destroy", vm->id.name, NULL);
	if (xen_run(vm->loop, &argv, -1, XEN_CHANGE_MS, on_destroyed, vm, &vm->destroy, &e) < 0) {
		vm->destroys++;
		snprintf(vm->undestroyed, sizeof(vm->undestroyed), "%.199s", e.text);
		evtimer_start(vm->timer, 1000, 0);
	}
}

/* Nobody can say that it is gone; the VM ends with that, and not never. */
static void give_up(struct hv_vm *vm, const char *why)
{
	size_t n = strlen(vm->reason);
	snprintf(vm->reason + n, sizeof(vm->reason) - n, "; its domain %s may still be there: %s",
		 vm->id.name, why);
	vm->end_state = HV_CRASHED;
	vm->destroyed = UINT64_MAX;
	xen_keeper_end(&vm->keeper);
	evtimer_start(vm->timer, 0, 0);
}

void xen_on_timer(void *arg)
{
	struct hv_vm *vm = arg;
	if (vm->destroyed == UINT64_MAX)
		maybe_gone(vm);
	else if (vm->destroys >= DESTROYS)
		give_up(vm, vm->undestroyed[0] ? vm->undestroyed : "xl destroy did not do it");
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

bool xen_call(struct hv_vm *vm, enum xen_op op, struct strvec *argv, int fd3, unsigned bound_ms)
{
	struct err e = ERR_INIT;
	vm->op = op;
	vm->want = 0;
	if (xen_run(vm->loop, argv, fd3, bound_ms, xen_on_call, vm, &vm->run, &e) == 0)
		return true;
	vm->op = XEN_OP_NONE;
	xen_end(vm, HV_CRASHED, e.text);
	return false;
}

void xen_call_simple(struct hv_vm *vm, enum xen_op op, const char *verb)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	strvec_addv(&argv, "xl", verb, vm->id.name, NULL);
	xen_call(vm, op, &argv, -1, XEN_CHANGE_MS);
}

static void connect_all(struct hv_vm *vm)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	strvec_add(&argv, "xenstore-read");
	strvec_addf(&argv, "/local/domain/%u/console/tty", vm->domain.id);
	strvec_addf(&argv, "/local/domain/%u/device/console/1/name", vm->domain.id);
	strvec_addf(&argv, "/local/domain/%u/image/device-model-pid", vm->domain.id);
	xen_call(vm, XEN_OP_CONNECT, &argv, -1, XEN_READ_MS);
}

bool xen_moves(void *arg)
{
	struct hv_vm *vm = arg;
	bool saves = vm->op == XEN_OP_SAVE;
	if (!vm->relay || vm->ending)
		return false;
	uint64_t bytes = xen_relay_bytes(vm->relay);
	bool moved = bytes != vm->moved, theirs = xen_relay_full(vm->relay) == saves;
	vm->moved = bytes;
	return moved || (theirs && !vm->relayed);
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
		/* Listed still, and no longer in xenstore: it is being taken apart. */
		xen_end(vm, HV_CRASHED,
			vm->adopted && strstr(errors, "couldn't read path") ? ENDED_UNSEEN : text);
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
	if (vm->op == XEN_OP_SAVE && xen_save_exited(vm, status, errors))
		return;
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
	} else if (vm->op == XEN_OP_PIN) {
		if (xen_pin_ended(vm, status, errors) && !xen_pin_next(vm))
			xen_next_op(vm);
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
	case XEN_OP_SAVE: xen_save_next(vm); break;
	case XEN_OP_PIN:
		if (!xen_pin_next(vm))
			xen_next_op(vm);
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
	evtimer_start(vm->begin, 0, 0);
	return 0;
}

void xen_on_begin(void *arg)
{
	xen_next_op(arg);
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

/* Somebody paused it, or let it run, by another xl. */
static bool unasked(struct hv_vm *vm, const struct xen_domain *d)
{
	if (vm->teller.state == HV_RUNNING && d->paused)
		return hv_tell_state(&vm->teller, HV_PAUSED, "paused from outside");
	if (vm->teller.state == HV_PAUSED && !d->paused)
		return hv_tell_state(&vm->teller, HV_RUNNING, "resumed from outside");
	return true;
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
	case XEN_OP_WAKE:
		if (d->paused)
			snprintf(vm->out_cause, sizeof(vm->out_cause), "xl unpause did not do it");
		if (d->paused || vm->cancelled)
			xen_save_end(vm);
		else
			xen_save_begin(vm);
		return;
	case XEN_OP_SAVE:
		vm->want = UINT64_MAX;
		if (vm->relayed)
			xen_save_end(vm);
		return;
	case XEN_OP_RELEASE_SAVE:
		vm->op = XEN_OP_NONE;
		if (unasked(vm, d) && xen_save_failed(vm))
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
		 vm->killed                 ? "stopped"
		 : vm->adopted && !vm->seen ? ENDED_UNSEEN
					    : "the domain was destroyed by somebody else");
	evtimer_start(vm->timer, 0, 0);
}

/* What was asked of it ends, as far as one can: how the VM is nobody can tell. */
static void on_no_list(struct hv_vm *vm, uint64_t asked, const char *why)
{
	struct err e = ERR_INIT;
	enum xen_op op = vm->op;
	if (vm->ending) {
		if (vm->destroyed && asked >= vm->destroyed)
			give_up(vm, why);
		return;
	}
	if (op == XEN_OP_NONE || !vm->want || vm->want == UINT64_MAX || asked < vm->want)
		return;
	err_set(&e, EIO, "%s", why);
	switch (op) {
	case XEN_OP_PAUSE:
	case XEN_OP_RESUME:
		if (hv_tell_failed(&vm->teller, op == XEN_OP_PAUSE ? "pause" : "resume", &e))
			op_done(vm);
		return;
	case XEN_OP_MAKE:
	case XEN_OP_UNPAUSE: xen_end(vm, HV_CRASHED, why); return;
	case XEN_OP_WAKE:
	case XEN_OP_SAVE:
	case XEN_OP_RELEASE_SAVE:
		snprintf(vm->out_cause, sizeof(vm->out_cause), "%.299s", why);
		xen_relay_destroy(TAKE_PTR(vm->relay));
		if (xen_save_failed(vm))
			op_done(vm);
		return;
	default: op_done(vm);
	}
}

/* The agent before us died while it saved: its xl, whose bytes nobody takes any more, lets the guest run again. */
static bool in_a_save(struct hv_vm *vm, const struct xen_domain *d)
{
	if (!d->shutdown || d->dying || d->reason != XEN_REASON_SUSPEND)
		return false;
	if (!vm->suspended_at)
		vm->suspended_at = time_mono_ms();
	if (time_mono_ms() - vm->suspended_at < SUSPENDED_MS)
		return true;
	xen_end(vm, HV_CRASHED, "it stays suspended: its agent ended while it was being saved");
	return true;
}

static void on_ending(struct hv_vm *vm, const struct xen_domain *d)
{
	if (!d || d->dying)
		on_no_domain(vm);
	else
		evtimer_start(vm->timer, 1000, 0); /* another xl had its lock */
}

static void on_domain(struct hv_vm *vm, const struct xen_domain *d, uint64_t asked)
{
	bool saving = vm->op == XEN_OP_SAVE && d->reason == XEN_REASON_SUSPEND;
	if ((d->shutdown && !saving) || d->dying)
		xen_end(vm, d->shutdown && d->reason == XEN_REASON_POWEROFF ? HV_SHUTDOWN : HV_CRASHED,
			xen_end_text(d->shutdown ? d->reason : -1));
	else if (d->shutdown && vm->out_op == HV_CAP_MIGRATE_OUT && vm->teller.state == HV_RUNNING &&
		 !hv_tell_state(&vm->teller, HV_PAUSED, "stands still, to be moved"))
		return;
	else if (vm->op == XEN_OP_NONE && !vm->queued)
		unasked(vm, d);
	else if (vm->op != XEN_OP_NONE && vm->want && vm->want != UINT64_MAX && asked >= vm->want)
		settled(vm, d);
}

void xen_on_list(void *arg, const struct xen_domain *d, uint64_t asked, const char *why)
{
	struct hv_vm *vm = arg;
	bool making = vm->op == XEN_OP_MAKE && (!vm->want || asked < vm->want);
	if (making && !vm->ending)
		return;
	if (vm->ending && (!vm->destroyed || asked < vm->destroyed))
		return;
	if (why) {
		on_no_list(vm, asked, why);
		return;
	}
	if (vm->ending) {
		on_ending(vm, d);
		return;
	}
	if (!d) {
		on_no_domain(vm);
		return;
	}
	if (vm->adopted && !vm->seen && in_a_save(vm, d))
		return;
	bool first = !vm->seen;
	vm->domain = *d;
	vm->seen = true;
	if (first && vm->adopted && !d->shutdown && !d->dying)
		connect_all(vm);
	else
		on_domain(vm, d, asked);
}
