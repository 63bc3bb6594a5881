/* SPDX-License-Identifier: Apache-2.0 */
/* Every address of the virtual network is computed from a VM's rank, so a frame's destination is an
 * array look-up and nothing needs DHCP.
 *   MAC   52:54:00 (QEMU's OUI, locally administered bit set) + rank as 24 bits
 *   IPv4  the subnet's base + rank + 1 (rank 0 of 10.199.0.0/16 is 10.199.0.1)
 *   IPv6  fd76:7365::/64 (unique local, RFC 4193) + rank + 1, and the link-local address that a guest
 *         derives from its MAC (modified EUI-64, RFC 4291 appendix A): fe80::5054:ff:feXX:XXXX
 *   name  vm<rank> */
#ifndef VSE_NET_ADDRESS_H
#define VSE_NET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define ADDRESS_RANKS_MAX (1u << 24) /* what the MAC holds */

struct subnet {
	uint32_t base; /* host byte order */
	unsigned bits; /* prefix length, 8..29 */
};

/* "10.199.0.0/16". EINVAL: malformed, bits of the host part set, or not usable as unicast addresses
 * (0/8, 127/8, 224/4 and up); ERANGE where it cannot hold `size` VMs. */
int subnet_parse(const char *text, uint32_t size, struct subnet *ret, struct err *err);
void address_mac(uint32_t rank, uint8_t ret[6]);
bool address_mac_rank(const uint8_t mac[6], uint32_t *ret);   /* false: not one of ours */
uint32_t address_ipv4(const struct subnet *s, uint32_t rank); /* host byte order */
bool address_ipv4_rank(const struct subnet *s, uint32_t ip, uint32_t size, uint32_t *ret);
void address_ipv4_text(uint32_t ip, char out[16]);
void address_ipv6(uint32_t rank, struct in6_addr *ret);
void address_link_local(uint32_t rank, struct in6_addr *ret);
bool address_ipv6_rank(const struct in6_addr *a, uint32_t size, uint32_t *ret); /* of either kind */

#endif
