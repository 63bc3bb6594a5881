/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual network's switch, in the agent, without root. A port is a byte stream of Ethernet frames, each
 * behind a 4-byte big-endian length: what QEMU's `-netdev stream` and `-netdev socket` speak. Frames go by
 * destination MAC = rank; ARP and IPv6 neighbour discovery for members are answered here; nothing floods:
 * other broadcast and multicast is dropped and counted. A port may only send from its own MAC (no
 * spoofing). A port whose queue is full loses frames (as a real switch does), counted; TCP recovers. */
#ifndef VSE_NET_SWITCH_H
#define VSE_NET_SWITCH_H

#include "io/loop.h"
#include "net/address.h"

struct netswitch;

struct netswitch_stats {
	uint64_t frames, bytes;      /* forwarded */
	uint64_t answered;           /* ARP, neighbour discovery */
	uint64_t dropped_full, dropped_spoof, dropped_unknown, dropped_broadcast, bad;
};

struct netswitch *netswitch_create(struct loop *l, const struct subnet *s, uint32_t size);
void netswitch_destroy(struct netswitch *n); /* closes every port; NULL is fine */
/* fd: taken. A rank that had a port gets the new one. */
int netswitch_attach(struct netswitch *n, uint32_t rank, int fd, struct err *err);
void netswitch_detach(struct netswitch *n, uint32_t rank); /* absent is fine */
/* Where a frame for a rank without a local port goes (the tunnel of other nodes); frame without length
 * word, borrowed. May be NULL. */
void netswitch_set_uplink(struct netswitch *n, void (*send)(void *arg, uint32_t rank, const void *frame, size_t len),
			  void *arg);
/* Delivers a frame that came by the uplink to the local port. */
void netswitch_inject(struct netswitch *n, uint32_t rank, const void *frame, size_t len);
void netswitch_stats(const struct netswitch *n, struct netswitch_stats *ret);

#endif
