/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU says of its state on its way, and what it is asked then. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "hypervisor/qemu_state.h"
#include "qmp-peer.h"
#include "tap.h"

/* The next question of what settles; "": none came, within many times the time between two. */
static void asked(struct peer *p, char *text, size_t size)
{
	text[0] = '\0';
	for (int i = 0; i < 20 && !text[0]; i++) {
		peer_settle(p);
		peer_heard(p, text, size);
	}
}

static void test_settle(void)
{
	struct peer p;
	struct qemu_settle s = {0};
	char text[500];
	peer_negotiate(&p);
	qemu_settle_begin(&s, p.loop, p.q, "finish-migrate", peer_on_answer, &p);
	asked(&p, text, sizeof(text));
	is_str(text, "{\"execute\":\"query-status\",\"id\":@2}\n", "it asks for the run state");
	peer_say(&p, "{\"return\":{\"status\":\"finish-migrate\"},\"id\":@2}\n");
	asked(&p, text, sizeof(text));
	is_str(text, "{\"execute\":\"query-status\",\"id\":@3}\n", "and again, as long as it is that");
	is_int(p.answers, 0, "and tells nothing");
	peer_say(&p, "{\"return\":{\"status\":\"finish-migrate\"},\"id\":@3}\n");
	asked(&p, text, sizeof(text));
	peer_say(&p, "{\"return\":{\"status\":\"postmigrate\"},\"id\":@4}\n");
	asked(&p, text, sizeof(text));
	is_str(text, "", "another one ends it");
	is_str(p.answer, "0 {\"status\":\"postmigrate\"}", "which is told");
	is_int(p.answers, 1, "once");
	/* Anew, with another word. */
	qemu_settle_begin(&s, p.loop, p.q, "inmigrate", peer_on_answer, &p);
	asked(&p, text, sizeof(text));
	peer_say(&p, "{\"return\":{\"status\":\"finish-migrate\"},\"id\":@5}\n");
	peer_settle(&p);
	is_str(p.answer, "0 {\"status\":\"finish-migrate\"}", "it waits for the end of one state only");
	qemu_settle_begin(&s, p.loop, p.q, "inmigrate", peer_on_answer, &p);
	asked(&p, text, sizeof(text));
	peer_say(&p, "{\"id\":@6,\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n");
	peer_settle(&p);
	is_str(p.answer, "5 query-status: no", "an error ends it, too");
	qemu_settle_begin(&s, p.loop, p.q, "inmigrate", peer_on_answer, &p);
	asked(&p, text, sizeof(text));
	qemu_settle_finish(&s);
	peer_say(&p, "{\"return\":{\"status\":\"inmigrate\"},\"id\":@7}\n");
	asked(&p, text, sizeof(text));
	is_str(text, "", "finished while a question is out: it asks no more");
	is_int(p.answers, 3, "and tells nothing");
	peer_finish(&p);
}

struct sent {
	int switches, losts, failed, dones;
	char why[200];
};

static void on_sent_done(void *arg, uint64_t bytes _unused_)
{
	((struct sent *)arg)->dones++;
}

static void on_sent_failed(void *arg, const struct err *err)
{
	struct sent *t = arg;
	t->failed++;
	snprintf(t->why, sizeof(t->why), "%.199s", err->text);
}

static void on_sent_switch(void *arg)
{
	((struct sent *)arg)->switches++;
}

static void on_sent_lost(void *arg, const struct err *err)
{
	struct sent *t = arg;
	t->losts++;
	snprintf(t->why, sizeof(t->why), "%.199s", err->text);
}

static void status(struct qemu_out *o, const char *word)
{
	json_t *j = json_pack("{s:s}", "status", word);
	qemu_out_event(o, j);
	json_decref(j);
}

static void pass(struct qemu_out *o, int n)
{
	json_t *j = json_pack("{s:i}", "pass", n);
	qemu_out_pass(o, j);
	json_decref(j);
}

/* What QEMU says of a post-copy, and what is asked of it. */
static void test_post_copy_events(void)
{
	static const struct qemu_out_ops out_ops = {.on_done = on_sent_done,
						    .on_failed = on_sent_failed,
						    .on_switch = on_sent_switch,
						    .on_lost = on_sent_lost};
	struct peer p;
	char text[500];
	peer_negotiate(&p);
	struct sent t = {0};
	struct qemu_out o = {.loop = p.loop, .qmp = p.q, .ops = &out_ops, .arg = &t, .active = true};
	pass(&o, 2);
	asked(&p, text, sizeof(text));
	is_str(text, "", "who did not ask for post-copy does not get it");
	o.flow = QEMU_FLOW_POST_COPY;
	pass(&o, 1);
	asked(&p, text, sizeof(text));
	is_str(text, "", "the first pass is left alone");
	pass(&o, 2);
	pass(&o, 3);
	asked(&p, text, sizeof(text));
	is_str(text, "{\"execute\":\"migrate-start-postcopy\",\"id\":@2}\n",
	       "after it post-copy is asked for, once");
	status(&o, "active");
	is_int(t.switches, 0, "nothing to be switched yet");
	status(&o, "pre-switchover");
	status(&o, "pre-switchover");
	is_int(t.switches, 1, "it stands still: told once");
	qemu_out_switch(&o);
	asked(&p, text, sizeof(text));
	ok(strstr(text, "migrate-continue") && strstr(text, "pre-switchover"), "it goes on: %s", text);
	status(&o, "postcopy-active");
	ok(!t.losts && !t.failed && !t.dones, "some of it is there");
	status(&o, "postcopy-paused");
	is_int(t.losts, 1, "cut off then, it is lost: %s", t.why);
	status(&o, "failed");
	ok(t.losts == 1 && !t.failed, "which is told once");
	struct qemu_out early = {.loop = p.loop, .qmp = p.q, .ops = &out_ops, .arg = &t, .active = true};
	early.flow = QEMU_FLOW_POST_COPY;
	status(&early, "pre-switchover");
	status(&early, "cancelled");
	asked(&p, text, sizeof(text));
	ok(strstr(text, "query-status") != NULL,
	   "called off before: it waits until QEMU has settled: %s", text);
	ok(t.losts == 1 && !t.failed, "and tells nothing by then");
	qemu_out_finish(&early);
	peer_finish(&p);
}

static void left(struct peer *p, struct qemu_out *o, const char *id, int remaining)
{
	char text[500];
	asked(p, text, sizeof(text));
	ok(strstr(text, "query-migrate") && o->look, "it looks how much is left: %s", text);
	_cleanup_free_ char *said = xasprintf("{\"return\":{\"status\":\"active\",\"ram\":{"
					      "\"remaining\":%d,\"total\":800}},\"id\":%s}\n",
					      remaining, id);
	peer_say(p, said);
}

/* TCG before 9.0: the guest is stopped while QEMU reads for the first time what it has written, and nobody hears of it. */
static void test_notes(void)
{
	static const struct qemu_out_ops out_ops = {.on_done = on_sent_done,
						    .on_failed = on_sent_failed};
	struct peer p;
	struct err err = ERR_INIT;
	char text[1000], dir[] = "/tmp/vse-notes-XXXXXX";
	is_int(qemu_notes("kvm", 502), QEMU_NOTES_GOOD, "the processor's own notes are good");
	is_int(qemu_notes("tcg", 702), QEMU_NOTES_ONCE, "TCG's can be read once");
	is_int(qemu_notes("tcg", 800), QEMU_NOTES_NONE, "or not at all");
	is_int(qemu_notes("tcg", 900), QEMU_NOTES_GOOD, "or are good, too");
	ok(mkdtemp(dir) != NULL, "a folder");
	for (int notes = QEMU_NOTES_GOOD; notes <= QEMU_NOTES_NONE; notes++) {
		struct sent t = {0};
		struct qemu_out o = {0};
		peer_negotiate(&p);
		is_int(qemu_out_begin(&o, p.loop, p.q, dir, QEMU_FLOW_ALL, (enum qemu_notes)notes,
				      &out_ops, &t, &err),
		       0, "begins");
		peer_settle(&p);
		peer_heard(&p, text, sizeof(text));
		const char *stop = strstr(text, "\"stop\""), *migrate = strstr(text, "\"migrate\"");
		ok(migrate && (notes == QEMU_NOTES_GOOD ? !stop : stop && stop < migrate),
		   "stopped before: %s", text);
		ok(!strstr(text, "\"downtime-limit\":0}") == (notes != QEMU_NOTES_ONCE),
		   "and no second look");
		ok(!strstr(text, "\"max-bandwidth\":33554432") == (notes != QEMU_NOTES_ONCE),
		   "and next to nothing sent");
		ok(!qemu_out_resumed(&o),
		   "that it goes on after what was before is no matter of ours");
		is_int(qemu_out_stopped(&o), notes == QEMU_NOTES_ONCE, "its stop is told");
		status(&o, "active");
		status(&o, "active");
		asked(&p, text, sizeof(text));
		ok(!strstr(text, "\"cont\"") == (notes != QEMU_NOTES_ONCE),
		   "it goes on once the notes were read: %s", text);
		is_int(qemu_out_resumed(&o), notes == QEMU_NOTES_ONCE, "that it goes on is told");
		ok(!qemu_out_stopped(&o) && !qemu_out_resumed(&o), "whatever comes then is");
		is_int(t.failed + t.dones + o.cancelled, 0, "nothing failed");
		qemu_out_finish(&o);
		peer_finish(&p);
	}
	is_int(rmdir(dir), 0, "no socket stays");
	/* By post-copy. */
	struct sent t = {0};
	peer_negotiate(&p);
	struct qemu_out o = {.loop = p.loop, .qmp = p.q, .ops = &out_ops, .arg = &t, .active = true};
	o.dip = QEMU_DIP_STOPPED;
	o.flow = QEMU_FLOW_POST_COPY;
	status(&o, "active");
	asked(&p, text, sizeof(text));
	ok(strstr(text, "\"cont\"") != NULL, "it goes on: %s", text);
	peer_say(&p, "{\"return\":{},\"id\":@2}\n");
	asked(&p, text, sizeof(text));
	ok(strstr(text, "\"max-bandwidth\":1099511627776") != NULL,
	   "and only then is sent as fast as can be: %s", text);
	peer_say(&p, "{\"return\":{},\"id\":@3}\n");
	left(&p, &o, "@4", 700);
	left(&p, &o, "@5", 101);
	left(&p, &o, "@6", 100);
	asked(&p, text, sizeof(text));
	is_str(text, "{\"execute\":\"migrate-start-postcopy\",\"id\":@7}\n",
	       "post-copy begins shortly before the end");
	asked(&p, text, sizeof(text));
	is_str(text, "", "once");
	qemu_out_finish(&o);
	peer_finish(&p);
	/* Whatever has let it go on. */
	peer_negotiate(&p);
	struct qemu_out twice = {.loop = p.loop, .qmp = p.q, .ops = &out_ops, .arg = &t, .active = true};
	status(&twice, "completed");
	asked(&p, text, sizeof(text));
	peer_say(&p, "{\"return\":{\"status\":\"completed\"},\"id\":@2}\n");
	asked(&p, text, sizeof(text));
	peer_say(&p, "{\"return\":{\"status\":\"running\"},\"id\":@3}\n");
	peer_settle(&p);
	ok(t.failed == 1 && !t.dones, "a guest that works has not been sent: %s", t.why);
	peer_finish(&p);
}

/* A guest's address is announced to bridges alone: QEMU 7.2 crashes when a socket that is not connected yet shall carry it. */
static void test_incoming(void)
{
	struct peer p;
	char text[1000];
	for (int announce = 0; announce < 2; announce++) {
		peer_negotiate(&p);
		qemu_in_begin(p.q, 7, QEMU_FLOW_TEMPLATE, announce, peer_on_answer, &p);
		peer_settle(&p);
		peer_heard(&p, text, sizeof(text));
		const char *quiet = strstr(text, "\"announce-rounds\":0}"),
			   *in = strstr(text, "{\"uri\":\"fd:7\"}");
		ok(in && announce == !quiet && (announce || quiet < in),
		   "an incoming guest is %s: %s", announce ? "announced" : "not announced", text);
		peer_finish(&p);
	}
}

int main(void)
{
	test_settle();
	test_incoming();
	test_post_copy_events();
	test_notes();
	return done();
}
