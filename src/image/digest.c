/* SPDX-License-Identifier: Apache-2.0 */
#include "image/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/macros.h"

struct digest {
	EVP_MD_CTX *ctx;
};

/* EVP fails only when libcrypto is unusable (out of memory, no SHA-256 provider): nothing can go
 * on. */
static void must(int ok)
{
	if (ok == 1)
		return;
	log_error("libcrypto: SHA-256 is not available");
	abort();
}

struct digest *digest_new(void)
{
	struct digest *d = xcalloc(1, sizeof(*d));
	d->ctx = EVP_MD_CTX_new();
	must(d->ctx && EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) == 1);
	return d;
}

void digest_free(struct digest *d)
{
	if (!d)
		return;
	EVP_MD_CTX_free(d->ctx);
	free(d);
}

void digest_add(struct digest *d, const void *data, size_t n)
{
	must(EVP_DigestUpdate(d->ctx, data, n));
}

void digest_number(struct digest *d, uint64_t v)
{
	unsigned char b[8];
	for (int i = 0; i < 8; i++)
		b[i] = (unsigned char)(v >> (56 - 8 * i));
	digest_add(d, b, sizeof(b));
}

void digest_field(struct digest *d, const char *s)
{
	digest_number(d, s ? strlen(s) : UINT64_MAX);
	if (s)
		digest_add(d, s, strlen(s));
}

void digest_hex(struct digest *d, char out[DIGEST_HEX])
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	must(EVP_DigestFinal_ex(d->ctx, md, &n));
	must(n == 32);
	for (unsigned i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", md[i]);
}

int digest_fd(int fd, char out[DIGEST_HEX], struct err *err)
{
	_cleanup_digest_ struct digest *d = digest_new();
	_cleanup_free_ char *buf = xmalloc(1 << 17);
	for (;;) {
		ssize_t n = read(fd, buf, 1 << 17);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, errno, "read");
		if (n == 0)
			break;
		digest_add(d, buf, (size_t)n);
	}
	digest_hex(d, out);
	return 0;
}

int digest_path(const char *path, char out[DIGEST_HEX], struct err *err)
{
	/* The open itself would wait for the other end of a pipe. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "%s: not a regular file", path);
	if (digest_fd(fd, out, err) < 0)
		return err_prefix(err, "%s: ", path);
	return 0;
}
