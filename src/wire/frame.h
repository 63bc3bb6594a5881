/* SPDX-License-Identifier: Apache-2.0 */
/* The frame that every byte stream of ours carries: front end to agent, agent to agent, agent to guest.
 * Sixteen bytes, big endian, then the payload:
 *   u32 length of the payload | u8 type | u8 fd | u16 flags | u32 id | u32 rank
 * `id` is the request a frame belongs to: chosen by the asking side, never 0 for a request.
 * `rank` is the VM it is about (FRAME_ALL: every VM of the request); 0 on a guest's own channel. */
#ifndef VSE_WIRE_FRAME_H
#define VSE_WIRE_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/rankset.h"

#define FRAME_HEADER 16u
#define FRAME_MAX_MESSAGE (4u << 20) /* bytes of payload: between our own programs */
#define FRAME_MAX_GUEST (64u << 10)  /* bytes of payload: on a guest's channel */
#define FRAME_ALL UINT32_MAX

enum frame_type {
	FRAME_MESSAGE = 1, /* payload: JSON between our programs (wire/message.h), key-values with a guest (wire/kv.h) */
	FRAME_DATA = 2, /* payload: bytes of stream `fd` (0 stdin, 1 stdout, 2 stderr); FRAME_EOF ends the stream */
	FRAME_CREDIT = 3, /* payload: u32, so many more bytes of stream `fd` may be sent to me */
	FRAME_FOLDED = 4, /* as FRAME_DATA, the same bytes of several VMs: u32 length of their set, the set ("0-15,18"),
			   * the bytes. From agents only; never on a guest's channel */
};

enum frame_flag {
	FRAME_EOF = 1, /* with FRAME_DATA and FRAME_FOLDED: nothing follows on this fd; the payload may be empty or the last bytes */
};

struct frame {
	uint32_t len;
	uint8_t type;
	uint8_t fd;
	uint16_t flags;
	uint32_t id;
	uint32_t rank;
	const char *payload; /* borrowed from the buffer it was read from */
};

/* Appends header and payload. f->payload may be NULL when f->len is 0. */
void frame_write(struct buf *out, const struct frame *f);
/* Looks at the front of `in`. 1: *ret is a whole frame (its payload borrowed; drop it with frame_drop()
 * once used); 0: more bytes are needed; -1: not a frame (EPROTO: unknown type, fd above 2, unknown flags,
 * payload over max, a credit that is not four bytes; with a max of FRAME_MAX_GUEST or less a folded one). After -1 the
 * stream is unusable. */
int frame_read(const struct buf *in, uint32_t max, struct frame *ret, struct err *err);
void frame_drop(struct buf *in, const struct frame *f);

/* Shorthands that append one frame. */
void frame_write_data(struct buf *out, uint32_t id, uint32_t rank, int fd, const void *p, size_t n,
		      bool eof);
void frame_write_credit(struct buf *out, uint32_t id, uint32_t rank, int fd, uint32_t bytes);
uint32_t frame_credit(const struct frame *f); /* the value of a FRAME_CREDIT */
/* `ranks`: more than one. What no frame can hold is written as a FRAME_DATA for each of them. */
void frame_write_folded(struct buf *out, uint32_t id, const struct rankset *ranks, int fd,
			const void *p, size_t n, bool eof);
/* What a FRAME_FOLDED holds: its VMs, added to `ret`, and their bytes (borrowed from the frame). EPROTO. */
int frame_folded(const struct frame *f, struct rankset *ret, const char **ret_p, size_t *ret_n,
		 struct err *err);

#endif
