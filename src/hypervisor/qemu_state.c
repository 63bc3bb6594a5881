/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/qemu_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"

#define COMMAND_MS 20000
#define BANDWIDTH_MAX (1ll << 40) /* bytes/s: no limit of QEMU's own (its default is 128 MiB/s) */
#define SETTLE_MS 2               /* between two looks whether QEMU has settled */
/* bytes/s until the guest goes on again, which takes milliseconds: not all of its memory shall be sent by then. QEMU sends a
 * tenth of it at once, and sleeps for what is left of 0.1 s when that is used up. */
#define CRAWL (32ll << 20)
#define DOWNTIME_MS 300   /* QEMU's default: how long it may take to send what is left, then */
#define LOOK_MS 20        /* between two looks how much is left */
#define LEFT_PART 8       /* of its memory: then post-copy begins */
#define TSC_GRAIN 10000   /* kHz */
#define TSC_TOLERANCE 100 /* 1/100: two nodes of one type differ by less */

/* ---- settle ---- */

static void ask_status(void *arg);

static void on_run_state(void *arg, json_t *ret, const struct err *err)
{
	struct qemu_settle *s = arg;
	const char *status = json_string_value(json_object_get(ret, "status"));
	if (!s->timer)
		return; /* finished */
	if (!err && status && strcmp(status, s->until) == 0)
		evtimer_start(s->timer, SETTLE_MS, 0);
	else
		s->done(s->arg, ret, err);
}

static void ask_status(void *arg)
{
	struct qemu_settle *s = arg;
	qmp_command(s->qmp, "query-status", NULL, COMMAND_MS, on_run_state, s);
}

void qemu_settle_begin(struct qemu_settle *s, struct loop *l, struct qmp *qmp, const char *until,
		       qmp_done_fn *done, void *arg)
{
	qemu_settle_finish(s);
	*s = (struct qemu_settle){.loop = l, .qmp = qmp, .until = until, .done = done, .arg = arg};
	s->timer = evtimer_create(l, ask_status, s);
	ask_status(s);
}

void qemu_settle_finish(struct qemu_settle *s)
{
	evtimer_destroy(TAKE_PTR(s->timer));
}

/* ---- out ---- */

static void close_listener(struct qemu_out *o)
{
	listener_destroy(TAKE_PTR(o->listener));
}

static void on_settled(void *arg, json_t *ret, const struct err *err _unused_)
{
	struct qemu_out *o = arg;
	struct err why = o->why;
	if (!o->active)
		return;
	/* Whatever let it go on: of one that works there must be no other. */
	if (!why.code && qemu_status_is(ret, "running"))
		err_set(&why, EIO, "the guest was running again when all was sent");
	qemu_out_finish(o);
	if (why.code)
		o->ops->on_failed(o->arg, &why); /* may end the VM */
	else
		o->ops->on_done(o->arg, o->bytes);
}

static void end(struct qemu_out *o)
{
	if (!o->active || o->ended)
		return;
	o->ended = true;
	qemu_settle_begin(&o->settle, o->loop, o->qmp, "finish-migrate", on_settled, o);
}

static void failed(struct qemu_out *o, const struct err *err)
{
	if (!o->ended)
		o->why = *err;
	end(o);
}

static void on_connect(void *arg, int fd, uid_t uid _unused_)
{
	struct qemu_out *o = arg;
	close_listener(o);
	o->ops->on_stream(o->arg, fd);
}

static void on_command(void *arg, json_t *ret _unused_, const struct err *err)
{
	if (err)
		failed(arg, err);
}

/* x-ignore-shared (since QEMU 3.1): memory that is shared with others is not sent. pause-before-switchover (2.11): it stands still
 * before all that cannot be taken back, and goes on by "migrate-continue". */
static json_t *capabilities(enum qemu_flow flow)
{
	bool late = flow == QEMU_FLOW_POST_COPY;
	return json_pack("{s:[{s:s, s:b}, {s:s, s:b}, {s:s, s:b}, {s:s, s:b}]}", "capabilities",
			 "capability", "events", "state", 1, "capability", "x-ignore-shared",
			 "state", flow == QEMU_FLOW_TEMPLATE, "capability", "postcopy-ram", "state",
			 late, "capability", "pause-before-switchover", "state", late);
}

enum qemu_notes qemu_notes(const char *accel, unsigned version)
{
	if (strcmp(accel, "tcg") != 0 || version >= 900)
		return QEMU_NOTES_GOOD;
	return version < 800 ? QEMU_NOTES_ONCE : QEMU_NOTES_NONE;
}

/* Without any downtime allowed it does not read its notes to find out whether little is left: it stops the guest when all was
 * sent once. */
static json_t *parameters(const struct qemu_out *o)
{
	bool once = o->notes == QEMU_NOTES_ONCE;
	return json_pack("{s:I, s:i}", "max-bandwidth",
			 once ? (json_int_t)CRAWL : (json_int_t)BANDWIDTH_MAX, "downtime-limit",
			 once ? 0 : DOWNTIME_MS);
}

int qemu_out_begin(struct qemu_out *o, struct loop *l, struct qmp *qmp, const char *dir,
		   enum qemu_flow flow, enum qemu_notes notes, const struct qemu_out_ops *ops,
		   void *arg, struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, "state");
	qemu_settle_finish(&o->settle);
	*o = (struct qemu_out){
		.loop = l, .qmp = qmp, .ops = ops, .arg = arg, .flow = flow, .notes = notes, .active = true};
	unlink(path); /* of one before that was cut off */
	o->listener = listener_create(l, path, on_connect, o, err);
	if (!o->listener) {
		o->active = false;
		return -1;
	}
	qmp_command(qmp, "migrate-set-capabilities", capabilities(flow), COMMAND_MS, on_command, o);
	qmp_command(qmp, "migrate-set-parameters", parameters(o), COMMAND_MS, on_command, o);
	o->dip = notes == QEMU_NOTES_ONCE ? QEMU_DIP_ASKED : QEMU_DIP_NONE;
	if (notes != QEMU_NOTES_GOOD)
		qmp_command(qmp, "stop", NULL, COMMAND_MS, on_command, o);
	qmp_command(qmp, "migrate", json_pack("{s:s+}", "uri", "unix:", path), COMMAND_MS,
		    on_command, o);
	return 0;
}

void qemu_out_cancel(struct qemu_out *o)
{
	o->cancelled = true;
	qmp_command(o->qmp, "migrate_cancel", NULL, COMMAND_MS, NULL, NULL);
}

static void hurry(struct qemu_out *o)
{
	if (!o->active || o->flow != QEMU_FLOW_POST_COPY || o->hurried)
		return;
	o->hurried = true;
	qmp_command(o->qmp, "migrate-start-postcopy", NULL, COMMAND_MS, on_command, o);
}

/* Memory that it wrote meanwhile is sent by post-copy: it begins where all was sent once, and all that was not read by
 * then has to be asked for. What is as good as done by then goes without. */
void qemu_out_pass(struct qemu_out *o, json_t *data)
{
	if (json_integer_value(json_object_get(data, "pass")) >= 2)
		hurry(o);
}

/* Where no second pass comes, it begins shortly before the end of the first. */
static void on_left(void *arg, json_t *ret, const struct err *err _unused_)
{
	struct qemu_out *o = arg;
	const json_t *ram = json_object_get(ret, "ram");
	json_int_t left = json_integer_value(json_object_get(ram, "remaining")),
		   all = json_integer_value(json_object_get(ram, "total"));
	if (!o->look)
		return; /* over */
	if (all > 0 && left <= all / LEFT_PART)
		hurry(o);
	if (!o->hurried)
		evtimer_start(o->look, LOOK_MS, 0);
}

static void on_look(void *arg)
{
	struct qemu_out *o = arg;
	qmp_command(o->qmp, "query-migrate", NULL, COMMAND_MS, on_left, o);
}

static void on_gone_on(void *arg, json_t *ret _unused_, const struct err *err)
{
	struct qemu_out *o = arg;
	if (err) {
		failed(o, err);
		return;
	}
	qmp_command(o->qmp, "migrate-set-parameters",
		    json_pack("{s:I}", "max-bandwidth", (json_int_t)BANDWIDTH_MAX), COMMAND_MS,
		    on_command, o);
	if (o->flow != QEMU_FLOW_POST_COPY || o->look)
		return;
	o->look = evtimer_create(o->loop, on_look, o);
	evtimer_start(o->look, LOOK_MS, 0);
}

/* Its notes have been read for the first time. */
static void go_on(struct qemu_out *o)
{
	if (o->dip != QEMU_DIP_NONE)
		qmp_command(o->qmp, "cont", NULL, COMMAND_MS, on_gone_on, o);
}

bool qemu_out_stopped(struct qemu_out *o)
{
	if (!o->active || o->dip == QEMU_DIP_NONE)
		return false;
	o->dip = QEMU_DIP_STOPPED;
	return true;
}

/* One that comes before our stop is of something else. */
bool qemu_out_resumed(struct qemu_out *o)
{
	if (!o->active || o->dip != QEMU_DIP_STOPPED)
		return false;
	o->dip = QEMU_DIP_NONE;
	return true;
}

void qemu_out_switch(struct qemu_out *o)
{
	qmp_command(o->qmp, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"),
		    COMMAND_MS, on_command, o);
}

static void lost(struct qemu_out *o)
{
	struct err e = ERR_INIT;
	err_set(&e, EIO,
		"its move by post-copy broke off, when some of its memory was here and some there");
	qemu_out_finish(o);
	o->ops->on_lost(o->arg, &e); /* ends the VM */
}

static void on_completed(void *arg, json_t *ret, const struct err *err _unused_)
{
	struct qemu_out *o = arg;
	const json_t *ram = json_object_get(ret, "ram");
	o->bytes = (uint64_t)json_integer_value(json_object_get(ram, "transferred"));
	end(o);
}

static void on_why(void *arg, json_t *ret, const struct err *err)
{
	struct qemu_out *o = arg;
	struct err e = ERR_INIT;
	const char *desc = json_string_value(json_object_get(ret, "error-desc"));
	err_set(&e, EIO, "%s", desc ? desc : err ? err->text : "the stream was cut off");
	failed(o, &e);
}

void qemu_out_event(struct qemu_out *o, json_t *data)
{
	const char *status = json_string_value(json_object_get(data, "status"));
	struct err e = ERR_INIT;
	if (!o->active || !status)
		return;
	if (strcmp(status, "active") == 0) {
		go_on(o);
	} else if (strcmp(status, "pre-switchover") == 0 && !o->waited) {
		o->waited = true;
		o->ops->on_switch(o->arg);
	} else if (strcmp(status, "postcopy-active") == 0) {
		o->over = true;
	} else if (o->over && strcmp(status, "completed") != 0) {
		if (strcmp(status, "postcopy-paused") == 0 || strcmp(status, "failed") == 0)
			lost(o);
	} else if (strcmp(status, "completed") == 0) {
		qmp_command(o->qmp, "query-migrate", NULL, COMMAND_MS, on_completed, o);
	} else if (strcmp(status, "cancelled") == 0 || (o->cancelled && strcmp(status, "failed") == 0)) {
		err_set(&e, ECANCELED, "cancelled");
		failed(o, &e);
	} else if (strcmp(status, "failed") == 0) {
		qmp_command(o->qmp, "query-migrate", NULL, COMMAND_MS, on_why, o);
	}
}

void qemu_out_finish(struct qemu_out *o)
{
	o->active = false;
	close_listener(o);
	evtimer_destroy(TAKE_PTR(o->look));
	qemu_settle_finish(&o->settle);
}

/* ---- in ---- */

/* QEMU announces where the guest is (RARP), as soon as the state is in. 7.2 crashes over that when eth0 is a socket
 * whose connection it has not accepted yet, as a busy node may have it: 1 of 20 clones. And nobody waits for it: our switch
 * knows where everybody is; a clone's address is still the template's. */
static json_t *no_announcement(void)
{
	return json_pack("{s:i}", "announce-rounds", 0);
}

void qemu_in_begin(struct qmp *qmp, int fd, enum qemu_flow flow, bool announce, qmp_done_fn *done,
		   void *arg)
{
	char uri[24];
	snprintf(uri, sizeof(uri), "fd:%d", fd);
	if (!announce)
		qmp_command(qmp, "migrate-set-parameters", no_announcement(), COMMAND_MS, done, arg);
	qmp_command(qmp, "migrate-set-capabilities", capabilities(flow), COMMAND_MS, done, arg);
	qmp_command(qmp, "migrate-incoming", json_pack("{s:s}", "uri", uri), COMMAND_MS, done, arg);
}

bool qemu_status_is(json_t *data, const char *status)
{
	const char *is = json_string_value(json_object_get(data, "status"));
	return is && strcmp(is, status) == 0;
}

/* ---- signature ---- */

static unsigned cpuinfo_number(const char *text, const char *key)
{
	const char *p = strstr(text, key);
	p = p ? strchr(p, ':') : NULL;
	return p ? (unsigned)strtoul(p + 1, NULL, 10) : 0;
}

/* A guest under KVM has seen the node's own processor; one under TCG only its clock. */
static void add_processor(struct buf *b, const struct qemu_host *host)
{
	_cleanup_free_ char *text = NULL;
	if (strcmp(host->accel, "kvm") == 0 &&
	    path_read("/proc/cpuinfo", 64u << 20, &text, NULL, NULL) == 0)
		buf_addf(b, " cpu=%u.%u", cpuinfo_number(text, "cpu family"),
			 cpuinfo_number(text, "\nmodel\t"));
	buf_addf(b, " tsc=%" PRIu64, host->tsc_khz);
}

/* Coarser than the signature, which has the last word: two nodes of one type measure their clocks a little differently. */
void qemu_node_type(const char *accel, char *out, size_t size)
{
	_cleanup_free_ char *text = NULL;
	if (path_read("/proc/cpuinfo", 64u << 20, &text, NULL, NULL) < 0)
		return;
	bool kvm = strcmp(accel, "kvm") == 0;
	snprintf(out, size, "cpu=%u.%u tsc=%" PRIu64, kvm ? cpuinfo_number(text, "cpu family") : 0,
		 kvm ? cpuinfo_number(text, "\nmodel\t") : 0,
		 (qemu_tsc_khz(text) + TSC_GRAIN / 2) / TSC_GRAIN);
}

int qemu_signature(const struct hv_spec *spec, const struct qemu_host *host,
		   char out[HV_SIGNATURE_MAX], struct err *err)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *machine = qemu_machine(spec, host);
	buf_addf(&b, "qemu=%u.%u machine=%s accel=%s cpus=%u memory=%" PRIu64 " devices=%s%s%s%s",
		 host->binary->number / 100, host->binary->number % 100, machine ? machine : "?",
		 host->accel, spec->cpus, spec->memory, spec->root ? "r" : "", spec->scratch ? "s" : "",
		 spec->tap   ? "t"
		 : spec->nic ? "n"
			     : "",
		 spec->outbound ? "o" : "");
	add_processor(&b, host);
	if (buf_len(&b) >= HV_SIGNATURE_MAX)
		return err_set(err, E2BIG, "the signature of the VM is too long");
	memcpy(out, buf_cstr(&b), buf_len(&b) + 1);
	return 0;
}

static bool same_word(const char *a, size_t n, const char *b, size_t m)
{
	if (n == m && memcmp(a, b, n) == 0)
		return true;
	if (strncmp(a, "tsc=", 4) != 0 || strncmp(b, "tsc=", 4) != 0)
		return false;
	uint64_t x = strtoull(a + 4, NULL, 10), y = strtoull(b + 4, NULL, 10);
	return !x || !y || MAX(x, y) - MIN(x, y) <= MAX(x, y) / TSC_TOLERANCE;
}

int qemu_signature_check(const char *saved, const char *here, struct err *err)
{
	while (*saved || *here) {
		size_t n = strcspn(saved, " "), m = strcspn(here, " ");
		if (!same_word(saved, n, here, m))
			return err_set(err, EINVAL, "the state was taken under %.*s, this VM would run under %.*s",
				       (int)MIN(n, (size_t)60), n ? saved : "nothing",
				       (int)MIN(m, (size_t)60), m ? here : "nothing");
		saved += n + (saved[n] == ' ');
		here += m + (here[m] == ' ');
	}
	return 0;
}
