/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/pulse.h"

#include <errno.h>

#include "vm/vm_inside.h"

/* A VMM whose guest waits for a wake-up that was lost uses nothing. The kernel counts in ticks of 10 ms. */
#define CPU_LEAST_MS 20
#define CPU_SHARE 500 /* one part in so many of a CPU */

static bool gave_sign(const struct pulse *p, uint64_t said, uint64_t cpu_ms)
{
	/* Less than before: processes that it was the sum of have ended. */
	if (said != p->said || !cpu_ms || cpu_ms < p->cpu_ms)
		return true;
	return cpu_ms - p->cpu_ms >= MAX((uint64_t)CPU_LEAST_MS, p->silent / CPU_SHARE);
}

uint64_t pulse_look(struct pulse *p, uint64_t now, uint64_t said, uint64_t cpu_ms)
{
	if (p->begun)
		p->silent += MIN(now - p->looked, (uint64_t)PULSE_LOOK_MAX_MS);
	if (!p->begun || gave_sign(p, said, cpu_ms))
		*p = (struct pulse){.begun = true, .said = said, .cpu_ms = cpu_ms};
	p->looked = now;
	return p->silent;
}

/* What came here with its memory, or was ready before, is never taken for one that only boots. */
static bool boots(const struct vm *vm)
{
	return vm->state == VM_BOOTING && vm->hv && !vm->set_up && !vm->adopting && !vm->came[0];
}

uint64_t vm_silent_ms(struct vm *vm)
{
	struct hv_stats st;
	if (!boots(vm) || vm_stats(vm, &st, NULL) < 0) {
		vm->pulse = (struct pulse){0};
		return 0;
	}
	return pulse_look(&vm->pulse, loop_now(vm->loop), console_said(vm->console) + vm->heard,
			  st.cpu_ms);
}

int vm_boot_anew(struct vm *vm, struct err *err)
{
	if (!boots(vm))
		return err_set(err, EBUSY, "%s: does not boot", vm->name);
	vm->unclonable |= vm->cloned;
	return vm_restart(vm, err);
}
