/* SPDX-License-Identifier: Apache-2.0 */
/* ARP and IPv6 neighbour discovery: what a VM asks is answered from the rank. Part of net/filter.h. */
#ifndef VSE_NET_NEIGHBOUR_H
#define VSE_NET_NEIGHBOUR_H

#include "net/filter.h"

/* The frame's type is ARP and its source MAC is the sender's own. */
enum verdict neighbour_arp(const struct members *all, const struct member *from,
			   const uint8_t *frame, size_t len, struct filtered *ret);

/* ICMPv6 types that do not leave the link and are never passed on: neighbour and router discovery,
 * redirects, multicast listener reports. */
bool neighbour_is_link_scope(uint8_t icmp_type);
/* An IPv6 frame with such a message at `icmp` (8 bytes of it are there); its source address is the
 * sender's own or unspecified. */
enum verdict neighbour_discovery(const struct members *all, const struct member *from,
				 const uint8_t *frame, size_t len, size_t icmp, struct filtered *ret);

#endif
