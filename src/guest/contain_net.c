/* SPDX-License-Identifier: Apache-2.0 */
/* eth0 of a container: one end of a veth pair. The other end lies in a second network namespace that nobody in the
 * container can enter, and is read and written by a packet socket, which the relay outside gets. No device node and
 * no privilege of the node is needed. (rtnetlink(7), veth(4), packet(7)) */
#include "guest/contain.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>

#define PEER "vse0"
#define PEER_MTU 65500  /* not its concern what eth0's is */
#define QUEUE (4 << 20) /* bytes; the kernel gives what it allows */

/* ---- the request ---- */

struct request_buf {
	struct nlmsghdr head;
	struct ifinfomsg info;
	char attrs[512];
};

static struct rtattr *tail(struct request_buf *r)
{
	return (struct rtattr *)(void *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));
}

static struct rtattr *put(struct request_buf *r, unsigned short type, const void *data, size_t len)
{
	struct rtattr *a = tail(r);
	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(len);
	if (len)
		memcpy(RTA_DATA(a), data, len);
	r->head.nlmsg_len = NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
	return a;
}

static void end(struct request_buf *r, struct rtattr *a)
{
	a->rta_len = (unsigned short)((char *)tail(r) - (char *)a);
}

/* PEER here, eth0 in the namespace `netns`. */
static void fill(struct request_buf *r, int netns)
{
	struct ifinfomsg other = {0};
	uint32_t mtu = PEER_MTU;
	*r = (struct request_buf){
		.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
			 .nlmsg_type = RTM_NEWLINK,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK}};
	put(r, IFLA_IFNAME, PEER, sizeof(PEER));
	put(r, IFLA_MTU, &mtu, sizeof(mtu));
	struct rtattr *link = put(r, IFLA_LINKINFO, NULL, 0);
	put(r, IFLA_INFO_KIND, "veth", 4);
	struct rtattr *data = put(r, IFLA_INFO_DATA, NULL, 0);
	struct rtattr *peer = put(r, VETH_INFO_PEER, &other, sizeof(other));
	put(r, IFLA_IFNAME, "eth0", 5);
	put(r, IFLA_NET_NS_FD, &netns, sizeof(netns));
	end(r, peer);
	end(r, data);
	end(r, link);
}

static int make_pair(int netns, struct err *err)
{
	struct request_buf r;
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[1024];
	} answer;
	_cleanup_close_ int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	fill(&r, netns);
	if (s < 0 || send(s, &r, r.head.nlmsg_len, 0) < 0 || recv(s, &answer, sizeof(answer), 0) < 0)
		return err_errno(err, errno, "eth0: rtnetlink");
	if (answer.head.nlmsg_type != NLMSG_ERROR)
		return err_set(err, EPROTO, "eth0: rtnetlink gave no answer");
	if (answer.error.error)
		return err_errno(err, -answer.error.error,
				 "eth0: a veth pair (is the kernel module veth there?)");
	return 0;
}

/* ---- its two ends ---- */

static struct ifreq named(const char *name)
{
	struct ifreq r;
	memset(&r, 0, sizeof(r));
	memcpy(r.ifr_name, name, strlen(name) + 1);
	return r;
}

static int bring_up(const char *name, int *ret_index)
{
	_cleanup_close_ int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = named(name);
	if (s < 0 || ioctl(s, SIOCGIFFLAGS, &r) < 0)
		return -1;
	r.ifr_flags |= IFF_UP;
	if (ioctl(s, SIOCSIFFLAGS, &r) < 0 || ioctl(s, SIOCGIFINDEX, &r) < 0)
		return -1;
	*ret_index = r.ifr_ifindex;
	return 0;
}

/* Nobody adds the checksums, or cuts the packets, that are left to a network card. */
static int plain_frames(struct err *err)
{
	static const unsigned off[] = {ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM};
	_cleanup_close_ int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (size_t i = 0; i < ARRAY_SIZE(off); i++) {
		struct ethtool_value v = {.cmd = off[i]};
		struct ifreq r = named("eth0");
		r.ifr_data = (void *)&v;
		if (ioctl(s, SIOCETHTOOL, &r) < 0)
			return err_errno(err, errno, "eth0: switch its offloads off");
	}
	return 0;
}

/* Not heard: what it sends itself (Linux 4.20). */
static int open_packets(int *ret, struct err *err)
{
	int one = 1, size = QUEUE;
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = __builtin_bswap16(ETH_P_ALL)};
	if (bring_up(PEER, &at.sll_ifindex) < 0)
		return err_errno(err, errno, "eth0: its other end");
	/* Protocol 0 first: nothing comes until it is bound. */
	_cleanup_close_ int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (s < 0 || setsockopt(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0 ||
	    bind(s, (struct sockaddr *)&at, sizeof(at)) < 0)
		return err_errno(err, errno, "eth0: a packet socket");
	setsockopt(s, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	setsockopt(s, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	*ret = TAKE_FD(s);
	return 0;
}

static int hand_over(int wire, int fd, struct err *err)
{
	char byte = 0;
	union {
		char data[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} c = {0};
	struct iovec v = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = c.data,
			   .msg_controllen = sizeof(c.data)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(int));
	if (sendmsg(wire, &m, MSG_NOSIGNAL) < 0)
		return err_errno(err, errno, "eth0: hand it over");
	return 0;
}

int contain_net(int wire, struct err *err)
{
	_cleanup_close_ int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), packets = -1;
	if (own < 0 || unshare(CLONE_NEWNET) < 0)
		return err_errno(err, errno, "eth0: a network namespace");
	if (make_pair(own, err) < 0 || open_packets(&packets, err) < 0)
		return -1;
	if (setns(own, CLONE_NEWNET) < 0)
		return err_errno(err, errno, "eth0: back to the network namespace");
	if (plain_frames(err) < 0)
		return -1;
	return hand_over(wire, packets, err);
}
