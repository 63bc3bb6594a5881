/* SPDX-License-Identifier: Apache-2.0 */
/* What goes over a bulk link, big endian: u32 length of what follows | u8 type | body. The bytes of a chunk come in
 * pieces, between which other messages have their turn; they follow their PIECE raw and uncounted, so that they need not
 * be in memory at once.
 *   HELLO   "VSES", u8 version; first on a link, from both sides, once
 *   GET     file, u32 chunk: send it as soon as you have it. A node may ask before the other one has the chunk
 *   CANCEL  file, u32 chunk: not any more (it may be on its way already)
 *   NO      file, u32 chunk: I shall not have it
 *   WATCH   file, u8 on: tell me which chunks you have, and get
 *   HAVE    file, u32 first, u32 count, bits (the lowest of a byte first): chunks that I have
 *   LATE    file, u32 rate, u8 stripe: I was let down and have turned to another: be patient. The rate (KiB/s) is at
 *           which the other stripe comes to me: who gets that far quicker knows that my line is the narrow place
 *   CHUNK   file, u32 chunk, u32 size: its pieces follow, and no other chunk's before they are complete
 *   PIECE   u32 n; then n bytes
 * A file is named by the SHA-256 of its index; the index itself is the chunk STAGE_INDEX. */
#ifndef VSE_STAGE_PROTO_H
#define VSE_STAGE_PROTO_H

#include "base/buf.h"
#include "base/err.h"
#include "stage/index.h"

#define PROTO_VERSION 2
#define PROTO_MAX (48u + INDEX_CHUNKS_MAX / 8) /* bytes of a message, without a chunk's */
#define PIECE_MAX (64u << 10)                  /* bytes */
#define STAGE_INDEX UINT32_MAX

enum stage_type {
	STAGE_HELLO,
	STAGE_GET,
	STAGE_CANCEL,
	STAGE_NO,
	STAGE_WATCH,
	STAGE_HAVE,
	STAGE_LATE,
	STAGE_CHUNK,
	STAGE_PIECE,
	STAGE_TYPES,
};

struct stage_msg {
	enum stage_type type;
	uint8_t key[SHA_SIZE]; /* the file */
	uint32_t chunk;        /* GET CANCEL NO CHUNK; HAVE: the first; LATE: the rate */
	uint32_t n; /* HAVE: how many; CHUNK, PIECE: bytes; WATCH: on or off; LATE: the stripe */
	const uint8_t *bits; /* HAVE: (n + 7) / 8 bytes, borrowed */
};

void stage_proto_write(struct buf *out, const struct stage_msg *m);
/* 1: *ret is the message at the front of `in` and *ret_len its length, to be consumed after use; 0: more bytes are
 * needed; -1: EPROTO. Bits after the last chunk are 0. */
int stage_proto_read(const struct buf *in, struct stage_msg *ret, size_t *ret_len, struct err *err);

#endif
