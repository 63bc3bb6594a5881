/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/sha.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct sha {
	EVP_MD_CTX *ctx;
};

static void start(struct sha *h)
{
	if (EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1)
		abort(); /* libcrypto without SHA-256 or without memory */
}

struct sha *sha_new(void)
{
	struct sha *h = xmalloc(sizeof(*h));
	h->ctx = EVP_MD_CTX_new();
	if (!h->ctx)
		abort();
	start(h);
	return h;
}

void sha_free(struct sha *h)
{
	if (!h)
		return;
	EVP_MD_CTX_free(h->ctx);
	free(h);
}

void sha_add(struct sha *h, const void *data, size_t n)
{
	if (EVP_DigestUpdate(h->ctx, data, n) != 1)
		abort();
}

void sha_end(struct sha *h, uint8_t out[SHA_SIZE])
{
	if (EVP_DigestFinal_ex(h->ctx, out, NULL) != 1)
		abort();
	start(h);
}

void sha_of(const void *data, size_t n, uint8_t out[SHA_SIZE])
{
	struct sha *h = sha_new();
	sha_add(h, data, n);
	sha_end(h, out);
	sha_free(h);
}

void sha_hex(const uint8_t hash[SHA_SIZE], char out[SHA_HEX])
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < SHA_SIZE; i++) {
		out[2 * i] = digits[hash[i] >> 4];
		out[2 * i + 1] = digits[hash[i] & 15];
	}
	out[2 * SHA_SIZE] = '\0';
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int sha_from_hex(const char *hex, uint8_t out[SHA_SIZE])
{
	if (strlen(hex) != 2 * SHA_SIZE)
		return -1;
	for (size_t i = 0; i < SHA_SIZE; i++) {
		int hi = nibble(hex[2 * i]), lo = nibble(hex[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return -1;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}
