/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/payload.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>
#include <zstd.h>

#include "base/alloc.h"
#include "base/path.h"

#define FILE_MAX ((size_t)256 << 20)
#define LEVEL 3 /* 10 ms of CPU a MB */

/* The checksum of POSIX.1-2017, cksum: CRC-32 with the polynomial 0x04c11db7, high bit first, over the bytes and then
 * over their count, low byte first. */
uint32_t posix_cksum(const void *data, size_t size)
{
	/* table[k][v]: what byte v does to the remainder once k more bytes have come (slicing by 4) */
	uint32_t table[4][256], crc = 0;
	const unsigned char *p = data;
	size_t i = 0;
	for (uint32_t v = 0; v < 256; v++) {
		table[0][v] = v << 24;
		for (int bit = 0; bit < 8; bit++)
			table[0][v] = table[0][v] << 1 ^ (table[0][v] & 0x80000000u ? 0x04c11db7u : 0);
	}
	for (int k = 1; k < 4; k++)
		for (uint32_t v = 0; v < 256; v++)
			table[k][v] = table[k - 1][v] << 8 ^ table[0][table[k - 1][v] >> 24];
	for (; size - i >= 4; i += 4) {
		crc ^= (uint32_t)p[i] << 24 | (uint32_t)p[i + 1] << 16 | (uint32_t)p[i + 2] << 8 |
		       p[i + 3];
		crc = table[3][crc >> 24] ^ table[2][crc >> 16 & 0xff] ^ table[1][crc >> 8 & 0xff] ^
		      table[0][crc & 0xff];
	}
	for (; i < size; i++)
		crc = crc << 8 ^ table[0][(crc >> 24 ^ p[i]) & 0xff];
	for (uint64_t n = size; n; n >>= 8)
		crc = crc << 8 ^ table[0][(crc >> 24 ^ n) & 0xff];
	return ~crc;
}

size_t payload_trim(char *data, size_t size)
{
	Elf64_Ehdr h;
	if (size < sizeof(h))
		return size;
	memcpy(&h, data, sizeof(h));
	bool ours = memcmp(h.e_ident, ELFMAG, SELFMAG) == 0 && h.e_ident[EI_CLASS] == ELFCLASS64 &&
		    h.e_ident[EI_DATA] == (BYTE_ORDER == LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB);
	if (!ours || h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phoff > size ||
	    (size - h.e_phoff) / sizeof(Elf64_Phdr) < h.e_phnum)
		return size;
	size_t end = MAX(sizeof(h), h.e_phoff + h.e_phnum * sizeof(Elf64_Phdr));
	for (size_t i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr p;
		memcpy(&p, data + h.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_offset > size || p.p_filesz > size - p.p_offset)
			return size;
		end = MAX(end, p.p_offset + p.p_filesz);
	}
	h.e_shoff = 0;
	h.e_shnum = h.e_shstrndx = 0;
	memcpy(data, &h, sizeof(h));
	return end;
}

static int digest(const void *data, size_t size, struct digest *d, struct err *err)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	if (!EVP_Digest(data, size, md, &n, EVP_sha256(), NULL))
		return err_set(err, EIO, "SHA-256 failed");
	for (unsigned i = 0; i < n && i < 32; i++)
		snprintf(d->sha256 + 2 * i, 3, "%02x", md[i]);
	d->size = size;
	d->cksum = posix_cksum(data, size);
	return 0;
}

int payload_load(const char *file, struct payload **ret, struct err *err)
{
	struct payload *p = xcalloc(1, sizeof(*p));
	size_t size;
	int rc = path_read(file, FILE_MAX, &p->data, &size, err);
	if (rc == 0)
		rc = digest(p->data, size, &p->whole, err);
	if (rc == 0)
		rc = digest(p->data, payload_trim(p->data, size), &p->sent, err);
	if (rc == 0)
		*ret = p;
	else
		payload_destroy(p);
	return rc;
}

int payload_pack(struct payload *p, struct err *err)
{
	size_t room = ZSTD_compressBound(p->sent.size);
	if (p->packed)
		return 0;
	_cleanup_free_ char *packed = xmalloc(room);
	ZSTD_CCtx *z = ZSTD_createCCtx();
	ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, LEVEL);
	ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1); /* the node looks at it */
	size_t n = ZSTD_compress2(z, packed, room, p->data, p->sent.size);
	ZSTD_freeCCtx(z);
	if (ZSTD_isError(n))
		return err_set(err, EIO, "zstd: %s", ZSTD_getErrorName(n));
	p->packed = TAKE_PTR(packed);
	p->packed_size = n;
	return 0;
}

void payload_destroy(struct payload *p)
{
	if (!p)
		return;
	free(p->data);
	free(p->packed);
	free(p);
}
