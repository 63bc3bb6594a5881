/* SPDX-License-Identifier: Apache-2.0 */
/* Bulk links: messages in and out, and the bytes of chunks between streams and files. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "stage/state.h"

#define QUEUE_LOW (128u << 10) /* bytes queued to a link, above which nothing is added */
#define BURST (256u << 10)     /* bytes put out on a link before others have their turn */
#define UNSENT                                                                                     \
	(128 << 10) /* bytes the kernel takes before they can be sent: what waits there cannot be cancelled */
#define IDLE_MS 120000 /* a link unused for so long is closed */

#define PIECE_FILL (PIECE_MAX - 9) /* with its header, four whole TLS records */

/* The chunk that is arriving. */
struct incoming {
	struct entry *entry; /* NULL: it is thrown away */
	uint32_t idx, size, left;
	uint32_t piece; /* bytes of the present piece still to come */
	struct sha *sha;
	struct buf index; /* the bytes of an index */
};

/* The chunk that is being sent. */
struct outgoing {
	struct entry *entry; /* NULL: none */
	uint32_t idx, size, done;
	struct buf index;
};

struct link {
	struct stage *stage;
	struct link *next;
	uint32_t node;
	struct stream *stream;
	bool greeted, pump;
	bool full;    /* its queue was, when something was to be added */
	bool *closed; /* set when it is closed while its on_data runs */
	uint64_t used_at;
	struct incoming in;
	struct outgoing out;
};

static struct link *find(struct stage *s, uint32_t node)
{
	for (struct link *l = s->links; l; l = l->next)
		if (l->node == node)
			return l;
	return NULL;
}

bool link_any(const struct stage *s)
{
	return s->links != NULL;
}

bool link_to(struct stage *s, uint32_t node)
{
	return find(s, node) != NULL;
}

static void free_link(struct link *l)
{
	if (l->closed)
		*l->closed = true;
	stream_destroy(l->stream);
	sha_free(l->in.sha);
	buf_finish(&l->in.index);
	buf_finish(&l->out.index);
	l->stage->stats.links--;
	free(l);
}

/* What was asked for over this link may be lost: so with several links to a node, too, all is asked for anew. */
static void close_link(struct link *l, const struct err *err)
{
	struct stage *s = l->stage;
	uint32_t node = l->node;
	struct link **at = &s->links;
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	free_link(l);
	if (err)
		stage_tell(s, node, true, err);
	swarm_link_down(s->swarm, node, stage_now(s));
	if (find(s, node))
		swarm_link_up(s->swarm, node, stage_now(s));
	stage_wake(s);
}

void link_close_node(struct stage *s, uint32_t node, const struct err *err)
{
	for (struct link *l; (l = find(s, node));)
		close_link(l, err);
}

void link_close_all(struct stage *s)
{
	while (s->links) {
		struct link *l = s->links;
		s->links = l->next;
		free_link(l);
	}
}

/* ---- out ---- */

void stage_link_send(struct stage *s, uint32_t node, const struct stage_msg *m)
{
	struct link *l = find(s, node);
	if (!l)
		return;
	stage_proto_write(stream_out(l->stream), m);
	stream_flush(l->stream);
	/* Where this has emptied the queue, nobody tells that it is empty. */
	if (l->full && stream_queued(l->stream) < QUEUE_LOW)
		link_want_pump(s, node);
}

void link_want_pump(struct stage *s, uint32_t node)
{
	struct link *l = find(s, node);
	if (l)
		l->pump = true;
	stage_work(s);
}

static void begin_chunk(struct link *l, struct entry *e, uint32_t idx)
{
	struct outgoing *o = &l->out;
	*o = (struct outgoing){.entry = e, .idx = idx, .index = o->index};
	buf_clear(&o->index);
	if (idx == STAGE_INDEX) {
		index_write(e->index, &o->index);
		o->size = (uint32_t)buf_len(&o->index);
	} else {
		o->size = e->index->chunks[idx].size;
	}
	struct stage_msg m = {.type = STAGE_CHUNK, .chunk = idx, .n = o->size};
	memcpy(m.key, e->file.index, SHA_SIZE);
	stage_proto_write(stream_out(l->stream), &m);
}

/* Gives the bytes put out, or -1: the file cannot be read. */
static int put_piece(struct link *l)
{
	struct outgoing *o = &l->out;
	struct buf *out = stream_out(l->stream);
	uint32_t n = MIN(PIECE_FILL, o->size - o->done);
	stage_proto_write(out, &(struct stage_msg){.type = STAGE_PIECE, .n = n});
	if (o->idx == STAGE_INDEX) {
		buf_add(out, buf_head(&o->index) + o->done, n);
	} else {
		buf_reserve(out, n);
		off_t at = (off_t)(o->entry->index->chunks[o->idx].offset + o->done);
		if (pread(o->entry->fd, out->data + out->end, n, at) != (ssize_t)n)
			return -1;
		out->end += n;
	}
	o->done += n;
	if (o->done == o->size) {
		l->stage->stats.chunks_sent++;
		l->stage->stats.bytes_sent += o->size;
		o->entry->progress.sent += o->size;
		o->entry = NULL;
		buf_finish(&o->index);
	}
	return (int)n;
}

/* True: there is more to put out now. */
static bool pump(struct link *l)
{
	struct stage *s = l->stage;
	struct swarm_file *f;
	uint32_t idx;
	l->pump = l->full = false;
	for (uint32_t burst = 0; stream_queued(l->stream) < QUEUE_LOW;) {
		if (burst >= BURST) {
			l->pump = true;
			return true;
		}
		if (!l->out.entry) {
			/* Of two links to a node, one is for chunks: the first. */
			if (find(s, l->node) != l ||
			    !swarm_next(s->swarm, l->node, &f, &idx, stage_now(s)))
				return false;
			begin_chunk(l, swarm_file_user(f), idx);
		}
		int n = put_piece(l);
		if (n < 0) {
			struct err err;
			err_set(&err, EIO, "%s cannot be read any more",
				l->out.entry->path ? l->out.entry->path : "a file");
			close_link(l, &err);
			return false;
		}
		burst += (uint32_t)n;
		l->used_at = stage_now(s);
		stream_flush(l->stream);
	}
	l->full = true;
	return false;
}

bool link_pump_all(struct stage *s)
{
	bool more = false;
	for (struct link *l = s->links, *next; l; l = next) {
		next = l->next;
		if (l->pump)
			more |= pump(l);
	}
	return more;
}

static void on_drain(void *arg)
{
	struct link *l = arg;
	l->pump = true;
	stage_work(l->stage);
}

/* ---- in ---- */

static int begin_incoming(struct link *l, const struct stage_msg *m)
{
	struct stage *s = l->stage;
	struct incoming *in = &l->in;
	struct swarm_file *f = swarm_file_find(s->swarm, m->key);
	struct entry *e = f ? swarm_file_user(f) : NULL;
	in->idx = m->chunk;
	in->size = in->left = m->n;
	in->entry = NULL;
	buf_finish(&in->index);
	sha_free(TAKE_PTR(in->sha));
	/* A wrong size is found out by the hash, but must not reach beyond the chunk's place. */
	if (e && e->index && m->chunk != STAGE_INDEX &&
	    (m->chunk >= e->index->n || e->index->chunks[m->chunk].size != m->n))
		return -1;
	if (e && swarm_arriving(f, m->chunk, l->node, 0, stage_now(s))) {
		in->entry = e;
		in->sha = sha_new();
	}
	return 0;
}

/* The sender of wrong bytes is not used again. */
static void ban(struct link *l, struct err *why)
{
	struct stage *s = l->stage;
	uint32_t node = l->node;
	struct err err = ERR_INIT;
	s->stats.chunks_bad++;
	swarm_ban(s->swarm, node);
	link_close_node(s, node, why);
	if (node)
		return;
	err_set(&err, EBADMSG, "the root sent a file that is not what it said");
	for (struct entry *e = s->entries; e; e = e->next)
		if (!e->offer)
			entry_fail(e, &err);
}

static void end_index(struct link *l, struct entry *e)
{
	struct err err = ERR_INIT;
	struct index *x = NULL;
	bool ok = index_parse(buf_head(&l->in.index), buf_len(&l->in.index), &x, &err) == 0;
	if (ok && memcmp(x->key, e->file.index, SHA_SIZE) != 0) {
		index_free(x);
		ok = false;
	}
	buf_finish(&l->in.index);
	swarm_arrived(e->swarm, STAGE_INDEX, l->node, ok, stage_now(l->stage));
	if (ok) {
		entry_got_index(e, x);
		return;
	}
	err_set(&err, EBADMSG, "it sent an index with the wrong hash");
	ban(l, &err);
}

static void end_incoming(struct link *l)
{
	struct incoming *in = &l->in;
	struct entry *e = TAKE_PTR(in->entry);
	struct stage *s = l->stage;
	uint8_t hash[SHA_SIZE];
	if (!e) {
		s->stats.chunks_twice++;
		return;
	}
	if (in->idx == STAGE_INDEX) {
		end_index(l, e);
		return;
	}
	sha_end(in->sha, hash);
	bool ok = memcmp(hash, e->index->chunks[in->idx].hash, SHA_SIZE) == 0;
	swarm_arrived(e->swarm, in->idx, l->node, ok, stage_now(s));
	if (!ok) {
		struct err err;
		e->progress.wasted += in->size;
		err_set(&err, EBADMSG, "it sent a chunk with the wrong hash");
		ban(l, &err);
		return;
	}
	s->stats.chunks_received++;
	s->stats.bytes_received += in->size;
	entry_got_chunk(e, in->idx);
}

/* n bytes of the chunk under way. */
static void take_piece(struct link *l, const char *p, uint32_t n)
{
	struct incoming *in = &l->in;
	struct entry *e = in->entry;
	uint32_t at = in->size - in->left;
	in->left -= n;
	in->piece -= n;
	if (e && !swarm_arriving(e->swarm, in->idx, l->node, n, stage_now(l->stage))) {
		e->progress.wasted += at;
		e = in->entry = NULL; /* it has come from elsewhere meanwhile */
	}
	if (!e)
		return;
	if (in->idx == STAGE_INDEX) {
		buf_add(&in->index, p, n);
		return;
	}
	sha_add(in->sha, p, n);
	const struct index_chunk *c = &e->index->chunks[in->idx];
	ssize_t done = pwrite(e->fd, p, n, (off_t)(c->offset + at));
	if (done != (ssize_t)n) {
		struct err err;
		err_errno(&err, done < 0 ? errno : ENOSPC, "cache %s: write",
			  cache_folder(l->stage->cache));
		entry_fail(e, &err);
	}
}

static int one_message(struct link *l, const struct stage_msg *m, struct err *err)
{
	if (l->greeted != (m->type != STAGE_HELLO))
		return err_set(err, EPROTO, "staging: %s",
			       l->greeted ? "a second greeting" : "no greeting");
	if (m->type == STAGE_HELLO) {
		l->greeted = true;
		return 0;
	}
	if (m->type == STAGE_PIECE) {
		l->in.piece = m->n;
		return m->n <= l->in.left ? 0 : err_set(err, EPROTO, "staging: a piece of no chunk");
	}
	if (m->type != STAGE_CHUNK)
		return swarm_message(l->stage->swarm, l->node, m, stage_now(l->stage), err);
	if (l->in.left)
		return err_set(err, EPROTO, "staging: a chunk within another");
	if (begin_incoming(l, m) < 0)
		return err_set(err, EPROTO, "staging: chunk %u has another size", m->chunk);
	return 0;
}

/* Takes what can be taken from the front. 1: go on; 0: more bytes are needed; -1: nonsense. */
static int take(struct link *l, struct buf *in, struct err *err)
{
	struct stage_msg m;
	size_t len;
	if (l->in.piece) {
		uint32_t n = (uint32_t)MIN(buf_len(in), (size_t)l->in.piece);
		if (!n)
			return 0;
		const char *p = buf_head(in);
		const bool *closed = l->closed;
		buf_consume(in, n); /* now: what follows may close the link, and the buffer goes with it */
		take_piece(l, p, n);
		if (!*closed && !l->in.left)
			end_incoming(l);
		return 1;
	}
	int got = stage_proto_read(in, &m, &len, err);
	if (got != 1)
		return got;
	if (one_message(l, &m, err) < 0)
		return -1;
	buf_consume(in, len);
	return 1;
}

static void on_data(void *arg, struct buf *in)
{
	struct link *l = arg;
	struct stage *s = l->stage;
	struct err err = ERR_INIT;
	bool closed = false;
	int got;
	l->closed = &closed;
	l->used_at = stage_now(s);
	do
		got = take(l, in, &err);
	while (!closed && got == 1);
	stage_wake(s);
	if (closed)
		return;
	l->closed = NULL;
	if (got < 0) {
		s->stats.messages_bad++;
		close_link(l, &err);
	}
}

static void on_close(void *arg, const struct err *err)
{
	struct err copy = *err;
	close_link(arg, &copy);
}

static const struct stream_ops ops = {.on_data = on_data, .on_close = on_close, .on_drain = on_drain};

/* ---- links ---- */

void link_create(struct stage *s, uint32_t node, struct stream *stream)
{
	struct link *l = xcalloc(1, sizeof(*l));
	int unsent = UNSENT;
	l->stage = s;
	l->node = node;
	l->stream = stream;
	l->used_at = stage_now(s);
	l->next = s->links;
	s->links = l;
	s->stats.links++;
	/* Fails where it is no TCP socket: then the socket's buffer is what waits. */
	setsockopt(stream_fd(stream), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	stage_proto_write(stream_out(stream), &(struct stage_msg){.type = STAGE_HELLO});
	stream_set_ops(stream, &ops, l);
	stream_flush(stream);
	swarm_link_up(s->swarm, node, stage_now(s));
	stage_wake(s);
}

void link_forget(struct stage *s, const struct entry *e)
{
	for (struct link *l = s->links, *next; l; l = next) {
		next = l->next;
		if (l->in.entry == e)
			l->in.entry = NULL;
		if (l->out.entry != e)
			continue;
		/* Half a chunk is out, and its other half can be read nowhere now. */
		struct err err = ERR_INIT;
		close_link(l, &err);
		next = s->links;
	}
}

void link_close_idle(struct stage *s, uint64_t now)
{
	for (struct link *l = s->links, *next; l; l = next) {
		next = l->next;
		if (now - l->used_at > IDLE_MS)
			close_link(l, NULL);
	}
}
