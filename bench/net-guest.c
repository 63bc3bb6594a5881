/* SPDX-License-Identifier: Apache-2.0 */
/* Process 1 of the two guests of bench/net. Arguments, from the kernel command line behind "--":
 *   RANK MTU SECONDS MODULE...
 * Rank 0 serves, rank 1 measures and prints one line that begins with "result". Addresses are those of
 * net/address.h in 10.199.0.0/16 and fd76:7365::/64.
 * In VMs that run (bench/net-nodes) it is a program: "net-guest serve" in vm0 for two of these in another: "net-guest
 * latency" prints half a round trip in us, "net-guest throughput SECONDS" MB/s. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 5001, ROUND_TRIPS = 1000, MESSAGE = 1 << 20 };

struct in6_ifreq_ { /* linux/ipv6.h */
	struct in6_addr addr;
	uint32_t prefix;
	int index;
};

static char buffer[MESSAGE];

static void off(void)
{
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT); /* qemu -no-reboot ends */
	for (;;)
		pause();
}

static void need(int result, const char *what)
{
	if (result >= 0)
		return;
	printf("failed: %s: %s\n", what, strerror(errno));
	if (getpid() != 1)
		exit(1);
	off();
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void load_module(const char *name)
{
	char path[128];
	snprintf(path, sizeof(path), "/%s.ko", name);
	int fd = open(path, O_RDONLY);
	need(fd, path);
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		need(-1, path);
	close(fd);
}

static void set_flags(int s, const char *name)
{
	struct ifreq r = {0};
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	need(ioctl(s, SIOCGIFFLAGS, &r), name);
	r.ifr_flags = (short)(r.ifr_flags | IFF_UP);
	need(ioctl(s, SIOCSIFFLAGS, &r), "up");
}

static void set_ipv4(int s, unsigned long request, uint32_t ip)
{
	struct ifreq r = {.ifr_name = "eth0"};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(ip)};
	memcpy(&r.ifr_addr, &a, sizeof(a));
	need(ioctl(s, request, &r), "IPv4 address");
}

static void set_ipv6(uint32_t rank)
{
	int s = socket(AF_INET6, SOCK_DGRAM, 0);
	struct ifreq r = {.ifr_name = "eth0"};
	struct in6_ifreq_ six = {.prefix = 64};
	if (s < 0)
		return;
	need(ioctl(s, SIOCGIFINDEX, &r), "eth0");
	six.index = r.ifr_ifindex;
	inet_pton(AF_INET6, "fd76:7365::", &six.addr);
	six.addr.s6_addr[15] = (uint8_t)(rank + 1);
	need(ioctl(s, SIOCSIFADDR, &six), "IPv6 address");
	close(s);
}

/* The addresses are unique by their making: without duplicate address detection IPv6 works at once. */
static void no_detection(void)
{
	mkdir("/proc", 0755);
	need(mount("proc", "/proc", "proc", 0, NULL), "/proc");
	int fd = open("/proc/sys/net/ipv6/conf/eth0/accept_dad", O_WRONLY);
	need(fd, "accept_dad");
	need((int)write(fd, "0", 1), "accept_dad");
	close(fd);
}

static void network(uint32_t rank, int mtu)
{
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq r = {.ifr_name = "eth0"};
	need(s, "socket");
	no_detection();
	set_flags(s, "lo");
	r.ifr_mtu = mtu;
	need(ioctl(s, SIOCSIFMTU, &r), "mtu");
	set_flags(s, "eth0");
	set_ipv4(s, SIOCSIFADDR, (10u << 24 | 199u << 16) + rank + 1);
	set_ipv4(s, SIOCSIFNETMASK, 0xffff0000);
	set_ipv6(rank);
	close(s);
}

static int read_all(int fd, size_t n)
{
	while (n) {
		ssize_t k = read(fd, buffer, n < MESSAGE ? n : MESSAGE);
		if (k <= 0)
			return -1;
		n -= (size_t)k;
	}
	return 0;
}

static int write_all(int fd, size_t n)
{
	while (n) {
		ssize_t k = write(fd, buffer, n);
		if (k <= 0)
			return -1;
		n -= (size_t)k;
	}
	return 0;
}

static void no_delay(int fd)
{
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* A connection: 'e' echoes 8 bytes for ever, 'm' acknowledges every MESSAGE with a byte. */
static void serve(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	int s = socket(AF_INET, SOCK_STREAM, 0);
	need(bind(s, (void *)&a, sizeof(a)), "bind");
	need(listen(s, 8), "listen");
	for (int done = 0; done < 2; done++) {
		int fd = accept(s, NULL, NULL);
		need(fd, "accept");
		no_delay(fd);
		need(read_all(fd, 1), "read");
		if (buffer[0] == 'e')
			while (read_all(fd, 8) == 0 && write_all(fd, 8) == 0)
				;
		else
			while (read_all(fd, MESSAGE) == 0 && write_all(fd, 1) == 0)
				;
		close(fd);
	}
}

static int dial(char mode)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	inet_pton(AF_INET, "10.199.0.1", &a.sin_addr);
	for (int i = 0; i < 300; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(fd, (void *)&a, sizeof(a)) == 0) {
			no_delay(fd);
			need((int)write(fd, &mode, 1), "write");
			return fd;
		}
		close(fd);
		usleep(100000);
	}
	need(-1, "connect");
	return -1;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double tcp_half_round_trip_us(void)
{
	static double t[ROUND_TRIPS];
	int fd = dial('e');
	for (int i = 0; i < ROUND_TRIPS; i++) {
		double begin = now();
		need(write_all(fd, 8), "write");
		need(read_all(fd, 8), "read");
		t[i] = now() - begin;
	}
	close(fd);
	qsort(t, ROUND_TRIPS, sizeof(t[0]), by_value);
	return t[ROUND_TRIPS / 2] / 2 * 1e6;
}

static double throughput_mbs(int fd, double seconds)
{
	double begin = now(), bytes = 0;
	do {
		need(write_all(fd, MESSAGE), "write");
		need(read_all(fd, 1), "read");
		bytes += MESSAGE;
	} while (now() - begin < seconds);
	return bytes / (now() - begin) / 1e6;
}

/* Answers out of `n` echo requests; v6 by fd76:7365::1 and by link-local. */
static int ping(int family, const char *to, int n)
{
	struct sockaddr_in a4 = {.sin_family = AF_INET};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_scope_id = if_nametoindex("eth0")};
	struct timeval wait = {1, 0};
	bool six = family == AF_INET6;
	int s = socket(family, SOCK_RAW, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP), answers = 0;
	inet_pton(family, to, six ? (void *)&a6.sin6_addr : (void *)&a4.sin_addr);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	for (int i = 0; i < n; i++) {
		uint8_t m[8] = {six ? ICMP6_ECHO_REQUEST : ICMP_ECHO, 0, 0, 0, 0, 1, 0, (uint8_t)i},
			in[256];
		if (!six) /* the kernel sums ICMPv6 */
			m[2] = 0xf7, m[3] = (uint8_t)(0xfe - i);
		sendto(s, m, 8, 0, six ? (void *)&a6 : (void *)&a4, six ? sizeof(a6) : sizeof(a4));
		for (ssize_t k; (k = recv(s, in, sizeof(in), 0)) > 0;) {
			const uint8_t *icmp = six ? in : in + (in[0] & 15) * 4;
			if (icmp[0] == (six ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY) && icmp[7] == i) {
				answers++;
				break;
			}
		}
	}
	close(s);
	return answers;
}

static int program(int argc, char **argv)
{
	if (strcmp(argv[1], "serve") == 0)
		serve();
	else if (strcmp(argv[1], "latency") == 0)
		printf("%.0f\n", tcp_half_round_trip_us());
	else if (argc == 3 && strcmp(argv[1], "throughput") == 0)
		printf("%.2f\n", throughput_mbs(dial('m'), atof(argv[2])));
	else
		return 2;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && getpid() != 1)
		return program(argc, argv);
	if (argc < 4 || getpid() != 1)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	uint32_t rank = (uint32_t)atoi(argv[1]);
	for (int i = 4; i < argc; i++)
		load_module(argv[i]);
	network(rank, atoi(argv[2]));
	printf("up %u\n", rank);
	if (rank == 0) {
		serve();
		off();
	}
	double latency = tcp_half_round_trip_us();
	int fd = dial('m'); /* the server ends when this closes */
	double speed = throughput_mbs(fd, atof(argv[3]));
	int p4 = ping(AF_INET, "10.199.0.1", 20), p6 = ping(AF_INET6, "fd76:7365::1", 20),
	    pl = ping(AF_INET6, "fe80::5054:ff:fe00:0", 20);
	printf("result %.0f %.1f %d %d %d\n", latency, speed, p4, p6, pl);
	off();
}
