/* SPDX-License-Identifier: Apache-2.0 */
/* Many nodes' swarms over modelled links, in virtual time. Each host has one NIC, shaped both ways, with a first-in
 * first-out queue each way in which what is in flight waits (so control messages wait behind data, as behind a shaper);
 * a connection has a window. Nothing is read from a clock: a run is the same every time.
 *
 *   test-stage-sim                          the test
 *   test-stage-sim N MBIT MIB [kill=H] [mute=H] [slow=H] [tardy=H] [join=MS] [at=MS] [window=KIB] [uneven=1] [stalls=MS]
 *                  [seed=N]
 * one run, printed. uneven: the connections of a host get unequal shares of its line (as with TCP they do); stalls: every
 * process pauses at times, MS on average (a busy machine). VSE_NIGHTLY: every host is killed, slow and cut off in turn. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "stage/swarm.h"
#include "tap.h"

#define PIECE 16384u
#define HEADERS 1.05           /* Ethernet, IP, TCP and TLS around the payload */
#define LATENCY 0.0002         /* seconds, of a hop through the switch */
#define APP_QUEUE (128u << 10) /* bytes a sender puts before the network ahead of time */
#define END 200.0

struct item {
	struct stage_msg msg;
	uint8_t *bits;
	uint32_t size;  /* on the wire, payload */
	uint32_t chunk; /* a piece of this one, when piece */
	bool piece, last;
	struct item *next;
};

struct flow { /* one direction of a link */
	uint32_t from, to;
	bool open;
	struct item *head, **tail; /* not yet in the network */
	uint32_t queued, in_flight;
	bool sending; /* a chunk is under way */
	uint32_t chunk, left;
	bool taking;     /* at the receiver: the chunk that arrives is wanted */
	uint32_t window; /* bytes */
	unsigned epoch;
	struct flow *next;
};

struct host {
	struct swarm *swarm;
	struct swarm_file *file;
	struct index *index; /* own copy of the pointer: shared */
	bool dead, mute;
	double out, in; /* bytes a second */
	double out_free, in_free;
	double busy, next_stall; /* its process: seconds */
	double done;             /* when it had everything; 0: not yet */
	uint64_t sent, received, twice;
};

enum event_type { EV_DELIVER, EV_IN, EV_TAKE, EV_TICK, EV_CONNECT, EV_DOWN, EV_KILL, EV_JOIN };

struct event {
	double at;
	uint64_t seq;
	enum event_type type;
	uint32_t a, b;
	struct flow *flow;
	unsigned epoch;
	struct item *item;
};

static struct sim {
	double now;
	uint64_t seq;
	struct event *heap;
	size_t n, cap;
	struct host *hosts;
	uint32_t n_hosts, nodes;
	struct flow **flows; /* by sender */
	uint32_t window;
	struct index *index;
	uint32_t alive_left;
	uint64_t random;
	bool uneven;   /* the flows' shares of a line */
	double stalls; /* mean seconds of the pauses of a host's process */
} sim;

static uint8_t key[SHA_SIZE];

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

static void post(struct event e)
{
	if (sim.n == sim.cap) {
		sim.cap = sim.cap ? 2 * sim.cap : 1024;
		sim.heap = xreallocarray(sim.heap, sim.cap, sizeof(*sim.heap));
	}
	e.seq = sim.seq++;
	size_t i = sim.n++;
	for (; i && before(&e, &sim.heap[(i - 1) / 2]); i = (i - 1) / 2)
		sim.heap[i] = sim.heap[(i - 1) / 2];
	sim.heap[i] = e;
}

static struct event take(void)
{
	struct event top = sim.heap[0], e = sim.heap[--sim.n];
	size_t i = 0;
	for (size_t c; (c = 2 * i + 1) < sim.n; i = c) {
		if (c + 1 < sim.n && before(&sim.heap[c + 1], &sim.heap[c]))
			c++;
		if (!before(&sim.heap[c], &e))
			break;
		sim.heap[i] = sim.heap[c];
	}
	sim.heap[i] = e;
	return top;
}

/* 0 to 1, with a mean of a half; the same for the same seed. */
static double chance(void)
{
	sim.random ^= sim.random << 13;
	sim.random ^= sim.random >> 7;
	sim.random ^= sim.random << 17;
	return (double)(sim.random >> 11) / 9007199254740992.0;
}

static uint64_t ms(void)
{
	return 1000 + (uint64_t)(sim.now * 1000);
}

/* ---- the network ---- */

static struct flow *flow_find(uint32_t from, uint32_t to)
{
	for (struct flow *f = sim.flows[from]; f; f = f->next)
		if (f->to == to)
			return f;
	return NULL;
}

static void free_item(struct item *it)
{
	free(it->bits);
	free(it);
}

static void flow_clear(struct flow *f)
{
	while (f->head) {
		struct item *it = f->head;
		f->head = it->next;
		free_item(it);
	}
	f->tail = &f->head;
	f->queued = f->in_flight = 0;
	f->sending = f->taking = false;
	f->epoch++;
}

static struct flow *flow_open(uint32_t from, uint32_t to)
{
	struct flow *f = flow_find(from, to);
	if (!f) {
		f = xcalloc(1, sizeof(*f));
		f->from = from;
		f->to = to;
		f->next = sim.flows[from];
		sim.flows[from] = f;
	}
	flow_clear(f);
	f->window = sim.window;
	if (sim.uneven)
		f->window = (uint32_t)(f->window * (0.25 + 1.5 * chance()));
	f->open = true;
	return f;
}

static void pump(struct flow *f);

static void transmit(struct flow *f)
{
	struct host *h = &sim.hosts[f->from];
	while (f->head && f->in_flight + f->head->size <= MAX(f->window, f->head->size)) {
		struct item *it = f->head;
		f->head = it->next;
		if (!f->head)
			f->tail = &f->head;
		f->queued -= it->size;
		f->in_flight += it->size;
		double start = MAX(sim.now, h->out_free);
		h->out_free = start + it->size * HEADERS / h->out;
		post((struct event){.at = h->out_free + LATENCY,
				    .type = EV_IN,
				    .flow = f,
				    .item = it,
				    .epoch = f->epoch});
	}
}

static void put(struct flow *f, struct item *it)
{
	it->next = NULL;
	*f->tail = it;
	f->tail = &it->next;
	f->queued += it->size;
	transmit(f);
}

/* What the driver does: pieces of the chunk under way, then the next chunk, while the queue is short. */
static void pump(struct flow *f)
{
	struct host *h = &sim.hosts[f->from];
	while (f->open && f->queued < APP_QUEUE) {
		struct swarm_file *file;
		if (!f->sending) {
			if (!swarm_next(h->swarm, f->to, &file, &f->chunk, ms()))
				return;
			f->left = f->chunk == STAGE_INDEX ? INDEX_HEADER + INDEX_ENTRY * sim.index->n
							  : sim.index->chunks[f->chunk].size;
			struct item *it = xcalloc(1, sizeof(*it));
			it->msg = (struct stage_msg){.type = STAGE_CHUNK, .chunk = f->chunk, .n = f->left};
			it->size = 45;
			f->sending = true;
			h->sent += f->left;
			put(f, it);
		}
		struct item *it = xcalloc(1, sizeof(*it));
		it->piece = true;
		it->chunk = f->chunk;
		it->size = MIN(f->left, PIECE);
		f->left -= it->size;
		it->last = !f->left;
		f->sending = f->left > 0;
		put(f, it);
	}
}

/* ---- the swarm's wishes ---- */

static void do_connect(void *arg, uint32_t node)
{
	uint32_t self = (uint32_t)((struct host *)arg - sim.hosts);
	post((struct event){.at = sim.now + 0.01, .type = EV_CONNECT, .a = self, .b = node});
}

static void do_send(void *arg, uint32_t node, const struct stage_msg *m)
{
	struct flow *f = flow_find((uint32_t)((struct host *)arg - sim.hosts), node);
	if (!f || !f->open)
		return;
	struct item *it = xcalloc(1, sizeof(*it));
	it->msg = *m;
	it->size = 45;
	if (m->type == STAGE_HAVE) {
		uint32_t n = (m->n + 7) / 8;
		it->bits = xmalloc(n);
		memcpy(it->bits, m->bits, n);
		it->msg.bits = it->bits;
		it->size += n;
	}
	put(f, it);
}

static void do_ready(void *arg, uint32_t node)
{
	struct flow *f = flow_find((uint32_t)((struct host *)arg - sim.hosts), node);
	/* As in life, where a chunk's sending starts from the loop: not from within. */
	if (f && f->open && !f->queued)
		post((struct event){.at = sim.now, .type = EV_DELIVER, .flow = f, .epoch = f->epoch});
}

static void do_wanted(void *arg, struct swarm_file *f)
{
	(void)arg, (void)f;
}

static const struct swarm_ops ops = {do_connect, do_send, do_ready, do_wanted};

/* ---- what happens ---- */

static void link_down(uint32_t self, uint32_t node)
{
	struct flow *f = flow_find(self, node);
	if (sim.hosts[self].dead || !sim.hosts[self].swarm)
		return;
	if (f && f->open) {
		f->open = false;
		flow_clear(f);
	}
	swarm_link_down(sim.hosts[self].swarm, node, ms());
}

static void on_connect(uint32_t a, uint32_t b)
{
	if (sim.hosts[a].dead)
		return;
	if (sim.hosts[b].dead || !sim.hosts[b].swarm) {
		if (!sim.hosts[b].mute)
			link_down(a, b);
		else
			post((struct event){.at = sim.now + 10, .type = EV_DOWN, .a = a, .b = b});
		return;
	}
	struct flow *f = flow_find(a, b);
	if (!f || !f->open) {
		flow_open(a, b);
		flow_open(b, a);
	}
	swarm_link_up(sim.hosts[a].swarm, b, ms());
	swarm_link_up(sim.hosts[b].swarm, a, ms());
}

static void finished(struct host *h)
{
	if (h->done == 0 && !swarm_missing(h->file)) {
		h->done = sim.now;
		sim.alive_left--;
	}
}

static void got_piece(struct flow *f, struct item *it)
{
	struct host *h = &sim.hosts[f->to];
	h->received += it->size;
	if (!f->taking) {
		h->twice += it->size;
		return;
	}
	f->taking = swarm_arriving(h->file, it->chunk, f->from, it->size, ms());
	if (!f->taking || !it->last)
		return;
	swarm_arrived(h->file, it->chunk, f->from, true, ms());
	if (it->chunk == STAGE_INDEX) {
		h->index = sim.index;
		swarm_file_index(h->file, sim.index, false, ms());
	} else {
		swarm_chunk_have(h->file, it->chunk, ms());
	}
	finished(h);
}

static void deliver(struct flow *f, struct item *it)
{
	struct host *h = &sim.hosts[f->to];
	f->in_flight -= it->size;
	if (it->piece)
		got_piece(f, it);
	else if (it->msg.type == STAGE_CHUNK)
		f->taking = h->file && swarm_arriving(h->file, it->msg.chunk, f->from, 0, ms());
	else {
		struct err err;
		memcpy(it->msg.key, key, SHA_SIZE);
		if (swarm_message(h->swarm, f->from, &it->msg, ms(), &err) < 0)
			printf("# node %u: %s\n", f->to, err.text);
	}
	transmit(f);
	pump(f);
}

static void add_host(uint32_t i)
{
	struct host *h = &sim.hosts[i];
	h->swarm = swarm_create(i, &ops, h);
	h->file = swarm_file_add(h->swarm, key, sim.nodes, NULL);
	if (!i)
		swarm_file_index(h->file, sim.index, true, ms());
	else
		swarm_file_want(h->file, true, ms());
	if (i)
		sim.alive_left++;
	post((struct event){.at = sim.now + 0.001 * (i % 50), .type = EV_TICK, .a = i});
}

static void kill_host(uint32_t i)
{
	sim.hosts[i].dead = true;
	if (sim.hosts[i].done == 0)
		sim.alive_left--;
	for (uint32_t k = 0; k < sim.n_hosts; k++) {
		struct flow *f = flow_find(k, i);
		if (f && f->open && !sim.hosts[i].mute)
			post((struct event){.at = sim.now + 0.001, .type = EV_DOWN, .a = k, .b = i});
		f = flow_find(i, k);
		if (f) {
			f->open = false;
			flow_clear(f);
		}
	}
}

/* When a host's process takes what has arrived: it pauses at times. */
static double taken(struct host *h)
{
	double at = MAX(sim.now, h->busy);
	if (sim.stalls > 0 && at > h->next_stall) {
		at += sim.stalls * 2 * chance();
		h->next_stall = at + 20 * sim.stalls * chance();
	}
	return h->busy = at;
}

static void arrive(struct event *e)
{
	struct flow *f = e->flow;
	struct host *to = &sim.hosts[f->to];
	if (f->epoch != e->epoch || to->dead || sim.hosts[f->from].dead) {
		free_item(e->item);
		return;
	}
	double start = MAX(sim.now, to->in_free);
	to->in_free = start + e->item->size * HEADERS / to->in;
	e->type = EV_TAKE;
	e->at = to->in_free;
	post(*e);
}

static void step(void)
{
	struct event e = take();
	sim.now = e.at;
	switch (e.type) {
	case EV_IN: arrive(&e); break;
	case EV_TAKE:
		e.type = EV_DELIVER;
		e.at = taken(&sim.hosts[e.flow->to]);
		post(e);
		break;
	case EV_DELIVER:
		if (!e.item) {
			if (e.flow->epoch == e.epoch)
				pump(e.flow);
			break;
		}
		if (e.flow->epoch == e.epoch && !sim.hosts[e.flow->to].dead)
			deliver(e.flow, e.item);
		free_item(e.item);
		break;
	case EV_TICK:
		if (sim.hosts[e.a].dead)
			break;
		swarm_tick(sim.hosts[e.a].swarm, ms());
		post((struct event){.at = sim.now + SWARM_TICK_MS / 1000.0, .type = EV_TICK, .a = e.a});
		break;
	case EV_CONNECT: on_connect(e.a, e.b); break;
	case EV_DOWN: link_down(e.a, e.b); break;
	case EV_KILL: kill_host(e.a); break;
	case EV_JOIN: add_host(e.a); break;
	}
}

/* ---- a run ---- */

struct scenario {
	uint32_t n;
	double mbit;
	uint32_t mib;
	uint32_t kill, mute, slow; /* node, 0: none */
	uint32_t tardy;  /* node whose process does nothing for the first 0.6 s, 0: none */
	double at, join; /* seconds; join 0: nobody */
	uint32_t window; /* KiB */
	uint32_t seed;
	double stalls; /* ms; 0: no process ever pauses */
	bool uneven, verbose;
};

struct result {
	double last;   /* of the hosts that were neither killed nor slowed, in S/B */
	double slow;   /* of the slow one */
	double join;   /* of the late one, from its start */
	double origin; /* bytes sent by the root / S */
	double twice;  /* share of all bytes that came in vain */
	double most;   /* bytes sent by the busiest / S */
	uint64_t moved;
	bool complete;
};

static struct index *make_index(uint32_t mib)
{
	static struct index *made[257];
	if (made[mib])
		return made[mib];
	struct index_builder *b = index_builder_new();
	uint64_t x = 88172645463325252u;
	static uint64_t block[8192];
	for (uint32_t i = 0; i < mib * 16; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(block); k++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			block[k] = x;
		}
		index_builder_add(b, block, sizeof(block), NULL);
	}
	made[mib] = index_builder_end(b); /* to the end of the process */
	index_builder_free(b);
	return made[mib];
}

static void clean(void)
{
	for (size_t i = 0; i < sim.n; i++)
		if (sim.heap[i].item)
			free_item(sim.heap[i].item);
	for (uint32_t i = 0; i < sim.n_hosts; i++) {
		swarm_destroy(sim.hosts[i].swarm);
		for (struct flow *f = sim.flows[i], *next; f; f = next) {
			next = f->next;
			flow_clear(f);
			free(f);
		}
	}
	free(sim.heap);
	free(sim.hosts);
	free(sim.flows);
}

static struct result run(const struct scenario *c)
{
	double rate = c->mbit * 1e6 / 8, size = c->mib * 1048576.0, unit = size / rate;
	sim = (struct sim){.n_hosts = c->n + 2,
			   .nodes = c->n,
			   .window = (c->window ? c->window : 512) << 10,
			   .random = UINT64_C(0x9e3779b97f4a7c15) * (c->seed + 1),
			   .uneven = c->uneven,
			   .stalls = c->stalls / 1000};
	sim.hosts = xcalloc(sim.n_hosts, sizeof(*sim.hosts));
	sim.flows = xcalloc(sim.n_hosts, sizeof(struct flow *));
	sim.index = make_index(c->mib);
	memcpy(key, sim.index->key, SHA_SIZE);
	for (uint32_t i = 0; i < sim.n_hosts; i++)
		sim.hosts[i].out = sim.hosts[i].in = c->slow && i == c->slow ? rate / 10 : rate;
	for (uint32_t i = 0; i <= c->n; i++)
		add_host(i);
	if (c->tardy)
		sim.hosts[c->tardy].busy = 0.6;
	uint32_t victim = c->kill ? c->kill : c->mute;
	if (victim) {
		sim.hosts[victim].mute = c->mute;
		post((struct event){.at = c->at, .type = EV_KILL, .a = victim});
	}
	if (c->join > 0) {
		post((struct event){.at = c->join, .type = EV_JOIN, .a = c->n + 1});
		sim.alive_left++;
	}
	bool joined = false;
	while (sim.n && sim.now < END && sim.alive_left) {
		step();
		if (c->join > 0 && !joined && sim.hosts[c->n + 1].swarm) {
			joined = true;
			sim.alive_left--; /* it counts itself now */
		}
	}
	struct result r = {.complete = !sim.alive_left};
	uint64_t received = 0, twice = 0;
	for (uint32_t i = 0; i < sim.n_hosts; i++) {
		struct host *h = &sim.hosts[i];
		if (!h->swarm)
			continue;
		r.moved += swarm_moved(h->swarm);
		r.most = MAX(r.most, (double)h->sent / size);
		received += h->received;
		twice += h->twice;
		if (c->verbose)
			printf("# node %3u: done %.3f s = %.3f S/B, sent %.2f S, received %.3f S, "
			       "in vain %.3f S, moved %lu\n",
			       i, h->done, h->done / unit, (double)h->sent / size,
			       (double)h->received / size, (double)h->twice / size,
			       (unsigned long)swarm_moved(h->swarm));
		if (i == c->n + 1)
			r.join = (h->done - c->join) / unit;
		else if (c->slow && i == c->slow)
			r.slow = h->done / unit;
		else if (i && !h->dead)
			r.last = MAX(r.last, h->done / unit);
	}
	r.origin = (double)sim.hosts[0].sent / size;
	r.twice = received ? (double)twice / (double)received : 0;
	clean();
	return r;
}

static void show(const struct scenario *c, const struct result *r)
{
	printf("# %u hosts, %.0f Mbit/s, %u MiB%s%s%s%s%s: %.3f S/B; root sent %.2f S, busiest "
	       "%.2f "
	       "S, in vain %.2f %%, moved %lu",
	       c->n, c->mbit, c->mib, c->kill ? ", one killed" : "", c->mute ? ", one mute" : "",
	       c->slow ? ", one at a tenth" : "", c->join > 0 ? ", one late" : "",
	       c->uneven ? ", uneven links" : "", r->last, r->origin, r->most, 100 * r->twice,
	       (unsigned long)r->moved);
	if (c->slow)
		printf("; the slow one %.2f S/B", r->slow);
	if (c->join > 0)
		printf("; the late one %.2f S/B", r->join);
	puts(r->complete ? "" : "; NOT COMPLETE");
}

static double number(const char *arg, const char *name, double otherwise)
{
	size_t n = strlen(name);
	return strncmp(arg, name, n) == 0 && arg[n] == '=' ? atof(arg + n + 1) : otherwise;
}

static int by_hand(int argc, char **argv)
{
	struct scenario c = {.n = (uint32_t)atoi(argv[1]),
			     .mbit = atof(argv[2]),
			     .mib = (uint32_t)atoi(argv[3]),
			     .verbose = true};
	c.at = c.mib * 8.388608 / c.mbit / 2;
	for (int i = 4; i < argc; i++) {
		c.kill = (uint32_t)number(argv[i], "kill", c.kill);
		c.mute = (uint32_t)number(argv[i], "mute", c.mute);
		c.slow = (uint32_t)number(argv[i], "slow", c.slow);
		c.tardy = (uint32_t)number(argv[i], "tardy", c.tardy);
		c.at = number(argv[i], "at", c.at * 1000) / 1000;
		c.join = number(argv[i], "join", c.join * 1000) / 1000;
		c.window = (uint32_t)number(argv[i], "window", c.window);
		c.seed = (uint32_t)number(argv[i], "seed", c.seed);
		c.stalls = number(argv[i], "stalls", c.stalls);
		c.uneven = number(argv[i], "uneven", c.uneven) > 0;
		c.verbose = number(argv[i], "quiet", !c.verbose) < 1;
	}
	struct result r = run(&c);
	show(&c, &r);
	return r.complete ? 0 : 1;
}

/* Field by field: what pads a structure is not set by anyone. */
static bool same(const struct result *a, const struct result *b)
{
	return a->last == b->last && a->slow == b->slow && a->join == b->join &&
	       a->origin == b->origin && a->twice == b->twice && a->most == b->most &&
	       a->moved == b->moved && a->complete == b->complete;
}

static struct result must(const struct scenario *c, double bound, const char *what)
{
	struct result r = run(c);
	show(c, &r);
	ok(r.complete && r.last <= bound, "%s: %u hosts, %.0f Mbit/s: %.3f of at most %.2f S/B",
	   what, c->n, c->mbit, r.last, bound);
	return r;
}

/* The worst of several runs. */
struct worst {
	double killed, slow, mute, origin;
	bool complete;
};

static void lose(const struct scenario *c, uint32_t host, struct worst *w)
{
	struct scenario k = *c, t = *c, m = *c;
	k.kill = t.slow = m.mute = host;
	k.at = m.at = c->mib * 8.388608 / c->mbit / 2;
	struct result a = run(&k), b = run(&t), d = run(&m);
	w->killed = MAX(w->killed, a.last);
	w->slow = MAX(w->slow, b.last);
	w->mute = MAX(w->mute, d.last);
	w->origin = MAX(w->origin, MAX(a.origin, MAX(b.origin, d.origin)));
	w->complete = w->complete && a.complete && b.complete && d.complete;
}

/* The goals, on the two test-beds, whichever host it is. */
static void test_goals(uint32_t n, double mbit)
{
	static const uint32_t which[] = {1, 2, 3, 6, 8, 15, 31};
	struct scenario c = {.n = n, .mbit = mbit, .mib = 64};
	struct result r = must(&c, 1.25, "all well");
	struct worst w = {.complete = true};
	ok(r.origin < 1.01 && r.most < 1.02,
	   "nobody sends more than the file: the root %.2f, the busiest %.2f S", r.origin, r.most);
	ok(r.twice < 0.001, "nothing travels in vain: %.3f %%", 100 * r.twice);
	if (getenv("VSE_NIGHTLY"))
		for (uint32_t host = 1; host <= n; host++)
			lose(&c, host, &w);
	else
		for (size_t i = 0; i < ARRAY_SIZE(which) && which[i] <= n; i++)
			lose(&c, which[i], &w);
	ok(w.complete, "whichever host is killed, slow or cut off, all others get the file");
	ok(w.killed <= 1.25, "one killed half-way: at most %.3f S/B", w.killed);
	ok(w.slow <= 1.4, "one at a tenth of the rate: the others take at most %.3f S/B", w.slow);
	ok(w.mute <= 3, "one cut off half-way, without a word: at most %.3f S/B", w.mute);
	ok(w.origin <= 2, "the root never sends more than two files' worth: %.2f", w.origin);
}

/* The same where the connections of a host get unequal shares of its line. */
static void test_uneven(uint32_t n, double mbit)
{
	double well = 0, origin = 0;
	struct worst w = {.complete = true};
	for (uint32_t seed = 1; seed <= 5; seed++) {
		struct scenario c = {.n = n, .mbit = mbit, .mib = 64, .uneven = true, .seed = seed};
		struct result r = run(&c);
		well = MAX(well, r.last);
		origin = MAX(origin, r.origin);
		w.complete = w.complete && r.complete;
		lose(&c, 2 - seed % 2, &w);
	}
	ok(w.complete, "%u hosts with uneven links: all get it", n);
	ok(well <= 1.25 && origin < 1.01, "all well: at most %.3f S/B, the root sent %.2f S", well,
	   origin);
	ok(w.killed <= 1.5, "one killed half-way: at most %.3f S/B", w.killed);
	ok(w.slow <= 1.6, "one at a tenth of the rate: the others take at most %.3f S/B", w.slow);
}

/* Who starts late is not slow: those below wait for it instead of crowding around its parent. */
static void test_tardy(void)
{
	static const uint32_t which[] = {1, 3, 5, 9};
	double last = 0, origin = 0;
	for (size_t i = 0; i < ARRAY_SIZE(which); i++) {
		struct scenario c = {.n = 32, .mbit = 100, .mib = 64, .tardy = which[i]};
		struct result r = run(&c);
		last = r.complete ? MAX(last, r.last) : 99;
		origin = MAX(origin, r.origin);
	}
	ok(last <= 1.35 && origin < 1.01,
	   "one starts 0.6 s late: at most %.3f S/B, the root sent %.2f S", last, origin);
}

int main(int argc, char **argv)
{
	if (argc > 3)
		return by_hand(argc, argv);
	test_goals(16, 200);
	test_goals(32, 100);
	test_uneven(16, 200);
	test_uneven(32, 100);
	for (uint32_t n = 1; n < 10; n++)
		must(&(struct scenario){.n = n, .mbit = 200, .mib = 16}, 1.5, "few hosts");
	must(&(struct scenario){.n = 150, .mbit = 1000, .mib = 64}, 1.35, "many hosts");
	must(&(struct scenario){.n = 16, .mbit = 200, .mib = 64, .window = 2048}, 1.25, "deep queues");
	must(&(struct scenario){.n = 16, .mbit = 10, .mib = 8}, 1.75, "slow links");
	test_tardy();
	struct result r = must(&(struct scenario){.n = 16, .mbit = 200, .mib = 64, .join = 1.5},
			       1.25, "one joins late");
	ok(r.join > 0 && r.join <= 1.25, "and has it after %.3f S/B", r.join);
	/* The same seed, the same run. */
	struct scenario again = {.n = 16, .mbit = 200, .mib = 64, .kill = 3, .at = 1};
	struct result a = run(&again), b = run(&again);
	ok(same(&a, &b), "a run is the same every time: %.17g and %.17g S/B", a.last, b.last);
	return done();
}
