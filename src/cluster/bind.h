/* SPDX-License-Identifier: Apache-2.0 */
/* What a cluster wants of a node beyond room: CPUs of its own, memory near them, memory in reserved pages, directories. */
#ifndef VSE_CLUSTER_BIND_H
#define VSE_CLUSTER_BIND_H

#include "cluster/cluster_spec.h"
#include "vm/vm.h"

/* The books of this node's CPUs; NULL: the cluster binds none. */
struct binding *bind_create(const struct cluster_spec *s);
/* Before the first of `vms` VMs is started: that all of them would get what they want. ENOTSUP: the hypervisor or this node
 * cannot do it; ENOSPC, ENOMEM: not for so many; or what is wrong with a directory. */
int bind_check(const struct cluster_spec *s, const struct vm_profile *p, uint32_t vms, struct err *err);
/* The CPUs of a VM, as "0-3"; malloc'ed; NULL: any. */
char *bind_text(const struct cluster_spec *s, const struct vm *vm);

#endif
