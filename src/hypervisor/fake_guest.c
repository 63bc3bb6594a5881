/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "hypervisor/fake.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

#define MUTE_MS 100 /* as the real guest agent */

void fake_send(struct fake_guest *g, uint32_t id, const struct buf *kv)
{
	if (!g->channel)
		return;
	frame_write(stream_out(g->channel), &(struct frame){.len = (uint32_t)buf_len(kv),
							    .type = FRAME_MESSAGE,
							    .id = id,
							    .payload = buf_head(kv)});
	stream_flush(g->channel);
}

static uint64_t uptime(const struct fake_guest *g)
{
	return loop_now(g->loop) - g->booted;
}

static void say(struct fake_guest *g, const char *verb, const char *key, const char *value)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", verb);
	if (key)
		kv_adds(&b, key, value);
	kv_addu(&b, "uptime_ms", uptime(g));
	fake_send(g, 0, &b);
}

static void hello(struct fake_guest *g)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	g->hello_sent = true;
	if (g->script->garbage) {
		if (g->channel)
			stream_write(g->channel, "Kernel panic - not syncing\n", 27);
		return;
	}
	kv_adds(&b, "verb", "hello");
	kv_addu(&b, "version", GUESTPROTO_VERSION);
	kv_adds(&b, "boot", g->boot);
	kv_addu(&b, "uptime_ms", uptime(g));
	fake_send(g, 0, &b);
	if (g->script->hello_twice)
		fake_send(g, 0, &b);
}

static void say_ready(struct fake_guest *g)
{
	g->was_ready = true;
	say(g, "ready", NULL, NULL);
}

static void on_timer(void *arg)
{
	struct fake_guest *g = arg;
	if (g->paused) {
		g->due = true;
		return;
	}
	g->mute = false;
	if (!g->hello_sent)
		hello(g);
	else if (g->script->fail_setup || (g->script->fail_again && g->was_ready))
		say(g, "failed", "text", "told to fail by its script");
	else
		say_ready(g);
}

void fake_guest_down(struct fake_guest *g, const char *how)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "bye");
	kv_adds(&b, "how", how);
	fake_send(g, 0, &b);
	g->on_down(g->arg, how);
}

static void on_setup(struct fake_guest *g, const struct frame *f)
{
	free(g->hostname);
	g->hostname = kv_dup(f->payload, f->len, "hostname");
	g->is_set_up = true;
	if (!g->script->never_ready)
		evtimer_start(g->timer, g->script->ready_ms, 0);
}

static void answer_stats(struct fake_guest *g, uint32_t id)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "stats");
	kv_addu(&b, "uptime_ms", uptime(g));
	kv_adds(&b, "load1", "0.00");
	kv_addu(&b, "mem_total", 64u << 20);
	kv_addu(&b, "mem_free", 32u << 20);
	kv_addu(&b, "procs", 1);
	fake_send(g, id, &b);
}

static void answer_ping(struct fake_guest *g, uint32_t id)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "pong");
	fake_send(g, id, &b);
}

static bool is_verb(const struct frame *f, const char *verb)
{
	struct kv e;
	return kv_find(f->payload, f->len, "verb", &e) && strlen(verb) == e.value_len &&
	       memcmp(e.value, verb, e.value_len) == 0;
}

/* False when it is nonsense. */
static bool on_frame(struct fake_guest *g, const struct frame *f)
{
	if (f->type != FRAME_MESSAGE)
		return fake_request_frame(g, f) == 0;
	if (!kv_check(f->payload, f->len))
		return false;
	if (is_verb(f, "setup")) {
		on_setup(g, f);
	} else if (is_verb(f, "ping")) {
		answer_ping(g, f->id);
	} else if (is_verb(f, "stats")) {
		answer_stats(g, f->id);
	} else if (is_verb(f, "time")) {
		/* it has no clock of its own */
	} else if (is_verb(f, "shutdown")) {
		_cleanup_free_ char *how = kv_dup(f->payload, f->len, "how");
		if (!g->script->ignore_shutdown)
			fake_guest_down(g, how && strcmp(how, "reboot") == 0 ? "reboot" : "poweroff");
	} else {
		return fake_request_frame(g, f) == 0;
	}
	return true;
}

/* The host let go: all requests end, as the real guest agent does it. */
static void hang_up(struct fake_guest *g)
{
	fake_request_end_all(g);
	stream_destroy(TAKE_PTR(g->channel));
}

/* So is what follows nonsense, until nothing comes for a while. */
static void nonsense(struct fake_guest *g, struct buf *in)
{
	if (!g->mute)
		fake_request_end_all(g);
	buf_clear(in);
	g->mute = true;
	g->hello_sent = g->is_set_up = false;
	if (!g->script->never_hello)
		evtimer_start(g->timer, MUTE_MS, 0);
}

static void on_data(void *arg, struct buf *in)
{
	struct fake_guest *g = arg;
	struct frame f;
	while (!g->mute) {
		int rc = frame_read(in, FRAME_MAX_GUEST, &f, NULL);
		if (rc == 0)
			return;
		if (rc < 0 || !on_frame(g, &f))
			break;
		frame_drop(in, &f);
	}
	nonsense(g, in);
}

static void on_close(void *arg, const struct err *err _unused_)
{
	hang_up(arg);
}

static void on_drain(void *arg)
{
	fake_request_pump(arg);
}

static void begin(struct fake_guest *g)
{
	uint64_t id;
	g->booted = loop_now(g->loop);
	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		id = g->booted;
	snprintf(g->boot, sizeof(g->boot), "%016" PRIx64, id);
}

int fake_guest_boot(struct fake_guest *g, int fd, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_data,
					      .on_close = on_close,
					      .on_drain = on_drain};
	g->channel = stream_create(g->loop, fd, &ops, g, err);
	if (!g->channel)
		return -1;
	g->timer = evtimer_create(g->loop, on_timer, g);
	g->was_ready = g->boot[0];
	if (!g->boot[0])
		begin(g);
	uint64_t age = uptime(g), left = age < g->script->boot_ms ? g->script->boot_ms - age : 0;
	if (!g->script->never_hello)
		evtimer_start(g->timer, left, 0);
	if (g->paused)
		stream_pause(g->channel, true);
	return 0;
}

void fake_guest_pause(struct fake_guest *g, bool pause)
{
	g->paused = pause;
	if (g->channel)
		stream_pause(g->channel, pause);
	if (pause)
		return;
	if (g->due) {
		g->due = false;
		on_timer(g);
	}
	fake_request_pump(g);
}

void fake_guest_finish(struct fake_guest *g)
{
	fake_request_end_all(g);
	stream_destroy(TAKE_PTR(g->channel));
	evtimer_destroy(TAKE_PTR(g->timer));
	free(TAKE_PTR(g->hostname));
	g->hello_sent = g->is_set_up = g->due = g->mute = false;
}
