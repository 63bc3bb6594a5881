/* SPDX-License-Identifier: Apache-2.0 */
/* The switch over socket pairs: the test holds the VM's end of each port. What must not arrive is shown
 * by sending a good frame after it, which is then the first to arrive. */
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "net/filter.h"
#include "net/ring.h"
#include "net/switch.h"
#include "net-frames.h"
#include "tap.h"

#define WAIT_MS 20000 /* for what must happen; a broken switch fails here */

static struct loop *loop;
static struct evtimer *tick;
static struct netswitch *sw;
static int vm[NET_SIZE];
static uint8_t frame[FRAME_MAX + 64], got[FRAME_MAX + 64];

static void on_tick(void *arg)
{
	(void)arg;
}

static void plug(uint32_t rank)
{
	int pair[2];
	struct err e = ERR_INIT;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	if (netswitch_attach(sw, rank, pair[0], &e) < 0)
		abort();
	vm[rank] = pair[1];
}

static void unplug(uint32_t rank)
{
	if (vm[rank] >= 0)
		close(vm[rank]);
	vm[rank] = -1;
}

static void setup(uint32_t n_ports)
{
	struct subnet s = {NET_BASE, 16};
	loop = loop_create();
	tick = evtimer_create(loop, on_tick, NULL);
	evtimer_start(tick, 1, 1);
	sw = netswitch_create(loop, &s, NET_SIZE);
	for (uint32_t r = 0; r < NET_SIZE; r++)
		vm[r] = -1;
	for (uint32_t r = 0; r < n_ports; r++)
		plug(r);
}

static void teardown(void)
{
	for (uint32_t r = 0; r < NET_SIZE; r++)
		unplug(r);
	netswitch_destroy(sw);
	evtimer_destroy(tick);
	loop_run_once(loop);
	loop_destroy(loop);
}

static struct netswitch_stats stats(void)
{
	struct netswitch_stats s;
	netswitch_stats(sw, &s);
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

static void send_bytes(uint32_t from, const void *p, size_t n)
{
	size_t sent = 0;
	while (sent < n) {
		ssize_t k = send(vm[from], (const uint8_t *)p + sent, n - sent,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (k > 0)
			sent += (size_t)k;
		else if (errno == EAGAIN)
			loop_run_once(loop);
		else
			return;
	}
}

static void send_frame(uint32_t from, const uint8_t *f, size_t len)
{
	uint8_t *wire = xmalloc(len + 4);
	uint32_t n = htonl((uint32_t)len);
	memcpy(wire, &n, 4);
	memcpy(wire + 4, f, len);
	send_bytes(from, wire, len + 4);
	free(wire);
}

/* A legal frame between two members that says `seed` in its payload. */
static size_t data(uint32_t from, uint32_t to, size_t len, unsigned seed)
{
	return frame_ipv4(frame, mac_of(to), from, NET_BASE + 1 + from, len, seed);
}

static void send_data(uint32_t from, uint32_t to, size_t len, unsigned seed)
{
	send_frame(from, frame, data(from, to, len, seed));
}

static bool receive_bytes(uint32_t at, uint8_t *p, size_t n)
{
	uint64_t end = loop_now(loop) + WAIT_MS;
	for (size_t have = 0; have < n && loop_now(loop) < end;) {
		ssize_t k = recv(vm[at], p + have, n - have, MSG_DONTWAIT);
		if (k == 0 || (k < 0 && errno != EAGAIN))
			return false;
		if (k > 0)
			have += (size_t)k;
		else
			loop_run_once(loop);
		if (have == n)
			return true;
	}
	return false;
}

static ssize_t receive(uint32_t at) /* into got; -1: nothing came */
{
	uint32_t n;
	if (!receive_bytes(at, (uint8_t *)&n, 4))
		return -1;
	n = ntohl(n);
	return n <= FRAME_MAX && receive_bytes(at, got, n) ? (ssize_t)n : -1;
}

static bool receive_data(uint32_t at, uint32_t from, size_t len, unsigned seed)
{
	data(from, at, len, seed);
	ssize_t n = receive(at);
	return n == (ssize_t)len && memcmp(got, frame, len) == 0;
}

static void test_forward(void)
{
	setup(4);
	send_data(0, 1, 60, 1);
	ok(receive_data(1, 0, 60, 1), "a frame arrives as it was sent");
	static const size_t sizes[] = {34, 59, 1514, 9014, 32768, 65549, 65550};
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		send_data(2, 3, sizes[i], (unsigned)i);
		ok(receive_data(3, 2, sizes[i], (unsigned)i), "%zu bytes", sizes[i]);
	}
	frame_head(frame, mac_of(1), mac_of(0), 0x1234);
	send_frame(0, frame, 14);
	is_int(receive(1), 14, "the shortest frame");
	for (unsigned i = 0; i < 900; i++) /* more stretches than one batch holds */
		send_data(0, 1 + i % 3, 40 + i % 7, i);
	bool good = true;
	for (unsigned i = 0; i < 900; i++)
		good = good && receive_data(1 + i % 3, 0, 40 + i % 7, i);
	ok(good, "interleaved for three: each gets its own, in order");
	struct netswitch_stats s = stats();
	is_int(s.frames, 1 + 7 + 1 + 900, "frames counted");
	is_int(s.dropped_full + s.dropped_spoof + s.dropped_unknown + s.dropped_broadcast + s.bad +
		       s.ignored,
	       0, "nothing else counted");
	teardown();
}

static void test_drops(void)
{
	setup(3);
	send_frame(0, frame, frame_ipv4(frame, mac_of(1), 2, NET_BASE + 3, 60, 0));
	send_frame(0, frame, frame_ipv4(frame, mac_of(1), 0, NET_BASE + 3, 60, 0));
	send_frame(0, frame, frame_ipv4(frame, mac_broadcast, 0, NET_BASE + 1, 60, 0));
	send_frame(0, frame, frame_ipv4(frame, mac_of(0), 0, NET_BASE + 1, 60, 0));
	send_frame(0, frame, frame_ipv4(frame, mac_of(7), 0, NET_BASE + 1, 60, 0));
	send_frame(0, frame, frame_nd(frame, 0, "::", 133, "::"));
	send_frame(0, frame, frame_arp(frame, mac_broadcast, 0, 1, NET_BASE + 1, NET_BASE + 1));
	send_data(0, 1, 60, 9);
	send_data(0, 2, 60, 9);
	ok(receive_data(1, 0, 60, 9) && receive_data(2, 0, 60, 9), "only the good frames arrive");
	struct netswitch_stats s = stats();
	is_int(s.dropped_spoof, 2, "forged MAC, forged IP");
	is_int(s.dropped_broadcast, 1, "broadcast");
	is_int(s.dropped_unknown, 2, "to itself, to a rank without a port");
	is_int(s.ignored, 2, "router solicitation, gratuitous ARP");
	is_int(s.frames, 2, "forwarded");
	is_int(s.bytes, 120, "bytes without length words");
	teardown();
}

static void test_answers(void)
{
	setup(3);
	send_frame(0, frame, frame_arp(frame, mac_broadcast, 0, 1, NET_BASE + 1, NET_BASE + 1001));
	is_int(receive(0), 60, "ARP is answered, for a rank without a port, too");
	ok(memcmp(got + 22, mac_of(1000), 6) == 0 && memcmp(got, mac_of(0), 6) == 0,
	   "with the computed MAC");
	send_frame(0, frame, frame_nd(frame, 0, "fd76:7365::1", 135, "fd76:7365::2"));
	is_int(receive(0), 86, "neighbour solicitation is answered");
	ok(memcmp(got + 80, mac_of(1), 6) == 0, "with the computed MAC");
	send_data(0, 1, 60, 5);
	ok(receive_data(1, 0, 60, 5), "the member saw neither question");
	struct netswitch_stats s = stats();
	ok(s.answered == 2 && s.frames == 1 && s.bytes == 60, "answers are counted apart");
	teardown();
}

static void test_pieces(void)
{
	setup(2);
	uint8_t wire[3 * 1518];
	size_t n = 0, len[3] = {60, 14 + 21, 1514};
	for (unsigned i = 0; i < 3; i++) {
		uint32_t word = htonl((uint32_t)len[i]);
		memcpy(wire + n, &word, 4);
		memcpy(wire + n + 4, frame, data(0, 1, len[i], i));
		n += 4 + len[i];
	}
	for (size_t i = 0; i < n; i++) {
		send_bytes(0, wire + i, 1);
		loop_run_once(loop);
	}
	bool good = true;
	for (unsigned i = 0; i < 3; i++)
		good = good && receive_data(1, 0, len[i], i);
	ok(good, "byte by byte");
	for (size_t cut = 1; cut < n; cut += 13) {
		send_bytes(0, wire, cut);
		loop_run_once(loop);
		loop_run_once(loop);
		send_bytes(0, wire + cut, n - cut);
		for (unsigned i = 0; i < 3; i++)
			good = good && receive_data(1, 0, len[i], i);
	}
	ok(good, "cut anywhere");
	plug(2);
	send_bytes(0, wire, 3); /* another port's input comes between */
	loop_run_once(loop);
	send_data(2, 1, 300, 7);
	ok(receive_data(1, 2, 300, 7), "a port while another is in the middle of a length word");
	send_bytes(0, wire + 3, n - 3);
	for (unsigned i = 0; i < 3; i++)
		good = good && receive_data(1, 0, len[i], i);
	ok(good, "whose frames then come whole");
	teardown();
}

static void test_long_pieces(void)
{
	setup(2);
	size_t len = data(0, 1, FRAME_MAX, 3);
	uint8_t *wire = xmalloc(len + 4);
	uint32_t word = htonl((uint32_t)len);
	memcpy(wire, &word, 4);
	memcpy(wire + 4, frame, len);
	bool good = true;
	for (size_t piece = 997; piece < len + 4; piece *= 3) {
		for (size_t i = 0; i < len + 4; i += piece) {
			send_bytes(0, wire + i, MIN(piece, len + 4 - i));
			loop_run_once(loop);
		}
		good = good && receive_data(1, 0, FRAME_MAX, 3);
	}
	ok(good, "the longest frame in pieces");
	free(wire);
	teardown();
}

static bool eof(uint32_t rank)
{
	uint8_t c;
	return recv(vm[rank], &c, 1, MSG_DONTWAIT) == 0;
}

static void test_bad_length(void)
{
	static const uint32_t bad[] = {0, 13, FRAME_MAX + 1, 0x80000000, UINT32_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		setup(3);
		uint32_t word = htonl(bad[i]);
		send_data(0, 1, 60, 1);
		send_bytes(0, &word, 4);
		ok(wait_for(!netswitch_attached(sw, 0)), "length %u closes the port", bad[i]);
		ok(eof(0), "and the VM's end sees it");
		ok(receive_data(1, 0, 60, 1), "what came before is delivered");
		send_data(2, 1, 60, 2);
		ok(receive_data(1, 2, 60, 2), "others go on");
		is_int(stats().bad, 1, "counted");
		send_data(1, 0, 60, 3);
		ok(wait_for(stats().dropped_unknown == 1), "frames to it are dropped");
		teardown();
	}
}

static void test_close(void)
{
	setup(3);
	uint8_t half[30] = {0, 0, 0, 60};
	send_bytes(0, half, sizeof(half));
	loop_run_once(loop);
	unplug(0);
	ok(wait_for(!netswitch_attached(sw, 0)), "closed in the middle of a frame");
	is_int(stats().bad, 0, "which is not a wrong length");
	send_bytes(1, half, 3);
	loop_run_once(loop);
	plug(1);
	send_data(1, 2, 60, 4);
	ok(receive_data(2, 1, 60, 4), "a new port does not inherit half a length word");
	plug(0);
	send_data(2, 0, 60, 5);
	ok(receive_data(0, 2, 60, 5), "a rank comes back");
	int old = vm[0];
	plug(0);
	uint8_t c;
	ok(recv(old, &c, 1, MSG_DONTWAIT) == 0, "the port it had is closed");
	close(old);
	send_data(2, 0, 60, 6);
	ok(receive_data(0, 2, 60, 6), "the new one is used");
	netswitch_detach(sw, 0);
	netswitch_detach(sw, 0);
	netswitch_detach(sw, 999999);
	ok(eof(0) && !netswitch_attached(sw, 0), "detached, twice is fine");
	struct err e = ERR_INIT;
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		abort();
	ok(netswitch_attach(sw, NET_SIZE, pair[0], &e) < 0 && e.code == ERANGE, "no such rank: %s",
	   e.text);
	ok(recv(pair[1], &c, 1, MSG_DONTWAIT) == 0, "the descriptor is closed all the same");
	close(pair[1]);
	teardown();
}

/* Sends to a VM that does not read. Every frame is either delivered later or counted as lost. */
static void overload(size_t len)
{
	setup(3);
	unsigned sent = 4 * RING_SIZE / (unsigned)len, next = 0;
	for (unsigned i = 0; i < sent; i++) {
		data(0, 1, len, 0);
		memcpy(frame + 40, &i, 4);
		send_frame(0, frame, len);
	}
	ok(wait_for(stats().frames + stats().dropped_full == sent), "%zu: each is queued or lost", len);
	struct netswitch_stats s = stats();
	ok(s.dropped_full > 0, "some are lost: %llu of %u", (unsigned long long)s.dropped_full, sent);
	ok(s.bytes >= RING_SIZE - len - 4, "but no fewer than the queue holds are kept");
	send_data(0, 2, 60, 1);
	ok(receive_data(2, 0, 60, 1), "others are not held up");
	bool order = true;
	for (uint64_t i = 0; i < s.frames; i++) {
		unsigned number;
		order = order && receive(1) == (ssize_t)len;
		memcpy(&number, got + 40, 4);
		order = order && number >= next && number < sent;
		next = number + 1;
	}
	ok(order, "the kept ones arrive whole, in order");
	send_data(0, 1, 70, 2);
	ok(receive_data(1, 0, 70, 2), "then it works again, and no more came than was counted");
	teardown();
}

static void test_overload(void)
{
	overload(64);
	overload(1514);
	overload(FRAME_MAX);
	setup(2);
	for (unsigned i = 0; i < 60; i++)
		send_data(0, 1, 60000, 0);
	ok(wait_for(stats().frames + stats().dropped_full == 60), "a queue stands");
	unplug(1);
	ok(wait_for(!netswitch_attached(sw, 1)), "its VM goes away");
	for (unsigned i = 0; i < 40; i++)
		send_data(0, 1, 60000, 0);
	ok(wait_for(stats().dropped_unknown == 40), "frames for it are dropped");
	/* Questions of a VM that does not read its answers. */
	plug(1);
	for (unsigned i = 0; i < 20000; i++)
		send_frame(1, frame, frame_arp(frame, mac_broadcast, 1, 1, NET_BASE + 2, NET_BASE + 1));
	ok(wait_for(stats().answered + stats().dropped_full >= 20000),
	   "a flood of questions is bounded");
	teardown();
}

static void test_queue(void)
{
	setup(2);
	for (unsigned i = 0; i < 12; i++)
		send_data(0, 1, 60000, i);
	ok(wait_for(stats().frames == 12), "a queue stands");
	bool good = receive_data(1, 0, 60000, 0);
	netswitch_inject(sw, 1, frame, data(0, 1, 60, 99)); /* there is room in the socket now */
	for (unsigned i = 1; i < 12; i++)
		good = good && receive_data(1, 0, 60000, i);
	ok(good && receive_data(1, 0, 60, 99), "what comes later does not overtake the queue");
	uint64_t end = loop_now(loop) + 20;
	unsigned rounds = 0;
	for (; loop_now(loop) < end; rounds++)
		loop_run_once(loop);
	ok(rounds < 200, "nothing spins once the queue is out: %u rounds for 20 ticks", rounds);
	teardown();
}

/* A port breaks on writing while the batch still has frames for others. */
static void test_break_in_batch(void)
{
	setup(4);
	unplug(1);
	for (unsigned i = 0; i < 30; i++)
		send_data(0, 1 + i % 3, 60, i);
	bool good = true;
	for (unsigned i = 0; i < 30; i++)
		good = good && (i % 3 == 0 || receive_data(1 + i % 3, 0, 60, i));
	ok(good, "the others get theirs");
	ok(wait_for(!netswitch_attached(sw, 1)), "the broken port is gone");
	is_int(stats().dropped_unknown, 10, "its frames are counted");
	teardown();
}

static struct {
	unsigned calls;
	uint32_t rank;
	size_t len;
	uint8_t bytes[FRAME_MAX];
} up;

static void on_uplink(void *arg, uint32_t rank, const void *f, size_t len)
{
	ok(arg == &up, "uplink's argument");
	up.calls++;
	up.rank = rank;
	up.len = len;
	memcpy(up.bytes, f, len);
}

static void test_uplink(void)
{
	setup(2);
	netswitch_set_uplink(sw, on_uplink, &up);
	send_data(0, 700, 9000, 1);
	ok(wait_for(up.calls == 1), "a rank without a port goes to the uplink");
	ok(up.rank == 700 && up.len == 9000 && memcmp(up.bytes, frame, 9000) == 0,
	   "the frame, without length word");
	send_frame(0, frame, frame_ipv4(frame, mac_of(NET_SIZE), 0, NET_BASE + 1, 60, 0));
	send_data(0, 1, 60, 1);
	ok(receive_data(1, 0, 60, 1) && up.calls == 1, "local and unknown ranks do not");
	data(700, 1, FRAME_MAX, 2);
	netswitch_inject(sw, 1, frame, FRAME_MAX);
	ok(receive_data(1, 700, FRAME_MAX, 2), "a frame from the uplink is delivered");
	struct netswitch_stats before = stats();
	netswitch_inject(sw, 700, frame, 60);
	netswitch_inject(sw, NET_SIZE, frame, 60);
	netswitch_inject(sw, 1, frame, 13);
	netswitch_inject(sw, 1, frame, FRAME_MAX + 1);
	is_int(stats().dropped_unknown - before.dropped_unknown, 4,
	       "not local, no rank, bad lengths: dropped");
	unplug(1);
	netswitch_inject(sw, 1, frame, 60);
	ok(!netswitch_attached(sw, 1), "a port that is found closed");
	teardown();
}

static size_t resident(void) /* bytes */
{
	unsigned long total = 0, pages = 0;
	_cleanup_fclose_ FILE *f = fopen("/proc/self/statm", "re");
	if (!f || fscanf(f, "%lu %lu", &total, &pages) != 2)
		return 0;
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void test_many(void)
{
	enum { N = 1000 };
	struct rlimit r = {2 * N + 64, 2 * N + 64}, had;
	getrlimit(RLIMIT_NOFILE, &had);
	r.rlim_max = had.rlim_max;
	if (had.rlim_cur < r.rlim_cur && setrlimit(RLIMIT_NOFILE, &r) < 0) {
		tap_skip("1000 ports: too few descriptors allowed");
		return;
	}
	size_t before = resident();
	setup(N);
	for (uint32_t i = 0; i < N; i++)
		send_data(i, (i * 7 + 1) % N, 60, i);
	bool good = true;
	for (uint32_t i = 0; i < N; i++) {
		uint32_t to = (i * 7 + 1) % N;
		if (to != i)
			good = good && receive_data(to, i, 60, i);
	}
	ok(good, "1000 ports: each frame arrives");
	size_t grown = resident() - before;
	ok(grown < N * 2048u + (1u << 20), "memory: %zu bytes a port", grown / N);
	teardown();
}

int main(void)
{
	test_forward();
	test_drops();
	test_answers();
	test_pieces();
	test_long_pieces();
	test_bad_length();
	test_close();
	test_overload();
	test_queue();
	test_break_in_batch();
	test_uplink();
	test_many();
	return done();
}
