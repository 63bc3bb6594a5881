/* SPDX-License-Identifier: Apache-2.0 */
/* Links over TCP: who finds whom behind which address, and what strangers can cost. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "io/link.h"
#include "tap.h"
#include "tls-peers.h"

#define MANY 1500 /* links, one after the other */
#define FLOOD 150 /* connections of a stranger; more than LINK_PENDING_MAX */

struct loop *loop;

static const uint8_t secret[TLS_SECRET_SIZE] = "0123456789abcdef0123456789abcde";
static const uint8_t other_secret[TLS_SECRET_SIZE] = "another one, also of 32 bytes..";
static struct tls_context *ts, *tc;

static char *const local[] = {(char *)"127.0.0.1", NULL};

struct host {
	struct link_listener *ln;
	struct end end; /* of the last link */
	int links, refusals;
	struct err why;
	char peer[TCP_PEER_SIZE];
	bool destroy_on_link, destroy_on_refused;
};

static void on_link(void *arg, struct stream *s, const char *peer)
{
	struct host *h = arg;
	h->links++;
	snprintf(h->peer, sizeof(h->peer), "%s", peer);
	end_finish(&h->end);
	h->end.s = s;
	h->end.hoard = true;
	stream_set_ops(s, &end_ops, &h->end);
	if (h->destroy_on_link)
		link_listener_destroy(TAKE_PTR(h->ln));
}

static void on_refused(void *arg, const char *peer, const struct err *why)
{
	struct host *h = arg;
	h->refusals++;
	snprintf(h->peer, sizeof(h->peer), "%s", peer);
	h->why = *why;
	if (h->destroy_on_refused)
		link_listener_destroy(TAKE_PTR(h->ln));
}

static const struct link_listener_ops host_ops = {.on_link = on_link, .on_refused = on_refused};

static bool host_open(struct host *h, struct tls_context *t, char *const *addresses, uint16_t port)
{
	struct err err = ERR_INIT;
	h->ln = link_listener_create(loop, t, addresses, port, &host_ops, h, &err);
	if (!h->ln)
		printf("# %s\n", err.text);
	return h->ln != NULL;
}

static void host_close(struct host *h)
{
	link_listener_destroy(h->ln);
	end_finish(&h->end);
	*h = (struct host){0};
}

struct guest {
	struct end end;
	struct link_dial *dial;
	int done;
	char address[TCP_ADDRESS_SIZE];
	struct err why;
	bool drop; /* at once */
};

static void on_done(void *arg, struct stream *s, const char *address, const struct err *err)
{
	struct guest *g = arg;
	g->done++;
	g->dial = NULL;
	if (!s) {
		g->why = *err;
		return;
	}
	snprintf(g->address, sizeof(g->address), "%s", address);
	g->end.s = s;
	g->end.hoard = true;
	stream_set_ops(s, &end_ops, &g->end);
	if (g->drop)
		stream_destroy(TAKE_PTR(g->end.s));
}

static void dial(struct guest *g, struct tls_context *t, char *const *addresses, uint16_t port,
		 uint64_t bound_ms)
{
	struct err err = ERR_INIT;
	g->done = 0;
	g->dial = link_dial(loop, t, addresses, port, bound_ms, on_done, g, &err);
	if (!g->dial) {
		g->done = 1;
		g->why = err;
	}
}

static void hang_up(struct guest *g)
{
	end_finish(&g->end);
	*g = (struct guest){0};
}

/* ---- */

static void test_meet(void)
{
	struct host h = {0};
	struct guest g = {0};
	char peer[TCP_PEER_SIZE];
	int on = 0;
	socklen_t len = sizeof(on);
	ok(host_open(&h, ts, NULL, 0), "listen on all addresses");
	uint16_t port = link_listener_port(h.ln);
	ok(port > 0, "the kernel chooses the port");
	dial(&g, tc, local, port, 30000);
	is_int(g.done, 0, "on_done only comes from the loop");
	run_until(&g.done);
	ok(g.end.s != NULL, "connected: %s", g.why.text);
	stream_write(g.end.s, "hello", 5);
	run_until(&h.links);
	run_until(&h.end.reads);
	is_str(buf_cstr(&h.end.got), "hello", "the first bytes come to the owner");
	stream_write(h.end.s, "welcome", 7);
	run_until(&g.end.reads);
	is_str(buf_cstr(&g.end.got), "welcome", "and back");
	ok(strncmp(h.peer, "127.0.0.1:", 10) == 0, "the peer is %s", h.peer);
	tcp_peer(stream_fd(g.end.s), peer);
	ok(strncmp(peer, "127.0.0.1:", 10) == 0 && atoi(peer + 10) == port, "and ours %s", peer);
	ok(getsockopt(stream_fd(h.end.s), IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on,
	   "no delay");
	ok(getsockopt(stream_fd(h.end.s), SOL_SOCKET, SO_KEEPALIVE, &on, &len) == 0 && on,
	   "keep-alive");
	ok(getsockopt(stream_fd(g.end.s), IPPROTO_TCP, TCP_USER_TIMEOUT, &on, &len) == 0 && on == 60000,
	   "a limit to silence");
	host_close(&h);
	run_until(&g.end.closes);
	is_int(g.end.why.code, 0, "the owner's end is an end");
	hang_up(&g);
}

static void test_addresses(void)
{
	struct host h = {0};
	struct guest g = {0};
	char *six[] = {(char *)"::1", NULL}, *two[] = {(char *)"127.0.0.1", (char *)"127.0.0.2", NULL};
	char *second[] = {(char *)"127.0.0.2", NULL}, *bad[] = {(char *)"localhost", NULL},
	     *none[] = {NULL};
	char *abroad[] = {(char *)"192.0.2.1", NULL};
	struct err err = ERR_INIT;
	ok(host_open(&h, ts, two, 0), "listen on two addresses");
	dial(&g, tc, second, link_listener_port(h.ln), 30000);
	run_until(&g.done);
	ok(g.end.s != NULL, "both have one port: %s", g.why.text);
	ok(!link_listener_create(loop, ts, two, link_listener_port(h.ln), &host_ops, &h, &err) &&
		   err.code == EADDRINUSE,
	   "a port that is taken: %s", err.text);
	host_close(&h);
	hang_up(&g);
	if (host_open(&h, ts, six, 0)) {
		dial(&g, tc, six, link_listener_port(h.ln), 30000);
		run_until(&g.done);
		run_until(&h.links);
		ok(g.end.s && strncmp(h.peer, "[::1]:", 6) == 0, "IPv6: %s", h.peer);
		host_close(&h);
		hang_up(&g);
	} else {
		tap_skip("no IPv6 here");
	}
	dial(&g, tc, bad, 1, 1000);
	ok(!g.dial && g.why.code == EINVAL, "a name is no address: %s", g.why.text);
	dial(&g, tc, none, 1, 1000);
	ok(!g.dial && g.why.code == EINVAL, "nor is nothing: %s", g.why.text);
	ok(!link_listener_create(loop, ts, bad, 0, &host_ops, &h, &err) && err.code == EINVAL,
	   "neither to listen on");
	ok(!link_listener_create(loop, ts, abroad, 0, &host_ops, &h, &err) && err.code == EADDRNOTAVAIL,
	   "an address of another host: %s", err.text);
	ok(tcp_address_check("10.0.0.1", NULL) == 0 && tcp_address_check("fe80::1%lo", NULL) == 0 &&
		   tcp_address_check("10.0.0", NULL) < 0 &&
		   tcp_address_check("fe80::1%nosuch", NULL) < 0 && tcp_address_check("", NULL) < 0,
	   "what is an address");
}

static void test_own_addresses(void)
{
	_cleanup_strvec_ struct strvec own = STRVEC_INIT;
	struct err err = ERR_INIT;
	bool four = false, numeric = true, order = true, seen = false;
	ok(tcp_own_addresses(&own, &err) == 0, "own addresses %s", err.text);
	for (size_t i = 0; i < own.n; i++) {
		bool lo = strncmp(own.v[i], "127.", 4) == 0 || strcmp(own.v[i], "::1") == 0;
		four |= strcmp(own.v[i], "127.0.0.1") == 0;
		numeric &= tcp_address_check(own.v[i], NULL) == 0;
		order &= lo || !seen;
		seen |= lo;
		printf("# %s\n", own.v[i]);
	}
	ok(four && numeric && order, "%zu, the loopback's last", own.n);
}

/* One silent host, one of strangers, one that refuses the connection, and ours, all on one port. */
static void test_choice(void)
{
	struct host h = {0}, foreign = {0};
	struct guest g = {0};
	struct tls_context *tf = tls_context_create(other_secret, "vse:test", NULL);
	char *ours[] = {(char *)"127.0.0.1", NULL}, *theirs[] = {(char *)"127.0.0.3", NULL};
	char *all[] = {(char *)"127.0.0.2", (char *)"127.0.0.3", (char *)"127.0.0.4",
		       (char *)"127.0.0.1", NULL};
	int silent = -1;
	uint16_t port;
	struct err err = ERR_INIT;
	ok(host_open(&h, ts, ours, 0), "our host");
	port = link_listener_port(h.ln);
	ok(host_open(&foreign, tf, theirs, port), "another cluster on the same port");
	ok(tcp_listen("127.0.0.2", port, &silent, &port, &err) == 0, "a silent one %s", err.text);
	dial(&g, tc, all, port, 30000);
	run_until(&g.done);
	ok(g.end.s != NULL, "found: %s", g.why.text);
	is_str(g.address, "127.0.0.1", "behind the last address");
	run_until(&foreign.refusals);
	is_int(foreign.why.code, EACCES, "the stranger refused us: %s", foreign.why.text);
	hang_up(&g);
	end_finish(&h.end);

	all[3] = NULL;
	dial(&g, tc, all, port, 1000);
	run_until(&g.done);
	ok(!g.end.s && g.why.code == EACCES, "not there: %s", g.why.text);
	ok(strstr(g.why.text, "127.0.0.2: no answer") &&
		   strstr(g.why.text, "127.0.0.3: TLS: it refused us") &&
		   strstr(g.why.text, "127.0.0.4: connect: Connection refused"),
	   "the reason of each is told");
	all[1] = NULL;
	dial(&g, tc, all, port, 60);
	run_until(&g.done);
	ok(!g.end.s && g.why.code == ETIMEDOUT, "the bound: %s", g.why.text);
	all[0] = (char *)"127.0.0.4";
	dial(&g, tc, all, port, 30000);
	run_until(&g.done);
	ok(!g.end.s && g.why.code == ECONNREFUSED, "nobody: %s", g.why.text);
	dial(&g, ts, ours, port, 30000);
	run_until(&g.done);
	ok(!g.end.s, "ourselves: %s", g.why.text);
	run_until(&h.refusals);
	is_int(h.why.code, ELOOP, "the listening half knows: %s", h.why.text);
	close(silent);
	host_close(&h);
	host_close(&foreign);
	hang_up(&g);
	tls_context_destroy(tf);
}

static void test_destroyed(void)
{
	struct host h = {.destroy_on_link = true};
	struct guest g = {0};
	char *all[] = {(char *)"127.0.0.1", (char *)"127.0.0.1", NULL};
	host_open(&h, ts, local, 0);
	dial(&g, tc, local, link_listener_port(h.ln), 30000);
	run_until(&g.done);
	run_until(&h.links);
	stream_write(g.end.s, "x", 1);
	run_until(&h.end.reads);
	ok(!h.ln && h.end.bytes == 1, "a listener destroyed in on_link: the link stays");
	host_close(&h);
	hang_up(&g);
	h.destroy_on_refused = true;
	host_open(&h, ts, local, 0);
	dial(&g, ts, all, link_listener_port(h.ln), 30000);
	run_until(&g.done);
	ok(!h.ln && h.refusals == 1, "one destroyed in on_refused");
	host_close(&h);
	hang_up(&g);
	host_open(&h, ts, local, 0);
	for (int rounds = 0; rounds < 8; rounds++) {
		dial(&g, tc, all, link_listener_port(h.ln), 30000);
		run_rounds(rounds / 2);
		link_dial_cancel(g.done ? NULL : g.dial);
		hang_up(&g);
	}
	run_rounds(2);
	is_int(g.done, 0, "a cancelled dial says nothing");
	dial(&g, tc, all, link_listener_port(h.ln), 30000);
	run_rounds(1);
	link_dial_cancel(g.done ? NULL : g.dial);
	host_close(&h); /* with what is not authenticated yet */
	hang_up(&g);
}

/* ---- what it costs ---- */

static int count_fds(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void many(struct host *h, struct tls_context *client, int n)
{
	for (int i = 0; i < n; i++) {
		struct guest g = {.drop = i & 1};
		int links = h->links, refusals = h->refusals, settled = 0;
		dial(&g, client, local, link_listener_port(h->ln), 30000);
		run_until(&g.done);
		while (!settled) {
			settled = h->links > links || h->refusals > refusals;
			if (!settled)
				loop_run_once(loop);
		}
		hang_up(&g);
		if (h->end.s)
			run_until(&h->end.closes);
	}
}

static void test_many(void)
{
	struct host h = {0};
	struct tls_context *tf = tls_context_create(other_secret, "vse:test", NULL);
	host_open(&h, ts, local, 0);
	many(&h, tc, 20);
	many(&h, tf, 20);
	int fds = count_fds(), links = h.links, refusals = h.refusals;
	size_t heap = mallinfo2().uordblks;
	many(&h, tc, MANY);
	many(&h, tf, MANY);
	run_rounds(3);
	is_int(h.links - links, MANY, "%d links made and closed", MANY);
	is_int(h.refusals - refusals, MANY, "as many strangers refused");
	is_int(count_fds(), fds, "no descriptor is left of them");
	long grown = (long)mallinfo2().uordblks - (long)heap; /* 0 under a sanitizer, which looks itself */
	ok(grown < 64 << 10, "nor memory: %ld bytes", grown);
	host_close(&h);
	tls_context_destroy(tf);
}

static int stranger(uint16_t port)
{
	static const char hello[7000] = "\x16\x03\x01\x40"; /* the first half of a record */
	struct sockaddr_in from = {.sin_family = AF_INET},
			   to = {.sin_family = AF_INET, .sin_port = htons(port)};
	from.sin_addr.s_addr = htonl(0x7f000009);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0 &&
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0) {
		if (send(fd, hello, sizeof(hello), MSG_DONTWAIT) < 0)
			abort();
		return fd;
	}
	abort();
}

/* One host takes all places, and never ends what it says. */
static void test_flood(void)
{
	struct host h = {0};
	struct guest g = {0};
	int fds[FLOOD];
	struct rlimit rl;
	struct tls_stats before, after;
	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = MIN((rlim_t)4096, rl.rlim_max);
	setrlimit(RLIMIT_NOFILE, &rl);
	tls_context_stats(ts, &before);
	host_open(&h, ts, local, 0);
	int was = count_fds();
	size_t heap = mallinfo2().uordblks;
	for (int i = 0; i < FLOOD; i++) {
		fds[i] = stranger(link_listener_port(h.ln));
		if (i % 32 == 31)
			run_rounds(2);
	}
	run_rounds(20);
	is_int(count_fds() - was - FLOOD, LINK_PENDING_MAX, "so many of %d are let in", FLOOD);
	long grown = (long)mallinfo2().uordblks - (long)heap;
	ok(grown < 16 << 20, "in %ld KiB", grown >> 10);
	dial(&g, tc, local, link_listener_port(h.ln), 60000);
	run_until(&g.done);
	ok(g.end.s != NULL, "a member comes in all the same: %s", g.why.text);
	tls_context_stats(ts, &after);
	ok(after.refused[TLS_REFUSED_CROWDED] > before.refused[TLS_REFUSED_CROWDED] &&
		   h.why.code == EBUSY && strncmp(h.peer, "127.0.0.9:", 10) == 0,
	   "the stranger gave way: %s", h.why.text);
	for (int i = 0; i < FLOOD; i++)
		close(fds[i]);
	host_close(&h);
	hang_up(&g);
}

struct ticks {
	int n;
};

static void on_tick(void *arg)
{
	((struct ticks *)arg)->n++;
}

/* No descriptor is left for a newcomer: that costs no time, and he is served once there is one. */
static void test_full(void)
{
	struct host h = {0};
	struct rlimit was, none;
	int rounds = 0;
	struct ticks ticks = {0};
	host_open(&h, ts, local, 0);
	int fd = stranger(link_listener_port(h.ln));
	struct evtimer *t = evtimer_create(loop, on_tick, &ticks);
	getrlimit(RLIMIT_NOFILE, &was);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = was.rlim_max};
	setrlimit(RLIMIT_NOFILE, &none);
	evtimer_start(t, 20, 20);
	for (; ticks.n < 3; rounds++)
		loop_run_once(loop);
	setrlimit(RLIMIT_NOFILE, &was);
	evtimer_destroy(t);
	ok(rounds <= 10, "without descriptors the loop sleeps: %d rounds", rounds);
	close(fd);
	run_until(&h.refusals);
	is_int(h.why.code, ECONNABORTED, "then he is looked at: %s", h.why.text);
	host_close(&h);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	loop = loop_create();
	ts = tls_context_create(secret, "vse:test", NULL);
	tc = tls_context_create(secret, "vse:test", NULL);
	test_meet();
	test_addresses();
	test_own_addresses();
	test_choice();
	test_destroyed();
	test_many();
	test_flood();
	test_full();
	tls_context_destroy(ts);
	tls_context_destroy(tc);
	loop_destroy(loop);
	return done();
}
