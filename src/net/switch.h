/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual network's switch, in the agent, without root. A port is a byte stream of Ethernet frames, each
 * behind a 4-byte big-endian length: what QEMU's `-netdev stream` and `-netdev socket` speak. Frames go by
 * destination MAC = rank; ARP and IPv6 neighbour discovery for members are answered here; nothing floods:
 * other broadcast and multicast is dropped and counted. A port may only send from its own addresses (no
 * spoofing; net/filter.h has the rules). A port whose queue is full loses frames (as a real switch does),
 * counted; TCP recovers. A length outside 14..65550 closes the port.
 *
 * Memory: about 350 KB of buffers for the switch, 0.5 KB for an idle port; a port in the middle of a frame
 * has 64 KB more, one whose VM does not read up to 1 MiB (RING_SIZE) more. */
#ifndef VSE_NET_SWITCH_H
#define VSE_NET_SWITCH_H

#include "io/loop.h"
#include "net/address.h"

struct members; /* net/filter.h */
struct netswitch;

struct netswitch_stats {
	uint64_t frames, bytes; /* forwarded; bytes without the length words */
	uint64_t answered;      /* ARP, neighbour discovery */
	uint64_t ignored; /* needs no answer: gratuitous ARP, router solicitation, group reports... */
	uint64_t dropped_full;      /* the receiver did not keep up */
	uint64_t dropped_spoof;     /* not from the port's own addresses, or malformed */
	uint64_t dropped_unknown;   /* no such VM, or it has no port now */
	uint64_t dropped_broadcast; /* broadcast and multicast */
	uint64_t bad;               /* ports closed for a wrong length */
};

/* size: ranks 0..size-1 are members, at most ADDRESS_RANKS_MAX. */
struct netswitch *netswitch_create(struct loop *l, const struct subnet *s, uint32_t size);
void netswitch_destroy(struct netswitch *n); /* closes every port; NULL is fine */
/* fd: a stream socket; taken, also where this fails; made non-blocking. A rank that had a
 * port gets the new one. ERANGE: no such rank. */
int netswitch_attach(struct netswitch *n, uint32_t rank, int fd, struct err *err);
void netswitch_detach(struct netswitch *n, uint32_t rank); /* absent is fine */
/* False also after the peer closed or sent nonsense. */
bool netswitch_attached(const struct netswitch *n, uint32_t rank);
/* Where a frame for a rank without a local port goes (the tunnel of other nodes); frame without length
 * word, borrowed. May be NULL. `send` must not call the switch. */
void netswitch_set_uplink(struct netswitch *n,
			  void (*send)(void *arg, uint32_t rank, const void *frame, size_t len),
			  void *arg);
/* Delivers a frame that came by the uplink to the local port. The switch that it entered has checked it. */
void netswitch_inject(struct netswitch *n, uint32_t rank, const void *frame, size_t len);
/* The same for many, uncopied: wire is a frame's length word, the frame's `len` bytes (14..65550) behind it; it stays
 * where it is until netswitch_flush(), before which nothing else of the switch is called. */
void netswitch_inject_wire(struct netswitch *n, uint32_t rank, const uint8_t *wire, size_t len);
void netswitch_flush(struct netswitch *n);
const struct members *netswitch_members(const struct netswitch *n); /* borrowed */
void netswitch_stats(const struct netswitch *n, struct netswitch_stats *ret);

#endif
