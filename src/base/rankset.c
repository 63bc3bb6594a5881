/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rankset.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

void rankset_finish(struct rankset *s)
{
	free(s->words);
	*s = RANKSET_INIT;
}

void rankset_add(struct rankset *s, uint32_t rank)
{
	assert(rank < RANK_MAX);
	size_t w = rank / 64;
	if (w >= s->n_words) {
		size_t n = MAX(w + 1, s->n_words * 2);
		s->words = xreallocarray(s->words, n, sizeof(*s->words));
		memset(s->words + s->n_words, 0, (n - s->n_words) * sizeof(*s->words));
		s->n_words = n;
	}
	s->words[w] |= UINT64_C(1) << rank % 64;
}

void rankset_add_range(struct rankset *s, uint32_t a, uint32_t b)
{
	for (uint32_t r = a; r <= b; r++)
		rankset_add(s, r);
}

void rankset_del(struct rankset *s, uint32_t rank)
{
	if (rank / 64 < s->n_words)
		s->words[rank / 64] &= ~(UINT64_C(1) << rank % 64);
}

bool rankset_has(const struct rankset *s, uint32_t rank)
{
	return rank / 64 < s->n_words && (s->words[rank / 64] >> rank % 64 & 1);
}

uint32_t rankset_count(const struct rankset *s)
{
	uint32_t n = 0;
	for (size_t i = 0; i < s->n_words; i++)
		n += (uint32_t)__builtin_popcountll(s->words[i]);
	return n;
}

uint32_t rankset_next(const struct rankset *s, uint32_t from)
{
	for (size_t w = from / 64; w < s->n_words; w++) {
		uint64_t bits = s->words[w];
		if (w == from / 64)
			bits &= ~UINT64_C(0) << from % 64;
		if (bits)
			return (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
	}
	return UINT32_MAX;
}

static int number(const char **s, uint32_t *ret)
{
	if (!isdigit((unsigned char)**s))
		return -1;
	uint64_t v = 0;
	for (; isdigit((unsigned char)**s); (*s)++)
		v = MIN(v * 10 + (uint64_t)(**s - '0'), (uint64_t)UINT32_MAX);
	*ret = (uint32_t)v;
	return 0;
}

int rankset_parse(struct rankset *s, const char *text, uint32_t size, struct err *err)
{
	if (strcmp(text, "all") == 0) {
		if (size)
			rankset_add_range(s, 0, size - 1);
		return 0;
	}
	size_t len = strlen(text);
	bool folded = strncmp(text, "vm[", 3) == 0 && text[len - 1] == ']';
	const char *end = text + len - folded;
	for (const char *p = text + (folded ? 3 : 0);; p++) {
		uint32_t a, b;
		if (!folded && strncmp(p, "vm", 2) == 0)
			p += 2;
		if (number(&p, &a) < 0)
			goto bad;
		b = a;
		if (*p == '-') {
			p++;
			if (number(&p, &b) < 0 || b < a)
				goto bad;
		}
		if (p != end && *p != ',')
			goto bad;
		if (b >= size)
			return err_set(err, ERANGE, "no VM of rank %u (ranks are 0-%u)", b, size - 1);
		rankset_add_range(s, a, b);
		if (p == end)
			return 0;
	}
bad:
	return err_set(err, EINVAL, "'%.100s': not a set of ranks (such as 3 or 0-3,7 or all)", text);
}

void rankset_format(const struct rankset *s, struct buf *out)
{
	const char *comma = "";
	for (uint32_t a = rankset_next(s, 0); a != UINT32_MAX;) {
		uint32_t b = a;
		while (rankset_has(s, b + 1))
			b++;
		buf_addf(out, a == b ? "%s%u" : "%s%u-%u", comma, a, b);
		comma = ",";
		a = rankset_next(s, b + 1);
	}
}

static int by_rank(const void *rank, const void *element)
{
	uint32_t a = *(const uint32_t *)rank, b = *(const uint32_t *)element;
	return (a > b) - (a < b);
}

void *rank_search(const void *v, size_t n, size_t size, uint32_t rank)
{
	return n ? bsearch(&rank, v, n, size, by_rank) : NULL;
}
