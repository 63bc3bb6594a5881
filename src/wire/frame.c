/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/frame.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

static void put32(unsigned char *p, uint32_t v)
{
	p[0] = (unsigned char)(v >> 24);
	p[1] = (unsigned char)(v >> 16);
	p[2] = (unsigned char)(v >> 8);
	p[3] = (unsigned char)v;
}

static uint32_t get32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void frame_write(struct buf *out, const struct frame *f)
{
	unsigned char h[FRAME_HEADER];
	put32(h, f->len);
	h[4] = f->type;
	h[5] = f->fd;
	h[6] = (unsigned char)(f->flags >> 8);
	h[7] = (unsigned char)f->flags;
	put32(h + 8, f->id);
	put32(h + 12, f->rank);
	buf_reserve(out, FRAME_HEADER + f->len);
	buf_add(out, h, FRAME_HEADER);
	buf_add(out, f->payload, f->len);
}

int frame_read(const struct buf *in, uint32_t max, struct frame *ret, struct err *err)
{
	if (buf_len(in) < FRAME_HEADER)
		return 0;
	const unsigned char *h = (const unsigned char *)buf_head(in);
	struct frame f = {
		.len = get32(h),
		.type = h[4],
		.fd = h[5],
		.flags = (uint16_t)(h[6] << 8 | h[7]),
		.id = get32(h + 8),
		.rank = get32(h + 12),
		.payload = (const char *)h + FRAME_HEADER,
	};
	if (f.type < FRAME_MESSAGE || f.type > (max > FRAME_MAX_GUEST ? FRAME_FOLDED : FRAME_CREDIT))
		return err_set(err, EPROTO, "frame of unknown type %u", f.type);
	bool data = f.type == FRAME_DATA || f.type == FRAME_FOLDED;
	if (f.fd > 2 || (f.flags & ~FRAME_EOF) || (f.flags && !data))
		return err_set(err, EPROTO, "frame with unknown stream %u or flags %#x", f.fd, f.flags);
	if (f.len > max)
		return err_set(err, EPROTO, "frame of %u bytes, at most %u are allowed", f.len, max);
	if (f.type == FRAME_CREDIT && f.len != 4)
		return err_set(err, EPROTO, "credit frame of %u bytes", f.len);
	if (buf_len(in) - FRAME_HEADER < f.len)
		return 0;
	*ret = f;
	return 1;
}

void frame_drop(struct buf *in, const struct frame *f)
{
	buf_consume(in, FRAME_HEADER + f->len);
}

void frame_write_data(struct buf *out, uint32_t id, uint32_t rank, int fd, const void *p, size_t n,
		      bool eof)
{
	frame_write(out, &(struct frame){
				 .len = (uint32_t)n,
				 .type = FRAME_DATA,
				 .fd = (uint8_t)fd,
				 .flags = eof ? FRAME_EOF : 0,
				 .id = id,
				 .rank = rank,
				 .payload = p,
			 });
}

void frame_write_credit(struct buf *out, uint32_t id, uint32_t rank, int fd, uint32_t bytes)
{
	unsigned char v[4];
	put32(v, bytes);
	frame_write(out, &(struct frame){
				 .len = sizeof(v),
				 .type = FRAME_CREDIT,
				 .fd = (uint8_t)fd,
				 .id = id,
				 .rank = rank,
				 .payload = (const char *)v,
			 });
}

uint32_t frame_credit(const struct frame *f)
{
	return get32((const unsigned char *)f->payload);
}

void frame_write_folded(struct buf *out, uint32_t id, const struct rankset *ranks, int fd,
			const void *p, size_t n, bool eof)
{
	_cleanup_buf_ struct buf all = BUF_INIT, set = BUF_INIT;
	unsigned char len[4];
	rankset_format(ranks, &set);
	if (buf_len(&set) + n > FRAME_MAX_MESSAGE - sizeof(len)) {
		for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX;
		     r = rankset_next(ranks, r + 1))
			frame_write_data(out, id, r, fd, p, n, eof);
		return;
	}
	put32(len, (uint32_t)buf_len(&set));
	buf_add(&all, len, sizeof(len));
	buf_add(&all, buf_head(&set), buf_len(&set));
	buf_add(&all, p, n);
	frame_write(out, &(struct frame){
				 .len = (uint32_t)buf_len(&all),
				 .type = FRAME_FOLDED,
				 .fd = (uint8_t)fd,
				 .flags = eof ? FRAME_EOF : 0,
				 .id = id,
				 .payload = buf_head(&all),
			 });
}

int frame_folded(const struct frame *f, struct rankset *ret, const char **ret_p, size_t *ret_n,
		 struct err *err)
{
	uint32_t len = f->len < 4 ? 0 : get32((const unsigned char *)f->payload);
	if (f->len < 4 || len > f->len - 4)
		return err_set(err, EPROTO, "folded frame of %u bytes without its VMs", f->len);
	_cleanup_free_ char *set = xmemdup0(f->payload + 4, len);
	if (strlen(set) != len || rankset_parse(ret, set, RANK_MAX, NULL) < 0)
		return err_set(err, EPROTO, "folded frame of no set of VMs");
	*ret_p = f->payload + 4 + len;
	*ret_n = f->len - 4 - len;
	return 0;
}
