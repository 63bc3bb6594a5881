/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of the node, by 9p over virtio (Linux, Documentation/filesystems/9p.rst). Who may do what is decided twice: by
 * this kernel, from owner and mode of a file, which are those on the node; and on the node, where all is done as the
 * user whose VM this is. */
#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "guest/guest.h"
#include "wire/kv.h"

/* msize: the most that virtio takes at once (net/9p/trans_virtio.c: 128 - 3 pages). cache=none: what VMs, and the node, write
 * and remove is seen by all others at once. The price is that no file can be mapped shared to be written to; with
 * cache=mmap it could, but a file that another VM removes and this one makes again would be ENOENT (d_revalidate). */
#define OPTIONS "trans=virtio,version=9p2000.L,msize=512000,cache=none"

static int mount_one(const char *tag, bool rw, const char *where, struct err *err)
{
	if (path_mkdirs(where, 0755, err) < 0)
		return -1;
	if (mount(tag, where, "9p", MS_NOSUID | MS_NODEV | (rw ? 0 : MS_RDONLY), OPTIONS) == 0)
		return 0;
	if (errno == EBUSY) /* the tag is in use (trans_virtio.c): it was set up before */
		return 0;
	if (errno == ENODEV)
		return err_set(err, ENODEV, "host directory on %s: the image's kernel has no 9p file system; another has ('kernel: linux-image-amd64' in the VSE file)",
			       where);
	return err_errno(err, errno, "host directory on %s", where);
}

/* "TAG ro|rw PATH" */
static int mount_text(char *text, struct err *err)
{
	char *rest = text, *tag = strsep(&rest, " "), *mode = rest ? strsep(&rest, " ") : NULL;
	if (!mode || !rest || *rest != '/')
		return err_set(err, EINVAL, "a mount is TAG MODE PATH, not '%.80s'", text);
	return mount_one(tag, strcmp(mode, "rw") == 0, rest, err);
}

int mounts_apply(const char *data, size_t len, struct err *err)
{
	struct kv_iter it = {.data = data, .len = len};
	struct kv kv;
	while (kv_next(&it, &kv)) {
		if (!kv_is(&kv, "mount"))
			continue;
		_cleanup_free_ char *text = xstrndup(kv.value, kv.value_len);
		if (mount_text(text, err) < 0)
			return -1;
	}
	return 0;
}
