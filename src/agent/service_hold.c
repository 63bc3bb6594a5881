/* SPDX-License-Identifier: Apache-2.0 */
/* hold: VMs stand still for as long as whoever asked is there, for the time of a save. When it is gone, however that came,
 * those go on that ran before, and what it had written so far is removed: a save that is whole has another name by then. Should
 * this agent die, the one that follows it does so (vm_hold). */
#include <errno.h>
#include <string.h>

#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "vm/saved.h"
#include "wire/message.h"

#define PAUSE_MS 10000 /* the hypervisor's answer */

struct hold {
	struct waiter waiter; /* first: a waiter is a hold */
	struct call *call;
	struct rankset all, ours, left; /* of this node; that stand still for us; that have not got there */
	char *dir;
	bool begun; /* all were asked: only now may be answered */
	struct evtimer *timer;
};

static void look(struct hold *h)
{
	if (!h->begun || rankset_count(&h->left))
		return;
	evtimer_stop(h->timer);
	call_event(h->call, json_pack("{s:s, s:I, s:i}", "event", "progress", "ready",
				      (json_int_t)rankset_count(&h->all), "failed", 0));
}

/* One that cannot be held is enough. Frees h. */
static void give_up(struct hold *h, uint32_t rank, const struct err *why)
{
	json_t *j = message_error(why);
	_cleanup_buf_ struct buf text = BUF_INIT;
	buf_addf(&text, "%u", rank);
	json_object_set_new(j, "ranks", json_string(buf_cstr(&text)));
	call_reply(h->call, j);
}

static void on_vm(struct waiter *w, struct vm *vm)
{
	struct hold *h = (struct hold *)w;
	uint32_t rank = vm_rank(vm);
	enum vm_state s = vm_get_state(vm);
	struct err err = ERR_INIT;
	if (!rankset_has(&h->ours, rank))
		return;
	bool asked = rankset_has(&h->left, rank);
	if (s == VM_PAUSED && asked) {
		rankset_del(&h->left, rank);
		look(h);
		return;
	}
	/* Whoever saves lets them go on, in the end; nobody else does. */
	bool good = s == VM_PAUSED || (s == VM_READY && (asked || !vm_is_held_for(vm, h->dir)));
	if (!good && h->begun) {
		err_set(&err, ESHUTDOWN, "%s: %s: %s", vm_name(vm), vm_state_name(s), vm_reason(vm));
		give_up(h, rank, &err);
	}
}

static void on_timeout(void *arg)
{
	struct hold *h = arg;
	uint32_t rank = rankset_next(&h->left, 0);
	struct err err = ERR_INIT;
	struct vm *vm = service_vm(h->call->agent, rank, &err);
	if (vm)
		err_set(&err, ETIMEDOUT, "%s: still %s", vm_name(vm), vm_state_name(vm_get_state(vm)));
	give_up(h, rank, &err);
}

static void on_end(struct call *call)
{
	struct hold *h = call->state;
	struct agent *a = call->agent;
	agent_remove_waiter(a, &h->waiter);
	for (uint32_t r = rankset_next(&h->all, 0); r != UINT32_MAX; r = rankset_next(&h->all, r + 1)) {
		struct vm *vm = a->cluster ? cluster_vm(a->cluster, r) : NULL;
		if (vm && vm_is_held_for(vm, h->dir))
			vm_hold_end(vm);
		saved_remove(h->dir, r);
	}
	evtimer_destroy(h->timer);
	rankset_finish(&h->all);
	rankset_finish(&h->ours);
	rankset_finish(&h->left);
	free(h->dir);
	free(h);
}

static const struct call_ops ops = {.on_end = on_end};

static int hold_vm(struct hold *h, uint32_t rank, struct err *err)
{
	struct vm *vm = service_vm(h->call->agent, rank, err);
	if (!vm || vm_hold(vm, h->dir, err) < 0)
		return -1;
	rankset_add(&h->ours, rank);
	if (vm_get_state(vm) != VM_PAUSED)
		rankset_add(&h->left, rank);
	return 0;
}

int service_hold(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	struct rankset ranks = RANKSET_INIT;
	const char *dir;
	if (message_str(req, "dir", &dir, err) < 0)
		return -1;
	if (a->cluster && cluster_spec_can_leave(cluster_get_spec(a->cluster), "save", err) < 0)
		return -1;
	if (dir[0] != '/')
		return err_set(err, EINVAL, "%s: not an absolute path", dir);
	if (service_ranks(a, req, &ranks, err) < 0) {
		rankset_finish(&ranks);
		return -1;
	}
	struct hold *h = xcalloc(1, sizeof(*h));
	*h = (struct hold){.waiter = {.call = call, .on_vm = on_vm}, .call = call, .all = ranks};
	h->dir = xstrdup(dir);
	h->timer = evtimer_create(a->loop, on_timeout, h);
	evtimer_start(h->timer, PAUSE_MS, 0);
	call->ops = &ops;
	call->state = h;
	agent_add_waiter(a, &h->waiter);
	for (uint32_t r = rankset_next(&h->all, 0); r != UINT32_MAX; r = rankset_next(&h->all, r + 1)) {
		struct err why = ERR_INIT;
		if (hold_vm(h, r, &why) < 0) {
			give_up(h, r, &why);
			return 0;
		}
	}
	h->begun = true;
	look(h);
	return 0;
}
