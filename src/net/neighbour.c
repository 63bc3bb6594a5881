/* SPDX-License-Identifier: Apache-2.0 */
#include "net/neighbour.h"

#include <assert.h>
#include <string.h>

#include "net/bytes.h"

enum {
	ARP_LEN = 28,
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
	ETHERNET_MIN = 60, /* without checksum; emulated cards expect it */

	IPV6_HEADER = 40,
	LISTENER_QUERY = 130,
	LISTENER_DONE = 132,
	ROUTER_SOLICIT = 133,
	NEIGHBOUR_SOLICIT = 135,
	NEIGHBOUR_ADVERT = 136,
	REDIRECT = 137,
	LISTENER_REPORT_V2 = 143,
	SOLICIT_LEN = 24, /* type, code, checksum, reserved, target */
	ADVERT_LEN = 32,  /* the same and the option with the link-layer address */
	ADVERT_SOLICITED = 0x40,
	ADVERT_OVERRIDE = 0x20,
	OPTION_TARGET_MAC = 2,
};

static_assert(FRAME_HEADER + IPV6_HEADER + ADVERT_LEN == FRAME_ANSWER_MAX, "answer buffer");

/* Ethernet type, hardware Ethernet, protocol IPv4, lengths 6 and 4. */
static const uint8_t arp_head[8] = {0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4};

static void ethernet_header(uint8_t *out, const uint8_t *to, const uint8_t *from, uint16_t type)
{
	memcpy(out, to, 6);
	memcpy(out + 6, from, 6);
	put_be16(out + 12, type);
}

static void arp_answer(const struct members *all, const struct member *from, uint32_t rank,
		       uint32_t sender_ip, struct filtered *ret)
{
	uint8_t mac[6], *arp = ret->answer + FRAME_HEADER;
	address_mac(rank, mac);
	memset(ret->answer, 0, ETHERNET_MIN);
	ethernet_header(ret->answer, from->mac, mac, 0x0806);
	memcpy(arp, arp_head + 2, 6);
	put_be16(arp + 6, ARP_REPLY);
	memcpy(arp + 8, mac, 6);
	put_be32(arp + 14, address_ipv4(&all->subnet, rank));
	memcpy(arp + 18, from->mac, 6);
	put_be32(arp + 24, sender_ip);
	ret->answer_len = ETHERNET_MIN;
}

enum verdict neighbour_arp(const struct members *all, const struct member *from,
			   const uint8_t *frame, size_t len, struct filtered *ret)
{
	const uint8_t *arp = frame + FRAME_HEADER;
	uint32_t rank;
	if (len < FRAME_HEADER + ARP_LEN || memcmp(frame + 12, arp_head, sizeof(arp_head)) != 0)
		return VERDICT_SPOOF;
	uint16_t operation = get_be16(arp + 6);
	uint32_t sender = get_be32(arp + 14), target = get_be32(arp + 24);
	bool probe = operation == ARP_REQUEST && sender == 0; /* RFC 5227: is the address taken? */
	if (memcmp(arp + 8, from->mac, 6) != 0 || (sender != from->ipv4 && !probe))
		return VERDICT_SPOOF;
	/* Announcements and replies: what they say is known. A probe for the own address must stay
	 * unanswered, or the guest believes that another has it. */
	if (operation != ARP_REQUEST || target == from->ipv4)
		return VERDICT_IGNORE;
	if (!address_ipv4_rank(&all->subnet, target, all->size, &rank))
		return VERDICT_UNKNOWN;
	arp_answer(all, from, rank, sender, ret);
	return VERDICT_ANSWER;
}

static uint32_t sum16(uint32_t sum, const uint8_t *p, size_t n) /* n is even */
{
	for (size_t i = 0; i < n; i += 2)
		sum += get_be16(p + i);
	return sum;
}

/* RFC 4443 section 2.3: over the pseudo header (addresses, length, next header) and the message. */
static uint16_t icmpv6_checksum(const uint8_t *ip, const uint8_t *icmp, size_t n)
{
	uint32_t sum = sum16((uint32_t)n + IPPROTO_ICMPV6, ip + 8, 32);
	sum = sum16(sum, icmp, n);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* To the one who asked; to all nodes (ff02::1) where it has no address yet (RFC 4861, 7.2.4), which for
 * this port means itself: its address is taken by another. */
static void advert_answer(const struct member *from, const uint8_t *asker, const uint8_t *target,
			  uint32_t rank, struct filtered *ret)
{
	static const uint8_t all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
	static const struct in6_addr all_nodes = {.s6_addr = {0xff, 0x02, [15] = 1}};
	bool solicited = memcmp(asker, &in6addr_any, 16) != 0;
	uint8_t mac[6], *ip = ret->answer + FRAME_HEADER, *icmp = ip + IPV6_HEADER;
	address_mac(rank, mac);
	memset(ret->answer, 0, FRAME_ANSWER_MAX);
	ethernet_header(ret->answer, solicited ? from->mac : all_nodes_mac, mac, 0x86dd);
	ip[0] = 6 << 4;
	put_be16(ip + 4, ADVERT_LEN);
	ip[6] = IPPROTO_ICMPV6;
	ip[7] = 255;
	memcpy(ip + 8, target, 16);
	memcpy(ip + 24, solicited ? asker : all_nodes.s6_addr, 16);
	icmp[0] = NEIGHBOUR_ADVERT;
	icmp[4] = solicited ? ADVERT_SOLICITED | ADVERT_OVERRIDE : ADVERT_OVERRIDE;
	memcpy(icmp + 8, target, 16);
	icmp[24] = OPTION_TARGET_MAC;
	icmp[25] = 1; /* in units of 8 bytes */
	memcpy(icmp + 26, mac, 6);
	put_be16(icmp + 2, icmpv6_checksum(ip, icmp, ADVERT_LEN));
	ret->answer_len = FRAME_ANSWER_MAX;
}

static enum verdict solicitation(const struct members *all, const struct member *from,
				 const uint8_t *frame, size_t icmp, struct filtered *ret)
{
	const uint8_t *asker = frame + FRAME_HEADER + 8, *target = frame + icmp + 8;
	struct in6_addr a;
	uint32_t rank;
	memcpy(&a, target, sizeof(a));
	bool detection = memcmp(asker, &in6addr_any, 16) == 0;
	if (!address_ipv6_rank(&a, all->size, &rank))
		return detection ? VERDICT_IGNORE : VERDICT_UNKNOWN;
	if (rank == from->rank)
		return VERDICT_IGNORE;
	advert_answer(from, asker, target, rank, ret);
	return VERDICT_ANSWER;
}

bool neighbour_is_link_scope(uint8_t type)
{
	return (type >= LISTENER_QUERY && type <= REDIRECT) || type == LISTENER_REPORT_V2;
}

enum verdict neighbour_discovery(const struct members *all, const struct member *from,
				 const uint8_t *frame, size_t len, size_t icmp, struct filtered *ret)
{
	uint8_t type = frame[icmp];
	if (type == ROUTER_SOLICIT || type == LISTENER_REPORT_V2 ||
	    (type > LISTENER_QUERY && type <= LISTENER_DONE))
		return VERDICT_IGNORE;
	bool neighbour = type == NEIGHBOUR_SOLICIT || type == NEIGHBOUR_ADVERT;
	/* Hop limit 255 proves to the receiver that no router passed it on; extension headers have no business here. */
	if (!neighbour || icmp != FRAME_HEADER + IPV6_HEADER || len < icmp + SOLICIT_LEN ||
	    frame[FRAME_HEADER + 7] != 255 || frame[icmp + 1] != 0)
		return VERDICT_SPOOF;
	if (type == NEIGHBOUR_SOLICIT)
		return solicitation(all, from, frame, icmp, ret);
	struct in6_addr target;
	memcpy(&target, frame + icmp + 8, sizeof(target));
	uint32_t rank;
	bool others = address_ipv6_rank(&target, all->size, &rank) && rank != from->rank;
	return others ? VERDICT_SPOOF : VERDICT_IGNORE;
}
