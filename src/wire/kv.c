/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/kv.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"

void kv_add(struct buf *out, const char *key, const void *value, size_t len)
{
	size_t k = strlen(key);
	assert(k >= 1 && k <= 255);
	unsigned char h[5] = {(unsigned char)k, (unsigned char)(len >> 24), (unsigned char)(len >> 16),
			      (unsigned char)(len >> 8), (unsigned char)len};
	buf_add(out, h, sizeof(h));
	buf_add(out, key, k);
	buf_add(out, value, len);
}

void kv_adds(struct buf *out, const char *key, const char *value)
{
	if (value)
		kv_add(out, key, value, strlen(value));
}

void kv_addu(struct buf *out, const char *key, uint64_t value)
{
	char t[24];
	snprintf(t, sizeof(t), "%" PRIu64, value);
	kv_adds(out, key, t);
}

bool kv_next(struct kv_iter *it, struct kv *ret)
{
	size_t left = it->len - it->pos;
	if (!left || it->bad)
		return false;
	const unsigned char *p = (const unsigned char *)it->data + it->pos;
	if (left < 5 || p[0] == 0)
		goto bad;
	size_t k = p[0], v = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
	if (left - 5 < k || left - 5 - k < v || memchr(p + 5, 0, k))
		goto bad;
	*ret = (struct kv){
		.key = (const char *)p + 5,
		.key_len = k,
		.value = (const char *)p + 5 + k,
		.value_len = v,
	};
	it->pos += 5 + k + v;
	return true;
bad:
	it->bad = true;
	return false;
}

bool kv_is(const struct kv *e, const char *key)
{
	return strlen(key) == e->key_len && memcmp(e->key, key, e->key_len) == 0;
}

bool kv_find(const char *data, size_t len, const char *key, struct kv *ret)
{
	struct kv_iter it = {.data = data, .len = len};
	struct kv e;
	while (kv_next(&it, &e))
		if (kv_is(&e, key)) {
			*ret = e;
			return true;
		}
	return false;
}

char *kv_dup(const char *data, size_t len, const char *key)
{
	struct kv e;
	if (!kv_find(data, len, key, &e) || memchr(e.value, 0, e.value_len))
		return NULL;
	return xmemdup0(e.value, e.value_len);
}

uint64_t kv_num(const char *data, size_t len, const char *key, uint64_t otherwise)
{
	struct kv e;
	if (!kv_find(data, len, key, &e) || !e.value_len || e.value_len > 19)
		return otherwise;
	uint64_t v = 0;
	for (size_t i = 0; i < e.value_len; i++) {
		if (e.value[i] < '0' || e.value[i] > '9')
			return otherwise;
		v = v * 10 + (uint64_t)(e.value[i] - '0');
	}
	return v > INT64_MAX ? otherwise : v;
}

bool kv_check(const char *data, size_t len)
{
	struct kv_iter it = {.data = data, .len = len};
	struct kv e;
	if (!kv_next(&it, &e) || !kv_is(&e, "verb"))
		return false;
	while (kv_next(&it, &e))
		;
	return !it.bad;
}
