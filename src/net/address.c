/* SPDX-License-Identifier: Apache-2.0 */
#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "net/bytes.h"

static const uint8_t mac_prefix[3] = {0x52, 0x54, 0x00};
static const uint8_t ula_prefix[12] = {0xfd, 0x76, 0x73, 0x65};
/* The universal/local bit of the first byte is turned over and ff:fe stands in the middle. */
static const uint8_t link_local_prefix[13] = {0xfe, 0x80, 0,    0,    0,    0,   0,
					      0,    0x50, 0x54, 0x00, 0xff, 0xfe};

static int bad_subnet(const char *text, struct err *err)
{
	return err_set(err, EINVAL,
		       "'%.40s' is not a subnet: <IPv4 address>/<8..29>, such as 10.199.0.0/16", text);
}

static bool usable_unicast(uint32_t base)
{
	uint32_t net = base >> 24;
	return net != 0 && net != 127 && net < 224;
}

int subnet_parse(const char *text, uint32_t size, struct subnet *ret, struct err *err)
{
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : 0;
	char host[16];
	struct in_addr a;
	if (!n || n >= sizeof(host))
		return bad_subnet(text, err);
	memcpy(host, text, n);
	host[n] = '\0';
	const char *d = slash + 1;
	size_t digits = strspn(d, "0123456789");
	if (inet_pton(AF_INET, host, &a) != 1 || !digits || digits > 2 || d[digits] || d[0] == '0')
		return bad_subnet(text, err);
	struct subnet s = {.base = ntohl(a.s_addr), .bits = (unsigned)(d[0] - '0')};
	if (digits == 2)
		s.bits = s.bits * 10 + (unsigned)(d[1] - '0');
	if (s.bits < 8 || s.bits > 29)
		return bad_subnet(text, err);
	uint32_t host_mask = (1u << (32 - s.bits)) - 1;
	if (s.base & host_mask) {
		char net[16];
		address_ipv4_text(s.base & ~host_mask, net);
		return err_set(err, EINVAL, "subnet %s: bits behind the prefix are set, %s/%u is meant?",
			       text, net, s.bits);
	}
	if (!usable_unicast(s.base))
		return err_set(err, EINVAL, "subnet %s: not a range for machines", text);
	/* The first address names the net, the last is its broadcast address. */
	if (size > host_mask - 1)
		return err_set(err, ERANGE, "subnet %s holds %u VMs, the cluster has %u", text,
			       host_mask - 1, size);
	*ret = s;
	return 0;
}

static void put_rank24(uint8_t *p, uint32_t rank)
{
	p[0] = (uint8_t)(rank >> 16);
	p[1] = (uint8_t)(rank >> 8);
	p[2] = (uint8_t)rank;
}

static uint32_t get_rank24(const uint8_t *p)
{
	return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

void address_mac(uint32_t rank, uint8_t ret[6])
{
	memcpy(ret, mac_prefix, sizeof(mac_prefix));
	put_rank24(ret + 3, rank);
}

bool address_mac_rank(const uint8_t mac[6], uint32_t *ret)
{
	if (memcmp(mac, mac_prefix, sizeof(mac_prefix)) != 0)
		return false;
	*ret = get_rank24(mac + 3);
	return true;
}

uint32_t address_ipv4(const struct subnet *s, uint32_t rank)
{
	return s->base + rank + 1;
}

bool address_ipv4_rank(const struct subnet *s, uint32_t ip, uint32_t size, uint32_t *ret)
{
	uint32_t rank = ip - s->base - 1; /* below the first address it wraps to a huge number */
	if (rank >= size)
		return false;
	*ret = rank;
	return true;
}

void address_ipv4_text(uint32_t ip, char out[16])
{
	snprintf(out, 16, "%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

void address_ipv6(uint32_t rank, struct in6_addr *ret)
{
	memcpy(ret->s6_addr, ula_prefix, sizeof(ula_prefix));
	put_be32(ret->s6_addr + 12, rank + 1);
}

void address_link_local(uint32_t rank, struct in6_addr *ret)
{
	memcpy(ret->s6_addr, link_local_prefix, sizeof(link_local_prefix));
	put_rank24(ret->s6_addr + 13, rank);
}

bool address_ipv6_rank(const struct in6_addr *a, uint32_t size, uint32_t *ret)
{
	uint32_t rank;
	if (memcmp(a->s6_addr, ula_prefix, sizeof(ula_prefix)) == 0)
		rank = get_be32(a->s6_addr + 12) - 1;
	else if (memcmp(a->s6_addr, link_local_prefix, sizeof(link_local_prefix)) == 0)
		rank = get_rank24(a->s6_addr + 13);
	else
		return false;
	if (rank >= size)
		return false;
	*ret = rank;
	return true;
}
