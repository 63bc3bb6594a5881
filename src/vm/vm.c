/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/time.h"
#include "net/address.h"
#include "vm/pid_note.h"
#include "vm/template.h"
#include "vm/vm_inside.h"

/* ---- states ---- */

#define BOOT_MAX 64 /* bytes of what a guest calls its boot: a kernel's boot id has 36 */
#define FALSE_STARTS_MAX                                                                           \
	8 /* boots that the guest ended by itself before it was ready (guest/timer.c) */

/* While it is adopted it passes through states that it was in before: only where it gets to is told. */
static bool untold(struct vm *vm)
{
	if (vm->adopting && (vm->state == VM_STARTING || vm->state == VM_BOOTING))
		return true;
	if (vm->adopting && !vm->reason[0])
		vm_set_reason(vm, "adopted");
	vm->adopting = false;
	return false;
}

static bool input(struct vm *vm, enum vm_input in, const char *reason)
{
	enum vm_state was = vm->state, next;
	if (!vm_state_next(was, in, &next)) {
		log_debug("%s: input %d ignored in state %s", vm->name, (int)in, vm_state_name(was));
		return false;
	}
	vm->state = next;
	vm_set_reason(vm, reason);
	if (vm_state_is_over(next) || next == VM_READY || next == VM_PAUSED)
		evtimer_stop(vm->timer);
	if (next == VM_READY && !vm->ready_after)
		vm->ready_after = MAX(loop_now(vm->loop) - vm->started, (uint64_t)1);
	if (next == VM_READY) {
		vm->set_up = true;
		vm->restored = false;
		vm->false_starts = 0;
	}
	if (was == next || untold(vm))
		return true;
	if (vm->profile->keep && vm_note_wanted(next))
		vm_note_write(vm, next);
	vm->ops->on_state(vm->arg, vm, was, vm->reason);
	return true;
}

static void end_save(struct vm *vm, const struct err *err)
{
	if (!vm->saving)
		return;
	saving_destroy(TAKE_PTR(vm->saving));
	vm->on_saved(vm->saved_arg, vm, err);
}

/* Lets go of everything that one run of the VM holds. */
static void let_go(struct vm *vm)
{
	struct err ended = ERR_INIT;
	err_set(&ended, ESHUTDOWN, "%s: ended while it was saved", vm->name);
	end_save(vm, &ended);
	vm_move_lost(vm);
	vm_hold_over(vm);
	restoring_destroy(TAKE_PTR(vm->restoring));
	struct channel *channel = TAKE_PTR(vm->channel);
	channel_destroy(channel); /* ends its requests: their owners may look at us, so the pointer is cleared before */
	hv_release(TAKE_PTR(vm->hv));
	scratch_destroy(TAKE_PTR(vm->scratch));
	vm_unbind(vm);
	vm->ran_ms = vm_uptime_ms(vm);
	vm->running = 0;
	vm->adopted = vm->attach = vm->set_up = vm->cloned = vm->restored = false;
	vm->writing = vm->pausing = vm->going_on = false;
	free(TAKE_PTR(vm->holder));
	vm->came[0] = '\0';
	free(TAKE_PTR(vm->boot));
	_cleanup_free_ char *pid = path_join(vm->dir, "pid");
	unlink(pid);
}

void vm_fail(struct vm *vm, const char *reason)
{
	char text[ERR_TEXT_MAX]; /* reason may live in what let_go() frees */
	snprintf(text, sizeof(text), "%s", reason);
	vm->restarting = false;
	let_go(vm);
	console_note(vm->console, text);
	input(vm, VM_IN_FAILED, text);
}

/* ---- the guest's channel ---- */

/* What a guest calls its boot may be anything, and is written into notes and messages: one word of ASCII. */
static char *boot_word(const char *said)
{
	char *word = xasprintf("%.*s", BOOT_MAX, said[0] ? said : "-");
	for (char *c = word; *c; c++)
		if ((unsigned char)*c <= ' ' || (unsigned char)*c > '~')
			*c = '?';
	return word;
}

static void on_hello(void *arg, const char *boot)
{
	struct vm *vm = arg;
	_cleanup_buf_ struct buf kv = BUF_INIT;
	_cleanup_free_ char *word = boot_word(boot);
	vm->heard++;
	bool same = vm->boot && strcmp(vm->boot, word) == 0;
	if (vm->boot && !same) {
		vm->set_up = false;
		vm->ops->on_note(vm->arg, vm, "the guest rebooted");
	}
	free(vm->boot);
	vm->boot = TAKE_PTR(word);
	/* A guest that was ready in this boot takes its set-up in before what is asked next: nobody has to wait. */
	if (!(same && vm->set_up && vm->state == VM_READY))
		input(vm, VM_IN_HELLO, "");
	if (vm->state == VM_BOOTING)
		evtimer_start(vm->timer, vm->profile->boot_timeout_ms, 0);
	vm->ops->make_setup(vm->arg, vm, &kv);
	if (vm->cloned && !vm->set_up)
		kv_adds(&kv, "clone", "1");
	channel_send(vm->channel, &kv);
}

static void on_ready(void *arg)
{
	input(arg, VM_IN_READY, "");
}

static void on_guest_failed(void *arg, const char *text)
{
	struct vm *vm = arg;
	_cleanup_free_ char *why = xasprintf("guest set-up: %s", text);
	if (!vm->set_up || vm->restored) {
		vm_fail(vm, why);
		return;
	}
	/* It was ready before, as who it is: that it cannot be told once more (its file system is full) is no reason to end it. */
	vm->ops->on_note(vm->arg, vm, why);
	input(vm, VM_IN_READY, why);
}

static void on_bye(void *arg, const char *how)
{
	struct vm *vm = arg;
	log_debug("%s: guest says bye: %s", vm->name, how);
	/* A guest that reboots in good order ends its hypervisor and is started anew; one that goes without a word
	 * (a kernel panic, a reset) has failed. */
	if (strcmp(how, "reboot") == 0 && vm->state != VM_STOPPING) {
		if (vm->state == VM_BOOTING && !vm->set_up && vm->false_starts++ == FALSE_STARTS_MAX) {
			vm_fail(vm, "the guest rebooted again and again instead of being ready");
			return;
		}
		vm->restarting = true;
		input(vm, VM_IN_STOP, "the guest reboots");
		evtimer_start(vm->timer, vm->profile->stop_timeout_ms, 0);
	}
}

static void on_guest_log(void *arg, const char *text)
{
	struct vm *vm = arg;
	vm->heard++;
	console_note(vm->console, text);
}

static void on_channel_close(void *arg, const struct err *err)
{
	struct vm *vm = arg;
	snprintf(vm->channel_why, sizeof(vm->channel_why), "%.199s", err->text);
	channel_destroy(TAKE_PTR(vm->channel));
	/* A channel that just ended does so with its hypervisor, which tells why. One that carried nonsense is of no
	 * use any more: a VM that boots has failed; one that works goes on, without its guest agent. */
	if (err->code != EPROTO)
		return;
	if (vm->state == VM_STARTING || vm->state == VM_BOOTING)
		vm_fail(vm, vm->channel_why);
	else
		vm->ops->on_note(vm->arg, vm, vm->channel_why);
}

static const struct channel_ops channel_ops = {
	.on_hello = on_hello,
	.on_ready = on_ready,
	.on_failed = on_guest_failed,
	.on_bye = on_bye,
	.on_log = on_guest_log,
	.on_close = on_channel_close,
};

/* ---- the hypervisor ---- */

static void boots_instead(struct vm *vm, const char *why)
{
	_cleanup_free_ char *text = xasprintf("it boots, its clone did not come up: %s", why);
	vm->ops->on_note(vm->arg, vm, text);
	vm->unclonable = true;
}

static void on_gone(struct vm *vm, const struct hv_event *e)
{
	if (vm->cloned && !vm->adopted && (vm->state == VM_STARTING || vm->state == VM_BOOTING)) {
		boots_instead(vm, e->reason ? e->reason : "");
		vm->restarting = true;
		input(vm, VM_IN_STOP, "");
	}
	bool restarting = vm->restarting;
	struct err err = ERR_INIT;
	char reason[ERR_TEXT_MAX], line[121] = "";
	if (vm->state == VM_STARTING || vm->state == VM_BOOTING)
		console_last_line(vm->console, line);
	snprintf(reason, sizeof(reason), "%.300s%s%s%s", e->reason ? e->reason : "",
		 line[0] ? "; the console's last line: \"" : "", line, line[0] ? "\"" : "");
	enum hv_state how = e->state;
	let_go(vm);
	console_note(vm->console, reason);
	if (restarting) /* that it ended is no news */
		reason[0] = '\0';
	input(vm, how == HV_CRASHED ? VM_IN_CRASHED : VM_IN_GONE, reason);
	restarting = restarting && vm->restarting; /* who was told may have stopped it */
	vm->restarting = false;
	if (restarting && vm_state_is_over(vm->state) && vm_start(vm, &err) < 0)
		log_debug("%s: not started anew: %s", vm->name, err.text); /* its state says why */
}

/* The guest's clock stood still while the VM was paused. */
static void send_time(struct vm *vm)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	if (!vm->channel)
		return;
	kv_adds(&kv, "verb", "time");
	kv_addu(&kv, "time_ns", time_wall_ns());
	channel_send(vm->channel, &kv);
}

/* ---- save and restore ---- */

static void on_saving_done(void *arg, const struct err *err)
{
	end_save(arg, err);
	vm_look_go_on(arg);
}

static void on_save_event(struct vm *vm, const struct hv_event *e)
{
	struct err err = ERR_INIT;
	int rc = 0;
	vm->writing = vm->writing && e->type == HV_EVENT_STREAM;
	if (e->type == HV_EVENT_STREAM && !vm->saving)
		close(e->fd);
	else if (e->type == HV_EVENT_STREAM)
		rc = saving_stream(vm->saving, e->fd, &err);
	else if (e->type == HV_EVENT_DONE && vm->saving)
		rc = saving_state_done(vm->saving, e->signature, &err);
	else if (e->type == HV_EVENT_FAILED)
		end_save(vm, e->err);
	if (rc < 0) {
		hv_cancel(vm->hv, NULL); /* of one that is done: nothing */
		end_save(vm, &err);
	}
	vm_look_go_on(vm);
}

static void go_on(struct vm *vm)
{
	struct err err = ERR_INIT;
	if (!vm->restoring || !vm->unpacked || !vm->arrived)
		return;
	restoring_destroy(TAKE_PTR(vm->restoring));
	if (hv_resume(vm->hv, &err) < 0)
		vm_fail(vm, err.text);
}

static void on_unpacked(void *arg, const struct err *err)
{
	struct vm *vm = arg;
	vm->unpacked = !err;
	if (err)
		vm_fail(vm, err->text);
	else
		go_on(vm);
}

/* Without it the VM runs on, but can be neither saved nor moved. */
static void adopt_scratch(struct vm *vm, pid_t vmm)
{
	struct err err = ERR_INIT;
	if (!vm->profile->scratch)
		return;
	vm->scratch = scratch_adopt(vm->dir, vmm, &err);
	if (!vm->scratch)
		log_warn("%s: it can be neither saved nor moved: %s", vm->name, err.text);
}

/* Some back ends know the VMM's process at once, some with the VM's first state. */
static void note_vmm(struct vm *vm)
{
	struct hv_stats st;
	if (vm->vmm_noted || hv_stats(vm->hv, &st, NULL) < 0 || st.pid <= 0)
		return;
	vm->vmm_noted = true;
	pid_note_write(vm->dir, st.pid);
	if (vm->adopting)
		adopt_scratch(vm, st.pid);
}

static void on_hv_state(struct vm *vm, const struct hv_event *e)
{
	note_vmm(vm);
	if (e->state == HV_PAUSED && vm_move_arrived(vm))
		return;
	if (vm->restoring && e->state == HV_PAUSED) {
		vm->arrived = true;
		go_on(vm);
		return;
	}
	if (e->state == HV_RUNNING) {
		if (!vm->running)
			vm->running = loop_now(vm->loop);
		vm->ran = true;
		vm_hold_over(vm);
		bool resumed = vm->state == VM_PAUSED;
		vm->going_on &= !resumed;
		input(vm, resumed ? VM_IN_RESUMED : VM_IN_RUNNING, vm->came);
		if (resumed)
			send_time(vm);
	} else if (e->state == HV_PAUSED) {
		if (vm->adopting && vm->set_up)
			vm->state = VM_READY; /* only such a VM is ever paused */
		vm->pausing = false;
		input(vm, VM_IN_PAUSED, vm->send_ops ? "it is being moved" : "");
		vm_look_go_on(vm);
	}
}

static void on_channel_fd(struct vm *vm, int fd)
{
	struct err err = ERR_INIT;
	bool fresh = vm->attach && vm->cloned && !vm->set_up && !vm->adopting;
	const char *boot = fresh ? template_boot(vm->profile->template) : "";
	channel_destroy(TAKE_PTR(vm->channel));
	vm->channel = (!vm->attach ? channel_create
		       : boot[0]   ? channel_take_up
				   : channel_attach)(vm->loop, fd, &channel_ops, vm, &err);
	bool notices = vm->adopting || vm->profile->hypervisor->hangs_up;
	if (vm->channel && vm->attach && !boot[0] && !notices)
		channel_knock_soon(vm->channel);
	vm->attach = false;
	if (!vm->channel)
		vm_fail(vm, err.text);
	else if (boot[0])
		on_hello(vm, boot); /* it said it before it was one */
}

static void on_hv_event(void *arg, const struct hv_event *e)
{
	struct vm *vm = arg;
	struct err err = ERR_INIT;
	if (vm_move_event(vm, e))
		return;
	switch (e->type) {
	case HV_EVENT_STATE: on_hv_state(vm, e); break;
	case HV_EVENT_CHANNEL: on_channel_fd(vm, e->fd); break;
	case HV_EVENT_CONSOLE:
		if (console_connect(vm->console, e->fd, &err) < 0)
			vm->ops->on_note(vm->arg, vm, err.text);
		break;
	case HV_EVENT_NET: vm->ops->on_net(vm->arg, vm, e->fd); break;
	case HV_EVENT_SWITCH:
	case HV_EVENT_PROGRESS: break;
	case HV_EVENT_STREAM:
	case HV_EVENT_DONE: on_save_event(vm, e); break;
	case HV_EVENT_FAILED: {
		if ((vm->saving || vm->writing) && strcmp(e->op, hv_cap_name(HV_CAP_SAVE)) == 0) {
			on_save_event(vm, e);
			break;
		}
		if (e->op && strcmp(e->op, hv_cap_name(HV_CAP_PAUSE)) == 0)
			vm_pause_failed(vm);
		_cleanup_free_ char *text = xasprintf("%s: %s", e->op ? e->op : "operation",
						      e->err ? e->err->text : "failed");
		vm->ops->on_note(vm->arg, vm, text);
		break;
	}
	case HV_EVENT_GONE: on_gone(vm, e); break;
	}
}

static void on_timeout(void *arg)
{
	struct vm *vm = arg;
	if (vm->state == VM_STOPPING) {
		if (vm->hv)
			hv_stop(vm->hv, HV_STOP_HARD, NULL);
		return;
	}
	if ((vm->adopting || (vm->came[0] && vm->running)) &&
	    vm->set_up) { /* it runs, as before; what became of its guest agent is another matter */
		channel_destroy(TAKE_PTR(vm->channel));
		snprintf(vm->channel_why, sizeof(vm->channel_why), "it did not answer after %s",
			 vm->adopting ? "the agent's restart" : "the move");
		input(vm, VM_IN_READY, vm->channel_why);
		return;
	}
	char line[121];
	console_last_line(vm->console, line);
	_cleanup_free_ char *why = xasprintf(
		"not ready within %" PRIu64 " s: %s%s%s%s", vm->profile->boot_timeout_ms / 1000,
		vm->boot ? "the guest agent came up but its set-up did not end"
			 : "no sign of the guest agent",
		line[0] ? "; the console's last line: \"" : "", line, line[0] ? "\"" : "");
	vm_fail(vm, why);
}

/* Where the state comes from; ret_fd is to be closed after the start. */
static int add_saved(struct vm *vm, struct hv_spec *spec, int *ret_fd, struct err *err)
{
	vm_move_add(vm, spec);
	vm->cloned = !vm->restoring && !vm->on_arrived && vm->profile->template && !vm->unclonable;
	vm->attach |= vm->cloned;
	if (!vm->restoring)
		return vm->cloned ? template_use(vm->profile->template, spec, ret_fd, err) : 0;
	if (restoring_state(vm->restoring, on_unpacked, vm, ret_fd, err) < 0)
		return -1;
	spec->from = HV_FROM_SAVE;
	spec->from_fd = *ret_fd;
	spec->signature = restoring_saved(vm->restoring)->signature;
	return 0;
}

/* scratch: path or NULL; borrowed, as all that is in it. */
static struct hv_spec make_spec(const struct vm *vm, const char *scratch)
{
	const struct vm_profile *p = vm->profile;
	struct hv_spec spec = {
		.name = vm->name,
		.rank = vm->rank,
		.cpus = p->cpus,
		.memory = p->memory,
		.kernel = p->kernel,
		.vmlinux = p->vmlinux,
		.initrd = p->initrd,
		.cmdline = p->cmdline,
		.root = p->root,
		.scratch = scratch,
		.dir = vm->dir,
		.machine = p->machine,
		.accel = p->accel,
		.trusted = p->trusted,
		.nic = p->nic,
		.tap = p->nic && p->tap,
		.outbound = p->outbound,
		.extra_args = &p->extra_args,
		.keep = p->keep && !hypervisor_lacks(p->hypervisor, NULL, HV_CAP_ADOPT),
		.pins = vm->cpus,
		.numa_nodes = vm->numa_nodes,
		.hugepages = p->hugepages,
		.mounts = p->mounts,
		.n_mounts = p->n_mounts,
		.devices = p->devices,
	};
	address_mac(vm->rank, spec.mac);
	return spec;
}

/* It could not begin as a clone. */
static int boot_after_all(struct vm *vm, int scratch_fd, struct err *err)
{
	boots_instead(vm, err->text);
	vm->cloned = vm->attach = false;
	*err = ERR_INIT;
	return vm_start_hv(vm, scratch_fd, err);
}

int vm_start_hv(struct vm *vm, int scratch_fd, struct err *err)
{
	const struct vm_profile *p = vm->profile;
	_cleanup_close_ int state_fd = -1, tap = -1;
	char scratch[64];
	snprintf(scratch, sizeof(scratch), "/proc/%d/fd/%d", (int)getpid(), scratch_fd);
	if (vm_bind(vm, err) < 0)
		return -1;
	struct hv_spec spec = make_spec(vm, scratch_fd >= 0 ? scratch : NULL);
	if (add_saved(vm, &spec, &state_fd, err) < 0)
		return vm->cloned ? boot_after_all(vm, scratch_fd, err) : -1;
	if (p->keep && (vm->cloned || vm->unclonable))
		vm_note_write(vm, vm->state); /* that of its start does not say whether it is a clone */
	if (spec.tap && vm->ops->make_tap(vm->arg, vm, &tap, err) < 0)
		return -1;
	spec.tap_fd = tap;
	if (hv_start(p->hypervisor, vm->loop, &spec, &p->probe, on_hv_event, vm, &vm->hv, err) < 0)
		return vm->cloned ? boot_after_all(vm, scratch_fd, err) : -1;
	vm->vmm_noted = false;
	note_vmm(vm);
	if (p->keep && vm->scratch)
		scratch_note(vm->scratch, vm->dir);
	return 0;
}

static void on_scratch(void *arg, int fd, const struct err *scratch_err)
{
	struct vm *vm = arg;
	struct err err = *scratch_err;
	if (vm->state != VM_STARTING) { /* stopped meanwhile */
		let_go(vm);
		input(vm, VM_IN_GONE, "");
		return;
	}
	if (fd < 0 || vm_start_hv(vm, fd, &err) < 0)
		vm_fail(vm, err.text);
}

/* ---- */

struct vm *vm_create(struct loop *l, uint32_t rank, const char *dir, const struct vm_profile *p,
		     const struct vm_ops *ops, void *arg, struct err *err)
{
	if (path_mkdirs(dir, 0700, err) < 0)
		return NULL;
	struct vm *vm = xcalloc(1, sizeof(*vm));
	*vm = (struct vm){
		.loop = l, .rank = rank, .dir = xstrdup(dir), .profile = p, .ops = ops, .arg = arg};
	snprintf(vm->name, sizeof(vm->name), "vm%u", rank);
	_cleanup_free_ char *log = path_join(dir, "console.log");
	vm->console = console_create(l, log);
	vm->timer = evtimer_create(l, on_timeout, vm);
	return vm;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	let_go(vm);
	console_destroy(vm->console);
	evtimer_destroy(vm->timer);
	path_remove(vm->dir, NULL);
	free(vm->dir);
	free(vm);
}

int vm_begin(struct vm *vm, struct err *err)
{
	if (vm_state_is_live(vm->state))
		return err_set(err, EBUSY, "%s: is %s", vm->name, vm_state_name(vm->state));
	vm->started = loop_now(vm->loop);
	vm->ready_after = 0;
	vm->ran = false;
	vm->ran_ms = 0;
	vm->pulse = (struct pulse){0};
	input(vm, VM_IN_START, "");
	evtimer_start(vm->timer, vm->profile->boot_timeout_ms, 0);
	return 0;
}

int vm_start(struct vm *vm, struct err *err)
{
	struct err why = ERR_INIT;
	if (vm_begin(vm, err) < 0)
		return -1;
	if (vm->profile->scratch) {
		vm->scratch = scratch_create(vm->loop, vm->profile->scratch_dir,
					     vm->profile->scratch, on_scratch, vm, &why);
		if (vm->scratch)
			return 0;
	} else if (vm_start_hv(vm, -1, &why) == 0) {
		return 0;
	}
	vm_fail(vm, why.text);
	return err_copy(err, &why);
}

bool vm_adopt(struct vm *vm)
{
	struct err err = ERR_INIT;
	enum vm_state was = vm_note_read(vm);
	if (was == VM_PLANNED || vm_state_is_over(was)) {
		pid_note_kill(vm->dir); /* of a run that began, and could not be noted */
		vm->state = was;
		vm->running = 0;
		free(TAKE_PTR(vm->boot));
		return false;
	}
	vm_set_reason(vm, "");
	vm->state = VM_STARTING;
	vm->started = loop_now(vm->loop);
	vm->adopting = vm->adopted = vm->attach = true;
	vm->set_up = was == VM_READY;
	vm_hold_adopt(vm);
	evtimer_start(vm->timer, vm->profile->boot_timeout_ms, 0);
	vm_bind_adopted(vm);
	struct hv_spec spec = make_spec(vm, NULL);
	if (hv_adopt(vm->profile->hypervisor, vm->loop, &spec, on_hv_event, vm, &vm->hv, &err) == 0) {
		note_vmm(vm);
		return true;
	}
	pid_note_kill(vm->dir); /* a VMM that was started, and not noted so that it can be adopted */
	_cleanup_free_ char *why = xasprintf("ended with its agent: %s", err.text);
	vm_fail(vm, err.code == ENOENT ? "ended with its agent, which had just begun to start it" : why);
	return true;
}

bool vm_is_adopting(const struct vm *vm)
{
	return vm->adopting;
}

uint64_t vm_ran_ms(const struct vm *vm)
{
	return vm->ran_ms;
}

bool vm_has_run(const struct vm *vm)
{
	return vm->ran;
}

bool vm_was_adopted(const struct vm *vm)
{
	return vm->adopted;
}

bool vm_is_set_up(const struct vm *vm)
{
	return vm->set_up;
}

/* Its disk first, so that it is whole before the VM is. */
static int restore(struct vm *vm, const char *dir, struct err *err)
{
	uint64_t size = vm->profile->scratch;
	vm->unpacked = vm->arrived = false;
	vm->restoring = restoring_create(vm->loop, dir, vm->rank, err);
	if (!vm->restoring)
		return -1;
	if (restoring_saved(vm->restoring)->scratch != size)
		return err_set(err, EINVAL, "%s: saved with another size of scratch disk", vm->name);
	vm->attach = vm->set_up = vm->restored = true;
	if (!size)
		return vm_start_hv(vm, -1, err);
	_cleanup_free_ char *disk = restoring_disk(vm->restoring),
			    *id = restoring_pack_id(vm->restoring);
	vm->scratch = scratch_restore(vm->loop, vm->profile->scratch_dir, size, disk, id,
				      on_scratch, vm, err);
	return vm->scratch ? 0 : -1;
}

int vm_restore(struct vm *vm, const char *dir, struct err *err)
{
	struct err why = ERR_INIT;
	if (vm_begin(vm, err) < 0)
		return -1;
	if (restore(vm, dir, &why) == 0)
		return 0;
	vm_fail(vm, why.text);
	return err_copy(err, &why);
}

int vm_save(struct vm *vm, const char *dir, const char *id,
	    void (*done)(void *arg, struct vm *vm, const struct err *err), void *arg, struct err *err)
{
	if (vm_move_holds(vm, "save", err))
		return -1;
	if (vm->state != VM_PAUSED || vm->saving)
		return err_set(err, EBUSY, "%s: cannot save: it is %s", vm->name,
			       vm->saving ? "being saved" : vm_state_name(vm->state));
	if (vm->profile->scratch && !vm->scratch)
		return err_set(err, ENOTSUP, "%s: cannot save: its scratch disk was made by an agent that has died",
			       vm->name);
	if (hv_save(vm->hv, err) < 0)
		return -1;
	vm->writing = true;
	vm->on_saved = done;
	vm->saved_arg = arg;
	vm->saving = saving_create(vm->loop, dir, id, vm->rank, scratch_fd(vm->scratch),
				   on_saving_done, vm);
	return 0;
}

void vm_save_forget(struct vm *vm)
{
	if (!vm->saving)
		return;
	saving_destroy(TAKE_PTR(vm->saving));
	if (vm->hv)
		hv_cancel(vm->hv, NULL);
	vm_look_go_on(vm);
}

static int graceful(struct vm *vm)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	if (!vm->channel || vm->state != VM_READY)
		return -1;
	kv_adds(&kv, "verb", "shutdown");
	kv_adds(&kv, "how", "poweroff");
	channel_send(vm->channel, &kv);
	evtimer_start(vm->timer, vm->profile->stop_timeout_ms, 0);
	return 0;
}

int vm_stop(struct vm *vm, enum hv_stop how, struct err *err)
{
	vm->restarting = false; /* whoever stops it wants it stopped */
	if (vm_state_is_over(vm->state))
		return 0;
	if (vm->state == VM_STOPPING && how == HV_STOP_GRACEFUL)
		return 0;
	bool asked = how == HV_STOP_GRACEFUL && graceful(vm) == 0;
	if (vm->state != VM_STOPPING)
		input(vm, VM_IN_STOP, "");
	if (asked || vm->state == VM_STOPPED)
		return 0;
	if (vm->hv)
		return hv_stop(vm->hv, HV_STOP_HARD, err);
	/* Only its scratch disk is being made: nothing of a hypervisor will tell that it is over. */
	let_go(vm);
	input(vm, VM_IN_GONE, "");
	return 0;
}

int vm_restart(struct vm *vm, struct err *err)
{
	if (!vm_state_is_live(vm->state))
		return vm_start(vm, err);
	if (vm_stop(vm, HV_STOP_HARD, err) < 0)
		return -1;
	if (vm_state_is_over(vm->state)) /* at once: no event will follow */
		return vm_start(vm, err);
	vm->restarting = true;
	return 0;
}
