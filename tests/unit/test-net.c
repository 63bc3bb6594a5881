/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, and every rule of the filter. */
#include <errno.h>
#include <stdlib.h>

#include "net/filter.h"
#include "net/ring.h"
#include "net-frames.h"
#include "tap.h"

static void test_subnet(void)
{
	struct subnet s;
	struct err e = ERR_INIT;
	is_int(subnet_parse("10.199.0.0/16", 65534, &s, &e), 0, "a /16 holds 65534");
	ok(s.base == NET_BASE && s.bits == 16, "base and bits");
	is_int(subnet_parse("10.0.0.0/8", 1, &s, &e), 0, "/8");
	is_int(subnet_parse("192.168.7.248/29", 6, &s, &e), 0, "/29 holds 6");
	struct subnet before = s;
	ok(subnet_parse("192.168.7.248/29", 7, &s, &e) < 0 && e.code == ERANGE,
	   "/29 does not hold 7: %s", e.text);
	ok(memcmp(&before, &s, sizeof(s)) == 0, "output untouched on error");
	static const char *const bad[] = {"",
					  "/",
					  "10.0.0.0",
					  "10.0.0.0/",
					  "/16",
					  "10.0.0/16",
					  "10.0.0.0/7",
					  "10.0.0.0/30",
					  "10.0.0.0/016",
					  "10.0.0.0/+16",
					  "10.0.0.0/16 ",
					  " 10.0.0.0/16",
					  "10.0.0.0/160",
					  "10.0.0.256/16",
					  "10.199.0.1/16",
					  "127.0.0.0/8",
					  "0.0.0.0/8",
					  "224.0.0.0/8",
					  "240.0.0.0/8",
					  "10.0.0.0/16/16",
					  "fd00::/16",
					  "1111111111111111111111111111.0.0.0/16",
					  "10.0.0.0/-8",
					  "10.0.0.0/0x10"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ok(subnet_parse(bad[i], 1, &s, &e) < 0 && e.code == EINVAL, "refused: '%s' (%s)",
		   bad[i], e.text);
}

static void test_rank_of(void)
{
	struct subnet s = {NET_BASE, 16};
	uint32_t r = 77, v;
	uint8_t mac[6];
	char text[16];
	address_mac(0x123456, mac);
	ok(memcmp(mac, "\x52\x54\x00\x12\x34\x56", 6) == 0, "MAC of a rank");
	ok(address_mac_rank(mac, &v) && v == 0x123456, "and back");
	mac[2] = 1;
	ok(!address_mac_rank(mac, &r) && r == 77, "another maker's MAC is not ours");
	address_ipv4_text(address_ipv4(&s, 0), text);
	is_str(text, "10.199.0.1", "first address");
	address_ipv4_text(address_ipv4(&s, 254), text);
	is_str(text, "10.199.0.255", "rank 254");
	address_ipv4_text(0xffffffff, text);
	is_str(text, "255.255.255.255", "longest text");
	ok(!address_ipv4_rank(&s, NET_BASE, 10, &r) && !address_ipv4_rank(&s, NET_BASE + 11, 10, &r) &&
		   !address_ipv4_rank(&s, NET_BASE - 1, 10, &r) &&
		   !address_ipv4_rank(&s, 0, 10, &r) && r == 77,
	   "outside");
	ok(address_ipv4_rank(&s, NET_BASE + 1, 10, &v) && v == 0, "first");
	ok(address_ipv4_rank(&s, NET_BASE + 10, 10, &v) && v == 9, "last");
	struct in6_addr a, want = ip6("fd76:7365::1:0");
	address_ipv6(0xffff, &a);
	ok(memcmp(&a, &want, 16) == 0 && address_ipv6_rank(&a, 0x10000, &v) && v == 0xffff,
	   "IPv6 there and back");
	ok(!address_ipv6_rank(&a, 0xffff, &r), "IPv6 of a rank past the end");
	a = ip6("fd76:7365::");
	ok(!address_ipv6_rank(&a, UINT32_MAX, &r), "rank -1");
	a = ip6("fd76:7365:0:1::1");
	ok(!address_ipv6_rank(&a, 10, &r), "another /64");
	want = ip6("fe80::5054:ff:fe12:3456");
	address_link_local(0x123456, &a);
	ok(memcmp(&a, &want, 16) == 0, "link-local is what EUI-64 of the MAC gives");
	ok(address_ipv6_rank(&a, 1u << 24, &v) && v == 0x123456, "and back");
	ok(!address_ipv6_rank(&a, 0x123456, &r) && r == 77, "link-local past the end");
}

/* The VM under test is rank 1 of NET_SIZE: 10.199.0.2, fd76:7365::2, fe80::5054:ff:fe00:1. */
static struct filtered out;

static enum verdict judge(const uint8_t *frame, size_t len)
{
	struct members all = {{NET_BASE, 16}, NET_SIZE};
	struct member self;
	member_init(&self, &all, 1);
	/* An allocation of the exact size: the sanitizer sees a read past the end. */
	uint8_t *copy = malloc(len);
	memcpy(copy, frame, len);
	memset(&out, 0xee, sizeof(out));
	enum verdict v = filter_frame(&all, &self, copy, len, &out);
	free(copy);
	return v;
}

#define ME (NET_BASE + 2)

static void test_ipv4(void)
{
	uint8_t f[256];
	is_int(judge(f, frame_ipv4(f, mac_of(5), 1, ME, 60, 0)), VERDICT_FORWARD, "IPv4 to a member");
	is_int(out.rank, 5, "its rank");
	is_int(judge(f, frame_ipv4(f, mac_of(NET_SIZE - 1), 1, ME, 34, 0)), VERDICT_FORWARD,
	       "shortest, last rank");
	is_int(judge(f, frame_ipv4(f, mac_of(5), 1, ME, 33, 0)), VERDICT_SPOOF, "header cut");
	is_int(judge(f, 14), VERDICT_SPOOF, "no header");
	is_int(judge(f, frame_ipv4(f, mac_of(NET_SIZE), 1, ME, 60, 0)), VERDICT_UNKNOWN,
	       "past the last rank");
	is_int(judge(f, frame_ipv4(f, mac_of(1), 1, ME, 60, 0)), VERDICT_UNKNOWN, "to itself");
	is_int(judge(f, frame_ipv4(f, (const uint8_t *)"\x00\x11\x22\x33\x44\x55", 1, ME, 60, 0)),
	       VERDICT_UNKNOWN, "a foreign MAC");
	is_int(judge(f, frame_ipv4(f, mac_of(5), 2, ME, 60, 0)), VERDICT_SPOOF, "source MAC of another");
	is_int(judge(f, frame_ipv4(f, mac_of(5), 1, ME + 1, 60, 0)), VERDICT_SPOOF,
	       "source IP of another");
	is_int(judge(f, frame_ipv4(f, mac_of(5), 1, 0, 60, 0)), VERDICT_SPOOF, "source 0.0.0.0");
	is_int(judge(f, frame_ipv4(f, mac_broadcast, 1, ME, 60, 0)), VERDICT_BROADCAST, "broadcast");
	is_int(judge(f, frame_ipv4(f, (const uint8_t *)"\x01\x00\x5e\x00\x00\xfb", 1, ME, 60, 0)),
	       VERDICT_BROADCAST, "multicast");
	f[23] = 2;
	is_int(judge(f, 60), VERDICT_IGNORE, "IGMP");
	is_int(judge(f, frame_ipv4(f, mac_broadcast, 1, ME + 1, 60, 0)), VERDICT_SPOOF,
	       "forged broadcast");
}

static void test_other_types(void)
{
	uint8_t f[64] = {0};
	frame_head(f, mac_of(5), mac_of(1), 0x8915);
	is_int(judge(f, 64), VERDICT_FORWARD, "another protocol (RoCE)");
	is_int(judge(f, 14), VERDICT_FORWARD, "shortest frame");
	frame_head(f, mac_of(5), mac_of(2), 0x8915);
	is_int(judge(f, 64), VERDICT_SPOOF, "another protocol, forged MAC");
	frame_head(f, mac_of(5), mac_of(1), 0x8100);
	is_int(judge(f, 64), VERDICT_SPOOF, "VLAN tag");
	frame_head(f, mac_of(5), mac_of(1), 0x88a8);
	is_int(judge(f, 64), VERDICT_SPOOF, "provider VLAN tag");
}

static void test_arp(void)
{
	uint8_t f[128];
	is_int(judge(f, frame_arp(f, mac_broadcast, 1, 1, ME, NET_BASE + 6)), VERDICT_ANSWER,
	       "request for a member");
	uint8_t want[60] = {0};
	frame_arp(want, mac_of(1), 5, 2, NET_BASE + 6, ME);
	memcpy(want + 32, mac_of(1), 6);
	is_int(out.answer_len, 60, "answer has the Ethernet minimum");
	ok(memcmp(out.answer, want, 60) == 0, "answer: the member's MAC and address, to the asker");
	is_int(judge(f, frame_arp(f, mac_of(5), 1, 1, ME, NET_BASE + 6)), VERDICT_ANSWER,
	       "unicast request");
	is_int(judge(f, frame_arp(f, mac_broadcast, 1, 1, 0, NET_BASE + 6)), VERDICT_ANSWER,
	       "probe for a taken address");
	is_int(judge(f, frame_arp(f, mac_broadcast, 1, 1, 0, ME)), VERDICT_IGNORE,
	       "probe for the own address");
	is_int(judge(f, frame_arp(f, mac_broadcast, 1, 1, ME, ME)), VERDICT_IGNORE,
	       "gratuitous request");
	is_int(judge(f, frame_arp(f, mac_broadcast, 1, 2, ME, ME)), VERDICT_IGNORE, "gratuitous reply");
	is_int(judge(f, frame_arp(f, mac_of(5), 1, 2, ME, NET_BASE + 6)), VERDICT_IGNORE,
	       "reply nobody asked for");
	is_int(judge(f, frame_arp(f, mac_broadcast, 1, 1, ME, NET_BASE + NET_SIZE + 1)),
	       VERDICT_UNKNOWN, "no such member");
	is_int(judge(f, frame_arp(f, mac_broadcast, 1, 1, ME, NET_BASE)), VERDICT_UNKNOWN,
	       "the net's address");
	is_int(judge(f, frame_arp(f, mac_broadcast, 1, 1, ME + 1, NET_BASE + 6)), VERDICT_SPOOF,
	       "sender IP of another");
	is_int(judge(f, frame_arp(f, mac_of(5), 1, 2, ME + 1, NET_BASE + 6)), VERDICT_SPOOF,
	       "forged reply");
	is_int(judge(f, frame_arp(f, mac_of(5), 1, 2, 0, NET_BASE + 6)), VERDICT_SPOOF,
	       "reply from 0.0.0.0");
	frame_arp(f, mac_broadcast, 1, 1, ME, NET_BASE + 6);
	f[27] = 9;
	is_int(judge(f, 42), VERDICT_SPOOF, "sender MAC inside differs");
	frame_arp(f, mac_broadcast, 1, 1, ME, NET_BASE + 6);
	is_int(judge(f, 41), VERDICT_SPOOF, "cut");
	for (size_t i = 14; i < 20; i++) {
		frame_arp(f, mac_broadcast, 1, 1, ME, NET_BASE + 6);
		f[i] ^= 1;
		is_int(judge(f, 42), VERDICT_SPOOF, "ARP for other hardware or protocol: byte %zu", i);
	}
}

static unsigned checksum(const uint8_t *f) /* of the whole pseudo header and message; 0xffff is right */
{
	uint64_t sum = 32 + 58;
	for (size_t i = 22; i < 86; i++)
		sum += i % 2 ? f[i] : (unsigned)f[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (unsigned)sum;
}

static void is_advert(const char *target, uint32_t rank, const uint8_t *to_mac, const char *to,
		      unsigned flags, const char *what)
{
	uint8_t want[86], msg[32] = {136, [4] = (uint8_t)flags, [24] = 2, [25] = 1};
	struct in6_addr t = ip6(target);
	memcpy(msg + 8, &t, 16);
	memcpy(msg + 26, mac_of(rank), 6);
	msg[2] = out.answer[56];
	msg[3] = out.answer[57];
	frame_ipv6(want, to_mac, rank, t, ip6(to), 58, msg, sizeof(msg));
	is_int(out.answer_len, 86, "%s: length", what);
	ok(memcmp(out.answer, want, 86) == 0, "%s: advertisement", what);
	is_int(checksum(out.answer), 0xffff, "%s: checksum", what);
}

#define LL "fe80::5054:ff:fe00:1"

static void test_nd(void)
{
	uint8_t f[128];
	is_int(judge(f, frame_nd(f, 1, "fd76:7365::2", 135, "fd76:7365::6")), VERDICT_ANSWER,
	       "solicitation");
	is_advert("fd76:7365::6", 5, mac_of(1), "fd76:7365::2", 0x60, "solicitation");
	is_int(judge(f, frame_nd(f, 1, LL, 135, "fe80::5054:ff:fe00:5")), VERDICT_ANSWER,
	       "link-local solicitation");
	is_advert("fe80::5054:ff:fe00:5", 5, mac_of(1), LL, 0x60, "link-local");
	is_int(judge(f, frame_nd(f, 1, "::", 135, "fd76:7365::6")), VERDICT_ANSWER,
	       "DAD of a taken address");
	is_advert("fd76:7365::6", 5, (const uint8_t *)"\x33\x33\0\0\0\x01", "ff02::1", 0x20,
		  "DAD of a taken address");
	is_int(judge(f, frame_nd(f, 1, "::", 135, "fd76:7365::2")), VERDICT_IGNORE,
	       "DAD of the own address");
	is_int(judge(f, frame_nd(f, 1, "::", 135, LL)), VERDICT_IGNORE, "DAD of the own link-local");
	is_int(judge(f, frame_nd(f, 1, "::", 135, "fe80::1234")), VERDICT_IGNORE,
	       "DAD of a private address");
	is_int(judge(f, frame_nd(f, 1, LL, 135, "fd76:7365::2")), VERDICT_IGNORE, "asks for itself");
	is_int(judge(f, frame_nd(f, 1, LL, 135, "2001:db8::1")), VERDICT_UNKNOWN, "asks for nobody");
	is_int(judge(f, frame_nd(f, 1, "fd76:7365::7", 135, "fd76:7365::6")), VERDICT_SPOOF,
	       "source of another");
	is_int(judge(f, frame_nd(f, 1, "fe80::5054:ff:fe00:2", 135, "fd76:7365::6")), VERDICT_SPOOF,
	       "LL of another");
	size_t n = frame_nd(f, 1, LL, 135, "fd76:7365::6");
	is_int(judge(f, 78), VERDICT_ANSWER, "without options");
	is_int(judge(f, 77), VERDICT_SPOOF, "cut");
	f[21] = 254;
	is_int(judge(f, n), VERDICT_SPOOF, "hop limit not 255");
	n = frame_nd(f, 1, LL, 135, "fd76:7365::6");
	f[55] = 1;
	is_int(judge(f, n), VERDICT_SPOOF, "code not 0");
	is_int(judge(f, frame_nd(f, 1, LL, 133, "::")), VERDICT_IGNORE, "router solicitation");
	is_int(judge(f, frame_nd(f, 1, "::", 133, "::")), VERDICT_IGNORE,
	       "router solicitation without address");
	is_int(judge(f, frame_nd(f, 1, LL, 134, "::")), VERDICT_SPOOF, "router advertisement");
	is_int(judge(f, frame_nd(f, 1, LL, 137, "fd76:7365::6")), VERDICT_SPOOF, "redirect");
	is_int(judge(f, frame_nd(f, 1, LL, 136, "fd76:7365::2")), VERDICT_IGNORE, "advertises itself");
	is_int(judge(f, frame_nd(f, 1, LL, 136, "fd76:7365::6")), VERDICT_SPOOF,
	       "advertises another's address");
	memcpy(f, mac_of(7), 6);
	is_int(judge(f, 86), VERDICT_SPOOF, "the same, unicast");
}

static size_t echo(uint8_t *f, const uint8_t *to, const char *src, unsigned next,
		   const void *payload, size_t n)
{
	return frame_ipv6(f, to, 1, ip6(src), ip6("fd76:7365::6"), next, payload, n);
}

static void test_ipv6(void)
{
	static const uint8_t ping[16] = {128}, mld[16] = {58, 0, 5, 2, [8] = 143};
	static const uint8_t hidden[40] = {58, 0, [8] = 136}, deep[8 * 12] = {[72] = 17};
	static const uint8_t long_option[8] = {58, 255}, loop[80] = {[0] = 60, [8] = 60, [16] = 60};
	const uint8_t *group = (const uint8_t *)"\x33\x33\0\0\0\x16";
	uint8_t f[256];
	is_int(judge(f, echo(f, mac_of(5), "fd76:7365::2", 58, ping, 16)), VERDICT_FORWARD, "ping");
	is_int(out.rank, 5, "its rank");
	is_int(judge(f, echo(f, mac_of(5), LL, 6, ping, 16)), VERDICT_FORWARD, "TCP from link-local");
	is_int(judge(f, 53), VERDICT_SPOOF, "header cut");
	is_int(judge(f, echo(f, mac_of(5), "fd76:7365::2", 59, ping, 0)), VERDICT_FORWARD, "no payload");
	is_int(judge(f, echo(f, mac_of(5), "fd76:7365::2", 58, ping, 7)), VERDICT_SPOOF, "ICMP cut");
	is_int(judge(f, echo(f, mac_of(5), "::", 58, ping, 16)), VERDICT_SPOOF, "unspecified source");
	is_int(judge(f, echo(f, mac_of(5), "fd76:7365::3", 6, ping, 16)), VERDICT_SPOOF,
	       "source of another");
	is_int(judge(f, echo(f, group, "fd76:7365::2", 17, ping, 16)), VERDICT_BROADCAST, "multicast");
	is_int(judge(f, echo(f, group, "::", 0, mld, 16)), VERDICT_IGNORE,
	       "group report behind hop-by-hop options");
	is_int(judge(f, echo(f, mac_of(5), LL, 60, hidden, 40)), VERDICT_SPOOF,
	       "advertisement behind options");
	is_int(judge(f, echo(f, mac_of(5), LL, 43, hidden, 40)), VERDICT_SPOOF,
	       "advertisement behind routing");
	is_int(judge(f, echo(f, mac_of(5), LL, 51, hidden, 40)), VERDICT_SPOOF,
	       "advertisement behind an authentication header");
	is_int(judge(f, echo(f, mac_of(5), LL, 44, hidden, 40)), VERDICT_FORWARD, "a fragment");
	is_int(judge(f, echo(f, mac_of(5), LL, 60, long_option, 8)), VERDICT_SPOOF,
	       "options past the end");
	is_int(judge(f, echo(f, mac_of(5), LL, 0, deep, sizeof(deep))), VERDICT_SPOOF,
	       "too many headers");
	is_int(judge(f, echo(f, mac_of(5), LL, 60, loop, sizeof(loop))), VERDICT_SPOOF, "a long chain");
}

static void test_ring(void)
{
	struct ring r = {0};
	struct iovec v[2];
	static uint8_t big[RING_SIZE];
	is_int(ring_iov(&r, v), 0, "empty");
	ok(ring_add(&r, big, RING_SIZE - 10) && !ring_add(&r, big, 11) && ring_add(&r, big, 10),
	   "full to the byte");
	is_int(ring_iov(&r, v), 1, "one piece");
	ring_consume(&r, RING_SIZE - 4);
	ok(ring_add(&r, "abcdefgh", 8), "wraps");
	is_int(ring_iov(&r, v), 2, "two pieces");
	ok(v[0].iov_len == 4 && v[1].iov_len == 8 && memcmp(v[1].iov_base, "abcdefgh", 8) == 0,
	   "in order");
	ring_consume(&r, 8);
	ok(ring_iov(&r, v) == 1 && memcmp(v[0].iov_base, "efgh", 4) == 0,
	   "consumed across the seam");
	ring_consume(&r, 4);
	ok(!r.data && !r.len, "no memory while empty");
	ok(ring_add(&r, "x", 1), "again");
	ring_finish(&r);
}

int main(void)
{
	test_subnet();
	test_rank_of();
	test_ipv4();
	test_other_types();
	test_arp();
	test_nd();
	test_ipv6();
	test_ring();
	return done();
}
