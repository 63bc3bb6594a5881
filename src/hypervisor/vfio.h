/* SPDX-License-Identifier: Apache-2.0 */
/* Devices of a node for VMs, by VFIO (Linux, Documentation/driver-api/vfio.rst): a PCI device, or a virtual function of one, that
 * the administrator has bound to vfio-pci, with all that shares its IOMMU group. Nothing here changes the node. */
#ifndef VSE_HYPERVISOR_VFIO_H
#define VSE_HYPERVISOR_VFIO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strvec.h"

/* Where the node's files are: "/sys" and "/dev" but in tests. */
struct vfio_node {
	const char *sys, *dev;
};

/* A name of base/pci.h. EINVAL. */
int vfio_check_name(const char *name, struct err *err);
/* The addresses of devices for these names, in order, none twice and none of `taken`: the first of each kind that can be had, or
 * why none can, in one line with what is to be done: ENODEV there is none of it; ENOTSUP no IOMMU; EBUSY others have it or it
 * belongs to a driver of the node; EACCES its file under /dev/vfio is not ours. */
int vfio_choose(const struct vfio_node *n, const struct strvec *names, const struct strvec *taken,
		struct strvec *ret_addresses, struct err *err);
/* That this process may lock so much memory as a VM with devices has: all of it. EPERM with the limit. */
int vfio_check_memlock(uint64_t memory, struct err *err);
/* Why no device of this node can be given to a VM; false: some could, perhaps. */
bool vfio_lacks(const struct vfio_node *n, char *out, size_t size);

#endif
