/* SPDX-License-Identifier: Apache-2.0 */
#include "net/kernet_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>

#include <linux/if_bridge.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>

#include "net/rtnetlink.h"

/* Not in the headers of kernels before 5.16; the kernel passes over what it does not know. */
#define PORT_LOCKED 39 /* IFLA_BRPORT_LOCKED */
#define LATE (NLM_F_CREATE | NLM_F_EXCL)

static int fine_if_there(int rc, struct err *err)
{
	if (rc == 0 || !err || err->code != EEXIST)
		return rc;
	*err = (struct err)ERR_INIT;
	return 0;
}

int kernet_add_bridge(int at, uint32_t mtu, struct err *err)
{
	struct rtrequest r;
	const struct ifinfomsg info = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	struct err why = ERR_INIT;
	rtrequest_init(&r, RTM_NEWLINK, LATE, &info, sizeof(info));
	rtrequest_add_text(&r, IFLA_IFNAME, KERNET_BRIDGE);
	rtrequest_add_u32(&r, IFLA_MTU, mtu);
	struct rtattr *link = rtrequest_nest(&r, IFLA_LINKINFO);
	rtrequest_add_text(&r, IFLA_INFO_KIND, "bridge");
	struct rtattr *data = rtrequest_nest(&r, IFLA_INFO_DATA);
	rtrequest_add_u8(&r, IFLA_BR_MCAST_SNOOPING, 0); /* else group messages are kept from the agent */
	rtrequest_end(&r, data);
	rtrequest_end(&r, link);
	int rc = rtnetlink_ask(at, &r, "a bridge (is the kernel module bridge there?)", &why);
	rc = fine_if_there(rc, &why);
	return rc < 0 ? err_copy(err, &why) : 0;
}

int kernet_add_vxlan(int outside, int netns, uint32_t vni, uint16_t port, uint32_t mtu, struct err *err)
{
	struct rtrequest r;
	const struct ifinfomsg info = {0};
	const uint16_t wire = htons(port);
	rtrequest_init(&r, RTM_NEWLINK, LATE, &info, sizeof(info));
	rtrequest_add_text(&r, IFLA_IFNAME, KERNET_VXLAN);
	rtrequest_add_u32(&r, IFLA_MTU, mtu);
	/* Made there at once: it is never among the node's own devices. */
	rtrequest_add_u32(&r, IFLA_NET_NS_FD, (uint32_t)netns);
	struct rtattr *link = rtrequest_nest(&r, IFLA_LINKINFO);
	rtrequest_add_text(&r, IFLA_INFO_KIND, "vxlan");
	struct rtattr *data = rtrequest_nest(&r, IFLA_INFO_DATA);
	rtrequest_add_u32(&r, IFLA_VXLAN_ID, vni);
	rtrequest_add_u8(&r, IFLA_VXLAN_LEARNING, 0);
	rtrequest_add(&r, IFLA_VXLAN_PORT, &wire, sizeof(wire));
	rtrequest_end(&r, data);
	rtrequest_end(&r, link);
	return rtnetlink_ask(outside, &r, "a VXLAN (is the kernel module vxlan there?)", err);
}

int kernet_remove(int at, int index, struct err *err)
{
	struct rtrequest r;
	const struct ifinfomsg info = {.ifi_index = index};
	rtrequest_init(&r, RTM_DELLINK, 0, &info, sizeof(info));
	struct err why = ERR_INIT;
	int rc = rtnetlink_ask(at, &r, "remove a device", &why);
	return rc < 0 && why.code != ENODEV ? err_copy(err, &why) : 0;
}

/* ---- ports ---- */

static int enslave(int at, const struct kernet_port *p, struct err *err)
{
	struct rtrequest r;
	const struct ifinfomsg info = {.ifi_index = p->index};
	rtrequest_init(&r, RTM_NEWLINK, 0, &info, sizeof(info));
	rtrequest_add_u32(&r, IFLA_MTU, p->mtu);
	rtrequest_add_u32(&r, IFLA_MASTER, (uint32_t)p->bridge);
	return rtnetlink_ask(at, &r, "a port of the bridge", err);
}

static int set_port(int at, const struct kernet_port *p, struct err *err)
{
	struct rtrequest r;
	const struct ifinfomsg info = {.ifi_family = AF_BRIDGE, .ifi_index = p->index};
	rtrequest_init(&r, RTM_SETLINK, 0, &info, sizeof(info));
	struct rtattr *port = rtrequest_nest(&r, IFLA_PROTINFO | NLA_F_NESTED);
	rtrequest_add_u8(&r, IFLA_BRPORT_LEARNING, 0);
	rtrequest_add_u8(&r, IFLA_BRPORT_UNICAST_FLOOD, 0);
	rtrequest_add_u8(&r, IFLA_BRPORT_MCAST_FLOOD, p->agent);
	rtrequest_add_u8(&r, IFLA_BRPORT_BCAST_FLOOD, p->agent);
	rtrequest_add_u8(&r, IFLA_BRPORT_GUARD, 1); /* no spanning tree of a guest */
	rtrequest_add_u8(&r, PORT_LOCKED, p->locked);
	rtrequest_end(&r, port);
	return rtnetlink_ask(at, &r, "the flags of a port of the bridge", err);
}

static int add_ingress(int at, int index, struct err *err)
{
	struct rtrequest r;
	const struct tcmsg tc = {.tcm_family = AF_UNSPEC,
				 .tcm_ifindex = index,
				 .tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0),
				 .tcm_parent = TC_H_CLSACT};
	struct err why = ERR_INIT;
	rtrequest_init(&r, RTM_NEWQDISC, LATE, &tc, sizeof(tc));
	rtrequest_add_text(&r, TCA_KIND, "clsact");
	int rc = rtnetlink_ask(at, &r, "a filter's place (is the kernel module sch_ingress there?)",
			       &why);
	rc = fine_if_there(rc, &why); /* a VXLAN that was there */
	return rc < 0 ? err_copy(err, &why) : 0;
}

/* verdict: what the program gives is TC_ACT_..., instead of "mine" or 0 for "ask the next". */
static int add_filter(int at, int index, unsigned priority, bool verdict,
		      const struct sock_filter *f, uint16_t n, struct err *err)
{
	struct rtrequest r;
	const struct tcmsg tc = {.tcm_family = AF_UNSPEC,
				 .tcm_ifindex = index,
				 .tcm_handle = 1,
				 .tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
				 .tcm_info = TC_H_MAKE(priority << 16, htons(ETH_P_ALL))};
	rtrequest_init(&r, RTM_NEWTFILTER, NLM_F_CREATE, &tc, sizeof(tc));
	rtrequest_add_text(&r, TCA_KIND, "bpf");
	struct rtattr *options = rtrequest_nest(&r, TCA_OPTIONS);
	rtrequest_add(&r, TCA_BPF_OPS_LEN, &n, sizeof(n));
	rtrequest_add(&r, TCA_BPF_OPS, f, n * sizeof(*f));
	if (verdict)
		rtrequest_add_u32(&r, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
	else
		rtrequest_add_u32(&r, TCA_BPF_CLASSID, 1);
	rtrequest_end(&r, options);
	return rtnetlink_ask(at, &r, "a filter (is the kernel module cls_bpf there?)", err);
}

/* A frame that the first does not call its own, or that is too short for it, comes to the second, which drops it. */
static int add_filters(int at, const struct kernet_port *p, struct err *err)
{
	static const struct sock_filter drop = {.code = BPF_RET | BPF_K, .k = TC_ACT_SHOT};
	if (add_ingress(at, p->index, err) < 0 || add_filter(at, p->index, 2, true, &drop, 1, err) < 0)
		return -1;
	return add_filter(at, p->index, 1, false, p->filter, p->n, err);
}

static int switch_on(int at, int index, struct err *err)
{
	struct rtrequest r;
	const struct ifinfomsg info = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	rtrequest_init(&r, RTM_NEWLINK, 0, &info, sizeof(info));
	return rtnetlink_ask(at, &r, "switch a port on", err);
}

int kernet_add_port(int at, const struct kernet_port *p, struct err *err)
{
	if ((p->filter && add_filters(at, p, err) < 0) || enslave(at, p, err) < 0)
		return -1;
	return set_port(at, p, err) < 0 ? -1 : switch_on(at, p->index, err);
}

/* ---- forwarding ---- */

static void entry(struct rtrequest *r, uint16_t type, int port, bool vxlan, const uint8_t mac[6])
{
	const struct ndmsg n = {.ndm_family = AF_BRIDGE,
				.ndm_ifindex = port,
				.ndm_state = vxlan ? NUD_NOARP | NUD_PERMANENT : NUD_NOARP,
				.ndm_flags = vxlan ? NTF_SELF : NTF_MASTER};
	rtrequest_init(r, type, type == RTM_NEWNEIGH ? NLM_F_CREATE | NLM_F_REPLACE : 0, &n, sizeof(n));
	rtrequest_add(r, NDA_LLADDR, mac, 6);
}

int kernet_forward(int at, int port, const uint8_t mac[6], struct err *err)
{
	struct rtrequest r;
	entry(&r, RTM_NEWNEIGH, port, false, mac);
	return rtnetlink_ask(at, &r, "an entry of the bridge", err);
}

int kernet_unforward(int at, int port, const uint8_t mac[6], struct err *err)
{
	struct rtrequest r;
	entry(&r, RTM_DELNEIGH, port, false, mac);
	return rtnetlink_ask(at, &r, "an entry of the bridge", err);
}

int kernet_tunnel(int at, int vxlan, const uint8_t mac[6], struct in_addr node, struct err *err)
{
	struct rtrequest r;
	entry(&r, RTM_NEWNEIGH, vxlan, true, mac);
	rtrequest_add(&r, NDA_DST, &node, sizeof(node));
	return rtnetlink_ask(at, &r, "an entry of the VXLAN", err);
}

int kernet_untunnel(int at, int vxlan, const uint8_t mac[6], struct err *err)
{
	struct rtrequest r;
	entry(&r, RTM_DELNEIGH, vxlan, true, mac);
	return rtnetlink_ask(at, &r, "an entry of the VXLAN", err);
}
