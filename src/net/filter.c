/* SPDX-License-Identifier: Apache-2.0 */
#include "net/filter.h"

#include <string.h>

#include "net/bytes.h"
#include "net/neighbour.h"

enum {
	TYPE_IPV4 = 0x0800,
	TYPE_ARP = 0x0806,
	TYPE_IPV6 = 0x86dd,
	TYPE_VLAN = 0x8100,
	TYPE_QINQ = 0x88a8,
	IPV4_HEADER = 20,
	IPV6_HEADER = 40,
	PROTO_HOP_BY_HOP = 0,
	PROTO_IGMP = 2,
	PROTO_ROUTING = 43,
	PROTO_AUTH = 51,
	PROTO_ICMPV6 = 58,
	PROTO_DEST_OPTIONS = 60,
	EXTENSIONS_MAX = 8,
};

void member_init(struct member *m, const struct members *all, uint32_t rank)
{
	m->rank = rank;
	address_mac(rank, m->mac);
	m->ipv4 = address_ipv4(&all->subnet, rank);
	address_ipv6(rank, &m->ipv6);
	address_link_local(rank, &m->link_local);
}

static bool is_multicast(const uint8_t *frame)
{
	return frame[0] & 1;
}

static enum verdict by_destination(const struct members *all, const struct member *from,
				   const uint8_t *frame, struct filtered *ret)
{
	uint32_t rank;
	if (is_multicast(frame))
		return VERDICT_BROADCAST;
	if (!address_mac_rank(frame, &rank) || rank >= all->size || rank == from->rank)
		return VERDICT_UNKNOWN;
	ret->rank = rank;
	return VERDICT_FORWARD;
}

static enum verdict filter_ipv4(const struct members *all, const struct member *from,
				const uint8_t *frame, size_t len, struct filtered *ret)
{
	const uint8_t *ip = frame + FRAME_HEADER;
	if (len < FRAME_HEADER + IPV4_HEADER || get_be32(ip + 12) != from->ipv4)
		return VERDICT_SPOOF;
	if (is_multicast(frame) && ip[9] == PROTO_IGMP)
		return VERDICT_IGNORE;
	return by_destination(all, from, frame, ret);
}

/* Finds ICMPv6 behind extension headers, for a neighbour advertisement must not get by in one (RFC 7113).
 * False: the chain cannot be followed. Offset 0: there is none; a fragment counts as none, for no kernel
 * takes neighbour discovery from fragments (RFC 6980). */
static bool find_icmpv6(const uint8_t *frame, size_t len, size_t *ret_offset)
{
	uint8_t next = frame[FRAME_HEADER + 6];
	size_t at = FRAME_HEADER + IPV6_HEADER;
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		bool options = next == PROTO_HOP_BY_HOP || next == PROTO_ROUTING ||
			       next == PROTO_DEST_OPTIONS;
		if (next != PROTO_ICMPV6 && !options && next != PROTO_AUTH) {
			*ret_offset = 0;
			return true;
		}
		if (len < at + 8) /* also the shortest ICMPv6 message there is */
			return false;
		if (next == PROTO_ICMPV6) {
			*ret_offset = at;
			return true;
		}
		next = frame[at];
		at += options ? (frame[at + 1] + 1u) * 8 : (frame[at + 1] + 2u) * 4;
	}
	return false;
}

static enum verdict filter_ipv6(const struct members *all, const struct member *from,
				const uint8_t *frame, size_t len, struct filtered *ret)
{
	size_t icmp;
	if (len < FRAME_HEADER + IPV6_HEADER)
		return VERDICT_SPOOF;
	const uint8_t *source = frame + FRAME_HEADER + 8;
	bool own = memcmp(source, &from->ipv6, 16) == 0 || memcmp(source, &from->link_local, 16) == 0;
	bool unspecified = memcmp(source, &in6addr_any, 16) == 0;
	if ((!own && !unspecified) || !find_icmpv6(frame, len, &icmp))
		return VERDICT_SPOOF;
	if (icmp && neighbour_is_link_scope(frame[icmp]))
		return neighbour_discovery(all, from, frame, len, icmp, ret);
	if (unspecified)
		return VERDICT_SPOOF;
	return by_destination(all, from, frame, ret);
}

enum verdict filter_frame(const struct members *all, const struct member *from,
			  const uint8_t *frame, size_t len, struct filtered *ret)
{
	if (memcmp(frame + 6, from->mac, 6) != 0)
		return VERDICT_SPOOF;
	switch (get_be16(frame + 12)) {
	case TYPE_IPV4: return filter_ipv4(all, from, frame, len, ret);
	case TYPE_IPV6: return filter_ipv6(all, from, frame, len, ret);
	case TYPE_ARP: return neighbour_arp(all, from, frame, len, ret);
	case TYPE_VLAN: /* a tag with VLAN 0 would carry any of the above past its check */
	case TYPE_QINQ: return VERDICT_SPOOF;
	default: return by_destination(all, from, frame, ret);
	}
}
