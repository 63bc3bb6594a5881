/* SPDX-License-Identifier: Apache-2.0 */
/* Single VMs: stop, kill, pause, resume, restart. Each begins on all asked VMs, then waits until every one has got
 * there, ended, or run out of time; the reply names those that did not. */
#include <errno.h>
#include <string.h>

#include "agent/node.h"
#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "base/size.h"

#define PAUSE_MS 10000 /* the hypervisor's answer to stop and cont */
#define SLACK_MS 10000 /* on top of the VM's own bounds */

struct change {
	struct waiter waiter; /* first: a waiter is a change */
	struct call *call;
	struct rankset left; /* not there yet */
	struct rankset failed;
	struct err first; /* why the first one failed */
	enum vm_state goal;
	bool started; /* all were begun: only now may the reply be sent */
	struct evtimer *timer;
};

static void finish(struct change *ch)
{
	_cleanup_buf_ struct buf ranks = BUF_INIT;
	if (!ch->started || rankset_count(&ch->left))
		return;
	if (!rankset_count(&ch->failed)) {
		call_ok(ch->call);
		return;
	}
	rankset_format(&ch->failed, &ranks);
	json_t *j = json_pack("{s:b, s:i, s:s, s:s}", "ok", 0, "code", ch->first.code, "error",
			      ch->first.text, "ranks", buf_cstr(&ranks));
	call_reply(ch->call, j);
}

static void failed(struct change *ch, uint32_t rank, const struct err *err)
{
	if (!rankset_count(&ch->failed))
		ch->first = *err;
	rankset_add(&ch->failed, rank);
	rankset_del(&ch->left, rank);
}

static void on_vm(struct waiter *w, struct vm *vm)
{
	struct change *ch = (struct change *)w;
	uint32_t rank = vm_rank(vm);
	enum vm_state s = vm_get_state(vm);
	if (!rankset_has(&ch->left, rank))
		return;
	bool there = s == ch->goal || (ch->goal == VM_STOPPED && vm_state_is_over(s));
	if (there) {
		rankset_del(&ch->left, rank);
	} else if (vm_state_is_over(s) && !(ch->goal == VM_READY && s == VM_STOPPED)) {
		struct err err = ERR_INIT;
		err_set(&err, ESHUTDOWN, "%s: %s: %s", vm_name(vm), vm_state_name(s), vm_reason(vm));
		failed(ch, rank, &err);
	} else {
		return;
	}
	finish(ch); /* may free ch */
}

static void on_timeout(void *arg)
{
	struct change *ch = arg;
	for (uint32_t r; (r = rankset_next(&ch->left, 0)) != UINT32_MAX;) {
		struct err err = ERR_INIT;
		struct vm *vm = service_vm(ch->call->agent, r, &err);
		if (vm)
			err_set(&err, ETIMEDOUT, "%s: still %s", vm_name(vm),
				vm_state_name(vm_get_state(vm)));
		failed(ch, r, &err);
	}
	finish(ch);
}

static void on_end(struct call *call)
{
	struct change *ch = call->state;
	agent_remove_waiter(call->agent, &ch->waiter);
	evtimer_destroy(ch->timer);
	rankset_finish(&ch->left);
	rankset_finish(&ch->failed);
	free(ch);
}

static const struct call_ops ops = {.on_end = on_end};

/* Of a VM that was ended with its node, nothing is here to be restarted. */
static void make_anew(struct change *ch, uint32_t rank)
{
	struct agent *a = ch->call->agent;
	struct err err = ERR_INIT;
	if (!a->self || cluster_move(a->cluster, rank, a->self, true, &err) < 0)
		failed(ch, rank, &err);
}

static int begin_restart(struct vm *vm, struct err *err);

/* -1: err; 0: to be waited for; 1: it is there. A pause of a VM that stands still for another reason is a change, too. */
static int begin_one(struct vm *vm, enum vm_state goal,
		     int (*begin)(struct vm *vm, struct err *err), const char *held, struct err *err)
{
	if (vm_get_state(vm) == goal && begin != begin_restart && begin != vm_pause)
		return 1;
	if (!held)
		return begin(vm, err) < 0 ? -1 : begin == vm_pause && vm_get_state(vm) == goal;
	if (!vm_is_held_for(vm, held))
		return err_set(err, EBUSY, "%s: cannot resume: it does not stand still for this save",
			       vm_name(vm));
	return vm_hold_end(vm);
}

/* held: the folder of the save that lets go of them; NULL: begin. */
static int change(struct call *call, const json_t *req, enum vm_state goal, uint64_t bound_ms,
		  int (*begin)(struct vm *vm, struct err *err), const char *held, struct err *err)
{
	struct agent *a = call->agent;
	struct rankset ranks = RANKSET_INIT;
	if (service_ranks(a, req, &ranks, err) < 0) {
		rankset_finish(&ranks);
		return -1;
	}
	struct change *ch = xcalloc(1, sizeof(*ch));
	ch->waiter = (struct waiter){.call = call, .on_vm = on_vm};
	ch->call = call;
	ch->left = ranks;
	ch->goal = goal;
	ch->timer = evtimer_create(a->loop, on_timeout, ch);
	evtimer_start(ch->timer, bound_ms, 0);
	call->ops = &ops;
	call->state = ch;
	agent_add_waiter(a, &ch->waiter);
	for (uint32_t r = rankset_next(&ch->left, 0); r != UINT32_MAX;
	     r = rankset_next(&ch->left, r + 1)) {
		struct err why = ERR_INIT;
		struct vm *vm = service_vm(a, r, &why);
		int rc = vm ? begin_one(vm, goal, begin, held, &why) : -1;
		if (!vm && begin == begin_restart)
			make_anew(ch, r);
		else if (rc < 0)
			failed(ch, r, &why);
		else if (rc)
			rankset_del(&ch->left, r);
	}
	/* A VM that was over before (vm_stop of a failed one) tells nothing any more. */
	for (uint32_t r = rankset_next(&ch->left, 0); goal == VM_STOPPED && r != UINT32_MAX;
	     r = rankset_next(&ch->left, r + 1))
		if (vm_state_is_over(vm_get_state(cluster_vm(a->cluster, r)))) /* it is there: else it has failed */
			rankset_del(&ch->left, r);
	ch->started = true;
	finish(ch);
	return 0;
}

/* Nothing that ends a VM here while the root decides where it runs: it may run there by now. */
static int begin_stop(struct vm *vm, struct err *err)
{
	return vm_move_holds(vm, "stop", err) ? -1 : vm_stop(vm, HV_STOP_GRACEFUL, err);
}

static int begin_kill(struct vm *vm, struct err *err)
{
	return vm_move_holds(vm, "kill", err) ? -1 : vm_stop(vm, HV_STOP_HARD, err);
}

static int begin_restart(struct vm *vm, struct err *err)
{
	return vm_move_holds(vm, "restart", err) ? -1 : vm_restart(vm, err);
}

int service_stop(struct call *call, const json_t *req, struct err *err)
{
	bool hard = json_is_true(json_object_get(req, "hard"));
	uint64_t bound = cluster_get_spec(call->agent->cluster)->stop_timeout_ms + SLACK_MS;
	return change(call, req, VM_STOPPED, bound, hard ? begin_kill : begin_stop, NULL, err);
}

int service_pause(struct call *call, const json_t *req, struct err *err)
{
	return change(call, req, VM_PAUSED, PAUSE_MS, vm_pause, NULL, err);
}

int service_resume(struct call *call, const json_t *req, struct err *err)
{
	const char *held = json_string_value(json_object_get(req, "held"));
	return change(call, req, VM_READY, PAUSE_MS, vm_resume, held, err);
}

static int place(struct agent *a, uint32_t rank, uint32_t node, bool start, struct err *err)
{
	if (a->fabric)
		fabric_move(a->fabric, rank, node);
	return cluster_move(a->cluster, rank, node, start, err);
}

static int place_all(struct agent *a, const json_t *all, bool start, struct err *err)
{
	const char *key;
	json_t *v;
	json_object_foreach ((json_t *)all, key, v) {
		_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
		int64_t node;
		if (int_parse(key, 1, INT32_MAX, &node, err) < 0 || !json_is_string(v) ||
		    rankset_parse(&ranks, json_string_value(v), cluster_get_spec(a->cluster)->size,
				  err) < 0)
			return err_set(err, EPROTO, "message: 'place' is wrong");
		for (uint32_t r = rankset_next(&ranks, 0); r != UINT32_MAX;
		     r = rankset_next(&ranks, r + 1))
			if (place(a, r, (uint32_t)node, start, err) < 0)
				return -1;
	}
	return 0;
}

/* VMs of a node that is lost begin anew on others, or one has moved as it runs; every agent hears of it, for the network's
 * sake. They are noted before any is started: an agent that dies in between is followed by one that knows of them. */
int service_move(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	bool start = json_is_true(json_object_get(req, "start"));
	const json_t *all = json_object_get(req, "place");
	if (service_know_nodes(a, req, err) < 0 || place_all(a, all, false, err) < 0)
		return -1;
	if (a->kept)
		node_save(a);
	if (start && place_all(a, all, true, err) < 0)
		return -1;
	call_ok(call);
	return 0;
}

int service_restart(struct call *call, const json_t *req, struct err *err)
{
	uint64_t bound = cluster_get_spec(call->agent->cluster)->boot_timeout_ms + SLACK_MS;
	if (cluster_get_phase(call->agent->cluster) >= CLUSTER_ENDING)
		return err_set(err, ESHUTDOWN, "the cluster is being ended");
	return change(call, req, VM_READY, bound, begin_restart, NULL, err);
}
