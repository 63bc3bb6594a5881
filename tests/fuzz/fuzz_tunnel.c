/* SPDX-License-Identifier: Apache-2.0 */
/* What another node can send over a tunnel's link. The first byte chooses: record_read() and record_judge() alone, or
 * a whole tunnel that is fed a stream in pieces. Then what came out is checked: whole frames from ranks of that
 * node to the rank that is here, as many as were counted. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/record.h"
#include "net/tunnel.h"

enum { SIZE = 6, STREAM_MAX = 60000, HERE = 0, THERE = 1 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct subnet subnet = {10u << 24 | 199u << 16, 16};
static const uint32_t places[SIZE] = {HERE, THERE, THERE, 2, TUNNEL_NOWHERE, HERE};

static void need(int holds)
{
	if (!holds)
		abort();
}

static uint32_t be32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return ntohl(v);
}

/* A frame that may be delivered: between ranks that are where they should be, and nothing for all. */
static uint32_t check_frame(const uint8_t *frame, size_t len)
{
	uint32_t to, from;
	need(len >= FRAME_HEADER && len <= FRAME_MAX);
	need(address_mac_rank(frame, &to) && address_mac_rank(frame + 6, &from));
	need(to < SIZE && from < SIZE && places[to] == HERE && places[from] == THERE);
	need(!(frame[12] == 0x08 && frame[13] == 0x06)); /* ARP never passes */
	if (frame[12] == 0x08 && frame[13] == 0x00)
		need(len >= 34 && be32(frame + 26) == address_ipv4(&subnet, from));
	return to;
}

static void parse(const uint8_t *data, size_t size)
{
	struct members all = {subnet, SIZE};
	size_t len;
	uint32_t rank;
	while (size) {
		enum record r = record_read(data, size, &len);
		if (r == RECORD_BAD || r == RECORD_PART)
			return;
		need(len <= FRAME_MAX && RECORD_WORD + len <= size && (len || r == RECORD_GO));
		if (r == RECORD_FRAME) {
			uint8_t *frame = malloc(len); /* of the exact size: a read past the end is seen */
			need(frame != NULL && len >= FRAME_HEADER);
			memcpy(frame, data + RECORD_WORD, len);
			if (record_judge(&all, places, THERE, HERE, frame, len, &rank) == CROSSING_DELIVER)
				need(check_frame(frame, len) == rank);
			free(frame);
		}
		data += RECORD_WORD + len;
		size -= RECORD_WORD + len;
	}
}

static void ignore_node(void *arg, uint32_t node)
{
	(void)arg;
	(void)node;
}

static void ignore_data(void *arg, struct buf *in)
{
	(void)arg;
	(void)in;
}

static void ignore_close(void *arg, const struct err *err)
{
	(void)arg;
	(void)err;
}

static const struct tunnel_ops ops = {.connect = ignore_node};
static const struct stream_ops nobody = {.on_data = ignore_data, .on_close = ignore_close};

static size_t drain(int fd, uint8_t *out, size_t room)
{
	size_t n = 0;
	ssize_t k;
	while (n < room && (k = recv(fd, out + n, room - n, MSG_DONTWAIT)) > 0)
		n += (size_t)k;
	return n;
}

static uint64_t check_frames(const uint8_t *p, size_t n)
{
	uint64_t frames = 0;
	while (n) {
		need(n >= 4 && n - 4 >= be32(p));
		need(check_frame(p + 4, be32(p)) == 0); /* the only one that has a port */
		n -= 4 + be32(p);
		p += 4 + be32(p);
		frames++;
	}
	return frames;
}

static struct loop *loop;

static void feed(int link, int vm, uint8_t piece_byte, const uint8_t *data, size_t size,
		 struct tunnel *t, struct netswitch *sw)
{
	static uint8_t out[4 * STREAM_MAX];
	struct tunnel_stats s;
	struct netswitch_stats n;
	size_t piece = 1 + piece_byte * 37u, got = 0;
	if (size / piece > 64)
		piece = size / 64 + 1;
	for (size_t at = 0; at < size && tunnel_linked(t, THERE); at += piece) {
		size_t k = size - at < piece ? size - at : piece;
		if (send(link, data + at, k, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)k)
			break;
		loop_run_once(loop);
		got += drain(vm, out + got, sizeof(out) - got);
	}
	shutdown(link, SHUT_WR);
	while (tunnel_linked(t, THERE))
		loop_run_once(loop);
	got += drain(vm, out + got, sizeof(out) - got);
	tunnel_stats(t, &s);
	netswitch_stats(sw, &n);
	need(check_frames(out, got) == n.frames && n.frames + n.dropped_unknown == s.received);
	need(s.bad <= 1 && s.lost == 1 && s.asked == 0 && s.sent == 0);
}

static void stream(const uint8_t *data, size_t size)
{
	int vm[2], link[2];
	struct tunnel_config config = {.self = HERE};
	if (size < 1 || size > STREAM_MAX)
		return;
	if (!loop)
		loop = loop_create();
	struct netswitch *sw = netswitch_create(loop, &subnet, SIZE);
	struct tunnel *t = tunnel_create(loop, sw, &config, &ops, NULL);
	need(socketpair(AF_UNIX, SOCK_STREAM, 0, vm) == 0 &&
	     socketpair(AF_UNIX, SOCK_STREAM, 0, link) == 0);
	need(netswitch_attach(sw, 0, vm[0], NULL) == 0);
	for (uint32_t r = 0; r < SIZE; r++)
		need(tunnel_place(t, r, 1, places[r], NULL) == 0);
	struct stream *s = stream_create(loop, link[0], &nobody, NULL, NULL);
	need(s && tunnel_attach(t, THERE, false, s, NULL) == 0);
	feed(link[1], vm[1], data[0], data + 1, size - 1, t, sw);
	tunnel_destroy(t);
	netswitch_destroy(sw);
	close(vm[1]);
	close(link[1]);
	loop_run_once(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	signal(SIGPIPE, SIG_IGN);
	if (size < 1)
		return 0;
	if (data[0] & 1)
		parse(data + 1, size - 1);
	else
		stream(data + 1, size - 1);
	return 0;
}
