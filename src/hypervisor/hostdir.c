/* SPDX-License-Identifier: Apache-2.0 */
/* Which directories of the node a VM may see. What is in them is served by a process of ours, with our rights, to a guest that
 * need not be our friend: so nothing may be in there by which files are more than files. /proc/PID/mem of this very agent
 * would be a way out. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/files.h"

#define MOUNTINFO_MAX (8u << 20)

/* The kernel's own file systems: none of them holds data (Linux, Documentation/filesystems). */
static const char *const kernels[] = {
	"proc",      "sysfs",      "devtmpfs", "devpts",    "cgroup", "cgroup2",     "debugfs",
	"tracefs",   "securityfs", "configfs", "bpf",       "pstore", "binfmt_misc", "mqueue",
	"hugetlbfs", "fusectl",    "efivarfs", "selinuxfs", "nsfs",   "rpc_pipefs",
};

static bool is_kernels(const char *type)
{
	for (size_t i = 0; i < ARRAY_SIZE(kernels); i++)
		if (strcmp(type, kernels[i]) == 0)
			return true;
	return false;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);
	return strncmp(path, dir, n) == 0 && (path[n] == '/' || !path[n]);
}

/* One line of mountinfo (proc(5)): "36 35 98:0 / /where options... - type source options". *ret_on: it is mounted on `dir` or
 * above it; else below. NULL: not about dir, or not a file system of the kernel's. */
static const char *judge(char *line, const char *dir, size_t *ret_on, const char **ret_where)
{
	char *save = NULL, *where = NULL, *type, *dash = strstr(line, " - ");
	if (!dash)
		return NULL;
	*dash = '\0';
	type = strtok_r(dash + 3, " ", &save);
	save = NULL;
	for (int i = 0; i < 5; i++)
		where = strtok_r(i ? NULL : line, " ", &save);
	if (!where || !type)
		return NULL;
	const char *at = strcmp(where, "/") == 0 ? "" : where;
	*ret_on = is_below(dir, at) ? strlen(at) + 1 : 0;
	*ret_where = where;
	return *ret_on || is_below(where, dir) ? type : NULL;
}

int hostdir_judge(char *mountinfo, const char *dir, struct err *err)
{
	size_t longest = 0, on;
	const char *holds = "", *where, *type;
	for (char *rest = mountinfo, *line; (line = strsep(&rest, "\n"));) {
		type = judge(line, dir, &on, &where);
		if (!type)
			continue;
		if (!on && is_kernels(type))
			return err_set(err, EPERM, "%.200s is in it, which is the kernel's (%.20s), no directory of files",
				       where, type);
		if (on >= longest) { /* the last of several on one place is the one that is seen */
			longest = on;
			holds = type;
		}
	}
	return is_kernels(holds)
		       ? err_set(err, EPERM, "it is the kernel's (%.20s), no directory of files", holds)
		       : 0;
}

static int check(const struct hv_mount *m, struct err *err)
{
	struct stat st;
	if (m->host[0] != '/' || m->guest[0] != '/')
		return err_set(err, EINVAL, "not an absolute path");
	_cleanup_close_ int fd = open(m->host, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "cannot be opened");
	if (access(m->host, X_OK) < 0 || (m->rw && access(m->host, W_OK) < 0))
		return err_errno(err, errno, m->rw ? "cannot be written to" : "cannot be looked into");
	_cleanup_free_ char *link = xasprintf("/proc/self/fd/%d", fd), *info = NULL;
	char path[4096];
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	if (n < 1)
		return err_errno(err, errno, "its path cannot be read");
	path[n] = '\0';
	if (strcmp(path, "/") == 0)
		return err_set(err, EPERM, "it is the node's root itself: name the directories");
	if (path_read("/proc/self/mountinfo", MOUNTINFO_MAX, &info, NULL, err) < 0)
		return -1;
	return hostdir_judge(info, path, err);
}

int hypervisor_check_mounts(const struct hv_mount *mounts, size_t n, struct err *err)
{
	char node[256] = "this node";
	gethostname(node, sizeof(node) - 1);
	if (n > HV_MOUNTS_MAX)
		return err_set(err, EINVAL, "host directories: %zu, at most %d are possible", n,
			       HV_MOUNTS_MAX);
	for (size_t i = 0; i < n; i++)
		if (check(&mounts[i], err) < 0)
			return err_prefix(err, "host directory %.200s on node %s: ", mounts[i].host,
					  node);
	return 0;
}
