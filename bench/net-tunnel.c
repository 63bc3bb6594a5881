/* SPDX-License-Identifier: Apache-2.0 */
/* What the way between nodes costs, next to the way through one switch.
 *   net-tunnel cost [SECONDS [ROUNDS [SIZE...]]]   two programs in place of VMs, over one switch, and over two joined
 *       by a tunnel, plain and with TLS, in turn: throughput with a window as TCP has, the CPU time of the agents
 *       for it, and the time of a frame from VM to VM. Medians.
 *   net-tunnel host PATH0 PATH1 plain|tls          rank 0 on a Unix socket of one agent, rank 1 on one of another;
 *       runs until its standard input closes, then prints the counters (bench/net) */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "io/listener.h"
#include "io/tls.h"
#include "net/filter.h"
#include "net/tunnel.h"

enum {
	SECOND_NS = 1000000000,
	WINDOW = 512 << 10, /* bytes that are on their way */
	ACK_EVERY = 64 << 10,
	ROUND_TRIPS = 2000,
	ROUNDS_MAX = 99,
	ECHO = 'e',
	DATA = 'd',
};

enum way { SWITCH, PLAIN, TLS, WAYS };
static const char *const way_names[WAYS] = {"switch", "tunnel", "tunnel, TLS"};
static const struct subnet subnet = {10u << 24 | 199u << 16, 16};

static void die(const char *what, const struct err *e)
{
	fprintf(stderr, "net-tunnel: %s: %s\n", what, e && e->code ? e->text : strerror(errno));
	exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static void make_pair(int pair[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		die("socketpair", NULL);
}

/* Two ends of a TCP connection. */
static void make_tcp(int pair[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int ln = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ln < 0 || bind(ln, (void *)&a, n) < 0 || listen(ln, 1) < 0 ||
	    getsockname(ln, (void *)&a, &n) < 0)
		die("listen", NULL);
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (pair[0] < 0 || connect(pair[0], (void *)&a, n) < 0)
		die("connect", NULL);
	pair[1] = accept(ln, NULL, NULL);
	if (pair[1] < 0)
		die("accept", NULL);
	close(ln);
}

/* ---- an agent ---- */

struct node {
	uint32_t self;
	struct loop *loop;
	struct netswitch *net;
	struct tunnel *tunnel;
	struct tls_context *tls;
};

static void on_connect(void *arg, uint32_t node)
{
	(void)arg;
	fprintf(stderr, "net-tunnel: asked for another link to node %u\n", node);
	exit(1);
}

static void on_closed(void *arg, uint32_t node, const struct err *err)
{
	(void)arg;
	(void)node;
	if (err->code)
		die("link", err);
}

static const struct tunnel_ops tunnel_ops = {.connect = on_connect, .closed = on_closed};

static void no_data(void *arg, struct buf *in)
{
	(void)arg;
	(void)in;
}

static void no_close(void *arg, const struct err *err)
{
	(void)arg;
	die("link", err);
}

static const struct stream_ops no_ops = {.on_data = no_data, .on_close = no_close};

/* link: a socket to the other node, taken; -1: none. */
static void node_init(struct node *n, uint32_t self, int link, enum way way)
{
	static const uint8_t secret[TLS_SECRET_SIZE] = "only for measuring, not a secret";
	struct tunnel_config config = {.self = self};
	struct err e = ERR_INIT;
	struct stream *s;
	*n = (struct node){.self = self, .loop = loop_create()};
	n->net = netswitch_create(n->loop, &subnet, 2);
	if (link < 0)
		return;
	n->tunnel = tunnel_create(n->loop, n->net, &config, &tunnel_ops, n);
	tunnel_place(n->tunnel, 0, 1, 0, NULL);
	tunnel_place(n->tunnel, 1, 1, 1, NULL);
	if (way == TLS) {
		n->tls = tls_context_create(secret, "vse:bench", &e);
		s = n->tls ? stream_create_tls(n->loop, link, n->tls,
					       self ? TLS_SERVER : TLS_CLIENT, &no_ops, NULL, &e)
			   : NULL;
	} else {
		s = stream_create(n->loop, link, &no_ops, NULL, &e);
	}
	if (!s || tunnel_attach(n->tunnel, !self, self == 0, s, &e) < 0)
		die("link", &e);
}

static void on_stop(void *arg, int events)
{
	struct node *n = arg;
	char c;
	(void)events;
	if (read(STDIN_FILENO, &c, 1) == 0)
		loop_stop(n->loop);
}

static void node_finish(struct node *n)
{
	tunnel_destroy(n->tunnel);
	netswitch_destroy(n->net);
	loop_run_once(n->loop);
	tls_context_destroy(n->tls);
	loop_destroy(n->loop);
}

static pid_t child(void)
{
	pid_t pid = fork();
	if (pid < 0)
		die("fork", NULL);
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* port0, port1: the switch's ends of the VMs that it has; -1: none. Runs until it is killed. */
static pid_t start_node(uint32_t self, int port0, int port1, int link, enum way way)
{
	pid_t pid = child();
	if (pid)
		return pid;
	struct node n;
	struct err e = ERR_INIT;
	static const char *const names[WAYS] = {"agent-switch", "agent-plain", "agent-tls"};
	prctl(PR_SET_NAME, names[way]); /* for a profiler */
	node_init(&n, self, link, way);
	if ((port0 >= 0 && netswitch_attach(n.net, 0, port0, &e) < 0) ||
	    (port1 >= 0 && netswitch_attach(n.net, 1, port1, &e) < 0))
		die("port", &e);
	loop_run(n.loop);
	_exit(1);
}

/* ---- in place of VMs ---- */

static void write_all(int fd, const uint8_t *p, size_t n)
{
	while (n) {
		ssize_t k = write(fd, p, n);
		if (k < 0)
			die("write", NULL);
		p += k;
		n -= (size_t)k;
	}
}

struct reader {
	int fd;
	size_t at, have;
	uint8_t bytes[512 << 10];
};

/* The next frame, with its length word; waits for it. */
static const uint8_t *read_frame(struct reader *r, size_t *ret_len)
{
	for (;;) {
		uint32_t len;
		size_t left = r->have - r->at;
		if (left >= 4) {
			memcpy(&len, r->bytes + r->at, 4);
			len = ntohl(len);
			if (left >= 4 + len) {
				const uint8_t *f = r->bytes + r->at;
				r->at += 4 + len;
				*ret_len = len;
				return f;
			}
		}
		memmove(r->bytes, r->bytes + r->at, left);
		r->have = left;
		r->at = 0;
		ssize_t k = read(r->fd, r->bytes + left, sizeof(r->bytes) - left);
		if (k <= 0)
			return NULL;
		r->have += (size_t)k;
	}
}

static void make_frame(uint8_t *wire, uint32_t from, size_t len, uint8_t kind)
{
	uint32_t word = htonl((uint32_t)len), ip = htonl(address_ipv4(&subnet, from));
	memset(wire, 0, len + 4);
	memcpy(wire, &word, 4);
	address_mac(!from, wire + 4);
	address_mac(from, wire + 10);
	wire[16] = 0x08; /* IPv4 */
	memcpy(wire + 4 + 26, &ip, 4);
	wire[4 + 40] = kind;
}

/* Rank 1: sends back what is to be echoed, and a short frame for every ACK_EVERY bytes. */
static pid_t start_peer(int fd)
{
	static struct reader r;
	static uint8_t wire[FRAME_MAX + 4];
	size_t len, count = 0;
	const uint8_t *f;
	pid_t pid = child();
	if (pid)
		return pid;
	r.fd = fd;
	while ((f = read_frame(&r, &len))) {
		bool echo = f[4 + 40] == ECHO;
		count += echo ? 0 : len;
		if (!echo && count < ACK_EVERY)
			continue;
		count -= echo ? 0 : ACK_EVERY;
		make_frame(wire, 1, echo ? len : 60, ECHO);
		write_all(fd, wire, 4 + (echo ? len : 60));
	}
	_exit(0);
}

struct numbers {
	double mbs, cpu_ms_gb, us;
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double one_way_us(struct reader *r, size_t len)
{
	static uint8_t wire[FRAME_MAX + 4];
	static double t[ROUND_TRIPS];
	make_frame(wire, 0, len, ECHO);
	for (int i = 0; i < ROUND_TRIPS; i++) {
		uint64_t begin = now_ns(CLOCK_MONOTONIC);
		write_all(r->fd, wire, len + 4);
		if (!read_frame(r, &(size_t){0}))
			die("echo", NULL);
		t[i] = (double)(now_ns(CLOCK_MONOTONIC) - begin) / 2e3;
	}
	qsort(t, ROUND_TRIPS, sizeof(t[0]), by_value);
	return t[ROUND_TRIPS / 2];
}

static double send_for(struct reader *r, size_t len, double seconds)
{
	static uint8_t wire[FRAME_MAX + 4];
	size_t out = 0, bytes = 0;
	uint64_t begin = now_ns(CLOCK_MONOTONIC), end = begin + (uint64_t)(seconds * SECOND_NS);
	make_frame(wire, 0, len, DATA);
	while (now_ns(CLOCK_MONOTONIC) < end) {
		while (out + len <= WINDOW) {
			write_all(r->fd, wire, len + 4);
			out += len;
		}
		if (!read_frame(r, &(size_t){0}))
			die("acknowledgement", NULL);
		out -= ACK_EVERY;
		bytes += ACK_EVERY;
	}
	return (double)bytes;
}

static uint64_t cpu_of(pid_t pid)
{
	clockid_t clock;
	return pid && clock_getcpuclockid(pid, &clock) == 0 ? now_ns(clock) : 0;
}

static struct numbers measure(enum way way, size_t len, double seconds)
{
	static struct reader r;
	int vm0[2], vm1[2], link[2];
	pid_t node[2] = {0, 0}, peer;
	make_pair(vm0);
	make_pair(vm1);
	if (way == SWITCH) {
		node[0] = start_node(0, vm0[0], vm1[0], -1, way);
	} else {
		make_tcp(link);
		node[0] = start_node(0, vm0[0], -1, link[0], way);
		node[1] = start_node(1, -1, vm1[0], link[1], way);
		close(link[0]);
		close(link[1]);
	}
	peer = start_peer(vm1[1]);
	close(vm0[0]);
	close(vm1[0]);
	close(vm1[1]);
	r = (struct reader){.fd = vm0[1]};
	struct numbers n = {.us = one_way_us(&r, len)};
	uint64_t cpu = cpu_of(node[0]) + cpu_of(node[1]), begin = now_ns(CLOCK_MONOTONIC);
	double bytes = send_for(&r, len, seconds);
	n.mbs = bytes / (double)(now_ns(CLOCK_MONOTONIC) - begin) * 1e3;
	n.cpu_ms_gb = (double)(cpu_of(node[0]) + cpu_of(node[1]) - cpu) / bytes * 1e3;
	close(vm0[1]);
	for (int i = 0; i < 2; i++)
		if (node[i])
			end_child(node[i]);
	end_child(peer);
	return n;
}

static double median(const struct numbers *n, unsigned rounds, size_t field)
{
	double v[ROUNDS_MAX];
	for (unsigned i = 0; i < rounds; i++)
		memcpy(&v[i], (const char *)&n[i] + field, sizeof(double));
	qsort(v, rounds, sizeof(v[0]), by_value);
	return v[rounds / 2];
}

static int bench_cost(double seconds, unsigned rounds, char **sizes, unsigned n_sizes)
{
	static struct numbers n[WAYS][ROUNDS_MAX];
	printf("%-12s %6s %10s %18s %12s\n", "way", "bytes", "MB/s", "agents' CPU ms/GB", "one way us");
	for (unsigned i = 0; i < n_sizes; i++) {
		size_t len = (size_t)strtoul(sizes[i], NULL, 10);
		if (len < 60 || len > ACK_EVERY)
			die("a size is 60 to 65536", &(struct err){.code = EINVAL, .text = "no"});
		for (unsigned k = 0; k < rounds; k++)
			for (enum way w = 0; w < WAYS; w++)
				n[w][k] = measure(w, len, seconds);
		for (enum way w = 0; w < WAYS; w++)
			printf("%-12s %6zu %10.0f %18.0f %12.1f\n", way_names[w], len,
			       median(n[w], rounds, offsetof(struct numbers, mbs)),
			       median(n[w], rounds, offsetof(struct numbers, cpu_ms_gb)),
			       median(n[w], rounds, offsetof(struct numbers, us)));
	}
	return 0;
}

/* ---- for bench/net ---- */

static void on_vm(void *arg, int fd, uid_t uid)
{
	struct node *n = arg;
	struct err e = ERR_INIT;
	(void)uid;
	if (netswitch_attach(n->net, n->self, fd, &e) < 0)
		die("attach", &e);
	printf("rank %u connected\n", n->self);
	fflush(stdout);
}

static void run_host(uint32_t self, const char *path, int link, enum way way)
{
	struct node n;
	struct err e = ERR_INIT;
	struct tunnel_stats t;
	node_init(&n, self, link, way);
	struct listener *ln = listener_create(n.loop, path, on_vm, &n, &e);
	struct watch *in = ln ? watch_create(n.loop, STDIN_FILENO, on_stop, &n, &e) : NULL;
	if (!in)
		die(path, &e);
	watch_set(in, WATCH_READ);
	loop_run(n.loop);
	tunnel_stats(n.tunnel, &t);
	printf("node %u: cpu %.3f s; sent %" PRIu64 " in %" PRIu64 " writes, received %" PRIu64
	       "; dropped: full %" PRIu64 ", link %" PRIu64 ", spoof %" PRIu64 ", strayed %" PRIu64 "\n",
	       self, (double)now_ns(CLOCK_PROCESS_CPUTIME_ID) / SECOND_NS, t.sent, t.writes,
	       t.received, t.dropped_full, t.dropped_link, t.dropped_spoof, t.dropped_strayed);
	watch_destroy(in);
	listener_destroy(ln);
	node_finish(&n);
}

static int bench_host(const char *path0, const char *path1, const char *mode)
{
	enum way way = strcmp(mode, "tls") == 0 ? TLS : PLAIN;
	int link[2];
	make_tcp(link);
	pid_t other = child();
	close(link[other ? 1 : 0]);
	run_host(!other, other ? path0 : path1, link[!other], way);
	if (other)
		waitpid(other, NULL, 0);
	return 0;
}

int main(int argc, char **argv)
{
	static char sizes[][6] = {"64", "1514", "9014", "65536"};
	char *normal[] = {sizes[0], sizes[1], sizes[2], sizes[3]};
	signal(SIGPIPE, SIG_IGN);
	if (argc >= 2 && strcmp(argv[1], "cost") == 0) {
		double seconds = argc > 2 ? atof(argv[2]) : 1;
		unsigned rounds = argc > 3 ? (unsigned)atoi(argv[3]) : 3;
		if (seconds > 0 && rounds >= 1 && rounds <= ROUNDS_MAX)
			return argc > 4 ? bench_cost(seconds, rounds, argv + 4, (unsigned)argc - 4)
					: bench_cost(seconds, rounds, normal, ARRAY_SIZE(normal));
	}
	if (argc == 5 && strcmp(argv[1], "host") == 0)
		return bench_host(argv[2], argv[3], argv[4]);
	fprintf(stderr, "usage: net-tunnel cost [SECONDS [ROUNDS [SIZE...]]] | host PATH0 PATH1 "
			"plain|tls\n");
	return 2;
}
