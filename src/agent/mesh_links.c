/* SPDX-License-Identifier: Apache-2.0 */
/* Links that others make, before it is known what for, and those that are made for other rooms. */
#include <errno.h>
#include <string.h>

#include "agent/mesh_state.h"
#include "io/tcp.h"

static const char *const kinds[] = {
	[MESH_CONTROL] = "control", [MESH_BULK] = "bulk", [MESH_NET] = "net", [MESH_STATE] = "state", [MESH_TEMPLATE] = "template"};

/* ---- links of any kind ---- */

void mesh_write_first(struct mesh *m, struct stream *s, uint32_t to, enum mesh_link kind)
{
	_cleanup_json_ json_t *j = json_pack("{s:s, s:i, s:s, s:I, s:I}", "link", kinds[kind],
					     "version", MESSAGE_VERSION, "cluster", m->id, "from",
					     (json_int_t)m->self, "to", (json_int_t)to);
	message_write(stream_out(s), 0, 0, j, NULL);
	stream_flush(s);
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

int mesh_ipv4(const struct mesh *m, uint32_t node, struct in_addr *ret, struct err *err)
{
	_cleanup_strvec_ struct strvec hosts = STRVEC_INIT;
	const char *address = node <= m->n_nodes ? m->nodes[node].address : NULL;
	uint16_t port;
	if (!address)
		return err_set(err, EHOSTUNREACH, "node %s: its address is not known",
			       mesh_node_name(m, node));
	if (parse_address(address, &hosts, &port, err) < 0)
		return -1;
	if (tcp_nearest_ipv4(&hosts, ret, err) < 0)
		return err_prefix(err, "node %s: ", mesh_node_name(m, node));
	return 0;
}

const char *mesh_cluster_id(const struct mesh *m)
{
	return m->id;
}

struct link_dial *mesh_dial(struct mesh *m, const char *address,
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

/* ---- links that others make ---- */

void mesh_newcomer_end(struct newcomer *n)
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
	mesh_newcomer_end(n);
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
			      ? overlay_accepted(m->overlay, mesh_now(m), peer)
			      : 0;
	if (!id) {
		stream_destroy(s);
		return;
	}
	struct child *c = mesh_add_link(m, id, from);
	c->caller = caller_create(m->agent->loop, s, name, &mesh_child_ops, c);
	mesh_drain(m);
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
	mesh_newcomer_end(n);
	if (kind == MESH_CONTROL)
		accept_control(m, from, s);
	else if (kind == MESH_NET)
		m->ops->on_net(m->arg, from, s);
	else if (kind == MESH_STATE)
		m->ops->on_state(m->arg, from, s);
	else if (kind == MESH_TEMPLATE)
		m->ops->on_template(m->arg, from, s);
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

const struct link_listener_ops mesh_listener_ops = {.on_link = on_link, .on_refused = on_refused};

/* ---- links that we make for others ---- */

static void opening_end(struct opening *o, struct stream *s, const struct err *err)
{
	struct opening **p = &o->mesh->openings;
	while (*p != o)
		p = &(*p)->next;
	*p = o->next;
	evtimer_destroy(o->failed);
	if (s)
		mesh_write_first(o->mesh, s, o->node, o->kind);
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
		o->dial = mesh_dial(m, address, on_opened, o, &o->err);
	if (!o->dial) {
		o->failed = evtimer_create(m->agent->loop, on_open_failed, o);
		evtimer_start(o->failed, 0, 0);
	}
}
