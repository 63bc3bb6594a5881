/* SPDX-License-Identifier: Apache-2.0 */
/* A link between two nodes for one template:
 *   to who keeps it    {"key"}
 *   from it            {"ok": false, ...}, or {"ok": true, "note", "age", "memory", "state"}: seconds, bytes of both; then data of stream 1 (memory) and
 *                      2 (state), as they are kept: packed, each piece with its checksum; {"end": true}.
 * What comes is put among those that are kept here once it has all come; whether it is sound is found out where it is unpacked. */
#include "agent/templates.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/mesh.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "vm/kept.h"
#include "wire/message.h"

#define SHORT                                                                                      \
	16 /* characters of a key in messages to and from the root: its business is only who to ask */
#define TOLD_MAX 8     /* templates that a node tells of, the most recently used ones */
#define KEYS_MAX 64    /* that the root tells of */
#define NODES_MAX 8    /* of each */
#define GIFTS_MAX 4    /* nodes that are served at once: a fifth asks another, or boots */
#define TRIES 2        /* nodes that are asked */
#define SILENT_MS 3000 /* without a byte: whoever waits longer had better boot */
#define WHOLE_MS 15000 /* for all of it, from all that are asked */
#define PIECE (256u << 10)
#define QUEUE (1u << 20)
#define PIECES 8 /* at once: others want the loop, too */

json_t *templates_here(void)
{
	char keys[TOLD_MAX][KEPT_KEY + 1];
	json_t *list = json_array();
	_cleanup_free_ char *folder = kept_folder();
	size_t n = folder ? kept_list(folder, keys, TOLD_MAX) : 0;
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_stringn(keys[i], SHORT));
	return list;
}

void templates_add(json_t *all, const char *key, uint32_t node)
{
	if (!key || strlen(key) != SHORT || strspn(key, "0123456789abcdef") != SHORT)
		return;
	json_t *nodes = json_object_get(all, key);
	if (!nodes && json_object_size(all) < KEYS_MAX) {
		nodes = json_array();
		json_object_set_new(all, key, nodes);
	}
	if (nodes && json_array_size(nodes) < NODES_MAX)
		json_array_append_new(nodes, json_integer(node));
}

static void put(struct stream *s, json_t *j)
{
	message_write(stream_out(s), 0, 0, j, NULL);
	json_decref(j);
	stream_flush(s);
}

/* ---- who keeps it ---- */

struct template_gift {
	struct template_gift *next;
	struct agent *agent;
	struct stream *link;
	struct kept kept; /* note NULL: not asked for one yet */
	unsigned part;
	bool ended;
	struct evtimer *silent, *soon; /* soon: reads on */
};

static void gift_end(struct template_gift *g)
{
	struct template_gift **at = &g->agent->gifts;
	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	stream_destroy(g->link);
	evtimer_destroy(g->silent);
	evtimer_destroy(g->soon);
	if (g->kept.note)
		kept_close(&g->kept);
	free(g);
}

static void gift_refuse(struct template_gift *g, const struct err *err)
{
	g->ended = true;
	put(g->link, message_error(err));
	stream_end(g->link);
}

static void gift_more(struct template_gift *g)
{
	_cleanup_free_ char *piece = xmalloc(PIECE);
	evtimer_start(g->silent, SILENT_MS, 0);
	unsigned n_pieces = 0;
	while (!g->ended && stream_queued(g->link) < QUEUE && n_pieces++ < PIECES) {
		if (g->part == KEPT_PARTS) {
			g->ended = true;
			put(g->link, json_pack("{s:b}", "end", 1));
			break;
		}
		ssize_t n = fd_read_full(g->kept.fds[g->part], piece, PIECE);
		if (n > 0)
			frame_write_data(stream_out(g->link), 0, 0, (int)g->part + 1, piece,
					 (size_t)n, false);
		if (n < (ssize_t)PIECE)
			g->part++; /* one that broke off is too short for who gets it */
		stream_flush(g->link);
	}
	/* What went out at once leaves nothing that could drain. */
	if (!g->ended && !stream_queued(g->link))
		evtimer_start(g->soon, 0, 0);
}

static int gift_begin(struct template_gift *g, const json_t *j, struct err *err)
{
	const char *key;
	unsigned busy = 0;
	_cleanup_free_ char *folder = kept_folder();
	if (message_str(j, "key", &key, err) < 0)
		return -1;
	for (const struct template_gift *o = g->agent->gifts; o; o = o->next)
		busy += o->kept.note && !o->ended;
	if (!folder || !kept_key_ok(key))
		return err_set(err, ENOENT, "nothing is kept here");
	if (busy >= GIFTS_MAX)
		return err_set(err, EBUSY, "%u nodes are being served", busy);
	if (kept_open(folder, key, &g->kept, err) < 0)
		return -1;
	put(g->link,
	    json_pack("{s:b, s:s, s:I, s:I, s:I}", "ok", 1, "note", g->kept.note, "age",
		      (json_int_t)g->kept.age_s, "memory", (json_int_t)g->kept.sizes[KEPT_MEMORY],
		      "state", (json_int_t)g->kept.sizes[KEPT_STATE]));
	gift_more(g);
	return 0;
}

static void on_asked(void *arg, struct buf *in)
{
	struct template_gift *g = arg;
	struct frame f;
	struct err err = ERR_INIT;
	int got = g->kept.note || g->ended ? 0 : frame_read(in, FRAME_MAX_GUEST, &f, &err);
	if (g->kept.note || g->ended)
		buf_clear(in);
	if (got == 0)
		return;
	_cleanup_json_ json_t *j = got == 1 && f.type == FRAME_MESSAGE ? message_read(&f, &err) : NULL;
	if (got == 1)
		frame_drop(in, &f);
	if (!j || gift_begin(g, j, &err) < 0)
		gift_refuse(g, &err);
}

static void on_asker_gone(void *arg, const struct err *err _unused_)
{
	gift_end(arg);
}

static void on_room(void *arg)
{
	struct template_gift *g = arg;
	if (g->kept.note)
		gift_more(g);
}

static void on_gift_silent(void *arg)
{
	gift_end(arg);
}

void templates_link(struct agent *a, uint32_t node _unused_, struct stream *s)
{
	static const struct stream_ops ops = {.on_data = on_asked,
					      .on_close = on_asker_gone,
					      .on_drain = on_room};
	if (!a->dir) { /* it is ending */
		stream_destroy(s);
		return;
	}
	struct template_gift *g = xcalloc(1, sizeof(*g));
	*g = (struct template_gift){.next = a->gifts, .agent = a, .link = s};
	a->gifts = g;
	g->silent = evtimer_create(a->loop, on_gift_silent, g);
	g->soon = evtimer_create(a->loop, on_room, g);
	evtimer_start(g->silent, SILENT_MS, 0);
	stream_set_ops(s, &ops, g);
}

void templates_finish(struct agent *a)
{
	while (a->gifts)
		gift_end(a->gifts);
	json_decref(a->templates);
	a->templates = NULL;
}

/* ---- who wants it ---- */

struct template_fetch {
	struct agent *agent;
	char *key, *cache;
	void (*done)(void *arg, const char *from);
	void *arg;
	uint32_t nodes[NODES_MAX], node;
	unsigned n, next, tries;
	bool opening, over; /* the link: this must outlive it */
	uint64_t until;     /* loop time */
	struct stream *link;
	struct kept_new *came;
	struct evtimer *silent;
};

static void fetch_close(struct template_fetch *f)
{
	stream_destroy(TAKE_PTR(f->link));
	kept_drop(TAKE_PTR(f->came));
	evtimer_stop(f->silent);
}

static void fetch_cancel(struct template_fetch *f)
{
	fetch_close(f);
	f->over = true;
	if (f->opening)
		return;
	evtimer_destroy(f->silent);
	free(f->key);
	free(f->cache);
	free(f);
}

static void fetch_end(struct template_fetch *f, const char *from)
{
	void (*done)(void *, const char *) = f->done;
	void *arg = f->arg;
	fetch_cancel(f);
	done(arg, from);
}

static void try_next(struct template_fetch *f);

static void not_from_there(struct template_fetch *f, const struct err *err)
{
	log_info("no template from %s: %s", mesh_node_name(f->agent->mesh, f->node), err->text);
	fetch_close(f);
	try_next(f);
}

static int on_first(struct template_fetch *f, const json_t *j, struct err *err)
{
	const char *note;
	json_int_t memory, state, age;
	if (message_is_error(j, err))
		return -1;
	if (message_str(j, "note", &note, err) < 0 ||
	    message_int(j, "age", 0, INT64_MAX, &age, err) < 0 ||
	    message_int(j, "memory", 1, INT64_MAX, &memory, err) < 0 ||
	    message_int(j, "state", 1, INT64_MAX, &state, err) < 0)
		return -1;
	return kept_begin(f->cache, f->key, note,
			  (const uint64_t[KEPT_PARTS]){(uint64_t)memory, (uint64_t)state},
			  (uint64_t)age, &f->came, err);
}

/* 1: it is all there. */
static int on_frame(struct template_fetch *f, const struct frame *fr, struct err *err)
{
	if (fr->type == FRAME_DATA && f->came && (fr->fd == 1 || fr->fd == 2))
		return kept_add(f->came, fr->fd == 1 ? KEPT_MEMORY : KEPT_STATE, fr->payload,
				fr->len, err);
	_cleanup_json_ json_t *j = fr->type == FRAME_MESSAGE ? message_read(fr, err) : NULL;
	if (!j)
		return err->code ? -1 : err_set(err, EPROTO, "a frame that is not expected");
	if (!f->came)
		return on_first(f, j, err);
	return kept_commit(f->came, err) < 0 ? -1 : 1;
}

static void on_coming(void *arg, struct buf *in)
{
	struct template_fetch *f = arg;
	struct frame fr;
	struct err err = ERR_INIT;
	int got;
	evtimer_start(f->silent, SILENT_MS, 0);
	if (loop_now(f->agent->loop) > f->until) {
		err_set(&err, ETIMEDOUT, "it was not whole within %d s", WHOLE_MS / 1000);
		not_from_there(f, &err);
		return;
	}
	while ((got = frame_read(in, FRAME_MAX_MESSAGE, &fr, &err)) == 1) {
		int rc = on_frame(f, &fr, &err);
		if (rc > 0) {
			fetch_end(f, mesh_node_name(f->agent->mesh, f->node));
			return;
		}
		if (rc < 0) {
			got = -1;
			break;
		}
		frame_drop(in, &fr);
	}
	if (got < 0)
		not_from_there(f, &err);
}

static void on_giver_gone(void *arg, const struct err *err)
{
	struct err why = ERR_INIT;
	err_set(&why, ECONNRESET, "%s", err->code ? err->text : "the link ended before it was whole");
	not_from_there(arg, &why);
}

static void on_fetch_silent(void *arg)
{
	struct template_fetch *f = arg;
	struct err err = ERR_INIT;
	err_set(&err, ETIMEDOUT, "nothing came for %d s", SILENT_MS / 1000);
	if (f->tries)
		not_from_there(f, &err);
	else
		try_next(f); /* the beginning */
}

static void on_opened(void *arg, uint32_t node _unused_, struct stream *s, const struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_coming, .on_close = on_giver_gone};
	struct template_fetch *f = arg;
	f->opening = false;
	if (f->over) {
		stream_destroy(s);
		fetch_cancel(f);
	} else if (!s) {
		not_from_there(f, err);
	} else {
		f->link = s;
		stream_set_ops(s, &ops, f);
		put(s, json_pack("{s:s}", "key", f->key));
	}
}

static void try_next(struct template_fetch *f)
{
	if (f->opening || f->tries == MIN(f->n, (unsigned)TRIES)) {
		fetch_end(f, NULL);
		return;
	}
	f->node = f->nodes[f->next++ % f->n];
	f->tries++;
	f->opening = true;
	evtimer_start(f->silent, SILENT_MS, 0);
	mesh_open(f->agent->mesh, f->node, MESH_TEMPLATE, on_opened, f);
}

static struct template_fetch *fetch_begin(void *arg, const char *key, const char *cache,
					  void (*done)(void *done_arg, const char *from), void *done_arg)
{
	struct agent *a = arg;
	char beginning[SHORT + 1];
	snprintf(beginning, sizeof(beginning), "%.*s", SHORT, key);
	const json_t *node, *list = json_object_get(a->templates, beginning);
	struct template_fetch *f = xcalloc(1, sizeof(*f));
	*f = (struct template_fetch){.agent = a, .next = a->self, .done = done, .arg = done_arg};
	size_t i;
	json_array_foreach (list, i, node) {
		json_int_t v = json_integer_value(node);
		if (a->mesh && f->n < NODES_MAX && v >= 1 && v <= mesh_nodes(a->mesh) && v != a->self)
			f->nodes[f->n++] = (uint32_t)v;
	}
	if (!f->n) {
		free(f);
		return NULL;
	}
	f->key = xstrdup(key);
	f->cache = xstrdup(cache);
	f->until = loop_now(a->loop) + WHOLE_MS;
	f->silent = evtimer_create(a->loop, on_fetch_silent, f);
	evtimer_start(f->silent, 0, 0); /* from the loop: nothing may be done() before this returns */
	return f;
}

const struct template_source templates_elsewhere = {.begin = fetch_begin, .cancel = fetch_cancel};
