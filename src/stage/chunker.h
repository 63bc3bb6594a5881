/* SPDX-License-Identifier: Apache-2.0 */
/* Cuts a byte stream where its content says so, so that an insertion moves no cut but its neighbours. A rolling "gear"
 * hash over the last 64 bytes (h = 2h + random[byte]) is compared with a mask; the mask is harder to meet before the
 * wished size than after it, which keeps sizes near it (Xia et al., FastCDC, USENIX ATC 2016).
 * What is cut where is part of the index format: a change needs a new INDEX_VERSION. */
#ifndef VSE_STAGE_CHUNKER_H
#define VSE_STAGE_CHUNKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHUNK_MIN (64u << 10)     /* bytes; only a file's last chunk is shorter */
#define CHUNK_NORMAL (192u << 10) /* from here on the easier mask; gives 256 KiB on average */
#define CHUNK_MAX (512u << 10)

struct chunker {
	uint64_t hash;
	uint32_t len; /* of the chunk so far */
};

/* Begin with {0}. Gives how many of the n bytes (n > 0) still belong to the chunk; *ret_cut: it ends with them. */
size_t chunker_feed(struct chunker *c, const uint8_t *p, size_t n, bool *ret_cut);

#endif
