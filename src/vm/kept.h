/* SPDX-License-Identifier: Apache-2.0 */
/* The folder where a node keeps templates (vm/template.h), of this user's alone. One is KEY.memory and KEY.state (vm/pack.h), and
 * KEY.note, written last: a random id that both must carry, then the hypervisor's signature. What is put there or removed is so
 * under a lock on the folder; who reads takes none, and what he reads may be replaced meanwhile. The note's modification time says when it was last used. */
#ifndef VSE_VM_KEPT_H
#define VSE_VM_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define KEPT_KEY 64    /* characters of a key: hexadecimal digits, in lower case */
#define KEPT_NOTE 1024 /* bytes at most */

enum kept_part { KEPT_MEMORY, KEPT_STATE, KEPT_PARTS };
extern const char *const kept_names[KEPT_PARTS];

bool kept_key_ok(const char *key);
/* Below the cache's folder ($VSE_CACHE, else /var/tmp/vse-cache-<uid>); NULL where there is no such folder of ours alone. malloc'ed. */
char *kept_folder(void);
/* Removes what was made two weeks ago, and the least recently used ones until all together are within `limit` bytes. key: stays, unless
 * it is old; NULL: none. */
void kept_sweep(const char *folder, uint64_t limit, const char *key);
uint64_t kept_limit(void);                                              /* VSE_TEMPLATE_LIMIT */
char *kept_path(const char *folder, const char *key, const char *what); /* "note", or a part's name; malloc'ed */
void kept_used(const char *folder, const char *key);
/* Fills up to `max` keys, the most recently used first; gives their number. */
size_t kept_list(const char *folder, char (*keys)[KEPT_KEY + 1], size_t max);

/* One as it is, to be read. */
struct kept {
	int fds[KEPT_PARTS];
	uint64_t sizes[KEPT_PARTS], age_s; /* seconds since it was made */
	char *note;
};
int kept_open(const char *folder, const char *key, struct kept *ret, struct err *err); /* ENOENT */
void kept_close(struct kept *k);

/* Puts one there in place of the one that is: the files temps, of that folder, get their names. EBUSY: others are at it, who put
 * one there too. */
int kept_put(const char *folder, const char *key, char *const temps[KEPT_PARTS], const char *note,
	     struct err *err);
/* The one whose note begins with this id is of no use: is none any more. False: another is there now. */
bool kept_refuse(const char *folder, const char *key, const char *id);

/* One that comes from elsewhere: not there before kept_commit(). What is in it is checked by who uses it. It was made age_s
 * seconds ago: no node makes it younger. */
struct kept_new;
int kept_begin(const char *folder, const char *key, const char *note, const uint64_t sizes[KEPT_PARTS],
	       uint64_t age_s, struct kept_new **ret, struct err *err);
int kept_add(struct kept_new *k, enum kept_part part, const void *p, size_t n, struct err *err);
int kept_commit(struct kept_new *k, struct err *err); /* EBADMSG: something is missing */
void kept_drop(struct kept_new *k);                   /* committed or not; NULL is fine */

#endif
