/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/index.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"

static const char magic[4] = {'V', 'S', 'E', 'X'};

void index_free(struct index *x)
{
	if (!x)
		return;
	free(x->chunks);
	free(x->by_hash);
	free(x);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void add32(struct buf *out, uint32_t v)
{
	v = htobe32(v);
	buf_add(out, &v, sizeof(v));
}

static int by_hash(const void *a, const void *b, void *arg)
{
	const struct index_chunk *c = arg;
	uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
	int d = memcmp(c[i].hash, c[k].hash, SHA_SIZE);
	return d ? d : i < k ? -1 : 1;
}

/* Sorts by hash, and finds chunks that are equal. */
static void finish(struct index *x)
{
	x->by_hash = xmalloc((x->n ? x->n : 1) * sizeof(*x->by_hash));
	for (uint32_t i = 0; i < x->n; i++)
		x->by_hash[i] = i;
	qsort_r(x->by_hash, x->n, sizeof(*x->by_hash), by_hash, x->chunks);
	uint32_t first = 0;
	for (uint32_t i = 0; i < x->n; i++) {
		struct index_chunk *c = &x->chunks[x->by_hash[i]];
		if (!i || memcmp(x->chunks[first].hash, c->hash, SHA_SIZE) != 0)
			first = x->by_hash[i];
		c->same = first == x->by_hash[i] ? INDEX_NONE : first;
	}
}

static int parse_chunks(struct index *x, const uint8_t *p, struct err *err)
{
	uint64_t at = 0;
	x->chunks = xcalloc(x->n ? x->n : 1, sizeof(*x->chunks));
	for (uint32_t i = 0; i < x->n; i++, p += INDEX_ENTRY) {
		struct index_chunk *c = &x->chunks[i];
		c->offset = at;
		c->size = get32(p);
		memcpy(c->hash, p + 4, SHA_SIZE);
		if (!c->size || c->size > CHUNK_MAX)
			return err_set(err, EPROTO, "index: chunk %u of %u bytes", i, c->size);
		at += c->size;
	}
	if (at != x->size)
		return err_set(err, EPROTO, "index: its chunks do not make up the file");
	finish(x);
	for (uint32_t i = 0; i < x->n; i++)
		if (x->chunks[i].same != INDEX_NONE &&
		    x->chunks[x->chunks[i].same].size != x->chunks[i].size)
			return err_set(err, EPROTO, "index: one hash, two sizes");
	return 0;
}

int index_parse(const void *data, size_t n, struct index **ret, struct err *err)
{
	const uint8_t *p = data;
	if (n < INDEX_HEADER || memcmp(p, magic, sizeof(magic)) != 0)
		return err_set(err, EPROTO, "this is no index");
	if (get32(p + 4) != INDEX_VERSION)
		return err_set(err, EPROTO, "index of version %u, this is for %d", get32(p + 4),
			       INDEX_VERSION);
	struct index *x = xcalloc(1, sizeof(*x));
	x->size = get64(p + 8);
	memcpy(x->hash, p + 16, SHA_SIZE);
	x->n = get32(p + 48);
	int rc = 0;
	if (x->n > INDEX_CHUNKS_MAX || n != INDEX_HEADER + (size_t)INDEX_ENTRY * x->n)
		rc = err_set(err, EPROTO, "index of %u chunks in %zu bytes", x->n, n);
	else
		rc = parse_chunks(x, p + INDEX_HEADER, err);
	if (rc < 0) {
		index_free(x);
		return -1;
	}
	sha_of(data, n, x->key);
	*ret = x;
	return 0;
}

void index_write(const struct index *x, struct buf *out)
{
	buf_reserve(out, INDEX_HEADER + (size_t)INDEX_ENTRY * x->n);
	buf_add(out, magic, sizeof(magic));
	add32(out, INDEX_VERSION);
	add32(out, (uint32_t)(x->size >> 32));
	add32(out, (uint32_t)x->size);
	buf_add(out, x->hash, SHA_SIZE);
	add32(out, x->n);
	for (uint32_t i = 0; i < x->n; i++) {
		add32(out, x->chunks[i].size);
		buf_add(out, x->chunks[i].hash, SHA_SIZE);
	}
}

uint32_t index_find(const struct index *x, const uint8_t hash[SHA_SIZE])
{
	uint32_t lo = 0, hi = x->n;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (memcmp(x->chunks[x->by_hash[mid]].hash, hash, SHA_SIZE) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == x->n || memcmp(x->chunks[x->by_hash[lo]].hash, hash, SHA_SIZE) != 0)
		return INDEX_NONE;
	return x->by_hash[lo];
}

/* ---- making one ---- */

struct index_builder {
	struct index *x;
	struct chunker chunker;
	struct sha *chunk, *file;
	uint32_t cap, len; /* len: of the chunk so far */
};

struct index_builder *index_builder_new(void)
{
	struct index_builder *b = xcalloc(1, sizeof(*b));
	b->x = xcalloc(1, sizeof(*b->x));
	b->chunk = sha_new();
	b->file = sha_new();
	return b;
}

void index_builder_free(struct index_builder *b)
{
	if (!b)
		return;
	index_free(b->x);
	sha_free(b->chunk);
	sha_free(b->file);
	free(b);
}

static int end_chunk(struct index_builder *b, struct err *err)
{
	struct index *x = b->x;
	if (x->n == INDEX_CHUNKS_MAX)
		return err_set(err, EFBIG, "the file has more than %u chunks", INDEX_CHUNKS_MAX);
	if (x->n == b->cap) {
		b->cap = b->cap ? 2 * b->cap : 64;
		x->chunks = xreallocarray(x->chunks, b->cap, sizeof(*x->chunks));
	}
	struct index_chunk *c = &x->chunks[x->n++];
	*c = (struct index_chunk){.offset = x->size - b->len, .size = b->len};
	sha_end(b->chunk, c->hash);
	b->len = 0;
	return 0;
}

int index_builder_add(struct index_builder *b, const void *data, size_t n, struct err *err)
{
	const uint8_t *p = data;
	sha_add(b->file, p, n);
	while (n) {
		bool cut;
		size_t used = chunker_feed(&b->chunker, p, n, &cut);
		sha_add(b->chunk, p, used);
		b->len += (uint32_t)used;
		b->x->size += used;
		p += used;
		n -= used;
		if (cut && end_chunk(b, err) < 0)
			return -1;
	}
	return 0;
}

struct index *index_builder_end(struct index_builder *b)
{
	if (b->len)
		end_chunk(b, NULL); /* one above the bound, if it is: no harm, and the reader refuses it */
	finish(b->x);
	sha_end(b->file, b->x->hash);
	_cleanup_buf_ struct buf bytes = BUF_INIT;
	index_write(b->x, &bytes);
	sha_of(buf_head(&bytes), buf_len(&bytes), b->x->key);
	return TAKE_PTR(b->x);
}
