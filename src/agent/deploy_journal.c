/* SPDX-License-Identifier: Apache-2.0 */
/* The journal of a root agent, and the root that goes on from it. */
#include <errno.h>
#include <string.h>

#include "agent/deploy_state.h"

#define JOURNAL "journal"
#define JOURNAL_MS 20            /* changes that come together are written together */
#define JOURNAL_MAX (256u << 20) /* bytes */

/* ---- the journal ---- */

/* One file, replaced as a whole: what a root that is started again needs to know. It holds the secret: it lies in the
 * run directory (0700) and has mode 0600. Until the cluster is up there is none: who dies before then takes the
 * start with him. */
int deploy_write_journal(struct deploy *d, struct err *err)
{
	struct agent *a = d->agent;
	const struct cluster_spec *s = cluster_get_spec(a->cluster);
	if (d->step != UP)
		return 0;
	json_t *req = json_copy(d->req), *nodes = json_array();
	cluster_spec_write_place(&s->nodes, s->node_of, s->size, req);
	for (uint32_t i = 1; i <= d->n; i++) {
		const struct member *m = &d->members[i];
		json_array_append_new(
			nodes,
			json_pack("{s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:s*, s:s*, s:s*}", "name",
				  m->name, "up", m->up, "removed", m->removed || m->joining, "cpus",
				  (json_int_t)m->cpus, "cores", (json_int_t)m->cores, "memory",
				  (json_int_t)m->memory, "hugepages", (json_int_t)m->hugepages,
				  "why", m->why, "hypervisor", m->hypervisor, "unfit", m->unfit));
	}
	_cleanup_free_ char *line = bootstrap_write(&d->bootstrap, err),
			    *path = path_join(a->dir, JOURNAL);
	_cleanup_json_ json_t *j = json_pack(
		"{s:o, s:s, s:o, s:o, s:o, s:s, s:s, s:s, s:I}", "req", req, "bootstrap",
		line ? line : "", "mesh", mesh_journal(a->mesh), "nodes", nodes, "migrations",
		deploy_migrations_journal(d), "launcher", d->launcher ? d->launcher->name : "",
		"job", d->allocation && d->allocation->job ? d->allocation->job : "", "manager",
		d->allocation ? d->allocation->launcher->name : "", "job_end",
		(json_int_t)(d->allocation ? d->allocation->end_time : 0));
	_cleanup_free_ char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	if (!text)
		return err_set(err, EILSEQ, "not UTF-8 text");
	return path_replace(path, text, strlen(text), 0600, err);
}

void deploy_on_journal(void *arg)
{
	struct err err = ERR_INIT;
	if (deploy_write_journal(arg, &err) < 0)
		log_warn("the journal cannot be written: %s", err.text);
}

void deploy_note_change(struct deploy *d)
{
	if (d->step == UP)
		evtimer_start(d->journal, JOURNAL_MS, 0);
}

static int read_journal(struct agent *a, json_t **ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(a->dir, JOURNAL), *text = NULL;
	size_t len;
	json_error_t where;
	if (path_read(path, JOURNAL_MAX, &text, &len, err) < 0)
		return -1;
	*ret = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	return *ret ? 0 : err_set(err, EPROTO, "%s: line %d: %s", path, where.line, where.text);
}

static int resume_members(struct deploy *d, const json_t *nodes, struct err *err)
{
	const json_t *v;
	size_t i;
	d->n = (uint32_t)json_array_size(nodes);
	if (d->n != d->bootstrap.nodes.n)
		return err_set(err, EPROTO, "the journal has %u nodes, and the names of %zu", d->n,
			       d->bootstrap.nodes.n);
	d->members = xcalloc(d->n + 1, sizeof(*d->members));
	json_array_foreach (nodes, i, v) {
		struct member *m = &d->members[i + 1];
		const char *name = json_string_value(json_object_get(v, "name"));
		*m = (struct member){
			.name = xstrdup(name ? name : ""),
			.why = xstrdup(json_string_value(json_object_get(v, "why"))),
			.hypervisor = xstrdup(json_string_value(json_object_get(v, "hypervisor"))),
			.unfit = xstrdup(json_string_value(json_object_get(v, "unfit"))),
			.cpus = (uint32_t)json_integer_value(json_object_get(v, "cpus")),
			.cores = (uint32_t)json_integer_value(json_object_get(v, "cores")),
			.hugepages = (uint64_t)json_integer_value(json_object_get(v, "hugepages")),
			.memory = (uint64_t)json_integer_value(json_object_get(v, "memory")),
			.removed = json_is_true(json_object_get(v, "removed")),
			.up = json_is_true(json_object_get(v, "up"))};
		m->up = m->up && !m->removed;
		m->failed = !m->up;
		d->n_up += m->up;
		d->n_failed += m->failed;
	}
	return 0;
}

/* Its nodes are the members by now; the reaper holds it. */
static void resume_allocation(struct deploy *d, const json_t *j)
{
	const char *job = json_string_value(json_object_get(j, "job")),
		   *manager = json_string_value(json_object_get(j, "manager"));
	const struct launcher *l = manager ? launcher_find(manager) : NULL;
	if (!l || !job || !job[0])
		return;
	d->allocation = allocation_of_job(l, job, json_integer_value(json_object_get(j, "job_end")));
	evtimer_start(d->clock, 0, DEPLOY_CLOCK_MS);
}

int deploy_resume(struct agent *a, struct err *err)
{
	_cleanup_json_ json_t *j = NULL;
	struct cluster_spec spec;
	if (read_journal(a, &j, err) < 0)
		return -1;
	const json_t *req = json_object_get(j, "req");
	const char *line = json_string_value(json_object_get(j, "bootstrap")),
		   *launcher = json_string_value(json_object_get(j, "launcher"));
	if (cluster_spec_read(req, &spec, err) < 0)
		return -1;
	a->cluster = cluster_create(a->loop, &spec, 0, a->dir, &agent_cluster_ops, a, err);
	if (!a->cluster)
		return -1;
	cluster_events(a->cluster)->on_event = agent_on_event;
	cluster_events(a->cluster)->arg = a;
	struct deploy *d = deploy_make(a, req);
	d->launcher = launcher ? launcher_find(launcher) : NULL;
	if (bootstrap_parse(line ? line : "", line ? strlen(line) : 0, &d->bootstrap, err) < 0 ||
	    resume_members(d, json_object_get(j, "nodes"), err) < 0 ||
	    deploy_make_mesh(d, json_object_get(j, "mesh"), err) < 0)
		return -1;
	d->step = UP;
	cluster_elsewhere_started(a->cluster, NULL);
	events_add(cluster_events(a->cluster), EVENT_NO_RANK, "cluster",
		   "the root agent was started again");
	mesh_start(a->mesh);
	d->grown = true; /* perhaps */
	resume_allocation(d, j);
	deploy_migrations_resume(d, json_object_get(j, "migrations"));
	for (uint32_t i = 1; i <= d->n; i++)
		if (d->members[i].removed) {
			free(d->bootstrap.nodes.v[i - 1]);
			d->bootstrap.nodes.v[i - 1] = xstrdup(DEPLOY_REMOVED_NAME);
			mesh_remove(a->mesh, i);
		}
	deploy_note_change(d);
	return 0;
}
