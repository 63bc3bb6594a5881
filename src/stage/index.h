/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a file: the list of its chunks. As bytes (on the bulk plane and in the cache), big endian:
 *   "VSEX" | u32 version | u64 size of the file | SHA-256 of the file | u32 n | n times: u32 size | SHA-256
 * Its own SHA-256 is the file's name in this room. */
#ifndef VSE_STAGE_INDEX_H
#define VSE_STAGE_INDEX_H

#include "base/buf.h"
#include "base/err.h"
#include "stage/chunker.h"
#include "stage/sha.h"

#define INDEX_VERSION 1
#define INDEX_CHUNKS_MAX (1u << 20)
#define INDEX_HEADER 52u
#define INDEX_ENTRY 36u
#define INDEX_BYTES_MAX (INDEX_HEADER + INDEX_ENTRY * INDEX_CHUNKS_MAX)
#define INDEX_NONE UINT32_MAX

struct index_chunk {
	uint64_t offset;
	uint32_t size;
	uint32_t same; /* an earlier chunk with the same content, or INDEX_NONE */
	uint8_t hash[SHA_SIZE];
};

struct index {
	uint8_t key[SHA_SIZE];  /* SHA-256 of its bytes */
	uint8_t hash[SHA_SIZE]; /* of the file */
	uint64_t size;
	uint32_t n;
	struct index_chunk *chunks;
	uint32_t *by_hash; /* the numbers of the chunks in the order of their hashes */
};

void index_free(struct index *x); /* NULL is fine */
/* All n bytes are the index. EPROTO says what is wrong. */
int index_parse(const void *p, size_t n, struct index **ret, struct err *err);
void index_write(const struct index *x, struct buf *out);
/* The first chunk with this hash, or INDEX_NONE. */
uint32_t index_find(const struct index *x, const uint8_t hash[SHA_SIZE]);

/* Makes an index from a file's bytes, in pieces of any size. */
struct index_builder;
struct index_builder *index_builder_new(void);
void index_builder_free(struct index_builder *b); /* NULL is fine */
/* EFBIG: too many chunks. */
int index_builder_add(struct index_builder *b, const void *p, size_t n, struct err *err);
struct index *index_builder_end(struct index_builder *b); /* b may only be freed after */

#endif
