/* SPDX-License-Identifier: Apache-2.0 */
/* Staging: its parts, and whole stages in one process joined by socket pairs, each with a cache of its own. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "io/loop.h"
#include "io/stream.h"
#include "stage/index.h"
#include "stage/plan.h"
#include "stage/proto.h"
#include "stage/stage.h"
#include "tap.h"

#define MIB (1u << 20)
#define WAIT_MS 60000 /* for what must happen */
#define NODES 8

/* ---- parts ---- */

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
				 {.type = STAGE_LATE, .n = 1},
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

/* ---- whole stages ---- */

struct node {
	struct stage *stage;
	struct stage_job *job;
	bool done;
	char *path; /* copied */
	struct err err;
	uint64_t wanted; /* connects */
	struct err closed;
};

static struct loop *loop;
static char *work;
static struct node nodes[NODES + 1];
static bool no_links;
static struct stream *kept[64]; /* the links' ends: to be cut */
static int kept_fds[64];
static unsigned n_kept;

static void on_early(void *arg, struct buf *in)
{
	(void)arg, (void)in;
}
static void on_early_close(void *arg, const struct err *err)
{
	(void)arg, (void)err;
}
static const struct stream_ops early = {.on_data = on_early, .on_close = on_early_close};

static void connect_nodes(void *arg, uint32_t to)
{
	struct node *n = arg;
	uint32_t from = (uint32_t)(n - nodes);
	int pair[2];
	n->wanted++;
	if (no_links || !nodes[to].stage ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		stage_connect_failed(n->stage, to, NULL);
		return;
	}
	struct stream *a = stream_create(loop, pair[0], &early, NULL, NULL);
	struct stream *b = stream_create(loop, pair[1], &early, NULL, NULL);
	if (n_kept < ARRAY_SIZE(kept)) {
		kept_fds[n_kept] = pair[0];
		kept[n_kept++] = a;
	}
	stage_attach(n->stage, to, a);
	stage_attach(nodes[to].stage, from, b);
}

static void link_closed(void *arg, uint32_t node, const struct err *err)
{
	struct node *n = arg;

	if (err->code)
		printf("# node %u: link to %u: %s\n", (unsigned)(n - nodes), node, err->text);
	if (err->code)
		n->closed = *err;
}

static const struct stage_ops ops = {connect_nodes, link_closed};

static void start(uint32_t i, uint32_t n, uint64_t limit, const char *cache)
{
	_cleanup_free_ char *own = xasprintf("%s/cache%u", work, i), *name = xasprintf("host%u", i);
	struct stage_config c = {
		.self = i, .nodes = n, .name = name, .cache = cache ? cache : own, .cache_limit = limit};
	struct err err = ERR_INIT;
	nodes[i] = (struct node){0};
	if (stage_create(loop, &c, &ops, &nodes[i], &nodes[i].stage, &err) < 0)
		printf("# stage_create: %s\n", err.text);
}

static void stop_all(void)
{
	for (uint32_t i = 0; i <= NODES; i++) {
		stage_destroy(nodes[i].stage);
		free(nodes[i].path);
		nodes[i] = (struct node){0};
	}
	n_kept = 0;
}

static struct stage_file offered;
static bool offer_done;
static struct err offer_err;

static void on_offer(void *arg, const struct stage_file *f, const struct err *err)
{
	(void)arg;
	offer_done = true;
	offer_err = *err;
	if (f)
		offered = *f;
}

static void on_done(void *arg, const char *path, const struct err *err)
{
	struct node *n = arg;
	n->done = true;
	n->err = *err;
	free(n->path);
	n->path = path ? xstrdup(path) : NULL;
}

static void too_long(void *arg)
{
	*(bool *)arg = true;
}

static bool wait_for(const bool *what)
{
	bool late = false;
	struct evtimer *t = evtimer_create(loop, too_long, &late);
	evtimer_start(t, WAIT_MS, 0);
	while (!*what && !late)
		loop_run_once(loop);
	evtimer_destroy(t);
	return *what;
}

static struct stage_job *offer(const char *path)
{
	offer_done = false;
	struct stage_job *j = stage_offer(nodes[0].stage, path, on_offer, NULL);
	wait_for(&offer_done);
	return j;
}

static bool fetch(uint32_t from, uint32_t to)
{
	bool all = true;
	for (uint32_t i = from; i <= to; i++) {
		nodes[i].done = false;
		nodes[i].job = stage_fetch(nodes[i].stage, &offered, on_done, &nodes[i]);
	}
	for (uint32_t i = from; i <= to; i++)
		all = wait_for(&nodes[i].done) && all;
	return all;
}

static char *write_file(const char *name, const uint8_t *p, size_t n)
{
	char *path = path_join(work, name);
	path_write(path, p, n, 0644, NULL);
	return path;
}

static bool has(uint32_t i, const uint8_t *p, size_t n)
{
	_cleanup_free_ char *data = NULL;
	size_t len;
	if (nodes[i].err.code)
		printf("# node %u: %s\n", i, nodes[i].err.text);
	return nodes[i].path && path_read(nodes[i].path, 64 * MIB, &data, &len, NULL) == 0 &&
	       len == n && memcmp(data, p, n) == 0;
}

static struct stage_progress progress(uint32_t i)
{
	struct stage_progress p = {0};
	stage_job_progress(nodes[i].job, &p);
	return p;
}

static unsigned count_in(const char *folder, const char *sub)
{
	_cleanup_free_ char *path = xasprintf("%s/%u/%s", folder, (unsigned)geteuid(), sub);
	unsigned n = 0;
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));)
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static void test_transfer(void)
{
	size_t n = 6 * MIB, zeros = 3 * MIB;
	uint8_t *data = xcalloc(n + 64, 1);
	fill(data, n - zeros, 2); /* and zeros: equal chunks */
	_cleanup_free_ char *path = write_file("image", data, n);
	for (uint32_t i = 0; i <= 5; i++)
		start(i, 5, 0, NULL);
	struct stage_job *job = offer(path);
	ok(!offer_err.code && offered.size == n && offered.nodes == 5, "a file is offered");
	offered.path[0] = '\0'; /* as if no store were shared */
	ok(fetch(1, 5), "all nodes are done");
	bool same = true;
	uint64_t received = 0, sent = 0;
	for (uint32_t i = 1; i <= 5; i++) {
		struct stage_progress p = progress(i);
		same = same && has(i, data, n);
		received = MAX(received, p.received);
		same = same && p.here + p.kept + p.received == n && p.state == STAGE_DONE && !p.left_ms;
	}
	struct stage_progress root;
	stage_job_progress(job, &root);
	sent = root.sent;
	ok(same, "and have the very file");
	ok(received < n - zeros + 3 * CHUNK_MAX,
	   "a chunk that the file has often travels once: %llu bytes came",
	   (unsigned long long)received);
	ok(sent < 2 * received, "the root sent it about once: %llu bytes", (unsigned long long)sent);
	struct stat st;
	ok(stat(nodes[1].path, &st) == 0 && (st.st_mode & 0777) == 0400,
	   "a cached file is read-only and private");

	for (uint32_t i = 1; i <= 5; i++) {
		stage_destroy(nodes[i].stage);
		free(nodes[i].path);
		start(i, 5, 0, NULL);
	}
	ok(fetch(1, 5) && has(3, data, n), "an agent that is started anew finds it in its cache");
	ok(progress(3).here == n && !progress(3).received, "and receives nothing");

	memmove(data + MIB + 64, data + MIB, n - MIB);
	fill(data + MIB, 64, 3);
	n += 64;
	_cleanup_free_ char *changed = write_file("changed", data, n);
	struct stage_job *second = offer(changed);
	offered.path[0] = '\0';
	ok(fetch(1, 5) && has(1, data, n) && has(5, data, n), "a changed file arrives");
	ok(progress(4).received < 3 * CHUNK_MAX && progress(4).kept + progress(4).received == n,
	   "of which only what changed travelled: %llu bytes",
	   (unsigned long long)progress(4).received);
	struct stage_stats stats;
	stage_get_stats(nodes[2].stage, &stats);
	ok(!stats.chunks_bad && !stats.messages_bad, "nobody complained");
	stage_release(job);
	stage_release(second);
	stop_all();
	_cleanup_free_ char *cache = path_join(work, "cache1");
	is_int(count_in(cache, "incoming"), 0, "nothing half is left");
	free(data);
}

static void test_places(void)
{
	size_t n = 2 * MIB;
	uint8_t *data = xmalloc(n);
	fill(data, n, 5);
	_cleanup_free_ char *path = write_file("shared", data, n);
	for (uint32_t i = 0; i <= 3; i++)
		start(i, 3, 0, NULL);
	offer(path);
	ok(fetch(1, 1), "on a shared store it is there");
	is_str(nodes[1].path, path, "as the root's own file");
	is_int(progress(1).received + progress(1).kept, 0, "nothing is copied");
	/* Node 2 does not see the store, and its parent in one tree is node 1, which has no index yet. */
	struct stage_file elsewhere = offered;
	elsewhere.path[0] = '\0';
	struct stage_file seen = offered;
	offered = elsewhere;
	ok(fetch(2, 3) && has(2, data, n) && has(3, data, n),
	   "who does not see it gets it from who does");
	struct stage_stats stats;
	stage_get_stats(nodes[1].stage, &stats);
	ok(progress(1).sent && !stats.messages_bad, "from node 1, too");

	offered = seen;
	offered.mtime_ns++;
	stage_release(nodes[3].job);
	ok(fetch(3, 3) && strcmp(nodes[3].path, path) != 0,
	   "another file under that name is not taken for it");
	stop_all();

	/* Two nodes with one cache. */
	_cleanup_free_ char *common = path_join(work, "common");
	start(0, 2, 0, NULL);
	start(1, 2, 0, common);
	start(2, 2, 0, common);
	offer(path);
	offered.path[0] = '\0';
	ok(fetch(1, 2) && has(1, data, n) && has(2, data, n),
	   "two nodes with one cache both have it");
	is_int(progress(1).received + progress(2).received, n, "one of them fetched it");
	stop_all();
	free(data);
}

static void test_cut(void)
{
	size_t n = 8 * MIB;
	uint8_t *data = xmalloc(n);
	fill(data, n, 7);
	_cleanup_free_ char *path = write_file("cut", data, n);
	for (uint32_t i = 0; i <= 3; i++)
		start(i, 3, 0, NULL);
	struct stage_job *job = offer(path);
	offered.path[0] = '\0';
	for (uint32_t i = 1; i <= 3; i++)
		nodes[i].job = stage_fetch(nodes[i].stage, &offered, on_done, &nodes[i]);
	bool cut = false;
	while (!nodes[3].done && !cut) {
		loop_run_once(loop);
		if (progress(3).received < MIB)
			continue;
		cut = true;
		for (unsigned i = 0; i < n_kept; i++)
			shutdown(kept_fds[i], SHUT_RDWR);
	}
	ok(cut, "all links are cut in the middle");
	ok(wait_for(&nodes[1].done) && wait_for(&nodes[2].done) && wait_for(&nodes[3].done) &&
		   has(3, data, n),
	   "they are made anew and the file arrives");
	is_int(progress(3).received, n, "what was there is not fetched again");
	stage_release(job);
	stop_all();
	free(data);
}

/* ---- a node that lies ---- */

struct liar {
	struct stream *stream;
	bool index_asked;
	const struct index *index;
	const uint8_t *data;
	unsigned lies;
};

static void liar_data(void *arg, struct buf *in)
{
	struct liar *l = arg;
	struct stage_msg m;
	size_t len;
	while (stage_proto_read(in, &m, &len, NULL) == 1) {
		if (m.type == STAGE_GET) {
			_cleanup_buf_ struct buf bytes = BUF_INIT;
			if (m.chunk == STAGE_INDEX)
				index_write(l->index, &bytes);
			else
				buf_add(&bytes, l->data + l->index->chunks[m.chunk].offset,
					l->index->chunks[m.chunk].size);
			if (m.chunk != STAGE_INDEX) {
				bytes.data[17] ^= 1;
				l->lies++;
			}
			struct stage_msg chunk = {.type = STAGE_CHUNK,
						  .chunk = m.chunk,
						  .n = (uint32_t)buf_len(&bytes)};
			memcpy(chunk.key, m.key, SHA_SIZE);
			stage_proto_write(stream_out(l->stream), &chunk);
			for (size_t at = 0; at < buf_len(&bytes); at += PIECE_MAX) {
				uint32_t n = (uint32_t)MIN(PIECE_MAX, buf_len(&bytes) - at);
				stage_proto_write(stream_out(l->stream),
						  &(struct stage_msg){.type = STAGE_PIECE, .n = n});
				buf_add(stream_out(l->stream), buf_head(&bytes) + at, n);
			}
			stream_flush(l->stream);
		}
		buf_consume(in, len);
	}
}

static const struct stream_ops liar_ops = {.on_data = liar_data, .on_close = on_early_close};
static struct liar liar;

static void connect_liar(void *arg, uint32_t to)
{
	int pair[2];
	if (to != 2) {
		connect_nodes(arg, to);
		return;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	liar.stream = stream_create(loop, pair[1], &liar_ops, &liar, NULL);
	stage_proto_write(stream_out(liar.stream), &(struct stage_msg){.type = STAGE_HELLO});
	stream_flush(liar.stream);
	stage_attach(((struct node *)arg)->stage, 2, stream_create(loop, pair[0], &early, NULL, NULL));
}

static void test_liar(void)
{
	static const struct stage_ops lying_ops = {connect_liar, link_closed};
	size_t n = 3 * MIB;
	uint8_t *data = xmalloc(n);
	fill(data, n, 9);
	_cleanup_free_ char *path = write_file("truth", data, n),
			    *cache = path_join(work, "cache-liar");
	start(0, 2, 0, NULL);
	struct stage_config c = {.self = 1, .nodes = 2, .cache = cache};
	nodes[1] = (struct node){0};
	stage_create(loop, &c, &lying_ops, &nodes[1], &nodes[1].stage, NULL);
	struct stage_job *job = offer(path);
	offered.path[0] = '\0';
	liar = (struct liar){.index = index_of(data, n, n), .data = data};
	ok(fetch(1, 1) && has(1, data, n),
	   "beside a node that sends wrong bytes, the file arrives");
	struct stage_stats stats;
	stage_get_stats(nodes[1].stage, &stats);
	ok(liar.lies && stats.chunks_bad == 1,
	   "its wrong chunk is counted, and it is not asked again");
	is_int(nodes[1].closed.code, EBADMSG, "the owner is told: %s", nodes[1].closed.text);
	ok(progress(1).received == n, "nothing of it is kept");
	stage_release(job);
	stop_all();
	stream_destroy(liar.stream);
	index_free((struct index *)liar.index);
	free(data);
}

/* What is no message closes the link and nothing else. */
static void test_noise(void)
{
	static const char *const noise[] = {"\0\0\0\x01\x63", "\0\0\0\x06\0VSES\x07",
					    "GET / HTTP/1.0\r\n\r\n"};
	static const size_t len[] = {5, 10, 18};
	struct stage_stats stats;
	start(0, 1, 0, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(noise); i++) {
		int pair[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return;
		stage_attach(nodes[0].stage, 1, stream_create(loop, pair[0], &early, NULL, NULL));
		ok(write(pair[1], noise[i], len[i]) == (ssize_t)len[i], "noise is sent");
		do {
			loop_run_once(loop);
			stage_get_stats(nodes[0].stage, &stats);
		} while (stats.links);
		close(pair[1]);
	}
	is_int(stats.messages_bad, 3, "three links closed for what is no message");
	stop_all();
}

/* ---- the cache ---- */

static bool cached(const char *cache, const struct stage_file *f)
{
	char hex[SHA_HEX];
	sha_hex(f->index, hex);
	_cleanup_free_ char *path = xasprintf("%s/%u/files/%s", cache, (unsigned)geteuid(), hex);
	return path_exists(path);
}

static void test_limit(void)
{
	size_t n = 2 * MIB;
	uint8_t *data = xmalloc(n);
	struct stage_file files[4];
	_cleanup_free_ char *cache = path_join(work, "cache1");
	path_remove(cache, NULL);
	start(0, 1, 0, NULL);
	start(1, 1, 5 * MIB, NULL);
	struct stage_job *held = NULL;
	for (unsigned i = 0; i < 4; i++) {
		char name[8] = {'f', (char)('0' + i), 0};
		fill(data, n, 20 + i);
		_cleanup_free_ char *path = write_file(name, data, n);
		offer(path);
		offered.path[0] = '\0';
		files[i] = offered;
		if (i == 3)
			break;
		ok(fetch(1, 1) && has(1, data, n), "file %u of 2 MiB fits into 5 MiB", i);
		if (!i)
			held = nodes[1].job; /* the oldest is in use */
		else
			stage_release(nodes[1].job);
	}
	ok(cached(cache, &files[0]) && !cached(cache, &files[1]) && cached(cache, &files[2]),
	   "the least recently used that is not in use went");
	/* Now both are in use. */
	offered = files[2];
	fetch(1, 1);
	struct stage_job *held_too = nodes[1].job;
	offered = files[3];
	ok(fetch(1, 1) && nodes[1].err.code == ENOBUFS &&
		   strncmp(nodes[1].err.text, "host1: cache ", 13) == 0 &&
		   strstr(nodes[1].err.text, "missing"),
	   "a limit that all in use fill is told: %s", nodes[1].err.text);
	stage_release(nodes[1].job);
	is_int(count_in(cache, "incoming"), 0, "a fetch that failed leaves nothing");
	stage_release(held);
	ok(fetch(1, 1) && has(1, data, n) && !cached(cache, &files[0]),
	   "with one released, it fits");
	stage_release(held_too);
	stop_all();
	free(data);
}

/* The file of `f` in node 1's cache, or its index. */
static char *cache_file(const char *suffix)
{
	char hex[SHA_HEX];
	sha_hex(offered.index, hex);
	return xasprintf("%s/cache1/%u/files/%s%s", work, (unsigned)geteuid(), hex, suffix);
}

static void forget_boot(void)
{
	_cleanup_free_ char *path = cache_file(".index");
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (lseek(fd, -36, SEEK_END) < 0 || write(fd, "another boot", 12) != 12)
		printf("# cannot change %s\n", path);
}

static void test_crash(void)
{
	size_t n = 2 * MIB;
	uint8_t *data = xmalloc(n);
	fill(data, n, 40);
	_cleanup_free_ char *path = write_file("crash", data, n);
	start(0, 1, 0, NULL);
	start(1, 1, 0, NULL);
	offer(path);
	offered.path[0] = '\0';
	ok(fetch(1, 1), "a file is cached");
	stage_release(nodes[1].job);
	forget_boot();
	ok(fetch(1, 1) && has(1, data, n) && progress(1).here == n,
	   "one of another boot is checked, and taken");
	stage_release(nodes[1].job);
	forget_boot();
	_cleanup_free_ char *file = cache_file("");
	chmod(file, 0600);
	_cleanup_close_ int fd = open(file, O_WRONLY | O_CLOEXEC);
	ok(pwrite(fd, "zeros", 5, MIB) == 5, "a crash has left a hole in it");
	ok(fetch(1, 1) && has(1, data, n) && progress(1).received == n,
	   "that is found, and the file fetched anew");
	stop_all();

	/* Ended in the middle: nothing stays. */
	_cleanup_free_ char *cache = path_join(work, "cache1");
	path_remove(cache, NULL);
	start(0, 1, 0, NULL);
	start(1, 1, 0, NULL);
	offer(path);
	offered.path[0] = '\0';
	nodes[1].job = stage_fetch(nodes[1].stage, &offered, on_done, &nodes[1]);
	while (!progress(1).received)
		loop_run_once(loop);
	stop_all();
	ok(!count_in(cache, "incoming") && !count_in(cache, "files"),
	   "a fetch that is ended leaves nothing");
	free(data);
}

/* In a child, on a file system of 1 MiB. */
static int full_disk(const char *file)
{
	_cleanup_free_ char *small = path_join(work, "small");
	_cleanup_free_ char *cache = path_join(small, "cache");
	if (mkdir(small, 0700) < 0 || unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) < 0 ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("small", small, "tmpfs", 0, "size=1m") < 0)
		return 77;
	start(0, 1, 0, NULL);
	start(1, 1, 0, cache);
	offer(file);
	offered.path[0] = '\0';
	bool fine = fetch(1, 1) && nodes[1].err.code == ENOSPC &&
		    strstr(nodes[1].err.text, "host1: cache ") &&
		    strstr(nodes[1].err.text, "disk full") &&
		    strstr(nodes[1].err.text, "are missing") && !count_in(cache, "incoming");
	printf("# %s\n", nodes[1].err.text);
	stop_all();
	return fine ? 0 : 1;
}

static void test_full(void)
{
	uint8_t *data = xmalloc(2 * MIB);
	int status = 0;
	fill(data, 2 * MIB, 50);
	_cleanup_free_ char *path = write_file("big", data, 2 * MIB);
	free(data);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		loop = loop_create();
		int rc = full_disk(path);
		fflush(stdout);
		_exit(rc);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		tap_skip("no file system can be mounted here");
	else
		ok(WIFEXITED(status) && WEXITSTATUS(status) == 0,
		   "a full disk is told: who, where, how much is missing");
}

static void test_refusals(void)
{
	struct stage_config c = {.cache = "relative"};
	struct stage *s;
	struct err err;
	ok(stage_create(loop, &c, &ops, NULL, &s, &err) < 0 && err.code == EINVAL, "refused: %s",
	   err.text);
	_cleanup_free_ char *open_to_all = path_join(work, "open");
	mkdir(open_to_all, 0777);
	chmod(open_to_all, 0777);
	c.cache = open_to_all;
	ok(stage_create(loop, &c, &ops, NULL, &s, &err) < 0 && err.code == EPERM, "refused: %s",
	   err.text);
	chmod(open_to_all, 01777);
	ok(stage_create(loop, &c, &ops, NULL, &s, &err) == 0, "with the sticky bit it will do");
	stage_destroy(s);
	start(0, 1, 0, NULL);
	stage_release(offer("/nonexistent/file"));
	ok(offer_err.code == ENOENT && strncmp(offer_err.text, "host0: /nonexistent/file", 24) == 0,
	   "refused: %s", offer_err.text);
	stop_all();
}

static void test_report(void)
{
	struct stage_file f = {.size = 12345, .nodes = 7, .inode = UINT64_MAX - 5, .mtime_ns = 1, .uid = 1000},
			  g;
	struct err err;
	memset(f.index, 0xab, sizeof(f.index));
	strcpy(f.path, "/a/b");
	json_t *j = stage_file_json(&f);
	ok(j && stage_file_read(j, &g, &err) == 0 && memcmp(&f, &g, sizeof(f)) == 0,
	   "a file's name comes back");
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
	ok(j && stage_sum_read(j, &back, &err) == 0 && memcmp(&a, &back, sizeof(a)) == 0,
	   "and comes back");
	json_decref(j);
}

int main(void)
{
	const char *tmp = getenv("TMPDIR");
	signal(SIGPIPE, SIG_IGN);
	work = xasprintf("%s/vse-test-stage.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(work))
		return 1;
	test_index();
	test_plan();
	test_proto();
	test_report();
	test_full(); /* before there is a loop: it forks */
	loop = loop_create();
	test_refusals();
	test_transfer();
	test_places();
	test_cut();
	test_liar();
	test_noise();
	test_limit();
	test_crash();
	loop_destroy(loop);
	path_remove(work, NULL);
	free(work);
	return done();
}
