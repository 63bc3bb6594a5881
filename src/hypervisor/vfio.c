/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/vfio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/pci.h"
#include "base/proc.h"

#define SLACK (UINT64_C(256) << 20) /* of QEMU's own: firmware, device memory that is mapped */

/* ---- names ---- */

int vfio_check_name(const char *name, struct err *err)
{
	if (pci_is_place(name) || pci_is_kind(name))
		return 0;
	return err_set(err, EINVAL, "device '%.40s': neither pci:VENDOR:DEVICE (as pci:15b3:101e) nor pci:ADDRESS (as pci:0000:3b:00.0)",
		       name);
}

/* ---- sysfs ---- */

static char *device_path(const struct vfio_node *n, const char *address, const char *file)
{
	return xasprintf("%s/bus/pci/devices/%s/%s", n->sys, address, file);
}

/* The last part of where a link of the device leads; NULL: there is none. malloc'ed. */
static char *link_of(const struct vfio_node *n, const char *address, const char *file)
{
	_cleanup_free_ char *path = device_path(n, address, file);
	char to[512];
	ssize_t len = readlink(path, to, sizeof(to) - 1);
	if (len < 1)
		return NULL;
	to[len] = '\0';
	const char *slash = strrchr(to, '/');
	return xstrdup(slash ? slash + 1 : to);
}

static unsigned long number_of(const struct vfio_node *n, const char *address, const char *file)
{
	_cleanup_free_ char *path = device_path(n, address, file), *text = NULL;
	return path_read(path, 64, &text, NULL, NULL) < 0 ? 0 : strtoul(text, NULL, 16);
}

static void list(const char *folder, struct strvec *ret)
{
	DIR *d = opendir(folder);
	const struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			strvec_add(ret, e->d_name);
	if (d)
		closedir(d);
	strvec_sort(ret);
}

/* PCI class 06: bridges stay with the kernel, a group may have some (vfio.rst). */
static bool is_bridge(const struct vfio_node *n, const char *address)
{
	return number_of(n, address, "class") >> 16 == 6;
}

/* Each in the group must be VFIO's, nobody's, or a bridge: else the kernel does not hand the group out. */
static int check_group(const struct vfio_node *n, const char *address, const char *group, struct err *err)
{
	_cleanup_free_ char *folder = xasprintf("%s/kernel/iommu_groups/%s/devices", n->sys, group);
	_cleanup_strvec_ struct strvec all = STRVEC_INIT;
	list(folder, &all);
	for (size_t i = 0; i < all.n; i++) {
		_cleanup_free_ char *driver = link_of(n, all.v[i], "driver");
		if (strcmp(all.v[i], address) == 0 || !driver || strncmp(driver, "vfio", 4) == 0 ||
		    strcmp(driver, "pci-stub") == 0 || strcmp(driver, "pcieport") == 0 ||
		    is_bridge(n, all.v[i]))
			continue;
		return err_set(err, EBUSY, "%s: shares IOMMU group %s with %s, which the driver %s has: the administrator binds that to vfio-pci, too",
			       address, group, all.v[i], driver);
	}
	return 0;
}

/* It is opened for a moment: the kernel hands a group to one process alone. */
static int check_file(const struct vfio_node *n, const char *address, const char *group, struct err *err)
{
	_cleanup_free_ char *path = xasprintf("%s/vfio/%s", n->dev, group),
			    *container = xasprintf("%s/vfio/vfio", n->dev);
	const char *const files[] = {path, container};
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_close_ int fd = open(files[i], O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0)
			continue;
		if (errno == EBUSY)
			return err_set(err, EBUSY, "%s: in use by another VM or program", address);
		if (errno == EACCES || errno == EPERM)
			return err_set(err, EACCES, "%s: %s may not be opened by this user: the administrator gives it to him (a udev rule, or chown)",
				       address, files[i]);
		return err_errno(err, errno, "%s: %s (is the module vfio-pci loaded?)", address,
				 files[i]);
	}
	return 0;
}

/* ret_near: how far it got, to be told of several. */
static int check_device(const struct vfio_node *n, const char *address, unsigned *ret_near,
			struct err *err)
{
	_cleanup_free_ char *group = link_of(n, address, "iommu_group"),
			    *driver = link_of(n, address, "driver");
	if (!group)
		return err_set(err, ENOTSUP, "%s: has no IOMMU group: the IOMMU is off (firmware: VT-d or AMD-Vi; kernel: intel_iommu=on)",
			       address);
	*ret_near = 1;
	if (!driver || strcmp(driver, "vfio-pci") != 0)
		return err_set(err, EBUSY, "%s: has the driver %s, not vfio-pci: the administrator binds it (driverctl set-override %s vfio-pci)",
			       address, driver ? driver : "(none)", address);
	*ret_near = 2;
	if (check_group(n, address, group, err) < 0)
		return -1;
	*ret_near = 3;
	return check_file(n, address, group, err);
}

/* ---- choice ---- */

static bool is_of(const struct vfio_node *n, const char *address, const char *name)
{
	unsigned vendor, device;
	if (pci_is_place(name))
		return strcasecmp(address, name + 4) == 0;
	return sscanf(name, "pci:%4x:%4x", &vendor, &device) == 2 &&
	       number_of(n, address, "vendor") == vendor && number_of(n, address, "device") == device;
}

static int choose(const struct vfio_node *n, const struct strvec *here, const char *name,
		  const struct strvec *taken, struct strvec *ret, struct err *err)
{
	struct err best = ERR_INIT;
	unsigned kinds = 0, nearest = 0;
	for (size_t i = 0; i < here->n; i++) {
		struct err why = ERR_INIT;
		unsigned near = 0;
		if (!is_of(n, here->v[i], name))
			continue;
		kinds++;
		if (strvec_has(taken, here->v[i]) || strvec_has(ret, here->v[i])) {
			err_set(&why, EBUSY, "%s: in use by another VM", here->v[i]);
			near = 4;
		} else if (check_device(n, here->v[i], &near, &why) == 0) {
			strvec_add(ret, here->v[i]);
			return 0;
		}
		if (near >= nearest)
			best = why;
		nearest = MAX(near, nearest);
	}
	if (!kinds)
		return err_set(err, ENODEV, "device %s: this node has none", name);
	err_copy(err, &best);
	return err_prefix(err, "device %s%s: ", name, kinds > 1 ? ", of which none can be had" : "");
}

int vfio_choose(const struct vfio_node *n, const struct strvec *names, const struct strvec *taken,
		struct strvec *ret_addresses, struct err *err)
{
	_cleanup_free_ char *folder = xasprintf("%s/bus/pci/devices", n->sys);
	_cleanup_strvec_ struct strvec here = STRVEC_INIT, chosen = STRVEC_INIT;
	list(folder, &here);
	for (size_t i = 0; i < names->n; i++)
		if (vfio_check_name(names->v[i], err) < 0 ||
		    choose(n, &here, names->v[i], taken, &chosen, err) < 0)
			return -1;
	strvec_copy(ret_addresses, &chosen);
	return 0;
}

int vfio_check_memlock(uint64_t memory, struct err *err)
{
	struct rlimit rl;
	if (getrlimit(RLIMIT_MEMLOCK, &rl) < 0)
		return err_errno(err, errno, "limit of locked memory");
	if (rl.rlim_max == RLIM_INFINITY || rl.rlim_max >= memory + SLACK || proc_capable(CAP_IPC_LOCK))
		return 0;
	return err_set(
		err, EPERM,
		"a VM with devices has all of its memory locked: %" PRIu64 " MiB wanted, %" PRIu64 " MiB allowed (ulimit -l; the site raises it in limits.conf, or LimitMEMLOCK= of the launcher's daemon)",
		(memory + SLACK) >> 20, (uint64_t)rl.rlim_max >> 20);
}

bool vfio_lacks(const struct vfio_node *n, char *out, size_t size)
{
	_cleanup_free_ char *groups = xasprintf("%s/kernel/iommu_groups", n->sys),
			    *bound = xasprintf("%s/bus/pci/drivers/vfio-pci", n->sys);
	_cleanup_strvec_ struct strvec all = STRVEC_INIT, bound_to_it = STRVEC_INIT;
	const char *why = "";
	unsigned devices = 0;
	list(groups, &all);
	list(bound, &bound_to_it);
	for (size_t i = 0; i < bound_to_it.n; i++)
		devices += pci_is_address(bound_to_it.v[i]);
	if (!all.n)
		why = "no IOMMU: it is off in firmware or kernel (intel_iommu=on), or not there";
	else if (!devices)
		why = "no device is bound to vfio-pci; the administrator does that";
	snprintf(out, size, "%s", why);
	return *why;
}
