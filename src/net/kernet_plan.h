/* SPDX-License-Identifier: Apache-2.0 */
/* The network by the node's kernel (net/kernet.h), the part that is pure: numbers, names, the filter of a port. */
#ifndef VSE_NET_KERNET_PLAN_H
#define VSE_NET_KERNET_PLAN_H

#include <linux/filter.h>
#include <stddef.h>

#include "net/address.h"

#define KERNET_ANY_RANK UINT32_MAX
#define KERNET_FILTER_MAX 128 /* instructions */

/* The identifier of a cluster's VXLAN (24 bits, never 0), of the text of its id: the same on every node. */
uint32_t kernet_vni(const char *cluster);

/* Classic BPF over a frame that comes in at a port, from its first byte: what it gives is not 0 for a frame that may
 * pass, and 0, as for one that is too short to tell, for one that may not. The rules are those of net/filter.h: source
 * MAC, ARP sender, IPv4 and IPv6 source are the addresses of one rank, `rank` (or, KERNET_ANY_RANK, of whichever the MAC
 * says); no VLAN tags; of multicast and broadcast only ARP and neighbour solicitation, which the agent answers; no router's
 * messages; neighbour advertisements of the own addresses only. One rule is harder: IPv6 with extension headers but
 * that of a fragment does not pass, for a filter without loops cannot follow them. Gives how many instructions. */
size_t kernet_filter(const struct subnet *s, uint32_t rank, struct sock_filter out[KERNET_FILTER_MAX]);

#endif
