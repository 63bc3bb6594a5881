/* SPDX-License-Identifier: Apache-2.0 */
/* The switch alone.
 *   net-switch cpu             what a frame costs: CPU time of the switch only, over socket pairs
 *   net-switch host PATH N     N ranks on a Unix socket: the first VM that connects is rank 0, and so on;
 *                              runs until its standard input closes, then prints the counters (bench/net) */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/alloc.h"
#include "io/listener.h"
#include "net/filter.h"
#include "net/switch.h"

enum { PORTS = 9, SECONDS_NS = 1000000000 };

static void die(const char *what, const struct err *e)
{
	fprintf(stderr, "net-switch: %s: %s\n", what, e ? e->text : strerror(errno));
	exit(1);
}

static uint64_t cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * SECONDS_NS + (uint64_t)t.tv_nsec;
}

static void make_frame(uint8_t *wire, uint32_t to, size_t len)
{
	struct subnet s = {10u << 24, 16};
	uint32_t word = htonl((uint32_t)len), ip = htonl(address_ipv4(&s, 0));
	memset(wire, 0, len + 4);
	memcpy(wire, &word, 4);
	address_mac(to, wire + 4);
	address_mac(0, wire + 10);
	wire[16] = 0x08; /* IPv4 */
	memcpy(wire + 4 + 26, &ip, 4);
}

static void drain(int fd)
{
	static char sink[1 << 20];
	while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		;
}

struct cost {
	uint64_t ns;
	struct netswitch_stats s;
};

/* `burst` frames at most are waiting at each wake-up (0: as many as the socket holds), for `spread`
 * destinations in turn. */
static struct cost measure(size_t len, unsigned burst, unsigned spread)
{
	struct subnet subnet = {10u << 24, 16};
	struct err e = ERR_INIT;
	struct cost c = {0};
	int vm[PORTS], pair[2];
	uint8_t *wire[PORTS];
	struct loop *l = loop_create();
	struct netswitch *n = netswitch_create(l, &subnet, PORTS);
	for (uint32_t r = 0; r < PORTS; r++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			die("socketpair", NULL);
		if (netswitch_attach(n, r, pair[0], &e) < 0)
			die("attach", &e);
		vm[r] = pair[1];
		wire[r] = xmalloc(len + 4);
		make_frame(wire[r], r, len);
	}
	uint32_t to = 0;
	size_t left = 0; /* of a frame that the socket did not take whole */
	while (c.ns < SECONDS_NS / 2) {
		for (unsigned i = 0; !burst || i < burst; i++) {
			if (!left) {
				to = to % spread + 1;
				left = len + 4;
			}
			ssize_t k = send(vm[0], wire[to] + len + 4 - left, left, MSG_DONTWAIT);
			if (k < 0)
				break;
			left -= (size_t)k;
		}
		uint64_t begin = cpu_ns();
		loop_run_once(l);
		c.ns += cpu_ns() - begin;
		for (uint32_t r = 1; r <= spread; r++)
			drain(vm[r]);
	}
	netswitch_stats(n, &c.s);
	netswitch_destroy(n);
	for (uint32_t r = 0; r < PORTS; r++) {
		close(vm[r]);
		free(wire[r]);
	}
	loop_run_once(l);
	loop_destroy(l);
	return c;
}

static int bench_cpu(void)
{
	static const size_t sizes[] = {64, 1514, 9014, 16014, 65549};
	static const struct {
		const char *name;
		unsigned burst, spread;
	} ways[] = {{"a full socket", 0, 1}, {"full, 8 receivers", 0, 8}, {"one at a time", 1, 1}};
	printf("%-18s %7s %12s %10s %10s %6s\n", "waiting", "bytes", "frames/s", "GB/s", "ns/frame",
	       "lost");
	for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			struct cost c = measure(sizes[i], ways[w].burst, ways[w].spread);
			double s = (double)c.ns / SECONDS_NS;
			printf("%-18s %7zu %12.0f %10.2f %10.0f %6" PRIu64 "\n", ways[w].name,
			       sizes[i], (double)c.s.frames / s, (double)c.s.bytes / s / 1e9,
			       (double)c.ns / (double)c.s.frames, c.s.dropped_full);
		}
	return 0;
}

static struct host {
	struct loop *loop;
	struct netswitch *net;
	uint32_t next, size;
} host;

static void on_connect(void *arg, int fd, uid_t uid)
{
	struct err e = ERR_INIT;
	(void)arg;
	(void)uid;
	if (netswitch_attach(host.net, host.next % host.size, fd, &e) < 0)
		die("attach", &e);
	printf("rank %u connected\n", host.next++ % host.size);
	fflush(stdout);
}

static void on_stdin(void *arg, int events)
{
	char c;
	(void)arg;
	(void)events;
	if (read(STDIN_FILENO, &c, 1) == 0)
		loop_stop(host.loop);
}

static int bench_host(const char *path, const char *ranks)
{
	struct subnet s = {10u << 24 | 199u << 16, 16};
	struct err e = ERR_INIT;
	struct netswitch_stats t;
	host.size = (uint32_t)MAX(atoi(ranks), 1);
	host.loop = loop_create();
	host.net = netswitch_create(host.loop, &s, host.size);
	struct listener *ln = listener_create(host.loop, path, on_connect, NULL, &e);
	struct watch *in = ln ? watch_create(host.loop, STDIN_FILENO, on_stdin, NULL, &e) : NULL;
	if (!in)
		die(path, &e);
	watch_set(in, WATCH_READ);
	uint64_t begin = cpu_ns();
	loop_run(host.loop);
	double cpu = (double)(cpu_ns() - begin) / SECONDS_NS;
	netswitch_stats(host.net, &t);
	printf("cpu %.3f s; frames %" PRIu64 ", bytes %" PRIu64 ", answered %" PRIu64
	       ", ignored %" PRIu64 "; dropped: full %" PRIu64 ", spoof %" PRIu64
	       ", unknown %" PRIu64 ", broadcast %" PRIu64 "\n",
	       cpu, t.frames, t.bytes, t.answered, t.ignored, t.dropped_full, t.dropped_spoof,
	       t.dropped_unknown, t.dropped_broadcast);
	watch_destroy(in);
	listener_destroy(ln);
	netswitch_destroy(host.net);
	loop_run_once(host.loop);
	loop_destroy(host.loop);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "cpu") == 0)
		return bench_cpu();
	if (argc == 4 && strcmp(argv[1], "host") == 0)
		return bench_host(argv[2], argv[3]);
	fprintf(stderr, "usage: net-switch cpu | net-switch host PATH N\n");
	return 2;
}
