/* SPDX-License-Identifier: Apache-2.0 */
/* TCP sockets by numeric addresses, IPv4 and IPv6. No name is ever looked up: a static program has no NSS. Links
 * between agents are made by io/link.h, which stands on this. */
#ifndef VSE_IO_TCP_H
#define VSE_IO_TCP_H

#include <netinet/in.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strvec.h"

/* Room for a numeric address with its scope ("fe80::1%eth0"), and for one with a port ("[...]:65535"). */
#define TCP_ADDRESS_SIZE 64
#define TCP_PEER_SIZE (TCP_ADDRESS_SIZE + 8)

/* EINVAL: not a numeric IPv4 or IPv6 address. */
int tcp_address_check(const char *address, struct err *err);

/* Binds and listens (SO_REUSEADDR, close-on-exec, non-blocking). address NULL: all, IPv6 and IPv4 on one socket
 * where the host has IPv6. port 0: the kernel chooses one; *ret_port tells. EADDRINUSE, EADDRNOTAVAIL... */
int tcp_listen(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port, struct err *err);
/* Starts a non-blocking connect; once *ret_fd is writable, tcp_connected() tells how it went. Tuned. */
int tcp_connect(const char *address, uint16_t port, int *ret_fd, struct err *err);
int tcp_connected(int fd, struct err *err);

/* No delay of small writes; keep-alive probes, and a limit to unacknowledged data (TCP_USER_TIMEOUT): a host that
 * vanishes breaks the connection within 60 s. The overlay's heartbeats are faster. */
void tcp_tune(int fd);

/* The other end of a connected socket: "10.0.0.7:41234", "[fe80::1%eth0]:41234"; "?" where there is none. The
 * address alone, for another connect, without the port; IPv4 in IPv6 is given as IPv4. */
void tcp_peer(int fd, char out[TCP_PEER_SIZE]);
int tcp_peer_address(int fd, char out[TCP_ADDRESS_SIZE], struct err *err);

/* This host's addresses that others may reach, from the interfaces that are up: appends numeric texts, IPv4 first,
 * then IPv6; the loopback's last. Link-local IPv6 is left out: its scope means nothing elsewhere. */
int tcp_own_addresses(struct strvec *ret, struct err *err);
/* Of another host's addresses (numeric texts) the IPv4 one to send to: the first on a network that this host is on too,
 * else the first. The loopback's, and what this host has itself (each has its own 172.17.0.1), never lead to another.
 * EAFNOSUPPORT: none is left. */
int tcp_nearest_ipv4(const struct strvec *hosts, struct in_addr *ret, struct err *err);

#endif
