/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/resources.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/topology.h"

static uint64_t number_file(const char *path)
{
	_cleanup_free_ char *text = NULL;
	uint64_t v;
	if (path_read(path, 64, &text, NULL, NULL) < 0 || sscanf(text, "%" SCNu64, &v) != 1)
		return UINT64_MAX; /* "max", or no such file */
	return v;
}

static uint64_t available(void)
{
	_cleanup_free_ char *text = NULL;
	uint64_t kib;
	if (path_read("/proc/meminfo", 65536, &text, NULL, NULL) < 0)
		return UINT64_MAX;
	const char *line = strstr(text, "MemAvailable:");
	return line && sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1 ? kib << 10 : UINT64_MAX;
}

/* What one cgroup leaves: its limit less what is used there. Limits hold for all below, so parents are asked too. */
static uint64_t cgroup_left(const char *top, char *path, const char *limit, const char *usage)
{
	uint64_t least = UINT64_MAX;
	for (;;) {
		_cleanup_free_ char *lf = xasprintf("%s%s/%s", top, path, limit),
				    *uf = xasprintf("%s%s/%s", top, path, usage);
		uint64_t max = number_file(lf), used = number_file(uf);
		/* Version 1 says "no limit" as a number near 2^63. */
		if (max < UINT64_C(1) << 60 && used != UINT64_MAX)
			least = MIN(least, max > used ? max - used : 0);
		char *slash = strrchr(path, '/');
		if (!slash || !path[0])
			return least;
		*slash = '\0';
	}
}

/* Lines of /proc/self/cgroup are "N:controllers:/path"; version 2 has no controllers. */
static uint64_t cgroup_memory(void)
{
	_cleanup_free_ char *text = NULL;
	uint64_t least = UINT64_MAX;
	if (path_read("/proc/self/cgroup", 65536, &text, NULL, NULL) < 0)
		return least;
	char *rest = text, *line;
	while ((line = strsep(&rest, "\n"))) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
		if (!path)
			continue;
		*path++ = '\0';
		if (list[1] == '\0')
			least = MIN(least, cgroup_left("/sys/fs/cgroup", path, "memory.max",
						       "memory.current"));
		else if (strstr(list + 1, "memory"))
			least = MIN(least,
				    cgroup_left("/sys/fs/cgroup/memory", path,
						"memory.limit_in_bytes", "memory.usage_in_bytes"));
	}
	return least;
}

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
	uint64_t memory = MIN(available(), cgroup_memory());
	ret->memory = memory == UINT64_MAX ? 0 : memory;
}

char *resources_json(const struct resources *r)
{
	json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:s*, s:s*}", "host", r->host, "cpus",
			      (json_int_t)r->cpus, "cores", (json_int_t)r->cores, "memory",
			      (json_int_t)r->memory, "hugepages", (json_int_t)r->hugepages,
			      "hypervisor", r->hypervisor, "why", r->why);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return text ? text : xstrdup("{}");
}
