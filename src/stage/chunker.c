/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/chunker.h"

#include "base/macros.h"

#define MASK(bits) (~UINT64_C(0) << (64 - (bits))) /* the top bits: they depend on most bytes */
#define MASK_HARD MASK(20)
#define MASK_EASY MASK(16)

static uint64_t gear[256];

/* splitmix64 from a fixed seed: the same table everywhere. */
static void fill_gear(void)
{
	uint64_t x = UINT64_C(0x7673652d73746167); /* "vse-stag" */
	for (size_t i = 0; i < ARRAY_SIZE(gear); i++) {
		x += UINT64_C(0x9e3779b97f4a7c15);
		uint64_t z = x;
		z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
		gear[i] = z ^ (z >> 31);
	}
}

/* Rolls over p[from..to); gives the position behind the cut, or 0. */
static size_t roll(uint64_t *hash, const uint8_t *p, size_t from, size_t to, uint64_t mask)
{
	uint64_t h = *hash;
	for (size_t i = from; i < to; i++) {
		h = (h << 1) + gear[p[i]];
		if (!(h & mask)) {
			*hash = h;
			return i + 1;
		}
	}
	*hash = h;
	return 0;
}

size_t chunker_feed(struct chunker *c, const uint8_t *p, size_t n, bool *ret_cut)
{
	if (!gear[0])
		fill_gear();
	size_t warm = CHUNK_MIN - 64; /* bytes before do not count in the hash at the first possible cut */
	size_t at = c->len < warm ? MIN(n, warm - c->len) : 0;
	size_t min_end = c->len < CHUNK_MIN ? MIN(n, CHUNK_MIN - c->len) : 0;
	if (at < min_end)
		roll(&c->hash, p, at, min_end, ~UINT64_C(0));
	at = MAX(at, min_end);
	size_t normal = c->len < CHUNK_NORMAL ? MIN(n, CHUNK_NORMAL - c->len) : 0;
	size_t end = MIN(n, CHUNK_MAX - c->len);
	size_t cut = at < normal ? roll(&c->hash, p, at, normal, MASK_HARD) : 0;
	if (!cut && MAX(at, normal) < end)
		cut = roll(&c->hash, p, MAX(at, normal), end, MASK_EASY);
	size_t used = cut ? cut : end;
	c->len += (uint32_t)used;
	*ret_cut = cut || c->len == CHUNK_MAX;
	if (*ret_cut)
		*c = (struct chunker){0};
	return used;
}
