/* SPDX-License-Identifier: Apache-2.0 */
/* The asking half of a framed stream, over plain streams and over TLS. The other half is played here. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tap.h"
#include "tls-peers.h"
#include "wire/caller.h"
#include "wire/message.h"

struct loop *loop;

static const uint8_t secret[TLS_SECRET_SIZE] = "0123456789abcdef0123456789abcde";
static struct tls_context *ts, *tc;
static bool over_tls;

/* ---- the side that answers ---- */

struct peer {
	struct stream *s;
	int frames, notes, closes;
	uint32_t last_id;
	bool mute;
	struct err why;
};

static void say(struct peer *p, uint32_t id, json_t *j)
{
	message_write(stream_out(p->s), id, 0, j, NULL);
	stream_flush(p->s);
	json_decref(j);
}

static void answer(struct peer *p, uint32_t id, const char *verb)
{
	if (strcmp(verb, "events") == 0)
		say(p, id, json_pack("{s:s}", "event", "one"));
	if (strcmp(verb, "bad") == 0) {
		frame_write(stream_out(p->s),
			    &(struct frame){.len = 1, .type = FRAME_MESSAGE, .id = id, .payload = "{"});
		stream_flush(p->s);
	} else if (strcmp(verb, "huge") == 0) {
		static const unsigned char header[16] = {0x7f, 0xff, 0xff, 0xff, FRAME_DATA, 1,
							 0,    0,    0,    0,    0,          1};
		stream_write(p->s, header, sizeof(header));
	} else if (strcmp(verb, "fail") == 0) {
		struct err err = ERR_INIT;
		err_set(&err, ENOSPC, "no room");
		say(p, id, message_error(&err));
	} else if (strcmp(verb, "wait") != 0) {
		say(p, id, json_pack("{s:b}", "ok", 1));
	}
}

static void peer_frame(struct peer *p, const struct frame *f)
{
	p->frames++;
	if (!f->id) {
		p->notes++;
		return;
	}
	p->last_id = f->id;
	if (p->mute)
		return;
	if (f->type == FRAME_DATA) {
		frame_write_data(stream_out(p->s), f->id, f->rank, 1, f->payload, f->len,
				 f->flags & FRAME_EOF);
		frame_write_credit(stream_out(p->s), f->id, f->rank, 0, f->len);
		stream_flush(p->s);
	} else if (f->type == FRAME_MESSAGE) {
		_cleanup_json_ json_t *j = message_read(f, NULL);
		answer(p, f->id, json_string_value(json_object_get(j, "verb")) ?: "");
	}
}

static void peer_data(void *arg, struct buf *in)
{
	struct peer *p = arg;
	struct frame f;
	while (frame_read(in, FRAME_MAX_MESSAGE, &f, NULL) == 1) {
		peer_frame(p, &f);
		frame_drop(in, &f);
	}
}

static void peer_close(void *arg, const struct err *err)
{
	struct peer *p = arg;
	p->closes++;
	p->why = *err;
	stream_destroy(TAKE_PTR(p->s));
}

static const struct stream_ops peer_ops = {.on_data = peer_data, .on_close = peer_close};

/* ---- the side that asks ---- */

struct owner {
	struct caller *c;
	int notes, losts, drains, code;
	bool refuse, destroy_on_note, destroy_on_lost;
};

static int on_frame(void *arg, const struct frame *f, struct err *err)
{
	struct owner *o = arg;
	o->notes++;
	if (o->destroy_on_note)
		caller_destroy(TAKE_PTR(o->c));
	else if (o->refuse)
		return err_set(err, EPROTO, "a frame of kind %u is not for me", f->type);
	return 0;
}

static void on_lost(void *arg, const struct err *why)
{
	struct owner *o = arg;
	o->losts++;
	o->code = why->code;
	if (o->destroy_on_lost)
		caller_destroy(TAKE_PTR(o->c));
}

static void on_drain(void *arg)
{
	((struct owner *)arg)->drains++;
}

static const struct caller_link_ops owner_ops = {.on_frame = on_frame,
						 .on_lost = on_lost,
						 .on_drain = on_drain};

struct seen {
	struct owner *owner;
	int events, reads, credits, ends, good, code, eofs;
	size_t bytes;
	char text[ERR_TEXT_MAX];
	bool destroy_on_event, destroy_on_end, again;
};

static const struct caller_ops seen_ops;

static void on_event(void *arg, const json_t *event _unused_)
{
	struct seen *s = arg;
	s->events++;
	if (s->destroy_on_event)
		caller_destroy(TAKE_PTR(s->owner->c));
}

static void on_data(void *arg, uint32_t rank _unused_, int fd _unused_, const char *p _unused_,
		    size_t n, bool eof)
{
	struct seen *s = arg;
	s->reads++;
	s->bytes += n;
	s->eofs += eof;
}

static void on_credit(void *arg, uint32_t rank _unused_, uint32_t bytes _unused_)
{
	((struct seen *)arg)->credits++;
}

static json_t *verb(const char *name)
{
	return json_pack("{s:s}", "verb", name);
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct seen *s = arg;
	s->ends++;
	s->good += reply != NULL;
	s->code = err ? err->code : 0;
	snprintf(s->text, sizeof(s->text), "%s", err ? err->text : "");
	if (s->again)
		caller_call(s->owner->c, verb("status"), &seen_ops, s);
	if (s->destroy_on_end)
		caller_destroy(TAKE_PTR(s->owner->c));
}

static const struct caller_ops seen_ops = {
	.on_event = on_event,
	.on_data = on_data,
	.on_credit = on_credit,
	.on_end = on_end,
};

static void meet(struct owner *o, struct peer *p)
{
	int pair[2];
	struct stream *s;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	if (over_tls) {
		p->s = stream_create_tls(loop, pair[1], ts, TLS_SERVER, &peer_ops, p, NULL);
		s = stream_create_tls(loop, pair[0], tc, TLS_CLIENT, NULL, NULL, NULL);
	} else {
		p->s = stream_create(loop, pair[1], &peer_ops, p, NULL);
		s = stream_create(loop, pair[0], NULL, NULL, NULL);
	}
	o->c = caller_create(loop, s, "the agent of node 3", &owner_ops, o);
}

static void part(struct owner *o, struct peer *p)
{
	caller_destroy(o->c);
	stream_destroy(p->s);
	*o = (struct owner){0};
	*p = (struct peer){0};
}

/* ---- */

static void test_ask(void)
{
	struct owner o = {0};
	struct peer p = {0};
	struct seen a = {.owner = &o}, b = a, e = a, d = a;
	meet(&o, &p);
	caller_call(o.c, verb("status"), &seen_ops, &a);
	caller_call(o.c, verb("fail"), &seen_ops, &b);
	caller_call(o.c, verb("events"), &seen_ops, &e);
	is_int(caller_open(o.c), 3, "three calls are open");
	run_until(&e.ends);
	ok(a.good && !a.events && a.ends == 1, "a reply");
	ok(b.ends == 1 && b.code == ENOSPC && strcmp(b.text, "no room") == 0, "an error: %s", b.text);
	ok(e.events == 1 && e.good, "an event, then the reply");
	is_int(caller_open(o.c), 0, "none is open now");
	uint32_t id = caller_call(o.c, verb("wait"), &seen_ops, &d);
	caller_data(o.c, id, 7, "input", 5, true);
	run_until(&d.credits);
	ok(d.reads == 1 && d.bytes == 5 && d.eofs == 1, "data goes and comes, and credit");
	struct seen f = {.owner = &o};
	caller_forget(o.c, id);
	say(&p, id, json_pack("{s:b}", "ok", 1));
	say(&p, 4711, json_pack("{s:b}", "ok", 1));
	frame_write_data(stream_out(p.s), 4712, 0, 1, "x", 1, false);
	caller_call(o.c, verb("status"), &seen_ops, &f);
	run_until(&f.ends);
	ok(!d.ends && f.good && !o.losts, "frames of unknown and forgotten calls are dropped");
	is_int(caller_open(o.c), 0, "a forgotten call ends with its reply");
	_cleanup_free_ char *much = xcalloc(1, 2 << 20);
	if (over_tls)
		run_until(&o.drains); /* of what the handshake has held up */
	o.drains = 0;
	stream_pause(p.s, true);
	caller_data(o.c, 4713, 0, much, 2 << 20, false);
	ok(caller_queued(o.c) > 1 << 20 && !o.drains,
	   "a peer that does not read: the queue shows it");
	stream_pause(p.s, false);
	run_until(&o.drains);
	ok(o.drains == 1 && !caller_queued(o.c), "the queue has emptied, and said so");
	part(&o, &p);
}

static void test_notes(void)
{
	struct owner o = {0};
	struct peer p = {0};
	struct err err = ERR_INIT;
	meet(&o, &p);
	_cleanup_json_ json_t *beat = json_pack("{s:s}", "type", "heartbeat");
	ok(caller_notify(o.c, beat, &err) == 0, "a message with id 0");
	caller_frame(o.c, &(struct frame){.len = 3, .type = FRAME_DATA, .id = 99, .payload = "abc"});
	say(&p, 0, json_incref(beat));
	while (p.notes < 2 || !o.notes)
		loop_run_once(loop);
	ok(p.notes == 2 && p.frames == 2 && o.notes == 1, "go both ways beside the calls");
	o.refuse = true;
	struct seen a = {.owner = &o};
	p.mute = true;
	caller_call(o.c, verb("status"), &seen_ops, &a);
	say(&p, 0, json_incref(beat));
	run_until(&a.ends);
	ok(o.losts == 1 && o.code == EPROTO && a.code == ECONNRESET,
	   "one that is wrong loses the link: %s", a.text);
	is_str(a.text, "the agent of node 3 is gone: a frame of kind 1 is not for me",
	       "with the reason");
	ok(caller_notify(o.c, beat, &err) == 0 && !caller_queued(o.c), "then nothing is sent");
	part(&o, &p);
}

static void test_lost(void)
{
	static const char *const ways[] = {"bad", "huge", "wait"};
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct owner o = {0};
		struct peer p = {0};
		struct seen a = {.owner = &o}, b = a, late = a;
		meet(&o, &p);
		caller_call(o.c, verb("wait"), &seen_ops, &b);
		caller_call(o.c, verb(ways[i]), &seen_ops, &a);
		if (i == 2) {
			run_until(&p.frames);
			stream_end(p.s);
		}
		run_until(&b.ends);
		run_until(&a.ends);
		ok(o.losts == 1 && a.code == ECONNRESET && b.code == ECONNRESET && a.ends == 1 &&
			   b.ends == 1,
		   "%s: %s", ways[i], a.text);
		ok(caller_is_lost(o.c), "the caller knows");
		caller_call(o.c, verb("status"), &seen_ops, &late);
		is_int(late.ends, 0, "a later call has not ended before its id is known");
		run_until(&late.ends);
		is_int(late.code, ECONNRESET, "then it ends, too");
		part(&o, &p);
	}
}

/* The owner learns it elsewhere: calls end at once, and with its reason. */
static void test_told(void)
{
	struct owner o = {0};
	struct peer p = {.mute = true};
	struct seen a = {.owner = &o, .again = true}, b = {.owner = &o};
	struct err dead = ERR_INIT, other = ERR_INIT;
	err_set(&dead, EHOSTDOWN, "node n3 is dead");
	err_set(&other, EPERM, "something else");
	meet(&o, &p);
	caller_call(o.c, verb("status"), &seen_ops, &a);
	caller_call(o.c, verb("status"), &seen_ops, &b);
	caller_lost(o.c, &dead);
	ok(a.ends == 1 && b.ends == 1 && a.code == EHOSTDOWN, "caller_lost() ends all calls: %s",
	   a.text);
	caller_lost(o.c, &other);
	a.again = false;
	while (a.ends < 2)
		loop_run_once(loop);
	ok(a.code == EHOSTDOWN, "one made from an end ends later, with the same reason");
	is_int(o.losts, 0, "the owner knows already");
	part(&o, &p);
}

static void test_destroyed(void)
{
	struct owner o = {0};
	struct peer p = {0};
	struct seen a = {.owner = &o, .destroy_on_event = true}, b = {.owner = &o}, c = {.owner = &o};
	meet(&o, &p);
	caller_call(o.c, verb("wait"), &seen_ops, &b);
	caller_call(o.c, verb("events"), &seen_ops, &a);
	run_until(&a.ends);
	ok(!o.c && a.code == ECANCELED && b.code == ECANCELED, "destroyed in on_event");
	part(&o, &p);
	a = (struct seen){.owner = &o, .destroy_on_end = true};
	b = (struct seen){.owner = &o};
	meet(&o, &p);
	caller_call(o.c, verb("wait"), &seen_ops, &b);
	caller_call(o.c, verb("status"), &seen_ops, &a);
	run_until(&b.ends);
	ok(!o.c && a.good && b.code == ECANCELED, "destroyed in on_end");
	part(&o, &p);
	meet(&o, &p);
	o.destroy_on_note = true;
	b = (struct seen){.owner = &o};
	caller_call(o.c, verb("wait"), &seen_ops, &b);
	run_until(&p.frames);
	say(&p, 0, json_object());
	run_until(&b.ends);
	ok(!o.c && b.code == ECANCELED, "destroyed in on_frame");
	part(&o, &p);
	meet(&o, &p);
	o.destroy_on_lost = true;
	b = (struct seen){.owner = &o};
	caller_call(o.c, verb("wait"), &seen_ops, &b);
	run_until(&p.frames);
	stream_end(p.s);
	run_until(&b.ends);
	ok(!o.c && b.code == ECONNRESET && o.losts == 1,
	   "destroyed in on_lost: the calls end with that reason");
	part(&o, &p);
	meet(&o, &p);
	a = (struct seen){.owner = &o, .destroy_on_end = true};
	caller_call(o.c, verb("wait"), &seen_ops, &c);
	caller_call(o.c, verb("wait"), &seen_ops, &a);
	struct err err = ERR_INIT;
	err_set(&err, EIO, "x");
	caller_lost(o.c, &err);
	ok(!o.c && a.ends == 1 && c.ends == 1, "destroyed within caller_lost()");
	part(&o, &p);
}

/* Takes a stream over after another has read its first frame; what had come with it is there. */
static void test_taken_over(void)
{
	struct end first = {.careless = true};
	struct owner o = {0};
	struct peer p = {0};
	struct seen a = {.owner = &o};
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	p.s = stream_create(loop, pair[1], &peer_ops, &p, NULL);
	first.s = stream_create(loop, pair[0], &end_ops, &first, NULL);
	say(&p, 0, json_object());
	say(&p, 0, json_object());
	run_until(&first.reads);
	o.c = caller_create(loop, TAKE_PTR(first.s), "it", &owner_ops, &o);
	while (o.notes < 2)
		loop_run_once(loop);
	is_int(o.notes, 2, "unread frames come to the caller");
	caller_call(o.c, verb("status"), &seen_ops, &a);
	run_until(&a.ends);
	ok(a.good, "and it asks");
	end_finish(&first);
	part(&o, &p);
}

static void test_too_large(void)
{
	struct owner o = {0};
	struct peer p = {0};
	struct seen a = {.owner = &o};
	_cleanup_free_ char *text = xcalloc(1, FRAME_MAX_MESSAGE + 2);
	memset(text, 'x', FRAME_MAX_MESSAGE + 1);
	_cleanup_json_ json_t *big = json_pack("{s:s, s:s}", "verb", "create", "text", text);
	struct err err = ERR_INIT;
	meet(&o, &p);
	ok(caller_notify(o.c, big, &err) < 0 && err.code == E2BIG, "a note that is too large: %s",
	   err.text);
	caller_call(o.c, json_incref(big), &seen_ops, &a);
	is_int(a.ends, 0, "a call that is: not before its id is known");
	run_until(&a.ends);
	is_int(a.code, E2BIG, "then it ends: %s", a.text);
	ok(!o.losts, "the link stays");
	part(&o, &p);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	loop = loop_create();
	ts = tls_context_create(secret, "vse:test", NULL);
	tc = tls_context_create(secret, "vse:test", NULL);
	for (int i = 0; i < 2; i++) {
		over_tls = i;
		printf("# over %s\n", i ? "TLS" : "a plain stream");
		test_ask();
		test_notes();
		test_lost();
		test_told();
		test_destroyed();
		test_too_large();
	}
	test_taken_over();
	tls_context_destroy(ts);
	tls_context_destroy(tc);
	loop_destroy(loop);
	return done();
}
