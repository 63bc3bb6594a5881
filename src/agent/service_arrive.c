/* SPDX-License-Identifier: Apache-2.0 */
/* A VM comes to this node as it runs (service_send.c has the link's words). It stands still here until the root says
 * "arrive". Until then it may be dropped at any time: the root lets the source go on only after this agent has said that it
 * has not got it, or can run nothing any more. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/moving.h"
#include "agent/node.h"
#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "base/log.h"
#include "wire/message.h"

#define SILENT_MS 120000 /* so long nothing was heard of it: it is dropped */
#define ORPHAN_MS 10000  /* so long one is kept whose source is gone, for the root's word */
#define SETTLE_MS 15000  /* for its guest agent to answer here */
#define PROOF_MS                                                                                   \
	250 /* as long as its source keeps its copy, where the guest agent does not answer before */

struct receiving {
	struct receiving *next;
	struct agent *agent;
	uint32_t rank, node;
	char id[MOVING_ID_MAX + 1];
	struct vm *vm;        /* NULL: before the first message */
	struct stream *link;  /* NULL: cut, after it was prepared */
	struct stream *state; /* into the hypervisor; NULL: it has taken all */
	bool ended, arrived, prepared, gone;
	bool has_disk; /* by post-copy: all of it */
	bool taken;    /* it runs here; the rest of its memory comes (post-copy) */
	struct evtimer *silent;
};

int moving_read(struct agent *a, const json_t *j, uint32_t *ret_rank, const char **ret_id,
		struct err *err)
{
	json_int_t rank;
	if (!a->cluster || !a->self || !a->mesh)
		return err_set(err, ENOTSUP, "this agent has no VMs that could be moved");
	if (message_int(j, "rank", 0, cluster_get_spec(a->cluster)->size - 1, &rank, err) < 0 ||
	    message_str(j, "id", ret_id, err) < 0)
		return -1;
	if (!**ret_id || strlen(*ret_id) > MOVING_ID_MAX)
		return err_set(err, EPROTO, "message: 'id' is empty or too long");
	*ret_rank = (uint32_t)rank;
	return 0;
}

/* keep: the VM is the cluster's now. */
static void forget(struct receiving *r, bool keep)
{
	struct receiving **at = &r->agent->receivings;
	r->gone = true;
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	stream_destroy(r->link);
	stream_destroy(r->state);
	evtimer_destroy(r->silent);
	struct vm *taken = r->taken && !r->ended && r->agent->cluster
				   ? cluster_vm(r->agent->cluster, r->rank)
				   : NULL;
	if (taken)
		vm_cut_off(taken);
	if (TAKE_PTR(r->vm) && !keep && r->agent->cluster)
		cluster_drop_coming(r->agent->cluster, r->rank);
	free(r);
}

static void put(struct receiving *r, const json_t *j)
{
	message_write(stream_out(r->link), 0, r->rank, j, NULL);
	stream_flush(r->link);
}

static void refuse(struct receiving *r, const struct err *err)
{
	_cleanup_json_ json_t *j = message_error(err);
	log_warn("vm%u: does not come here: %s", r->rank, err->text);
	if (r->link)
		put(r, j);
	forget(r, r->taken);
}

static void look(struct receiving *r)
{
	if (!(r->ended || r->has_disk) || !r->arrived || r->prepared || !r->link)
		return;
	_cleanup_json_ json_t *j = json_pack("{s:b}", "prepared", 1);
	r->prepared = true;
	put(r, j);
}

static void on_arrived(void *arg, struct vm *vm _unused_, const struct err *err)
{
	struct receiving *r = arg;
	if (r->gone) /* it is being dropped */
		return;
	r->arrived = !err;
	if (!err) {
		look(r);
		return;
	}
	r->vm = NULL; /* it ends by itself, within whatever told this */
	refuse(r, err);
}

/* ---- into the hypervisor ---- */

/* By post-copy it asks for memory. */
static void on_state_data(void *arg, struct buf *in)
{
	struct receiving *r = arg;
	while (r->link && buf_len(in)) {
		size_t n = MIN(buf_len(in), (size_t)FRAME_MAX_GUEST); /* who reads it takes no longer ones */
		frame_write_data(stream_out(r->link), 0, r->rank, 1, buf_head(in), n, false);
		buf_consume(in, n);
	}
	if (r->link)
		stream_flush(r->link);
	buf_clear(in);
}

static void on_state_close(void *arg, const struct err *err _unused_)
{
	struct receiving *r = arg;
	stream_destroy(TAKE_PTR(r->state)); /* whether it has all, it says itself */
	if (!r->link)
		return;
	if (r->taken && r->ended) {
		forget(r, true);
		return;
	}
	if (r->has_disk && !r->ended) { /* it has all, or has died: the source's hypervisor knows by what it said last */
		_cleanup_json_ json_t *j = json_pack("{s:b}", "closed", 1);
		put(r, j);
	}
	stream_pause(r->link, false);
}

static void on_state_drain(void *arg)
{
	struct receiving *r = arg;
	if (r->link)
		stream_pause(r->link, false);
}

/* A move of before that was called off: that is decided before another one begins, but what its source has sent, and the end of its
 * link, may be on the way here still. */
static void drop_older(const struct receiving *r)
{
	struct receiving *next;
	for (struct receiving *o = r->agent->receivings; o; o = next) {
		next = o->next;
		if (o != r && o->vm && o->rank == r->rank && !o->taken && strcmp(o->id, r->id) != 0)
			forget(o, false);
	}
}

static int begin(struct receiving *r, const json_t *j, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_state_data,
					      .on_close = on_state_close,
					      .on_drain = on_state_drain};
	struct agent *a = r->agent;
	struct vm_arrival in = {.fd = -1};
	json_int_t ready, scratch;
	const char *id;
	int pair[2];
	if (moving_read(a, j, &r->rank, &id, err) < 0 || message_str(j, "from", &in.from, err) < 0 ||
	    message_str(j, "signature", &in.signature, err) < 0 ||
	    message_str(j, "boot", &in.boot, err) < 0 ||
	    message_int(j, "ready_ms", 0, INT64_MAX, &ready, err) < 0 ||
	    message_int(j, "scratch", 0, INT64_MAX, &scratch, err) < 0)
		return -1;
	snprintf(r->id, sizeof(r->id), "%s", id);
	if (!in.signature[0])
		in.signature = NULL;
	in.post_copy = json_is_true(json_object_get(j, "post_copy"));
	in.ready_ms = (uint64_t)ready;
	in.scratch = (uint64_t)scratch;
	drop_older(r);
	struct vm *vm = cluster_receive(a->cluster, r->rank, err);
	if (!vm)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		cluster_drop_coming(a->cluster, r->rank);
		return err_errno(err, errno, "socketpair");
	}
	_cleanup_close_ int theirs = pair[1];
	in.fd = theirs;
	r->state = stream_create(a->loop, pair[0], &ops, r, err);
	if (!r->state || vm_receive(vm, &in, on_arrived, r, err) < 0) {
		cluster_drop_coming(a->cluster, r->rank);
		return -1;
	}
	r->vm = vm;
	return 0;
}

/* ---- the link ---- */

static int on_piece(struct receiving *r, const struct frame *f, struct err *err)
{
	int disk = r->vm && !r->taken && !r->has_disk ? vm_disk(r->vm) : -1;
	uint64_t size = cluster_get_spec(r->agent->cluster)->scratch;
	if (!r->vm || r->ended)
		return err_set(err, EPROTO, "bytes of a VM that are not expected");
	if (f->fd == 1) {
		if (r->state)
			stream_write(r->state, f->payload, f->len);
		if (r->state && stream_queued(r->state) > MOVING_QUEUE)
			stream_pause(r->link, true);
		return 0;
	}
	uint64_t at = f->fd == 2 && f->len > MOVING_OFFSET ? moving_get_offset(f->payload) : UINT64_MAX;
	size_t n = f->len - MOVING_OFFSET;
	if (disk < 0 || at > size || n > size - at)
		return err_set(err, EPROTO, "a piece of a disk that has no such place");
	for (const char *p = f->payload + MOVING_OFFSET; n;) {
		ssize_t w = pwrite(disk, p, n, (off_t)at);
		if (w < 0)
			return err_errno(err, errno, "vm%u: its scratch disk", r->rank);
		p += w;
		at += (uint64_t)w;
		n -= (size_t)w;
	}
	return 0;
}

/* 1: it was the last; r is no more. */
static int on_frame(struct receiving *r, const struct frame *f, struct err *err)
{
	if (f->type == FRAME_DATA)
		return on_piece(r, f, err);
	_cleanup_json_ json_t *j = f->type == FRAME_MESSAGE ? message_read(f, err) : NULL;
	if (!j)
		return err->code ? -1 : err_set(err, EPROTO, "a frame that is not expected");
	if (!r->vm)
		return begin(r, j, err);
	if (json_is_true(json_object_get(j, "forget")))
		return err_set(err, ECANCELED, "it goes on where it was");
	if (json_is_true(json_object_get(j, "switch")) && !r->has_disk && !r->ended) {
		r->has_disk = true;
		put(r, j);
		return 0;
	}
	if (!json_is_true(json_object_get(j, "end")) || r->ended)
		return err_set(err, EPROTO, "a message that is not expected");
	r->ended = true;
	if (r->state) {
		stream_end(r->state);
	} else if (r->taken) {
		forget(r, true);
		return 1;
	}
	look(r);
	return 0;
}

static void on_link_data(void *arg, struct buf *in)
{
	struct receiving *r = arg;
	struct frame f;
	struct err err = ERR_INIT;
	int got;
	evtimer_start(r->silent, SILENT_MS, 0);
	while ((got = frame_read(in, FRAME_MAX_MESSAGE, &f, &err)) == 1) {
		int rc = on_frame(r, &f, &err);
		if (rc < 0)
			refuse(r, &err);
		if (rc)
			return;
		frame_drop(in, &f);
	}
	if (got < 0)
		refuse(r, &err);
}

static void on_link_close(void *arg, const struct err *err _unused_)
{
	struct receiving *r = arg;
	stream_destroy(TAKE_PTR(r->link));
	if (r->taken) /* its hypervisor misses the end of the state, unless that was read */
		forget(r, true);
	else if (r->prepared) /* the root may have decided that it runs here */
		evtimer_start(r->silent, ORPHAN_MS, 0);
	else
		forget(r, false);
}

static void on_silent(void *arg)
{
	struct receiving *r = arg;
	log_warn("vm%u: nothing was heard of its move: dropped", r->rank);
	forget(r, r->taken);
}

void moving_link(struct agent *a, uint32_t node, struct stream *s)
{
	static const struct stream_ops ops = {.on_data = on_link_data, .on_close = on_link_close};
	if (!a->cluster || !a->self) {
		stream_destroy(s);
		return;
	}
	struct receiving *r = xcalloc(1, sizeof(*r));
	*r = (struct receiving){.next = a->receivings, .agent = a, .node = node, .link = s};
	a->receivings = r;
	r->silent = evtimer_create(a->loop, on_silent, r);
	evtimer_start(r->silent, SILENT_MS, 0);
	stream_set_ops(s, &ops, r);
}

void service_arrive_finish(struct agent *a)
{
	while (a->receivings)
		forget(a->receivings, a->receivings->taken);
}

/* ---- "arrive" ---- */

struct arriving {
	struct waiter waiter; /* first: a waiter is an arriving */
	struct call *call;
	uint32_t rank;
	bool ready; /* wait for its guest agent, too */
	bool runs;  /* the timer is PROOF_MS */
	uint64_t ran;
	struct evtimer *timer;
};

/* late: some of its memory is still to come; over: it has ended, for the reason in "error". */
static void reply(struct call *call, bool taken, const struct vm *vm, const struct err *err)
{
	bool over = vm && vm_state_is_over(vm_get_state(vm));
	call_reply(call, json_pack("{s:b, s:b, s:s, s:I, s:b, s:b}", "ok", 1, "taken", taken, "error",
				   err->code ? err->text
				   : over    ? vm_reason(vm)
					     : "",
				   "since_ms", vm ? (json_int_t)vm_uptime_ms(vm) : (json_int_t)0,
				   "late", vm && !over && vm_is_late(vm), "over", over));
}

/* Still whole where it came from, which has not let go of it yet: better put back by a moment than gone. */
static bool is_lost(const struct vm *vm)
{
	enum vm_state s = vm_get_state(vm);
	return (s == VM_FAILED && vm_ran_ms(vm) < PROOF_MS) ||
	       (vm_state_is_over(s) && !vm_has_run(vm));
}

static void settle(struct arriving *w)
{
	struct agent *a = w->call->agent;
	struct vm *vm = cluster_vm(a->cluster, w->rank);
	struct err err = ERR_INIT;
	enum vm_state s = vm ? vm_get_state(vm) : VM_FAILED;
	if (vm && vm_is_adopting(vm))
		return;
	if (s == VM_PAUSED && !w->ready)
		vm_resume(vm, NULL); /* an agent before this one took it, and got no further */
	else if (vm && is_lost(vm)) {
		err_set(&err, EIO, "it ended as it went on there: %s", vm_reason(vm));
		reply(w->call, false, vm, &err);
	} else if (s == VM_READY || vm_state_is_over(s) || s == VM_PAUSED) {
		reply(w->call, vm != NULL, vm, &err); /* frees w */
	} else if (s == VM_BOOTING && !w->ready && !w->runs) {
		w->runs = true;
		evtimer_start(w->timer, PROOF_MS, 0);
	}
}

static void on_vm(struct waiter *waiter, struct vm *vm)
{
	struct arriving *w = (struct arriving *)waiter;
	if (vm_rank(vm) == w->rank)
		settle(w);
}

static void on_late(void *arg)
{
	struct arriving *w = arg;
	struct vm *vm = cluster_vm(w->call->agent->cluster, w->rank);
	struct err err = ERR_INIT;
	if (w->ready || w->runs) {
		reply(w->call, true, vm, &err);
		return;
	}
	err_set(&err, ETIMEDOUT, "vm%u: does not go on here", w->rank);
	call_fail(w->call, &err);
}

static void on_end(struct call *call)
{
	struct arriving *w = call->state;
	agent_remove_waiter(call->agent, &w->waiter);
	evtimer_destroy(w->timer);
	free(w);
}

static const struct call_ops ops = {.on_end = on_end};

static int take(struct agent *a, struct receiving *r, struct err *err)
{
	uint32_t rank = r->rank, from = r->node;
	if (!r->ended && !r->link && r->state)
		return err_set(err, ECONNRESET, "vm%u: the rest of its memory cannot come", rank);
	if (!r->prepared || cluster_take(a->cluster, rank, err) < 0)
		return err_set(err, ENOENT, "vm%u: has not arrived whole", rank);
	r->taken = !r->ended; /* by post-copy */
	if (!r->taken)
		forget(r, true);
	if (a->fabric)
		fabric_move(a->fabric, rank, a->self);
	node_save(a); /* before it runs: the agent that follows this one must know whose it is */
	if (vm_run_taken(cluster_vm(a->cluster, rank), err) == 0)
		return 0;
	cluster_move(a->cluster, rank, from, false, NULL); /* it ends, and has run nothing here */
	node_save(a);
	return -1;
}

int service_arrive(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	struct receiving *r = a->receivings;
	uint32_t rank;
	const char *id;
	if (moving_read(a, req, &rank, &id, err) < 0)
		return -1;
	while (r && (r->taken || r->rank != rank || strcmp(r->id, id) != 0))
		r = r->next;
	if (r && take(a, r, err) < 0) {
		reply(call, false, NULL, err);
		return 0;
	}
	if (!cluster_vm(a->cluster, rank)) {
		err_set(err, ENOENT, "vm%u: did not arrive", rank);
		reply(call, false, NULL, err);
		return 0;
	}
	struct arriving *w = xcalloc(1, sizeof(*w));
	*w = (struct arriving){.waiter = {.call = call, .on_vm = on_vm}, .call = call, .rank = rank};
	w->ready = json_is_true(json_object_get(req, "ready"));
	w->timer = evtimer_create(a->loop, on_late, w);
	evtimer_start(w->timer, SETTLE_MS, 0);
	call->ops = &ops;
	call->state = w;
	agent_add_waiter(a, &w->waiter);
	settle(w);
	return 0;
}
