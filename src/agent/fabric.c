/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/fabric.h"

#include <errno.h>
#include <string.h>

#include "agent/mesh.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/size.h"
#include "base/time.h"
#include "net/kernet.h"
#include "net/tunnel.h"
#include "stage/stage.h"
#include "wire/message.h"

#define CACHE_LIMIT                                                                                \
	(UINT64_C(20) << 30) /* bytes of one user's files on a node, unless VSE_CACHE_LIMIT says */

/* The files of an image, by their names in the "create" message. The kernel as an ELF file may be missing. */
static const char *const file_names[] = {"kernel", "vmlinux", "initrd", "root"};
#define FILES ARRAY_SIZE(file_names)

/* The kernel clears up a network namespace when it gets round to it. Until then the VXLAN in it has its number. */
#define AGAIN_MS 100
#define AGAIN_FOR_MS 15000

struct fabric {
	struct agent *agent;
	struct tunnel *tunnel;
	struct kernet *kernet; /* the cluster's; in place of the tunnel */
	struct evtimer *again; /* to join it later */
	uint64_t again_until;  /* time_mono_ms() */
	struct stage *stage;
	struct stage_job *jobs[FILES]; /* kept: they serve other nodes, and lock files in the cache */
};

struct fabric_offer {
	struct fabric *fabric;
	json_t *files;
	size_t left;
	void (*done)(void *arg, json_t *files, const struct err *err);
	void *arg;
	struct offered {
		struct fabric_offer *offer;
		const char *name;
	} of[FILES];
};

struct fabric_fetch {
	struct fabric *fabric;
	json_t *paths;
	size_t left;
	void (*done)(void *arg, const json_t *paths, const struct err *err);
	void *arg;
	struct fetched {
		struct fabric_fetch *fetch;
		const char *name;
	} of[FILES];
};

/* ---- the tunnel ---- */

static void net_opened(void *arg, uint32_t node, struct stream *s, const struct err *err)
{
	struct fabric *f = arg;
	struct err why = ERR_INIT;
	if (!f->tunnel) {
		stream_destroy(s);
	} else if (!s) {
		log_info("network: no link to %s: %s", mesh_node_name(f->agent->mesh, node), err->text);
		tunnel_failed(f->tunnel, node);
	} else if (tunnel_attach(f->tunnel, node, true, s, &why) < 0) {
		log_warn("network: link to %s: %s", mesh_node_name(f->agent->mesh, node), why.text);
	}
}

static void net_connect(void *arg, uint32_t node)
{
	struct fabric *f = arg;
	mesh_open(f->agent->mesh, node, MESH_NET, net_opened, f);
}

static void net_closed(void *arg, uint32_t node, const struct err *err)
{
	struct fabric *f = arg;
	log_info("network: the link to %s ended: %s", mesh_node_name(f->agent->mesh, node),
		 err->code ? err->text : "closed by the other side");
}

static const struct tunnel_ops tunnel_ops = {.connect = net_connect, .closed = net_closed};

void fabric_net_link(struct fabric *f, uint32_t node, struct stream *s)
{
	struct err err = ERR_INIT;
	if (!f->tunnel)
		stream_destroy(s); /* no cluster here yet, or none any more: it is asked for again */
	else if (tunnel_attach(f->tunnel, node, false, s, &err) < 0)
		log_warn("network: link from %s: %s", mesh_node_name(f->agent->mesh, node), err.text);
}

/* A rank in the kernel's tables. */
static int place_kernel(struct fabric *f, uint32_t rank, uint32_t node, struct err *err)
{
	struct in_addr to = {.s_addr = INADDR_ANY};
	if (node != f->agent->self && node <= mesh_nodes(f->agent->mesh) &&
	    mesh_ipv4(f->agent->mesh, node, &to, err) < 0)
		return -1;
	return kernet_place(f->kernet, rank, to, err);
}

static int join_kernel(struct fabric *f, const struct cluster_spec *s, struct err *err)
{
	const char *self = mesh_node_name(f->agent->mesh, f->agent->self);
	if (kernet_join(f->kernet, mesh_cluster_id(f->agent->mesh), err) < 0)
		return err_prefix(err, "%s: network by the kernel: ", self);
	int rc = 0;
	for (uint32_t r = 0; r < s->size; r++) /* the others may be reached all the same */
		if (place_kernel(f, r, s->node_of[r], rc ? NULL : err) < 0)
			rc = -1;
	return rc < 0 ? err_prefix(err, "%s: network by the kernel: ", self) : 0;
}

static void no_network(struct fabric *f, uint32_t rank, const struct err *err)
{
	log_warn("network: %s", err->text);
	events_add(cluster_events(f->agent->cluster), rank, "note", "network: %s", err->text);
}

static void on_again(void *arg)
{
	struct fabric *f = arg;
	struct err err = ERR_INIT;
	if (!f->kernet || join_kernel(f, cluster_get_spec(f->agent->cluster), &err) == 0)
		return;
	if (err.code == EEXIST && time_mono_ms() < f->again_until)
		evtimer_start(f->again, AGAIN_MS, 0);
	else
		no_network(f, EVENT_NO_RANK, &err);
}

void fabric_rejoin(struct fabric *f, struct cluster *c)
{
	struct err err = ERR_INIT;
	if (fabric_join(f, c, &err) == 0)
		return;
	f->again_until = time_mono_ms() + AGAIN_FOR_MS;
	if (!f->again)
		f->again = evtimer_create(f->agent->loop, on_again, f);
	if (f->kernet && err.code == EEXIST)
		evtimer_start(f->again, AGAIN_MS, 0);
	else
		no_network(f, EVENT_NO_RANK, &err);
}

int fabric_join(struct fabric *f, struct cluster *c, struct err *err)
{
	const struct cluster_spec *s = cluster_get_spec(c);
	struct tunnel_config config = {.self = f->agent->self};
	f->kernet = s->node_of ? cluster_kernet(c) : NULL;
	if (f->kernet && join_kernel(f, s, err) < 0)
		return -1;
	if (!cluster_net(c) || !s->node_of)
		return 0;
	f->tunnel = tunnel_create(f->agent->loop, cluster_net(c), &config, &tunnel_ops, f);
	for (uint32_t r = 0, n; r < s->size; r += n) {
		for (n = 1; r + n < s->size && s->node_of[r + n] == s->node_of[r]; n++)
			;
		if (tunnel_place(f->tunnel, r, n, s->node_of[r], err) < 0)
			return -1;
	}
	return 0;
}

void fabric_move(struct fabric *f, uint32_t rank, uint32_t node)
{
	struct err err = ERR_INIT;
	if (f->tunnel)
		tunnel_place(f->tunnel, rank, 1, node, NULL);
	if (f->kernet && place_kernel(f, rank, node, &err) < 0)
		no_network(f, rank, &err);
}

void fabric_part(struct fabric *f)
{
	tunnel_destroy(f->tunnel);
	evtimer_destroy(f->again);
	f->tunnel = NULL;
	f->kernet = NULL;
	f->again = NULL;
}

/* ---- the files ---- */

static void bulk_opened(void *arg, uint32_t node, struct stream *s, const struct err *err)
{
	struct fabric *f = arg;
	if (s)
		stage_attach(f->stage, node, s);
	else
		stage_connect_failed(f->stage, node, err);
}

static void bulk_connect(void *arg, uint32_t node)
{
	struct fabric *f = arg;
	mesh_open(f->agent->mesh, node, MESH_BULK, bulk_opened, f);
}

static void bulk_closed(void *arg, uint32_t node, const struct err *err)
{
	struct fabric *f = arg;
	if (err->code)
		log_info("files: the link to %s ended: %s", mesh_node_name(f->agent->mesh, node),
			 err->text);
}

static const struct stage_ops stage_ops = {.connect = bulk_connect, .closed = bulk_closed};

void fabric_bulk_link(struct fabric *f, uint32_t node, struct stream *s)
{
	stage_attach(f->stage, node, s);
}

void fabric_set_nodes(struct fabric *f, uint32_t n_nodes)
{
	stage_set_nodes(f->stage, n_nodes);
}

void fabric_node_lost(struct fabric *f, uint32_t node)
{
	stage_node_lost(f->stage, node);
	if (f->tunnel)
		tunnel_detach(f->tunnel, node);
}

static void on_offer(void *arg, const struct stage_file *file, const struct err *err)
{
	struct offered *one = arg;
	struct fabric_offer *o = one->offer;
	if (err->code) {
		o->done(o->arg, NULL, err);
		fabric_offer_cancel(o);
		return;
	}
	json_object_set_new(o->files, one->name, stage_file_json(file));
	if (--o->left)
		return;
	o->done(o->arg, json_incref(o->files), NULL);
	json_decref(o->files);
	free(o);
}

struct fabric_offer *fabric_offer(struct fabric *f, const struct cluster_spec *s,
				  void (*done)(void *arg, json_t *files, const struct err *err),
				  void *arg, struct err *err)
{
	const char *paths[FILES] = {s->kernel, s->vmlinux, s->initrd, s->root};
	struct fabric_offer *o = xcalloc(1, sizeof(*o));
	*o = (struct fabric_offer){.fabric = f, .files = json_object(), .done = done, .arg = arg};
	for (size_t i = 0; i < FILES; i++)
		o->left += paths[i] != NULL;
	for (size_t i = 0; i < FILES; i++) {
		o->of[i] = (struct offered){.offer = o, .name = file_names[i]};
		if (paths[i])
			f->jobs[i] = stage_offer(f->stage, paths[i], on_offer, &o->of[i]);
	}
	if (o->left)
		return o;
	err_set(err, EINVAL, "the image has no files");
	fabric_offer_cancel(o);
	return NULL;
}

static void release(struct fabric *f)
{
	for (size_t i = 0; i < FILES; i++) {
		stage_release(f->jobs[i]);
		f->jobs[i] = NULL;
	}
}

void fabric_offer_cancel(struct fabric_offer *o)
{
	release(o->fabric);
	json_decref(o->files);
	free(o);
}

static void on_fetched(void *arg, const char *path, const struct err *err)
{
	struct fetched *one = arg;
	struct fabric_fetch *f = one->fetch;
	if (err->code) {
		f->done(f->arg, NULL, err);
		fabric_fetch_cancel(f);
		return;
	}
	json_object_set_new(f->paths, one->name, json_string(path));
	if (--f->left)
		return;
	f->done(f->arg, f->paths, NULL);
	json_decref(f->paths);
	free(f);
}

struct fabric_fetch *fabric_fetch(struct fabric *f, const json_t *files,
				  void (*done)(void *arg, const json_t *paths, const struct err *err),
				  void *arg, struct err *err)
{
	struct fabric_fetch *fetch = xcalloc(1, sizeof(*fetch));
	*fetch = (struct fabric_fetch){.fabric = f, .paths = json_object(), .done = done, .arg = arg};
	release(f);
	for (size_t i = 0; i < FILES; i++) {
		struct stage_file file;
		const json_t *j = json_object_get(files, file_names[i]);
		fetch->of[i] = (struct fetched){.fetch = fetch, .name = file_names[i]};
		if (!j)
			continue;
		if (stage_file_read(j, &file, err) < 0) {
			fabric_fetch_cancel(fetch);
			return NULL;
		}
		fetch->left++;
		f->jobs[i] = stage_fetch(f->stage, &file, on_fetched, &fetch->of[i]);
	}
	if (fetch->left)
		return fetch;
	err_set(err, EPROTO, "message: 'files' names none of an image");
	fabric_fetch_cancel(fetch);
	return NULL;
}

void fabric_fetch_progress(const struct fabric_fetch *f, uint64_t *ret_have, uint64_t *ret_all)
{
	*ret_have = *ret_all = 0;
	for (size_t i = 0; i < FILES; i++) {
		struct stage_progress p;
		if (!f->fabric->jobs[i])
			continue;
		stage_job_progress(f->fabric->jobs[i], &p);
		*ret_have += p.here + p.kept + p.received;
		*ret_all += p.size;
	}
}

void fabric_fetch_cancel(struct fabric_fetch *f)
{
	release(f->fabric);
	json_decref(f->paths);
	free(f);
}

/* ---- life ---- */

static uint64_t cache_limit(void)
{
	const char *text = getenv("VSE_CACHE_LIMIT");
	uint64_t v;
	return text && size_parse(text, &v, NULL) == 0 ? v : CACHE_LIMIT;
}

struct fabric *fabric_create(struct agent *a, uint32_t n_nodes, struct err *err)
{
	const char *asked = getenv("VSE_CACHE");
	_cleanup_free_ char *cache = asked && asked[0] == '/'
					     ? xstrdup(asked)
					     : xasprintf("/var/tmp/vse-cache-%u", (unsigned)geteuid());
	struct fabric *f = xcalloc(1, sizeof(*f));
	struct stage_config config = {.self = a->self,
				      .nodes = n_nodes,
				      .name = a->self ? mesh_node_name(a->mesh, a->self) : NULL,
				      .cache = cache,
				      .cache_limit = cache_limit()};
	f->agent = a;
	if (stage_create(a->loop, &config, &stage_ops, f, &f->stage, err) == 0)
		return f;
	free(f);
	return NULL;
}

void fabric_destroy(struct fabric *f)
{
	if (!f)
		return;
	fabric_part(f);
	release(f);
	stage_destroy(f->stage);
	free(f);
}
