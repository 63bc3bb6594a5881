/* SPDX-License-Identifier: Apache-2.0 */
/* exec, put and get: one request of a front end becomes one request on each VM's channel, and everything they say
 * is passed on under the VM's rank. Flow control is end to end: a VM sends what the front end gave it credit
 * for, so nothing piles up here. stdin goes to all: the front end may send what the slowest VM has room for. */
#include <errno.h>
#include <string.h>

#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "wire/guestproto.h"
#include "wire/message.h"

struct member {
	uint32_t rank; /* first: members are searched by it */
	struct relay *relay;
	struct request *request; /* NULL: over */
	uint64_t granted;        /* bytes of stdin it has room for, ever */
};

struct relay {
	struct call *call;
	struct member *members; /* by position; ranks rise */
	uint32_t n, live;
	uint64_t told; /* bytes of stdin the front end may send, ever, as it knows */
	bool started;
	bool input; /* the request takes stdin */
};

static void finish(struct relay *r)
{
	if (r->started && !r->live)
		call_ok(r->call); /* frees r */
}

/* ---- stdin ---- */

static void tell_credit(struct relay *r)
{
	uint64_t least = UINT64_MAX;
	for (uint32_t i = 0; i < r->n; i++)
		if (r->members[i].request)
			least = MIN(least, r->members[i].granted);
	if (!r->input || least == UINT64_MAX || least <= r->told)
		return;
	uint64_t more = MIN(least - r->told, (uint64_t)UINT32_MAX);
	r->told += more;
	call_credit(r->call, FRAME_ALL, 0, (uint32_t)more);
}

static struct member *find(struct relay *r, uint32_t rank)
{
	return rank_search(r->members, r->n, sizeof(*r->members), rank);
}

static void on_front_data(struct call *call, uint32_t rank, const char *p, size_t n, bool eof)
{
	struct relay *r = call->state;
	for (uint32_t i = 0; i < r->n; i++)
		if (r->members[i].request && (rank == FRAME_ALL || rank == r->members[i].rank))
			request_data(r->members[i].request, 0, p, n, eof);
}

/* ---- what the guests say ---- */

static void add_member_event(struct relay *r, json_t *j, uint32_t rank)
{
	json_object_set_new(j, "rank", json_integer(rank));
	call_event(r->call, j);
}

static void on_guest_message(void *arg, const char *verb, const char *kv, size_t len)
{
	struct member *m = arg;
	json_t *j = json_pack("{s:s}", "event", verb);
	static const char *const numbers[] = {"pid", "code", "signal", "files", "bytes"};
	if (!j)
		return; /* a verb that is not UTF-8: nothing of ours */
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct kv e;
		if (kv_find(kv, len, numbers[i], &e))
			json_object_set_new(j, numbers[i],
					    json_integer((json_int_t)kv_num(kv, len, numbers[i], 0)));
	}
	add_member_event(m->relay, j, m->rank);
}

static void on_guest_data(void *arg, int fd, const char *p, size_t n, bool eof)
{
	struct member *m = arg;
	call_data(m->relay->call, m->rank, fd, p, n, eof);
}

static void on_guest_credit(void *arg, int fd, uint32_t bytes)
{
	struct member *m = arg;
	if (fd != 0)
		return;
	m->granted += bytes;
	tell_credit(m->relay);
}

static void member_error(struct relay *r, uint32_t rank, const struct err *err)
{
	json_t *j = message_error(err);
	json_object_set_new(j, "event", json_string("error"));
	add_member_event(r, j, rank);
}

static void on_guest_end(void *arg, const struct err *err)
{
	struct member *m = arg;
	struct relay *r = m->relay;
	m->request = NULL;
	r->live--;
	if (err)
		member_error(r, m->rank, err);
	tell_credit(r);
	finish(r);
}

static const struct request_ops guest_ops = {
	.on_message = on_guest_message,
	.on_data = on_guest_data,
	.on_credit = on_guest_credit,
	.on_end = on_guest_end,
};

/* ---- what the front end says ---- */

static void on_front_credit(struct call *call, uint32_t rank, int fd, uint32_t bytes)
{
	struct relay *r = call->state;
	struct member *m = find(r, rank);
	if (m && m->request)
		request_credit(m->request, fd, bytes);
}

static void on_front_message(struct call *call, const char *verb, const json_t *msg)
{
	struct relay *r = call->state;
	_cleanup_buf_ struct buf kv = BUF_INIT;
	static const char *const numbers[] = {"signal", "rows", "cols"};
	if (verb_find(verb) != VERB_signal && verb_find(verb) != VERB_resize)
		return;
	kv_adds(&kv, "verb", verb);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		json_int_t v;
		if (message_int(msg, numbers[i], 0, 65535, &v, NULL) == 0)
			kv_addu(&kv, numbers[i], (uint64_t)v);
	}
	for (uint32_t i = 0; i < r->n; i++)
		if (r->members[i].request)
			request_message(r->members[i].request, &kv);
}

static void on_front_end(struct call *call)
{
	struct relay *r = call->state;
	for (uint32_t i = 0; i < r->n; i++)
		if (r->members[i].request)
			request_abandon(r->members[i].request);
	free(r->members);
	free(r);
}

static const struct call_ops call_ops = {
	.on_message = on_front_message,
	.on_data = on_front_data,
	.on_credit = on_front_credit,
	.on_end = on_front_end,
};

/* ---- */

static int relay(struct call *call, const json_t *req, const struct buf *kv, bool input, struct err *err)
{
	struct agent *a = call->agent;
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	if (service_ranks(a, req, &ranks, err) < 0)
		return -1;
	if (buf_len(kv) > FRAME_MAX_GUEST)
		return err_set(err, E2BIG, "the command and its environment are longer than %u bytes",
			       FRAME_MAX_GUEST);
	struct relay *r = xcalloc(1, sizeof(*r));
	*r = (struct relay){.call = call,
			    .n = rankset_count(&ranks),
			    .input = input,
			    .told = GUESTPROTO_STDIN_WINDOW};
	r->members = xcalloc(r->n, sizeof(*r->members));
	call->ops = &call_ops;
	call->state = r;
	uint32_t rank = rankset_next(&ranks, 0);
	for (uint32_t i = 0; i < r->n; i++, rank = rankset_next(&ranks, rank + 1)) {
		struct member *m = &r->members[i];
		struct err why = ERR_INIT;
		*m = (struct member){.relay = r, .rank = rank, .granted = GUESTPROTO_STDIN_WINDOW};
		struct vm *vm = service_vm(a, rank, &why);
		struct channel *channel = vm ? vm_channel(vm, &why) : NULL;
		if (channel) {
			r->live++;
			m->request = channel_request(channel, kv, &guest_ops, m);
		} else {
			member_error(r, rank, &why);
		}
	}
	r->started = true;
	finish(r);
	return 0;
}

static int add_list(struct buf *kv, const char *key, const json_t *list, struct err *err)
{
	size_t i;
	const json_t *item;
	if (list && !json_is_array(list))
		return err_set(err, EPROTO, "message: '%s' is no list", key);
	json_array_foreach (list, i, item) {
		if (!json_is_string(item))
			return err_set(err, EPROTO, "message: '%s' holds something that is no text",
				       key);
		kv_adds(kv, key, json_string_value(item));
	}
	return 0;
}

static void add_number(struct buf *kv, const json_t *req, const char *key)
{
	json_int_t v;
	if (message_int(req, key, 0, INT32_MAX, &v, NULL) == 0)
		kv_addu(kv, key, (uint64_t)v);
}

static void add_text(struct buf *kv, const json_t *req, const char *key)
{
	kv_adds(kv, key, json_string_value(json_object_get(req, key)));
}

int service_exec(struct call *call, const json_t *req, struct err *err)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	const json_t *argv = json_object_get(req, "argv");
	if (!json_is_array(argv) || !json_array_size(argv))
		return err_set(err, EPROTO, "exec without a command");
	kv_adds(&kv, "verb", "exec");
	if (add_list(&kv, "arg", argv, err) < 0 ||
	    add_list(&kv, "env", json_object_get(req, "env"), err) < 0)
		return -1;
	add_text(&kv, req, "user");
	add_text(&kv, req, "cwd");
	static const char *const numbers[] = {"tty", "rows", "cols", "stdin", "window"};
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		add_number(&kv, req, numbers[i]);
	return relay(call, req, &kv, json_integer_value(json_object_get(req, "stdin")) != 0, err);
}

int service_put(struct call *call, const json_t *req, struct err *err)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	kv_adds(&kv, "verb", "put");
	add_text(&kv, req, "path");
	add_number(&kv, req, "into");
	return relay(call, req, &kv, true, err);
}

int service_get(struct call *call, const json_t *req, struct err *err)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	kv_adds(&kv, "verb", "get");
	add_text(&kv, req, "path");
	add_number(&kv, req, "window");
	return relay(call, req, &kv, false, err);
}
