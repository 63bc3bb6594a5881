/* SPDX-License-Identifier: Apache-2.0 */
#include "testvm.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "wire/frame.h"
#include "wire/guestproto.h"
#include "wire/kv.h"
#include "wire/resync.h"

#define FEED 60000 /* bytes: less than the guest lets us send at once */

static void send_kv(struct testvm *t, uint32_t id, const struct buf *kv)
{
	if (!t->channel)
		return;
	frame_write(stream_out(t->channel), &(struct frame){.len = (uint32_t)buf_len(kv),
							    .type = FRAME_MESSAGE,
							    .id = id,
							    .payload = buf_head(kv)});
	stream_flush(t->channel);
}

static void send_setup(struct testvm *t)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char seed[64];
	memset(seed, 0x5a, sizeof(seed));
	kv_adds(&b, "verb", "setup");
	kv_adds(&b, "hostname", t->env->spec.name ? t->env->spec.name : "vm0");
	kv_addu(&b, "rank", 0);
	kv_addu(&b, "size", 1);
	kv_adds(&b, "cluster", "contract");
	kv_addu(&b, "time_ns", time_wall_ns());
	kv_add(&b, "seed", seed, sizeof(seed));
	kv_adds(&b, "machine_id", "0123456789abcdef0123456789abcdef");
	if (t->net_fd >= 0 || t->env->spec.tap) {
		kv_adds(&b, "mac", "02:00:00:00:00:01");
		kv_adds(&b, "ipv4", "10.77.0.1/16");
		kv_adds(&b, "mtu", "9000");
	}
	for (size_t i = 0; i < t->env->spec.n_mounts; i++) {
		const struct hv_mount *m = &t->env->spec.mounts[i];
		_cleanup_free_ char *text = xasprintf("vse%zu %s %s", i, m->rw ? "rw" : "ro", m->guest);
		kv_adds(&b, "mount", text);
	}
	send_kv(t, 0, &b);
}

static uint64_t since(const struct testvm *t)
{
	return time_mono_ms() - t->started_at;
}

static void on_message(struct testvm *t, const struct frame *f)
{
	_cleanup_free_ char *verb = kv_dup(f->payload, f->len, "verb");
	if (!verb)
		return;
	if (strcmp(verb, "hello") == 0) {
		_cleanup_free_ char *boot = kv_dup(f->payload, f->len, "boot");
		snprintf(t->boot, sizeof(t->boot), "%s", boot ? boot : "");
		if (!t->hellos++)
			t->hello_ms = since(t);
		if (!t->no_setup)
			send_setup(t);
	} else if (strcmp(verb, "ready") == 0) {
		if (!t->readies++)
			t->ready_ms = since(t);
	} else if (strcmp(verb, "pong") == 0) {
		t->pongs++;
	} else if (strcmp(verb, "bye") == 0) {
		t->byes++;
	} else if (strcmp(verb, "started") == 0) {
		t->started++;
	} else if (strcmp(verb, "exit") == 0) {
		t->exits++;
		t->exit_code = (int64_t)kv_num(f->payload, f->len, "code", 1000);
	} else if (strcmp(verb, "error") == 0 || strcmp(verb, "failed") == 0) {
		t->errors++;
	}
}

static void on_channel_data(void *arg, struct buf *in)
{
	struct testvm *t = arg;
	struct frame f;
	int rc;
	if (t->resync && !resync_find(in))
		return;
	t->resync = false;
	while ((rc = frame_read(in, FRAME_MAX_GUEST, &f, NULL)) == 1) {
		if (f.type == FRAME_MESSAGE) {
			on_message(t, &f);
		} else if (f.type == FRAME_DATA && f.fd == 1) {
			buf_add(&t->out, f.payload, f.len);
			t->out_eof = t->out_eof || (f.flags & FRAME_EOF);
			if (f.len)
				frame_write_credit(stream_out(t->channel), f.id, 0, 1, f.len);
			stream_flush(t->channel);
		}
		frame_drop(in, &f);
	}
	if (rc < 0)
		buf_clear(in);
}

static void on_channel_close(void *arg, const struct err *err _unused_)
{
	struct testvm *t = arg;
	stream_destroy(TAKE_PTR(t->channel));
}

static void on_console_data(void *arg, struct buf *in)
{
	struct testvm *t = arg;
	buf_add(&t->console_text, buf_head(in), buf_len(in));
	buf_consume(in, buf_len(in));
}

static void on_console_close(void *arg, const struct err *err _unused_)
{
	struct testvm *t = arg;
	stream_destroy(TAKE_PTR(t->console));
}

static const struct stream_ops channel_ops = {.on_data = on_channel_data, .on_close = on_channel_close};
static const struct stream_ops console_ops = {.on_data = on_console_data, .on_close = on_console_close};

static void on_event(void *arg, const struct hv_event *e)
{
	struct testvm *t = arg;
	t->after_gone += t->gone > 0;
	switch (e->type) {
	case HV_EVENT_STATE:
		if (!t->states++)
			t->running_ms = since(t);
		t->state = e->state;
		snprintf(t->reason, sizeof(t->reason), "%s", e->reason ? e->reason : "");
		break;
	case HV_EVENT_CHANNEL: /* replaces the one before */
		t->channels++;
		stream_destroy(t->channel);
		t->channel = stream_create(t->env->loop, e->fd, &channel_ops, t, NULL);
		if (t->resync) {
			resync_knock(stream_out(t->channel));
			stream_flush(t->channel);
		}
		break;
	case HV_EVENT_CONSOLE:
		stream_destroy(t->console);
		t->console = stream_create(t->env->loop, e->fd, &console_ops, t, NULL);
		break;
	case HV_EVENT_NET:
		if (t->net_fd >= 0)
			close(t->net_fd);
		t->net_fd = e->fd;
		break;
	case HV_EVENT_STREAM:
		t->streams++;
		t->state_fd = e->fd;
		break;
	case HV_EVENT_SWITCH: t->switches++; break;
	case HV_EVENT_PROGRESS: break;
	case HV_EVENT_DONE:
		t->dones++;
		t->state = e->state;
		t->done_bytes = e->bytes;
		snprintf(t->done_op, sizeof(t->done_op), "%s", e->op);
		snprintf(t->done_reason, sizeof(t->done_reason), "%s", e->reason ? e->reason : "");
		snprintf(t->signature, sizeof(t->signature), "%s", e->signature);
		break;
	case HV_EVENT_FAILED:
		t->failed++;
		snprintf(t->failed_op, sizeof(t->failed_op), "%s", e->op);
		snprintf(t->failed_text, sizeof(t->failed_text), "%.299s", e->err->text);
		break;
	case HV_EVENT_GONE:
		t->gone++;
		t->gone_state = e->state;
		snprintf(t->gone_reason, sizeof(t->gone_reason), "%s", e->reason ? e->reason : "");
		break;
	}
}

static int testvm_begin(struct testvm *t, struct env *env, const char *const *words,
			const struct hv_spec *like, struct err *err)
{
	*t = (struct testvm){.env = env, .net_fd = -1, .state_fd = -1, .exit_code = -1};
	t->resync = like->from != HV_FROM_BOOT;
	t->dir = xasprintf("%s/%u", env->tmp, env->made++);
	mkdir(t->dir, 0700);
	for (; words && *words; words++)
		strvec_add(&t->words, *words);
	struct hv_spec spec = *like;
	spec.dir = t->dir;
	spec.extra_args = &t->words;
	t->started_at = time_mono_ms();
	if (hv_start(env->h, env->loop, &spec, &env->probe, on_event, t, &t->hv, err) == 0)
		return 0;
	testvm_finish(t);
	return -1;
}

int testvm_adopt(struct testvm *t, struct env *env, char *dir, struct err *err)
{
	*t = (struct testvm){
		.env = env, .net_fd = -1, .state_fd = -1, .exit_code = -1, .resync = true, .dir = dir};
	struct hv_spec spec = env->spec;
	spec.dir = dir;
	spec.extra_args = &t->words;
	t->started_at = time_mono_ms();
	if (hv_adopt(env->h, env->loop, &spec, on_event, t, &t->hv, err) == 0)
		return 0;
	testvm_finish(t);
	return -1;
}

int testvm_start(struct testvm *t, struct env *env, const char *const *words, struct err *err)
{
	return testvm_begin(t, env, words, &env->spec, err);
}

int testvm_start_from(struct testvm *t, struct env *env, enum hv_from from, int fd,
		      const char *signature, struct err *err)
{
	struct hv_spec spec = env->spec;
	spec.from = from;
	spec.from_fd = fd;
	spec.signature = signature;
	return testvm_begin(t, env, NULL, &spec, err);
}

void testvm_finish(struct testvm *t)
{
	hv_release(TAKE_PTR(t->hv));
	stream_destroy(TAKE_PTR(t->channel));
	stream_destroy(TAKE_PTR(t->console));
	if (t->net_fd >= 0)
		close(t->net_fd);
	t->net_fd = -1;
	if (t->state_fd >= 0)
		close(t->state_fd);
	t->state_fd = -1;
	buf_finish(&t->console_text);
	buf_finish(&t->out);
	strvec_finish(&t->words);
	if (t->dir)
		path_remove(t->dir, NULL);
	free(TAKE_PTR(t->dir));
}

bool testvm_killed(const struct testvm *t)
{
	return strstr(t->gone_reason, "SIGKILL") || strstr(t->gone_reason, "how is not known");
}

void testvm_ping(struct testvm *t)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "ping");
	send_kv(t, ++t->next_id, &b);
}

void testvm_exec(struct testvm *t, const char *const *argv, const char *input)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	uint32_t id = ++t->next_id;
	kv_adds(&b, "verb", "exec");
	for (; *argv; argv++)
		kv_adds(&b, "arg", *argv);
	kv_addu(&b, "stdin", input != NULL);
	kv_addu(&b, "window", 65536);
	buf_clear(&t->out);
	t->out_eof = false;
	t->exit_code = -1;
	send_kv(t, id, &b);
	if (!input || !t->channel)
		return;
	frame_write_data(stream_out(t->channel), id, 0, 0, input, strlen(input), true);
	stream_flush(t->channel);
}

bool testvm_feed(struct testvm *t)
{
	static const char *const sink[] = {"sh", "-c", "cat >/dev/null; echo all", NULL},
				 *const cat[] = {"cat", NULL};
	static char much[FEED + 1];
	bool fake = strcmp(t->env->h->name, "fake") == 0; /* it has no shell */
	int exits = t->exits;
	memset(much, 'm', FEED);
	testvm_exec(t, fake ? cat : sink, much);
	bool all = testvm_wait(t, t->exits > exits) && t->exit_code == 0 &&
		   (fake ? buf_len(&t->out) == FEED : strcmp(buf_cstr(&t->out), "all\n") == 0);
	if (!all)
		printf("# %d exits, the last with %lld, %zu bytes out, %d errors\n",
		       t->exits - exits, (long long)t->exit_code, buf_len(&t->out), t->errors);
	return all;
}

void testvm_shutdown(struct testvm *t, const char *how)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "shutdown");
	kv_adds(&b, "how", how);
	send_kv(t, 0, &b);
}

static void on_tick(void *arg _unused_)
{
}

void testvm_tick(struct env *env, bool on)
{
	static struct evtimer *tick;
	if (on && !tick) {
		tick = evtimer_create(env->loop, on_tick, NULL);
		evtimer_start(tick, 50, 50);
	} else if (!on) {
		evtimer_destroy(TAKE_PTR(tick));
	}
}

void testvm_run(struct env *env, uint64_t ms)
{
	uint64_t until = time_mono_ms() + ms;
	testvm_tick(env, true);
	while (time_mono_ms() < until && loop_run_once(env->loop))
		;
	testvm_tick(env, false);
}
