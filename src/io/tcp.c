/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define BACKLOG 4096
#define IDLE_S 20     /* without a byte before the first probe */
#define INTERVAL_S 10 /* between probes */
#define PROBES 4
#define UNACKNOWLEDGED_MS 60000u

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t length(const union address *a)
{
	return a->any.sa_family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);
}

/* "fe80::1%eth0" */
static int parse_v6(const char *text, struct sockaddr_in6 *ret)
{
	char host[INET6_ADDRSTRLEN];
	const char *scope = strchr(text, '%');
	size_t n = scope ? (size_t)(scope - text) : strlen(text);
	*ret = (struct sockaddr_in6){.sin6_family = AF_INET6};
	if (n >= sizeof(host))
		return -1;
	memcpy(host, text, n);
	host[n] = '\0';
	if (inet_pton(AF_INET6, host, &ret->sin6_addr) != 1)
		return -1;
	if (scope)
		ret->sin6_scope_id = if_nametoindex(scope + 1);
	return scope && !ret->sin6_scope_id ? -1 : 0;
}

static int parse(const char *text, uint16_t port, union address *ret, struct err *err)
{
	*ret = (union address){.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
	if (inet_pton(AF_INET, text, &ret->v4.sin_addr) == 1)
		return 0;
	if (parse_v6(text, &ret->v6) < 0)
		return err_set(err, EINVAL, "'%.60s' is no numeric IPv4 or IPv6 address", text);
	ret->v6.sin6_port = htons(port);
	return 0;
}

/* An IPv4 connection on a socket for both shows as ::ffff:a.b.c.d. */
static void unmap(union address *a)
{
	if (a->any.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr))
		return;
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = a->v6.sin6_port};
	memcpy(&v4.sin_addr, a->v6.sin6_addr.s6_addr + 12, 4);
	a->v4 = v4;
}

static void format(const union address *a, char out[TCP_ADDRESS_SIZE])
{
	char scope[IF_NAMESIZE];
	if (a->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a->v4.sin_addr, out, TCP_ADDRESS_SIZE);
		return;
	}
	inet_ntop(AF_INET6, &a->v6.sin6_addr, out, TCP_ADDRESS_SIZE);
	size_t n = strlen(out);
	if (a->v6.sin6_scope_id && if_indextoname(a->v6.sin6_scope_id, scope))
		snprintf(out + n, TCP_ADDRESS_SIZE - n, "%%%s", scope);
}

int tcp_address_check(const char *address, struct err *err)
{
	union address a;
	return parse(address, 0, &a, err);
}

/* Links of many nodes share one line, and staging counts on equal shares. BBR's are not: 64 MiB to 16 hosts at 100 Mbit/s
 * took 1.32 times the time of one link with it, 1.12 with Reno. To be done before the connection is made: what it leaves
 * behind, pacing, slows the next one down. An unprivileged program may choose what net.ipv4.tcp_allowed_congestion_control
 * names; Reno always is. */
static void share_equally(int fd)
{
	char now[16] = "";
	socklen_t len = sizeof(now) - 1;
	if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, now, &len) < 0 || strncmp(now, "bbr", 3) != 0)
		return;
	if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) < 0)
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

/* ---- listening ---- */

static int bind_to(const union address *a, const char *text, uint16_t port, int *ret_fd, struct err *err)
{
	int one = 1, both = 0;
	_cleanup_close_ int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(err, errno, "listen on %s port %u", text, port);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a->any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY,
			   IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr) ? &both : &one, sizeof(one));
	share_equally(fd); /* what it accepts inherits that */
	if (bind(fd, &a->any, length(a)) < 0 || listen(fd, BACKLOG) < 0)
		return err_errno(err, errno, "listen on %s port %u", text, port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int bind_any(uint16_t port, int *ret_fd, struct err *err)
{
	union address six = {.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)}};
	union address four = {.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
	struct err why = ERR_INIT;
	if (bind_to(&six, "any address", port, ret_fd, &why) == 0)
		return 0;
	if (why.code != EAFNOSUPPORT && why.code != EADDRNOTAVAIL)
		return err_copy(err, &why);
	return bind_to(&four, "any address", port, ret_fd, err);
}

int tcp_listen(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port, struct err *err)
{
	union address a;
	socklen_t len = sizeof(a);
	int fd;
	if (address) {
		if (parse(address, port, &a, err) < 0 || bind_to(&a, address, port, &fd, err) < 0)
			return -1;
	} else if (bind_any(port, &fd, err) < 0) {
		return -1;
	}
	getsockname(fd, &a.any, &len);
	*ret_port = ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
	*ret_fd = fd;
	return 0;
}

/* ---- connecting ---- */

int tcp_connect(const char *address, uint16_t port, int *ret_fd, struct err *err)
{
	union address a;
	if (parse(address, port, &a, err) < 0)
		return -1;
	_cleanup_close_ int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(err, errno, "connect");
	tcp_tune(fd);
	share_equally(fd);
	if (connect(fd, &a.any, length(&a)) < 0 && errno != EINPROGRESS && errno != EINTR)
		return err_errno(err, errno, "connect");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int tcp_connected(int fd, struct err *err)
{
	int code = 0;
	socklen_t len = sizeof(code);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0)
		code = errno;
	return code ? err_errno(err, code, "connect") : 0;
}

void tcp_tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, INTERVAL_S},
		{IPPROTO_TCP, TCP_KEEPCNT, PROBES},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, (int)UNACKNOWLEDGED_MS},
	};
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

/* ---- who is there ---- */

static int peer(int fd, union address *ret)
{
	socklen_t len = sizeof(*ret);
	if (getpeername(fd, &ret->any, &len) < 0)
		return -1;
	if (ret->any.sa_family != AF_INET && ret->any.sa_family != AF_INET6) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	unmap(ret);
	return 0;
}

void tcp_peer(int fd, char out[TCP_PEER_SIZE])
{
	union address a;
	char text[TCP_ADDRESS_SIZE];
	if (peer(fd, &a) < 0) {
		snprintf(out, TCP_PEER_SIZE, "?");
		return;
	}
	format(&a, text);
	if (a.any.sa_family == AF_INET)
		snprintf(out, TCP_PEER_SIZE, "%s:%u", text, ntohs(a.v4.sin_port));
	else
		snprintf(out, TCP_PEER_SIZE, "[%s]:%u", text, ntohs(a.v6.sin6_port));
}

int tcp_peer_address(int fd, char out[TCP_ADDRESS_SIZE], struct err *err)
{
	union address a;
	if (peer(fd, &a) < 0)
		return err_errno(err, errno, "the other end's address");
	format(&a, out);
	return 0;
}

/* The order in which others should try it; -1: of no use to them. */
static int rank(const struct ifaddrs *i)
{
	if (!i->ifa_addr || !(i->ifa_flags & IFF_UP))
		return -1;
	int loopback = i->ifa_flags & IFF_LOOPBACK ? 2 : 0;
	if (i->ifa_addr->sa_family == AF_INET)
		return loopback;
	if (i->ifa_addr->sa_family != AF_INET6)
		return -1;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)i->ifa_addr;
	return IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr) ? -1 : loopback + 1;
}

int tcp_own_addresses(struct strvec *ret, struct err *err)
{
	struct ifaddrs *all;
	if (getifaddrs(&all) < 0)
		return err_errno(err, errno, "this host's addresses");
	for (int r = 0; r <= 3; r++) {
		for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
			char text[TCP_ADDRESS_SIZE];
			if (rank(i) != r)
				continue;
			format((const union address *)(const void *)i->ifa_addr, text);
			if (!strvec_has(ret, text))
				strvec_add(ret, text);
		}
	}
	freeifaddrs(all);
	return 0;
}

#define LOOPBACK_NET 127

enum nearness { USELESS, FAR, NEAR };

static enum nearness nearness(const struct ifaddrs *all, struct in_addr host)
{
	enum nearness best = FAR;
	if (ntohl(host.s_addr) >> 24 == LOOPBACK_NET)
		return USELESS;
	for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
		const struct sockaddr_in *own = (const void *)i->ifa_addr,
					 *mask = (const void *)i->ifa_netmask;
		if (!own || !mask || own->sin_family != AF_INET || !(i->ifa_flags & IFF_UP))
			continue;
		if (own->sin_addr.s_addr == host.s_addr)
			return USELESS;
		if (mask->sin_addr.s_addr &&
		    !((own->sin_addr.s_addr ^ host.s_addr) & mask->sin_addr.s_addr))
			best = NEAR;
	}
	return best;
}

int tcp_nearest_ipv4(const struct strvec *hosts, struct in_addr *ret, struct err *err)
{
	struct ifaddrs *all;
	enum nearness best = USELESS;
	if (getifaddrs(&all) < 0)
		return err_errno(err, errno, "this host's addresses");
	for (size_t i = 0; i < hosts->n; i++) {
		struct in_addr one;
		if (inet_pton(AF_INET, hosts->v[i], &one) == 1 && nearness(all, one) > best) {
			best = nearness(all, one);
			*ret = one;
		}
	}
	freeifaddrs(all);
	return best == USELESS ? err_set(err, EAFNOSUPPORT, "no IPv4 address that leads there") : 0;
}
