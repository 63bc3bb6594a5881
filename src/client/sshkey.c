/* SPDX-License-Identifier: Apache-2.0 */
#include "client/sshkey.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"

#define POINT_BYTES 65 /* an uncompressed P-256 point: 04, x, y (SEC1 2.3.3) */

static void add_string(struct buf *b, const void *p, size_t n)
{
	unsigned char h[4] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16),
			      (unsigned char)(n >> 8), (unsigned char)n};
	buf_add(b, h, sizeof(h));
	buf_add(b, p, n);
}

static char *private_text(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *p = NULL, *text = NULL;
	if (bio && PEM_write_bio_PrivateKey_traditional(bio, key, NULL, NULL, 0, NULL, NULL) == 1) {
		long n = BIO_get_mem_data(bio, &p);
		text = xmemdup0(p, (size_t)n);
	}
	BIO_free(bio);
	return text;
}

static char *public_text(EVP_PKEY *key, const char *comment)
{
	unsigned char point[POINT_BYTES];
	size_t n;
	if (EVP_PKEY_get_octet_string_param(key, "pub", point, sizeof(point), &n) != 1 ||
	    n != sizeof(point))
		return NULL;
	_cleanup_buf_ struct buf b = BUF_INIT;
	add_string(&b, "ecdsa-sha2-nistp256", 19);
	add_string(&b, "nistp256", 8);
	add_string(&b, point, n);
	_cleanup_free_ unsigned char *base64 = xmalloc(buf_len(&b) * 2);
	EVP_EncodeBlock(base64, (const unsigned char *)buf_head(&b), (int)buf_len(&b));
	return xasprintf("ecdsa-sha2-nistp256 %s %s\n", base64, comment);
}

int sshkey_make(const char *comment, char **ret_private, char **ret_public, struct err *err)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	_cleanup_free_ char *secret = NULL, *open = NULL;
	/* The point in full, whatever form the library prefers. */
	if (key && EVP_PKEY_set_utf8_string_param(key, "point-format", "uncompressed") == 1) {
		secret = private_text(key);
		open = public_text(key, comment);
	}
	EVP_PKEY_free(key);
	if (!secret || !open)
		return err_set(err, EIO, "making the cluster's ssh key failed");
	*ret_private = TAKE_PTR(secret);
	*ret_public = TAKE_PTR(open);
	return 0;
}
