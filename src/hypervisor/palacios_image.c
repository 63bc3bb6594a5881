/* SPDX-License-Identifier: Apache-2.0 */
/* The guest image: a cookie, the XML, and files behind a table. All numbers are little endian but the version. */
#include <errno.h>
#include <string.h>

#include "hypervisor/palacios.h"

#define IMAGE_MAX 0x7fffffffu /* the module and its tools count in int */
#define COOKIE "v3vee"

static void add_le(struct buf *out, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		buf_addc(out, (char)(v >> (8 * i)));
}

/* The module refuses a file whose sum is another. `i` wraps at 32 bits there, and sizes are below that. */
static uint64_t checksum(const unsigned char *p, uint32_t n)
{
	uint64_t h = 0;
	for (uint32_t i = 0; i < n; i++) {
		h = (h << 4) + p[i] + i;
		uint64_t top = h & 0xf0000000u;
		if (top)
			h ^= top >> 24;
		h &= ~top;
	}
	return h;
}

static uint64_t image_size(uint64_t xml_len, unsigned version, const struct palacios_file *files,
			   uint32_t n)
{
	uint64_t size = 12 + xml_len + 8 + 8 + (uint64_t)n * (version ? 24 : 16) + 8;
	for (uint32_t i = 0; i < n; i++)
		size += files[i].size;
	return size;
}

int palacios_image_write(struct buf *out, unsigned version, const char *xml,
			 const struct palacios_file *files, uint32_t n_files, struct err *err)
{
	size_t xml_len = strlen(xml);
	uint64_t total = image_size(xml_len, version, files, n_files);
	if (version > 1)
		return err_set(err, EINVAL, "guest image: no version %u", version);
	if (total > IMAGE_MAX)
		return err_set(err, EFBIG, "guest image: %llu bytes, Palacios takes less than 2 GiB",
			       (unsigned long long)total);
	uint64_t offset = total;
	for (uint32_t i = 0; i < n_files; i++)
		offset -= files[i].size;
	buf_reserve(out, (size_t)total);
	buf_add(out, COOKIE "\0\0", 7);
	buf_addc(out, (char)version);
	add_le(out, xml_len, 4);
	buf_add(out, xml, xml_len);
	add_le(out, 0, 8);
	add_le(out, n_files, 8);
	for (uint32_t i = 0; i < n_files; i++) {
		add_le(out, i, 4);
		add_le(out, files[i].size, 4);
		add_le(out, offset, 8);
		if (version)
			add_le(out, checksum(files[i].data, files[i].size), 8);
		offset += files[i].size;
	}
	add_le(out, 0, 8);
	for (uint32_t i = 0; i < n_files; i++)
		buf_add(out, files[i].data, files[i].size);
	return 0;
}
