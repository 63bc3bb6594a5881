/* SPDX-License-Identifier: Apache-2.0 */
/* Which VM of this agent has which device. QEMU opens them only when it has begun: until then two VMs would find the same one
 * free. What another agent, or the one before this, has given out, the kernel knows. */
#include "hypervisor/qemu.h"
#include "hypervisor/vfio.h"

static const struct vfio_node here = {"/sys", "/dev"};
static struct strvec taken;

int qemu_devices_take(const struct hv_spec *spec, struct strvec *ret, struct err *err)
{
	if (!spec->devices || !spec->devices->n)
		return 0;
	if (vfio_choose(&here, spec->devices, &taken, ret, err) < 0 ||
	    vfio_check_memlock(spec->memory, err) < 0) {
		strvec_finish(ret);
		return -1;
	}
	strvec_copy(&taken, ret);
	return 0;
}

void qemu_devices_give(struct strvec *devices)
{
	struct strvec left = STRVEC_INIT;
	if (!devices->n)
		return;
	for (size_t i = 0; i < taken.n; i++)
		if (!strvec_has(devices, taken.v[i]))
			strvec_add(&left, taken.v[i]);
	strvec_finish(&taken);
	taken = left;
	strvec_finish(devices);
}

void qemu_devices_lacks(struct hv_probe *p)
{
	vfio_lacks(&here, p->lacks[HV_CAP_DEVICES], HV_LACK_MAX);
}
