/* SPDX-License-Identifier: Apache-2.0 */
/* Process 1 of our initramfs: modules, the root with its writable overlay, then the agent or systemd. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "guest/guest.h"
#include "guest/netconf.h"
#include "wire/kv.h"

#define DISK_WAIT_MS 10000
#define FAILED_MS 1000
#define LOWER "/root"
#define OVERLAY "/overlay"
#define ROOT "/newroot"

static int scratch = -1; /* the scratch disk's top folder: its mount has no name after the switch */

/* Tells a host that is there already; nobody waits for one. */
static void send_failed(const char *text)
{
	struct guest g = {.init = INIT_VSE, .sshd_log = -1, .notify_fd = -1};
	_cleanup_buf_ struct buf more = BUF_INIT;
	channel_init(&g.channel);
	if (!channel_try(&g.channel, time_mono_ms()))
		return;
	kv_adds(&more, "text", text);
	agent_send(&g, 0, "failed", &more);
	agent_flush(&g, FAILED_MS);
	/* The port hands over asynchronously: off too early, and the line is lost. */
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
}

static void print_line(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0)
		dprintf(fd, "%svse-guest: panic: %s\n",
			strcmp(path, "/dev/kmsg") == 0 ? "<2>" : "\r\n", text);
}

_Noreturn void init_panic(const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	print_line("/dev/kmsg", text);
	send_failed(text);
	init_release();
	power_now("poweroff");
}

void init_release(void)
{
	sync();
	if (scratch < 0)
		return;
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	if (fchdir(scratch) == 0)
		mount(NULL, ".", NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

static void mount_or_panic(const char *what, const char *where, const char *type,
			   unsigned long flags, const char *options)
{
	mkdir(where, 0755);
	if (mount(what, where, type, flags, options) < 0)
		init_panic("mount %s (%s) on %s: %s", what, type, where, strerror(errno));
}

static void first_mounts(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);
	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

void init_say(const char *fmt, ...)
{
	char text[300];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	_cleanup_close_ int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		dprintf(fd, "<3>vse-guest: %s\n", text);
}

static bool has_pci(void)
{
	DIR *d = opendir("/sys/bus/pci/devices");
	const struct dirent *e;
	bool found = false;
	while (d && !found && (e = readdir(d)))
		found = e->d_name[0] != '.';
	if (d)
		closedir(d);
	return found;
}

/* For host directories; those that only 9p needs are told by their names, too. */
static bool is_for_9p(const char *name)
{
	static const char *const names[] = {"9p", "9pnet", "9pnet_virtio", "netfs", "fscache"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static void load_modules(void)
{
	_cleanup_free_ char *mounts = cmdline_get("vse.mounts");
	_cleanup_free_ char *list = cmdline_get("vse.mods");
	bool pci = has_pci(), xen = path_exists("/sys/hypervisor/type");
	for (char *rest = list, *name; rest && (name = strsep(&rest, ","));) {
		if (!*name || strchr(name, '/'))
			continue;
		/* The list serves every machine type. Under emulation a module costs 10 ms. */
		if (!pci && strncmp(name, "virtio_pci", 10) == 0)
			continue;
		if (!xen && strncmp(name, "xen", 3) == 0)
			continue;
		if (!mounts && is_for_9p(name))
			continue;
		_cleanup_free_ char *path = xasprintf("/modules/%s.ko", name);
		_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			init_say("module %s: %s", name, strerror(errno));
	}
	path_remove("/modules", NULL); /* its memory is the VM's */
}

/* What virtio calls vda is xvda under Xen, and xvde in an HVM guest, where the first four would be IDE disks, too. */
static char *find_disk(const char *name)
{
	static const char *const places[] = {"/dev/", "/dev/x"};
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char *dev = xasprintf("%s%s", places[i], name);
		if (path_exists(dev))
			return dev;
		free(dev);
	}
	if (strlen(name) != 3 || strncmp(name, "vd", 2) != 0 || name[2] < 'a' || name[2] > 'd')
		return NULL;
	char *dev = xasprintf("/dev/xvd%c", name[2] + 4);
	if (path_exists(dev))
		return dev;
	free(dev);
	return NULL;
}

/* A disk shows up a little after its driver. */
static char *wait_disk(const char *name)
{
	char *dev;
	if (!*name || strchr(name, '/'))
		init_panic("vse.root: '%s' is no name of a disk", name);
	uint64_t until = time_mono_ms() + DISK_WAIT_MS;
	while (!(dev = find_disk(name))) {
		if (time_mono_ms() >= until)
			init_panic("disk /dev/%s did not appear within %d s", name, DISK_WAIT_MS / 1000);
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	return dev;
}

static void mount_overlay(const char *upper)
{
	if (strcmp(upper, "mem") == 0) {
		mount_or_panic("tmpfs", OVERLAY, "tmpfs", 0, "size=80%,mode=0755");
	} else {
		_cleanup_free_ char *dev = wait_disk(upper);
		mount_or_panic(dev, OVERLAY, "ext4", MS_NOATIME, NULL);
		scratch = open(OVERLAY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	mkdir(OVERLAY "/upper", 0755);
	mkdir(OVERLAY "/work", 0755);
	mount_or_panic("overlay", ROOT, "overlay", 0,
		       "lowerdir=" LOWER ",upperdir=" OVERLAY "/upper,workdir=" OVERLAY "/work");
}

static void mount_root(void)
{
	_cleanup_free_ char *spec = cmdline_get("vse.root");
	char *rest = spec, *type = rest ? strsep(&rest, ":") : NULL,
	     *disk = rest ? strsep(&rest, ":") : NULL;
	if (!type || !disk || !rest || !*type || !*rest)
		init_panic("the kernel command line has no vse.root=TYPE:DISK:OVERLAY");
	_cleanup_free_ char *dev = wait_disk(disk);
	mount_or_panic(dev, LOWER, type, MS_RDONLY, NULL);
	mount_overlay(rest);
}

static void move(const char *from)
{
	_cleanup_free_ char *to = path_join(ROOT, from);
	mkdir(to, 0755);
	if (mount(from, to, NULL, MS_MOVE, NULL) < 0)
		init_panic("move %s into the root: %s", from, strerror(errno));
}

/* /bin may be an absolute link, which is wrong until the switch. */
static bool is_root(void)
{
	struct stat st;
	return (stat(ROOT "/bin", &st) == 0 && S_ISDIR(st.st_mode)) ||
	       (stat(ROOT "/usr/bin", &st) == 0 && S_ISDIR(st.st_mode));
}

static void switch_root(void)
{
	if (!is_root())
		init_panic("the root file system has no /bin: is it one?");
	move("/dev");
	move("/proc");
	move("/sys");
	unlink("/init");
	if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		init_panic("switch to the root: %s", strerror(errno));
}

static void try_mount(const char *type, const char *where, unsigned long flags, const char *options)
{
	mkdir(where, 0755);
	if (mount(type, where, type, flags, options) < 0)
		init_say("mount %s on %s: %s", type, where, strerror(errno));
}

/* What a distribution's init would have made. */
static void last_mounts(void)
{
	static const char *const links[][2] = {
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	};
	try_mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
	try_mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	try_mount("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			init_say("%s: %s", links[i][1], strerror(errno));
	mkdir("/run/lock", 01777);
	mkdir("/tmp", 01777);
	chmod("/tmp", 01777);
	chmod("/run/lock", 01777);
	net_loopback();
}

/* Message passing pins memory; a program's soft limit of open files is set when it starts. */
static void limits(void)
{
	static const struct rlimit files = {524288, 524288}, all = {RLIM_INFINITY, RLIM_INFINITY};
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_MEMLOCK, &all);
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, RLIM_INFINITY});
}

_Noreturn void init_main(void)
{
	umask(022);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	first_mounts();
	reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del: a signal to us, not an instant reboot */
	_cleanup_free_ char *init = cmdline_get("vse.init");
	load_modules();
	timer_check();
	mount_root();
	switch_root();
	try_mount("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
	if (init && strcmp(init, "systemd") == 0)
		systemd_handover();
	last_mounts();
	limits();
	struct guest g = {.init = INIT_VSE, .sshd_log = -1, .notify_fd = -1};
	channel_init(&g.channel);
	setup_practise();
	agent_run(&g);
	init_panic("the agent ended");
}
