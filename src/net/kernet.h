/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual network by the node's kernel instead of by net/switch.h, where we are root: each VM has a tap, the taps of
 * a cluster are ports of a bridge, and the bridges of the nodes are joined by VXLAN (RFC 7348). Guests see no difference:
 * addresses come from the rank, and the agent answers ARP and neighbour discovery as the switch does (net/filter.h), by a
 * tap of its own that is the only port where broadcast goes.
 *
 * All of it lies in a network namespace that the cluster has for itself, so nothing of the node is named, changed or in
 * the way: of the node's own network it has the VXLAN's UDP port alone. The namespace has no name either. It lives as
 * long as this object or a VMM that has a tap of it; the kernel removes it with the last of them, however that ended.
 * An agent that follows one that has died finds it again by a tap of a VM that runs on.
 *
 * Who may say what: a classic BPF filter on each port (kernet_plan.h) lets a VM speak as itself only; the bridge learns
 * nothing and floods nothing. What comes by VXLAN must be of a rank that is placed on another node, by MAC (where the
 * kernel has locked ports, Linux 5.16), and all its addresses of one rank. But VXLAN neither encrypts nor authenticates:
 * whoever can send UDP to the node can forge frames of VMs of other nodes, and whoever is on the way can read them.
 *
 * Needs CAP_NET_ADMIN and CAP_SYS_ADMIN, /dev/net/tun, and of the kernel bridge, vxlan, sch_ingress and cls_bpf.
 * Calls into the kernel are short, and made at once. */
#ifndef VSE_NET_KERNET_H
#define VSE_NET_KERNET_H

#include <netinet/in.h>
#include <sys/types.h>

#include "io/loop.h"
#include "net/address.h"

#define KERNET_PORT 4789 /* UDP; IANA's for VXLAN */

struct kernet;

struct kernet_stats {
	uint64_t answered; /* ARP, neighbour discovery */
	uint64_t ignored;  /* of what came to the agent: needs no answer, or gets none */
};

struct kernet_config {
	struct subnet subnet;
	uint32_t size; /* ranks 0..size-1 exist */
	uint32_t mtu;  /* bytes, of the VMs' eth0 */
	pid_t vmm; /* one that has a tap of the network that is to be gone on with; 0: a new one */
};

/* EPERM, ENOENT...: err says what this node lacks. */
int kernet_create(struct loop *l, const struct kernet_config *c, struct kernet **ret, struct err *err);
/* Removes the bridge and the VXLAN; a tap goes with its VMM. NULL is fine. */
void kernet_destroy(struct kernet *k);
/* A new tap for a rank, for a VMM (IFF_VNET_HDR); the caller's. Frames for the rank go there from now on, but where it is
 * placed on another node: from when it is placed here. */
int kernet_tap(struct kernet *k, uint32_t rank, int *ret_fd, struct err *err);

/* Joins other nodes. cluster: the text of its id, the same on all. Before kernet_place(). EEXIST, EADDRINUSE: another has
 * that VXLAN on this node. */
int kernet_join(struct kernet *k, const char *cluster, struct err *err);
/* A rank is on the node with that address from now on; INADDR_ANY: here, or nowhere. */
int kernet_place(struct kernet *k, uint32_t rank, struct in_addr node, struct err *err);

void kernet_stats(const struct kernet *k, struct kernet_stats *ret);

/* Whether this node can: makes one with a tap and a VXLAN, and removes it. Nobody notices. */
int kernet_probe(struct err *err);

#endif
