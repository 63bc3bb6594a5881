/* SPDX-License-Identifier: Apache-2.0 */
/* JSON messages in frames, and errors that travel in them. */
#include <errno.h>

#include "base/alloc.h"
#include "tap.h"
#include "wire/message.h"

static json_t *through(const char *text, struct err *err)
{
	struct frame f = {.len = (uint32_t)strlen(text), .type = FRAME_MESSAGE, .id = 1, .payload = text};
	return message_read(&f, err);
}

static void test_there_and_back(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	struct frame f;
	_cleanup_json_ json_t *out = json_pack("{s:s, s:i}", "verb", "exec", "n", 7), *in = NULL;
	ok(message_write(&b, 9, 3, out, &err) == 0, "a message is written");
	ok(frame_read(&b, FRAME_MAX_MESSAGE, &f, &err) == 1 && f.id == 9 && f.rank == 3,
	   "with its id and rank");
	in = message_read(&f, &err);
	ok(in && json_equal(in, out), "and read");
}

static void test_refused(void)
{
	static const char *const bad[] = {
		"",      "{",       "[]", "7", "null", "{\"a\":1,\"a\":2}", "{\"a\":\"\xff\"}",
		"{} {}", "{\"a\":}"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = ERR_INIT;
		_cleanup_json_ json_t *j = through(bad[i], &err);
		ok(!j && err.code == EPROTO && err.text[0],
		   "bad message %zu is refused with a reason", i);
	}
}

static void test_large(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	_cleanup_free_ char *text = xcalloc(1, FRAME_MAX_MESSAGE + 1);
	memset(text, 'x', FRAME_MAX_MESSAGE);
	_cleanup_json_ json_t *j = json_pack("{s:s}", "t", text);
	ok(message_write(&b, 1, 0, j, &err) < 0 && err.code == E2BIG,
	   "one that no reader takes is not sent");
	is_int(buf_len(&b), 0, "not even its beginning");
}

static void test_errors(void)
{
	struct err err = ERR_INIT, got = ERR_INIT;
	err_set(&err, ENOSPC, "node7: disk root: no room");
	_cleanup_json_ json_t *j = message_error(&err), *good = json_pack("{s:b}", "ok", 1),
			      *none = json_object();
	ok(message_is_error(j, &got) < 0 && got.code == ENOSPC, "an error keeps its code");
	is_str(got.text, "node7: disk root: no room", "and its text");
	ok(message_is_error(good, &got) == 0 && message_is_error(none, &got) == 0,
	   "what is none is none");
	err_set(&err, ENOENT, "file \xff\xfe");
	_cleanup_json_ json_t *odd = message_error(&err);
	ok(odd && message_is_error(odd, &got) < 0 && got.code == ENOENT,
	   "a text that is no UTF-8 keeps at least the code");
}

/* Such texts once lost the cause, or reached a terminal as they were. */
static void test_texts_of_errors(void)
{
	struct err err = ERR_INIT, got = ERR_INIT;
	err_set(&err, ENOENT, "file '\xff\xfe' in \x1b[2J\nhere");
	_cleanup_json_ json_t *j = message_error(&err);
	ok(message_is_error(j, &got) < 0 && got.code == ENOENT,
	   "an error that is no UTF-8 is told");
	is_str(got.text,
	       "file '?"
	       "?' in ?[2J here",
	       "with all of it that can be shown");
	char text[600];
	memset(text, 'x', sizeof(text));
	memcpy(text + ERR_TEXT_MAX - 2, "\xc3\xa4", 3); /* cut between its two bytes */
	err_set(&err, EIO, "%s", text);
	_cleanup_json_ json_t *cut = message_error(&err);
	ok(message_is_error(cut, &got) < 0 && strncmp(got.text, "xxx", 3) == 0,
	   "one that was cut inside a character too");
	_cleanup_json_ json_t *raw = json_pack("{s:b, s:i, s:s}", "ok", 0, "code", EIO, "error",
					       "\x1b]0;title\x07");
	message_is_error(raw, &got);
	is_str(got.text, "?]0;title?", "the reader does not trust the writer");
	ok(message_is_error(raw, NULL) < 0, "who does not ask for the text gets none");
}

static void test_members(void)
{
	struct err err = ERR_INIT;
	const char *s = NULL;
	json_int_t n = 0;
	_cleanup_json_ json_t *j = json_pack("{s:s, s:i, s:f, s:s}", "s", "text", "n", 7, "f", 7.0,
					     "t", "7");
	ok(message_str(j, "s", &s, &err) == 0 && strcmp(s, "text") == 0, "a text");
	ok(message_str(j, "n", &s, &err) < 0 && strstr(err.text, "'n'"),
	   "a number is no text, and is named");
	ok(message_str(j, "none", &s, &err) < 0 && err.code == EPROTO,
	   "what is not there is no text");
	ok(message_int(j, "n", 7, 7, &n, &err) == 0 && n == 7, "a number at both bounds");
	ok(message_int(j, "n", 8, 9, &n, &err) < 0 && err.code == ERANGE, "below");
	ok(message_int(j, "n", 0, 6, &n, &err) < 0 && err.code == ERANGE, "above");
	ok(message_int(j, "f", 0, 9, &n, &err) < 0 && message_int(j, "t", 0, 9, &n, &err) < 0,
	   "others are no numbers");
}

static void test_ranks(void)
{
	static const struct {
		const char *json, *ranks; /* NULL: it names none */
	} some[] = {
		{"{\"rank\": 3}", "3"},
		{"{\"ranks\": \"0-2,7\"}", "0-2,7"},
		{"{}", NULL},
		{"{\"rank\": null}", NULL},
		{"{\"rank\": -1}", NULL},
		{"{\"rank\": 1000000}", NULL},
		{"{\"rank\": \"3\"}", NULL},
		{"{\"ranks\": \"x\"}", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		_cleanup_json_ json_t *j = json_loads(some[i].json, 0, NULL);
		_cleanup_rankset_ struct rankset set = RANKSET_INIT;
		_cleanup_buf_ struct buf text = BUF_INIT;
		bool got = message_ranks(j, &set);
		rankset_format(&set, &text);
		ok(got == (some[i].ranks != NULL) &&
			   (!got || strcmp(buf_cstr(&text), some[i].ranks) == 0),
		   "ranks of %s", some[i].json);
	}
}

int main(void)
{
	test_ranks();
	test_there_and_back();
	test_refused();
	test_large();
	test_errors();
	test_texts_of_errors();
	test_members();
	return done();
}
