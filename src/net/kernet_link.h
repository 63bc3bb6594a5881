/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of net/kernet.h, by rtnetlink. `at`: a socket of the namespace where they are. */
#ifndef VSE_NET_KERNET_LINK_H
#define VSE_NET_KERNET_LINK_H

#include <linux/filter.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define KERNET_BRIDGE "vse"
#define KERNET_VXLAN "nodes"

/* Each of these two is fine where it is there already. */
int kernet_add_bridge(int at, uint32_t mtu, struct err *err);
/* outside: a socket of the namespace that the packets go through; netns: where the device shall be. */
int kernet_add_vxlan(int outside, int netns, uint32_t vni, uint16_t port, uint32_t mtu, struct err *err);
int kernet_remove(int at, int index, struct err *err);

struct kernet_port {
	int index, bridge; /* of the devices */
	uint32_t mtu;
	bool agent;  /* where broadcast and multicast goes; and it may send what it wants */
	bool locked; /* only from MACs that have it as their port */
	const struct sock_filter *filter; /* of `n` instructions; NULL: none */
	uint16_t n;
};
/* Makes a device a port of the bridge and switches it on; before that, nothing passes that the filter refuses. */
int kernet_add_port(int at, const struct kernet_port *p, struct err *err);

/* The bridge's static entry: this MAC is behind that port. The one before is replaced. */
int kernet_forward(int at, int port, const uint8_t mac[6], struct err *err);
int kernet_unforward(int at, int port, const uint8_t mac[6], struct err *err);
/* The same of the VXLAN, to a node. */
int kernet_tunnel(int at, int vxlan, const uint8_t mac[6], struct in_addr node, struct err *err);
int kernet_untunnel(int at, int vxlan, const uint8_t mac[6], struct err *err);

#endif
