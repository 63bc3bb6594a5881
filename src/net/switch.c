/* SPDX-License-Identifier: Apache-2.0 */
/* How a frame travels: one recvmsg() fills the shared input buffer with as many frames as the port has.
 * Frames are not copied; each batch notes per destination which stretches ("extents") of the buffer go
 * there, and one sendmsg() per destination sends them, length words and all. Only what a destination does
 * not take is copied, to its queue. Of a frame that is not complete at the end of a batch the beginning is
 * kept in a buffer of the port, and the next recvmsg() completes it in place. */
#include "net/switch.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/log.h"
#include "net/bytes.h"
#include "net/filter.h"
#include "net/ring.h"

enum {
	LENGTH_WORD = 4,
	INPUT_SIZE = 256 << 10, /* per wake-up of a port: also its share before the next port's turn */
	WIRE_MAX = LENGTH_WORD + FRAME_MAX,
	EXTENTS_MAX = 256, /* <= IOV_MAX */
	NO_EXTENT = 0xffff,
};

struct extent {
	const uint8_t *p; /* whole frames with their length words */
	uint32_t len;
	uint16_t next; /* of the same destination */
};

struct port {
	struct netswitch *n;
	struct member self;
	int fd;
	struct watch *watch;
	/* The frame that is being received: its first `have` bytes. The length word is in `head`; once it is
	 * complete, everything is in `partial` (WIRE_MAX bytes; NULL before), and `want` is the whole. */
	uint8_t head[LENGTH_WORD];
	uint8_t *partial;
	size_t have, want;
	struct ring queue;
	uint16_t first, last; /* extents of the batch */
	bool broken; /* on the list of broken ports, to be closed at the end of the event */
	struct port *next_broken;
};

struct netswitch {
	struct loop *loop;
	struct members members;
	struct port **ports; /* by rank */
	struct port *broken;
	struct netswitch_stats stats;
	void (*uplink)(void *arg, uint32_t rank, const void *frame, size_t len);
	void *uplink_arg;
	uint8_t *spare; /* a WIRE_MAX buffer at hand, or NULL */
	struct extent extents[EXTENTS_MAX];
	struct port *targets[EXTENTS_MAX]; /* ports that have extents */
	uint16_t n_extents, n_targets;
	uint8_t input[INPUT_SIZE];
};

static void port_destroy(struct port *p)
{
	watch_destroy(p->watch);
	close(p->fd);
	ring_finish(&p->queue);
	free(p->partial);
	p->n->ports[p->self.rank] = NULL;
	free(p);
}

/* Ports break while others are half way through their batch: they are closed when it is over. */
static void port_break(struct port *p, const char *why)
{
	if (p->broken)
		return;
	log_debug("net: port of rank %u: %s", p->self.rank, why);
	p->broken = true;
	p->next_broken = p->n->broken;
	p->n->broken = p;
}

static void close_broken(struct netswitch *n)
{
	while (n->broken) {
		struct port *p = n->broken;
		n->broken = p->next_broken;
		port_destroy(p);
	}
}

static void count_forwarded(struct netswitch *n, size_t frame_len)
{
	n->stats.frames++;
	n->stats.bytes += frame_len;
}

/* Gives what was sent: 0 where the socket is full, -1 where the port broke. */
static ssize_t port_send(struct port *p, struct iovec *iov, size_t n_iov)
{
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n_iov};
	ssize_t n = sendmsg(p->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM)
		return 0;
	port_break(p, strerror(errno));
	return -1;
}

/* Queues the frames of a stretch of which the first `sent` bytes are out: the rest of a begun frame in any
 * case (the queue is empty then), whole frames while there is room. */
static void queue_rest(struct port *p, const uint8_t *at, size_t len, size_t sent)
{
	struct netswitch *n = p->n;
	size_t wire;
	for (size_t i = 0; i < len; i += wire) {
		wire = LENGTH_WORD + get_be32(at + i);
		size_t out = sent > i ? MIN(sent - i, wire) : 0;
		if (p->broken) {
			n->stats.dropped_unknown++;
		} else if (ring_add(&p->queue, at + i + out, wire - out)) {
			count_forwarded(n, wire - LENGTH_WORD);
		} else {
			n->stats.dropped_full++;
			if (out) /* out of memory in the middle of a frame */
				port_break(p, "no memory");
		}
	}
}

static void port_write(struct port *p, struct iovec *iov, size_t n_iov)
{
	size_t sent = 0;
	if (!p->queue.len && !p->broken) {
		ssize_t n = port_send(p, iov, n_iov);
		sent = n > 0 ? (size_t)n : 0;
	}
	for (size_t i = 0; i < n_iov; i++) {
		queue_rest(p, iov[i].iov_base, iov[i].iov_len, MIN(sent, iov[i].iov_len));
		sent -= MIN(sent, iov[i].iov_len);
	}
	if (p->queue.len && !p->broken)
		watch_set(p->watch, WATCH_READ | WATCH_WRITE);
}

static void flush_batch(struct netswitch *n)
{
	struct iovec iov[EXTENTS_MAX];
	for (uint16_t t = 0; t < n->n_targets; t++) {
		struct port *p = n->targets[t];
		size_t n_iov = 0;
		for (uint16_t e = p->first; e != NO_EXTENT; e = n->extents[e].next)
			iov[n_iov++] = (struct iovec){(void *)n->extents[e].p, n->extents[e].len};
		p->first = p->last = NO_EXTENT;
		port_write(p, iov, n_iov);
	}
	n->n_extents = n->n_targets = 0;
}

/* wire: the frame with its length word, in memory that stays until flush_batch(). */
static void batch_add(struct netswitch *n, struct port *to, const uint8_t *wire, size_t len)
{
	struct extent *last = to->last == NO_EXTENT ? NULL : &n->extents[to->last];
	if (last && last->p + last->len == wire) {
		last->len += (uint32_t)len;
		return;
	}
	if (n->n_extents == EXTENTS_MAX)
		flush_batch(n);
	uint16_t e = n->n_extents++;
	n->extents[e] = (struct extent){wire, (uint32_t)len, NO_EXTENT};
	if (to->first == NO_EXTENT) {
		to->first = e;
		n->targets[n->n_targets++] = to;
	} else {
		n->extents[to->last].next = e;
	}
	to->last = e;
}

static void forward(struct netswitch *n, uint32_t rank, const uint8_t *wire, size_t frame_len)
{
	struct port *to = n->ports[rank];
	if (to && !to->broken) {
		batch_add(n, to, wire, LENGTH_WORD + frame_len);
	} else if (!to && n->uplink) {
		n->uplink(n->uplink_arg, rank, wire + LENGTH_WORD, frame_len);
		count_forwarded(n, frame_len);
	} else {
		n->stats.dropped_unknown++;
	}
}

static void answer(struct port *to, const struct filtered *f)
{
	struct netswitch_stats *s = &to->n->stats;
	uint8_t wire[LENGTH_WORD + FRAME_ANSWER_MAX];
	put_be32(wire, (uint32_t)f->answer_len);
	memcpy(wire + LENGTH_WORD, f->answer, f->answer_len);
	struct iovec iov = {wire, LENGTH_WORD + f->answer_len};
	uint64_t frames = s->frames, bytes = s->bytes;
	port_write(to, &iov, 1);
	s->answered += s->frames - frames; /* it is not a forwarded one */
	s->frames = frames;
	s->bytes = bytes;
}

static void take_frame(struct port *p, const uint8_t *wire, size_t frame_len)
{
	struct netswitch *n = p->n;
	struct filtered f;
	switch (filter_frame(&n->members, &p->self, wire + LENGTH_WORD, frame_len, &f)) {
	case VERDICT_FORWARD: forward(n, f.rank, wire, frame_len); break;
	case VERDICT_ANSWER: answer(p, &f); break;
	case VERDICT_IGNORE: n->stats.ignored++; break;
	case VERDICT_SPOOF: n->stats.dropped_spoof++; break;
	case VERDICT_UNKNOWN: n->stats.dropped_unknown++; break;
	case VERDICT_BROADCAST: n->stats.dropped_broadcast++; break;
	}
}

static bool length_ok(struct port *p, size_t frame_len)
{
	if (frame_len >= FRAME_HEADER && frame_len <= FRAME_MAX)
		return true;
	p->n->stats.bad++;
	port_break(p, "not a frame length");
	return false;
}

static uint8_t *frame_buffer(struct netswitch *n)
{
	return n->spare ? TAKE_PTR(n->spare) : xmalloc(WIRE_MAX);
}

static void recycle(struct netswitch *n, uint8_t *frame_buf)
{
	if (n->spare)
		free(frame_buf);
	else
		n->spare = frame_buf;
}

/* Keeps the beginning of a frame for the next wake-up. */
static void keep_partial(struct port *p, const uint8_t *at, size_t have)
{
	p->have = have;
	if (have < LENGTH_WORD) {
		memcpy(p->head, at, have);
		return;
	}
	p->want = LENGTH_WORD + get_be32(at);
	p->partial = frame_buffer(p->n);
	memcpy(p->partial, at, have);
}

static void take_input(struct port *p, const uint8_t *in, size_t len)
{
	size_t at = 0;
	p->have = 0;
	while (len - at >= LENGTH_WORD) {
		size_t frame_len = get_be32(in + at);
		if (!length_ok(p, frame_len))
			return;
		if (len - at - LENGTH_WORD < frame_len)
			break;
		take_frame(p, in + at, frame_len);
		at += LENGTH_WORD + frame_len;
	}
	if (at < len)
		keep_partial(p, in + at, len - at);
}

static ssize_t port_receive(struct port *p, size_t wanted, size_t headed)
{
	struct netswitch *n = p->n;
	struct iovec iov[2] = {{p->partial ? p->partial + p->have : NULL, wanted},
			       {n->input + headed, INPUT_SIZE - headed}};
	struct msghdr m = {.msg_iov = wanted ? iov : iov + 1, .msg_iovlen = wanted ? 2 : 1};
	ssize_t got = recvmsg(p->fd, &m, MSG_DONTWAIT);
	if (got == 0)
		port_break(p, "closed by its VM");
	else if (got < 0 && errno != EAGAIN && errno != EINTR)
		port_break(p, strerror(errno));
	return got;
}

static void port_readable(struct port *p)
{
	struct netswitch *n = p->n;
	size_t wanted = p->partial ? p->want - p->have : 0;
	size_t headed = p->partial ? 0 : p->have;
	memcpy(n->input, p->head, headed);
	ssize_t got = port_receive(p, wanted, headed);
	if (got <= 0)
		return;
	if ((size_t)got < wanted) {
		p->have += (size_t)got;
		return;
	}
	uint8_t *complete = wanted ? TAKE_PTR(p->partial) : NULL;
	if (complete)
		take_frame(p, complete, p->want - LENGTH_WORD);
	take_input(p, n->input, headed + (size_t)got - wanted);
	flush_batch(n);
	recycle(n, complete);
}

static void port_writable(struct port *p)
{
	struct iovec iov[2];
	int n_iov = ring_iov(&p->queue, iov);
	ssize_t sent = n_iov ? port_send(p, iov, (size_t)n_iov) : 0;
	if (sent > 0)
		ring_consume(&p->queue, (size_t)sent);
	if (!p->queue.len)
		watch_set(p->watch, WATCH_READ);
}

static void on_port(void *arg, int events)
{
	struct port *p = arg;
	struct netswitch *n = p->n;
	if (events & WATCH_WRITE)
		port_writable(p);
	if ((events & WATCH_READ) && !p->broken)
		port_readable(p);
	close_broken(n);
}

struct netswitch *netswitch_create(struct loop *l, const struct subnet *s, uint32_t size)
{
	assert(size <= ADDRESS_RANKS_MAX);
	struct netswitch *n = xcalloc(1, sizeof(*n));
	n->loop = l;
	n->members = (struct members){*s, size};
	n->ports = xcalloc(MAX(size, 1u), sizeof(*n->ports));
	return n;
}

void netswitch_destroy(struct netswitch *n)
{
	if (!n)
		return;
	for (uint32_t r = 0; r < n->members.size; r++)
		netswitch_detach(n, r);
	free(n->ports);
	free(n->spare);
	free(n);
}

int netswitch_attach(struct netswitch *n, uint32_t rank, int fd, struct err *err)
{
	_cleanup_close_ int taken = fd;
	if (rank >= n->members.size)
		return err_set(err, ERANGE, "rank %u: the network has %u", rank, n->members.size);
	struct port *p = xcalloc(1, sizeof(*p));
	p->watch = watch_create(n->loop, fd, on_port, p, err);
	if (!p->watch) {
		free(p);
		return err_prefix(err, "rank %u: network port: ", rank);
	}
	netswitch_detach(n, rank);
	p->n = n;
	p->fd = TAKE_FD(taken);
	p->first = p->last = NO_EXTENT;
	member_init(&p->self, &n->members, rank);
	n->ports[rank] = p;
	watch_set(p->watch, WATCH_READ);
	return 0;
}

void netswitch_detach(struct netswitch *n, uint32_t rank)
{
	if (netswitch_attached(n, rank))
		port_destroy(n->ports[rank]);
}

bool netswitch_attached(const struct netswitch *n, uint32_t rank)
{
	return rank < n->members.size && n->ports[rank];
}

void netswitch_set_uplink(struct netswitch *n,
			  void (*send)(void *arg, uint32_t rank, const void *frame, size_t len),
			  void *arg)
{
	n->uplink = send;
	n->uplink_arg = arg;
}

void netswitch_inject(struct netswitch *n, uint32_t rank, const void *frame, size_t len)
{
	if (len < FRAME_HEADER || len > FRAME_MAX || !netswitch_attached(n, rank)) {
		n->stats.dropped_unknown++;
		return;
	}
	uint8_t *wire = frame_buffer(n);
	put_be32(wire, (uint32_t)len);
	memcpy(wire + LENGTH_WORD, frame, len);
	netswitch_inject_wire(n, rank, wire, len);
	netswitch_flush(n);
	recycle(n, wire);
}

void netswitch_inject_wire(struct netswitch *n, uint32_t rank, const uint8_t *wire, size_t len)
{
	if (netswitch_attached(n, rank) && !n->ports[rank]->broken)
		batch_add(n, n->ports[rank], wire, LENGTH_WORD + len);
	else
		n->stats.dropped_unknown++;
}

void netswitch_flush(struct netswitch *n)
{
	flush_batch(n);
	close_broken(n);
}

const struct members *netswitch_members(const struct netswitch *n)
{
	return &n->members;
}

void netswitch_stats(const struct netswitch *n, struct netswitch_stats *ret)
{
	*ret = n->stats;
}
