/* SPDX-License-Identifier: Apache-2.0 */
/* A node's agent that follows one that has died: what it needs is in a file of the run directory (mode 0600: the keys of
 * the VMs are in it), in the VMs' own folders, and in what its keeper holds. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/keeper.h"
#include "agent/node.h"
#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/rundir.h"
#include "wire/message.h"

#define FILE_MAX (16u << 20) /* bytes */
/* The others wait for an agent that is late; what its guests are asked meanwhile is refused. Not near --lost-after. */
#define SETTLE_MS 1500

struct adoption {
	json_t *req; /* "create" */
	struct fabric_fetch *fetch;
	struct evtimer *late; /* joins all the same; NULL: it has joined */
	char *text;           /* of the restart; NULL: nothing to tell, or told */
	bool settled;
};

/* ---- what is kept ---- */

static struct adoption *adoption(struct agent *a)
{
	if (!a->adoption)
		a->adoption = xcalloc(1, sizeof(*a->adoption));
	return a->adoption;
}

void node_created(struct agent *a, const json_t *req)
{
	struct adoption *ad = adoption(a);
	json_decref(ad->req);
	ad->req = json_copy((json_t *)req);
	cluster_keep(a->cluster);
}

void node_joined(struct agent *a, const json_t *addresses)
{
	if (!a->adoption || !a->adoption->req)
		return;
	json_object_set(a->adoption->req, "addresses", (json_t *)addresses);
	node_save(a);
}

void node_save(struct agent *a)
{
	struct err err = ERR_INIT;
	if (!a->kept || !a->adoption || !a->adoption->req || cluster_get_phase(a->cluster) != CLUSTER_UP)
		return;
	const struct cluster_spec *s = cluster_get_spec(a->cluster);
	json_t *req = json_copy(a->adoption->req);
	if (s->node_of)
		cluster_spec_write_place(&s->nodes, s->node_of, s->size, req);
	_cleanup_json_ json_t *j = json_pack("{s:o, s:o}", "create", req, "cluster",
					     cluster_save(a->cluster));
	_cleanup_free_ char *text = json_dumps(j, JSON_COMPACT), *path = path_join(a->dir, NODE_FILE);
	if (!text || path_replace(path, text, strlen(text), 0600, &err) < 0)
		log_warn("its VMs could not be adopted: %s", text ? err.text : "not UTF-8");
}

void node_note(struct agent *a)
{
	if (a->kept && a->mesh)
		a->kept->page->lease = mesh_lease(a->mesh);
}

/* ---- going on ---- */

static void join(struct agent *a)
{
	struct adoption *ad = a->adoption;
	if (!ad->late)
		return;
	evtimer_destroy(TAKE_PTR(ad->late));
	mesh_start(a->mesh);
}

static void on_late(void *arg)
{
	join(arg);
}

/* They are in the cache: this only keeps them there. */
static void on_fetched(void *arg, const json_t *paths, const struct err *err)
{
	struct agent *a = arg;
	a->adoption->fetch = NULL;
	if (!paths)
		log_warn("the image's files are not here any more: %s", err->text);
}

static int read_file(struct agent *a, json_t **ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(a->dir, NODE_FILE), *text = NULL;
	size_t len;
	json_error_t where;
	if (path_read(path, FILE_MAX, &text, &len, err) < 0)
		return -1;
	*ret = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	return *ret ? 0 : err_set(err, EPROTO, "%s: line %d: %s", path, where.line, where.text);
}

/* VMs that were on their way here, or had begun here before it was noted: none of this node's. */
static void end_strangers(struct agent *a)
{
	const struct cluster_spec *s = cluster_get_spec(a->cluster);
	for (uint32_t r = 0; s->node_of && r < s->size; r++) {
		_cleanup_free_ char *dir = xasprintf("%s/vm%u", a->dir, r);
		if (s->node_of[r] == a->self || !path_exists(dir))
			continue;
		log_warn("vm%u: was not of this node yet: ended", r);
		rundir_end_vm(dir);
	}
}

static int resume(struct agent *a, struct err *err)
{
	_cleanup_json_ json_t *j = NULL;
	struct cluster_spec spec;
	if (read_file(a, &j, err) < 0)
		return -1;
	const json_t *req = json_object_get(j, "create"), *files = json_object_get(req, "files");
	if (cluster_spec_read(req, &spec, err) < 0)
		return -1;
	a->cluster = cluster_create(a->loop, &spec, a->self, a->dir, &agent_cluster_ops, a, err);
	if (!a->cluster)
		return -1;
	end_strangers(a);
	cluster_events(a->cluster)->on_event = agent_on_event;
	cluster_events(a->cluster)->arg = a;
	node_created(a, req);
	if (service_know_nodes(a, req, err) < 0) /* nodes that were added since the start */
		return -1;
	mesh_set_addresses(a->mesh, json_object_get(req, "addresses"));
	fabric_rejoin(a->fabric, a->cluster);
	if (files)
		a->adoption->fetch = fabric_fetch(a->fabric, files, on_fetched, a, NULL);
	cluster_adopt(a->cluster, json_object_get(j, "cluster"));
	return 0;
}

bool node_has_saved(const struct agent *a)
{
	_cleanup_free_ char *path = path_join(a->dir, NODE_FILE);
	return path_exists(path);
}

void node_resume(struct agent *a)
{
	struct err err = ERR_INIT;
	struct adoption *ad = adoption(a);
	log_warn("this agent follows one that has died");
	ad->late = evtimer_create(a->loop, on_late, a);
	evtimer_start(ad->late, SETTLE_MS, 0);
	if (resume(a, &err) == 0)
		return;
	log_warn("no VMs are adopted: %s", err.text);
	rundir_end_vms(a->dir);
	join(a);
}

void node_adopted(void *arg, uint32_t adopted, const struct rankset *lost)
{
	struct agent *a = arg;
	struct adoption *ad = a->adoption;
	_cleanup_buf_ struct buf ranks = BUF_INIT;
	uint32_t first = rankset_next(lost, 0), n = rankset_count(lost);
	if (n)
		rankset_format(lost, &ranks);
	ad->text = xasprintf("the agent on %s was started again: %u VM%s adopted%s%s%s%s",
			     mesh_node_name(a->mesh, a->self), adopted, adopted == 1 ? "" : "s",
			     n ? ", ended: vm[" : "", n ? buf_cstr(&ranks) : "", n ? "]: " : "",
			     n ? vm_reason(cluster_vm(a->cluster, first)) : "");
	ad->settled = true;
	join(a);
	node_tell(a);
}

void node_tell(struct agent *a)
{
	struct adoption *ad = a->adoption;
	if (!ad || !ad->settled || !ad->text || !a->admitted || !a->cluster)
		return;
	events_add(cluster_events(a->cluster), EVENT_NO_RANK, "node", "%s", ad->text);
	free(TAKE_PTR(ad->text));
}

void node_adoption_finish(struct agent *a)
{
	struct adoption *ad = TAKE_PTR(a->adoption);
	if (!ad)
		return;
	if (ad->fetch)
		fabric_fetch_cancel(ad->fetch);
	evtimer_destroy(ad->late);
	json_decref(ad->req);
	free(ad->text);
	free(ad);
}
