/* SPDX-License-Identifier: Apache-2.0 */
/* QMP, the QEMU machine protocol: one JSON object a line, both ways (QEMU's docs/interop/qmp-spec.rst).
 * The reader of lines is pure, so that it can be fuzzed; the client drives it over a stream. */
#ifndef VSE_HYPERVISOR_QEMU_QMP_H
#define VSE_HYPERVISOR_QEMU_QMP_H

#include <jansson.h>

#include "base/err.h"
#include "io/loop.h"

#define QMP_LINE_MAX (1u << 20) /* bytes; more ends the connection */

enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_message {
	enum qmp_kind kind;
	uint64_t id; /* QMP_RETURN and QMP_ERROR: of the command; 0 = QEMU could not tell which */
	const char *name; /* QMP_EVENT: its name; QMP_ERROR: its class */
	const char *text; /* QMP_ERROR: its description, "" if none */
	json_t *data;  /* the event's data, the return value, the greeting's version; may be NULL */
	json_t *whole; /* owned; everything above is borrowed from it */
};

/* Reads one line. EPROTO: not JSON, or not a message of QMP. */
int qmp_parse(const char *line, size_t len, struct qmp_message *ret, struct err *err);
void qmp_message_finish(struct qmp_message *m);

struct qmp;

struct qmp_ops {
	void (*on_ready)(void *arg); /* greeting and capabilities are done: once, before any event */
	/* data is an object or NULL, borrowed */
	void (*on_event)(void *arg, const char *name, json_t *data);
	/* The peer closed (err->code 0), spoke nonsense or did not greet in time. Once; after the pending
	 * commands were told; then only qmp_destroy(). */
	void (*on_close)(void *arg, const struct err *err);
};

/* err is NULL on success; then `ret` is the return value (borrowed). Otherwise ret is NULL. */
typedef void qmp_done_fn(void *arg, json_t *ret, const struct err *err);

/* fd: taken. greeting_ms bounds the wait for on_ready. Callbacks may destroy the client. */
struct qmp *qmp_create(struct loop *l, int fd, uint64_t greeting_ms, const struct qmp_ops *ops,
		       void *arg, struct err *err);
/* Queues a command; commands go out in order once the client is ready. args: an object, taken, or NULL.
 * The bound runs from now: ETIMEDOUT, and an answer that still comes is dropped. done may be NULL. */
void qmp_command(struct qmp *q, const char *name, json_t *args, uint64_t timeout_ms,
		 qmp_done_fn *done, void *arg);
void qmp_destroy(struct qmp *q); /* pending commands are forgotten, not told; NULL is fine */

#endif
