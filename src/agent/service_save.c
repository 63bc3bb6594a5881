/* SPDX-License-Identifier: Apache-2.0 */
/* save: the VMs of this node, which are paused, into a folder that every node sees; definition: what the cluster was made
 * from, so that it can be made again. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "wire/message.h"

#define ID_MAX 40 /* bytes: pack.h has room for it */

struct save {
	struct call *call;
	struct rankset left, failed;
	struct err first; /* why the first one failed */
	bool begun;       /* with all: only now may the reply be sent */
};

static void finish(struct save *s)
{
	_cleanup_buf_ struct buf ranks = BUF_INIT;
	if (!s->begun || rankset_count(&s->left))
		return;
	if (!rankset_count(&s->failed)) {
		call_ok(s->call);
		return;
	}
	rankset_format(&s->failed, &ranks);
	call_reply(s->call, json_pack("{s:b, s:i, s:s, s:s}", "ok", 0, "code", s->first.code,
				      "error", s->first.text, "ranks", buf_cstr(&ranks)));
}

static void failed(struct save *s, uint32_t rank, const struct err *err)
{
	if (!rankset_count(&s->failed))
		s->first = *err;
	rankset_add(&s->failed, rank);
	rankset_del(&s->left, rank);
}

static void on_saved(void *arg, struct vm *vm, const struct err *err)
{
	struct save *s = arg;
	struct err why = ERR_INIT;
	if (err) {
		err_set(&why, err->code, "%s: %s", vm_name(vm), err->text);
		failed(s, vm_rank(vm), &why);
	}
	rankset_del(&s->left, vm_rank(vm));
	finish(s); /* may free s */
}

static void on_end(struct call *call)
{
	struct save *s = call->state;
	struct cluster *c = call->agent->cluster;
	/* Who asked is gone: what is not saved yet never will be. */
	for (uint32_t r = rankset_next(&s->left, 0); c && r != UINT32_MAX;
	     r = rankset_next(&s->left, r + 1))
		if (cluster_vm(c, r))
			vm_save_forget(cluster_vm(c, r));
	rankset_finish(&s->left);
	rankset_finish(&s->failed);
	free(s);
}

static const struct call_ops ops = {.on_end = on_end};

/* Every node must see the folder: each agent looks itself. */
static int check_folder(const char *dir, struct err *err)
{
	if (dir[0] != '/')
		return err_set(err, EINVAL, "%s: not an absolute path", dir);
	if (access(dir, W_OK | X_OK) == 0)
		return 0;
	char host[256] = "";
	gethostname(host, sizeof(host) - 1);
	return err_errno(err, errno, "%s: the folder must be there on every node, and is not on %s",
			 dir, host);
}

int service_save(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	struct rankset ranks = RANKSET_INIT;
	const char *dir, *id;
	if (message_str(req, "dir", &dir, err) < 0 || message_str(req, "id", &id, err) < 0 ||
	    check_folder(dir, err) < 0)
		return -1;
	if (strlen(id) > ID_MAX)
		return err_set(err, EPROTO, "message: 'id' is too long");
	if (service_ranks(a, req, &ranks, err) < 0) {
		rankset_finish(&ranks);
		return -1;
	}
	struct save *s = xcalloc(1, sizeof(*s));
	*s = (struct save){.call = call, .left = ranks};
	call->ops = &ops;
	call->state = s;
	for (uint32_t r = rankset_next(&s->left, 0); r != UINT32_MAX;
	     r = rankset_next(&s->left, r + 1)) {
		struct err why = ERR_INIT;
		struct vm *vm = service_vm(a, r, &why);
		if (!vm || vm_save(vm, dir, id, on_saved, s, &why) < 0)
			failed(s, r, &why);
	}
	s->begun = true;
	finish(s);
	return 0;
}

int service_definition(struct call *call, const json_t *req _unused_, struct err *err)
{
	if (!call->agent->request)
		return err_set(err, ENOTSUP, "this agent does not know what the cluster was made from");
	call_reply(call, json_pack("{s:b, s:O}", "ok", 1, "create", call->agent->request));
	return 0;
}
