/* SPDX-License-Identifier: Apache-2.0 */
/* What goes over a link between nodes (net/tunnel.h), and what becomes of it: pure functions. */
#ifndef VSE_NET_RECORD_H
#define VSE_NET_RECORD_H

#include "net/filter.h"

enum { RECORD_WORD = 4 }; /* bytes of length, big endian, before each frame */

enum record {
	RECORD_BAD,   /* a length that is none: nothing behind it can be read */
	RECORD_PART,  /* more bytes are needed */
	RECORD_FRAME, /* a length word and a whole frame */
	RECORD_GO,    /* the go-ahead: a length word of 0, alone */
};

/* What stands at p, where `have` bytes are. *ret_len: the frame's length without its word, 0 of a go-ahead; set
 * for these two only. A length that is none is told as soon as the word is there. */
enum record record_read(const uint8_t *p, size_t have, size_t *ret_len);

enum crossing {
	CROSSING_DELIVER, /* to *ret_rank, which is here */
	CROSSING_STRAYED, /* to a rank that is not here */
	CROSSING_SPOOF, /* nothing that the sending node's switch had let in from a VM of its own */
};

/* A frame that node `from` sent to node `self`. places: the node of each rank (all->size of them).
 * len >= FRAME_HEADER. */
enum crossing record_judge(const struct members *all, const uint32_t *places, uint32_t from,
			   uint32_t self, const uint8_t *frame, size_t len, uint32_t *ret_rank);

#endif
