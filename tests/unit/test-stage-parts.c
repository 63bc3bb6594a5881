/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of staging: chunks and indexes, trees, messages, what goes over the control plane. */
#include <errno.h>

#include "base/alloc.h"
#include "stage/index.h"
#include "stage/plan.h"
#include "stage/proto.h"
#include "stage/stage.h"
#include "tap.h"

#define MIB (1u << 20)

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)(x >> 32);
	}
}

static struct index *index_of(const uint8_t *p, size_t n, size_t step)
{
	struct index_builder *b = index_builder_new();
	for (size_t at = 0; at < n; at += step)
		index_builder_add(b, p + at, MIN(step, n - at), NULL);
	struct index *x = index_builder_end(b);
	index_builder_free(b);
	return x;
}

static void test_index(void)
{
	size_t n = 32 * MIB;
	uint8_t *data = xmalloc(n + 100);
	fill(data, n, 1);
	struct index *x = index_of(data, n, 65536), *y = index_of(data, n, 777777);
	bool sizes = true;
	for (uint32_t i = 0; i < x->n; i++)
		sizes = sizes && x->chunks[i].size <= CHUNK_MAX &&
			(i + 1 == x->n || x->chunks[i].size >= CHUNK_MIN);
	ok(sizes, "chunks keep to their bounds");
	ok(n / x->n > 200 * 1024 && n / x->n < 330 * 1024, "256 KiB on average: %zu", n / x->n);
	ok(memcmp(x->key, y->key, SHA_SIZE) == 0, "cuts do not hang on how the file is read");
	index_free(y);

	memmove(data + 10 * MIB + 100, data + 10 * MIB, n - 10 * MIB);
	y = index_of(data, n + 100, MIB);
	uint64_t fresh = 0;
	for (uint32_t i = 0; i < y->n; i++)
		if (index_find(x, y->chunks[i].hash) == INDEX_NONE)
			fresh += y->chunks[i].size;
	ok(fresh && fresh < 3 * CHUNK_MAX, "100 bytes put in change %llu bytes of chunks",
	   (unsigned long long)fresh);
	index_free(y);

	_cleanup_buf_ struct buf bytes = BUF_INIT;
	struct err err;
	index_write(x, &bytes);
	ok(index_parse(buf_head(&bytes), buf_len(&bytes), &y, &err) == 0 && y->n == x->n &&
		   memcmp(y->key, x->key, SHA_SIZE) == 0,
	   "an index comes back as it was written");
	index_free(y);
	ok(index_parse(buf_head(&bytes), buf_len(&bytes) - 1, &y, &err) < 0,
	   "one that is cut off is refused");
	bytes.data[7]++;
	ok(index_parse(buf_head(&bytes), buf_len(&bytes), &y, &err) < 0 &&
		   strstr(err.text, "version"),
	   "one of another version is refused: %s", err.text);
	bytes.data[7]--;
	bytes.data[15]++;
	ok(index_parse(buf_head(&bytes), buf_len(&bytes), &y, &err) < 0,
	   "one with a wrong size is refused");
	index_free(x);

	memset(data, 0, 4 * MIB);
	x = index_of(data, 4 * MIB, MIB);
	uint32_t same = 0;
	for (uint32_t i = 0; i < x->n; i++)
		same += x->chunks[i].same == 0;
	is_int(same, x->n - 1, "equal chunks are known as equal");
	index_free(x);
	x = index_of(data, 0, 1);
	is_int(x->n, 0, "an empty file has no chunks");
	index_free(x);
	free(data);
}

static bool good_tree(uint32_t n, unsigned stripe, unsigned *ret_most, unsigned *ret_depth)
{
	_cleanup_free_ unsigned *children = xcalloc(n + 1, sizeof(*children));
	unsigned most = 0, depth = 0;
	for (uint32_t i = 1; i <= n; i++) {
		uint32_t at = i, hops = 0;
		while (at && hops <= n) {
			at = plan_parent(n, stripe, at);
			hops++;
		}
		if (at || hops != plan_depth(n, stripe, i))
			return false;
		depth = MAX(depth, hops);
		children[plan_parent(n, stripe, i)]++;
	}
	for (uint32_t i = 1; i <= n; i++)
		most = MAX(most, children[i]);
	*ret_most = most;
	*ret_depth = depth;
	return children[0] == 1;
}

static void test_plan(void)
{
	bool trees = true, load = true, stand_ins = true;
	for (uint32_t n = 1; n <= 200; n++) {
		unsigned most[2], depth[2], limit = 3;
		trees = trees && good_tree(n, 0, &most[0], &depth[0]) &&
			good_tree(n, 1, &most[1], &depth[1]);
		for (uint32_t m = n; m > 1; m /= 2)
			limit++;
		trees = trees && depth[0] <= limit && depth[1] <= limit;
		for (uint32_t i = 1; i <= n; i++) {
			unsigned sends = 0;
			for (uint32_t k = 1; k <= n; k++)
				sends += (plan_parent(n, 0, k) == i) + (plan_parent(n, 1, k) == i);
			load = load && sends <= 2;
			for (unsigned s = 0; s < 2; s++) {
				uint32_t out[PLAN_PROVIDERS];
				unsigned k = plan_providers(n, s, i, out);
				bool root = false;
				for (unsigned a = 0; a < k; a++)
					root = root || out[a] == 0;
				trees = trees && k && root && out[0] == plan_parent(n, s, i);
				/* Who stands in for a lost parent must not hang on us. */
				stand_ins = stand_ins && (!out[0] || !plan_is_below(n, s, out[1], i));
			}
		}
	}
	ok(trees, "for 1..200 nodes both stripes are trees of logarithmic depth, and the root is "
		  "the last resort");
	ok(load, "no node sends more than two halves");
	ok(stand_ins, "who stands in for a lost parent is not below");
	uint32_t out[PLAN_PROVIDERS];
	ok(plan_providers(16, 0, 17, out) > 2 && out[0] == 15 && plan_providers(16, 1, 17, out) &&
		   out[0] == 16,
	   "who joins late asks those with a free place first");
}

static void test_proto(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	uint8_t bits[2] = {0xff, 1};
	struct stage_msg in[] = {{.type = STAGE_HELLO},
				 {.type = STAGE_GET, .chunk = 7},
				 {.type = STAGE_CANCEL, .chunk = STAGE_INDEX},
				 {.type = STAGE_NO, .chunk = 3},
				 {.type = STAGE_WATCH, .n = 1},
				 {.type = STAGE_HAVE, .chunk = 5, .n = 9, .bits = bits},
				 {.type = STAGE_LATE, .chunk = 0xfffffffe, .n = 1},
				 {.type = STAGE_CHUNK, .chunk = 1, .n = 77777},
				 {.type = STAGE_PIECE, .n = 65536}};
	struct stage_msg m;
	struct err err;
	size_t len;
	bool same = true;
	for (size_t i = 0; i < ARRAY_SIZE(in); i++) {
		bool has_key = in[i].type != STAGE_HELLO && in[i].type != STAGE_PIECE;
		memset(in[i].key, has_key ? (int)i : 0, SHA_SIZE);
		stage_proto_write(&b, &in[i]);
		for (size_t cut = 0; cut < buf_len(&b); cut++) {
			struct buf part = {
				.data = b.data, .start = b.start, .end = b.start + cut, .cap = b.cap};
			same = same && stage_proto_read(&part, &m, &len, &err) == 0;
		}
		same = same && stage_proto_read(&b, &m, &len, &err) == 1 && len == buf_len(&b) &&
		       m.type == in[i].type && m.chunk == in[i].chunk && m.n == in[i].n &&
		       memcmp(m.key, in[i].key, SHA_SIZE) == 0;
		if (m.type == STAGE_HAVE)
			same = same && memcmp(m.bits, bits, 2) == 0;
		buf_consume(&b, len);
	}
	ok(same, "messages come back as they were written, and wait for their last byte");
	static const char bad[][10] = {
		{0, 0, 0, 1, 99},                       /* unknown type */
		{0, 0, 0, 6, 0, 'X', 'X', 'X', 'X', 1}, /* no greeting of ours */
		{0, 0, 0, 6, 0, 'V', 'S', 'E', 'S', 9}, /* another version */
		{127, 0, 0, 0, 5},                      /* too long */
		{0, 0, 0, 3, 1},                        /* too short */
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		buf_clear(&b);
		buf_add(&b, bad[i], sizeof(bad[i]));
		ok(stage_proto_read(&b, &m, &len, &err) < 0 && err.code == EPROTO, "refused: %s",
		   err.text);
	}
}

static void test_report(void)
{
	struct stage_file f = {.size = 12345, .nodes = 7, .inode = UINT64_MAX - 5, .mtime_ns = 1, .uid = 1000},
			  g;
	struct err err;
	memset(f.index, 0xab, sizeof(f.index));
	strcpy(f.path, "/a/b");
	json_t *j = stage_file_json(&f);
	json_t *again = j && stage_file_read(j, &g, &err) == 0 ? stage_file_json(&g) : NULL;
	ok(again && json_equal(j, again), "a file's name comes back");
	json_decref(again);
	json_object_set_new(j, "path", json_string("relative"));
	ok(stage_file_read(j, &g, &err) < 0 && err.code == EPROTO, "refused: %s", err.text);
	json_object_set_new(j, "sha256", json_string("AB"));
	ok(stage_file_read(j, &g, &err) < 0, "refused: %s", err.text);
	json_decref(j);

	struct stage_sum a = STAGE_SUM_INIT, b = STAGE_SUM_INIT, back;
	struct stage_progress p = {.state = STAGE_FETCHING, .size = 100, .received = 40, .left_ms = 5};
	stage_sum_add(&a, 3, &p);
	p.received = 20;
	stage_sum_add(&b, 4, &p);
	p = (struct stage_progress){.state = STAGE_DONE, .size = 100, .here = 100};
	stage_sum_add(&b, 5, &p);
	stage_sum_merge(&a, &b);
	ok(a.nodes == 3 && a.done == 1 && a.bytes == 300 && a.have == 160 && a.slowest == 4 &&
		   a.missing == 80,
	   "progress folds");
	j = stage_sum_json(&a);
	again = j && stage_sum_read(j, &back, &err) == 0 ? stage_sum_json(&back) : NULL;
	ok(again && json_equal(j, again), "and comes back");
	json_decref(again);
	json_decref(j);
}

int main(void)
{
	test_index();
	test_plan();
	test_proto();
	test_report();
	return done();
}
