/* SPDX-License-Identifier: Apache-2.0 */
/* Where the state that xl writes begins and ends. A save ends with the file. `xl migrate` goes on to wait for its other end,
 * so only the stream itself tells that it is whole. Formats: docs/specs/libxl-migration-stream and libxc-migration-stream of
 * Xen, the same from 4.6 on; the first 48 bytes are of xl (tools/xl/xl.h). All numbers are of x86, but for those named. */
#include <string.h>

#include "hypervisor/xen.h"

enum part {
	PART_XL,
	PART_LIBXL,
	PART_LIBXL_RECORD,
	PART_LIBXC,
	PART_LIBXC_DOMAIN,
	PART_LIBXC_RECORD,
	PART_END,
	PART_BAD
};

/* Bytes of each part's head. */
static const size_t heads[] = {48, 16, 8, 24, 16, 8};

#define XL_MAGIC "Xen saved domain, xl format\n \0 \r"
#define XL_OPTIONAL 44 /* where the length of what follows the head is */
#define LIBXL_MAGIC "LibxlFmt"
#define LIBXC_MARKER                                                                               \
	"\xff\xff\xff\xff\xff\xff\xff\xff"                                                         \
	"XENF"

enum {
	RECORD_END,
	RECORD_LIBXC = 1 /* of libxl: a stream of libxc's follows */,
	RECORD_PAGES = 1 /* of libxc */
};

static uint32_t number(const struct xen_stream *s, size_t at)
{
	uint32_t v;
	memcpy(&v, s->head + at, sizeof(v));
	return v;
}

static bool starts(const struct xen_stream *s, const char *magic, size_t n)
{
	return memcmp(s->head, magic, n) == 0;
}

static int on_record(struct xen_stream *s)
{
	uint32_t type = number(s, 0), length = number(s, 4);
	bool outer = s->part == PART_LIBXL_RECORD;
	s->skip = ((uint64_t)length + 7) & ~UINT64_C(7);
	if (outer && type == RECORD_END)
		return PART_END;
	if (outer)
		return type == RECORD_LIBXC ? PART_LIBXC : PART_LIBXL_RECORD;
	s->pages = s->pages || type == RECORD_PAGES;
	return type == RECORD_END ? PART_LIBXL_RECORD : PART_LIBXC_RECORD;
}

static int on_head(struct xen_stream *s)
{
	switch (s->part) {
	case PART_XL:
		s->skip = number(s, XL_OPTIONAL);
		return starts(s, XL_MAGIC, 32) ? PART_LIBXL : PART_BAD;
	case PART_LIBXL: return starts(s, LIBXL_MAGIC, 8) ? PART_LIBXL_RECORD : PART_BAD;
	case PART_LIBXC: return starts(s, LIBXC_MARKER, 12) ? PART_LIBXC_DOMAIN : PART_BAD;
	case PART_LIBXC_DOMAIN: return PART_LIBXC_RECORD;
	default: return on_record(s);
	}
}

size_t xen_stream_feed(struct xen_stream *s, const char *data, size_t n)
{
	size_t at = 0;
	while (at < n && s->part < PART_END) {
		if (s->skip) {
			size_t k = (size_t)MIN((uint64_t)(n - at), s->skip);
			s->skip -= k;
			at += k;
			continue;
		}
		size_t k = MIN(n - at, heads[s->part] - s->have);
		memcpy(s->head + s->have, data + at, k);
		s->have += k;
		at += k;
		if (s->have < heads[s->part])
			break;
		s->have = 0;
		s->part = on_head(s);
	}
	return at;
}

bool xen_stream_whole(const struct xen_stream *s)
{
	return s->part == PART_END;
}

bool xen_stream_bad(const struct xen_stream *s)
{
	return s->part == PART_BAD;
}
