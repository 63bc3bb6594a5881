/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the archive share; for archive-write.c and archive-read.c only. */
#ifndef VSE_WIRE_ARCHIVE_FORMAT_H
#define VSE_WIRE_ARCHIVE_FORMAT_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdint.h>

#define ARCHIVE_HEAD 20 /* bytes of a record before its name */
#define ARCHIVE_TARGET_MAX 4095

enum archive_kind {
	ARCHIVE_FILE = 1,
	ARCHIVE_DIR,
	ARCHIVE_LINK,
	ARCHIVE_UP,
	ARCHIVE_END,
};

static inline void archive_put(unsigned char *p, unsigned bytes, uint64_t v)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (unsigned char)(v >> 8 * (bytes - 1 - i));
}

static inline uint64_t archive_get(const unsigned char *p, unsigned bytes)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

#endif
