/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/files.h"

#include <errno.h>
#include <unistd.h>

int hv_check_files(const struct hv_spec *spec, struct err *err)
{
	const struct {
		const char *what, *path;
		int mode;
	} files[] = {
		{"kernel", spec->vmlinux ? spec->vmlinux : spec->kernel, R_OK},
		{"initramfs", spec->initrd, R_OK},
		{"root image", spec->root, R_OK},
		{"scratch disk", spec->scratch, R_OK | W_OK},
	};
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (!files[i].path)
			continue;
		if (files[i].path[0] != '/')
			return err_set(err, EINVAL, "%s %s: not an absolute path", files[i].what,
				       files[i].path);
		if (access(files[i].path, files[i].mode) < 0)
			return err_errno(err, errno, "%s %s", files[i].what, files[i].path);
	}
	return 0;
}
