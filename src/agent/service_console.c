/* SPDX-License-Identifier: Apache-2.0 */
/* console and logs: what a VM printed, and what it prints now. */
#include <errno.h>
#include <string.h>

#include "agent/services.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "wire/message.h"

#define BACKLOG_MAX                                                                                \
	(1u << 20) /* bytes; a reader that falls further behind misses output rather than memory */
#define DATA_CHUNK (256u << 10)

struct attached {
	struct call *call;
	struct vm *vm;
	struct console_reader *reader;
	uint64_t lost; /* bytes not passed on */
};

static void send_all(struct call *call, uint32_t rank, const char *p, size_t n)
{
	for (size_t at = 0; at < n; at += DATA_CHUNK)
		call_data(call, rank, 1, p + at, MIN(n - at, (size_t)DATA_CHUNK), false);
}

static void on_output(void *arg, const char *p, size_t n)
{
	struct attached *at = arg;
	if (call_backlog(at->call) > BACKLOG_MAX) {
		at->lost += n;
		return;
	}
	if (at->lost) {
		_cleanup_free_ char *note =
			xasprintf("\r\n[vse: %llu bytes lost here: the reader was too slow]\r\n",
				  (unsigned long long)at->lost);
		at->lost = 0;
		send_all(at->call, vm_rank(at->vm), note, strlen(note));
	}
	send_all(at->call, vm_rank(at->vm), p, n);
}

static void on_input(struct call *call, uint32_t rank _unused_, const char *p, size_t n, bool eof _unused_)
{
	struct attached *at = call->state;
	console_input(vm_console(at->vm), p, n);
}

static void on_end(struct call *call)
{
	struct attached *at = call->state;
	console_detach(at->reader);
	free(at);
}

static const struct call_ops console_ops = {.on_data = on_input, .on_end = on_end};
static const struct call_ops logs_ops = {.on_end = on_end};

static int attach(struct call *call, const json_t *req, const struct call_ops *ops, bool follow,
		  struct err *err)
{
	struct agent *a = call->agent;
	json_int_t rank, tail;
	size_t len;
	json_int_t size = (json_int_t)cluster_get_spec(a->cluster)->size;
	if (message_int(req, "rank", 0, INT32_MAX, &rank, err) < 0)
		return -1;
	if (rank >= size)
		return err_set(err, ERANGE, "no VM of rank %d (ranks are 0-%d)", (int)rank,
			       (int)size - 1);
	if (message_int(req, "tail", 0, CONSOLE_LOG_MAX, &tail, err) < 0)
		return -1;
	struct vm *vm = service_vm(a, (uint32_t)rank, err);
	if (!vm)
		return -1;
	_cleanup_free_ char *text = console_tail(vm_console(vm), (size_t)tail, &len);
	send_all(call, (uint32_t)rank, text, len);
	if (!follow) {
		call_ok(call);
		return 0;
	}
	struct attached *at = xcalloc(1, sizeof(*at));
	*at = (struct attached){.call = call, .vm = vm};
	at->reader = console_attach(vm_console(vm), on_output, at);
	call->ops = ops;
	call->state = at;
	return 0;
}

int service_console(struct call *call, const json_t *req, struct err *err)
{
	return attach(call, req, &console_ops, true, err);
}

int service_logs(struct call *call, const json_t *req, struct err *err)
{
	return attach(call, req, &logs_ops, json_is_true(json_object_get(req, "follow")), err);
}
