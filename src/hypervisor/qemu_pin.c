/* SPDX-License-Identifier: Apache-2.0 */
/* vCPUs on CPUs of the node: each is a thread of QEMU, which QMP names. They are put there from outside, since QEMU's own
 * filter of system calls denies it that. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "base/alloc.h"
#include "hypervisor/qemu.h"

int qemu_pin_check(int cpu, struct err *err)
{
	cpu_set_t own;
	if (cpu < 0 || sched_getaffinity(0, sizeof(own), &own) < 0)
		return 0; /* a machine with more CPUs than fit into the set: the kernel says */
	if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &own))
		return err_set(err, EINVAL, "CPU %d: not one of those that this agent may use", cpu);
	return 0;
}

int qemu_pins_check(const struct hv_spec *spec, struct err *err)
{
	for (unsigned i = 0; spec->pins && i < spec->cpus; i++)
		if (qemu_pin_check((int)spec->pins[i], err) < 0)
			return -1;
	return 0;
}

bool qemu_pin_set(const struct hv_spec *spec, cpu_set_t *ret)
{
	CPU_ZERO(ret);
	for (unsigned i = 0; spec->pins && i < spec->cpus; i++)
		CPU_SET(spec->pins[i], ret);
	return spec->pins;
}

int qemu_pin_threads(const json_t *list, unsigned n, pid_t *tids, struct err *err)
{
	const json_t *one;
	size_t i;
	unsigned found = 0;
	json_array_foreach (list, i, one) {
		json_int_t vcpu = json_integer_value(json_object_get(one, "cpu-index")),
			   tid = json_integer_value(json_object_get(one, "thread-id"));
		if (vcpu < 0 || vcpu >= (json_int_t)n || tid <= 0 || tid > INT32_MAX)
			continue;
		tids[vcpu] = (pid_t)tid;
		found++;
	}
	return found == n ? 0 : err_set(err, EPROTO, "query-cpus-fast: %u of %u vCPUs", found, n);
}

int qemu_pin_apply(const pid_t *tids, const int *on, unsigned n, unsigned vcpu, struct err *err)
{
	cpu_set_t set;
	bool any = false;
	CPU_ZERO(&set);
	/* TCG may run all vCPUs in one thread. */
	for (unsigned i = 0; i < n; i++) {
		if (tids[i] != tids[vcpu])
			continue;
		any = any || on[i] < 0;
		if (on[i] >= 0)
			CPU_SET((unsigned)on[i], &set);
	}
	if (any && sched_getaffinity(0, sizeof(set), &set) < 0)
		return err_errno(err, errno, "the CPUs of this agent");
	if (sched_setaffinity(tids[vcpu], sizeof(set), &set) < 0)
		return err_errno(err, errno, "vCPU %u onto CPU %d", vcpu, on[vcpu]);
	return 0;
}
