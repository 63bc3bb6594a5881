/* SPDX-License-Identifier: Apache-2.0 */
/* Devices for VMs, on nodes that are made up: every reason why one cannot be had. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "hypervisor/vfio.h"
#include "tap.h"

static char top[] = "/tmp/vse-test-vfio.XXXXXX", sys[64], dev[64];
static struct vfio_node node = {sys, dev};

static void put(const char *text, const char *fmt, ...) _printf_(2, 3);
static void put(const char *text, const char *fmt, ...)
{
	char path[512];
	struct err e = ERR_INIT;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	*strrchr(path, '/') = '\0';
	path_mkdirs(path, 0755, &e);
	path[strlen(path)] = '/';
	if (path_write(path, text, strlen(text), 0644, &e) < 0)
		ok(false, "%s", e.text);
}

static void link_to(const char *to, const char *fmt, ...) _printf_(2, 3);
static void link_to(const char *to, const char *fmt, ...)
{
	char path[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	unlink(path);
	if (symlink(to, path) < 0)
		ok(false, "%s", path);
}

/* group NULL: none; driver NULL: none. */
static void device(const char *address, const char *id, const char *class, const char *group,
		   const char *driver)
{
	_cleanup_free_ char *vendor = xasprintf("0x%.4s\n", id),
			    *kind = xasprintf("0x%.4s\n", id + 5),
			    *class_text = xasprintf("0x%s\n", class);
	put(vendor, "%s/bus/pci/devices/%s/vendor", sys, address);
	put(kind, "%s/bus/pci/devices/%s/device", sys, address);
	put(class_text, "%s/bus/pci/devices/%s/class", sys, address);
	if (driver) {
		_cleanup_free_ char *to = xasprintf("../../../bus/pci/drivers/%s", driver);
		link_to(to, "%s/bus/pci/devices/%s/driver", sys, address);
		put("", "%s/bus/pci/drivers/%s/%s", sys, driver, address);
	}
	if (group) {
		_cleanup_free_ char *to = xasprintf("../../../kernel/iommu_groups/%s", group);
		link_to(to, "%s/bus/pci/devices/%s/iommu_group", sys, address);
		put("", "%s/kernel/iommu_groups/%s/devices/%s", sys, group, address);
	}
}

/* names: with blanks between; want: addresses likewise, or NULL: refused with that code and these words. */
static void chosen(const char *names, const char *taken, const char *want, int code, const char *say)
{
	_cleanup_strvec_ struct strvec n = STRVEC_INIT, t = STRVEC_INIT, got = STRVEC_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct err e = ERR_INIT;
	strvec_split(&n, names, " ");
	strvec_split(&t, taken, " ");
	int rc = vfio_choose(&node, &n, &t, &got, &e);
	for (size_t i = 0; i < got.n; i++)
		buf_addf(&text, "%s%s", i ? " " : "", got.v[i]);
	if (want) {
		is_int(rc, 0, "%s: chosen %s", names, e.text);
		is_str(buf_cstr(&text), want, "the right ones");
	} else {
		ok(rc < 0 && e.code == code && strstr(e.text, say) && !got.n && !strchr(e.text, '\n'),
		   "%s: %s", names, e.text);
	}
}

static void test_names(void)
{
	static const char *const good[] = {"pci:15b3:101e", "pci:0000:3b:00.0", "pci:ABCD:ef01"},
				 *const bad[] = {"",
						 "pci:",
						 "15b3:101e",
						 "pci:15b3",
						 "pci:15b3:101",
						 "pci:15b3:101ee",
						 "pci:0000:3b:00",
						 "pci:0000:3b:00.00",
						 "pci:15b3:101g",
						 "usb:15b3:101e",
						 "pci:15b3:101e,x=y"};
	struct err e = ERR_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		is_int(vfio_check_name(good[i], &e), 0, "%s %s", good[i], e.text);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e = ERR_INIT;
		ok(vfio_check_name(bad[i], &e) < 0 && e.code == EINVAL, "'%s': %s", bad[i], e.text);
	}
}

static void test_choice(void)
{
	char why[100];
	ok(vfio_lacks(&node, why, sizeof(why)) && strstr(why, "no IOMMU"), "an empty node: %s", why);
	chosen("pci:15b3:101e", "", NULL, ENODEV, "this node has none");
	device("0000:3b:00.0", "15b3:101d", "020000", NULL, "mlx5_core");
	chosen("pci:15b3:101d", "", NULL, ENOTSUP, "no IOMMU group");
	device("0000:3b:00.0", "15b3:101d", "020000", "7", "mlx5_core");
	ok(vfio_lacks(&node, why, sizeof(why)) && strstr(why, "vfio-pci"), "nothing is bound: %s", why);
	chosen("pci:15b3:101d", "", NULL, EBUSY, "has the driver mlx5_core, not vfio-pci");
	device("0000:3b:00.1", "15b3:101e", "020000", "8", NULL);
	chosen("pci:15b3:101e", "", NULL, EBUSY, "driverctl set-override 0000:3b:00.1 vfio-pci");
	device("0000:3b:00.1", "15b3:101e", "020000", "8", "vfio-pci");
	ok(!vfio_lacks(&node, why, sizeof(why)), "one is bound");
	chosen("pci:15b3:101e", "", NULL, ENOENT, "is the module vfio-pci loaded?");
	put("", "%s/vfio/vfio", dev);
	put("", "%s/vfio/8", dev);
	chosen("pci:15b3:101e", "", "0000:3b:00.1", 0, NULL);
	chosen("pci:0000:3b:00.1", "", "0000:3b:00.1", 0, NULL);
	chosen("pci:0000:3b:00.7", "", NULL, ENODEV, "this node has none");
	chosen("pci:15b3:101e", "0000:3b:00.1", NULL, EBUSY, "in use by another VM");
	chosen("pci:15b3:101e pci:15b3:101e", "", NULL, EBUSY, "in use");
}

static void test_groups(void)
{
	/* A second virtual function, with a bridge and one of the node's own in its group. */
	device("0000:3b:00.2", "15b3:101e", "020000", "9", "vfio-pci");
	device("0000:3a:00.0", "8086:1901", "060400", "9", "shpchp");
	put("", "%s/vfio/9", dev);
	chosen("pci:15b3:101e pci:15b3:101e", "", "0000:3b:00.1 0000:3b:00.2", 0, NULL);
	chosen("pci:0000:3b:00.2 pci:15b3:101e", "", "0000:3b:00.2 0000:3b:00.1", 0, NULL);
	device("0000:3b:00.3", "10de:20b0", "030200", "9", "nvidia");
	chosen("pci:0000:3b:00.2", "", NULL, EBUSY,
	       "shares IOMMU group 9 with 0000:3b:00.3, which the driver nvidia has");
	chosen("pci:15b3:101e pci:15b3:101e", "", NULL, EBUSY, "none can be had");
	_cleanup_free_ char *file = xasprintf("%s/vfio/8", dev);
	chmod(file, 0);
	if (geteuid() != 0)
		chosen("pci:15b3:101e", "", NULL, EACCES, "may not be opened"); /* the one that came nearest */
	if (geteuid() != 0)
		chosen("pci:0000:3b:00.1", "", NULL, EACCES, "may not be opened by this user");
}

/* In a process of its own: a limit cannot be taken back. */
static void test_memlock(void)
{
	struct rlimit rl = {1 << 20, 1 << 20};
	struct err e = ERR_INIT;
	is_int(setrlimit(RLIMIT_MEMLOCK, &rl), 0, "a low limit");
	int rc = vfio_check_memlock(UINT64_C(1) << 30, &e);
	if (geteuid() == 0)
		is_int(rc, 0, "root need not mind %s", e.text);
	else
		ok(rc < 0 && e.code == EPERM && strstr(e.text, "1280 MiB wanted, 1 MiB allowed"),
		   "%s", e.text);
}

int main(void)
{
	if (!mkdtemp(top))
		return 1;
	snprintf(sys, sizeof(sys), "%s/sys", top);
	snprintf(dev, sizeof(dev), "%s/dev", top);
	test_names();
	test_choice();
	test_groups();
	test_memlock();
	path_remove(top, NULL);
	return done();
}
