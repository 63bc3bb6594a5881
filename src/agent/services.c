/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/services.h"

#include <errno.h>

#include "agent/state.h"
#include "overlay/overlay.h"
#include "wire/message.h"

static service_fn *const table[VERB_COUNT] = {
	[VERB_hello] = service_hello,
	[VERB_create] = service_create,
	[VERB_keep] = service_keep,
	[VERB_status] = service_status,
	[VERB_events] = service_events,
	[VERB_down] = service_down,
	[VERB_size] = service_size,
	[VERB_stop] = service_stop,
	[VERB_pause] = service_pause,
	[VERB_launch] = service_launch,
	[VERB_move] = service_move,
	[VERB_resume] = service_resume,
	[VERB_restart] = service_restart,
	[VERB_exec] = service_exec,
	[VERB_put] = service_put,
	[VERB_get] = service_get,
	[VERB_console] = service_console,
	[VERB_logs] = service_logs,
	[VERB_join] = service_join,
	[VERB_add_nodes] = service_add_nodes,
	[VERB_remove_nodes] = service_remove_nodes,
	[VERB_save] = service_save,
	[VERB_hold] = service_hold,
	[VERB_migrate] = service_migrate,
	[VERB_send] = service_send,
	[VERB_unsend] = service_unsend,
	[VERB_arrive] = service_arrive,
	[VERB_definition] = service_definition,
};

service_fn *service_find(enum verb v)
{
	return table[v];
}

struct vm *service_vm(struct agent *a, uint32_t rank, struct err *err)
{
	struct vm *vm = cluster_vm(a->cluster, rank);
	if (!vm)
		err_set(err, ESHUTDOWN, "vm%u: ended when its node was declared lost ('vse restart %u' starts it anew)",
			rank, rank);
	return vm;
}

int service_ranks(struct agent *a, const json_t *req, struct rankset *ret, struct err *err)
{
	const char *text;
	if (message_str(req, "ranks", &text, err) < 0)
		return -1;
	return rankset_parse(ret, text, cluster_get_spec(a->cluster)->size, err);
}

int service_know_nodes(struct agent *a, const json_t *req, struct err *err)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	const json_t *list = json_object_get(req, "nodes"), *v;
	size_t i;
	json_array_foreach (list, i, v) {
		if (!json_is_string(v) || i >= OVERLAY_NODES_MAX - 1)
			return err_set(err, EPROTO, "message: 'nodes' holds what is no name");
		strvec_add(&names, json_string_value(v));
	}
	if (!a->mesh || !names.n)
		return 0;
	mesh_add_nodes(a->mesh, &names);
	if (a->fabric)
		fabric_set_nodes(a->fabric, (uint32_t)names.n);
	if (a->cluster)
		cluster_add_nodes(a->cluster, &names);
	return 0;
}
