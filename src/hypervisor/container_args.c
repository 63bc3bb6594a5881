/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/container.h"

/* ---- what can run ---- */

/* A kernel is not run here, but a VSE that has none runs nowhere else. x86: "HdrS" at 0x202 (the kernel's
 * Documentation/arch/x86/boot.rst); or an ELF file. */
static int check_kernel(const char *path, struct err *err)
{
	char head[0x206];
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "kernel %s", path);
	ssize_t n = fd_read_full(fd, head, sizeof(head));
	if (n == (ssize_t)sizeof(head) &&
	    (memcmp(head, "\177ELF", 4) == 0 || memcmp(head + 0x202, "HdrS", 4) == 0))
		return 0;
	return err_set(err, EINVAL, "kernel %s: is none", path);
}

static int check_readable(const char *what, const char *path, struct err *err)
{
	if (!path)
		return err_set(err, EINVAL, "no %s given", what);
	if (path[0] != '/')
		return err_set(err, EINVAL, "%s %s: not an absolute path", what, path);
	return access(path, R_OK) < 0 ? err_errno(err, errno, "%s %s", what, path) : 0;
}

/* The value of NAME=value in the kernel's words, or NULL; malloc'ed. */
static char *word(const char *words, const char *name)
{
	_cleanup_free_ char *copy = xstrdup(words ? words : "");
	size_t n = strlen(name);
	for (char *rest = copy, *w; (w = strsep(&rest, " "));)
		if (strncmp(w, name, n) == 0 && w[n] == '=')
			return xstrdup(w + n + 1);
	return NULL;
}

static int check_words(const char *words, struct err *err)
{
	_cleanup_free_ char *init = word(words, "vse.init"), *root = word(words, "vse.root");
	if (init && strcmp(init, "vse") != 0)
		return err_set(err, ENOTSUP, "init: %.40s: not supported: it wants a machine of its own; use init: vse",
			       init);
	if (root && strncmp(root, "squashfs:", 9) != 0)
		return err_set(err, ENOTSUP, "root image: %.40s: only squashfs can be unpacked", root);
	return 0;
}

int container_check(const struct hv_spec *spec, struct err *err)
{
	if (check_readable("kernel", spec->vmlinux ? spec->vmlinux : spec->kernel, err) < 0 ||
	    check_kernel(spec->vmlinux ? spec->vmlinux : spec->kernel, err) < 0 ||
	    check_readable("initramfs", spec->initrd, err) < 0 ||
	    check_readable("root image", spec->root, err) < 0 || check_words(spec->cmdline, err) < 0)
		return -1;
	if (spec->machine && strcmp(spec->machine, "auto") != 0)
		return err_set(err, EINVAL, "machine type %s: unknown, allowed is auto", spec->machine);
	if (spec->accel && strcmp(spec->accel, "auto") != 0 && strcmp(spec->accel, "namespaces") != 0)
		return err_set(err, EINVAL, "accelerator %s: unknown, allowed are auto and namespaces",
			       spec->accel);
	return 0;
}

void container_size(const struct hv_spec *spec, struct container_size *ret)
{
	*ret = (struct container_size){.upper = spec->memory / 5 * 4, /* as in a VM (guest/init.c) */
				       .run = spec->memory / 2,
				       .memory = spec->memory,
				       .cpus = spec->cpus,
				       .first = spec->rank * spec->cpus,
				       .nic = spec->nic};
}

/* ---- what bwrap is told ---- */

void container_mounts(const struct hv_spec *spec, struct container_mounts *ret)
{
	for (size_t i = 0; i < spec->n_mounts; i++) {
		const struct hv_mount *m = &spec->mounts[i];
		/* bwrap adds nosuid and nodev by itself. */
		strvec_addv(&ret->args, m->rw ? "--bind" : "--ro-bind", m->host, NULL);
		strvec_addf(&ret->args, CONTAINER_MOUNT "%zu", i);
		strvec_add(&ret->dirs, m->guest);
	}
}

void container_args(const char *name, const struct container_size *size,
		    const struct container_mounts *mounts, const struct strvec *extra,
		    const char *root, const char *console, struct strvec *v)
{
	strvec_addv(v, "--hostname", name, "--dir", CONTAINER_ROOT, "--dir", CONTAINER_UPPER, "--dev",
		    "/dev", "--dev-bind", console, "/dev/console", "--proc", "/proc", "--ro-bind",
		    "/sys", "/sys", "--ro-bind", root, CONTAINER_LOWER, "--chdir", "/", NULL);
	strvec_copy(v, &mounts->args);
	if (extra)
		strvec_copy(v, extra);
	strvec_add(v, "--");
	strvec_addf(v, "/proc/self/fd/%d", CONTAINER_FD_PROGRAM);
	strvec_add(v, "--container");
	strvec_addf(v, "%" PRIu64, size->upper);
	strvec_addf(v, "%" PRIu64, size->run);
	strvec_addf(v, "%u", size->cpus);
	strvec_addf(v, "%u", size->first);
	strvec_addf(v, "%" PRIu64, size->memory);
	strvec_add(v, size->nic ? "1" : "0");
	strvec_copy(v, &mounts->dirs);
}
