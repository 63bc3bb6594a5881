/* SPDX-License-Identifier: Apache-2.0 */
/* Files on this node, named by their index's SHA-256. FOLDER/<uid>/ (mode 0700) holds
 *   lock               held while files are added, counted and removed
 *   files/<key>        whole and verified
 *   files/<key>.index  its index, then the boot id of the host that wrote it; flocked shared by who uses the file; its
 *                      modification time says when it was last used
 *   incoming/<key>     flocked by who is fetching the file; its text is the size that is to be kept free
 *   incoming/<key>.part  the file under way, where the file system has no O_TMPFILE
 *   offers/...         indexes of files that were offered from elsewhere
 * Nothing of a file's content is fsynced: it can be fetched again. A file that was written in another boot (or by another
 * host) is read and verified before its first use in this one. Locks are flock(2), which NFS carries between nodes. */
#ifndef VSE_STAGE_CACHE_H
#define VSE_STAGE_CACHE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "stage/index.h"

struct cache;

int cache_open(const char *folder, uint64_t limit, struct cache **ret, struct err *err);
void cache_close(struct cache *c); /* NULL is fine */
const char *cache_folder(const struct cache *c);
char *cache_path(const struct cache *c, const uint8_t key[SHA_SIZE]); /* of the file; malloc'ed */

/* ENOENT: not there. Else a descriptor of the file, one that holds its lock, its index. *ret_trusted: it was written or
 * verified in this boot. */
int cache_find(struct cache *c, const uint8_t key[SHA_SIZE], int *ret_fd, int *ret_hold,
	       struct index **ret_index, bool *ret_trusted, struct err *err);
/* It was found whole: trusted from now on. */
void cache_trust(struct cache *c, const uint8_t key[SHA_SIZE], const struct index *x);
/* It was found damaged. */
void cache_drop(struct cache *c, const uint8_t key[SHA_SIZE]);

/* Who may fetch this file: EBUSY, another does. */
int cache_claim(struct cache *c, const uint8_t key[SHA_SIZE], int *ret_lock, struct err *err);
/* Makes room and a file of this size, without a name where that can be. ENOSPC, EDQUOT, ENOBUFS: the text says how much is
 * missing where. */
int cache_temp(struct cache *c, const uint8_t key[SHA_SIZE], int lock, uint64_t size, int *ret_fd,
	       struct err *err);
/* It is whole: gives it its name. fd stays usable. EEXIST is no error: then the one that is there is taken. */
int cache_publish(struct cache *c, const uint8_t key[SHA_SIZE], int fd, const struct index *x,
		  int *ret_hold, struct err *err);
/* Ends a claim, published or not; lock is closed. */
void cache_unclaim(struct cache *c, const uint8_t key[SHA_SIZE], int lock);

/* The indexes of all other files, one after the other: the function gets each (borrowed), and a descriptor of the file to
 * dup(2) when it wants it. */
void cache_each(struct cache *c, void (*fn)(void *arg, const struct index *x, int fd), void *arg);

/* The index of an offered file as it was when it had this identity. ENOENT. */
int cache_offer_load(struct cache *c, const struct stat *st, struct index **ret, struct err *err);
void cache_offer_save(struct cache *c, const struct stat *st, const struct index *x);

#endif
