/* SPDX-License-Identifier: Apache-2.0 */
/* Whole stages in one process joined by socket pairs, each with a cache of its own. */
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
#include "stage/proto.h"
#include "stage/stage.h"
#include "tap.h"

#define MIB (1u << 20)
#define WAIT_MS 60000 /* for what must happen */
#define NODES 8

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

static int put(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -1 : fd_write_all(fd, text, strlen(text));
}

/* A namespace of our own to mount in, in which we are who we were. */
static int own_mounts(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	_cleanup_free_ char *users = xasprintf("%u %u 1", (unsigned)uid, (unsigned)uid),
			    *groups = xasprintf("%u %u 1", (unsigned)gid, (unsigned)gid);
	if (!uid)
		return unshare(CLONE_NEWNS);
	if (unshare(CLONE_NEWNS | CLONE_NEWUSER) < 0)
		return -1;
	return put("/proc/self/uid_map", users) < 0 || put("/proc/self/setgroups", "deny") < 0
		       ? -1
		       : put("/proc/self/gid_map", groups);
}

/* In a child, on a file system of 1 MiB. */
static int full_disk(const char *file)
{
	_cleanup_free_ char *small = path_join(work, "small");
	_cleanup_free_ char *cache = path_join(small, "cache");
	if (mkdir(small, 0700) < 0 || own_mounts() < 0 ||
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

int main(void)
{
	const char *tmp = getenv("TMPDIR");
	signal(SIGPIPE, SIG_IGN);
	work = xasprintf("%s/vse-test-stage.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(work))
		return 1;
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
