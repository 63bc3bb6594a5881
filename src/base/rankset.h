/* SPDX-License-Identifier: Apache-2.0 */
/* A set of VM ranks, written as "0-15,18". Kept as a bitmap: folding equal answers of many VMs adds
 * ranks in any order. */
#ifndef VSE_BASE_RANKSET_H
#define VSE_BASE_RANKSET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define RANK_MAX 1000000u /* one past the largest rank: the bound of a cluster's size */

struct rankset {
	uint64_t *words;
	size_t n_words;
};

#define RANKSET_INIT ((struct rankset){0})
#define _cleanup_rankset_ _cleanup_(rankset_finish)

void rankset_finish(struct rankset *s);
void rankset_add(struct rankset *s, uint32_t rank);                /* rank < RANK_MAX */
void rankset_add_range(struct rankset *s, uint32_t a, uint32_t b); /* both included */
void rankset_del(struct rankset *s, uint32_t rank);
bool rankset_has(const struct rankset *s, uint32_t rank);
uint32_t rankset_count(const struct rankset *s);
/* The smallest rank >= from, or UINT32_MAX. */
uint32_t rankset_next(const struct rankset *s, uint32_t from);
/* Reads "3", "0-3,7", "all" (0..size-1), and what is printed to people, "vm3" and "vm[0-3,7]", into s (added to
 * what is there). EINVAL for a malformed set,
 * ERANGE when a rank is not below size. */
int rankset_parse(struct rankset *s, const char *text, uint32_t size, struct err *err);
void rankset_format(const struct rankset *s, struct buf *out); /* appends "0-3,7" */

/* Of an array of n elements, each of which begins with its uint32_t rank, by which they rise: that of this rank, or NULL. */
void *rank_search(const void *v, size_t n, size_t size, uint32_t rank);

#endif
