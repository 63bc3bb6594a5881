/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of NUMA nodes, and in reserved pages.
 *
 * NUMA: a policy of the whole process, set between fork and exec (io/child.h), not QEMU's host-nodes= of a memory backend:
 * that wants a QEMU built with libnuma, and covers the guest's memory alone. A policy of the process holds whatever its
 * memory is (its own, a template's that is copied on write, reserved pages), and for what the kernel takes for the VM.
 *
 * Reserved pages: a memfd of QEMU's (MFD_HUGETLB), for which nobody needs a mounted hugetlbfs or a privilege. All pages
 * are taken at the start: a page that is missing later ends QEMU by SIGBUS, when the guest first touches it. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/topology.h"
#include "hypervisor/qemu.h"

#define SYSFS "/sys"

static int check_nodes(uint64_t nodes, struct err *err)
{
	uint64_t strange = nodes & ~topology_memory_nodes();
	if (!strange)
		return 0;
	return err_set(err, EINVAL,
		       "NUMA node %d: not one of those that this agent may take memory from",
		       __builtin_ctzll(strange));
}

static int check_pages(const struct hv_spec *spec, struct err *err)
{
	uint64_t have = topology_hugepages(SYSFS, spec->numa_nodes);
	if (spec->template || spec->from == HV_FROM_TEMPLATE)
		return err_set(err, ENOTSUP,
			       "memory in reserved pages cannot be shared with a template");
	if (spec->memory % HUGEPAGE)
		return err_set(err, EINVAL,
			       "memory of %" PRIu64
			       " KiB: no whole number of reserved pages of 2 MiB",
			       spec->memory >> 10);
	if (have >= spec->memory)
		return 0;
	return err_set(err, ENOMEM,
		       "hugepages: %" PRIu64 " reserved pages of 2 MiB wanted, %" PRIu64
		       " are free%s (the site reserves them: vm.nr_hugepages)",
		       spec->memory / HUGEPAGE, have / HUGEPAGE,
		       spec->numa_nodes ? " on the VM's NUMA nodes" : "");
}

int qemu_memory_check(const struct hv_spec *spec, struct err *err)
{
	if (check_nodes(spec->numa_nodes, err) < 0)
		return -1;
	return spec->hugepages ? check_pages(spec, err) : 0;
}

void qemu_memory_lacks(struct hv_probe *p)
{
	/* Asks for nothing. ENOSYS: a kernel without NUMA; EPERM: a container that forbids it. */
	if (syscall(SYS_get_mempolicy, NULL, NULL, 0ul, NULL, 0ul) < 0)
		snprintf(p->lacks[HV_CAP_NUMA], HV_LACK_MAX,
			 "memory policies cannot be set here: %s", strerror(errno));
	if (!topology_has_hugepages(SYSFS))
		snprintf(p->lacks[HV_CAP_HUGEPAGES], HV_LACK_MAX,
			 "no pages of 2 MiB are reserved on this node (vm.nr_hugepages)");
}
