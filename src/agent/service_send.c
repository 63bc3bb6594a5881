/* SPDX-License-Identifier: Apache-2.0 */
/* A VM leaves this node as it runs, by a link of its own to the agent that takes it (docs/migration.md):
 *   to it    {"rank", "id", "from", "signature", "boot", "ready_ms", "scratch"}, then data of stream 1: the hypervisor's
 *            state, and of stream 2: pieces of the disk, each after the 8 bytes (big endian) of where it goes; {"end": true};
 *            {"forget": true}: it goes on here
 *   from it  {"ok": false, ...}, or {"prepared": true}: it has all, and stands still there.
 * By post-copy ("post_copy" in the first message) data of stream 1 goes both ways, and the disk comes first: {"switch": true} says
 * that all of it is out, its answer that it was written; then the hypervisor is switched over, the target says "prepared" when
 * its own can go on, and gets the rest of the state, and the end, while the VM runs there.
 * Until it has told the root so, this agent may think better of it by itself; after that only the root decides: "unsend", or
 * "move", which ends the VM here. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/moving.h"
#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "wire/message.h"

#define LOOK_MS                                                                                    \
	2000 /* so often it is looked whether it goes on: a link that is cut does not say so */
#define LATE_QUEUE                                                                                 \
	(256u << 10) /* of post-copy: what the guest there waits for stands in this queue */
#define LATE_LOOKS 6 /* times as long as else: its VM is lost then */
#define CUT_MS 20000 /* for its hypervisor to say so when the link is cut */
#define PIECES 32    /* of the disk at once: others want the loop, too */

struct sending {
	struct sending *next;
	struct agent *agent;
	struct call *call; /* NULL: answered, or nobody waits */
	uint32_t rank, node;
	char id[MOVING_ID_MAX + 1];
	struct vm *vm; /* NULL: it has ended, or goes on here */
	struct stream *link, *state;
	bool opening;           /* the link: this must outlive it */
	bool over;              /* only the opening keeps it */
	bool sent;              /* by the hypervisor */
	bool ended;             /* all is written to the link */
	bool prepared;          /* and the root knows: only it decides */
	bool post_copy, stands; /* stands: by post-copy, its disk can be sent */
	bool asked, switched;   /* the target, whether it has the disk; the hypervisor */
	uint64_t bytes, disk_bytes;
	uint64_t stood; /* since when it stands still; loop time; 0: it runs */
	int disk;       /* the VM's, once that stands still: it outlives its VMM; -1: none */
	off_t disk_at;
	uint64_t put; /* bytes given to the link */
	struct moving_stall stall;
	struct evtimer *patience, *soon; /* soon: reads on */
};

static void put_message(struct sending *s, const json_t *j)
{
	struct buf *out = stream_out(s->link);
	size_t had = buf_len(out);
	message_write(out, 0, s->rank, j, NULL);
	s->put += buf_len(out) - had;
	stream_flush(s->link);
}

static void put_data(struct sending *s, int fd, const char *p, size_t n)
{
	struct buf *out = stream_out(s->link);
	size_t had = buf_len(out);
	frame_write_data(out, 0, s->rank, fd, p, n, false);
	s->put += buf_len(out) - had;
}

static void forget(struct sending *s)
{
	struct sending **at = &s->agent->sendings;
	stream_destroy(TAKE_PTR(s->link));
	stream_destroy(TAKE_PTR(s->state));
	if (s->disk >= 0)
		close(TAKE_FD(s->disk));
	evtimer_stop(s->patience);
	evtimer_stop(s->soon);
	s->over = true;
	if (s->opening)
		return;
	while (*at && *at != s)
		at = &(*at)->next;
	if (*at) /* not where the agent was ended meanwhile */
		*at = s->next;
	evtimer_destroy(s->patience);
	evtimer_destroy(s->soon);
	free(s);
}

/* refused: it was not even begun. */
static void answer(struct sending *s, bool sent, bool refused, const struct err *err)
{
	struct call *call = TAKE_PTR(s->call);
	if (!call)
		return;
	call->state = NULL;
	call_reply(call, json_pack("{s:b, s:b, s:b, s:i, s:s, s:I, s:I, s:I}", "ok", 1, "sent",
				   sent, "refused", refused, "code", err ? err->code : 0, "error",
				   err ? err->text : "", "bytes", (json_int_t)s->bytes, "disk",
				   (json_int_t)s->disk_bytes, "stood_ms",
				   s->stood ? (json_int_t)(loop_now(s->agent->loop) - s->stood)
					    : (json_int_t)0));
}

/* It goes on here. */
static void give_up(struct sending *s, const struct err *err)
{
	struct vm *vm = TAKE_PTR(s->vm);
	if (vm)
		vm_unsend(vm);
	if (s->link && s->ended) { /* perhaps it waits there for the root's word */
		_cleanup_json_ json_t *j = json_pack("{s:b}", "forget", 1);
		put_message(s, j);
	}
	answer(s, false, false, err);
	forget(s);
}

/* ---- the disk ---- */

static int read_piece(struct sending *s, int fd, off_t *at, char *piece, size_t *ret_n)
{
	off_t data = lseek(fd, *at, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? 0 : -1; /* holes up to the end */
	off_t hole = lseek(fd, data, SEEK_HOLE);
	size_t want = (size_t)MIN((off_t)MOVING_PIECE, hole - data);
	ssize_t n = hole < 0 ? -1 : pread(fd, piece + MOVING_OFFSET, want, data);
	if (n <= 0)
		return n < 0 ? -1 : 0;
	moving_put_offset(piece, (uint64_t)data);
	*at = data + n;
	*ret_n = (size_t)n;
	s->disk_bytes += (uint64_t)n;
	return 1;
}

static void send_disk(struct sending *s)
{
	int fd = s->disk, more = fd >= 0;
	_cleanup_free_ char *piece = xmalloc(MOVING_OFFSET + MOVING_PIECE);
	struct err err = ERR_INIT;
	for (unsigned i = 0; more > 0 && i < PIECES && stream_queued(s->link) < MOVING_QUEUE; i++) {
		size_t n = 0;
		more = read_piece(s, fd, &s->disk_at, piece, &n);
		if (more > 0) {
			put_data(s, 2, piece, MOVING_OFFSET + n);
			stream_flush(s->link);
		}
	}
	/* What went out at once leaves nothing that could drain. */
	if (more > 0 && !stream_queued(s->link))
		evtimer_start(s->soon, 0, 0);
	if (more < 0) {
		err_errno(&err, errno, "vm%u: read its scratch disk", s->rank);
		give_up(s, &err);
	}
	if (more || s->ended)
		return; /* on_link_drain() goes on */
	_cleanup_json_ json_t *j = json_pack("{s:b}", s->stands ? "switch" : "end", 1);
	s->ended = !s->stands;
	s->asked = s->stands;
	put_message(s, j);
}

static void put_end(struct sending *s)
{
	_cleanup_json_ json_t *j = json_pack("{s:b}", "end", 1);
	s->ended = true;
	put_message(s, j);
}

static void look(struct sending *s)
{
	if (!s->link || s->ended)
		return;
	bool whole = s->sent && !s->state;
	if (s->switched && whole)
		put_end(s);
	else if (!s->switched && (s->stands ? !s->asked : whole))
		send_disk(s);
}

/* ---- the hypervisor's state ---- */

static void on_state_data(void *arg, struct buf *in)
{
	struct sending *s = arg;
	while (buf_len(in)) {
		size_t n = MIN(buf_len(in), (size_t)MOVING_PIECE);
		put_data(s, 1, buf_head(in), n);
		buf_consume(in, n);
		s->bytes += n;
	}
	stream_flush(s->link);
	if (stream_queued(s->link) > (s->switched ? LATE_QUEUE : MOVING_QUEUE))
		stream_pause(s->state, true);
}

static void on_state_close(void *arg, const struct err *err _unused_)
{
	struct sending *s = arg;
	stream_destroy(TAKE_PTR(s->state)); /* whether it was whole, the hypervisor says */
	look(s);
}

static void begin_link(struct sending *s, const char *signature)
{
	struct agent *a = s->agent;
	_cleanup_json_ json_t *j = json_pack(
		"{s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:b}", "rank", (json_int_t)s->rank, "id", s->id,
		"from", mesh_node_name(a->mesh, a->self), "signature", signature ? signature : "",
		"boot", vm_boot(s->vm), "ready_ms", (json_int_t)vm_ready_ms(s->vm), "scratch",
		(json_int_t)cluster_get_spec(a->cluster)->scratch, "post_copy", s->post_copy);
	put_message(s, j);
}

static void on_stream(void *arg, int fd, const char *signature)
{
	static const struct stream_ops ops = {.on_data = on_state_data, .on_close = on_state_close};
	struct sending *s = arg;
	struct err err = ERR_INIT;
	begin_link(s, signature);
	s->state = stream_create(s->agent->loop, fd, &ops, s, &err);
	if (!s->state)
		give_up(s, &err);
}

/* It stands still: 0, with its disk in s->disk; else given up. */
static int take_disk(struct sending *s)
{
	struct err err = ERR_INIT;
	int disk = vm_disk(s->vm);
	s->stood = loop_now(s->agent->loop) - vm_stands_ms(s->vm);
	if (disk < 0 || (s->disk = fcntl(disk, F_DUPFD_CLOEXEC, 3)) >= 0)
		return 0;
	err_errno(&err, errno, "vm%u: its scratch disk", s->rank);
	give_up(s, &err);
	return -1;
}

static void on_switch(void *arg)
{
	struct sending *s = arg;
	s->stands = true;
	if (take_disk(s) == 0)
		look(s);
}

static void on_sent(void *arg, uint64_t bytes _unused_)
{
	struct sending *s = arg;
	struct err err = ERR_INIT;
	s->sent = true;
	if (!s->link && !s->prepared) { /* cut before the target could say that it has all: so it drops what it has */
		err_set(&err, ECONNRESET, "the link to %s was cut",
			mesh_node_name(s->agent->mesh, s->node));
		give_up(s, &err);
		return;
	}
	if (!s->post_copy && take_disk(s) < 0)
		return;
	look(s);
}

static bool on_send_failed(void *arg, const struct err *err)
{
	struct sending *s = arg;
	bool elsewhere = s->prepared && s->switched;
	s->vm = NULL;
	if (s->sent && !s->prepared)
		return false; /* its VMM has ended, but all of it is out: it may go on there */
	answer(s, false, false, err);
	forget(s);
	return elsewhere;
}

static const struct vm_send_ops send_ops = {.on_stream = on_stream,
					    .on_switch = on_switch,
					    .on_sent = on_sent,
					    .on_failed = on_send_failed};

/* ---- the link ---- */

static int on_word(struct sending *s, const json_t *j, struct err *err)
{
	if (message_is_error(j, err))
		return -1;
	if (s->asked && s->stands && json_is_true(json_object_get(j, "switch"))) {
		s->stands = false;
		if (!s->vm || vm_switch(s->vm, err) < 0)
			return err->code ? -1 : err_set(err, ESRCH, "vm%u: has ended", s->rank);
		s->switched = true;
		return 0;
	}
	if (s->switched && json_is_true(json_object_get(j, "closed"))) {
		stream_destroy(TAKE_PTR(s->state)); /* after all that came before: it knows whether that was all */
		look(s);
		return 0;
	}
	if (!(s->ended || s->switched) || !json_is_true(json_object_get(j, "prepared")))
		return err_set(err, EPROTO, "the agent that takes it said what was not asked for");
	s->prepared = true;
	answer(s, true, false, NULL);
	return 0;
}

static void on_link_data(void *arg, struct buf *in)
{
	struct sending *s = arg;
	struct frame f;
	struct err err = ERR_INIT;
	int got;
	while ((got = frame_read(in, FRAME_MAX_GUEST, &f, &err)) == 1) {
		int rc = 0;
		if (f.type != FRAME_DATA) {
			_cleanup_json_ json_t *j = message_read(&f, &err);
			rc = j ? on_word(s, j, &err) : -1;
		} else if (s->state && s->post_copy) {
			stream_write(s->state, f.payload, f.len);
		}
		if (rc < 0)
			break;
		frame_drop(in, &f);
	}
	if (got)
		give_up(s, &err);
}

static void on_link_close(void *arg, const struct err *err)
{
	struct sending *s = arg;
	struct err why = ERR_INIT;
	stream_destroy(TAKE_PTR(s->link));
	if (s->vm && vm_is_split(s->vm)) { /* the hypervisor knows whether the target had all by then */
		stream_destroy(TAKE_PTR(s->state));
		evtimer_start(s->patience, CUT_MS, 0);
		return;
	}
	if (s->prepared) { /* it may run there: not ours to decide */
		if (!s->vm)
			forget(s);
		return;
	}
	err_set(&why, ECONNRESET, "the link to %s was cut: %s",
		mesh_node_name(s->agent->mesh, s->node), err->code ? err->text : "closed by its agent");
	give_up(s, &why);
}

static void on_link_drain(void *arg)
{
	struct sending *s = arg;
	if (s->state)
		stream_pause(s->state, false);
	look(s);
}

static void on_soon(void *arg)
{
	look(arg);
}

static void on_opened(void *arg, uint32_t node _unused_, struct stream *link, const struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_link_data,
					      .on_close = on_link_close,
					      .on_drain = on_link_drain};
	struct sending *s = arg;
	struct err why = ERR_INIT;
	s->opening = false;
	if (s->over || !link) {
		stream_destroy(link);
		if (s->over)
			forget(s);
		else
			give_up(s, err);
		return;
	}
	s->link = link;
	stream_set_ops(link, &ops, s);
	struct vm *vm = service_vm(s->agent, s->rank, &why);
	if (!vm || vm_send(vm, s->post_copy, &send_ops, s, &why) < 0) {
		answer(s, false, true, &why);
		forget(s);
		return;
	}
	s->vm = vm;
	evtimer_start(s->patience, LOOK_MS, LOOK_MS);
}

/* Of one that is split, the end of the patience is the end of the VM. */
static void on_patience(void *arg)
{
	struct sending *s = arg;
	struct err err = ERR_INIT;
	bool split = s->vm && vm_is_split(s->vm);
	if (!s->link) {
		err_set(&err, ECONNRESET, "the link to %s was cut",
			mesh_node_name(s->agent->mesh, s->node));
		give_up(s, &err);
		return;
	}
	unsigned looks = MOVING_STALL_LOOKS * (split ? LATE_LOOKS : 1);
	if ((s->prepared && !split) || !moving_stalls(&s->stall, s->put, stream_queued(s->link),
						      s->ended || (s->asked && s->stands), looks))
		return;
	err_set(&err, ETIMEDOUT, "%s took nothing and said nothing for %u s",
		mesh_node_name(s->agent->mesh, s->node), looks * LOOK_MS / 1000);
	give_up(s, &err);
}

/* ---- requests of the root ---- */

static void on_call_end(struct call *call)
{
	struct sending *s = call->state;
	struct err err = ERR_INIT;
	if (!s)
		return;
	s->call = NULL;
	err_set(&err, ECANCELED, "cancelled");
	if (!s->prepared && !s->switched) /* else the root asks for it again ("unsend") */
		give_up(s, &err);
}

static const struct call_ops ops = {.on_end = on_call_end};

static struct sending *find(struct agent *a, uint32_t rank)
{
	struct sending *s = a->sendings;
	while (s && (s->rank != rank || s->over))
		s = s->next;
	return s;
}

int service_send(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	json_int_t node;
	uint32_t rank;
	const char *id;
	if (moving_read(a, req, &rank, &id, err) < 0 ||
	    message_int(req, "node", 1, mesh_nodes(a->mesh), &node, err) < 0)
		return -1;
	struct sending *s = xcalloc(1, sizeof(*s));
	*s = (struct sending){.agent = a, .call = call, .rank = rank, .node = (uint32_t)node, .disk = -1};
	snprintf(s->id, sizeof(s->id), "%s", id);
	s->post_copy = json_is_true(json_object_get(req, "post_copy"));
	s->patience = evtimer_create(a->loop, on_patience, s);
	s->soon = evtimer_create(a->loop, on_soon, s);
	struct vm *vm = service_vm(a, rank, err);
	bool good = vm && !find(a, rank) && vm_get_state(vm) == VM_READY;
	if (vm && !good)
		err_set(err, EBUSY, "%s: cannot be moved: it is %s", vm_name(vm),
			find(a, rank) ? "being moved" : vm_state_name(vm_get_state(vm)));
	s->next = a->sendings;
	a->sendings = s;
	call->ops = &ops;
	call->state = s;
	if (!good) {
		answer(s, false, true, err);
		forget(s);
		return 0;
	}
	s->opening = true;
	mesh_open(a->mesh, (uint32_t)node, MESH_STATE, on_opened, s);
	return 0;
}

/* By post-copy, and it was switched over: it can only go on there. "fed": is it there as a whole? */
static void answer_split(struct call *call, const struct sending *s)
{
	bool split = s && s->vm && vm_is_split(s->vm);
	call_reply(call, json_pack("{s:b, s:b, s:b, s:I}", "ok", 1, "split", split, "fed", !split,
				   "bytes", s ? (json_int_t)s->bytes : (json_int_t)0));
}

/* The target has not got it, and never will; or, with "fed" or where it was split, how far it is. "lost": the target is. */
int service_unsend(struct call *call, const json_t *req, struct err *err)
{
	struct agent *a = call->agent;
	uint32_t rank;
	const char *id;
	if (moving_read(a, req, &rank, &id, err) < 0)
		return -1;
	struct sending *s = find(a, rank);
	struct vm *vm = cluster_vm(a->cluster, rank);
	bool mine = s && strcmp(s->id, id) == 0, lost = json_is_true(json_object_get(req, "lost"));
	if (json_is_true(json_object_get(req, "fed")) ||
	    (mine && s->vm && vm_is_split(s->vm) && !lost)) {
		answer_split(call, mine ? s : NULL);
		return 0;
	}
	if (mine) {
		err_set(err, ECANCELED, "cancelled");
		give_up(s, err);
	} else if (vm && vm_is_adopting(vm)) {
		return err_set(err, EAGAIN, "%s: is being adopted", vm_name(vm));
	} else if (vm && vm_was_adopted(vm) && vm_get_state(vm) == VM_PAUSED) {
		/* The agent before this one had sent it; else it gave up by itself. Asked again, until it goes on: its
		 * VMM may not have got so far yet. */
		if (!vm_move_holds(vm, "resume", err) && vm_resume(vm, err) == 0)
			err_set(err, EAGAIN, "%s: is being resumed", vm_name(vm));
		return -1;
	}
	call_reply(call, json_pack("{s:b, s:b}", "ok", 1, "over",
				   vm && vm_state_is_over(vm_get_state(vm))));
	return 0;
}

void service_send_finish(struct agent *a)
{
	while (a->sendings) {
		struct sending *s = a->sendings;
		if (s->call)
			s->call->state = NULL;
		s->call = NULL;
		if (s->vm && !s->prepared && !s->switched) /* else it may run there */
			vm_unsend(s->vm);
		s->vm = NULL;
		a->sendings = s->next;
		forget(s); /* now, or when the opening of its link is over */
	}
}
