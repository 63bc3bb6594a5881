/* SPDX-License-Identifier: Apache-2.0 */
/* The modules that /init loads, in an order that works: each behind what its .modinfo section says
 * it depends on (Linux, include/linux/module.h, MODULE_INFO; kernel/module). */
#ifndef VSE_IMAGE_MODULES_H
#define VSE_IMAGE_MODULES_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/strvec.h"

/* The "depends=" of a module (comma-separated names appended to out; none is fine). EINVAL: no ELF
 * module. */
int modinfo_depends(const unsigned char *ko, size_t len, struct strvec *out, struct err *err);
/* The name in a path: "kernel/x/virtio-rng.ko.xz" -> "virtio_rng"; malloc'ed, NULL when it is no
 * module. */
char *module_name(const char *path);

/* dir: …/lib/modules/VERSION, or NULL for a kernel with nothing but built-ins. Appends the names in
 * load order to `order`, and an archive "modules/NAME.ko" (uncompressed) to `cpio`. A module that
 * must be there and is neither a file nor built in is an error. */
int modules_collect(const char *dir, struct strvec *order, struct buf *cpio, struct err *err);

#endif
