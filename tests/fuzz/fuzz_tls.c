/* SPDX-License-Identifier: Apache-2.0 */
/* What somebody without the cluster's secret can do to a link. The first byte chooses: bytes of his to a listening
 * or to a connecting agent, in pieces; or changes to what two true agents say to each other. Nothing of his must
 * ever open a link, and nothing but what was said must come out of one. */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/tls.h"

enum { INPUT_MAX = 40000, EDITS_MAX = 64, IDLE_ROUNDS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct evtimer *tick;
static struct tls_context *ts, *tc;

static void need(int holds)
{
	if (!holds)
		abort();
}

struct side {
	struct stream *s;
	int opens, closes;
	size_t bytes;
};

static void on_data(void *arg, struct buf *in)
{
	struct side *e = arg;
	need(e->opens == 1);
	for (size_t i = 0; i < buf_len(in); i++)
		need(buf_head(in)[i] == 'x');
	e->bytes += buf_len(in);
	buf_consume(in, buf_len(in));
}

static void on_close(void *arg, const struct err *err)
{
	struct side *e = arg;
	need(!e->closes++ && (!err->code || *err->text));
	stream_destroy(e->s);
	e->s = NULL;
}

static void on_open(void *arg)
{
	struct side *e = arg;
	need(!e->opens++);
}

static const struct stream_ops ops = {.on_data = on_data, .on_close = on_close, .on_open = on_open};

/* Gives the far end of the pair. */
static int start(struct side *e, enum tls_role role)
{
	int pair[2];
	need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	e->s = stream_create_tls(loop, pair[0], role == TLS_SERVER ? ts : tc, role, &ops, e, NULL);
	need(e->s != NULL);
	return pair[1];
}

static void stop(struct side *e, int far)
{
	shutdown(far, SHUT_WR);
	while (!e->closes)
		loop_run_once(loop);
	close(far);
}

static void stranger(enum tls_role role, const uint8_t *data, size_t size)
{
	struct side e = {0};
	struct tls_stats before, after;
	tls_context_stats(role == TLS_SERVER ? ts : tc, &before);
	int far = start(&e, role);
	size_t piece = size ? 1 + data[0] * 17u : 1;
	if (size / piece > 64)
		piece = size / 64 + 1;
	for (size_t at = 1; at < size && !e.closes; at += piece) {
		size_t n = size - at < piece ? size - at : piece;
		if (send(far, data + at, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
			break;
		loop_run_once(loop);
	}
	stop(&e, far);
	tls_context_stats(role == TLS_SERVER ? ts : tc, &after);
	need(!e.opens && after.handshakes == before.handshakes);
	uint64_t refused = 0;
	for (int i = 0; i < TLS_REFUSAL_COUNT; i++)
		refused += after.refused[i] - before.refused[i];
	need(refused == 1);
}

/* Passes on what has come, with the bytes at some offsets changed. False: there was nothing. */
static int pass(int from, int to, size_t *at, const uint8_t *edits, size_t n_edits)
{
	static uint8_t chunk[65536];
	ssize_t n = recv(from, chunk, sizeof(chunk), MSG_DONTWAIT);
	if (n <= 0)
		return 0;
	for (size_t i = 0; i < n_edits; i++) {
		size_t where = (size_t)edits[3 * i] << 8 | edits[3 * i + 1];
		if (where >= *at && where < *at + (size_t)n)
			chunk[where - *at] ^= edits[3 * i + 2];
	}
	*at += (size_t)n;
	if (send(to, chunk, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
		return 0;
	return 1;
}

static void meddler(int down, const uint8_t *data, size_t size)
{
	struct side s = {0}, c = {0};
	size_t up_at = 0, down_at = 0, n = size / 3 < EDITS_MAX ? size / 3 : EDITS_MAX;
	int server = start(&s, TLS_SERVER), client = start(&c, TLS_CLIENT), idle = 0;
	stream_write(c.s, "xx", 2);
	while (idle < IDLE_ROUNDS) {
		int moved = pass(client, server, &up_at, data, down ? 0 : n);
		moved |= pass(server, client, &down_at, data, down ? n : 0);
		idle = moved ? 0 : idle + 1;
		evtimer_start(tick, 0, 0); /* the end that got nothing, or is gone, has nothing to do */
		loop_run_once(loop);
	}
	need(s.bytes == 2 || (n && s.bytes == 0));
	stop(&s, server);
	stop(&c, client);
}

static void on_tick(void *arg _unused_)
{
}

static void set_up(void)
{
	static const uint8_t secret[TLS_SECRET_SIZE] = "the secret of a cluster to fuzz";
	signal(SIGPIPE, SIG_IGN);
	loop = loop_create();
	tick = evtimer_create(loop, on_tick, NULL);
	ts = tls_context_create(secret, "vse:fuzz", NULL);
	tc = tls_context_create(secret, "vse:fuzz", NULL);
	need(ts && tc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > INPUT_MAX)
		return 0;
	if (!loop)
		set_up();
	if (data[0] % 4 < 2)
		stranger(data[0] % 4 ? TLS_CLIENT : TLS_SERVER, data + 1, size - 1);
	else
		meddler(data[0] % 4 == 3, data + 1, size - 1);
	return 0;
}
