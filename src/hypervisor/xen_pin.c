/* SPDX-License-Identifier: Apache-2.0 */
/* vCPUs on CPUs of the node. Xen's own scheduler keeps them there: a new domain by its configuration, one that runs by
 * `xl vcpu-pin`. The CPUs are those that Xen counts; dom0 may see fewer, and the agent knows only those. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "hypervisor/xen_vm.h"

struct xen_pin {
	int cpu;
	bool due; /* xl is to be told */
};

static int check_cpu(int cpu, struct err *err)
{
	const struct xen_host *host = xen_host_known();
	if (host && host->cpus && cpu >= 0 && (unsigned)cpu >= host->cpus)
		return err_set(err, EINVAL, "CPU %d: this node has %u (xl info: nr_cpus)", cpu,
			       host->cpus);
	return 0;
}

int xen_pins_check(const struct hv_spec *spec, struct err *err)
{
	for (unsigned i = 0; spec->pins && i < spec->cpus; i++)
		if (spec->pins[i] > INT32_MAX || check_cpu((int)spec->pins[i], err) < 0)
			return err->code ? -1 : err_set(err, EINVAL, "CPU %u", spec->pins[i]);
	return 0;
}

void xen_pins_take(struct hv_vm *vm, const struct hv_spec *spec, bool due)
{
	vm->cpus = spec->cpus;
	vm->pins = xcalloc(spec->cpus, sizeof(*vm->pins));
	for (unsigned i = 0; i < spec->cpus; i++)
		vm->pins[i] = (struct xen_pin){.cpu = spec->pins ? (int)spec->pins[i] : -1,
					       .due = due && spec->pins};
}

static struct xen_pin *next_due(struct hv_vm *vm)
{
	for (unsigned i = 0; i < vm->cpus; i++)
		if (vm->pins[i].due)
			return &vm->pins[i];
	return NULL;
}

bool xen_pin_next(struct hv_vm *vm)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	struct xen_pin *p = next_due(vm);
	if (!p)
		return false;
	p->due = false;
	strvec_addv(&argv, "xl", "vcpu-pin", vm->id.name, NULL);
	strvec_addf(&argv, "%td", p - vm->pins);
	if (p->cpu < 0)
		strvec_add(&argv, "all");
	else
		strvec_addf(&argv, "%d", p->cpu);
	xen_call(vm, XEN_OP_PIN, &argv, -1, XEN_CHANGE_MS);
	return true;
}

bool xen_pin_ended(struct hv_vm *vm, int status, const char *errors)
{
	char text[300];
	struct err e = ERR_INIT;
	vm->op = XEN_OP_NONE;
	if (!status)
		return true;
	xen_explain(vm->id.name, "xl vcpu-pin", errors, status, text, sizeof(text));
	err_set(&e, EIO, "%s", text);
	return hv_tell_failed(&vm->teller, hv_cap_name(HV_CAP_PIN), &e);
}

int xen_pin_all(struct hv_vm *vm, struct err *err)
{
	for (unsigned i = 0; i < vm->queued; i++)
		if (vm->queue[i] == XEN_OP_PIN)
			return 0;
	return next_due(vm) ? xen_enqueue(vm, XEN_OP_PIN, err) : 0;
}

int xen_pin(struct hv_vm *vm, unsigned vcpu, int cpu, struct err *err)
{
	if (vcpu >= vm->cpus)
		return err_set(err, EINVAL, "vCPU %u: the VM has %u", vcpu, vm->cpus);
	if (check_cpu(cpu, err) < 0)
		return -1;
	vm->pins[vcpu] = (struct xen_pin){.cpu = cpu, .due = true};
	return xen_pin_all(vm, err);
}
