/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's program as it travels to nodes that do not have it, and what tells it from any other file. */
#ifndef VSE_LAUNCHER_PAYLOAD_H
#define VSE_LAUNCHER_PAYLOAD_H

#include <stdint.h>

#include "base/err.h"

struct digest {
	size_t size;
	char sha256[65]; /* hex */
	uint32_t cksum;  /* of POSIX cksum(1), for nodes without sha256sum */
};

struct payload {
	char *data; /* what travels: without what follows the last loaded segment of an ELF file (debug information) */
	struct digest whole, sent; /* of the file as it is, and of `data` */
	char *packed;              /* NULL before payload_pack() */
	size_t packed_size;
};

int payload_load(const char *file, struct payload **ret, struct err *err);
/* Compresses `data` with zstd, once: half of the bytes, for nodes that can unpack them. */
int payload_pack(struct payload *p, struct err *err);
void payload_destroy(struct payload *p); /* NULL is fine */

/* Of an ELF file of 64 bits and this byte order: cuts what no loader looks at, in place. Gives the new size; `size`
 * for anything else. */
size_t payload_trim(char *data, size_t size);
uint32_t posix_cksum(const void *data, size_t size);

#endif
