/* SPDX-License-Identifier: Apache-2.0 */
/* A node that only stages files, for bench/stage: real processes, real TLS links, no agent.
 *   stage-peer INDEX NODES PREFIX PORT CACHE
 * Node i listens on PREFIX(i+1):PORT ("10.79.0." and 1 for the root). The secret is 32 bytes in hex, the first line on
 * stdin, answered by "ready". Then one command a line, each answered by one line on stdout, behind the node's index:
 *   offer PATH    "offered JSON": the file's name
 *   fetch JSON    "done <ns since 1970> <bytes received> <kept> <wasted> <here>", once it is here, or "failed <why>"
 *   sent          "sent <bytes>" of chunks, so far
 *   moved         "moved <times> <links>"
 * It ends with stdin. The root's path is not looked at, so that every node has to fetch. */
#include <jansson.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/time.h"
#include "io/link.h"
#include "stage/stage.h"

#define DIAL_MS 10000

static struct peer {
	struct loop *loop;
	struct tls_context *tls;
	struct stage *stage;
	struct stream *in;
	struct link_listener *listener;
	uint32_t self, nodes;
	const char *prefix, *cache;
	uint16_t port;
	struct stage_job *job;
	bool failed;
} peer;

static void fatal(const char *what, const struct err *err)
{
	fprintf(stderr, "stage-peer %u: %s: %s\n", peer.self, what, err->text);
	exit(1);
}

/* ---- links: the first four bytes are the index of who dials ---- */

static void on_hello(void *arg, struct buf *in)
{
	struct stream **s = arg;
	uint32_t node;
	if (buf_len(in) < sizeof(node))
		return;
	memcpy(&node, buf_head(in), sizeof(node));
	buf_consume(in, sizeof(node));
	stage_attach(peer.stage, node, *s);
	free(s);
}

static void on_hello_close(void *arg, const struct err *err _unused_)
{
	struct stream **s = arg;
	stream_destroy(*s);
	free(s);
}

static const struct stream_ops hello_ops = {.on_data = on_hello, .on_close = on_hello_close};

static void on_link(void *arg _unused_, struct stream *s, const char *from _unused_)
{
	struct stream **holder = xmalloc(sizeof(*holder));
	*holder = s;
	stream_set_ops(s, &hello_ops, holder);
}

static const struct link_listener_ops listener_ops = {.on_link = on_link};

static void dialed(void *arg, struct stream *s, const char *address _unused_, const struct err *err)
{
	uint32_t node = (uint32_t)(uintptr_t)arg;
	if (!s) {
		stage_connect_failed(peer.stage, node, err);
		return;
	}
	stream_write(s, &peer.self, sizeof(peer.self));
	stage_attach(peer.stage, node, s);
}

static void want_link(void *arg _unused_, uint32_t node)
{
	char address[TCP_ADDRESS_SIZE];
	char *list[] = {address, NULL};
	struct err err;
	snprintf(address, sizeof(address), "%s%u", peer.prefix, node + 1);
	if (!link_dial(peer.loop, peer.tls, list, peer.port, DIAL_MS, dialed,
		       (void *)(uintptr_t)node, &err))
		stage_connect_failed(peer.stage, node, &err);
}

static void link_closed(void *arg _unused_, uint32_t node, const struct err *err)
{
	if (err->code)
		fprintf(stderr, "stage-peer %u: link to %u: %s\n", peer.self, node, err->text);
}

static const struct stage_ops stage_ops = {want_link, link_closed};

/* ---- commands ---- */

static void on_offer(void *arg _unused_, const struct stage_file *f, const struct err *err)
{
	if (!f)
		fatal("offer", err);
	json_t *j = stage_file_json(f);
	char *text = json_dumps(j, JSON_COMPACT);
	printf("%u offered %s\n", peer.self, text);
	free(text);
	json_decref(j);
}

static void on_done(void *arg _unused_, const char *path, const struct err *err)
{
	struct stage_progress p;
	if (!path) {
		printf("%u failed %s\n", peer.self, err->text);
		return;
	}
	stage_job_progress(peer.job, &p);
	printf("%u done %llu %llu %llu %llu %llu\n", peer.self, (unsigned long long)time_wall_ns(),
	       (unsigned long long)p.received, (unsigned long long)p.kept,
	       (unsigned long long)p.wasted, (unsigned long long)p.here);
}

static void fetch(const char *text)
{
	struct stage_file f;
	struct err err = ERR_INIT;
	json_t *j = json_loads(text, 0, NULL);
	if (!j || stage_file_read(j, &f, &err) < 0)
		fatal("fetch", &err);
	json_decref(j);
	f.path[0] = '\0';
	peer.job = stage_fetch(peer.stage, &f, on_done, NULL);
}

static void start(const char *hex)
{
	struct stage_config c = {.self = peer.self, .nodes = peer.nodes, .cache = peer.cache};
	uint8_t secret[TLS_SECRET_SIZE];
	char address[TCP_ADDRESS_SIZE];
	char *list[] = {address, NULL};
	struct err err = ERR_INIT;
	for (size_t i = 0; i < sizeof(secret); i++) {
		unsigned byte;
		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			fatal("secret", &err);
		secret[i] = (uint8_t)byte;
	}
	snprintf(address, sizeof(address), "%s%u", peer.prefix, peer.self + 1);
	peer.tls = tls_context_create(secret, "vse:bench", &err);
	if (!peer.tls || stage_create(peer.loop, &c, &stage_ops, NULL, &peer.stage, &err) < 0)
		fatal("start", &err);
	peer.listener = link_listener_create(peer.loop, peer.tls, list, peer.port, &listener_ops,
					     NULL, &err);
	if (!peer.listener)
		fatal("listen", &err);
	printf("%u ready\n", peer.self);
}

static void command(const char *line)
{
	struct stage_stats st;
	if (!peer.stage) {
		start(line);
		return;
	}
	stage_get_stats(peer.stage, &st);
	if (strncmp(line, "offer ", 6) == 0)
		stage_offer(peer.stage, line + 6, on_offer, NULL);
	else if (strncmp(line, "fetch ", 6) == 0)
		fetch(line + 6);
	else if (strcmp(line, "sent") == 0)
		printf("%u sent %llu\n", peer.self, (unsigned long long)st.bytes_sent);
	else if (strcmp(line, "moved") == 0)
		printf("%u moved %llu %u\n", peer.self, (unsigned long long)st.moved, st.links);
}

static void on_input(void *arg _unused_, struct buf *in)
{
	char *end;
	while (buf_len(in) && (end = memchr(buf_head(in), '\n', buf_len(in)))) {
		size_t n = (size_t)(end - buf_head(in));
		char *line = xmemdup0(buf_head(in), n);
		buf_consume(in, n + 1);
		command(line);
		free(line);
	}
}

static void on_input_close(void *arg _unused_, const struct err *err _unused_)
{
	loop_stop(peer.loop);
}

static const struct stream_ops input_ops = {.on_data = on_input, .on_close = on_input_close};

int main(int argc, char **argv)
{
	struct err err;
	if (argc != 6) {
		fprintf(stderr, "usage: stage-peer INDEX NODES PREFIX PORT CACHE\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	peer = (struct peer){.self = (uint32_t)atoi(argv[1]),
			     .nodes = (uint32_t)atoi(argv[2]),
			     .prefix = argv[3],
			     .port = (uint16_t)atoi(argv[4]),
			     .cache = argv[5]};
	peer.loop = loop_create();
	peer.in = stream_create(peer.loop, 0, &input_ops, NULL, &err);
	if (!peer.in)
		fatal("stdin", &err);
	loop_run(peer.loop);
	link_listener_destroy(peer.listener);
	stage_destroy(peer.stage);
	stream_destroy(peer.in);
	tls_context_destroy(peer.tls);
	loop_destroy(peer.loop);
	return 0;
}
