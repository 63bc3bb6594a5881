/* SPDX-License-Identifier: Apache-2.0 */
/* The network by the node's kernel: the filter of a port against net/filter.h, which has the rules, and (as root) real taps
 * on a real bridge. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <net/if.h>

#include <linux/virtio_net.h>

#include "base/macros.h"
#include "io/tcp.h"
#include "net-frames.h"
#include "net/bytes.h"
#include "net/filter.h"
#include "net/kernet.h"
#include "net/kernet_plan.h"
#include "tap.h"

static const struct members all = {.subnet = {.base = 0x0ac70000, .bits = 16}, .size = 8};

/* ---- classic BPF, as Documentation/networking/filter.rst has it; what is not used here is an error ---- */

static bool fetch(const uint8_t *p, size_t len, uint32_t at, size_t n, uint32_t *ret)
{
	if (at >= (uint32_t)SKF_AD_OFF) { /* no VLAN tag */
		*ret = 0;
		return true;
	}
	if (at + n > len)
		return false;
	*ret = n == 1 ? p[at] : n == 2 ? get_be16(p + at) : get_be32(p + at);
	return true;
}

static uint32_t run(const struct sock_filter *f, size_t n, const uint8_t *p, size_t len)
{
	uint32_t a = 0, x = 0;
	for (size_t i = 0; i < n; i++) {
		size_t jump = 0;
		switch (f[i].code) {
		case BPF_LD | BPF_W | BPF_ABS:
			if (!fetch(p, len, f[i].k, 4, &a))
				return 0;
			break;
		case BPF_LD | BPF_H | BPF_ABS:
			if (!fetch(p, len, f[i].k, 2, &a))
				return 0;
			break;
		case BPF_LD | BPF_B | BPF_ABS:
			if (!fetch(p, len, f[i].k, 1, &a))
				return 0;
			break;
		case BPF_MISC | BPF_TAX: x = a; break;
		case BPF_ALU | BPF_SUB | BPF_X: a -= x; break;
		case BPF_JMP | BPF_JA: jump = f[i].k; break;
		case BPF_JMP | BPF_JEQ | BPF_K: jump = a == f[i].k ? f[i].jt : f[i].jf; break;
		case BPF_JMP | BPF_JGT | BPF_K: jump = a > f[i].k ? f[i].jt : f[i].jf; break;
		case BPF_JMP | BPF_JGE | BPF_K: jump = a >= f[i].k ? f[i].jt : f[i].jf; break;
		case BPF_JMP | BPF_JSET | BPF_K: jump = a & f[i].k ? f[i].jt : f[i].jf; break;
		case BPF_RET | BPF_K: return f[i].k;
		default: abort();
		}
		i += jump;
	}
	abort();
}

static struct sock_filter one[KERNET_FILTER_MAX], any[KERNET_FILTER_MAX];
static size_t n_one, n_any;

static bool passes(const uint8_t *f, size_t len)
{
	return run(one, n_one, f, len) != 0;
}

/* vm1 sends; both filters are of one mind, but that the second lets vm2 speak too. */
static void is_passed(bool want, const uint8_t *f, size_t len, const char *what)
{
	ok(passes(f, len) == want && (run(any, n_any, f, len) != 0) == want, "%s: %s", what,
	   want ? "passes" : "does not");
}

static void test_ip(void)
{
	uint8_t f[256], udp[8] = {0};
	is_passed(true, f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 60, 1),
		  "IPv4 from its own address");
	is_passed(false, f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 3, 60, 1), "another's address");
	is_passed(false, f, frame_ipv4(f, mac_of(2), 1, 0, 60, 1), "no address");
	is_passed(false, f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 29, 1), "cut off");
	is_passed(false, f, frame_ipv4(f, mac_broadcast, 1, NET_BASE + 2, 60, 1), "broadcast");
	size_t n = frame_ipv4(f, mac_of(3), 2, NET_BASE + 3, 60, 1);
	ok(!passes(f, n), "another's MAC: does not, at a port");
	ok(run(any, n_any, f, n), "but does where any rank may be the sender");
	n = frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 60, 1);
	f[8] = 1;
	is_passed(false, f, n, "a MAC of none of ours");
	n = frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 60, 1);
	memcpy(f + 12, "\x81\x00", 2);
	is_passed(false, f, n, "a VLAN tag");
	memcpy(f + 12, "\x89\x15", 2);
	is_passed(true, f, n, "RoCE");
	n = frame_ipv6(f, mac_of(2), 1, ip6("fd76:7365::2"), ip6("fd76:7365::3"), 17, udp, 8);
	is_passed(true, f, n, "IPv6 from its own address");
	n = frame_ipv6(f, mac_of(2), 1, ip6("fe80::5054:ff:fe00:1"), ip6("fd76:7365::3"), 17, udp, 8);
	is_passed(true, f, n, "from its link-local one");
	n = frame_ipv6(f, mac_of(2), 1, ip6("fd76:7365::3"), ip6("fd76:7365::1"), 17, udp, 8);
	is_passed(false, f, n, "another's IPv6 address");
	n = frame_ipv6(f, mac_of(2), 1, ip6("fe80::5054:ff:fe00:2"), ip6("fd76:7365::1"), 17, udp, 8);
	is_passed(false, f, n, "another's link-local address");
	n = frame_ipv6(f, mac_of(2), 1, ip6("::"), ip6("fd76:7365::1"), 17, udp, 8);
	is_passed(false, f, n, "no IPv6 address");
	n = frame_ipv6(f, mac_of(2), 1, ip6("fd76:7365::2"), ip6("fd76:7365::3"), 44, udp, 8);
	is_passed(true, f, n, "a fragment");
	n = frame_ipv6(f, mac_of(2), 1, ip6("fd76:7365::2"), ip6("fd76:7365::3"), 60, udp, 8);
	is_passed(false, f, n, "extension headers");
}

static void test_neighbours(void)
{
	uint8_t f[256], icmp[8] = {128};
	is_passed(true, f, frame_arp(f, mac_broadcast, 1, 1, NET_BASE + 2, NET_BASE + 3), "ARP");
	is_passed(true, f, frame_arp(f, mac_broadcast, 1, 1, 0, NET_BASE + 3), "an ARP probe");
	is_passed(false, f, frame_arp(f, mac_broadcast, 1, 2, NET_BASE + 1, NET_BASE + 3),
		  "ARP of another");
	size_t n = frame_arp(f, mac_of(2), 1, 2, NET_BASE + 2, NET_BASE + 3);
	f[27] = 2;
	is_passed(false, f, n, "an ARP sender with another MAC");
	is_passed(true, f, frame_nd(f, 1, "fd76:7365::2", 135, "fd76:7365::3"),
		  "a neighbour solicitation");
	is_passed(true, f, frame_nd(f, 1, "::", 135, "fd76:7365::3"), "one without an address yet");
	is_passed(false, f, frame_nd(f, 1, "fd76:7365::3", 135, "fd76:7365::1"), "one as another");
	n = frame_nd(f, 1, "fd76:7365::2", 136, "fd76:7365::2");
	is_passed(false, f, n, "an advertisement to all");
	memcpy(f, mac_of(2), 6);
	is_passed(true, f, n, "to one who asked");
	f[77] = 3;
	is_passed(false, f, n, "of another's address");
	n = frame_nd(f, 1, "fd76:7365::2", 136, "fe80::5054:ff:fe00:1");
	memcpy(f, mac_of(2), 6);
	is_passed(true, f, n, "of its link-local address");
	f[77] = 2;
	is_passed(false, f, n, "of another's link-local address");
	for (unsigned type = 130; type <= 137; type++) {
		if (type == 135 || type == 136)
			continue;
		n = frame_nd(f, 1, "fe80::5054:ff:fe00:1", type, "fd76:7365::3");
		memcpy(f, mac_of(2), 6);
		is_passed(false, f, n, "a router's or listener's message");
	}
	n = frame_ipv6(f, mac_of(2), 1, ip6("fd76:7365::2"), ip6("fd76:7365::3"), 58, icmp, 8);
	is_passed(true, f, n, "an echo request");
}

/* Whatever passes the filter is of the sender by the switch's rules too. */
static void test_against_switch(void)
{
	uint8_t f[160], msg[8] = {128};
	struct member from;
	struct filtered to;
	size_t n = 0, passed = 0, wrong = 0;
	member_init(&from, &all, 1);
	srandom(4711);
	for (int i = 0; i < 200000; i++) {
		switch (i % 4) {
		case 0: n = frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 60, 1); break;
		case 1: n = frame_arp(f, mac_broadcast, 1, 1, NET_BASE + 2, NET_BASE + 3); break;
		case 2: n = frame_nd(f, 1, "fd76:7365::2", 135, "fd76:7365::3"); break;
		default:
			n = frame_ipv6(f, mac_of(2), 1, ip6("fd76:7365::2"), ip6("fd76:7365::3"),
				       58, msg, 8);
		}
		for (int k = random() % 4; k; k--)
			f[(size_t)random() % n] ^= (uint8_t)(1u << random() % 8);
		if (!passes(f, n))
			continue;
		passed++;
		/* What a solicitation says besides is looked at by who answers it. */
		bool solicits = n > 54 && get_be16(f + 12) == 0x86dd && f[20] == 58 &&
				(f[54] == 135 || f[54] == 136);
		wrong += filter_frame(&all, &from, f, n, &to) == VERDICT_SPOOF && !solicits;
	}
	ok(passed > 50000, "%zu mutated frames of 200000 pass", passed);
	is_int(wrong, 0, "and none of them the switch would call forged");
}

static void test_names(void)
{
	ok(kernet_vni("a") != kernet_vni("b") && kernet_vni("a") == kernet_vni("a"),
	   "an identifier a cluster");
	ok(kernet_vni("") > 0 && kernet_vni("0123456789abcdef") < 1u << 24, "of 24 bits");
}

/* ---- real taps ---- */

#define HEAD sizeof(struct virtio_net_hdr)

static void send_frame(int tap, const uint8_t *f, size_t n)
{
	uint8_t out[HEAD + 256] = {0};
	memcpy(out + HEAD, f, n);
	ok(write(tap, out, HEAD + n) == (ssize_t)(HEAD + n), "sent");
}

static void nothing(void *arg _unused_)
{
}

/* What is ready, and nothing more. */
static void round_of(struct loop *l)
{
	struct evtimer *t = evtimer_create(l, nothing, NULL);
	evtimer_start(t, 0, 0);
	loop_run_once(l);
	evtimer_destroy(t);
}

/* The next frame with that type; its length, 0: none came. The loop is what answers. */
static size_t receive(struct loop *l, int tap, unsigned type, int ms, uint8_t *ret)
{
	uint8_t in[HEAD + 2048];
	for (int i = 0; i < ms; i++) {
		ssize_t n;
		round_of(l);
		while ((n = read(tap, in, sizeof(in))) > (ssize_t)(HEAD + 14)) {
			if (get_be16(in + HEAD + 12) != type)
				continue;
			memcpy(ret, in + HEAD, (size_t)n - HEAD);
			return (size_t)n - HEAD;
		}
		poll(NULL, 0, 1);
	}
	return 0;
}

static void test_taps(struct loop *l, struct kernet *k)
{
	uint8_t f[256], got[2048];
	struct err err = ERR_INIT;
	int a = -1, b = -1, again = -1;
	if (!ok(kernet_tap(k, 1, &a, &err) == 0 && kernet_tap(k, 2, &b, &err) == 0, "two taps: %s",
		err.text))
		return;
	send_frame(a, f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 60, 1));
	ok(receive(l, b, 0x0800, 5000, got) == 60, "a frame passes from tap to tap");
	send_frame(a, f, frame_arp(f, mac_broadcast, 1, 1, NET_BASE + 2, NET_BASE + 7));
	size_t n = receive(l, a, 0x0806, 5000, got);
	ok(n == 60 && got[21] == 2 && memcmp(got + 22, mac_of(6), 6) == 0,
	   "ARP for a VM that is nowhere is answered");
	send_frame(a, f, frame_nd(f, 1, "fd76:7365::2", 135, "fd76:7365::3"));
	n = receive(l, a, 0x86dd, 5000, got);
	ok(n == 86 && got[54] == 136 && memcmp(got + 80, mac_of(2), 6) == 0,
	   "so is a neighbour solicitation");
	/* In order: once the last has come, those before would have. */
	send_frame(a, f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 4, 60, 1));
	send_frame(a, f, frame_ipv4(f, mac_of(2), 3, NET_BASE + 4, 60, 1));
	send_frame(a, f, frame_ipv4(f, mac_broadcast, 1, NET_BASE + 2, 60, 1));
	send_frame(a, f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 61, 1));
	ok(receive(l, b, 0x0800, 5000, got) == 61, "forged and broadcast frames do not");
	ok(receive(l, b, 0x0806, 20, got) == 0, "nor has the other seen the ARP");
	ok(kernet_tap(k, 2, &again, &err) == 0, "a new tap for a rank: %s", err.text);
	send_frame(a, f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 62, 1));
	ok(receive(l, again, 0x0800, 5000, got) == 62, "has its frames");
	close(a);
	close(b);
	close(again);
}

/* A frame in VXLAN (RFC 7348, section 5) as a node sends it: here over the loopback. */
static void send_vxlan(const char *cluster, const uint8_t *f, size_t n)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
				       .sin_port = htons(KERNET_PORT),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	uint8_t out[8 + 256] = {0x08};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	put_be32(out + 4, kernet_vni(cluster) << 8);
	memcpy(out + 8, f, n);
	ok(sendto(s, out, 8 + n, 0, (const struct sockaddr *)&to, sizeof(to)) == (ssize_t)(8 + n),
	   "sent by VXLAN");
	close(s);
}

static void bring_loopback_up(void)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ok(ioctl(s, SIOCSIFFLAGS, &r) == 0, "the loopback is on");
	close(s);
}

/* vm5 is on another node, vm1 and vm2 are here. */
static void test_other_node(struct loop *l, struct kernet *k)
{
	uint8_t f[256], got[2048];
	struct err err = ERR_INIT;
	const struct in_addr node = {.s_addr = htonl(INADDR_LOOPBACK)};
	int a = -1, b = -1;
	bring_loopback_up();
	ok(kernet_tap(k, 1, &a, &err) == 0 && kernet_tap(k, 2, &b, &err) == 0, "two taps: %s", err.text);
	ok(kernet_join(k, "some cluster", &err) == 0, "joined to other nodes: %s", err.text);
	ok(kernet_place(k, 5, node, &err) == 0, "vm5 is placed there: %s", err.text);
	send_vxlan("some cluster", f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 60, 1)); /* vm1 is here */
	send_vxlan("some cluster", f, frame_ipv4(f, mac_of(2), 5, NET_BASE + 2, 60, 1));
	send_vxlan("some cluster", f, frame_ipv4(f, mac_of(2), 6, NET_BASE + 7, 60, 1)); /* vm6 is nowhere */
	send_vxlan("another", f, frame_ipv4(f, mac_of(2), 5, NET_BASE + 6, 60, 1));
	send_vxlan("some cluster", f, frame_ipv4(f, mac_of(2), 5, NET_BASE + 6, 61, 1));
	ok(receive(l, b, 0x0800, 5000, got) == 61,
	   "by VXLAN comes what is of a rank of that node, and nothing else");
	ok(kernet_place(k, 5, (struct in_addr){0}, &err) == 0, "vm5 is on no node: %s", err.text);
	send_vxlan("some cluster", f, frame_ipv4(f, mac_of(2), 5, NET_BASE + 6, 60, 1));
	send_frame(a, f, frame_ipv4(f, mac_of(2), 1, NET_BASE + 2, 62, 1));
	ok(receive(l, b, 0x0800, 5000, got) == 62, "and is heard no more");
	close(a);
	close(b);
}

/* Two networks of one cluster, joined over the loopback of this namespace. */
static void test_found_again(struct loop *l, const struct kernet_config *c, struct kernet *k)
{
	uint8_t f[256], got[2048];
	struct err err = ERR_INIT;
	struct kernet *next = NULL;
	struct kernet_config again = *c;
	struct in_addr here = {.s_addr = htonl(INADDR_LOOPBACK)};
	int a = -1, b = -1;
	ok(kernet_join(k, "some cluster", &err) == 0, "joined to other nodes: %s", err.text);
	ok(kernet_place(k, 5, here, &err) == 0, "a rank is placed there: %s", err.text);
	ok(kernet_place(k, 5, (struct in_addr){0}, &err) == 0, "and here: %s", err.text);
	kernet_tap(k, 1, &a, &err);
	again.vmm = getpid();
	if (!ok(kernet_create(l, &again, &next, &err) == 0, "found again by a tap: %s", err.text))
		return;
	ok(kernet_join(next, "some cluster", &err) == 0, "with its VXLAN: %s", err.text);
	ok(kernet_tap(next, 3, &b, &err) == 0, "and a tap more: %s", err.text);
	send_frame(a, f, frame_ipv4(f, mac_of(3), 1, NET_BASE + 2, 60, 1));
	ok(receive(l, b, 0x0800, 5000, got) == 60, "which the one from before reaches");
	kernet_destroy(next);
	close(a);
	close(b);
}

static void test_probe(void)
{
	struct err err = ERR_INIT;
	const struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(KERNET_PORT + 1)};
	_cleanup_close_ int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ok(bind(s, (const struct sockaddr *)&at, sizeof(at)) == 0,
	   "a program has the probe's port");
	ok(kernet_probe(&err) == 0, "which says nothing about the kernel: %s", err.text);
}

/* Another cluster of the same number on this node, and another program on the port. */
static void test_taken(struct loop *l, const struct kernet_config *c)
{
	struct err err = ERR_INIT;
	struct kernet *k = NULL, *other = NULL;
	const struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(KERNET_PORT)};
	_cleanup_close_ int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (!ok(kernet_create(l, c, &k, &err) == 0 && kernet_create(l, c, &other, &err) == 0,
		"networks of two clusters: %s", err.text))
		return;
	ok(kernet_join(k, "some cluster", &err) == 0, "joined to other nodes: %s", err.text);
	ok(kernet_join(other, "some cluster", &err) < 0 && err.code == EEXIST &&
		   strstr(err.text, "UDP port 4789 is taken") && !strchr(err.text, '\n'),
	   "the same number twice on a node: %s", err.text);
	err = (struct err)ERR_INIT;
	ok(kernet_join(other, "its own", &err) == 0, "another number beside it: %s", err.text);
	kernet_destroy(k);
	kernet_destroy(other);
	ok(bind(s, (const struct sockaddr *)&at, sizeof(at)) == 0, "the port is free at once");
	if (!ok(kernet_create(l, c, &k, &err) == 0, "another network: %s", err.text))
		return;
	ok(kernet_join(k, "some cluster", &err) < 0 && err.code == EADDRINUSE, "then it is not: %s",
	   err.text);
	close(TAKE_FD(s));
	err = (struct err)ERR_INIT;
	ok(kernet_join(k, "some cluster", &err) == 0, "and after it is free it can be had: %s",
	   err.text);
	kernet_destroy(k);
}

static int set_address(int s, unsigned long what, const char *text)
{
	struct ifreq r = {.ifr_name = "lo"};
	struct sockaddr_in a = {.sin_family = AF_INET};
	inet_pton(AF_INET, text, &a.sin_addr);
	memcpy(&r.ifr_addr, &a, sizeof(a));
	return ioctl(s, what, &r);
}

/* Here the loopback plays an interface of a network of its own. */
static void test_nearest(void)
{
	_cleanup_close_ int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char *v[] = {(char *)"fd00::7", (char *)"10.8.0.1", (char *)"10.9.0.1", (char *)"10.9.0.2",
		     (char *)"127.0.0.1"};
	struct strvec hosts = {.v = v, .n = ARRAY_SIZE(v)};
	struct in_addr got;
	struct err err = ERR_INIT;
	char text[INET_ADDRSTRLEN] = "";
	ok(set_address(s, SIOCSIFADDR, "10.9.0.1") == 0 &&
		   set_address(s, SIOCSIFNETMASK, "255.255.255.0") == 0,
	   "an address");
	ok(tcp_nearest_ipv4(&hosts, &got, &err) == 0, "one of another host's: %s", err.text);
	inet_ntop(AF_INET, &got, text, sizeof(text));
	is_str(text, "10.9.0.2", "on the same network, and not our own");
	hosts.n = 3;
	ok(tcp_nearest_ipv4(&hosts, &got, &err) == 0, "none on it: %s", err.text);
	inet_ntop(AF_INET, &got, text, sizeof(text));
	is_str(text, "10.8.0.1", "the first");
	hosts.v += 2, hosts.n = 1;
	ok(tcp_nearest_ipv4(&hosts, &got, &err) < 0 && err.code == EAFNOSUPPORT, "only ours: %s",
	   err.text);
	hosts.v += 2;
	ok(tcp_nearest_ipv4(&hosts, &got, &err) < 0, "only its loopback: %s", err.text);
}

static void test_kernel(void)
{
	const struct kernet_config c = {.subnet = all.subnet, .size = all.size, .mtu = 1500};
	struct err err = ERR_INIT;
	struct kernet *k = NULL;
	struct loop *l = loop_create();
	/* A namespace in place of the node's: what is tested here is in nobody's way. */
	if (unshare(CLONE_NEWNET) < 0 || kernet_probe(&err) < 0) {
		tap_skip(err.code ? err.text : "only root can have taps");
		loop_destroy(l);
		return;
	}
	ok(kernet_create(l, &c, &k, &err) == 0, "a network: %s", err.text);
	if (k) {
		test_taps(l, k);
		test_other_node(l, k);
		test_found_again(l, &c, k);
	}
	kernet_destroy(k);
	test_probe();
	test_taken(l, &c);
	test_nearest();
	loop_destroy(l);
}

int main(void)
{
	n_one = kernet_filter(&all.subnet, 1, one);
	n_any = kernet_filter(&all.subnet, KERNET_ANY_RANK, any);
	test_ip();
	test_neighbours();
	test_against_switch();
	test_names();
	test_kernel();
	return done();
}
