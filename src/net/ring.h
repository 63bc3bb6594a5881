/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded byte queue. It holds memory (RING_SIZE of address space, touched as it fills) only while it
 * is not empty. */
#ifndef VSE_NET_RING_H
#define VSE_NET_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define RING_SIZE (1u << 20)

struct ring {
	uint8_t *data; /* owned; NULL while empty */
	size_t start, len;
};

void ring_finish(struct ring *r);
/* All n bytes or nothing: false where they do not fit (or memory is out). */
bool ring_add(struct ring *r, const void *p, size_t n);
int ring_iov(const struct ring *r, struct iovec iov[2]); /* the content; gives how many pieces: 0..2 */
void ring_consume(struct ring *r, size_t n);             /* n <= r->len */

#endif
