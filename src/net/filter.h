/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a frame that a VM sent. A pure function of the frame and of who sent it: no state, no
 * I/O, so that every rule is a line in a test and a fuzzer reaches all of it.
 *
 * A VM speaks only as itself: source MAC, ARP sender, IPv4 source and IPv6 source are its own computed
 * addresses. ARP and IPv6 neighbour discovery never pass from VM to VM: what is asked is answered here
 * from the rank, so no VM can put a wrong address into another's neighbour table. Nothing is flooded.
 * Formats: RFC 826 and 5227 (ARP, probes), RFC 4861 and 4862 (neighbour discovery, duplicate address
 * detection), RFC 8200 (IPv6 extension headers). */
#ifndef VSE_NET_FILTER_H
#define VSE_NET_FILTER_H

#include <stddef.h>

#include "net/address.h"

enum {
	FRAME_HEADER = 14,     /* destination, source, type */
	FRAME_MAX = 65550,     /* MTU 65535 and the header, and one byte to spare */
	FRAME_ANSWER_MAX = 86, /* the longest answer: a neighbour advertisement */
};

struct member {
	uint32_t rank;
	uint8_t mac[6];
	uint32_t ipv4; /* host byte order */
	struct in6_addr ipv6, link_local;
};

struct members {
	struct subnet subnet;
	uint32_t size; /* ranks 0..size-1 exist */
};

void member_init(struct member *m, const struct members *all, uint32_t rank);

enum verdict {
	VERDICT_FORWARD, /* to `rank` */
	VERDICT_ANSWER,  /* `answer` goes back to the sender */
	VERDICT_IGNORE, /* chatter of a healthy guest that nobody needs: announcements and probes of its own
			    * address, router solicitation, multicast group reports */
	VERDICT_SPOOF, /* not the sender's own address, or malformed so that it cannot be told, or a frame
			    * that only a router or a VLAN bridge may send */
	VERDICT_UNKNOWN,   /* nobody has the destination (or the sender itself has it) */
	VERDICT_BROADCAST, /* broadcast or multicast */
};

struct filtered {
	uint32_t rank;
	size_t answer_len;
	uint8_t answer[FRAME_ANSWER_MAX];
};

/* len >= FRAME_HEADER. Of `ret` only what the verdict names is written. */
enum verdict filter_frame(const struct members *all, const struct member *from,
			  const uint8_t *frame, size_t len, struct filtered *ret);

#endif
