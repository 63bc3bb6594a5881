/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "agent/mesh_state.h"
#include "agent/node.h"

/* ---- actions of the overlay ---- */

static struct child *find(struct mesh *m, uint32_t id)
{
	for (struct child *c = m->links; c; c = c->next)
		if (c->id == id)
			return c;
	return NULL;
}

struct child *mesh_add_link(struct mesh *m, uint32_t id, uint32_t node)
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

uint64_t mesh_now(const struct mesh *m)
{
	return loop_now(m->agent->loop);
}

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
	overlay_closed(m->overlay, mesh_now(m), id);
	mesh_drain(m);
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
	overlay_message(m->overlay, mesh_now(m), c->id, f->payload, f->len);
	mesh_drain(m); /* may free c */
	return 0;
}

const struct caller_link_ops mesh_child_ops = {.on_frame = child_frame, .on_lost = lost_child};

static void parent_frame(void *arg, const struct frame *f)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	overlay_message(m->overlay, mesh_now(m), c->id, f->payload,
			f->type == FRAME_MESSAGE ? f->len : 0);
	mesh_drain(m);
}

static void lost_parent(void *arg, const struct err *why)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	uint32_t id = c->id;
	log_info("the link to the parent, node %u, is gone: %s", c->node, why->text);
	c->conn = NULL;
	remove_link(c);
	overlay_closed(m->overlay, mesh_now(m), id);
	mesh_drain(m);
}

static const struct conn_link_ops parent_ops = {.on_frame = parent_frame, .on_lost = lost_parent};

static void on_dialed(void *arg, struct stream *s, const char *address _unused_, const struct err *err)
{
	struct child *c = arg;
	struct mesh *m = c->mesh;
	uint32_t id = c->id;
	c->dial = NULL;
	if (!s) {
		log_info("node %u cannot be reached: %s", c->node, err->text);
		remove_link(c);
		overlay_failed(m->overlay, mesh_now(m), id, err->code == ECONNREFUSED);
	} else {
		mesh_write_first(m, s, c->node, MESH_CONTROL);
		c->conn = conn_create_link(m->agent, s, &parent_ops, c);
		overlay_connected(m->overlay, mesh_now(m), id);
	}
	mesh_drain(m);
}

static void act_connect(struct mesh *m, const struct overlay_action *a)
{
	struct err err = ERR_INIT;
	struct child *c = mesh_add_link(m, a->link, a->node);
	c->dial = mesh_dial(m, a->address, on_dialed, c, &err);
	if (c->dial)
		return;
	log_warn("node %u: %s", a->node, err.text);
	remove_link(c);
	overlay_failed(m->overlay, mesh_now(m), a->link, false);
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
	overlay_closed(m->overlay, mesh_now(m), id);
	mesh_drain(m);
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

void mesh_drain(struct mesh *m)
{
	struct overlay_action a;
	if (m->draining)
		return; /* the outer round takes what this event brings */
	m->draining = true;
	while (overlay_next(m->overlay, &a))
		act(m, &a);
	m->draining = false;
	node_note(m->agent);
	uint64_t due = overlay_due(m->overlay), t = mesh_now(m);
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
	overlay_tick(m->overlay, mesh_now(m));
	mesh_drain(m);
}

bool mesh_has_parent(const struct mesh *m)
{
	return overlay_parent(m->overlay, NULL) != OVERLAY_NONE;
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
		.incarnation = c->incarnation,
		.lease = c->lease,
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
		oc.seed = mesh_now(m);
	m->overlay = overlay_create(&oc, mesh_now(m), err);
	if (!m->overlay)
		return -1;
	restore(m, c->journal);
	if (c->root) {
		overlay_hint(m->overlay, mesh_now(m), 0, c->root);
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
	if (m->tls && c->listener)
		m->listener = link_listener_take(a->loop, m->tls, c->listener, c->port,
						 &mesh_listener_ops, m, err);
	else if (m->tls)
		m->listener = link_listener_create(a->loop, m->tls, NULL, port, &mesh_listener_ops,
						   m, err);
	if (m->listener && start_overlay(m, c, err) == 0)
		return m;
	mesh_destroy(m);
	return NULL;
}

void mesh_start(struct mesh *m)
{
	overlay_start(m->overlay, mesh_now(m));
	mesh_drain(m);
}

void mesh_stopped(struct mesh *m)
{
	overlay_stopped(m->overlay, mesh_now(m));
	mesh_drain(m);
}

uint32_t mesh_incarnation(const struct mesh *m)
{
	return overlay_incarnation(m->overlay);
}

uint64_t mesh_lease(const struct mesh *m)
{
	return overlay_lease(m->overlay);
}

void mesh_remove(struct mesh *m, uint32_t node)
{
	overlay_remove(m->overlay, mesh_now(m), node);
	mesh_drain(m);
}

void mesh_add_nodes(struct mesh *m, const struct strvec *names)
{
	if (names->n <= m->n_nodes)
		return;
	m->nodes = xreallocarray(m->nodes, names->n + 1, sizeof(*m->nodes));
	for (size_t i = m->n_nodes; i < names->n; i++) {
		m->nodes[i + 1] = (struct node){0};
		strvec_add(&m->names, names->v[i]);
	}
	m->n_nodes = (uint32_t)names->n;
	if (!m->self) {
		overlay_grow(m->overlay, mesh_now(m), m->n_nodes);
		mesh_drain(m);
	}
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
		mesh_newcomer_end(m->newcomers);
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
