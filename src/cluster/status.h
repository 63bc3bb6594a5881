/* SPDX-License-Identifier: Apache-2.0 */
/* One VM as `vse ps --json` has it (docs/json.md). */
#ifndef VSE_CLUSTER_STATUS_H
#define VSE_CLUSTER_STATUS_H

#include <jansson.h>

#include "cluster/cluster_spec.h"
#include "vm/vm.h"

/* network: it has an address on the cluster's. New reference. */
json_t *status_of_vm(const struct cluster_spec *s, const struct vm_profile *p, bool network,
		     struct vm *vm);

#endif
