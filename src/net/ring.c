/* SPDX-License-Identifier: Apache-2.0 */
#include "net/ring.h"

#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"

void ring_finish(struct ring *r)
{
	if (r->data)
		munmap(r->data, RING_SIZE);
	*r = (struct ring){0};
}

bool ring_add(struct ring *r, const void *p, size_t n)
{
	if (n > RING_SIZE - r->len)
		return false;
	if (!n)
		return true;
	if (!r->data) {
		/* Not malloc: its heap would keep the memory of a burst for good. */
		void *m = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);
		if (m == MAP_FAILED)
			return false;
		r->data = m;
	}
	size_t end = (r->start + r->len) % RING_SIZE;
	size_t first = MIN(n, RING_SIZE - end);
	memcpy(r->data + end, p, first);
	memcpy(r->data, (const uint8_t *)p + first, n - first);
	r->len += n;
	return true;
}

int ring_iov(const struct ring *r, struct iovec iov[2])
{
	size_t first = MIN(r->len, RING_SIZE - r->start);
	if (!r->len)
		return 0;
	iov[0] = (struct iovec){r->data + r->start, first};
	if (first == r->len)
		return 1;
	iov[1] = (struct iovec){r->data, r->len - first};
	return 2;
}

void ring_consume(struct ring *r, size_t n)
{
	r->start = (r->start + n) % RING_SIZE;
	r->len -= n;
	if (!r->len)
		ring_finish(r);
}
