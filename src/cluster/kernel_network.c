/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/kernel_network.h"

#include <errno.h>
#include <inttypes.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"

/* A VMM that an agent before this one has started (vm/pid_note.h); 0: none. */
static pid_t running_vmm(const struct cluster_spec *s, uint32_t self, const char *dir)
{
	for (uint32_t r = 0; r < s->size; r++) {
		_cleanup_free_ char *path = xasprintf("%s/vm%u/pid", dir, r), *text = NULL;
		uint64_t begun;
		int pid;
		if ((!s->node_of || s->node_of[r] == self) &&
		    path_read(path, 128, &text, NULL, NULL) == 0 &&
		    sscanf(text, "%d %" SCNu64, &pid, &begun) == 2 && proc_alive(pid, begun))
			return pid;
	}
	return 0;
}

int kernel_network(struct loop *l, const struct cluster_spec *s, const struct hypervisor *h,
		   uint32_t self, const char *dir, struct kernet **ret, struct err *err)
{
	const char *why = hypervisor_lacks(h, NULL, HV_CAP_TAP);
	*ret = NULL;
	if (!s->kernel_net)
		return 0;
	if (why)
		return err_set(err, ENOTSUP, "network by the kernel: %s: %s", h->name, why);
	if (s->node_of && !self)
		return 0;
	const struct kernet_config config = {.subnet = s->subnet,
					     .size = s->size,
					     .mtu = CLUSTER_MTU,
					     .vmm = running_vmm(s, self, dir)};
	if (kernet_create(l, &config, ret, err) == 0)
		return 0;
	return self && self <= s->nodes.n ? err_prefix(err, "%s: ", s->nodes.v[self - 1]) : -1;
}
