/* SPDX-License-Identifier: Apache-2.0 */
#include "base/room.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"

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

uint64_t room_memory(void)
{
	return MIN(available(), cgroup_memory());
}
