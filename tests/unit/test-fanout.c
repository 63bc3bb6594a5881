/* SPDX-License-Identifier: Apache-2.0 */
/* Calls to many: complete once, never early, nobody forgotten. */
#include "overlay/fanout.h"
#include "tap.h"

static struct rankset set_of(const char *text)
{
	struct rankset s = RANKSET_INIT;
	rankset_parse(&s, text, RANK_MAX, NULL);
	return s;
}

#define SET(name, text) _cleanup_rankset_ struct rankset name = set_of(text)

static const char *text_of(const struct rankset *s)
{
	static char text[256];
	_cleanup_buf_ struct buf b = BUF_INIT;
	rankset_format(s, &b);
	snprintf(text, sizeof(text), "%s", buf_cstr(&b));
	return text;
}

static void answers_are_folded(void)
{
	SET(all, "0-9");
	SET(left, "0-4");
	SET(right, "5-9");
	SET(two, "1,3");
	SET(rest, "0,2,4");
	struct fanout *f = fanout_create(&all);
	struct fanout_group g;
	ok(!fanout_done(f), "a new call is not done");
	is_int(fanout_assign(f, 11, &left), 5, "half of it goes over one hop");
	is_int(fanout_assign(f, 12, &all), 5, "who is assigned is not assigned again");
	is_int(fanout_answer(f, 11, &right, "ok", 2), 0, "a hop cannot answer for those behind another");
	is_int(fanout_answer(f, 13, &left, "ok", 2), 0, "nor can a hop that was not asked");
	is_int(fanout_answer(f, 11, &two, "bad", 3), 2, "two answer");
	is_int(fanout_answer(f, 11, &two, "ok", 2), 0, "and not twice");
	is_int(fanout_answer(f, 12, &right, "ok", 2), 5, "five more");
	ok(!fanout_done(f), "it is not done before the last");
	is_int(fanout_answer(f, 11, &rest, "ok", 2), 3, "the last three");
	ok(fanout_done(f), "now it is done");
	ok(!fanout_done(f), "and says so once");
	is_int(fanout_groups(f), 2, "two distinct answers");
	SET(got, "");
	rankset_finish(&got);
	fanout_group(f, 1, &g, &got);
	ok(g.len == 2 && !memcmp(g.answer, "ok", 2) && g.n == 8 && !g.dead,
	   "equal ones are one group");
	is_str(text_of(&got), "0,2,4-9", "with all who gave it");
	fanout_destroy(f);
}

static void losses(void)
{
	SET(all, "0-7");
	SET(a, "0-3");
	SET(b, "4-7");
	SET(one, "2");
	SET(some, "5-6");
	struct rankset lost = RANKSET_INIT, idle = RANKSET_INIT;
	struct fanout *f = fanout_create(&all);
	fanout_assign(f, 1, &a);
	fanout_assign(f, 2, &b);
	fanout_answer(f, 1, &one, "x", 1);
	is_int(fanout_dead(f, &a, "gone", 4), 0, "who is behind a hop is not named dead");
	is_int(fanout_lost(f, 1, &lost), 3, "a lost hop gives who had not answered");
	is_str(text_of(&lost), "0-1,3", "exactly those");
	is_int(fanout_lost(f, 1, &lost), 0, "once");
	is_int(fanout_answer(f, 1, &lost, "late", 4), 0, "its late answers do not count");
	is_int(fanout_outstanding(f, UINT32_MAX, NULL), 7, "they are still outstanding");
	is_int(fanout_assign(f, 2, &lost), 3, "they can be asked over another hop");
	is_int(fanout_lost(f, 2, &idle), 7, "until that is lost too");
	is_int(fanout_dead(f, &some, "gone", 4), 2, "who is assigned nowhere may be named dead");
	fanout_assign(f, 2, &idle);
	ok(!fanout_done(f), "not done");
	fanout_answer(f, 2, &all, "x", 1);
	ok(fanout_done(f), "done with the dead named");
	struct fanout_group g;
	struct rankset got = RANKSET_INIT;
	bool dead = false;
	uint32_t n = 0;
	while (fanout_take(f, &g, &got)) {
		dead |= g.dead && g.n == 2;
		n += g.n;
	}
	ok(dead && n == 8 && rankset_count(&got) == 8, "all groups together are all members, once");
	rankset_finish(&lost);
	rankset_finish(&idle);
	rankset_finish(&got);
	fanout_destroy(f);
}

static void pieces(void)
{
	SET(all, "0-5");
	SET(a, "0-1");
	SET(b, "2-5");
	struct rankset got = RANKSET_INIT;
	struct fanout_group g;
	struct fanout *f = fanout_create(&all);
	fanout_assign(f, FANOUT_LOCAL, &all);
	fanout_answer(f, FANOUT_LOCAL, &a, "", 0);
	ok(fanout_take(f, &g, &got) && g.n == 2 && g.len == 0, "the first answers can go up early");
	ok(!fanout_take(f, &g, &got), "and are not given again");
	fanout_answer(f, FANOUT_LOCAL, &b, "", 0);
	rankset_finish(&got);
	ok(fanout_take(f, &g, &got) && g.n == 4 && !strcmp(text_of(&got), "2-5"),
	   "later ones of the same group are given alone");
	rankset_finish(&got);
	fanout_destroy(f);
	SET(none, "");
	rankset_finish(&none);
	f = fanout_create(&none);
	ok(fanout_done(f) && !fanout_done(f), "a call to nobody is done at once");
	fanout_destroy(f);
	fanout_destroy(NULL);
}

static void many_answers(void)
{
	_cleanup_rankset_ struct rankset all = RANKSET_INIT;
	rankset_add_range(&all, 0, 9999);
	struct fanout *f = fanout_create(&all);
	fanout_assign(f, 1, &all);
	for (uint32_t r = 0; r < 10000; r++) {
		_cleanup_rankset_ struct rankset one = RANKSET_INIT;
		char text[16];
		int n = snprintf(text, sizeof(text), "%u", r % 1000);
		rankset_add(&one, r);
		fanout_answer(f, 1, &one, text, (size_t)n);
	}
	ok(fanout_done(f) && fanout_groups(f) == 1000,
	   "10,000 members with 1,000 answers are 1,000 groups");
	fanout_destroy(f);
}

int main(void)
{
	answers_are_folded();
	losses();
	pieces();
	many_answers();
	return done();
}
