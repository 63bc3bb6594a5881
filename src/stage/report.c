/* SPDX-License-Identifier: Apache-2.0 */
/* What goes over the control plane: the name of a file, and how far it is. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "stage/state.h"
#include "wire/message.h"

static json_t *hex(const uint8_t hash[SHA_SIZE])
{
	char text[SHA_HEX];
	sha_hex(hash, text);
	return json_string(text);
}

static int get_hash(const json_t *j, const char *key, uint8_t out[SHA_SIZE], struct err *err)
{
	const char *text;
	if (message_str(j, key, &text, err) < 0)
		return -1;
	return sha_from_hex(text, out) < 0 ? err_set(err, EPROTO, "'%s' is no SHA-256", key) : 0;
}

static int get_number(const json_t *j, const char *key, uint64_t max, uint64_t *ret, struct err *err)
{
	json_int_t v;
	if (message_int(j, key, 0, max > INT64_MAX ? INT64_MAX : (json_int_t)max, &v, err) < 0)
		return -1;
	*ret = (uint64_t)v;
	return 0;
}

json_t *stage_file_json(const struct stage_file *f)
{
	/* An inode may have all 64 bits, a JSON integer of ours has 63. */
	return json_pack("{s:o, s:o, s:o, s:I, s:I, s:s, s:I, s:I, s:I, s:I}", "index", hex(f->index),
			 "sha256", hex(f->hash), "sample", hex(f->sample), "size", (json_int_t)f->size,
			 "nodes", (json_int_t)f->nodes, "path", f->path, "inode_high",
			 (json_int_t)(f->inode >> 32), "inode", (json_int_t)(f->inode & UINT32_MAX),
			 "mtime_ns", (json_int_t)f->mtime_ns, "uid", (json_int_t)f->uid);
}

int stage_file_read(const json_t *j, struct stage_file *ret, struct err *err)
{
	struct stage_file f = {0};
	const char *path;
	uint64_t nodes, high, low, uid;
	if (get_hash(j, "index", f.index, err) < 0 || get_hash(j, "sha256", f.hash, err) < 0 ||
	    get_hash(j, "sample", f.sample, err) < 0 || message_str(j, "path", &path, err) < 0 ||
	    get_number(j, "size", (uint64_t)STAGE_CHUNKS_MAX * CHUNK_MAX, &f.size, err) < 0 ||
	    get_number(j, "nodes", STAGE_NODES_MAX - 1, &nodes, err) < 0 ||
	    get_number(j, "inode_high", UINT32_MAX, &high, err) < 0 ||
	    get_number(j, "inode", UINT32_MAX, &low, err) < 0 ||
	    get_number(j, "mtime_ns", UINT64_MAX, &f.mtime_ns, err) < 0 ||
	    get_number(j, "uid", UINT32_MAX, &uid, err) < 0)
		return -1;
	if (strlen(path) >= sizeof(f.path) || (path[0] && path[0] != '/'))
		return err_set(err, EPROTO, "'path' is no absolute path");
	memcpy(f.path, path, strlen(path) + 1);
	f.nodes = (uint32_t)nodes;
	f.inode = high << 32 | low;
	f.uid = (uint32_t)uid;
	*ret = f;
	return 0;
}

const char *stage_state_name(enum stage_state state)
{
	static const char *const names[] = {"indexing", "waiting", "fetching",
					    "checking", "done",    "failed"};
	return names[state];
}

void stage_job_progress(const struct stage_job *j, struct stage_progress *ret)
{
	const struct entry *e = j->entry;
	if (!e) {
		*ret = (struct stage_progress){.state = STAGE_FAILED, .left_ms = UINT64_MAX};
		return;
	}
	*ret = e->progress;
	ret->state = e->state;
	ret->left_ms = e->state == STAGE_DONE ? 0 : UINT64_MAX;
	uint64_t have = ret->here + ret->kept + ret->received;
	uint64_t rate = e->state == STAGE_FETCHING && e->swarm ? swarm_rate(e->swarm) : 0;
	if (rate && have <= ret->size)
		ret->left_ms = (ret->size - have) * 1000 / rate;
}

void stage_sum_add(struct stage_sum *sum, uint32_t node, const struct stage_progress *p)
{
	uint64_t have = MIN(p->here + p->kept + p->received, p->size);
	struct stage_sum one = {
		.nodes = 1,
		.done = p->state == STAGE_DONE,
		.failed = p->state == STAGE_FAILED,
		.bytes = p->size,
		.have = have,
		.kept = p->kept,
		.received = p->received,
		.wasted = p->wasted,
		.sent = p->sent,
		.left_ms = p->state == STAGE_FAILED ? 0 : p->left_ms,
		.slowest = have < p->size && p->state != STAGE_FAILED ? node : UINT32_MAX,
		.missing = p->size - have,
	};
	stage_sum_merge(sum, &one);
}

void stage_sum_merge(struct stage_sum *sum, const struct stage_sum *below)
{
	sum->nodes += below->nodes;
	sum->done += below->done;
	sum->failed += below->failed;
	sum->bytes += below->bytes;
	sum->have += below->have;
	sum->kept += below->kept;
	sum->received += below->received;
	sum->wasted += below->wasted;
	sum->sent += below->sent;
	sum->left_ms = MAX(sum->left_ms, below->left_ms);
	if (below->slowest != UINT32_MAX &&
	    (sum->slowest == UINT32_MAX || below->missing > sum->missing)) {
		sum->slowest = below->slowest;
		sum->missing = below->missing;
	}
}

/* -1 stands for "unknown" and "none". */
json_t *stage_sum_json(const struct stage_sum *m)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "nodes",
			 (json_int_t)m->nodes, "done", (json_int_t)m->done, "failed",
			 (json_int_t)m->failed, "bytes", (json_int_t)m->bytes, "have",
			 (json_int_t)m->have, "kept", (json_int_t)m->kept, "received",
			 (json_int_t)m->received, "wasted", (json_int_t)m->wasted, "sent",
			 (json_int_t)m->sent, "left_ms",
			 m->left_ms > INT64_MAX ? (json_int_t)-1 : (json_int_t)m->left_ms, "slowest",
			 m->slowest == UINT32_MAX ? (json_int_t)-1 : (json_int_t)m->slowest,
			 "missing", (json_int_t)m->missing);
}

static int get_or_none(const json_t *j, const char *key, json_int_t max, json_int_t *ret, struct err *err)
{
	return message_int(j, key, -1, max, ret, err);
}

int stage_sum_read(const json_t *j, struct stage_sum *ret, struct err *err)
{
	struct stage_sum m = STAGE_SUM_INIT;
	uint64_t nodes, done, failed;
	json_int_t left, slowest;
	if (get_number(j, "nodes", STAGE_NODES_MAX, &nodes, err) < 0 ||
	    get_number(j, "done", STAGE_NODES_MAX, &done, err) < 0 ||
	    get_number(j, "failed", STAGE_NODES_MAX, &failed, err) < 0 ||
	    get_number(j, "bytes", UINT64_MAX, &m.bytes, err) < 0 ||
	    get_number(j, "have", UINT64_MAX, &m.have, err) < 0 ||
	    get_number(j, "kept", UINT64_MAX, &m.kept, err) < 0 ||
	    get_number(j, "received", UINT64_MAX, &m.received, err) < 0 ||
	    get_number(j, "wasted", UINT64_MAX, &m.wasted, err) < 0 ||
	    get_number(j, "sent", UINT64_MAX, &m.sent, err) < 0 ||
	    get_number(j, "missing", UINT64_MAX, &m.missing, err) < 0 ||
	    get_or_none(j, "left_ms", INT64_MAX, &left, err) < 0 ||
	    get_or_none(j, "slowest", STAGE_NODES_MAX, &slowest, err) < 0)
		return -1;
	m.nodes = (uint32_t)nodes;
	m.done = (uint32_t)done;
	m.failed = (uint32_t)failed;
	m.left_ms = left < 0 ? UINT64_MAX : (uint64_t)left;
	m.slowest = slowest < 0 ? UINT32_MAX : (uint32_t)slowest;
	*ret = m;
	return 0;
}
