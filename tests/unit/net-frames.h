/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the frames that VMs send, for the tests of the network. */
#ifndef VSE_TESTS_NET_FRAMES_H
#define VSE_TESTS_NET_FRAMES_H

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#include "net/address.h"

#define NET_SIZE 1200u /* ranks of the test network, 10.199.0.0/16 */
#define NET_BASE 0x0ac70000u

static const uint8_t mac_broadcast[6] = {255, 255, 255, 255, 255, 255};

__attribute__((unused)) static const uint8_t *mac_of(uint32_t rank)
{
	static uint8_t mac[4][6];
	static unsigned i;
	i = (i + 1) % 4;
	address_mac(rank, mac[i]);
	return mac[i];
}

__attribute__((unused)) static struct in6_addr ip6(const char *text)
{
	struct in6_addr a = IN6ADDR_ANY_INIT;
	inet_pton(AF_INET6, text, &a);
	return a;
}

static void frame_head(uint8_t *f, const uint8_t *to, const uint8_t *from, unsigned type)
{
	memcpy(f, to, 6);
	memcpy(f + 6, from, 6);
	f[12] = (uint8_t)(type >> 8);
	f[13] = (uint8_t)type;
}

static void put_ip(uint8_t *p, uint32_t ip)
{
	ip = htonl(ip);
	memcpy(p, &ip, 4);
}

/* A UDP packet's shell: header and payload bytes that count up from `seed`. */
__attribute__((unused)) static size_t frame_ipv4(uint8_t *f, const uint8_t *to, uint32_t from,
						 uint32_t from_ip, size_t len, unsigned seed)
{
	frame_head(f, to, mac_of(from), 0x0800);
	for (size_t i = 14; i < len; i++)
		f[i] = (uint8_t)(seed + i);
	f[14] = 0x45;
	f[23] = 17;
	put_ip(f + 26, from_ip);
	put_ip(f + 30, NET_BASE + 1);
	return len;
}

__attribute__((unused)) static size_t frame_arp(uint8_t *f, const uint8_t *to, uint32_t from,
						unsigned op, uint32_t sender, uint32_t target)
{
	static const uint8_t head[6] = {0, 1, 8, 0, 6, 4};
	memset(f, 0, 42);
	frame_head(f, to, mac_of(from), 0x0806);
	memcpy(f + 14, head, 6);
	f[21] = (uint8_t)op;
	memcpy(f + 22, mac_of(from), 6);
	put_ip(f + 28, sender);
	put_ip(f + 38, target);
	return 42;
}

/* `n` bytes of payload with protocol `next`; hop limit 255. */
__attribute__((unused)) static size_t frame_ipv6(uint8_t *f, const uint8_t *to, uint32_t from,
						 struct in6_addr src, struct in6_addr dst,
						 unsigned next, const void *payload, size_t n)
{
	memset(f, 0, 54);
	frame_head(f, to, mac_of(from), 0x86dd);
	f[14] = 0x60;
	f[18] = (uint8_t)(n >> 8);
	f[19] = (uint8_t)n;
	f[20] = (uint8_t)next;
	f[21] = 255;
	memcpy(f + 22, &src, 16);
	memcpy(f + 38, &dst, 16);
	memcpy(f + 54, payload, n);
	return 54 + n;
}

/* Neighbour solicitation (135), advertisement (136) and their like: type and target. */
__attribute__((unused)) static size_t frame_nd(uint8_t *f, uint32_t from, const char *src,
					       unsigned type, const char *target)
{
	uint8_t msg[32] = {(uint8_t)type, [24] = 1, [25] = 1};
	struct in6_addr t = ip6(target);
	memcpy(msg + 8, &t, 16);
	memcpy(msg + 26, mac_of(from), 6);
	uint8_t group[6] = {0x33, 0x33, 0xff, t.s6_addr[13], t.s6_addr[14], t.s6_addr[15]};
	return frame_ipv6(f, group, from, ip6(src), ip6("ff02::1:ff00:1"), 58, msg, sizeof(msg));
}

#endif
