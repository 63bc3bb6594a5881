/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/path.h"
#include "hypervisor/container.h"

/* Root of the node has no subordinate ids as a rule. These belong to no user: above what distributions, systemd and
 * directories hand out (systemd's UIDS-GIDS table leaves 1879048192 to 2147352575 unused). */
#define ROOT_FIRST 2147221504u
#define ROOT_COUNT 65536u

static int find_tools(struct err *err)
{
	static const char *const tools[] = {"newuidmap", "newgidmap"};
	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		_cleanup_free_ char *p = path_find_program(tools[i]);
		if (!p)
			return err_set(err, ENOENT,
				       "program %s: not found: install the package uidmap", tools[i]);
	}
	return 0;
}

int container_ids(struct container_ids *ret, struct err *err)
{
	struct subid_range u, g;
	if (geteuid() == 0) {
		*ret = (struct container_ids){.privileged = true,
					      .uid = ROOT_FIRST,
					      .gid = ROOT_FIRST,
					      .uids = {ROOT_FIRST + 1, ROOT_COUNT - 1},
					      .gids = {ROOT_FIRST + 1, ROOT_COUNT - 1}};
		return 0;
	}
	if (find_tools(err) < 0 || subid_ranges(&u, &g, err) < 0)
		return -1;
	*ret = (struct container_ids){
		.uid = (uint32_t)getuid(), .gid = (uint32_t)getgid(), .uids = u, .gids = g};
	return 0;
}

void container_map(const struct container_ids *ids, bool groups, uint32_t ret[2][3])
{
	struct subid_range r = groups ? ids->gids : ids->uids;
	ret[0][0] = 0;
	ret[0][1] = groups ? ids->gid : ids->uid;
	ret[0][2] = 1;
	ret[1][0] = 1;
	ret[1][1] = r.first;
	ret[1][2] = r.count;
}
