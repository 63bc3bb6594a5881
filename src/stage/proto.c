/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/proto.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static const char magic[4] = {'V', 'S', 'E', 'S'};

/* Bytes of the body before the bits. */
static const uint8_t body_size[STAGE_TYPES] = {
	[STAGE_HELLO] = 5,           [STAGE_GET] = SHA_SIZE + 4,   [STAGE_CANCEL] = SHA_SIZE + 4,
	[STAGE_NO] = SHA_SIZE + 4,   [STAGE_WATCH] = SHA_SIZE + 1, [STAGE_HAVE] = SHA_SIZE + 8,
	[STAGE_LATE] = SHA_SIZE + 5, [STAGE_CHUNK] = SHA_SIZE + 8, [STAGE_PIECE] = 4,
};

static size_t bits_size(uint32_t n)
{
	return n / 8 + (n % 8 != 0);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static void add32(struct buf *out, uint32_t v)
{
	v = htobe32(v);
	buf_add(out, &v, sizeof(v));
}

void stage_proto_write(struct buf *out, const struct stage_msg *m)
{
	size_t bits = m->type == STAGE_HAVE ? bits_size(m->n) : 0;
	add32(out, (uint32_t)(1 + body_size[m->type] + bits));
	buf_addc(out, (char)m->type);
	if (m->type == STAGE_HELLO) {
		buf_add(out, magic, sizeof(magic));
		buf_addc(out, PROTO_VERSION);
		return;
	}
	if (m->type == STAGE_PIECE) {
		add32(out, m->n);
		return;
	}
	buf_add(out, m->key, SHA_SIZE);
	if (m->type == STAGE_LATE)
		add32(out, m->chunk);
	if (m->type == STAGE_WATCH || m->type == STAGE_LATE) {
		buf_addc(out, (char)m->n);
		return;
	}
	add32(out, m->chunk);
	if (m->type == STAGE_HAVE || m->type == STAGE_CHUNK)
		add32(out, m->n);
	if (bits)
		buf_add(out, m->bits, bits);
}

static int read_hello(const uint8_t *p, struct err *err)
{
	if (memcmp(p, magic, sizeof(magic)) != 0)
		return err_set(err, EPROTO, "it does not speak the staging protocol");
	if (p[4] != PROTO_VERSION)
		return err_set(err, EPROTO, "it speaks version %u of the staging protocol, this is %d",
			       p[4], PROTO_VERSION);
	return 0;
}

static int read_have(const uint8_t *p, size_t len, struct stage_msg *m, struct err *err)
{
	if (!m->n || m->n > INDEX_CHUNKS_MAX || m->chunk > INDEX_CHUNKS_MAX - m->n ||
	    bits_size(m->n) != len)
		return err_set(err, EPROTO, "staging: a HAVE of %u chunks from %u in %zu bytes",
			       m->n, m->chunk, len);
	if (m->n % 8 && p[len - 1] >> (m->n % 8))
		return err_set(err, EPROTO, "staging: a HAVE with bits after its end");
	m->bits = p;
	return 0;
}

static int read_body(const uint8_t *p, size_t len, struct stage_msg *m, struct err *err)
{
	if (m->type == STAGE_HELLO)
		return read_hello(p, err);
	if (m->type == STAGE_PIECE) {
		m->n = get32(p);
		return m->n && m->n <= PIECE_MAX
			       ? 0
			       : err_set(err, EPROTO, "staging: a piece of %u bytes", m->n);
	}
	memcpy(m->key, p, SHA_SIZE);
	p += SHA_SIZE;
	if (m->type == STAGE_LATE) {
		m->chunk = get32(p);
		p += 4;
	}
	if (m->type == STAGE_WATCH || m->type == STAGE_LATE) {
		m->n = *p;
		return m->n > 1 ? err_set(err, EPROTO, "staging: a flag of %u", m->n) : 0;
	}
	m->chunk = get32(p);
	if (m->type == STAGE_HAVE || m->type == STAGE_CHUNK)
		m->n = get32(p + 4);
	if (m->type == STAGE_HAVE)
		return read_have(p + 8, len - body_size[STAGE_HAVE], m, err);
	if (m->chunk != STAGE_INDEX && m->chunk >= INDEX_CHUNKS_MAX)
		return err_set(err, EPROTO, "staging: chunk %u", m->chunk);
	uint32_t max = m->chunk == STAGE_INDEX ? INDEX_BYTES_MAX : CHUNK_MAX;
	if (m->type == STAGE_CHUNK && (!m->n || m->n > max))
		return err_set(err, EPROTO, "staging: a chunk of %u bytes", m->n);
	return 0;
}

int stage_proto_read(const struct buf *in, struct stage_msg *ret, size_t *ret_len, struct err *err)
{
	if (buf_len(in) < 5)
		return 0;
	const uint8_t *p = (const uint8_t *)buf_head(in);
	uint32_t len = get32(p);
	unsigned type = p[4];
	if (type >= STAGE_TYPES)
		return err_set(err, EPROTO, "staging: a message of type %u", type);
	if (len > PROTO_MAX || len < 1u + body_size[type] ||
	    (type != STAGE_HAVE && len != 1u + body_size[type]))
		return err_set(err, EPROTO, "staging: message %u of %u bytes", type, len);
	if (buf_len(in) < 4 + (size_t)len)
		return 0;
	struct stage_msg m = {.type = (enum stage_type)type};
	if (read_body(p + 5, len - 1, &m, err) < 0)
		return -1;
	*ret = m;
	*ret_len = 4 + (size_t)len;
	return 1;
}
