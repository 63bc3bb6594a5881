/* SPDX-License-Identifier: Apache-2.0 */
/* What a hostile VM can send. The first byte chooses: the filter alone, fed one frame; or the switch, fed a
 * stream in pieces over a socket pair. Then what came out is checked: frames whole, from the sender's own
 * MAC, to the receiver's, as many as were counted. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/filter.h"
#include "net/switch.h"

enum { SIZE = 2, STREAM_MAX = 100000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct subnet subnet = {10u << 24 | 199u << 16, 16};

static void need(int holds)
{
	if (!holds)
		abort();
}

static void one_frame(const uint8_t *data, size_t size)
{
	struct members all = {subnet, 1000};
	struct member self;
	struct filtered f;
	if (size < FRAME_HEADER)
		return;
	member_init(&self, &all, 1);
	uint8_t *frame = malloc(size); /* of the exact size: a read past the end is seen */
	need(frame != NULL);
	memcpy(frame, data, size);
	memcpy(frame + 6, self.mac, 6);
	switch (filter_frame(&all, &self, frame, size, &f)) {
	case VERDICT_FORWARD:
		need(f.rank < all.size && f.rank != self.rank && !(frame[0] & 1));
		need(!(frame[12] == 0x08 && (frame[13] == 0x06))); /* ARP never passes */
		break;
	case VERDICT_ANSWER:
		need(f.answer_len >= 60 && f.answer_len <= FRAME_ANSWER_MAX);
		need(memcmp(f.answer, self.mac, 6) == 0 || f.answer[0] == 0x33);
		break;
	default: break;
	}
	free(frame);
}

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
		uint32_t len;
		uint8_t from[6], to[6];
		need(n >= 4);
		memcpy(&len, p, 4);
		len = ntohl(len);
		need(len >= FRAME_HEADER && len <= FRAME_MAX && n - 4 >= len);
		address_mac(0, from);
		address_mac(1, to);
		need(memcmp(p + 4, to, 6) == 0 && memcmp(p + 10, from, 6) == 0);
		p += 4 + len;
		n -= 4 + len;
		frames++;
	}
	return frames;
}

static struct loop *loop;
static struct netswitch *sw;
static int vm[SIZE];

static void plug(uint32_t rank)
{
	int pair[2];
	need(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	need(netswitch_attach(sw, rank, pair[0], NULL) == 0);
	vm[rank] = pair[1];
}

static void stream(const uint8_t *data, size_t size)
{
	static uint8_t out[4 * STREAM_MAX];
	struct netswitch_stats before, after;
	if (size < 1 || size > STREAM_MAX)
		return;
	if (!loop)
		loop = loop_create();
	sw = netswitch_create(loop, &subnet, SIZE);
	plug(0);
	plug(1);
	netswitch_stats(sw, &before);
	size_t piece = 1 + data[0] * 37u, got = 0;
	if (size / piece > 64)
		piece = size / 64 + 1;
	for (size_t at = 1; at < size && netswitch_attached(sw, 0); at += piece) {
		size_t n = size - at < piece ? size - at : piece;
		if (send(vm[0], data + at, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
			break;
		loop_run_once(loop);
		got += drain(vm[1], out + got, sizeof(out) - got);
	}
	shutdown(vm[0], SHUT_WR);
	while (netswitch_attached(sw, 0))
		loop_run_once(loop);
	got += drain(vm[1], out + got, sizeof(out) - got);
	netswitch_stats(sw, &after);
	need(check_frames(out, got) == after.frames - before.frames);
	need(netswitch_attached(sw, 1) && after.bad <= before.bad + 1);
	netswitch_destroy(sw);
	close(vm[0]);
	close(vm[1]);
	loop_run_once(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (data[0] & 1)
		one_frame(data + 1, size - 1);
	else
		stream(data + 1, size - 1);
	return 0;
}
