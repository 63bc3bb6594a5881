/* SPDX-License-Identifier: Apache-2.0 */
/* Process 1 of a container. bwrap has made the namespaces and a first root with what is needed: the image's tree,
 * /proc, /dev, the node's /sys. From these the VM's own root is made, and the first one is left. */
#include "guest/contain.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/size.h"
#include "guest/netconf.h"
#include "wire/container.h"

/* The host reads the last line as the reason. */
static _Noreturn void give_up(const char *what)
{
	dprintf(2, "vse-guest: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static _Noreturn void give_up_err(const struct err *err)
{
	dprintf(2, "vse-guest: %s\n", err->text);
	_exit(1);
}

static void mount_on(const char *what, const char *where, const char *type, unsigned long flags,
		     const char *options)
{
	mkdir(where, 0755);
	if (mount(what, where, type, flags, options) < 0)
		give_up(where);
}

/* ---- the root ---- */

static void mount_root(uint64_t upper)
{
	char size[40];
	snprintf(size, sizeof(size), "size=%llu,mode=0755", (unsigned long long)upper);
	mount_on("tmpfs", CONTAINER_UPPER, "tmpfs", MS_NODEV, size);
	mkdir(CONTAINER_UPPER "/up", 0755);
	mkdir(CONTAINER_UPPER "/work", 0755);
	/* userxattr: what a user namespace may write. Before Linux 6.6 a tmpfs has none of these: then a folder of the
	 * image that was removed cannot be made anew. */
	mount_on("overlay", CONTAINER_ROOT, "overlay", MS_NODEV,
		 "userxattr,lowerdir=" CONTAINER_LOWER ",upperdir=" CONTAINER_UPPER
		 "/up,workdir=" CONTAINER_UPPER "/work");
}

static void move(const char *from, const char *to)
{
	mkdir(to, 0755);
	if (mount(from, to, NULL, MS_MOVE, NULL) < 0)
		give_up(to);
}

/* One of our own shows our own network devices; where the kernel refuses it, the node's does. */
static void mount_sys(void)
{
	mkdir(CONTAINER_ROOT "/sys", 0755);
	if (mount("sysfs", CONTAINER_ROOT "/sys", "sysfs",
		  MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		move("/sys", CONTAINER_ROOT "/sys");
}

/* What is written there must never reach the node's kernel. As root of the node that is more than a file's mode. */
static void mask_sysrq(void)
{
	static const char file[] = "/proc/sysrq-trigger";
	if (path_exists(file) && mount("/dev/null", file, NULL, MS_BIND, NULL) < 0)
		give_up(file);
}

static void mount_small(const char *where, unsigned long flags, const char *mode, uint64_t size)
{
	char options[60];
	snprintf(options, sizeof(options), "size=%llu,mode=%s", (unsigned long long)size, mode);
	mount_on("tmpfs", where, "tmpfs", MS_NOSUID | MS_NODEV | flags, options);
}

static void switch_root(void)
{
	if (chdir(CONTAINER_ROOT) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		give_up("switch to the root");
}

/* Over the switch of the root they are kept in /dev: a link of the image must lead where it leads inside. */
static char *kept_mount(const char *root, size_t i)
{
	return xasprintf("%s/dev" CONTAINER_MOUNT "%zu", root, i);
}

static void keep_mounts(char **dirs)
{
	for (size_t i = 0; dirs[i]; i++) {
		_cleanup_free_ char *from = xasprintf(CONTAINER_MOUNT "%zu", i),
				    *to = kept_mount(CONTAINER_ROOT, i);
		move(from, to);
	}
}

static void place_mounts(char **dirs)
{
	struct err err = ERR_INIT;
	for (size_t i = 0; dirs[i]; i++) {
		_cleanup_free_ char *from = kept_mount("", i);
		if (path_mkdirs(dirs[i], 0755, &err) < 0)
			give_up_err(&err);
		move(from, dirs[i]);
		rmdir(from);
	}
}

static void build_root(uint64_t upper, uint64_t run, char **mounts)
{
	mount_root(upper);
	mask_sysrq();
	mount_sys();
	move("/proc", CONTAINER_ROOT "/proc");
	move("/dev", CONTAINER_ROOT "/dev");
	/* Every file system that can be written has a bound: it is the node's memory. */
	mount(NULL, CONTAINER_ROOT "/dev", NULL, MS_REMOUNT | MS_NOSUID | MS_RELATIME,
	      "size=1m,mode=0755");
	keep_mounts(mounts);
	switch_root();
	mount_small("/run", 0, "0755", run);
	mount_small("/dev/shm", MS_NOEXEC, "1777", run);
	mkdir("/run/lock", 01777);
	chmod("/run/lock", 01777);
	mkdir("/tmp", 01777);
	chmod("/tmp", 01777);
	place_mounts(mounts);
}

/* ---- the rest ---- */

static void use_console(void)
{
	setsid();
	for (int i = 0; i < 3; i++)
		dup2(CONTAINER_FD_CONSOLE, i);
	close(CONTAINER_FD_CONSOLE);
}

static uint64_t number(const char *text)
{
	int64_t v;
	struct err err = ERR_INIT;
	if (!text || int_parse(text, 0, INT64_MAX, &v, &err) < 0) {
		errno = EINVAL;
		give_up("arguments");
	}
	return (uint64_t)v;
}

static void read_random_id(char out[40])
{
	_cleanup_free_ char *id = NULL;
	if (path_read("/proc/sys/kernel/random/uuid", 64, &id, NULL, NULL) == 0)
		id[strcspn(id, "\n")] = '\0';
	snprintf(out, 40, "%s", id ? id : "unknown");
}

_Noreturn void contain_main(char **argv)
{
	struct guest g = {.init = INIT_VSE, .container = true, .sshd_log = -1, .notify_fd = -1};
	struct err err = ERR_INIT;
	uint64_t v[6];
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		v[i] = number(argv[i]); /* does not return from the end of them */
	umask(022);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	prctl(PR_SET_NAME, "vse-guest");
	strncpy(argv[-2], "vse-guest", strlen(argv[-2])); /* what ps(1) shows */
	for (int fd = CONTAINER_FD_CHANNEL; fd < CONTAINER_FDS; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	syscall(SYS_close_range, CONTAINER_FDS, ~0u, 0);
	build_root(v[0], v[1], argv + ARRAY_SIZE(v));
	net_loopback();
	if (v[5] && contain_net(CONTAINER_FD_WIRE, &err) < 0)
		give_up_err(&err);
	if (confine(v[4], (unsigned)v[2], (unsigned)v[3], &err) < 0)
		give_up_err(&err);
	read_random_id(g.boot);
	close(CONTAINER_FD_WIRE);
	close(CONTAINER_FD_PROGRAM);
	close(CONTAINER_FD_INFO);
	close(CONTAINER_FD_BLOCK);
	use_console();
	char up = CONTAINER_UP;
	if (write(CONTAINER_FD_STATUS, &up, 1) != 1)
		_exit(1); /* the host is gone */
	close(CONTAINER_FD_STATUS);
	channel_fd(&g.channel, CONTAINER_FD_CHANNEL);
	agent_run(&g);
	_exit(1); /* the host is gone: all ends with us */
}
