/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a "newc" cpio archive, the form of an initramfs (Linux,
 * Documentation/driver-api/early-userspace/buffer-format.rst). The bytes depend on nothing but the
 * calls: owner 0, time 0, inode numbers counted from 1. */
#ifndef VSE_IMAGE_CPIO_H
#define VSE_IMAGE_CPIO_H

#include <stdint.h>

#include "base/buf.h"

struct cpio {
	struct buf *out; /* borrowed */
	uint32_t ino;
};

#define CPIO_INIT(b) ((struct cpio){.out = (b)})

/* name: relative, without a leading slash; parents must have been added before. Modes are
 * permission bits. */
void cpio_dir(struct cpio *c, const char *name, unsigned mode);
void cpio_file(struct cpio *c, const char *name, unsigned mode, const void *data, uint32_t len);
void cpio_symlink(struct cpio *c, const char *name, const char *target);
/* A character device; /dev/console must be there before anything is mounted. */
void cpio_char(struct cpio *c, const char *name, unsigned mode, unsigned major, unsigned minor);
/* The closing record, padded to 512 bytes. The kernel unpacks archives that follow one another. */
void cpio_end(struct cpio *c);

#endif
