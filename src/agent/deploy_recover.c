/* SPDX-License-Identifier: Apache-2.0 */
/* VMs of lost nodes begin anew on others. */
#include <errno.h>
#include <string.h>

#include "agent/deploy_state.h"

/* ---- VMs of lost nodes ---- */

/* A node that comes back has missed what was moved meanwhile; to the others this is no news. */
void deploy_tell_places(struct deploy *d)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	json_t *j = json_object();
	cluster_spec_write_place(&s->nodes, s->node_of, s->size, j);
	json_decref(d->moves);
	d->moves = json_incref(json_object_get(j, "place"));
	json_decref(j);
	deploy_move_next(d);
}

/* A VM that was to begin on a node that is lost by now begins on one only. */
static void drop_moves(struct deploy *d, const struct rankset *ranks)
{
	const char *key;
	json_t *v;
	void *next;
	json_object_foreach_safe (d->moves, next, key, v) {
		_cleanup_rankset_ struct rankset left = RANKSET_INIT;
		_cleanup_buf_ struct buf text = BUF_INIT;
		if (rankset_parse(&left, json_string_value(v), RANK_MAX, NULL) < 0)
			continue;
		for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX;
		     r = rankset_next(ranks, r + 1))
			rankset_del(&left, r);
		rankset_format(&left, &text);
		if (rankset_count(&left))
			json_object_set_new(d->moves, key, json_string(buf_cstr(&text)));
		else
			json_object_del(d->moves, key);
	}
}

/* Where they are is being decided: who was told the old place now would end the VM that has just arrived. They are told of when
 * that is over (deploy_migrate.c). */
static void drop_migrating(struct deploy *d)
{
	uint32_t size = cluster_get_spec(d->agent->cluster)->size;
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	for (uint32_t r = 0; d->migrations && r < size; r++)
		if (deploy_is_migrating(d, r))
			rankset_add(&ranks, r);
	if (rankset_count(&ranks))
		drop_moves(d, &ranks);
}

void deploy_move_next(struct deploy *d)
{
	if (d->step != UP || d->call)
		return;
	drop_migrating(d);
	if (!json_object_size(d->moves))
		return;
	json_t *req = json_pack("{s:s, s:o, s:b}", "verb", "move", "place", d->moves, "start",
				d->start_moved ||
					json_is_true(json_object_get(d->launch, "recover")));
	const struct strvec *names = &cluster_get_spec(d->agent->cluster)->nodes;
	json_t *all = json_array();
	for (size_t i = 0; d->grown && i < names->n; i++)
		json_array_append_new(all, json_string(names->v[i]));
	json_object_set_new(req, "nodes", all);
	d->start_moved = false;
	d->moves = json_object();
	deploy_ask_all(d, VERB_move, req);
	json_decref(req);
}

/* The node with the most room left, given what each has now; 0: none has any. */
static uint32_t roomiest(struct deploy *d, const struct plan_options *o, const uint32_t *used)
{
	uint32_t best = 0;
	int64_t most = 0;
	for (uint32_t i = 1; i <= d->n; i++) {
		const struct member *m = &d->members[i];
		struct plan_node node = deploy_plan_node(d, i);
		int64_t left = (int64_t)plan_room(o, &node) - used[i];
		if (left > most && !m->joining && !m->leaving && !m->removed) {
			most = left;
			best = i;
		}
	}
	return best;
}

void deploy_add_move(struct deploy *d, uint32_t node, const struct rankset *ranks)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	char key[16];
	snprintf(key, sizeof(key), "%u", node);
	drop_moves(d, ranks);
	const char *before = json_string_value(json_object_get(d->moves, key));
	buf_addf(&text, "%s%s", before ? before : "", before ? "," : "");
	rankset_format(ranks, &text);
	json_object_set_new(d->moves, key, json_string(buf_cstr(&text)));
}

/* One VM of a lost node begins anew on another. */
static void recover_vm(struct deploy *d, uint32_t rank, uint32_t from, uint32_t to)
{
	struct cluster *c = d->agent->cluster;
	_cleanup_rankset_ struct rankset one = RANKSET_INIT;
	if (!to) {
		events_add(cluster_events(c), rank, "node",
			   "lost with %s: no other node has room for it", d->members[from].name);
		return;
	}
	events_add(cluster_events(c), rank, "node", "lost with %s: begins anew on %s",
		   d->members[from].name, d->members[to].name);
	rankset_add(&one, rank);
	cluster_move(c, rank, to, false, NULL);
	deploy_note_change(d);
	d->start_moved = d->start_moved || d->members[from].recover;
	deploy_add_move(d, to, &one);
}

/* No VM of this node can run any more. */
void deploy_recover(struct deploy *d, uint32_t node)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	struct plan_options o;
	struct err err = ERR_INIT;
	_cleanup_free_ uint32_t *used = xcalloc(d->n + 1, sizeof(*used));
	bool wanted = d->members[node].recover ||
		      json_is_true(json_object_get(d->launch, "recover"));
	if (d->step != UP || !wanted || deploy_plan_options(d, &o, &err) < 0)
		return;
	for (uint32_t r = 0; r < s->size; r++)
		used[s->node_of[r]]++;
	for (uint32_t r = 0; r < s->size; r++) {
		if (s->node_of[r] != node || deploy_is_migrating(d, r))
			continue;
		uint32_t to = roomiest(d, &o, used);
		used[to]++;
		recover_vm(d, r, node, to);
	}
	deploy_move_next(d);
}

int deploy_check_room(struct deploy *d, struct err *err)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	struct plan_options o;
	_cleanup_free_ uint32_t *used = xcalloc(d->n + 1, sizeof(*used));
	if (deploy_plan_options(d, &o, err) < 0)
		return -1;
	for (uint32_t r = 0; r < s->size; r++)
		used[s->node_of[r]]++;
	for (uint32_t r = 0; r < s->size; r++) {
		const struct member *m = &d->members[s->node_of[r]];
		uint32_t to = m->leaving ? roomiest(d, &o, used) : UINT32_MAX;
		if (!to)
			return err_set(err, ENOSPC, "no other node has room for vm%u of %s ('vse nodes add' brings one)",
				       r, m->name);
		if (to != UINT32_MAX)
			used[to]++;
	}
	return 0;
}
