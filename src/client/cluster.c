/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rankset.h"
#include "base/hostlist.h"
#include "client/library.h"
#include "client/options.h"
#include "client/place.h"

#define CONNECT_TRIES 60 /* every 50 ms */
#define ASK_MS 10000
#define DOWN_MS                                                                                    \
	60000 /* a VM's end takes milliseconds, but seconds of a slow dom0, and where a terabyte is given back */

struct vse_cluster *cluster_new(struct vse_session *s, struct client *client, const char *name)
{
	struct vse_cluster *c = xcalloc(1, sizeof(*c));
	c->session = s;
	c->client = client;
	c->name = xstrdup(name);
	c->next = s->clusters;
	s->clusters = c;
	return c;
}

void vse_release(struct vse_cluster *c)
{
	if (!c)
		return;
	struct vse_cluster **at = &c->session->clusters;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	while (c->calls)
		call_orphan(c->calls);
	client_destroy(c->client);
	free(c->name);
	free(c);
}

/* The cluster named, or the only one that runs. malloc'ed; NULL with *err. */
static char *which(const char *base, const char *named, struct err *err)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	if (named) {
		if (cluster_name_check(named, err) < 0)
			return NULL;
		if (rundir_alive(base, named))
			return xstrdup(named);
		rundir_sweep(base, named);
		err_set(err, ENOENT, "no cluster '%s' runs (see 'vse ps')", named);
		return NULL;
	}
	if (rundir_list(base, &names, err) < 0)
		return NULL;
	if (names.n == 1)
		return xstrdup(names.v[0]);
	if (!names.n) {
		err_set(err, ENOENT, "no cluster runs ('vse up FILE' starts one)");
		return NULL;
	}
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < names.n && i < 8; i++)
		buf_addf(&b, "%s%s", i ? ", " : "", names.v[i]);
	err_set(err, EINVAL, "%zu clusters run (%s%s): say which with -c NAME", names.n,
		buf_cstr(&b), names.n > 8 ? ", ..." : "");
	return NULL;
}

static int attach(struct vse_session *s, const char *named, struct vse_cluster **ret,
		  struct vse_error *e)
{
	const char *base = session_base(s, e);
	struct client *client;
	if (!base)
		return error_code(e);
	_cleanup_free_ char *name = which(base, named, &e->err);
	if (!name)
		return error_code(e);
	int rc = client_connect(s->loop, base, name, &client, &e->err);
	/* A root agent that died is followed by another within a moment. */
	for (int i = 0;
	     rc < 0 && e->err.code == ENOENT && i < CONNECT_TRIES && rundir_alive(base, name); i++) {
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		rc = client_connect(s->loop, base, name, &client, &e->err);
	}
	if (rc < 0)
		return error_code(e);
	*ret = cluster_new(s, client, name);
	return 0;
}

int vse_attach(struct vse_session *s, const char *name, struct vse_cluster **ret, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	int rc = session_enter(s, err);
	if (rc)
		return rc;
	rc = attach(s, name, ret, err);
	session_leave(s);
	return rc;
}

int cluster_ask(struct vse_cluster *c, json_t *req, uint64_t bound_ms, json_t **ret, struct vse_error *e)
{
	struct vse_session *s = c->session;
	int rc = session_enter(s, e);
	if (rc) {
		json_decref(req);
		return rc;
	}
	rc = client_ask(c->client, req, bound_ms, ret, &e->err);
	session_leave(s);
	if (rc == 0)
		return 0;
	/* What was asked for does not exist in the cluster: a rank. */
	e->usage = e->err.code == ERANGE || e->err.code == EINVAL;
	return error_code(e);
}

int vse_detach(struct vse_cluster *c, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	return cluster_ask(c, json_pack("{s:s}", "verb", "keep"), ASK_MS, NULL, err);
}

const char *vse_name(const struct vse_cluster *c)
{
	return c->name;
}

int vse_size(struct vse_cluster *c, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	json_t *reply;
	if (c->size)
		return (int)c->size;
	int rc = cluster_ask(c, json_pack("{s:s}", "verb", "size"), ASK_MS, &reply, err);
	if (rc)
		return rc;
	json_int_t n = json_integer_value(json_object_get(reply, "size"));
	json_decref(reply);
	if (n < 1 || n > RANK_MAX)
		return error_set(err, EPROTO, "the agent of cluster '%s' told no size", c->name);
	c->size = (uint32_t)n;
	return (int)n;
}

/* An agent that runs its VMs itself does not say where. */
static void name_nodes(json_t *status)
{
	char host[256] = "";
	size_t i;
	json_t *vm;
	gethostname(host, sizeof(host) - 1);
	json_array_foreach (json_object_get(status, "vms"), i, vm) {
		if (!json_object_get(vm, "node"))
			json_object_set_new(vm, "node", json_string(host));
	}
}

int vse_status(struct vse_cluster *c, char **ret_json, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	json_t *status;
	int rc = cluster_ask(c, json_pack("{s:s}", "verb", "status"), ASK_MS, &status, err);
	if (rc)
		return rc;
	json_object_del(status, "ok");
	name_nodes(status);
	char *text = json_dumps(status, JSON_INDENT(2));
	json_decref(status);
	if (!text)
		return error_set(err, EPROTO, "the agent of cluster '%s' told no status", c->name);
	*ret_json = text;
	return 0;
}

int vse_control(struct vse_cluster *c, const char *what, const char *ranks, struct vse_error *err)
{
	static const char *const verbs[] = {"pause", "resume", "stop", "kill", "restart"};
	ERROR_OR_OWN(err);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(verbs[i], what) != 0)
			continue;
		bool kill = strcmp(what, "kill") == 0;
		json_t *req = json_pack("{s:s, s:s, s:b}", "verb", kill ? "stop" : what, "ranks",
					ranks, "hard", kill);
		if (!req)
			return error_set(err, EINVAL, "ranks: not UTF-8 text");
		/* The agent bounds the wait: it knows the cluster's own time-outs. */
		return cluster_ask(c, req, 0, NULL, err);
	}
	return error_set(err, EINVAL, "'%s': not pause, resume, stop, kill or restart", what);
}

int vse_down(struct vse_cluster *c, int graceful, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	return cluster_ask(c, json_pack("{s:s, s:b}", "verb", "down", "graceful", graceful != 0),
			   DOWN_MS, NULL, err);
}

static int migrate(struct vse_cluster *c, const char *ranks, const char *node, bool post_copy,
		   unsigned timeout_ms, char **ret_json, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	json_t *reply, *req = node ? json_pack("{s:s, s:s, s:s, s:b}", "verb", "migrate", "ranks",
					       ranks, "node", node, "post_copy", post_copy)
				   : json_pack("{s:s, s:s, s:b}", "verb", "migrate", "ranks", ranks,
					       "cancel", 1);
	if (!req)
		return error_set(err, EINVAL, "ranks or node: not UTF-8 text");
	if (timeout_ms)
		json_object_set_new(req, "timeout_ms",
				    json_integer(MIN(timeout_ms, (unsigned)INT32_MAX)));
	int rc = cluster_ask(c, req, 0, &reply, err); /* the root bounds the wait */
	if (rc)
		return rc;
	if (ret_json)
		*ret_json = json_dumps(json_object_get(reply, "moved"), JSON_COMPACT);
	json_decref(reply);
	return 0;
}

int vse_migrate(struct vse_cluster *c, const char *ranks, const char *node, unsigned timeout_ms,
		char **ret_json, struct vse_error *err)
{
	return migrate(c, ranks, node, false, timeout_ms, ret_json, err);
}

int vse_migrate_post_copy(struct vse_cluster *c, const char *ranks, const char *node,
			  unsigned timeout_ms, char **ret_json, struct vse_error *err)
{
	return migrate(c, ranks, node, true, timeout_ms, ret_json, err);
}

/* ---- nodes ---- */

int vse_nodes_add(struct vse_cluster *c, const struct vse_options *o, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	int rc = options_check(o, FOR_NODES, err);
	if (rc)
		return rc;
	/* The agent bounds the wait. */
	return cluster_ask(c, json_pack("{s:s, s:o}", "verb", "add_nodes", "launch", place_request(o)),
			   0, NULL, err);
}

int vse_nodes_remove(struct vse_cluster *c, const char *nodes, const char *vms, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	json_t *list = json_array();
	if (hostlist_expand(nodes, &names, &err->err) < 0) {
		json_decref(list);
		err->usage = true;
		return error_code(err);
	}
	for (size_t i = 0; i < names.n; i++)
		json_array_append_new(list, json_string(names.v[i]));
	return cluster_ask(
		c, json_pack("{s:s, s:o, s:s}", "verb", "remove_nodes", "nodes", list, "vms", vms),
		0, NULL, err);
}
