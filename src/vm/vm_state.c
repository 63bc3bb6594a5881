/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/vm_state.h"

#include "base/macros.h"

static const char *const names[] = {
	[VM_PLANNED] = "planned", [VM_STARTING] = "starting", [VM_BOOTING] = "booting",
	[VM_READY] = "ready",     [VM_PAUSED] = "paused",     [VM_STOPPING] = "stopping",
	[VM_STOPPED] = "stopped", [VM_FAILED] = "failed",
};

#define S(x) (1u << (x))
#define LIVE (S(VM_STARTING) | S(VM_BOOTING) | S(VM_READY) | S(VM_PAUSED))

static const struct {
	unsigned from; /* set of states */
	enum vm_input in;
	enum vm_state to;
} transitions[] = {
	{S(VM_PLANNED) | S(VM_STOPPED) | S(VM_FAILED), VM_IN_START, VM_STARTING},
	{S(VM_STARTING), VM_IN_RUNNING, VM_BOOTING},
	/* Hello: the guest may be faster than the hypervisor's own word, and a ready one may have rebooted. */
	{S(VM_STARTING) | S(VM_READY), VM_IN_HELLO, VM_BOOTING},
	{S(VM_STARTING) | S(VM_BOOTING), VM_IN_READY, VM_READY},
	{S(VM_READY), VM_IN_PAUSED, VM_PAUSED},
	{S(VM_PAUSED), VM_IN_RESUMED, VM_READY},
	{S(VM_PLANNED), VM_IN_STOP, VM_STOPPED},
	{LIVE, VM_IN_STOP, VM_STOPPING},
	{S(VM_STOPPING), VM_IN_GONE, VM_STOPPED},
	{S(VM_STOPPING), VM_IN_CRASHED, VM_STOPPED},
	{S(VM_READY) | S(VM_PAUSED), VM_IN_GONE, VM_STOPPED},
	/* A guest that powers off before it was ever ready has failed. */
	{S(VM_STARTING) | S(VM_BOOTING), VM_IN_GONE, VM_FAILED},
	{LIVE, VM_IN_CRASHED, VM_FAILED},
	{LIVE | S(VM_PLANNED), VM_IN_FAILED, VM_FAILED},
	{S(VM_STOPPING), VM_IN_FAILED, VM_STOPPED}, /* it was to end anyway */
};

bool vm_state_next(enum vm_state from, enum vm_input in, enum vm_state *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(transitions); i++)
		if (transitions[i].in == in && (transitions[i].from & S(from))) {
			*ret = transitions[i].to;
			return true;
		}
	return false;
}

const char *vm_state_name(enum vm_state s)
{
	return (size_t)s < ARRAY_SIZE(names) ? names[s] : "unknown";
}

bool vm_state_is_over(enum vm_state s)
{
	return s == VM_STOPPED || s == VM_FAILED;
}

bool vm_state_is_live(enum vm_state s)
{
	return (S(s) & (LIVE | S(VM_STOPPING))) != 0;
}
