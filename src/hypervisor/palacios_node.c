/* SPDX-License-Identifier: Apache-2.0 */
/* The module as it is on this node: its files, its list of VMs, its memory, its turn. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/palacios.h"

#define TEXT_MAX (4u << 20)  /* of a file in /proc/v3vee */
#define LOG_MAX (256u << 10) /* of the kernel's log during one operation */

char *palacios_path(const char *path)
{
	const char *root = getenv("VSE_PALACIOS_ROOT");
	return root && root[0] ? xasprintf("%s%s", root, path) : xstrdup(path);
}

static bool there(const char *path)
{
	_cleanup_free_ char *p = palacios_path(path);
	return path_exists(p);
}

static int read_proc(const char *path, char **ret, struct err *err)
{
	_cleanup_free_ char *p = palacios_path(path);
	return path_read(p, TEXT_MAX, ret, NULL, err);
}

enum palacios_line palacios_line(void)
{
	_cleanup_free_ char *text = NULL;
	if (there("/proc/v3vee/v3-info"))
		return PALACIOS_NU;
	if (there("/proc/v3vee/v3-cpus"))
		return PALACIOS_PITT;
	if (read_proc("/proc/v3vee/v3-guests", &text, NULL) == 0 && strncmp(text, "V3 GUESTS (", 11) == 0)
		return PALACIOS_PITT;
	return PALACIOS_ABSENT;
}

int palacios_info_read(struct palacios_info *ret, struct err *err)
{
	_cleanup_free_ char *text = NULL;
	if (read_proc("/proc/v3vee/v3-info", &text, err) < 0)
		return -1;
	return palacios_info(text, ret, err);
}

int palacios_list(struct palacios_guest v[PALACIOS_VMS_MAX], size_t *ret_n, struct err *err)
{
	_cleanup_free_ char *text = NULL;
	if (read_proc("/proc/v3vee/v3-guests", &text, err) < 0)
		return -1;
	*ret_n = palacios_guests(text, v, PALACIOS_VMS_MAX);
	return 0;
}

int palacios_look(const char *name, struct palacios_guest *ret, struct err *err)
{
	struct palacios_guest v[PALACIOS_VMS_MAX];
	size_t n;
	if (palacios_list(v, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i].name, name) == 0) {
			*ret = v[i];
			return 1;
		}
	return 0;
}

void palacios_look_cores(const char *name, struct palacios_cores *ret)
{
	_cleanup_free_ char *text = NULL;
	*ret = (struct palacios_cores){0};
	if (read_proc("/proc/v3vee/v3-guests-details", &text, NULL) == 0)
		palacios_cores(text, name, ret);
}

int palacios_lock(int *ret_fd, struct err *err)
{
	_cleanup_free_ char *path = palacios_path("/dev/v3vee");
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "%s", path);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_errno(err, errno, "lock %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* ---- before a create ---- */

static int check_name(const char *name, struct err *err)
{
	struct palacios_guest g;
	size_t n = strlen(name);
	if (!n || n > PALACIOS_NAME_MAX ||
	    strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != n)
		return err_set(err, EINVAL,
			       "name %s: 1 to %d letters, digits, '_', '.' and '-' are expected",
			       name, PALACIOS_NAME_MAX);
	int found = palacios_look(name, &g, err);
	return found == 1 ? err_set(err, EEXIST, "a VM named %s is there already", name) : found;
}

static int check_room(struct err *err)
{
	struct palacios_guest v[PALACIOS_VMS_MAX];
	size_t n;
	if (palacios_list(v, &n, err) < 0)
		return -1;
	return n < PALACIOS_VMS_MAX
		       ? 0
		       : err_set(err, ENOSPC, "%d VMs are on this node: Palacios takes no more",
				 PALACIOS_VMS_MAX);
}

/* Page tables and the like come out of the same pool: one block is left for them. With less the create crashes the
 * kernel. */
static int check_memory(const struct palacios_info *info, uint64_t memory, struct err *err)
{
	uint64_t have = 0, want = (memory + info->block - 1) / info->block + 1;
	for (unsigned node = 0; node < info->nodes; node++) {
		_cleanup_free_ char *path = xasprintf("/proc/v3vee/v3-mem%u", node), *text = NULL;
		if (read_proc(path, &text, err) < 0)
			return -1;
		have += palacios_free_blocks(text, info->block);
	}
	if (have >= want)
		return 0;
	return err_set(err, ENOMEM,
		       "Palacios has %" PRIu64 " MiB free in blocks of %" PRIu64
		       " MiB and this VM needs %" PRIu64 " MiB: give it more with v3_mem",
		       have * info->block >> 20, info->block >> 20, want * info->block >> 20);
}

int palacios_check_create(const char *name, uint64_t memory, unsigned cpus, struct err *err)
{
	struct palacios_info info;
	if (palacios_info_read(&info, err) < 0)
		return -1;
	if (!memory || !cpus)
		return err_set(err, EINVAL, "a VM without memory or CPUs");
	if (cpus > info.cpus)
		return err_set(err, EINVAL,
			       "%u virtual CPUs: this node has %u CPUs, and Palacios takes no more",
			       cpus, info.cpus);
	if (check_name(name, err) < 0 || check_room(err) < 0)
		return -1;
	return check_memory(&info, memory, err);
}

int palacios_choose_cpus(unsigned cpus, const struct palacios_info *info, unsigned *ret, struct err *err)
{
	struct palacios_cores c;
	cpu_set_t mine;
	unsigned n = 0;
	palacios_look_cores(NULL, &c);
	if (sched_getaffinity(0, sizeof(mine), &mine) < 0)
		return err_errno(err, errno, "which CPUs may be used");
	while (n < cpus) {
		unsigned best = PALACIOS_CPUS_MAX;
		for (unsigned i = 0; i < MIN(info->cpus, PALACIOS_CPUS_MAX); i++)
			if (CPU_ISSET(i, &mine) && (best == PALACIOS_CPUS_MAX || c.on[i] < c.on[best]))
				best = i;
		if (best == PALACIOS_CPUS_MAX)
			return err_set(err, EINVAL, "none of this job's CPUs is one of 0 to %d, and Palacios launches on no other",
				       PALACIOS_CPUS_MAX - 1);
		c.on[best]++;
		ret[n++] = best;
	}
	return 0;
}

/* ---- ioctl, and what the kernel says about it ---- */

int palacios_log_open(void)
{
	_cleanup_free_ char *path = palacios_path("/dev/kmsg");
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

/* A record a read; EPIPE: some were overwritten, the next read goes on behind them. */
void palacios_log_read(int fd, const char *name, char *out, size_t size)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char record[8192];
	out[0] = '\0';
	while (fd >= 0 && buf_len(&b) < LOG_MAX) {
		ssize_t n = read(fd, record, sizeof(record));
		if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue;
		if (n <= 0)
			break;
		buf_add(&b, record, (size_t)n);
	}
	palacios_kernel_errors(buf_cstr(&b), name, out, size);
}

int palacios_ioctl(int vm, unsigned number, void *arg, const char *what, const char *name, int *ret,
		   struct err *err)
{
	char said[300];
	_cleanup_free_ char *node = vm < 0 ? xstrdup("/dev/v3vee") : xasprintf("/dev/v3-vm%d", vm),
			    *path = palacios_path(node);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC), log = palacios_log_open();
	if (fd < 0)
		return err_errno(err, errno, "%s: %s", what, path);
	int rc = ioctl(fd, number, arg);
	int code = errno;
	palacios_log_read(log, name, said, sizeof(said));
	if (rc < 0)
		return said[0] ? err_set(err, code, "%s: refused by Palacios: %s", what, said)
			       : err_errno(err, code, "%s: refused by Palacios%s",
					   what, log < 0 ? " (its reason is in the kernel's log, which cannot be read)" : "");
	/* Those that always succeed say here why they did nothing. */
	if (said[0])
		err_set(err, EIO, "%s: Palacios says: %s", what, said);
	if (ret)
		*ret = rc;
	return 0;
}
