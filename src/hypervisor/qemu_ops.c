/* SPDX-License-Identifier: Apache-2.0 */
/* What is done with a VM that runs under QEMU. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/proc.h"
#include "hypervisor/qemu_vm.h"

#define QEMU_LOSES                                                                                 \
	"TCG of QEMU 8 loses writes of a guest that runs while it is sent (mended in 9.0)"

/* QMP is gone before the process is; whoever calls then is about to hear that it ended. */
static int check_qmp(struct hv_vm *vm, struct err *err)
{
	return vm->qmp && !vm->killed ? 0 : err_set(err, ESRCH, "the VM is ending");
}

int qemu_stop(struct hv_vm *vm, enum hv_stop how, struct err *err)
{
	if (how == HV_STOP_GRACEFUL) {
		if (check_qmp(vm, err) < 0)
			return -1;
		qmp_command(vm->qmp, "system_powerdown", NULL, QEMU_COMMAND_MS, NULL, NULL);
		return 0;
	}
	vm->killed = true;
	if (vm->child) /* else it had ended before it was adopted, and that is about to be told */
		child_kill(vm->child, SIGKILL);
	return 0;
}

static void on_pause_done(void *arg, json_t *ret _unused_, const struct err *err)
{
	struct hv_vm *vm = arg;
	if (err)
		hv_tell_failed(&vm->to, "pause", err);
}

static void on_resume_done(void *arg, json_t *ret _unused_, const struct err *err)
{
	struct hv_vm *vm = arg;
	if (err)
		hv_tell_failed(&vm->to, "resume", err);
}

static void on_reset_done(void *arg, json_t *ret _unused_, const struct err *err)
{
	struct hv_vm *vm = arg;
	if (err)
		hv_tell_failed(&vm->to, "reset", err);
}

int qemu_pause(struct hv_vm *vm, struct err *err)
{
	if (check_qmp(vm, err) < 0)
		return -1;
	qmp_command(vm->qmp, "stop", NULL, QEMU_COMMAND_MS, on_pause_done, vm);
	return 0;
}

int qemu_resume(struct hv_vm *vm, struct err *err)
{
	if (check_qmp(vm, err) < 0)
		return -1;
	qmp_command(vm->qmp, "cont", NULL, QEMU_COMMAND_MS, on_resume_done, vm);
	return 0;
}

/* -no-reboot is lifted for the one reset that was asked for. */
int qemu_reset(struct hv_vm *vm, struct err *err)
{
	if (check_qmp(vm, err) < 0)
		return -1;
	qmp_command(vm->qmp, "set-action", json_pack("{s:s}", "reboot", "reset"), QEMU_COMMAND_MS,
		    NULL, NULL);
	qmp_command(vm->qmp, "system_reset", NULL, QEMU_COMMAND_MS, on_reset_done, vm);
	qmp_command(vm->qmp, "set-action", json_pack("{s:s}", "reboot", "shutdown"),
		    QEMU_COMMAND_MS, NULL, NULL);
	return 0;
}

/* ---- save and migrate out ---- */

static void on_out_stream(void *arg, int fd)
{
	struct hv_vm *vm = arg;
	hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_STREAM,
					    .state = vm->to.state,
					    .op = hv_cap_name(vm->out_op),
					    .signature = vm->signature,
					    .fd = fd});
}

static void on_out_done(void *arg, uint64_t bytes)
{
	struct hv_vm *vm = arg;
	bool stood = vm->out.notes == QEMU_NOTES_NONE;
	/* QEMU stopped the guest itself where it still ran; its STOP came before. */
	hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_DONE,
					    .state = vm->to.state,
					    .op = hv_cap_name(vm->out_op),
					    .fd = -1,
					    .signature = vm->signature,
					    .reason = stood ? "not live (" QEMU_LOSES
							      "): it stood still all the time"
							    : NULL,
					    .bytes = bytes});
}

static void on_out_failed(void *arg, const struct err *err)
{
	struct hv_vm *vm = arg;
	if (vm->was_running && vm->qmp)
		qmp_command(vm->qmp, "cont", NULL, QEMU_COMMAND_MS, NULL, NULL);
	hv_tell_failed(&vm->to, hv_cap_name(vm->out_op), err);
}

static void on_out_switch(void *arg)
{
	struct hv_vm *vm = arg;
	hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_SWITCH,
					    .state = vm->to.state,
					    .op = hv_cap_name(vm->out_op),
					    .fd = -1});
}

static void on_out_lost(void *arg, const struct err *err)
{
	qemu_give_up(arg, err->text);
}

static const struct qemu_out_ops out_ops = {.on_stream = on_out_stream,
					    .on_done = on_out_done,
					    .on_failed = on_out_failed,
					    .on_switch = on_out_switch,
					    .on_lost = on_out_lost};

static enum qemu_notes notes_of(const struct hv_vm *vm)
{
	return qemu_notes(strstr(vm->signature, " accel=tcg ") ? "tcg" : "kvm", vm->qemu);
}

static int begin_out(struct hv_vm *vm, enum hv_cap op, struct err *err)
{
	if (check_qmp(vm, err) < 0)
		return -1;
	if (vm->to.state != HV_RUNNING && vm->to.state != HV_PAUSED)
		return err_set(err, EBUSY, "the VM is %s", hv_state_name(vm->to.state));
	if (vm->post_copy)
		return err_set(err, EBUSY, "some of its memory is still on its way here");
	vm->out_op = op;
	vm->was_running = vm->to.state == HV_RUNNING;
	bool runs_on = vm->was_running && (op == HV_CAP_MIGRATE_OUT || op == HV_CAP_POST_COPY);
	return qemu_out_begin(&vm->out, vm->loop, vm->qmp, vm->dir,
			      op == HV_CAP_SNAPSHOT    ? QEMU_FLOW_TEMPLATE
			      : op == HV_CAP_POST_COPY ? QEMU_FLOW_POST_COPY
						       : QEMU_FLOW_ALL,
			      runs_on ? notes_of(vm) : QEMU_NOTES_GOOD, &out_ops, vm, err);
}

int qemu_save(struct hv_vm *vm, struct err *err)
{
	/* Stopped first: nothing is sent twice, and the stream is as short as it can be. */
	if (check_qmp(vm, err) < 0)
		return -1;
	if (vm->to.state == HV_RUNNING)
		qmp_command(vm->qmp, "stop", NULL, QEMU_COMMAND_MS, NULL, NULL);
	if (begin_out(vm, HV_CAP_SAVE, err) == 0)
		return 0;
	if (vm->to.state == HV_RUNNING)
		qmp_command(vm->qmp, "cont", NULL, QEMU_COMMAND_MS, NULL, NULL);
	return -1;
}

int qemu_migrate_out(struct hv_vm *vm, struct err *err)
{
	return begin_out(vm, HV_CAP_MIGRATE_OUT, err);
}

int qemu_post_copy(struct hv_vm *vm, struct err *err)
{
	if (vm->to.state != HV_RUNNING)
		return err_set(err, EBUSY, "the VM is %s", hv_state_name(vm->to.state));
	if (notes_of(vm) == QEMU_NOTES_NONE)
		return err_set(err, ENOTSUP, "post-copy: not supported: " QEMU_LOSES);
	return begin_out(vm, HV_CAP_POST_COPY, err);
}

int qemu_switch_over(struct hv_vm *vm, struct err *err)
{
	if (check_qmp(vm, err) < 0)
		return -1;
	qemu_out_switch(&vm->out);
	return 0;
}

/* Not stopped before: the state says "running" then, and so will the clones. */
int qemu_snapshot(struct hv_vm *vm, struct err *err)
{
	if (!vm->template)
		return err_set(err, EINVAL, "it was not started as a template");
	if (vm->to.state != HV_RUNNING)
		return err_set(err, EBUSY, "the VM is %s", hv_state_name(vm->to.state));
	return begin_out(vm, HV_CAP_SNAPSHOT, err);
}

int qemu_cancel(struct hv_vm *vm, struct err *err)
{
	if (check_qmp(vm, err) < 0)
		return -1;
	qemu_out_cancel(&vm->out);
	return 0;
}

int qemu_pin(struct hv_vm *vm, unsigned vcpu, int cpu, struct err *err)
{
	if (vcpu >= vm->vcpus)
		return err_set(err, EINVAL, "vCPU %u: it has %u", vcpu, vm->vcpus);
	if (qemu_pin_check(cpu, err) < 0)
		return -1;
	if (!vm->tids[vcpu])
		return err_set(err, EBUSY, "the VM is still starting");
	int was = vm->on[vcpu];
	vm->on[vcpu] = cpu;
	if (qemu_pin_apply(vm->tids, vm->on, vm->vcpus, vcpu, err) == 0)
		return 0;
	vm->on[vcpu] = was;
	return -1;
}

int qemu_stats(struct hv_vm *vm, struct hv_stats *ret, struct err *err)
{
	struct hv_stats s = {.pid = vm->child ? child_pid(vm->child) : 0};
	if (proc_usage(s.pid, &s.rss, &s.cpu_ms, err) < 0)
		return -1;
	s.rss += vm->reserved;
	*ret = s;
	return 0;
}
