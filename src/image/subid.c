/* SPDX-License-Identifier: Apache-2.0 */
#include "image/subid.h"

#include <errno.h>
#include <inttypes.h>

#include "base/alloc.h"
#include "image/run.h"

int subid_check(struct err *err)
{
	static const char *const tools[] = {"newuidmap", "newgidmap"};
	struct subid_range u, g;
	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		_cleanup_free_ char *p = run_find(tools[i]);
		if (!p)
			return err_set(err, ENOENT,
				       "build: program %s: not found: install the package uidmap",
				       tools[i]);
	}
	return subid_ranges(&u, &g, err) < 0 ? err_prefix(err, "build: ") : 0;
}

static int write_map(const char *tool, pid_t pid, uint32_t own, struct subid_range r, struct err *err)
{
	_cleanup_run_ struct run p = {0};
	strvec_add(&p.argv, tool);
	strvec_addf(&p.argv, "%d", (int)pid);
	strvec_addv(&p.argv, "0", NULL);
	strvec_addf(&p.argv, "%" PRIu32, own);
	strvec_addv(&p.argv, "1", "1", NULL);
	strvec_addf(&p.argv, "%" PRIu32, r.first);
	strvec_addf(&p.argv, "%" PRIu32, r.count);
	if (run_ok(&p, err) < 0)
		return err_prefix(err, "build: ");
	return 0;
}

int subid_map(pid_t pid, struct err *err)
{
	struct subid_range u, g;
	if (subid_ranges(&u, &g, err) < 0)
		return err_prefix(err, "build: ");
	if (write_map("newuidmap", pid, (uint32_t)getuid(), u, err) < 0 ||
	    write_map("newgidmap", pid, (uint32_t)getgid(), g, err) < 0)
		return -1;
	return 0;
}
