/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel of an image: where it comes from, and the uncompressed ELF with a PVH entry that
 * QEMU's microvm and Xen start directly (0.3 s less to boot under emulation than the bzImage, which
 * unpacks itself in the guest).
 *
 * bzImage: Linux, Documentation/arch/x86/boot.rst, "The Linux/x86 Boot Protocol": setup_sects
 * (0x1f1), "HdrS" (0x202), version (0x206), kernel_version (0x20e), payload_offset and
 * payload_length (0x248, 0x24c, since protocol 2.08). PVH: Xen, xen/include/public/elfnote.h,
 * XEN_ELFNOTE_PHYS32_ENTRY = 18 of owner "Xen". */
#ifndef VSE_IMAGE_KERNEL_H
#define VSE_IMAGE_KERNEL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "image/recipe.h"
#include "image/sandbox.h"

#define KERNEL_BYTES_MAX (512u << 20)

struct bzimage {
	size_t payload, payload_len; /* within the file; compressed vmlinux */
	char version[128];           /* the first word: "6.1.0-56-cloud-amd64"; "" when absent */
};

/* EINVAL: not a bzImage, or one that points outside itself. ENOTSUP: older than protocol 2.08. */
int bzimage_parse(const unsigned char *data, size_t len, struct bzimage *ret, struct err *err);
/* The program (argv[0], then "-dc") that unpacks this payload, or NULL. */
const char *bzimage_compressor(const unsigned char *payload, size_t len);
/* A 64-bit little-endian ELF file with a PVH entry note; false for anything else, however
 * malformed. */
bool elf_has_pvh(const unsigned char *data, size_t len);
/* "6.1.0-56" before "6.1.0-100": digits compare as numbers. */
int version_compare(const char *a, const char *b);

struct kernel {
	char *file;    /* bzImage (or ELF), inside the work folder */
	char *version; /* as uname -r says it, or NULL when unknown */
	char *modules; /* the folder of its modules (…/lib/modules/VERSION), or NULL when there is none */
	char *package; /* "NAME VERSION", a path, or "base" */
	bool in_root;  /* modules are in the root already */
};
void kernel_finish(struct kernel *k);

/* Finds the kernel the VSE wants; see struct vse. dir: work folder. */
int kernel_find(const char *root, const char *dir, const char *cache, const struct recipe *r,
		struct sandbox_self *self, struct kernel *ret, struct err *err);
/* The folder of this host's modules for the kernel in this file, malloc'ed; NULL: none, or no kernel. */
char *kernel_host_modules(const char *file);
/* Writes the PVH ELF to `to`. *ret_made is false where the kernel has no PVH entry (or unpacks to
 * no ELF). */
int kernel_vmlinux(const char *file, const char *to, bool *ret_made, struct err *err);

#endif
