/* SPDX-License-Identifier: Apache-2.0 */
/* For back ends that boot a VSE image's own files. */
#ifndef VSE_HYPERVISOR_FILES_H
#define VSE_HYPERVISOR_FILES_H

#include "hypervisor/hypervisor.h"

/* Kernel, initramfs, root image and scratch disk, where they are given: absolute, and to be opened by us. What the
 * hypervisor would find out later, told at once and with nothing begun. EINVAL, or access(2)'s. */
int hv_check_files(const struct hv_spec *spec, struct err *err);

/* From the text of /proc/self/mountinfo (spoilt): that `dir` (absolute, without links) is on no file system of the kernel's
 * own, such as /proc, and has none mounted in it. EPERM. */
int hostdir_judge(char *mountinfo, const char *dir, struct err *err);

#endif
