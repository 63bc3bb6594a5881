/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/bind.h"

#include <errno.h>
#include <inttypes.h>

#include "base/alloc.h"
#include "base/rankset.h"
#include "base/topology.h"

struct binding *bind_create(const struct cluster_spec *s)
{
	struct topology t;
	if (s->bind.unit == BINDING_NONE)
		return NULL;
	topology_here(&t);
	struct binding *b = binding_create(&s->bind, &t);
	topology_finish(&t);
	return b;
}

static int check_caps(const struct cluster_spec *s, const struct vm_profile *p, struct err *err)
{
	const struct {
		bool wanted;
		enum hv_cap cap;
	} extras[] = {{s->bind.unit != BINDING_NONE, HV_CAP_PIN},
		      {s->bind.memory, HV_CAP_NUMA},
		      {s->hugepages, HV_CAP_HUGEPAGES},
		      {s->n_mounts, HV_CAP_HOST_DIR},
		      {s->devices.n, HV_CAP_DEVICES}};
	for (size_t i = 0; i < ARRAY_SIZE(extras); i++) {
		const char *why = extras[i].wanted
					  ? hypervisor_lacks(p->hypervisor, &p->probe, extras[i].cap)
					  : NULL;
		if (why)
			return err_set(err, ENOTSUP, "%s: %s: not supported: %s",
				       p->hypervisor->name, hv_cap_name(extras[i].cap), why);
	}
	return 0;
}

int bind_check(const struct cluster_spec *s, const struct vm_profile *p, uint32_t vms, struct err *err)
{
	if (check_caps(s, p, err) < 0 || hypervisor_check_mounts(s->mounts, s->n_mounts, err) < 0 ||
	    (p->binding && binding_check(p->binding, vms, s->cpus, err) < 0))
		return -1;
	uint64_t want = s->memory / HUGEPAGE * vms, have = topology_hugepages("/sys", 0) / HUGEPAGE;
	if (!s->hugepages || want <= have)
		return 0;
	return err_set(err, ENOMEM,
		       "hugepages: %" PRIu64 " reserved pages of 2 MiB wanted, %" PRIu64
		       " are free (the site reserves them: vm.nr_hugepages)",
		       want, have);
}

char *bind_text(const struct cluster_spec *s, const struct vm *vm)
{
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT;
	const unsigned *cpus = vm_cpus(vm);
	if (!cpus)
		return NULL;
	for (unsigned i = 0; i < s->cpus; i++)
		rankset_add(&set, cpus[i]);
	rankset_format(&set, &text);
	return buf_take(&text);
}
