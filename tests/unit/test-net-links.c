/* SPDX-License-Identifier: Apache-2.0 */
/* How a tunnel's links are made, settle, break and come back. */
#include "io/tls.h"
#include "net-sites.h"

/* ---- links are made ---- */

static void test_waiting(void)
{
	setup();
	answer_at_once = false;
	for (uint32_t i = 0; i < 50; i++)
		send_data(0, 4, 200, i);
	ok(wait_for(sites[0].asked[1] == 1), "the first frame asks for a link");
	rounds(20);
	is_int(sites[0].asked[1], 1, "once");
	ok(!tunnel_linked(sites[0].tunnel, 1) && stats(0).sent == 0, "nothing is sent before");
	join(0, 1);
	bool good = true;
	for (uint32_t i = 0; i < 50; i++)
		good = good && receive_data(4, 0, 200, i);
	ok(good, "what waited arrives, in order");
	ok(tunnel_linked(sites[0].tunnel, 1) && tunnel_linked(sites[1].tunnel, 0), "linked");
	is_int(stats(0).sent, 50, "then it counts as sent");
	is_int(stats(0).sent_bytes, 50 * 200, "with its bytes");
	for (uint32_t i = 0; i < 300; i++)
		send_data(0, 8, 9000, i);
	ok(wait_for(stats(0).dropped_link > 0), "what waits is bounded");
	ok(stats(0).queued <= 1 << 20 && stats(0).queued > (1 << 20) - 9004, "by the queue");
	ok(wait_for(stats(0).dropped_link == 300 - (1 << 20) / 9004),
	   "each of the rest is counted");
	tunnel_failed(sites[0].tunnel, 2);
	is_int(stats(0).queued, 0, "the dial fails: what waited is gone");
	is_int(stats(0).dropped_link, 300, "and counted");
	is_int(sites[0].asked[2], 1, "not asked anew without a frame");
	tunnel_detach(sites[0].tunnel, 2);
	is_int(stats(0).dropped_link, 300, "once");
	teardown();
}

static void test_backoff(void)
{
	setup_with((struct tunnel_config){.retry_min_ms = 40, .retry_max_ms = 80});
	answer_at_once = false;
	uint64_t waits[4];
	send_data(0, 4, 60, 0);
	wait_for(sites[0].asked[1] == 1);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t begin = loop_now(loop);
		tunnel_failed(sites[0].tunnel, 1);
		tunnel_failed(sites[0].tunnel, 1); /* an answer that comes twice */
		while (sites[0].asked[1] == i + 1 && loop_now(loop) < begin + WAIT_MS) {
			send_data(0, 4, 60, 0);
			loop_run_once(loop);
		}
		waits[i] = loop_now(loop) - begin;
	}
	ok(waits[0] >= 40 && waits[1] >= 80 && waits[2] >= 80 && waits[3] >= 80,
	   "waits %d %d %d %d ms", (int)waits[0], (int)waits[1], (int)waits[2], (int)waits[3]);
	ok(stats(0).dropped_link > 0, "what comes meanwhile is dropped and counted");
	is_int(stats(0).asked, 5, "asked once a wait");
	tunnel_failed(sites[0].tunnel, 1);
	tunnel_detach(sites[0].tunnel, 1);
	tunnel_failed(sites[0].tunnel, 1); /* late: nobody waits for it */
	unsigned before = sites[0].asked[1];
	send_data(0, 4, 60, 0);
	ok(wait_for(sites[0].asked[1] == before + 1), "a node that was detached is asked for anew");
	teardown();
}

/* Both dial at once. What arrives when is all up to chance: every order of the four ends, with and without
 * rounds of the loop in between. */
static bool collide(unsigned order, bool pauses)
{
	static const uint32_t at[] = {0, 1, 1, 0};
	int end[4]; /* dialed by 0: ends 0 (there), 1; dialed by 1: ends 2 (there), 3 */
	bool done[4] = {false}, good = true;
	setup();
	answer_at_once = false;
	unsigned before = descriptors();
	for (uint32_t i = 0; i < 20; i++) {
		send_data(0, 4, 100, i);
		send_data(4, 0, 100, i);
	}
	good = wait_for(sites[0].asked[1] == 1 && sites[1].asked[0] == 1);
	make_pair(end);
	make_pair(end + 2);
	for (unsigned left = 4; left; left--) {
		unsigned pick = order % left, i = 0;
		order /= left;
		while (done[i] || pick--)
			i++;
		done[i] = true;
		attach_fd(&sites[at[i]], !at[i], i == 0 || i == 2, end[i]);
		if (pauses)
			rounds(4);
	}
	for (uint32_t i = 0; i < 20; i++)
		good = good && receive_data(4, 0, 100, i) && receive_data(0, 4, 100, i);
	good = good && pass(0, 4, 100, 20) && pass(4, 0, 100, 20);
	good = good && wait_for(descriptors() == before + 2); /* the ends of one link */
	struct tunnel_stats a = stats(0), b = stats(1);
	good = good && a.links == 1 && b.links == 1 && a.lost + b.lost == 0;
	good = good && a.dropped_link + b.dropped_link == 0;
	teardown();
	return good;
}

static void test_collision(void)
{
	for (unsigned order = 0; order < 24; order++)
		ok(collide(order, false) && collide(order, true),
		   "order %u: one link, no frame lost or overtaken", order);
}

static void test_held(void)
{
	setup();
	answer_at_once = false;
	send_data(0, 4, 60, 1);
	ok(wait_for(sites[0].asked[1] == 1), "node 0 dials");
	int raw = join_raw(&sites[0], 1, false);
	rounds(10);
	ok(!tunnel_linked(sites[0].tunnel, 1), "a link from the higher index is held meanwhile");
	tunnel_failed(sites[0].tunnel, 1);
	ok(receive_go(raw), "the dial fails: it gets the go-ahead");
	ok(receive(raw) == 60, "and the frame that waited");
	is_int(stats(0).dropped_link, 0, "none is dropped");
	close(raw);
	ok(wait_for(!tunnel_linked(sites[0].tunnel, 1)), "closed");

	tunnel_detach(sites[0].tunnel, 1);
	send_data(0, 4, 60, 1);
	ok(wait_for(sites[0].asked[1] == 2), "again");
	raw = join_raw(&sites[0], 1, false);
	send_frame(raw, data(4, 0, 60, 1));
	ok(eof(raw), "who sends before the go-ahead is cut off");
	is_int(stats(0).bad, 1, "counted");
	is_int(stats(0).received, 0, "nothing of it arrives");
	close(raw);
	teardown();
}

/* The peer has lost the link that we still believe in. */
static void test_takeover(void)
{
	setup();
	answer_at_once = false;
	int old = join_raw(&sites[0], 1, false), fresh;
	ok(receive_go(old) && tunnel_linked(sites[0].tunnel, 1), "a link");
	fresh = join_raw(&sites[0], 1, false);
	rounds(3);
	close(fresh);
	rounds(3);
	send_data(0, 4, 60, 1);
	ok(receive(old) == 60, "a second one that is closed again changes nothing");
	is_int(sites[0].closed, 0, "and is nothing to report");
	close(old);
	teardown();

	setup_with((struct tunnel_config){.answer_ms = 40});
	answer_at_once = false;
	old = join_raw(&sites[0], 1, false);
	ok(receive_go(old) && tunnel_linked(sites[0].tunnel, 1), "a link");
	fresh = join_raw(&sites[0], 1, false);
	ok(receive_go(fresh), "a second one that stays gets the go-ahead");
	ok(eof(old), "and the old one is closed");
	send_data(0, 4, 70, 2);
	ok(receive(fresh) == 70, "frames take the new one");
	is_int(stats(0).lost, 1, "counted as lost");
	is_int(stats(0).links, 1, "one link");
	close(old);
	close(fresh);
	teardown();
}

static void test_no_answer(void)
{
	setup_with((struct tunnel_config){.answer_ms = 40});
	answer_at_once = false;
	send_data(0, 4, 60, 1);
	wait_for(sites[0].asked[1] == 1);
	int raw = join_raw(&sites[0], 1, true);
	ok(wait_for(sites[0].closed == 1) && sites[0].closed_code == ETIMEDOUT,
	   "no go-ahead: given up");
	ok(eof(raw), "closed");
	is_int(stats(0).dropped_link, 1, "the frame that waited is counted");
	close(raw);
	teardown();
}

static void test_answers(void)
{
	setup_with((struct tunnel_config){.retry_min_ms = 1});
	answer_at_once = false;
	send_data(0, 4, 61, 1);
	ok(wait_for(sites[0].asked[1] == 1), "asked");
	int raw = join_raw(&sites[0], 1, true);
	send_frame(raw, data(4, 0, 60, 1));
	ok(wait_for(sites[0].closed == 1) && sites[0].closed_code == EPROTO,
	   "a frame where the go-ahead belongs");
	close(raw);
	let_pass(5);
	send_data(0, 4, 62, 1);
	ok(wait_for(sites[0].asked[1] == 2), "asked again");
	raw = join_raw(&sites[0], 1, true);
	send_bytes(raw, "\0\0", 2);
	rounds(5);
	ok(!tunnel_linked(sites[0].tunnel, 1), "half a go-ahead is none");
	send_bytes(raw, "\0\0", 2);
	ok(receive(raw) == 62, "in pieces it is one");
	close(raw);
	teardown();
}

/* ---- links end ---- */

static void test_loss(void)
{
	setup_with((struct tunnel_config){.retry_min_ms = 5, .retry_max_ms = 5});
	answer_at_once = false;
	send_data(0, 4, 60, 0);
	for (unsigned i = 1; i <= 3; i++) {
		ok(wait_for(sites[0].asked[1] == i), "asked for");
		int raw = join_raw(&sites[0], 1, true);
		send_bytes(raw, "\0\0\0\0", 4);
		ok(wait_for(tunnel_linked(sites[0].tunnel, 1)), "linked");
		send_data(0, 4, 60 + i, 1);
		ssize_t n = receive(raw);
		ok(n == 60 || n == 60 + (ssize_t)i, "frames go");
		send_bytes(raw, "\0\0\0\x3c half a frame", 16);
		rounds(3);
		close(raw);
		ok(wait_for(sites[0].closed == i) && sites[0].closed_code == 0,
		   "cut in a frame: told");
		ok(!tunnel_linked(sites[0].tunnel, 1), "not linked");
		let_pass(8);
		send_data(0, 4, 60, 0);
	}
	is_int(stats(0).lost, 3, "counted");
	wait_for(sites[0].asked[1] == 4);
	tunnel_detach(sites[0].tunnel, 1);
	is_int(stats(0).dropped_link, 1, "what waits for a node that is detached is dropped");
	answer_at_once = true;
	ok(pass(0, 4, 60, 5), "it comes back");
	tunnel_detach(sites[1].tunnel, 0);
	ok(wait_for(!tunnel_linked(sites[0].tunnel, 1)), "detached: the other side sees the end");
	is_int(stats(1).lost, 0, "which is no loss where it was done");
	teardown();
}

static void test_idle(void)
{
	setup_with((struct tunnel_config){.idle_ms = 60});
	ok(pass(0, 4, 60, 1), "a link");
	for (unsigned i = 0; i < 10; i++) {
		let_pass(10);
		pass(0, 4, 60, i);
	}
	unsigned before = descriptors();
	ok(wait_for(!tunnel_linked(sites[0].tunnel, 1) && !tunnel_linked(sites[1].tunnel, 0)),
	   "an idle link is closed at both ends");
	ok(stats(0).closed_idle + stats(1).closed_idle >= 1, "counted");
	ok(wait_for(descriptors() == before - 2), "its descriptors are gone");
	ok(pass(4, 0, 60, 2), "and made anew when a frame comes, from the other side");
	teardown();
}

/* A link on which frames come, but go only one way. Only a stretch without a stall of this process counts. */
static void test_one_way(void)
{
	enum { IDLE = 300 };
	setup_with((struct tunnel_config){.idle_ms = IDLE});
	uint64_t end = loop_now(loop) + WAIT_MS, begin, last, now;
	bool stalled, good;
	do {
		stalled = false;
		good = pass(0, 4, 60, 1);
		uint64_t closed = stats(0).closed_idle + stats(1).closed_idle;
		begin = last = loop_now(loop);
		while (!stalled && last - begin < 2 * IDLE) {
			let_pass(5);
			good = good && pass(0, 4, 60, 2);
			now = loop_now(loop);
			stalled = now - last > IDLE / 3;
			last = now;
		}
		good = good && stats(0).closed_idle + stats(1).closed_idle == closed;
	} while (stalled && loop_now(loop) < end);
	ok(good || stalled, "frames that only come keep a link from being idle");
	teardown();
}

static void test_slow(void)
{
	enum { LEN = 9014, N = 400 };
	setup_with((struct tunnel_config){.link_queue = 300000});
	answer_at_once = false;
	int raw = join_raw(&sites[0], 1, false);
	ok(receive_go(raw), "a link to a peer that does not read");
	for (uint32_t i = 0; i < N; i++)
		send_data(0, 4, LEN, i);
	ok(wait_for(stats(0).sent + stats(0).dropped_full == N), "each frame is queued or lost");
	struct tunnel_stats s = stats(0);
	ok(s.dropped_full > 0, "lost: %llu of %d", (unsigned long long)s.dropped_full, N);
	ok(s.queued <= 300000 && s.queued > 300000 - LEN - 4, "the queue is full, and no more");
	send_data(0, 1, 60, 1);
	ok(receive_data(1, 0, 60, 1), "others are not held up");
	bool order = true;
	uint32_t next = 0, number;
	for (uint64_t i = 0; i < s.sent; i++) {
		order = order && receive(raw) == LEN;
		memcpy(&number, got + 40, 4);
		order = order && number >= next && number < N;
		next = number + 1;
	}
	ok(order, "the kept ones arrive whole, in order");
	is_int(stats(0).queued, 0, "the queue is empty");
	send_data(0, 4, 70, 2);
	ok(receive(raw) == 70, "then it works again, and no more came than was counted");
	close(raw);
	teardown();

	setup_with((struct tunnel_config){.total_queue = 400000});
	answer_at_once = false;
	int raws[2] = {join_raw(&sites[0], 1, false), join_raw(&sites[0], 2, false)};
	for (uint32_t i = 0; i < 2 * N; i++)
		send_data(0, i % 2 ? 4 : 8, LEN, i);
	ok(wait_for(stats(0).sent + stats(0).dropped_full == 2 * N), "two such peers");
	ok(stats(0).queued <= 400000 && stats(0).dropped_full > 0, "share one bound");
	close(raws[0]);
	close(raws[1]);
	ok(wait_for(stats(0).queued == 0), "their ends empty it");
	teardown();
}

/* ---- with TLS inside ---- */

static struct stream *tls_end(int fd, struct tls_context *c, enum tls_role role)
{
	struct stream *s = stream_create_tls(loop, fd, c, role, &nobody, NULL, NULL);
	if (!s)
		abort();
	return s;
}

static void join_tls(struct tls_context *const c[2], uint32_t from, uint32_t to)
{
	int pair[2];
	make_pair(pair);
	tunnel_attach(sites[from].tunnel, to, true, tls_end(pair[0], c[0], TLS_CLIENT), NULL);
	tunnel_attach(sites[to].tunnel, from, false, tls_end(pair[1], c[1], TLS_SERVER), NULL);
}

static void test_tls(void)
{
	enum { LEN = 9014, N = 2000 };
	uint8_t secret[TLS_SECRET_SIZE] = {1, 2, 3};
	setup_with((struct tunnel_config){.retry_min_ms = 1, .retry_max_ms = 1});
	answer_at_once = false;
	struct tls_context *c[2] = {tls_context_create(secret, "vse:test", NULL),
				    tls_context_create(secret, "vse:test", NULL)};
	ok(c[0] && c[1], "two parties that hold the secret");
	for (uint32_t i = 0; i < 20; i++)
		send_data(0, 4, LEN, i);
	wait_for(sites[0].asked[1] == 1);
	join_tls(c, 0, 1);
	bool good = true;
	for (uint32_t i = 0; i < 20; i++)
		good = good && receive_data(4, 0, LEN, i);
	ok(good, "what waited crosses once they have met");
	ok(pass(0, 4, FRAME_MAX, 1) && pass(4, 0, FRAME_MAX, 2) && pass(4, 0, 44, 3),
	   "and all sizes");
	for (uint32_t i = 0; i < N; i++)
		send_data(0, 4, LEN, i); /* its VM does not read */
	struct tunnel_stats a, b;
	ok(wait_for((a = stats(0), b = stats(1),
		     a.sent == b.received && a.queued == 0 && a.sent + a.dropped_full == 22 + N - 1)),
	   "a flood: each frame crosses or is counted");
	tunnel_detach(sites[1].tunnel, 0);
	ok(wait_for(sites[0].closed == 1) && sites[0].closed_code == 0,
	   "a proper end is told as one");
	let_pass(4);
	send_data(0, 4, 60, 1);
	ok(wait_for(sites[0].asked[1] == 2), "asked for anew");
	secret[0]++;
	struct tls_context *stranger = tls_context_create(secret, "vse:test", NULL);
	join_tls((struct tls_context *const[]){c[0], stranger}, 0, 1);
	ok(wait_for(sites[0].closed == 2 && sites[1].closed == 1), "a stranger gets no link");
	is_int(sites[1].closed_code, EACCES, "told where it is refused");
	is_int(stats(1).received, b.received, "nor a frame");
	teardown();
	tls_context_destroy(c[0]);
	tls_context_destroy(c[1]);
	tls_context_destroy(stranger);
}

/* ---- the doors ---- */

static void test_doors(void)
{
	struct err e = ERR_INIT;
	int pair[2];
	setup();
	struct tunnel *t = sites[0].tunnel;
	make_pair(pair);
	ok(attach_fd(&sites[0], 0, true, pair[0]) < 0 && eof(pair[1]),
	   "no link to itself; it is closed");
	close(pair[1]);
	make_pair(pair);
	ok(attach_fd(&sites[0], TUNNEL_NODES_MAX, true, pair[0]) < 0 && eof(pair[1]), "nor beyond");
	close(pair[1]);
	ok(tunnel_place(t, 11, 2, 1, &e) < 0 && e.code == ERANGE, "%s", e.text);
	ok(tunnel_place(t, UINT32_MAX, 2, 1, &e) < 0 && tunnel_place(t, 1, UINT32_MAX, 1, &e) < 0,
	   "ranks that do not exist");
	ok(tunnel_place(t, 0, 1, TUNNEL_NODES_MAX, &e) < 0 && e.code == ERANGE, "%s", e.text);
	ok(tunnel_place(t, 12, 0, 1, &e) == 0, "no ranks at all is fine");
	is_int(tunnel_node(t, 11), 2, "nothing has changed");
	ok(tunnel_node(t, 12) == TUNNEL_NOWHERE, "a rank that does not exist is nowhere");
	tunnel_detach(t, 77);
	tunnel_failed(t, 77);
	ok(!tunnel_linked(t, 77) && !tunnel_linked(t, UINT32_MAX), "nodes never heard of");
	tunnel_destroy(NULL);
	teardown();
}

/* ---- destroyed in callbacks ---- */

static enum { DESTROY, DETACH, FAIL, ATTACH } deed;
static unsigned deeds;

static void act(struct site *s, uint32_t node)
{
	deeds++;
	if (deed == DESTROY) {
		tunnel_destroy(s->tunnel);
		s->tunnel = NULL;
	} else if (deed == DETACH) {
		tunnel_detach(s->tunnel, node);
	} else if (deed == FAIL) {
		tunnel_failed(s->tunnel, node);
	} else {
		close(join_raw(s, node, false));
	}
}

static void act_connect(void *arg, uint32_t node)
{
	act(arg, node);
}

static void act_closed(void *arg, uint32_t node, const struct err *err)
{
	(void)err;
	act(arg, node);
}

static const struct tunnel_ops act_ops = {.connect = act_connect, .closed = act_closed};

static int setup_act(int what)
{
	struct tunnel_config config = {.self = 0, .answer_ms = 30};
	setup();
	deed = what;
	deeds = 0;
	tunnel_destroy(sites[0].tunnel);
	sites[0].tunnel = tunnel_create(loop, sites[0].net, &config, &act_ops, &sites[0]);
	for (uint32_t n = 0; n < SITES; n++)
		tunnel_place(sites[0].tunnel, n * EACH, EACH, n, NULL);
	return join_raw(&sites[0], RAW, false);
}

static void test_callbacks(void)
{
	for (int what = DESTROY; what <= ATTACH; what++) {
		int raw = setup_act(what);
		send_data(0, 4, 60, 1);
		send_data(0, 8, 60, 1);
		ok(wait_for(deeds >= 1), "%d in connect", what);
		rounds(10);
		if (what == DESTROY)
			is_int(deeds, 1, "and not called after");
		send_data(0, 4, 60, 1);
		ok(pass(0, 1, 60, 2), "the switch goes on");
		close(raw);
		teardown();

		raw = setup_act(what);
		close(raw);
		ok(wait_for(deeds >= 1), "%d when the peer closes", what);
		rounds(5);
		teardown();

		raw = setup_act(what);
		send_bytes(raw, "nonsense", 8);
		ok(wait_for(deeds >= 1), "%d when the peer sends nonsense", what);
		rounds(5);
		close(raw);
		teardown();

		raw = setup_act(what);
		int silent = join_raw(&sites[0], 2, true), silent2 = join_raw(&sites[0], 1, true);
		ok(wait_for(deeds >= 1), "%d when no go-ahead comes", what);
		rounds(5);
		close(raw);
		close(silent);
		close(silent2);
		teardown();
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN); /* as every program of ours does */
	test_waiting();
	test_backoff();
	test_collision();
	test_held();
	test_takeover();
	test_no_answer();
	test_answers();
	test_loss();
	test_idle();
	test_one_way();
	test_slow();
	test_tls();
	test_doors();
	test_callbacks();
	return done();
}
