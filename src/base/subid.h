/* SPDX-License-Identifier: Apache-2.0 */
/* Subordinate user and group ids (subuid(5)): what lets an ordinary user have files of many owners in a user
 * namespace. */
#ifndef VSE_BASE_SUBID_H
#define VSE_BASE_SUBID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct subid_range {
	uint32_t first, count;
};

/* The first range of at least 1000 ids for `user` (NULL: one without a name) or the number `id` in the text of
 * /etc/subuid or /etc/subgid. */
bool subid_parse(const char *text, const char *user, uint32_t id, struct subid_range *ret);
/* The same from a file. ENOENT with what to do when there is none. */
int subid_read(const char *file, const char *user, uint32_t id, struct subid_range *ret,
	       struct err *err);
/* Both ranges of the calling user. ENOENT with what to do when there is none. */
int subid_ranges(struct subid_range *ret_uid, struct subid_range *ret_gid, struct err *err);

#endif
