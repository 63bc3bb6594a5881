/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM is and has, for who asks. */
#include <errno.h>

#include "vm/vm_inside.h"

bool vm_is_restarting(const struct vm *vm)
{
	return vm->restarting;
}

uint32_t vm_rank(const struct vm *vm)
{
	return vm->rank;
}

const char *vm_name(const struct vm *vm)
{
	return vm->name;
}

enum vm_state vm_get_state(const struct vm *vm)
{
	return vm->state;
}

const char *vm_reason(const struct vm *vm)
{
	return vm->reason;
}

uint64_t vm_uptime_ms(const struct vm *vm)
{
	return vm->running ? loop_now(vm->loop) - vm->running : 0;
}

uint64_t vm_ready_ms(const struct vm *vm)
{
	return vm->ready_after;
}

struct channel *vm_channel(struct vm *vm, struct err *err)
{
	if (vm->state == VM_READY && vm->channel)
		return vm->channel;
	if (vm->state == VM_READY)
		err_set(err, ENOTCONN, "%s: its guest agent is gone (%s); restart the VM", vm->name,
			vm->channel_why);
	else
		err_set(err, vm_state_is_over(vm->state) ? ESHUTDOWN : EBUSY,
			"%s: is %s, not ready", vm->name, vm_state_name(vm->state));
	return NULL;
}

struct console *vm_console(struct vm *vm)
{
	return vm->console;
}

int vm_stats(struct vm *vm, struct hv_stats *ret, struct err *err)
{
	if (!vm->hv)
		return err_set(err, ESHUTDOWN, "%s: does not run", vm->name);
	return hv_stats(vm->hv, ret, err);
}
