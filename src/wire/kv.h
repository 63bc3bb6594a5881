/* SPDX-License-Identifier: Apache-2.0 */
/* Key-value records: the messages of a guest's channel. The guest links nothing but libc, so no JSON
 * there. A record is a row of entries, each
 *   u8 length of the key (1..255) | u32 big-endian length of the value | key | value
 * Keys may repeat (a list); values are bytes. The first key is always "verb". */
#ifndef VSE_WIRE_KV_H
#define VSE_WIRE_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct kv {
	const char *key; /* NUL-free, not terminated: key_len bytes */
	size_t key_len;
	const char *value; /* borrowed, any bytes, not terminated */
	size_t value_len;
};

/* An iteration: set `pos` to 0 first. */
struct kv_iter {
	const char *data;
	size_t len, pos;
	bool bad; /* the record is malformed: the iteration ended early */
};

void kv_add(struct buf *out, const char *key, const void *value, size_t len);
void kv_adds(struct buf *out, const char *key, const char *value); /* NULL value: nothing is added */
void kv_addu(struct buf *out, const char *key, uint64_t value);    /* as decimal text */
bool kv_next(struct kv_iter *it, struct kv *ret);
bool kv_is(const struct kv *e, const char *key);
/* The first entry of that key. */
bool kv_find(const char *data, size_t len, const char *key, struct kv *ret);
/* Its value as a new string (NULL when absent or when it holds a NUL byte). */
char *kv_dup(const char *data, size_t len, const char *key);
/* Its value as a number; `otherwise` when absent, empty, not decimal or over 2^63-1. */
uint64_t kv_num(const char *data, size_t len, const char *key, uint64_t otherwise);
/* Whole, well-formed, and its first key is "verb". */
bool kv_check(const char *data, size_t len);

#endif
