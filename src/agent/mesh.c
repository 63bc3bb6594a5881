/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/mesh.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "agent/state.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/size.h"
#include "base/text.h"
#include "io/link.h"
#include "overlay/overlay.h"
#include "wire/message.h"

#define FIRST_FRAME_MS 10000  /* from an authenticated link */
#define FIRST_FRAME_MAX 4096u /* bytes */
#define DIAL_MS 10000
#define RETIRE_MS 100             /* between looks whether a retired link is still used */
#define REFUSED_LOGGED 50         /* strangers can knock often: so many are named, then counted */
#define REPORT_BACKLOG (1u << 20) /* bytes to the parent: no news are added to more */
#define QUEUE_MAX                                                                                  \
	(64u << 20) /* bytes to a child: one that reads no more than this behind is given up */

static const char *const kinds[] = {[MESH_CONTROL] = "control", [MESH_BULK] = "bulk", [MESH_NET] = "net"};

/* One control link; to us it is a child's, or the parent's. */
struct child {
	struct mesh *mesh;
	struct child *next;
	uint32_t id, node;
	bool up;               /* it takes requests: part of the tree */
	struct caller *caller; /* a child's */
	struct conn *conn;     /* the parent's */
	struct link_dial *dial;
	struct evtimer *retire;
};

/* A link that was accepted and has not said yet what it is. */
struct newcomer {
	struct mesh *mesh;
	struct newcomer *next;
	struct stream *stream;
	struct evtimer *timer;
	char peer[TCP_PEER_SIZE];
};

/* A link that mesh_open() makes. */
struct opening {
	struct mesh *mesh;
	struct opening *next;
	uint32_t node;
	enum mesh_link kind;
	struct link_dial *dial;
	struct evtimer *failed; /* tells of a failure that was known at once */
	struct err err;
	void (*done)(void *arg, uint32_t node, struct stream *s, const struct err *err);
	void *arg;
};

struct node {
	char *address, *reason;
	uint32_t incarnation;
	bool lost;
};

struct mesh {
	struct agent *agent;
	uint32_t self, n_nodes;
	char id[2 * MESH_ID_SIZE + 1];
	struct strvec names;
	struct node *nodes; /* by index, 0..n_nodes */
	const struct mesh_ops *ops;
	void *arg;
	struct tls_context *tls;
	struct link_listener *listener;
	struct overlay *overlay;
	struct evtimer *tick;
	bool draining;
	struct child *links;
	struct newcomer *newcomers;
	struct opening *openings;
	unsigned refused;
};

/* ---- actions of the overlay ---- */

static struct child *find(struct mesh *m, uint32_t id)
{
	for (struct child *c = m->links; c; c = c->next)
		if (c->id == id)
			return c;
	return NULL;
}

static struct child *add_link(struct mesh *m, uint32_t id, uint32_t node)
{
	struct child *c = xcalloc(1, sizeof(*c));
	*c = (struct child){.mesh = m, .next = m->links, .id = id, .node = node};
	m->links = c;
	return c;
}

static void remove_link(struct child *c)
{
	struct child **p = &c->mesh->links;
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	link_dial_cancel(c->dial);
	evtimer_destroy(c->retire);
	caller_destroy(c->caller);
	if (c->conn)
		conn_destroy(c->conn);
	free(c);
}

static uint64_t now(const struct mesh *m)
{
	return loop_now(m->agent->loop);
}

static void drain(struct mesh *m);

static void lost_child(void *arg, const struct err *why)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	log_debug("link %u to node %u: %s", c->id, c->node, why->text);
	uint32_t id = c->id;
	c->up = false;
	/* The open calls end with the reason before the link goes. */
	struct err gone = ERR_INIT;
	err_set(&gone, EHOSTUNREACH, "node %s: its link is gone%s%s", mesh_node_name(m, c->node),
		why->text[0] ? ": " : "", why->text);
	caller_lost(c->caller, &gone);
	remove_link(c);
	overlay_closed(m->overlay, now(m), id);
	drain(m);
}

static int child_frame(void *arg, const struct frame *f, struct err *err)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	if (f->type != FRAME_MESSAGE)
		return err_set(err, EPROTO, "a frame of another type with id 0");
	if (f->rank == MESH_REPORT) {
		_cleanup_json_ json_t *j = message_read(f, err);
		if (!j)
			return -1;
		report_bundle(m->agent, j);
		return 0;
	}
	overlay_message(m->overlay, now(m), c->id, f->payload, f->len);
	drain(m); /* may free c */
	return 0;
}

static const struct caller_link_ops child_ops = {.on_frame = child_frame, .on_lost = lost_child};

static void parent_frame(void *arg, const struct frame *f)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	overlay_message(m->overlay, now(m), c->id, f->payload, f->type == FRAME_MESSAGE ? f->len : 0);
	drain(m);
}

static void lost_parent(void *arg, const struct err *why)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	uint32_t id = c->id;
	log_info("the link to the parent, node %u, is gone: %s", c->node, why->text);
	c->conn = NULL;
	remove_link(c);
	overlay_closed(m->overlay, now(m), id);
	drain(m);
}

static const struct conn_link_ops parent_ops = {.on_frame = parent_frame, .on_lost = lost_parent};

static void write_first(struct mesh *m, struct stream *s, uint32_t to, enum mesh_link kind)
{
	_cleanup_json_ json_t *j = json_pack("{s:s, s:i, s:s, s:I, s:I}", "link", kinds[kind],
					     "version", MESSAGE_VERSION, "cluster", m->id, "from",
					     (json_int_t)m->self, "to", (json_int_t)to);
	message_write(stream_out(s), 0, 0, j, NULL);
	stream_flush(s);
}

static void on_dialed(void *arg, struct stream *s, const char *address _unused_, const struct err *err)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	uint32_t id = c->id;
	c->dial = NULL;
	if (!s) {
		log_info("node %u cannot be reached: %s", c->node, err->text);
		remove_link(c);
		overlay_failed(m->overlay, now(m), id, err->code == ECONNREFUSED);
	} else {
		write_first(m, s, c->node, MESH_CONTROL);
		c->conn = conn_create_link(m->agent, s, &parent_ops, c);
		overlay_connected(m->overlay, now(m), id);
	}
	drain(m);
}

/* "10.0.0.7:4000,[fd00::7]:4000" into addresses without ports; all have one port. */
static int parse_address(const char *text, struct strvec *ret, uint16_t *port, struct err *err)
{
	*port = 0;
	for (const char *p = text, *end; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, ',');
		const char *colon = memrchr(p, ':', (size_t)(end - p));
		_cleanup_free_ char *number = colon ? xasprintf("%.*s", (int)(end - colon - 1),
								colon + 1)
						    : NULL;
		int64_t v;
		if (!colon || colon == p || int_parse(number, 1, 65535, &v, NULL) < 0 ||
		    (*port && *port != v))
			return err_set(err, EPROTO, "'%.80s': not an address with a port", text);
		bool v6 = p[0] == '[' && colon[-1] == ']';
		_cleanup_free_ char *host = xasprintf("%.*s", (int)(colon - p - 2 * v6), p + v6);
		strvec_add(ret, host);
		*port = (uint16_t)v;
	}
	return ret->n ? 0 : err_set(err, EPROTO, "no address");
}

static struct link_dial *dial(struct mesh *m, const char *address,
			      void (*done)(void *arg, struct stream *s, const char *address,
					   const struct err *err),
			      void *arg, struct err *err)
{
	_cleanup_strvec_ struct strvec hosts = STRVEC_INIT;
	uint16_t port;
	if (parse_address(address, &hosts, &port, err) < 0)
		return NULL;
	return link_dial(m->agent->loop, m->tls, hosts.v, port, DIAL_MS, done, arg, err);
}

static void act_connect(struct mesh *m, const struct overlay_action *a)
{
	struct err err = ERR_INIT;
	struct child *c = add_link(m, a->link, a->node);
	c->dial = dial(m, a->address, on_dialed, c, &err);
	if (c->dial)
		return;
	log_warn("node %u: %s", a->node, err.text);
	remove_link(c);
	overlay_failed(m->overlay, now(m), a->link, false);
}

static void act_send(struct mesh *m, const struct overlay_action *a)
{
	struct child *c = find(m, a->link);
	struct frame f = {.type = FRAME_MESSAGE, .len = (uint32_t)a->len, .payload = a->data};
	if (c && c->caller)
		caller_frame(c->caller, &f);
	else if (c && c->conn)
		conn_frame(c->conn, &f);
}

static void on_retire(void *arg)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	uint32_t id = c->id;
	if (c->conn && conn_calls(c->conn))
		return;
	remove_link(c);
	overlay_closed(m->overlay, now(m), id);
	drain(m);
}

static void act_retire(struct mesh *m, const struct overlay_action *a)
{
	struct child *c = find(m, a->link);
	if (!c || c->retire)
		return;
	c->retire = evtimer_create(m->agent->loop, on_retire, c);
	evtimer_start(c->retire, 0, RETIRE_MS);
}

static void act_child(struct mesh *m, const struct overlay_action *a)
{
	struct child *c = find(m, a->link);
	if (!c)
		return;
	c->up = a->type == OVERLAY_CHILD_UP;
	c->node = a->node;
	if (c->up || !c->caller)
		return;
	struct err why = ERR_INIT;
	err_set(&why, EHOSTUNREACH, "node %s: its link is gone", mesh_node_name(m, c->node));
	caller_lost(c->caller, &why);
}

/* What was asked over it ends with the reason, not as if somebody had interrupted it. */
static void close_link(struct child *c, const char *text)
{
	struct err why = ERR_INIT;
	err_set(&why, EHOSTUNREACH, "node %s: its link is gone%s%s",
		mesh_node_name(c->mesh, c->node), text ? ": " : "", text ? text : "");
	c->up = false;
	if (c->caller)
		caller_lost(c->caller, &why);
	remove_link(c);
}

static void set_text(char **to, const char *text)
{
	free(*to);
	*to = text ? xstrdup(text) : NULL;
}

static void act_up(struct mesh *m, const struct overlay_action *a)
{
	if (a->node > m->n_nodes)
		return;
	set_text(&m->nodes[a->node].address, a->address);
	set_text(&m->nodes[a->node].reason, NULL);
	m->nodes[a->node].incarnation = a->incarnation;
	m->nodes[a->node].lost = false;
	_cleanup_json_ json_t *j = json_loadb(a->data ? a->data : "", a->len,
					      JSON_REJECT_DUPLICATES, NULL);
	log_info("node %s is up at %s", mesh_node_name(m, a->node), a->address ? a->address : "?");
	m->ops->on_node_up(m->arg, a->node, j);
}

static void act_lost(struct mesh *m, const struct overlay_action *a)
{
	if (a->node > m->n_nodes)
		return;
	set_text(&m->nodes[a->node].reason, a->why);
	m->nodes[a->node].lost = true;
	m->ops->on_node_lost(m->arg, a->node, a->why);
}

static void act(struct mesh *m, const struct overlay_action *a)
{
	struct child *c;
	switch (a->type) {
	case OVERLAY_CONNECT: act_connect(m, a); break;
	case OVERLAY_SEND: act_send(m, a); break;
	case OVERLAY_CLOSE:
		if ((c = find(m, a->link)))
			close_link(c, a->why);
		break;
	case OVERLAY_RETIRE: act_retire(m, a); break;
	case OVERLAY_REFUSED:
		if (m->refused++ < REFUSED_LOGGED)
			log_warn("node %u: refused: %s", a->node, a->why);
		break;
	case OVERLAY_PARENT: log_info("the parent is now node %d", (int)a->node); break;
	case OVERLAY_ADMITTED:
		log_info("let in as incarnation %u", a->incarnation);
		m->ops->on_admitted(m->arg);
		break;
	case OVERLAY_FENCED:
		log_warn("this node was declared lost: its VMs end before it is let in again");
		m->ops->on_fenced(m->arg);
		break;
	case OVERLAY_END: m->ops->on_end(m->arg, a->why); break;
	case OVERLAY_CHILD_UP:
	case OVERLAY_CHILD_DOWN: act_child(m, a); break;
	case OVERLAY_ROUTE: break; /* asked for when it is needed */
	case OVERLAY_NODE_UP: act_up(m, a); break;
	case OVERLAY_NODE_LOST: act_lost(m, a); break;
	case OVERLAY_NODE_SAFE: m->ops->on_node_safe(m->arg, a->node); break;
	}
}

static void drain(struct mesh *m)
{
	struct overlay_action a;
	if (m->draining)
		return; /* the outer round takes what this event brings */
	m->draining = true;
	while (overlay_next(m->overlay, &a))
		act(m, &a);
	m->draining = false;
	uint64_t due = overlay_due(m->overlay), t = now(m);
	if (due == UINT64_MAX)
		evtimer_stop(m->tick);
	else
		evtimer_start(m->tick, due > t ? due - t : 0, 0);
}

static void on_tick(void *arg)
{
	struct mesh *m = arg;
	for (struct child *c = m->links, *next; c; c = next) {
		next = c->next;
		if (c->up && c->caller && caller_queued(c->caller) > QUEUE_MAX) {
			struct err why = ERR_INIT;
			err_set(&why, ENOBUFS, "it does not read what is sent to it");
			lost_child(c, &why);
			break; /* the list may be another now */
		}
	}
	overlay_tick(m->overlay, now(m));
	drain(m);
}

/* ---- links that others make ---- */

static void newcomer_end(struct newcomer *n)
{
	struct newcomer **p = &n->mesh->newcomers;
	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	evtimer_destroy(n->timer);
	stream_destroy(n->stream);
	free(n);
}

static void refuse(struct newcomer *n, const struct err *why)
{
	if (n->mesh->refused++ < REFUSED_LOGGED)
		log_warn("a link from %s was refused: %s", n->peer, why->text);
	newcomer_end(n);
}

static int check_first(struct mesh *m, const json_t *j, uint32_t *from, enum mesh_link *kind,
		       struct err *err)
{
	const char *cluster, *word;
	json_int_t version, sender, to;
	if (message_str(j, "link", &word, err) < 0 || message_str(j, "cluster", &cluster, err) < 0 ||
	    message_int(j, "version", 0, INT32_MAX, &version, err) < 0 ||
	    message_int(j, "from", 0, OVERLAY_NODES_MAX - 1, &sender, err) < 0 ||
	    message_int(j, "to", 0, OVERLAY_NODES_MAX - 1, &to, err) < 0)
		return -1;
	if (version != MESSAGE_VERSION)
		return err_set(err, EPROTO, "it speaks version %d, this agent %d", (int)version,
			       MESSAGE_VERSION);
	if (strcmp(cluster, m->id) != 0)
		return err_set(err, EACCES, "it belongs to another cluster");
	if (to != m->self || sender == m->self || sender > m->n_nodes)
		return err_set(err, EPROTO, "it is from node %d to node %d, this is %u",
			       (int)sender, (int)to, m->self);
	size_t k = 0;
	while (k < ARRAY_SIZE(kinds) && strcmp(kinds[k], word) != 0)
		k++;
	if (k == ARRAY_SIZE(kinds))
		return err_set(err, EPROTO, "it is of no kind that is known here");
	*from = (uint32_t)sender;
	*kind = (enum mesh_link)k;
	return 0;
}

static void accept_control(struct mesh *m, uint32_t from, struct stream *s)
{
	char peer[TCP_ADDRESS_SIZE];
	_cleanup_free_ char *name = xasprintf("node %s", mesh_node_name(m, from));
	uint32_t id = tcp_peer_address(stream_fd(s), peer, NULL) == 0
			      ? overlay_accepted(m->overlay, now(m), peer)
			      : 0;
	if (!id) {
		stream_destroy(s);
		return;
	}
	struct child *c = add_link(m, id, from);
	c->caller = caller_create(m->agent->loop, s, name, &child_ops, c);
	drain(m);
}

static void on_first_data(void *arg, struct buf *in)
{
	struct newcomer *n = arg;
	struct mesh *m = n->mesh;
	struct frame f;
	struct err err = ERR_INIT;
	uint32_t from = 0;
	enum mesh_link kind = MESH_CONTROL;
	int got = frame_read(in, FIRST_FRAME_MAX, &f, &err);
	if (got == 0)
		return;
	_cleanup_json_ json_t *j = got == 1 ? message_read(&f, &err) : NULL;
	if (!j || check_first(m, j, &from, &kind, &err) < 0) {
		refuse(n, &err);
		return;
	}
	frame_drop(in, &f);
	struct stream *s = TAKE_PTR(n->stream);
	newcomer_end(n);
	if (kind == MESH_CONTROL)
		accept_control(m, from, s);
	else if (kind == MESH_NET)
		m->ops->on_net(m->arg, from, s);
	else
		m->ops->on_bulk(m->arg, from, s);
}

static void on_first_close(void *arg, const struct err *err)
{
	refuse(arg, err);
}

static void on_first_timeout(void *arg)
{
	struct err err = ERR_INIT;
	err_set(&err, ETIMEDOUT, "it did not say what it is");
	refuse(arg, &err);
}

static const struct stream_ops newcomer_ops = {.on_data = on_first_data, .on_close = on_first_close};

static void on_link(void *arg, struct stream *s, const char *peer)
{
	struct mesh *m = arg;
	struct newcomer *n = xcalloc(1, sizeof(*n));
	*n = (struct newcomer){.mesh = m, .next = m->newcomers, .stream = s};
	m->newcomers = n;
	snprintf(n->peer, sizeof(n->peer), "%s", peer);
	n->timer = evtimer_create(m->agent->loop, on_first_timeout, n);
	evtimer_start(n->timer, FIRST_FRAME_MS, 0);
	stream_set_ops(s, &newcomer_ops, n);
}

static void on_refused(void *arg, const char *peer, const struct err *why)
{
	struct mesh *m = arg;
	if (m->refused++ < REFUSED_LOGGED)
		log_warn("a connection from %s was refused: %s", peer, why->text);
}

static const struct link_listener_ops listener_ops = {.on_link = on_link, .on_refused = on_refused};

/* ---- links that we make for others ---- */

static void opening_end(struct opening *o, struct stream *s, const struct err *err)
{
	struct opening **p = &o->mesh->openings;
	while (*p != o)
		p = &(*p)->next;
	*p = o->next;
	evtimer_destroy(o->failed);
	if (s)
		write_first(o->mesh, s, o->node, o->kind);
	o->done(o->arg, o->node, s, err);
	free(o);
}

static void on_opened(void *arg, struct stream *s, const char *address _unused_, const struct err *err)
{
	opening_end(arg, s, err);
}

static void on_open_failed(void *arg)
{
	struct opening *o = arg;
	opening_end(o, NULL, &o->err);
}

void mesh_open(struct mesh *m, uint32_t node, enum mesh_link kind,
	       void (*done)(void *arg, uint32_t node, struct stream *s, const struct err *err),
	       void *arg)
{
	struct opening *o = xcalloc(1, sizeof(*o));
	*o = (struct opening){
		.mesh = m, .next = m->openings, .node = node, .kind = kind, .done = done, .arg = arg};
	m->openings = o;
	const char *address = node <= m->n_nodes ? m->nodes[node].address : NULL;
	if (!address)
		err_set(&o->err, EHOSTUNREACH, "node %s: its address is not known",
			mesh_node_name(m, node));
	else
		o->dial = dial(m, address, on_opened, o, &o->err);
	if (!o->dial) {
		o->failed = evtimer_create(m->agent->loop, on_open_failed, o);
		evtimer_start(o->failed, 0, 0);
	}
}

void mesh_report(struct mesh *m, const json_t *bundle)
{
	uint32_t id;
	struct child *c = overlay_parent(m->overlay, &id) == OVERLAY_NONE ? NULL : find(m, id);
	_cleanup_free_ char *text = c && c->conn ? json_dumps(bundle, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	struct frame f = {.type = FRAME_MESSAGE, .rank = MESH_REPORT, .len = (uint32_t)len, .payload = text};
	if (text && len <= FRAME_MAX_MESSAGE && conn_backlog(c->conn) < REPORT_BACKLOG)
		conn_frame(c->conn, &f);
}

/* ---- life ---- */

json_t *mesh_journal(const struct mesh *m)
{
	json_t *nodes = json_object();
	for (uint32_t i = 1; i <= m->n_nodes; i++) {
		const struct node *n = &m->nodes[i];
		char key[16];
		snprintf(key, sizeof(key), "%u", i);
		if (n->incarnation)
			json_object_set_new(nodes, key,
					    json_pack("{s:I, s:b, s:s*}", "incarnation",
						      (json_int_t)n->incarnation, "lost", n->lost,
						      "address", n->address));
	}
	return json_pack("{s:i, s:I, s:o}", "port", link_listener_port(m->listener), "epoch",
			 (json_int_t)overlay_epoch(m->overlay), "nodes", nodes);
}

static void restore(struct mesh *m, const json_t *journal)
{
	const char *key;
	json_t *v;
	json_object_foreach (json_object_get(journal, "nodes"), key, v) {
		int64_t i;
		if (int_parse(key, 1, m->n_nodes, &i, NULL) < 0)
			continue;
		struct node *n = &m->nodes[i];
		n->incarnation = (uint32_t)json_integer_value(json_object_get(v, "incarnation"));
		n->lost = json_is_true(json_object_get(v, "lost"));
		set_text(&n->address, json_string_value(json_object_get(v, "address")));
		overlay_restore(m->overlay, (uint32_t)i, n->incarnation, n->lost, n->address);
	}
}

static int start_overlay(struct mesh *m, const struct mesh_config *c, struct err *err)
{
	json_int_t before = json_integer_value(json_object_get(c->journal, "epoch"));
	struct overlay_config oc = {
		.index = c->self,
		.fanout = c->fanout,
		.n_nodes = c->self ? 0 : m->n_nodes,
		.incarnation = c->self ? 1 : 0,
		.epoch = c->self ? 0 : (uint64_t)before + 1,
		.port = link_listener_port(m->listener),
		.resources = c->resources,
		.resources_len = c->resources ? strlen(c->resources) : 0,
		.beat_ms = c->beat_ms,
		.lost_ms = c->lost_ms,
		.give_up_ms = c->give_up_ms,
	};
	memcpy(oc.cluster, c->id, sizeof(oc.cluster));
	if (getrandom(&oc.seed, sizeof(oc.seed), 0) != sizeof(oc.seed))
		oc.seed = now(m);
	m->overlay = overlay_create(&oc, now(m), err);
	if (!m->overlay)
		return -1;
	restore(m, c->journal);
	if (c->root) {
		overlay_hint(m->overlay, now(m), 0, c->root);
		set_text(&m->nodes[0].address, c->root);
	}
	return 0;
}

struct mesh *mesh_create(struct agent *a, const struct mesh_config *c, const struct mesh_ops *ops,
			 void *arg, struct err *err)
{
	struct mesh *m = xcalloc(1, sizeof(*m));
	*m = (struct mesh){
		.agent = a, .self = c->self, .n_nodes = (uint32_t)c->names->n, .ops = ops, .arg = arg};
	for (size_t i = 0; i < MESH_ID_SIZE; i++)
		snprintf(m->id + 2 * i, 3, "%02x", c->id[i]);
	for (size_t i = 0; i < c->names->n; i++)
		strvec_add(&m->names, c->names->v[i]);
	m->nodes = xcalloc(m->n_nodes + 1, sizeof(*m->nodes));
	m->tick = evtimer_create(a->loop, on_tick, m);
	_cleanup_free_ char *identity = xasprintf("vse:%s", m->id);
	m->tls = tls_context_create(c->secret, identity, err);
	/* The nodes look for a root that comes back where it was. */
	uint16_t port = (uint16_t)json_integer_value(json_object_get(c->journal, "port"));
	m->listener = m->tls ? link_listener_create(a->loop, m->tls, NULL, port, &listener_ops, m, err)
			     : NULL;
	if (m->listener && start_overlay(m, c, err) == 0)
		return m;
	mesh_destroy(m);
	return NULL;
}

void mesh_start(struct mesh *m)
{
	overlay_start(m->overlay, now(m));
	drain(m);
}

void mesh_stopped(struct mesh *m)
{
	overlay_stopped(m->overlay, now(m));
	drain(m);
}

void mesh_remove(struct mesh *m, uint32_t node)
{
	overlay_remove(m->overlay, now(m), node);
	drain(m);
}

void mesh_destroy(struct mesh *m)
{
	if (!m)
		return;
	m->draining = true; /* nothing is acted upon any more */
	while (m->openings) {
		struct opening *o = m->openings;
		m->openings = o->next;
		link_dial_cancel(o->dial);
		evtimer_destroy(o->failed);
		free(o);
	}
	while (m->newcomers)
		newcomer_end(m->newcomers);
	while (m->links)
		remove_link(m->links);
	link_listener_destroy(m->listener);
	tls_context_destroy(m->tls);
	evtimer_destroy(m->tick);
	overlay_destroy(m->overlay);
	for (uint32_t i = 0; m->nodes && i <= m->n_nodes; i++) {
		free(m->nodes[i].address);
		free(m->nodes[i].reason);
	}
	free(m->nodes);
	strvec_finish(&m->names);
	free(m);
}

/* ---- questions ---- */

char *mesh_address(const struct mesh *m)
{
	_cleanup_strvec_ struct strvec own = STRVEC_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT;
	unsigned port = link_listener_port(m->listener);
	tcp_own_addresses(&own, NULL);
	for (size_t i = 0; i < own.n; i++) {
		_cleanup_free_ char *one = xasprintf(strchr(own.v[i], ':') ? "%s[%s]:%u" : "%s%s:%u",
						     buf_len(&text) ? "," : "", own.v[i], port);
		if (buf_len(&text) + strlen(one) <= OVERLAY_ADDRESS_MAX)
			buf_adds(&text, one);
	}
	return buf_take(&text);
}

json_t *mesh_addresses(const struct mesh *m)
{
	json_t *j = json_object();
	for (uint32_t i = 1; i <= m->n_nodes; i++) {
		char key[16];
		snprintf(key, sizeof(key), "%u", i);
		if (m->nodes[i].address)
			json_object_set_new(j, key, json_string(m->nodes[i].address));
	}
	return j;
}

void mesh_set_addresses(struct mesh *m, const json_t *addresses)
{
	const char *key;
	json_t *v;
	json_object_foreach ((json_t *)addresses, key, v) {
		int64_t i;
		if (int_parse(key, 1, m->n_nodes, &i, NULL) == 0 && json_is_string(v))
			set_text(&m->nodes[i].address, json_string_value(v));
	}
}

struct child *mesh_route(struct mesh *m, uint32_t node)
{
	uint32_t id = overlay_hop(m->overlay, node);
	struct child *c = id ? find(m, id) : NULL;
	return c && c->up && c->caller ? c : NULL;
}

struct child *mesh_child_next(struct mesh *m, const struct child *c)
{
	struct child *next = c ? c->next : m->links;
	while (next && !(next->up && next->caller))
		next = next->next;
	return next;
}

struct caller *child_caller(struct child *c)
{
	return c->caller;
}

uint32_t mesh_nodes(const struct mesh *m)
{
	return m->n_nodes;
}

const char *mesh_node_name(const struct mesh *m, uint32_t node)
{
	static char number[24];
	if (node >= 1 && node <= m->names.n)
		return m->names.v[node - 1];
	snprintf(number, sizeof(number), node ? "node %u" : "root", node);
	return number;
}

const char *mesh_node_reason(const struct mesh *m, uint32_t node)
{
	return node <= m->n_nodes && m->nodes[node].reason ? m->nodes[node].reason : "";
}
