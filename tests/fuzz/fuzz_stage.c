/* SPDX-License-Identifier: Apache-2.0 */
/* Staging, by the first byte: 'i' an index, 'j' a file's name from the control plane, else messages of a peer to a node
 * that has half of a file and wants the rest. Whatever comes is refused, or comes back when it is written again. */
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "stage/index.h"
#include "stage/stage.h"
#include "stage/swarm.h"

#define CHUNKS 20
#define PEER 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_index(const uint8_t *data, size_t size)
{
	struct index *x;
	_cleanup_buf_ struct buf out = BUF_INIT;
	if (index_parse(data, size, &x, NULL) < 0)
		return;
	index_write(x, &out);
	if (buf_len(&out) != size || memcmp(buf_head(&out), data, size) != 0)
		abort();
	for (uint32_t i = 0; i < x->n; i++)
		if (x->chunks[i].offset + x->chunks[i].size > x->size ||
		    index_find(x, x->chunks[i].hash) > i)
			abort();
	index_free(x);
}

static void fuzz_name(const uint8_t *data, size_t size)
{
	struct stage_file f, g;
	struct stage_sum sum;
	json_t *j = json_loadb((const char *)data, size, 0, NULL);
	if (!j)
		return;
	if (stage_file_read(j, &f, NULL) == 0) {
		json_t *again = stage_file_json(&f);
		if (!again || stage_file_read(again, &g, NULL) < 0)
			abort();
		json_t *third = stage_file_json(&g);
		if (!third || !json_equal(again, third))
			abort();
		json_decref(third);
		json_decref(again);
	}
	if (stage_sum_read(j, &sum, NULL) == 0)
		json_decref(stage_sum_json(&sum));
	json_decref(j);
}

/* What the swarm wants: chunks may go to the peer only when they are there. */
static void ignore_node(void *arg, uint32_t node)
{
	(void)arg, (void)node;
}

static void count_send(void *arg, uint32_t node, const struct stage_msg *m)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	(void)node;
	stage_proto_write(&out, m);
	*(size_t *)arg += buf_len(&out);
}

static void ignore_file(void *arg, struct swarm_file *f)
{
	(void)arg, (void)f;
}

static struct index *an_index(void)
{
	static uint8_t block[CHUNK_MAX];
	struct index_builder *b = index_builder_new();
	for (unsigned i = 0; i < CHUNKS; i++) {
		memset(block, (int)i, sizeof(block));
		index_builder_add(b, block, sizeof(block), NULL);
	}
	struct index *x = index_builder_end(b);
	index_builder_free(b);
	return x;
}

static void fuzz_messages(const uint8_t *data, size_t size)
{
	static const struct swarm_ops ops = {ignore_node, count_send, ignore_node, ignore_file};
	static const uint8_t key[SHA_SIZE];
	static struct index *x;
	_cleanup_buf_ struct buf in = BUF_INIT, out = BUF_INIT;
	struct stage_msg m;
	struct err err = ERR_INIT;
	size_t len, sent = 0;
	uint64_t now = 1000;
	int code;
	if (!x)
		x = an_index(); /* for the life of the process */
	struct swarm *s = swarm_create(1, &ops, &sent);
	struct swarm_file *f = swarm_file_add(s, key, 5, NULL);
	swarm_file_want(f, true, now);
	swarm_link_up(s, PEER, now);
	swarm_link_up(s, 0, now);
	swarm_file_index(f, x, false, now);
	for (uint32_t i = 0; i < x->n; i += 2)
		swarm_chunk_have(f, i, now);
	buf_add(&in, data, size);
	while ((code = stage_proto_read(&in, &m, &len, &err)) > 0) {
		struct swarm_file *file;
		uint32_t idx;
		stage_proto_write(&out, &m);
		if (buf_len(&out) != len || memcmp(buf_head(&out), buf_head(&in), len) != 0)
			abort();
		buf_clear(&out);
		now += 60;
		if (m.type == STAGE_CHUNK && swarm_arriving(f, m.chunk, PEER, 0, now))
			swarm_arrived(f, m.chunk, PEER, m.n & 1, now);
		else if (m.type != STAGE_HELLO && m.type != STAGE_PIECE &&
			 swarm_message(s, PEER, &m, now, &err) < 0)
			break;
		buf_consume(&in, len);
		if (m.n & 2)
			swarm_tick(s, now);
		while (swarm_next(s, PEER, &file, &idx, now))
			if (!swarm_has(file, idx))
				abort();
	}
	if (code < 0 && !err.code)
		abort();
	swarm_link_down(s, PEER, now);
	swarm_tick(s, now + 5000);
	swarm_destroy(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] == 'i')
		fuzz_index(data + 1, size - 1);
	else if (data[0] == 'j')
		fuzz_name(data + 1, size - 1);
	else
		fuzz_messages(data + 1, size - 1);
	return 0;
}
