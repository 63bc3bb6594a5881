/* SPDX-License-Identifier: Apache-2.0 */
/* What goes over a tunnel and what may not. */
#include <sys/resource.h>

#include "net-sites.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* ---- frames pass ---- */

static void test_pass(void)
{
	static const size_t sizes[] = {44, 59, 1514, 9014, 65550};
	setup();
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		ok(pass(0, 4, sizes[i], 1) && pass(4, 0, sizes[i], 2), "%zu bytes, there and back",
		   sizes[i]);
	is_int(sites[0].asked[1] + sites[1].asked[0], 1, "over one link, asked for once");
	bool good = true;
	for (uint32_t from = 0; from < RANKS; from++)
		for (uint32_t to = 0; to < RANKS; to++)
			if (from != to && from % EACH < 3 && to % EACH < 3)
				good = good && pass(from, to, 100, from * RANKS + to);
	ok(good, "every rank of three nodes with every other");
	struct tunnel_stats s = stats(0);
	is_int(s.links, 2, "two links at each");
	is_int(s.sent, 5 + 18, "frames counted");
	is_int(s.received, 5 + 18, "those that came, too");
	is_int(s.dropped_full + s.dropped_link + s.dropped_unknown + s.dropped_spoof +
		       s.dropped_strayed + s.bad + s.lost,
	       0, "and nothing else");
	is_int(s.queued, 0, "nothing is left in a queue");
	send_data(0, 7, 60, 1);
	ok(wait_for(stats(1).received == 24 - 0u || stats(1).received > 23),
	   "to a rank without a port");
	struct netswitch_stats n;
	netswitch_stats(sites[1].net, &n);
	ok(wait_for((netswitch_stats(sites[1].net, &n), n.dropped_unknown == 1)),
	   "a rank without a port: the switch over there counts the frame");
	send_data(0, 3, 60, 1);
	ok(wait_for(stats(0).dropped_unknown == 1), "one of our own without a port goes nowhere");
	tunnel_place(sites[0].tunnel, 7, 1, TUNNEL_NOWHERE, NULL);
	send_data(0, 7, 60, 1);
	ok(wait_for(stats(0).dropped_unknown == 2), "nor one that is on no node");
	teardown();
}

static void test_batch(void)
{
	setup();
	ok(pass(0, 4, 60, 0), "a link");
	struct tunnel_stats before = stats(0);
	enum { N = 900 };
	for (uint32_t i = 0; i < N; i++)
		send_data(0, 4 + i % 3, 60 + i % 7, i);
	bool good = true;
	for (uint32_t i = 0; i < N; i++)
		good = good && receive_data(4 + i % 3, 0, 60 + i % 7, i);
	ok(good, "interleaved for three: each gets its own, in order");
	struct tunnel_stats after = stats(0);
	is_int(after.sent - before.sent, N, "all are sent");
	ok(after.writes - before.writes < N / 10, "in %llu writes",
	   (unsigned long long)(after.writes - before.writes));
	teardown();
}

/* ---- what a peer may not send ---- */

static void test_spoof(void)
{
	setup();
	answer_at_once = false;
	int raw = join_raw(&sites[0], 1, false);
	receive_go(raw);
	send_frame(raw, data(1, 0, 60, 1)); /* a rank of ours */
	send_frame(raw, data(8, 0, 60, 1)); /* of a third node */
	send_frame(raw, data(RANKS, 0, 60, 1));
	send_frame(raw, frame_ipv4(frame, mac_of(0), 4, NET_BASE + 6, 60, 0)); /* its own, other IP */
	send_frame(raw, frame_ipv4(frame, mac_of(0), 4, NET_BASE + 9, 60, 0));
	send_frame(raw, frame_ipv4(frame, mac_broadcast, 4, NET_BASE + 5, 60, 0));
	send_frame(raw, frame_arp(frame, mac_of(0), 4, 2, NET_BASE + 5, NET_BASE + 1));
	send_frame(raw, frame_nd(frame, 4, "fd76:7365::5", 136, "fd76:7365::1"));
	send_frame(raw, data(4, 4, 60, 1));
	send_frame(raw, data(4, RANKS, 60, 1));
	frame_head(frame, mac_of(0), mac_of(4), 0x8100);
	send_frame(raw, 60);
	frame_head(frame, mac_of(0), mac_broadcast, 0x1234);
	send_frame(raw, 14);
	send_frame(raw, data(4, 8, 60, 1)); /* to a third node: this one is no relay */
	send_frame(raw, data(4, 6, 60, 1));
	send_frame(raw, data(4, 0, 60, 7));
	ok(receive_data(0, 4, 60, 7), "only the good one arrives");
	is_int(stats(0).dropped_spoof, 12, "forged ones are counted");
	is_int(stats(0).dropped_strayed, 2, "those for ranks of other nodes, too");
	is_int(stats(0).received, 1, "one is received");
	is_int(stats(0).asked, 0, "none is passed on");
	ok(tunnel_linked(sites[0].tunnel, 1), "the link stays");
	close(raw);
	teardown();
}

static void test_bad_length(void)
{
	static const uint32_t bad[] = {0, 1, 13, FRAME_MAX + 1, 0x80000000, UINT32_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint32_t word = htonl(bad[i]);
		setup();
		int raw = join_raw(&sites[0], 1, false);
		receive_go(raw);
		send_frame(raw, data(4, 0, 60, 1));
		send_bytes(raw, &word, 4);
		ok(receive_data(0, 4, 60, 1), "length %u: what came before is delivered", bad[i]);
		ok(wait_for(sites[0].closed == 1) && sites[0].closed_code == EPROTO && eof(raw),
		   "the link is closed, and says why");
		is_int(stats(0).bad, 1, "counted");
		ok(pass(0, 8, 60, 1), "others go on");
		close(raw);
		teardown();
	}
}

static void test_pieces(void)
{
	setup();
	int raw = join_raw(&sites[0], 1, false);
	receive_go(raw);
	uint8_t wire[3 * 1600];
	size_t n = 0, len[3] = {60, 35 + 14, 1514};
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t word = htonl((uint32_t)len[i]);
		memcpy(wire + n, &word, 4);
		memcpy(wire + n + 4, frame, data(4, 0, len[i], i));
		n += 4 + len[i];
	}
	bool good = true;
	for (size_t cut = 1; cut < n; cut += 13) {
		send_bytes(raw, wire, cut);
		rounds(2);
		send_bytes(raw, wire + cut, n - cut);
		for (uint32_t i = 0; i < 3; i++)
			good = good && receive_data(0, 4, len[i], i);
	}
	ok(good, "records cut anywhere");
	data(4, 0, FRAME_MAX, 9);
	send_frame(raw, FRAME_MAX);
	ok(receive_data(0, 4, FRAME_MAX, 9), "the longest");
	close(raw);
	teardown();
}

/* Rank 5 moves from node 1 to node 2 while frames go to it; node 0 hears of it last. */
static void test_move(void)
{
	enum { N = 60 };
	setup();
	ok(pass(0, 5, 60, 0) && pass(0, 8, 60, 0), "links");
	for (uint32_t i = 0; i < N; i++)
		send_data(0, 5, 100, i);
	ok(wait_for(stats(1).received == 1 + N), "to where it was");
	netswitch_detach(sites[1].net, 5);
	plug(&sites[2], 5);
	tunnel_place(sites[1].tunnel, 5, 1, 2, NULL);
	tunnel_place(sites[2].tunnel, 5, 1, 2, NULL);
	for (uint32_t i = 0; i < N; i++)
		send_data(0, 5, 100, i);
	ok(wait_for(stats(1).dropped_strayed == N), "strayed ones are counted, and go no further");
	send_data(5, 0, 100, 1);
	ok(wait_for(stats(0).dropped_spoof == 1),
	   "until the table says so, it cannot speak from there");
	tunnel_place(sites[0].tunnel, 5, 1, 2, NULL);
	bool good = true;
	for (uint32_t i = 0; i < N; i++)
		good = good && pass(0, 5, 100, i) && pass(5, 0, 100, i);
	ok(good, "then both ways");
	is_int(stats(1).received, 1 + N, "nothing more came to the old node");
	ok(pass(4, 5, 100, 1) && pass(5, 4, 100, 1), "its old node talks with it over the net");
	teardown();
}

/* ---- many ---- */

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
	enum { N = 1000, LEN = 9014 };
	static int raws[N];
	struct rlimit r = {2 * N + 64, 2 * N + 64}, had;
	getrlimit(RLIMIT_NOFILE, &had);
	r.rlim_max = had.rlim_max;
	if (had.rlim_cur < r.rlim_cur && setrlimit(RLIMIT_NOFILE, &r) < 0) {
		tap_skip("1000 links: too few descriptors allowed");
		return;
	}
	setup();
	bool good = true;
	size_t before = resident();
	for (uint32_t i = 0; i < N; i++)
		raws[i] = join_raw(&sites[0], RAW + i, false);
	for (uint32_t i = 0; i < N; i++)
		good = good && receive_go(raws[i]);
	for (uint32_t i = 0; i < N; i++) {
		tunnel_place(sites[0].tunnel, 5, 1, RAW + i, NULL);
		send_data(0, 5, LEN, i);
		good = good && receive(raws[i]) == LEN;
		send_frame(raws[i], data(5, 0, LEN, i));
		good = good && receive_data(0, 5, LEN, i);
	}
	ok(good, "1000 links: a frame each way on each");
	size_t grown = resident() - before;
	size_t bound = SANITIZED ? 256u << 10 : 48u << 10; /* a sanitizer keeps what was freed */
	ok(grown < N * bound, "memory: %zu bytes a link with its stream", grown / N);
	for (uint32_t i = 0; i < N; i++)
		close(raws[i]);
	ok(wait_for(stats(0).links == 0), "all closed");
	teardown();
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN); /* as every program of ours does */
	test_pass();
	test_batch();
	test_spoof();
	test_bad_length();
	test_pieces();
	test_move();
	test_many();
	return done();
}
