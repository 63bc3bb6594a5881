/* SPDX-License-Identifier: Apache-2.0 */
/* What a status says of nodes, and of VMs that no agent told of. */
#include <errno.h>
#include <string.h>

#include "agent/deploy_state.h"

/* ---- status ---- */

static json_t *lost_vm(struct deploy *d, uint32_t rank)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	uint32_t node = s->node_of ? s->node_of[rank] : 0;
	const struct member *m = node >= 1 && node <= d->n ? &d->members[node] : NULL;
	bool begun = d->step >= STARTING;
	char ip[16];
	_cleanup_free_ char *name = xasprintf("vm%u", rank);
	address_ipv4_text(address_ipv4(&s->subnet, rank), ip);
	_cleanup_free_ char *reason = xasprintf("%s", !begun            ? ""
						      : m && m->removed ? "its node was removed"
						      : m && m->why     ? m->why
						      : m && m->up      ? "its node runs it no more"
								   : "its node does not answer");
	_cleanup_free_ char *clean = text_cleaned(reason);
	return json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:s}", "rank",
			 (int)rank, "name", name, "state", begun ? "lost" : "planned", "reason",
			 clean, "address", ip, "uptime_ms", (json_int_t)0, "ready_ms",
			 (json_int_t)0, "memory_used", (json_int_t)0, "cpu_ms", (json_int_t)0,
			 "pid", 0, "node", m && !m->removed ? m->name : "");
}

static json_t *node_list(struct deploy *d)
{
	json_t *list = json_array();
	for (uint32_t i = 1; i <= d->n; i++) {
		const struct member *m = &d->members[i];
		if (m->removed)
			continue;
		_cleanup_free_ char *why = text_cleaned(m->why ? m->why : "");
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:s*, s:s*}",
						      "index", (int)i, "name", m->name, "state",
						      m->joining  ? "starting"
						      : m->up     ? "up"
						      : m->failed ? "lost"
								  : "starting",
						      "reason", why, "cpus", (json_int_t)m->cpus,
						      "memory", (json_int_t)m->memory, "hypervisor",
						      m->hypervisor, "hypervisor_why", m->unfit));
	}
	return list;
}

/* One that moves stands still on two nodes for a moment. */
static bool is_home(const struct deploy *d, uint32_t rank, const json_t *vm)
{
	const struct cluster_spec *s = cluster_get_spec(d->agent->cluster);
	uint32_t node = s->node_of ? s->node_of[rank] : 0;
	const char *name = json_string_value(json_object_get(vm, "node"));
	return name && node >= 1 && node <= d->n && strcmp(name, d->members[node].name) == 0;
}

void deploy_status(struct deploy *d, json_t *status)
{
	uint32_t size = cluster_get_spec(d->agent->cluster)->size;
	json_t **by_rank = xcalloc(size, sizeof(json_t *)), *vm, *all = json_array();
	size_t i;
	json_array_foreach (json_object_get(status, "vms"), i, vm) {
		json_int_t r = json_integer_value(json_object_get(vm, "rank"));
		if (r >= 0 && r < size && (!by_rank[r] || is_home(d, (uint32_t)r, vm)))
			by_rank[r] = vm;
	}
	for (uint32_t r = 0; r < size; r++) {
		if (by_rank[r])
			json_array_append(all, by_rank[r]);
		else
			json_array_append_new(all, lost_vm(d, r));
	}
	free(by_rank);
	json_object_set_new(status, "vms", all);
	json_object_set_new(status, "nodes", node_list(d));
	if (d->left_s >= 0)
		json_object_set_new(status, "time_left_s", json_integer(d->left_s));
	json_object_set_new(status, "launcher", json_string(d->launcher ? d->launcher->name : ""));
	json_object_set_new(status, "job",
			    json_string(d->allocation && d->allocation->job ? d->allocation->job : ""));
}
