/* SPDX-License-Identifier: Apache-2.0 */
/* A file tree as a value. */
#ifndef VSE_IMAGE_TREE_H
#define VSE_IMAGE_TREE_H

#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "image/digest.h"

/* A fingerprint by stat alone, for "has this folder changed?": paths, types, modes, owners, sizes,
 * mtime, ctime and inode of every entry. No content is read: a change that keeps size and ctime is
 * not seen, which needs a set-back clock or a raw disk. /dev, /proc, /sys, /run and /tmp below the
 * root are left out, as from an image. An owner in [sub_first, sub_first+sub_count) is an id of a user
 * namespace. */
struct tree_facts {
	char hex[DIGEST_HEX];
	uint64_t bytes;
	uint64_t entries;
	int subordinate; /* 1: some owner is a subordinate id of ours */
	int closed;      /* 1: not all of it could be seen: folders that we may not read */
};
int tree_fingerprint(const char *dir, uint32_t sub_first, uint32_t sub_count,
		     struct tree_facts *ret, struct err *err);

/* An outline of a kernel's folder of modules, the same on every host that has the same package: paths, modes, sizes
 * and the modules' own modification times; not those of what depmod makes. */
int tree_outline(const char *dir, char out[DIGEST_HEX], struct err *err);

/* The newest modification time (seconds since 1970, 0: none) of a file below `dir` that is before
 * `before`. What a build itself writes has a later time; packages and the user's files an earlier one:
 * so this is the same for the same content. */
int tree_newest(const char *dir, struct timespec before, int64_t *ret, struct err *err);

/* The identity of the tree, the same as hashing its reproducible tar: every entry in bytewise order
 * with its path, type, mode, numeric owner, device number, link target, modification time (clamped to
 * epoch), file capabilities and the SHA-256 of its content. TREE_CONTENT_ONLY as epoch leaves times and
 * owners out: what a folder of a user's holds, on whatever machine. */
#define TREE_CONTENT_ONLY INT64_MIN
int tree_digest(const char *dir, int64_t epoch, char out[DIGEST_HEX], struct err *err);

#endif
