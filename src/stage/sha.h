/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 by OpenSSL's EVP. Nothing here fails but without memory, which aborts. */
#ifndef VSE_STAGE_SHA_H
#define VSE_STAGE_SHA_H

#include <stddef.h>
#include <stdint.h>

#define SHA_SIZE 32
#define SHA_HEX 65 /* 64 lower-case hex digits and a NUL */

struct sha;

struct sha *sha_new(void);    /* started */
void sha_free(struct sha *h); /* NULL is fine */
void sha_add(struct sha *h, const void *data, size_t n);
void sha_end(struct sha *h, uint8_t out[SHA_SIZE]); /* and starts anew */
void sha_of(const void *data, size_t n, uint8_t out[SHA_SIZE]);

void sha_hex(const uint8_t hash[SHA_SIZE], char out[SHA_HEX]);
int sha_from_hex(const char *hex, uint8_t out[SHA_SIZE]); /* -1: not 64 lower-case hex digits */

#endif
