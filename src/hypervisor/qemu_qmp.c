/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/qemu_qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "io/stream.h"

/* ---- lines ---- */

static int parse_error(struct qmp_message *m, json_t *error, struct err *err)
{
	m->kind = QMP_ERROR;
	m->name = json_string_value(json_object_get(error, "class"));
	m->text = json_string_value(json_object_get(error, "desc"));
	if (!m->name)
		return err_set(err, EPROTO, "QMP: an error without a class");
	if (!m->text)
		m->text = "";
	return 0;
}

static int classify(struct qmp_message *m, struct err *err)
{
	json_t *v, *id = json_object_get(m->whole, "id");
	/* Our ids are positive numbers; anything else is no command of ours. */
	if (json_is_integer(id) && json_integer_value(id) > 0)
		m->id = (uint64_t)json_integer_value(id);
	if ((v = json_object_get(m->whole, "event"))) {
		m->kind = QMP_EVENT;
		m->name = json_string_value(v);
		m->data = json_object_get(m->whole, "data");
		if (!m->name || (m->data && !json_is_object(m->data)))
			return err_set(err, EPROTO, "QMP: a malformed event");
		return 0;
	}
	if ((v = json_object_get(m->whole, "error")))
		return parse_error(m, v, err);
	if ((v = json_object_get(m->whole, "return"))) {
		m->kind = QMP_RETURN;
		m->data = v;
		return 0;
	}
	if ((v = json_object_get(m->whole, "QMP"))) {
		m->kind = QMP_GREETING;
		m->data = json_object_get(v, "version");
		return 0;
	}
	return err_set(err, EPROTO, "QMP: neither event, answer nor greeting");
}

int qmp_parse(const char *line, size_t len, struct qmp_message *ret, struct err *err)
{
	json_error_t je;
	struct qmp_message m = {.whole = json_loadb(line, len, 0, &je)};
	if (!m.whole)
		return err_set(err, EPROTO, "QMP: not JSON: %s", je.text);
	int rc = json_is_object(m.whole) ? classify(&m, err)
					 : err_set(err, EPROTO, "QMP: not an object");
	if (rc < 0) {
		json_decref(m.whole);
		return -1;
	}
	*ret = m;
	return 0;
}

void qmp_message_finish(struct qmp_message *m)
{
	json_decref(m->whole);
	*m = (struct qmp_message){0};
}

/* ---- client ---- */

#define ID_SHIFT 20 /* more commands than one client can send in a millisecond */

struct pending {
	struct pending *next;
	uint64_t id, deadline;
	char *name, *line; /* line: what to send, NULL once sent */
	qmp_done_fn *done;
	void *arg;
};

enum phase { GREETING, CAPABILITIES, READY, CLOSED };

struct qmp {
	struct loop *loop;
	struct stream *stream;
	struct evtimer *timer;
	const struct qmp_ops *ops;
	void *arg;
	enum phase phase;
	uint64_t next_id, greeting_deadline, capabilities_id;
	struct pending *first;
	size_t scanned;  /* bytes of the unread input known to hold no end of line */
	bool *destroyed; /* set while a callback runs */
};

static void pending_free(struct pending *p)
{
	free(p->name);
	free(p->line);
	free(p);
}

/* Runs a callback that may destroy q. False when it did. */
#define CALL(q, call)                                                                              \
	__extension__({                                                                            \
		bool dead_ = false, *outer_ = (q)->destroyed;                                      \
		(q)->destroyed = &dead_;                                                           \
		call;                                                                              \
		if (dead_ && outer_)                                                               \
			*outer_ = true;                                                            \
		if (!dead_)                                                                        \
			(q)->destroyed = outer_;                                                   \
		!dead_;                                                                            \
	})

static void arm(struct qmp *q)
{
	uint64_t now = loop_now(q->loop), at = UINT64_MAX;
	if (q->phase < READY)
		at = q->greeting_deadline;
	else if (q->phase == READY)
		for (struct pending *p = q->first; p; p = p->next)
			at = MIN(at, p->deadline);
	if (at == UINT64_MAX)
		evtimer_stop(q->timer);
	else
		evtimer_start(q->timer, at > now ? at - now : 0, 0);
}

static bool finish(struct qmp *q, struct pending *p, json_t *ret, const struct err *err)
{
	bool alive = !p->done || CALL(q, p->done(p->arg, ret, err));
	pending_free(p);
	return alive;
}

static struct pending *unlink_first(struct qmp *q, struct pending **at)
{
	struct pending *p = *at;
	*at = p->next;
	arm(q);
	return p;
}

static void close_with(struct qmp *q, const struct err *err)
{
	if (q->phase == CLOSED)
		return;
	q->phase = CLOSED;
	evtimer_stop(q->timer);
	stream_destroy(q->stream);
	q->stream = NULL;
	while (q->first) {
		struct pending *p = q->first;
		struct err e = ERR_INIT;
		q->first = p->next;
		err_set(&e, EPIPE, "%s: %s", p->name, err->code ? err->text : "qemu closed QMP");
		if (!finish(q, p, NULL, &e))
			return;
	}
	q->ops->on_close(q->arg, err); /* may destroy q */
}

static void send_pending(struct qmp *q)
{
	if (q->phase != READY)
		return;
	for (struct pending *p = q->first; p; p = p->next) {
		if (!p->line)
			continue;
		stream_write(q->stream, p->line, strlen(p->line));
		free(p->line);
		p->line = NULL;
	}
}

static bool out_of_order(struct qmp *q, const struct qmp_message *m)
{
	struct err e = ERR_INIT;
	err_set(&e, EPROTO, "QMP: out of order%s%s", m->text ? ": " : "", m->text ? m->text : "");
	close_with(q, &e);
	return false;
}

static void negotiate(struct qmp *q)
{
	_cleanup_free_ char *line = NULL;
	q->phase = CAPABILITIES;
	q->capabilities_id = ++q->next_id;
	line = xasprintf("{\"execute\":\"qmp_capabilities\",\"id\":%" PRIu64 "}\n", q->capabilities_id);
	stream_write(q->stream, line, strlen(line));
}

static bool on_answer(struct qmp *q, const struct qmp_message *m)
{
	if (q->phase == CAPABILITIES) {
		if (m->id != q->capabilities_id)
			return true; /* to a command of the client before this one */
		if (m->kind == QMP_ERROR)
			return out_of_order(q, m);
		q->phase = READY;
		arm(q);
		if (!CALL(q, q->ops->on_ready(q->arg)))
			return false;
		send_pending(q);
		return true;
	}
	for (struct pending **at = &q->first; *at; at = &(*at)->next) {
		if ((*at)->id != m->id || (*at)->line)
			continue;
		struct pending *p = unlink_first(q, at);
		struct err e = ERR_INIT;
		if (m->kind == QMP_ERROR)
			err_set(&e, strcmp(m->name, "CommandNotFound") == 0 ? ENOTSUP : EIO,
				"%s: %s", p->name, m->text);
		return finish(q, p, m->kind == QMP_ERROR ? NULL : m->data,
			      m->kind == QMP_ERROR ? &e : NULL);
	}
	return true; /* came after its bound, or is no command of ours */
}

/* False when q is closed or destroyed. */
static bool on_message(struct qmp *q, const struct qmp_message *m)
{
	if (q->phase == GREETING) {
		/* QEMU may answer the client before this one, which has died, on the new connection. */
		if (m->kind == QMP_GREETING)
			negotiate(q);
		return true;
	}
	if (m->kind == QMP_GREETING)
		return out_of_order(q, m);
	if (m->kind != QMP_EVENT)
		return on_answer(q, m) && q->phase != CLOSED;
	/* An event in the middle of the negotiation says nothing that query-status does not say after it. */
	if (q->phase == READY)
		return CALL(q, q->ops->on_event(q->arg, m->name, m->data)) && q->phase != CLOSED;
	return true;
}

static bool on_line(struct qmp *q, const char *line, size_t len)
{
	struct err e = ERR_INIT;
	struct qmp_message m;
	if (qmp_parse(line, len, &m, &e) < 0) {
		close_with(q, &e);
		return false;
	}
	bool go_on = on_message(q, &m);
	qmp_message_finish(&m);
	return go_on;
}

static void on_data(void *arg, struct buf *in)
{
	struct qmp *q = arg;
	for (;;) {
		char *head = buf_head(in),
		     *nl = memchr(head + q->scanned, '\n', buf_len(in) - q->scanned);
		if (!nl)
			break;
		/* A copy: a callback may destroy the stream that owns the buffer. */
		size_t len = (size_t)(nl - head);
		_cleanup_free_ char *line = xmemdup0(head, len);
		buf_consume(in, len + 1);
		q->scanned = 0;
		if (len && line[len - 1] == '\r')
			len--;
		if (len && !on_line(q, line, len))
			return;
		if (!buf_len(in))
			return;
	}
	q->scanned = buf_len(in);
	if (q->scanned > QMP_LINE_MAX) {
		struct err e = ERR_INIT;
		err_set(&e, EPROTO, "QMP: a line of more than %u bytes", QMP_LINE_MAX);
		close_with(q, &e);
	}
}

static void on_close(void *arg, const struct err *err)
{
	close_with(arg, &(struct err){.code = err->code});
}

static void on_timer(void *arg)
{
	struct qmp *q = arg;
	if (q->phase < READY) {
		struct err e = ERR_INIT;
		err_set(&e, ETIMEDOUT, "QMP: no greeting in time");
		close_with(q, &e);
		return;
	}
	for (struct pending **at = &q->first; *at;) {
		if ((*at)->deadline > loop_now(q->loop)) {
			at = &(*at)->next;
			continue;
		}
		struct pending *p = unlink_first(q, at);
		struct err e = ERR_INIT;
		err_set(&e, ETIMEDOUT, "%s: qemu did not answer in time", p->name);
		if (!finish(q, p, NULL, &e))
			return;
		at = &q->first; /* the list may have changed */
	}
	arm(q);
}

struct qmp *qmp_create(struct loop *l, int fd, uint64_t greeting_ms, const struct qmp_ops *ops,
		       void *arg, struct err *err)
{
	static const struct stream_ops stream_ops = {.on_data = on_data, .on_close = on_close};
	struct qmp *q = xcalloc(1, sizeof(*q));
	*q = (struct qmp){.loop = l, .ops = ops, .arg = arg, .greeting_deadline = loop_now(l) + greeting_ms};
	/* No answer to a client before this one, of another process, can be taken for one to this one. */
	q->next_id = loop_now(l) << ID_SHIFT;
	q->stream = stream_create(l, fd, &stream_ops, q, err);
	if (!q->stream) {
		free(q);
		return NULL;
	}
	q->timer = evtimer_create(l, on_timer, q);
	arm(q);
	return q;
}

void qmp_command(struct qmp *q, const char *name, json_t *args, uint64_t timeout_ms,
		 qmp_done_fn *done, void *arg)
{
	struct pending *p = xcalloc(1, sizeof(*p)), **at = &q->first;
	json_t *o = json_pack("{s:s, s:I}", "execute", name, "id", (json_int_t)++q->next_id);
	if (args)
		json_object_set_new(o, "arguments", args);
	_cleanup_free_ char *text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	*p = (struct pending){.id = q->next_id,
			      .deadline = loop_now(q->loop) + timeout_ms,
			      .done = done,
			      .arg = arg};
	p->name = xstrdup(name);
	p->line = xasprintf("%s\n", text);
	while (*at)
		at = &(*at)->next;
	*at = p;
	send_pending(q);
	arm(q);
}

void qmp_destroy(struct qmp *q)
{
	if (!q)
		return;
	if (q->destroyed)
		*q->destroyed = true;
	while (q->first) {
		struct pending *p = q->first;
		q->first = p->next;
		pending_free(p);
	}
	evtimer_destroy(q->timer);
	stream_destroy(q->stream);
	free(q);
}
