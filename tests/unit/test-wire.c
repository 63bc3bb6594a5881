/* SPDX-License-Identifier: Apache-2.0 */
/* Frames and key-value records: what goes in comes out; what is malformed is refused. */
#include <errno.h>

#include "base/alloc.h"
#include "tap.h"
#include "wire/frame.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

static void frames_come_back(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct frame f = {0};
	struct err err = ERR_INIT;
	frame_write_data(&b, 7, 0x01020304, 2, "hello", 5, true);
	frame_write_credit(&b, 8, FRAME_ALL, 1, 65536);
	is_int(buf_len(&b), FRAME_HEADER + 5 + FRAME_HEADER + 4, "two frames have the stated size");
	static const unsigned char head[] = {0, 0, 0, 5, 2, 2, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4, 'h'};
	ok(memcmp(buf_head(&b), head, sizeof(head)) == 0, "the header is laid out as documented");
	is_int(frame_read(&b, FRAME_MAX_GUEST, &f, &err), 1, "first frame is read");
	ok(f.type == FRAME_DATA && f.fd == 2 && f.flags == FRAME_EOF && f.id == 7 &&
		   f.rank == 0x01020304 && f.len == 5 && memcmp(f.payload, "hello", 5) == 0,
	   "it is what was written");
	frame_drop(&b, &f);
	is_int(frame_read(&b, FRAME_MAX_GUEST, &f, &err), 1, "second frame is read");
	ok(f.type == FRAME_CREDIT && f.id == 8 && f.rank == FRAME_ALL && frame_credit(&f) == 65536,
	   "the credit is what was written");
	frame_drop(&b, &f);
	is_int(frame_read(&b, FRAME_MAX_GUEST, &f, &err), 0, "nothing is left");
}

static void frames_arrive_in_pieces(void)
{
	_cleanup_buf_ struct buf whole = BUF_INIT, part = BUF_INIT;
	struct frame f;
	int early = 0;
	frame_write_data(&whole, 1, 0, 1, "0123456789", 10, false);
	for (size_t i = 0; i < buf_len(&whole); i++) {
		early += frame_read(&part, FRAME_MAX_GUEST, &f, NULL);
		buf_addc(&part, buf_head(&whole)[i]);
	}
	is_int(early, 0, "an incomplete frame is waited for");
	is_int(frame_read(&part, FRAME_MAX_GUEST, &f, NULL), 1, "its last byte completes it");
}

static void folded_frames(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT, got = RANKSET_INIT;
	struct frame f;
	struct err err = ERR_INIT;
	const char *p;
	size_t n;
	rankset_add_range(&ranks, 3, 900);
	rankset_add(&ranks, 7000);
	frame_write_folded(&b, 5, &ranks, 2, "a\0b", 3, true);
	is_int(frame_read(&b, FRAME_MAX_GUEST, &f, &err), -1,
	       "a folded frame is none on a guest's channel");
	is_int(frame_read(&b, FRAME_MAX_MESSAGE, &f, &err), 1, "between our programs it is one");
	ok(f.type == FRAME_FOLDED && f.fd == 2 && f.flags == FRAME_EOF && f.id == 5 &&
		   frame_folded(&f, &got, &p, &n, &err) == 0 && n == 3 && memcmp(p, "a\0b", 3) == 0,
	   "with the bytes that were written");
	ok(rankset_count(&got) == 899 && rankset_has(&got, 3) && rankset_has(&got, 7000),
	   "and their VMs");
	static const struct {
		const char *what, *payload;
		uint32_t len;
	} bad[] = {
		{"none", "", 0},
		{"three bytes", "\0\0\0", 3},
		{"a set longer than the frame",
		 "\0\0\0\4"
		 "0-3",
		 7},
		{"a huge set", "\xff\xff\xff\xff", 4},
		{"no set",
		 "\0\0\0\2"
		 "xy",
		 6},
		{"a set with a NUL in it",
		 "\0\0\0\3"
		 "0\0"
		 "1",
		 7},
		{"ranks out of bounds",
		 "\0\0\0\x0a"
		 "0-99999999",
		 14},
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_rankset_ struct rankset none = RANKSET_INIT;
		f = (struct frame){.type = FRAME_FOLDED, .len = bad[i].len, .payload = bad[i].payload};
		ok(frame_folded(&f, &none, &p, &n, &err) < 0 && err.code == EPROTO, "refused: %s",
		   bad[i].what);
	}
	/* What is too large for one frame goes out one by one. */
	_cleanup_free_ char *large = xcalloc(1, FRAME_MAX_MESSAGE);
	_cleanup_rankset_ struct rankset two = RANKSET_INIT;
	rankset_add_range(&two, 1, 2);
	buf_clear(&b);
	frame_write_folded(&b, 5, &two, 1, large, FRAME_MAX_MESSAGE, false);
	ok(frame_read(&b, FRAME_MAX_MESSAGE, &f, &err) == 1 && f.type == FRAME_DATA && f.rank == 1,
	   "more than a frame holds is not folded");
}

static void bad_frames(void)
{
	static const struct {
		const char *what;
		unsigned char h[FRAME_HEADER];
	} bad[] = {
		{"type 0", {0}},
		{"type 4", {0, 0, 0, 0, 4}},
		{"fd 3", {0, 0, 0, 0, 2, 3}},
		{"unknown flag", {0, 0, 0, 0, 2, 0, 0, 2}},
		{"end flag on a message", {0, 0, 0, 0, 1, 0, 0, 1}},
		{"payload one over the limit", {0, 1, 0, 1, 2}},
		{"huge payload", {0xff, 0xff, 0xff, 0xff, 2}},
		{"credit of 3 bytes", {0, 0, 0, 3, 3}},
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		struct frame f;
		struct err err = ERR_INIT;
		buf_add(&b, bad[i].h, FRAME_HEADER);
		int r = frame_read(&b, FRAME_MAX_GUEST, &f, &err);
		ok(r == -1 && err.code == EPROTO, "%s is refused", bad[i].what);
	}
}

static void records_come_back(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "exec");
	kv_adds(&b, "arg", "echo");
	kv_adds(&b, "none", NULL);
	kv_add(&b, "arg", "a\0b", 3);
	kv_adds(&b, "arg", "");
	kv_addu(&b, "big", UINT64_MAX);
	kv_addu(&b, "n", INT64_MAX);
	ok(kv_check(buf_head(&b), buf_len(&b)), "a record with a verb is well formed");
	struct kv_iter it = {.data = buf_head(&b), .len = buf_len(&b)};
	struct kv e;
	int args = 0, all = 0;
	while (kv_next(&it, &e)) {
		args += kv_is(&e, "arg");
		all++;
	}
	ok(args == 3 && all == 6 && !it.bad, "keys repeat, a NULL value adds nothing");
	_cleanup_free_ char *verb = kv_dup(buf_head(&b), buf_len(&b), "verb");
	is_str(verb, "exec", "the verb is found");
	is_int(kv_num(buf_head(&b), buf_len(&b), "n", 1), INT64_MAX, "the largest number");
	is_int(kv_num(buf_head(&b), buf_len(&b), "big", 1), 1, "a number over it is not taken");
	is_int(kv_num(buf_head(&b), buf_len(&b), "verb", 2), 2, "nor is a word");
	is_int(kv_num(buf_head(&b), buf_len(&b), "absent", 3), 3, "nor is what is absent");
}

static void bad_records(void)
{
	static const struct {
		const char *what, *data;
		size_t len;
	} bad[] = {
		{"empty", "", 0},
		{"no verb first", "\1\0\0\0\0x", 6},
		{"key of length 0", "\0\0\0\0\0", 5},
		{"cut head", "\4\0\0", 3},
		{"cut key", "\4\0\0\0\1ver", 8},
		{"cut value", "\4\0\0\0\2verbx", 10},
		{"value length over the end", "\4\377\377\377\377verbx", 10},
		{"NUL in a key", "\4\0\0\0\1ve\0bx", 10},
		{"rest after the verb", "\4\0\0\0\1verbx\7", 11},
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ok(!kv_check(bad[i].data, bad[i].len), "%s: refused", bad[i].what);
	_cleanup_free_ char *s = kv_dup("\4\0\0\0\3verba\0b", 12, "verb");
	ok(!s, "a value with a NUL is no string");
}

int main(void)
{
	frames_come_back();
	frames_arrive_in_pieces();
	folded_frames();
	bad_frames();
	records_come_back();
	bad_records();
	return done();
}
