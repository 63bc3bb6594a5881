/* SPDX-License-Identifier: Apache-2.0 */
/* The network of a cluster's VMs by the kernel of their node (net/kernet.h). */
#ifndef VSE_CLUSTER_KERNEL_NETWORK_H
#define VSE_CLUSTER_KERNEL_NETWORK_H

#include "cluster/cluster_spec.h"
#include "hypervisor/hypervisor.h"
#include "net/kernet.h"

/* NULL where s does not ask for it, or the VMs are elsewhere (on the root of many nodes). ENOTSUP: VMs of h cannot have it.
 * dir: where the VMs have their folders. If VMs of an agent before this one run on, it is the one that they have. */
int kernel_network(struct loop *l, const struct cluster_spec *s, const struct hypervisor *h,
		   uint32_t self, const char *dir, struct kernet **ret, struct err *err);

#endif
