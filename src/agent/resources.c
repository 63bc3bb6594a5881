/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resources.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "agent/templates.h"
#include "base/alloc.h"
#include "base/room.h"
#include "base/topology.h"

void resources_read(struct resources *ret)
{
	struct topology t;
	*ret = (struct resources){.hugepages = topology_hugepages("/sys", 0)};
	gethostname(ret->host, sizeof(ret->host) - 1);
	/* A machine with more than 1024 processors does not fit the set: then all that are online count. */
	topology_here(&t);
	ret->cpus = t.n ? (uint32_t)t.n : (uint32_t)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L);
	ret->cores = (uint32_t)topology_cores(&t);
	topology_finish(&t);
	uint64_t memory = room_memory();
	ret->memory = memory == UINT64_MAX ? 0 : memory;
}

char *resources_json(const struct resources *r)
{
	json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:s*, s:s*}", "host", r->host, "cpus",
			      (json_int_t)r->cpus, "cores", (json_int_t)r->cores, "memory",
			      (json_int_t)r->memory, "hugepages", (json_int_t)r->hugepages,
			      "hypervisor", r->hypervisor, "why", r->why);
	json_t *templates = templates_here();
	if (j && json_array_size(templates))
		json_object_set(j, "templates", templates);
	json_decref(templates);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return text ? text : xstrdup("{}");
}
