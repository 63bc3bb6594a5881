/* SPDX-License-Identifier: Apache-2.0 */
/* What this node may give to VMs: the agent's own view (affinity mask, cgroup limits), which is the truth where a
 * resource manager's words are a hint. */
#ifndef VSE_AGENT_RESOURCES_H
#define VSE_AGENT_RESOURCES_H

#include <stdint.h>

struct resources {
	char host[256];
	uint32_t cpus, cores; /* that its affinity mask leaves */
	uint64_t memory; /* bytes: the least of what is available, and of the limits of this process's cgroups */
	uint64_t hugepages; /* bytes in free reserved pages of 2 MiB */
	const char *hypervisor; /* which VMs would run under here: borrowed; "": none fits; NULL: nobody asked */
	const char *why; /* those before it cannot; borrowed */
};

void resources_read(struct resources *ret);
char *resources_json(const struct resources *r); /* malloc'ed */

#endif
