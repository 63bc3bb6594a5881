/* SPDX-License-Identifier: Apache-2.0 */
/* Three nodes in one process: a switch and a tunnel each, joined by socket pairs. The test holds the VM's end of
 * every port and answers what the tunnels ask for; a peer that misbehaves is the test itself ("raw"). What must not
 * arrive is shown by sending a good frame after it, which is then the first to arrive. */
#ifndef VSE_TESTS_NET_SITES_H
#define VSE_TESTS_NET_SITES_H

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "net/filter.h"
#include "net/tunnel.h"
#include "net-frames.h"
#include "tap.h"

enum {
	WAIT_MS = 20000, /* for what must happen; a broken tunnel fails here */
	SITES = 3,
	EACH = 4, /* ranks 0..3 are on node 0, 4..7 on node 1, 8..11 on node 2 */
	RANKS = SITES * EACH,
	RAW = 1000, /* an index for a peer that is the test */
};

struct site {
	uint32_t node;
	struct netswitch *net;
	struct tunnel *tunnel;
	unsigned asked[SITES]; /* calls of connect */
	unsigned asked_raw;
	unsigned closed;
	int closed_code;
};

static struct loop *loop;
static struct evtimer *tick;
static struct site sites[SITES];
static int vm[RANKS];
static bool answer_at_once; /* connect makes the link itself */
static uint8_t frame[FRAME_MAX + 64], got[FRAME_MAX + 64];

static void on_tick(void *arg)
{
	(void)arg;
}

/* A stream has an owner before the tunnel gets it. */
static void nobody_data(void *arg, struct buf *in)
{
	(void)arg;
	(void)in;
}

static void nobody_close(void *arg, const struct err *err)
{
	(void)arg;
	(void)err;
}

static const struct stream_ops nobody = {.on_data = nobody_data, .on_close = nobody_close};

static void make_pair(int pair[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
}

static int attach_fd(struct site *s, uint32_t node, bool dialed, int fd)
{
	struct err e = ERR_INIT;
	struct stream *stream = stream_create(loop, fd, &nobody, NULL, &e);
	if (!stream)
		abort();
	return tunnel_attach(s->tunnel, node, dialed, stream, &e);
}

static void join(uint32_t from, uint32_t to)
{
	int pair[2];
	make_pair(pair);
	attach_fd(&sites[from], to, true, pair[0]);
	attach_fd(&sites[to], from, false, pair[1]);
}

/* The other end of the link is the test. */
__attribute__((unused)) static int join_raw(struct site *s, uint32_t node, bool dialed)
{
	int pair[2];
	make_pair(pair);
	attach_fd(s, node, dialed, pair[0]);
	return pair[1];
}

static void on_connect(void *arg, uint32_t node)
{
	struct site *s = arg;
	if (node >= SITES) {
		s->asked_raw++;
		return;
	}
	s->asked[node]++;
	if (answer_at_once)
		join(s->node, node);
}

static void on_closed(void *arg, uint32_t node, const struct err *err)
{
	struct site *s = arg;
	(void)node;
	s->closed++;
	s->closed_code = err->code;
}

static const struct tunnel_ops ops = {.connect = on_connect, .closed = on_closed};

static void plug(struct site *s, uint32_t rank)
{
	int pair[2];
	make_pair(pair);
	if (netswitch_attach(s->net, rank, pair[0], NULL) < 0)
		abort();
	if (vm[rank] >= 0)
		close(vm[rank]);
	vm[rank] = pair[1];
}

static void setup_with(struct tunnel_config config)
{
	struct subnet subnet = {NET_BASE, 16};
	loop = loop_create();
	tick = evtimer_create(loop, on_tick, NULL);
	evtimer_start(tick, 1, 1);
	answer_at_once = true;
	for (uint32_t r = 0; r < RANKS; r++)
		vm[r] = -1;
	for (uint32_t i = 0; i < SITES; i++) {
		struct site *s = &sites[i];
		*s = (struct site){.node = i};
		s->net = netswitch_create(loop, &subnet, RANKS);
		config.self = i;
		s->tunnel = tunnel_create(loop, s->net, &config, &ops, s);
		for (uint32_t n = 0; n < SITES; n++)
			tunnel_place(s->tunnel, n * EACH, EACH, n, NULL);
		for (uint32_t r = 0; r < EACH - 1; r++) /* the last rank of each node has no port */
			plug(s, i * EACH + r);
	}
}

__attribute__((unused)) static void setup(void)
{
	setup_with((struct tunnel_config){0});
}

static void teardown(void)
{
	for (uint32_t r = 0; r < RANKS; r++)
		if (vm[r] >= 0)
			close(vm[r]);
	for (uint32_t i = 0; i < SITES; i++) {
		tunnel_destroy(sites[i].tunnel);
		netswitch_destroy(sites[i].net);
	}
	evtimer_destroy(tick);
	loop_run_once(loop);
	loop_destroy(loop);
}

__attribute__((unused)) static struct tunnel_stats stats(uint32_t site)
{
	struct tunnel_stats s;
	tunnel_stats(sites[site].tunnel, &s);
	return s;
}

/* Runs the loop until `cond` holds; true if it did. */
#define wait_for(cond)                                                                             \
	__extension__({                                                                            \
		uint64_t end_ = loop_now(loop) + WAIT_MS;                                          \
		bool held_;                                                                        \
		while (!(held_ = (cond)) && loop_now(loop) < end_)                                 \
			loop_run_once(loop);                                                       \
		held_;                                                                             \
	})

__attribute__((unused)) static void rounds(unsigned n)
{
	while (n--)
		loop_run_once(loop);
}

__attribute__((unused)) static void let_pass(uint64_t ms)
{
	uint64_t end = loop_now(loop) + ms;
	while (loop_now(loop) < end)
		loop_run_once(loop);
}

static void send_bytes(int fd, const void *p, size_t n)
{
	uint64_t end = loop_now(loop) + WAIT_MS;
	for (size_t sent = 0; sent < n && loop_now(loop) < end;) {
		ssize_t k = send(fd, (const uint8_t *)p + sent, n - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (k > 0)
			sent += (size_t)k;
		else if (errno == EAGAIN)
			loop_run_once(loop);
		else
			return;
	}
}

__attribute__((unused)) static void send_frame(int fd, size_t len)
{
	uint32_t word = htonl((uint32_t)len);
	uint8_t *wire = xmalloc(len + 4);
	memcpy(wire, &word, 4);
	memcpy(wire + 4, frame, len);
	send_bytes(fd, wire, len + 4);
	free(wire);
}

/* A legal frame between two members that says `number` in its payload. */
static size_t data(uint32_t from, uint32_t to, size_t len, uint32_t number)
{
	frame_ipv4(frame, mac_of(to), from, NET_BASE + 1 + from, len, from);
	memcpy(frame + 40, &number, 4);
	return len;
}

static void send_data(uint32_t from, uint32_t to, size_t len, uint32_t number)
{
	send_frame(vm[from], data(from, to, len, number));
}

static bool receive_bytes(int fd, uint8_t *p, size_t n)
{
	uint64_t end = loop_now(loop) + WAIT_MS;
	for (size_t have = 0; have < n;) {
		ssize_t k = recv(fd, p + have, n - have, MSG_DONTWAIT);
		if (k == 0 || (k < 0 && errno != EAGAIN) || loop_now(loop) >= end)
			return false;
		if (k > 0)
			have += (size_t)k;
		else
			loop_run_once(loop);
	}
	return true;
}

static ssize_t receive(int fd) /* into got; -1: nothing came */
{
	uint32_t n;
	if (!receive_bytes(fd, (uint8_t *)&n, 4))
		return -1;
	n = ntohl(n);
	return n <= FRAME_MAX && receive_bytes(fd, got, n) ? (ssize_t)n : -1;
}

static bool receive_data(uint32_t at, uint32_t from, size_t len, uint32_t number)
{
	ssize_t n = receive(vm[at]);
	data(from, at, len, number);
	return n == (ssize_t)len && memcmp(got, frame, len) == 0;
}

__attribute__((unused)) static bool pass(uint32_t from, uint32_t to, size_t len, uint32_t number)
{
	send_data(from, to, len, number);
	return receive_data(to, from, len, number);
}

__attribute__((unused)) static bool receive_go(int fd)
{
	uint8_t word[4];
	return receive_bytes(fd, word, 4) && memcmp(word, "\0\0\0\0", 4) == 0;
}

__attribute__((unused)) static bool eof(int fd)
{
	uint8_t c;
	return wait_for(recv(fd, &c, 1, MSG_DONTWAIT) == 0);
}

__attribute__((unused)) static unsigned descriptors(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

#endif
