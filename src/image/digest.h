/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256, the identity of all content (OpenSSL's EVP; no cryptography of our own). It lives in
 * this room and not in base so that the agent, which hashes nothing here, need not link libcrypto
 * for it. */
#ifndef VSE_IMAGE_DIGEST_H
#define VSE_IMAGE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DIGEST_HEX 65 /* 64 lower-case hex digits and a NUL */

struct digest;

struct digest *digest_new(void);
void digest_free(struct digest *d); /* NULL is fine */
void digest_add(struct digest *d, const void *data, size_t n);
/* A field: its length (8 bytes, big-endian), then its bytes, so that no two lists of fields look
 * the same. NULL is told apart from "". */
void digest_field(struct digest *d, const char *s);
void digest_number(struct digest *d, uint64_t v); /* 8 bytes, big-endian */
/* Ends it; d may only be freed after. */
void digest_hex(struct digest *d, char out[DIGEST_HEX]);

/* The whole file, from its current offset to the end. */
int digest_fd(int fd, char out[DIGEST_HEX], struct err *err);
int digest_path(const char *path, char out[DIGEST_HEX], struct err *err);

static inline void cleanup_digest(struct digest **d)
{
	digest_free(*d);
}
#define _cleanup_digest_ _cleanup_(cleanup_digest)

#endif
