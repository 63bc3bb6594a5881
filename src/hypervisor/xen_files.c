/* SPDX-License-Identifier: Apache-2.0 */
/* What a domain needs of the node, and leaves there. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/qemu.h"
#include "hypervisor/xen.h"
#include "io/child.h"

#define LOG_MAX (1u << 20) /* of the device model */

int xen_open_console(const char *path, struct err *err)
{
	struct termios t;
	if (strncmp(path, "/dev/pts/", 9) != 0)
		return err_set(err, EPROTO, "console: xenstore names no terminal");
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "console %s", path);
	if (tcgetattr(fd, &t) == 0) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

void xen_explain(const char *name, const char *what, const char *errors, int status, char *out,
		 size_t size)
{
	char cause[300], said[200] = "", how[40];
	_cleanup_free_ char *path = xasprintf("/var/log/xen/qemu-dm-%s.log", name), *log = NULL;
	xen_cause(errors, cause, sizeof(cause));
	if (strstr(cause, "device model") && path_read(path, LOG_MAX, &log, NULL, NULL) == 0)
		qemu_last_words(log, said, sizeof(said));
	snprintf(out, size, "%s: %s%s%s", what, cause[0] ? cause : child_status_text(status, how),
		 said[0] ? ": " : "", said);
}

void xen_signature(const struct hv_spec *s, const struct xen_host *h, enum xen_type type,
		   char out[HV_SIGNATURE_MAX])
{
	snprintf(out, HV_SIGNATURE_MAX, "xen=%u.%u type=%s cpus=%u memory=%llu devices=%s%s%s",
		 h->number / 100, h->number % 100, xen_type_name(type), s->cpus,
		 (unsigned long long)s->memory, s->root ? "r" : "", s->scratch ? "s" : "",
		 s->nic ? "n" : "");
}

const char *xen_end_text(int reason)
{
	switch (reason) {
	case XEN_REASON_POWEROFF: return "guest powered off";
	case XEN_REASON_REBOOT: return "guest reset itself (reboot or kernel panic)";
	case XEN_REASON_CRASH: return "guest kernel panicked";
	case XEN_REASON_WATCHDOG: return "the guest's watchdog ended it";
	default: return "the guest ended in a way that Xen does not tell";
	}
}

int xen_note_write(const char *dir, const struct xen_id *id, const char *signature, struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, XEN_NOTE);
	_cleanup_free_ char *text = xasprintf("%s %s\n%s\n", id->name, id->uuid, signature);
	return path_write(path, text, strlen(text), 0600, err);
}

int xen_note_read(const char *dir, struct xen_id *ret_id, char ret_signature[HV_SIGNATURE_MAX],
		  struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, XEN_NOTE), *text = NULL;
	struct xen_id id;
	char signature[HV_SIGNATURE_MAX];
	if (path_read(path, 1024, &text, NULL, NULL) < 0 ||
	    sscanf(text, "%63s %36s\n%255[^\n]", id.name, id.uuid, signature) != 3)
		return err_set(err, ENOENT, "no VM that can be adopted in %s", dir);
	*ret_id = id;
	memcpy(ret_signature, signature, sizeof(signature));
	return 0;
}

void xen_remove_files(const char *dir)
{
	static const char *const names[] = {XEN_NOTE, XEN_CONFIG, XEN_CHANNEL_0, XEN_CHANNEL_1};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *p = path_join(dir, names[i]);
		unlink(p);
	}
}
