/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/status.h"

#include "base/alloc.h"
#include "base/text.h"
#include "cluster/bind.h"

json_t *status_of_vm(const struct cluster_spec *s, const struct vm_profile *p, bool network,
		     struct vm *vm)
{
	struct hv_stats st = {0};
	char ip[16];
	_cleanup_free_ char *reason = text_cleaned(vm_reason(vm)); /* the guest's words may be in it */
	_cleanup_free_ char *cpus = bind_text(s, vm);
	const char *node = s->node_of ? s->nodes.v[s->node_of[vm_rank(vm)] - 1] : NULL;
	vm_stats(vm, &st, NULL);
	address_ipv4_text(address_ipv4(&s->subnet, vm_rank(vm)), ip);
	return json_pack(
		"{s:i, s:s, s:s, s:s, s:s*, s:I, s:I, s:I, s:I, s:i, s:s*, s:s, s:s, s:s*}", "rank",
		(int)vm_rank(vm), "name", vm_name(vm), "state", vm_state_name(vm_get_state(vm)),
		"reason", reason, "address", network ? ip : NULL, "uptime_ms",
		(json_int_t)vm_uptime_ms(vm), "ready_ms", (json_int_t)vm_ready_ms(vm), "memory_used",
		(json_int_t)st.rss, "cpu_ms", (json_int_t)st.cpu_ms, "pid", (int)st.pid, "node",
		node, "hypervisor", p->hypervisor->name, "accel", p->probe.accel, "bound_to", cpus);
}
