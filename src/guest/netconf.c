/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/netconf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/size.h"
#include "guest/guest.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

#define WAIT_MS 2000
#define WAIT_STEP_MS 10

/* As linux/ipv6.h has it; that header and musl's netinet/in.h cannot be included together. */
struct in6_request {
	struct in6_addr addr;
	uint32_t prefix_len;
	int ifindex;
};

static int open_socket(int family)
{
	return socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static struct ifreq request(const char *name)
{
	struct ifreq r;
	memset(&r, 0, sizeof(r));
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	return r;
}

static int set_up(int s, const char *name, bool up)
{
	struct ifreq r = request(name);
	if (ioctl(s, SIOCGIFFLAGS, &r) < 0)
		return -1;
	if (up)
		r.ifr_flags |= IFF_UP;
	else
		r.ifr_flags &= (short)~IFF_UP;
	return ioctl(s, SIOCSIFFLAGS, &r);
}

void net_loopback(void)
{
	_cleanup_close_ int s = open_socket(AF_INET);
	if (s >= 0)
		set_up(s, "lo", true);
}

/* Not by ioctl(2): there the kernel runs modprobe, twice, for a name that it does not know. */
static bool exists(int s, const char *name)
{
	_cleanup_free_ char *table = NULL, *row = xasprintf("%s:", name);
	struct ifreq r = request(name);
	if (path_read("/proc/self/net/dev", 1 << 20, &table, NULL, NULL) < 0)
		return ioctl(s, SIOCGIFINDEX, &r) == 0;
	for (char *rest = table, *line; (line = strsep(&rest, "\n"));)
		if (strncmp(line + strspn(line, " "), row, strlen(row)) == 0)
			return true;
	return false;
}

static int wait_for(int s, const char *name, struct err *err)
{
	for (int ms = 0; !exists(s, name); ms += WAIT_STEP_MS) {
		if (ms >= WAIT_MS)
			return err_set(err, ENODEV, "no network interface %s in this VM", name);
		nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_MS * 1000000}, NULL);
	}
	return 0;
}

static bool has_mac(int s, const char *name, const unsigned char *mac)
{
	struct ifreq r = request(name);
	return ioctl(s, SIOCGIFHWADDR, &r) == 0 && memcmp(r.ifr_hwaddr.sa_data, mac, 6) == 0;
}

static int rename_link(int s, const char *from, const char *to)
{
	struct ifreq r = request(from);
	snprintf(r.ifr_newname, sizeof(r.ifr_newname), "%s", to);
	set_up(s, from, false);
	return ioctl(s, SIOCSIFNAME, &r);
}

/* Two interfaces are found in no certain order: eth0 is the one with the cluster's address. */
static int name_links(int s, const unsigned char *mac, struct err *err)
{
	static const unsigned char nat[6] = GUESTPROTO_NAT_MAC;
	if (has_mac(s, "eth0", mac) || !exists(s, "eth1"))
		return 0;
	/* A clone's still has the template's address: then it is the one that is not NAT's. */
	if (!has_mac(s, "eth1", mac) && !has_mac(s, "eth0", nat))
		return 0;
	if (rename_link(s, "eth0", "vsetmp") < 0 || rename_link(s, "eth1", "eth0") < 0 ||
	    rename_link(s, "vsetmp", "eth1") < 0)
		return err_errno(err, errno, "rename network interfaces");
	return 0;
}

static int set_mac(int s, const char *name, const unsigned char *mac, struct err *err)
{
	struct ifreq r = request(name);
	if (has_mac(s, name, mac))
		return 0;
	r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(r.ifr_hwaddr.sa_data, mac, 6);
	if (ioctl(s, SIOCSIFHWADDR, &r) == 0)
		return 0;
	set_up(s, name, false); /* some drivers want it down */
	if (ioctl(s, SIOCSIFHWADDR, &r) < 0)
		return err_errno(err, errno, "%s: set the MAC address", name);
	return 0;
}

/* "address/bits" */
static int parse_prefix(const char *text, int family, void *ret_addr, unsigned *ret_bits, struct err *err)
{
	char addr[64];
	int64_t bits;
	size_t n = strcspn(text, "/");
	snprintf(addr, sizeof(addr), "%.*s", (int)n, text);
	if (!text[n] || inet_pton(family, addr, ret_addr) != 1 ||
	    int_parse(text + n + 1, 0, family == AF_INET ? 32 : 128, &bits, NULL) < 0)
		return err_set(err, EINVAL, "'%s' is no address/bits", text);
	*ret_bits = (unsigned)bits;
	return 0;
}

static int set_inet(int s, const char *name, unsigned long what, struct in_addr a)
{
	struct ifreq r = request(name);
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = a};
	memcpy(&r.ifr_addr, &sin, sizeof(sin));
	return ioctl(s, what, &r);
}

static int set_ipv4(int s, const char *name, const char *text, struct err *err)
{
	struct in_addr a, mask;
	unsigned bits;
	if (parse_prefix(text, AF_INET, &a, &bits, err) < 0)
		return -1;
	mask.s_addr = bits ? htonl(UINT32_MAX << (32 - bits)) : 0;
	struct in_addr broadcast = {.s_addr = a.s_addr | ~mask.s_addr};
	if (set_inet(s, name, SIOCSIFADDR, a) < 0 || set_inet(s, name, SIOCSIFNETMASK, mask) < 0 ||
	    set_inet(s, name, SIOCSIFBRDADDR, broadcast) < 0)
		return err_errno(err, errno, "%s: set the address %s", name, text);
	return 0;
}

static void sysctl6(const char *name, const char *key, const char *value)
{
	_cleanup_free_ char *path = xasprintf("/proc/sys/net/ipv6/conf/%s/%s", name, key);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		fd_write_all(fd, value, strlen(value));
}

/* The addresses come from the ranks: there is nobody to ask whether one is taken. */
static void quiet_ipv6(const char *name)
{
	sysctl6(name, "accept_dad", "0");
	sysctl6(name, "accept_ra", "0");
}

static int set_ipv6(int s, const char *name, const char *text, struct err *err)
{
	static struct in6_request last; /* what a clone had before */
	struct in6_request a = {0};
	unsigned bits;
	struct ifreq r = request(name);
	if (parse_prefix(text, AF_INET6, &a.addr, &bits, err) < 0)
		return -1;
	_cleanup_close_ int s6 = open_socket(AF_INET6);
	if (s6 < 0)
		return 0; /* a kernel without IPv6 */
	if (ioctl(s, SIOCGIFINDEX, &r) < 0)
		return err_errno(err, errno, "%s", name);
	a.prefix_len = bits;
	a.ifindex = r.ifr_ifindex;
	if (last.ifindex && memcmp(&last, &a, sizeof(a)) != 0)
		ioctl(s6, SIOCDIFADDR, &last);
	if (ioctl(s6, SIOCSIFADDR, &a) < 0 && errno != EEXIST)
		return err_errno(err, errno, "%s: set the address %s", name, text);
	last = a;
	return 0;
}

static int set_mtu(int s, const char *name, uint64_t mtu, struct err *err)
{
	struct ifreq r = request(name);
	if (!mtu)
		return 0;
	if (mtu < 68 || mtu > 65535)
		return err_set(err, EINVAL, "%s: an MTU of %llu", name, (unsigned long long)mtu);
	r.ifr_mtu = (int)mtu;
	if (ioctl(s, SIOCSIFMTU, &r) < 0)
		return err_errno(err, errno, "%s: set the MTU %d", name, r.ifr_mtu);
	return 0;
}

static int add_gateway(int s, const char *gateway, struct err *err)
{
	struct rtentry rt = {.rt_flags = RTF_UP | RTF_GATEWAY};
	struct sockaddr_in any = {.sin_family = AF_INET}, via = any;
	inet_pton(AF_INET, gateway, &via.sin_addr);
	memcpy(&rt.rt_dst, &any, sizeof(any));
	memcpy(&rt.rt_genmask, &any, sizeof(any));
	memcpy(&rt.rt_gateway, &via, sizeof(via));
	if (ioctl(s, SIOCADDRT, &rt) < 0 && errno != EEXIST)
		return err_errno(err, errno, "route by %s", gateway);
	return 0;
}

/* QEMU's user network has fixed addresses (its documentation, "Using the user mode network stack"). */
static int set_nat(int s, struct err *err)
{
	static const char resolv[] = "nameserver 10.0.2.3\n";
	if (wait_for(s, "eth1", err) < 0)
		return -1;
	quiet_ipv6("eth1");
	if (set_ipv4(s, "eth1", "10.0.2.15/24", err) < 0)
		return -1;
	if (set_up(s, "eth1", true) < 0)
		return err_errno(err, errno, "eth1: bring it up");
	if (add_gateway(s, "10.0.2.2", err) < 0)
		return -1;
	return setup_file("/etc/resolv.conf", resolv, sizeof(resolv) - 1, 0644, err);
}

static int parse_mac(const char *text, unsigned char mac[6], struct err *err)
{
	char end;
	if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", &mac[0], &mac[1], &mac[2],
		   &mac[3], &mac[4], &mac[5], &end) != 6 ||
	    (mac[0] & 1))
		return err_set(err, EINVAL, "'%s' is no MAC address", text);
	return 0;
}

int net_apply(const char *data, size_t len, struct err *err)
{
	_cleanup_free_ char *mac_text = kv_dup(data, len, "mac"), *ipv4 = kv_dup(data, len, "ipv4"),
			    *ipv6 = kv_dup(data, len, "ipv6");
	_cleanup_close_ int s = open_socket(AF_INET);
	bool nat = kv_num(data, len, "nat", 0);
	unsigned char mac[6];
	if (s < 0)
		return err_errno(err, errno, "the kernel has no network");
	if (mac_text || ipv4) {
		if (wait_for(s, "eth0", err) < 0 || (nat && wait_for(s, "eth1", err) < 0))
			return -1;
		if (mac_text && (parse_mac(mac_text, mac, err) < 0 || name_links(s, mac, err) < 0 ||
				 set_mac(s, "eth0", mac, err) < 0))
			return -1;
		quiet_ipv6("eth0");
		if (set_mtu(s, "eth0", kv_num(data, len, "mtu", 0), err) < 0 ||
		    (ipv4 && set_ipv4(s, "eth0", ipv4, err) < 0))
			return -1;
		if (set_up(s, "eth0", true) < 0)
			return err_errno(err, errno, "eth0: bring it up");
		if (ipv6 && set_ipv6(s, "eth0", ipv6, err) < 0)
			return -1;
	}
	return nat ? set_nat(s, err) : 0;
}
