/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of templates: what is too old or too much goes, one that comes is there whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/templates.h"
#include "base/alloc.h"
#include "base/path.h"
#include "tap.h"
#include "vm/kept.h"

#define PART 1000 /* bytes of each part */
#define DAY_S 86400

static char dir[64];

static const char *key(char c)
{
	static char text[KEPT_KEY + 1];
	memset(text, c, KEPT_KEY);
	return text;
}

static struct kept_new *begin_old(char c, uint64_t size, uint64_t age_s, struct err *e)
{
	struct kept_new *k = NULL;
	*e = (struct err)ERR_INIT;
	kept_begin(dir, key(c), "note\n", (const uint64_t[]){size, size}, age_s, &k, e);
	return k;
}

static struct kept_new *begin(char c, uint64_t size, struct err *e)
{
	return begin_old(c, size, 0, e);
}

static int fill(struct kept_new *k, size_t memory, size_t state, struct err *e)
{
	static const char bytes[2 * PART];
	return kept_add(k, KEPT_MEMORY, bytes, memory, e) < 0
		       ? -1
		       : kept_add(k, KEPT_STATE, bytes, state, e);
}

/* One that was last used so many seconds ago. */
static void add(char c, long ago)
{
	struct err e;
	struct kept_new *k = begin(c, PART, &e);
	const struct timespec when[2] = {{.tv_sec = time(NULL) - ago}, {.tv_sec = time(NULL) - ago}};
	_cleanup_free_ char *note = kept_path(dir, key(c), "note");
	ok(k && fill(k, PART, PART, &e) == 0 && kept_commit(k, &e) == 0 &&
		   utimensat(AT_FDCWD, note, when, 0) == 0,
	   "template %c is kept %s", c, e.text);
	kept_drop(k);
}

/* Their keys' first characters, the most recently used one first. */
static const char *there(void)
{
	static char text[9];
	char keys[8][KEPT_KEY + 1];
	size_t n = kept_list(dir, keys, 8);
	for (size_t i = 0; i < n; i++)
		text[i] = keys[i][0];
	text[n] = '\0';
	return text;
}

static bool has(char c, const char *what)
{
	_cleanup_free_ char *path = kept_path(dir, key(c), what);
	return path_exists(path);
}

static void test_limit(void)
{
	add('a', 30);
	add('b', 20);
	add('c', 10);
	is_str(there(), "cba", "the most recently used one first");
	kept_sweep(dir, 6 * PART, NULL);
	is_str(there(), "cba", "all together are as large as they may be");
	kept_used(dir, key('a'));
	kept_sweep(dir, 6 * PART - 1, NULL);
	is_str(there(), "ac", "one byte less: the least recently used one goes");
	ok(!has('b', "memory") && !has('b', "state"), "with its files");
	kept_sweep(dir, 2 * PART, key('c'));
	is_str(there(), "c", "the one that is about to be used stays, and counts");
	kept_sweep(dir, 0, key('c'));
	is_str(there(), "c", "whatever the bound");
	kept_sweep(dir, 0, NULL);
	is_str(there(), "", "else nothing is kept");
}

static void age(char c, const char *what, long ago)
{
	const struct timespec when[2] = {{.tv_sec = time(NULL) - ago}, {.tv_sec = time(NULL) - ago}};
	_cleanup_free_ char *path = kept_path(dir, key(c), what);
	is_int(utimensat(AT_FDCWD, path, when, 0), 0, "the %s of %c is %ld s old", what, c, ago);
}

static void test_age(void)
{
	struct err e;
	add('a', 0);
	age('a', "memory", 13 * 24 * 3600);
	add('b', 0);
	age('b', "memory", 15 * 24 * 3600);
	kept_drop(begin('c', PART, &e));
	add('d', 0);
	age('d', "memory", 7200);
	age('d', "state", 7200);
	_cleanup_free_ char *note = kept_path(dir, key('d'), "note");
	unlink(note);
	kept_sweep(dir, UINT64_MAX, key('b'));
	is_str(there(), "a", "two weeks after it was made one goes, however often it was used");
	ok(!has('d', "memory") && !has('d', "state"), "and what has no note after an hour");
	kept_sweep(dir, 0, NULL);
}

static void test_coming(void)
{
	struct err e = ERR_INIT;
	struct kept k;
	struct kept_new *n = begin('d', PART, &e);
	ok(n && fill(n, PART, PART - 1, &e) == 0, "all but one byte comes");
	is_int(kept_open(dir, key('d'), &k, &e), -1, "it is not there before it is whole");
	is_int(kept_commit(n, &e), -1, "and is not taken: %s", e.text);
	is_int(e.code, EBADMSG, "as something is missing");
	is_int(fill(n, 0, 2, &e), -1, "more than was said is refused: %s", e.text);
	is_int(kept_add(n, KEPT_STATE, "x", 1, &e), 0, "the last byte");
	is_int(kept_commit(n, &e), 0, "then it is taken");
	kept_drop(n);
	e = (struct err)ERR_INIT;
	ok(kept_open(dir, key('d'), &k, &e) == 0 && k.sizes[KEPT_MEMORY] == PART &&
		   strcmp(k.note, "note\n") == 0,
	   "and there %s", e.text);
	kept_close(&k);
	n = begin_old('f', PART, 13 * DAY_S, &e);
	ok(n && fill(n, PART, PART, &e) == 0 && kept_commit(n, &e) == 0 &&
		   kept_open(dir, key('f'), &k, &e) == 0 && k.age_s >= 13 * DAY_S &&
		   k.age_s < 13 * DAY_S + 3600,
	   "no node makes it younger %s", e.text);
	kept_close(&k);
	kept_drop(n);
	ok(!begin_old('e', PART, 15 * DAY_S, &e) && e.code == ESTALE,
	   "nor takes one that is too old: %s", e.text);
	kept_drop(begin('e', PART, &e));
	is_int(kept_open(dir, key('e'), &k, &e), -1, "one that is dropped is not");
	setenv("VSE_TEMPLATE_LIMIT", "1K", 1);
	ok(!begin('e', PART, &e) && e.code == EFBIG, "nor one that is larger than all may be: %s",
	   e.text);
	unsetenv("VSE_TEMPLATE_LIMIT");
	n = NULL;
	ok(kept_begin(dir, "../../x", "", (const uint64_t[]){1, 1}, 0, &n, &e) < 0 && !n,
	   "a key that is a path is none");
	kept_sweep(dir, 0, NULL);
	is_int(rmdir(dir), 0, "no file is left over");
}

/* Others put theirs there at the same moment, and remove what they found to be of no use. */
static void test_others(void)
{
	struct err e;
	struct kept k;
	add('a', 0);
	struct kept_new *n = begin('a', PART / 2, &e);
	ok(n && fill(n, PART / 2, PART / 2, &e) == 0, "another one of the same key %s", e.text);
	int others = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	is_int(flock(others, LOCK_EX), 0, "while others are at work");
	is_int(kept_commit(n, &e), -1, "it is not taken: %s", e.text);
	is_int(e.code, EBUSY, "as they are busy");
	kept_sweep(dir, 0, NULL);
	ok(!kept_refuse(dir, key('a'), "other"), "one of another name is not theirs to refuse");
	ok(kept_refuse(dir, key('a'), "note") && has('a', "note"), "nor is any removed by two");
	close(others);
	ok(kept_open(dir, key('a'), &k, &e) == 0 && k.sizes[KEPT_MEMORY] == PART &&
		   k.sizes[KEPT_STATE] == PART,
	   "the one that was there is whole %s", e.text);
	kept_close(&k);
	ok(kept_commit(n, &e) == 0 && kept_open(dir, key('a'), &k, &e) == 0 &&
		   k.sizes[KEPT_MEMORY] == PART / 2 && k.sizes[KEPT_STATE] == PART / 2,
	   "later it is taken, and whole %s", e.text);
	kept_close(&k);
	kept_drop(n);
	ok(!kept_refuse(dir, key('a'), "other") && has('a', "note"),
	   "what was read was another: this one stays");
	ok(kept_refuse(dir, key('a'), "note") && !has('a', "note"),
	   "what was read is this: it goes");
	_cleanup_free_ char *memory = kept_path(dir, key('a'), "memory"),
			    *state = kept_path(dir, key('a'), "state");
	is_int(unlink(memory) | unlink(state), 0, "and its files are nobody's");
}

static void test_told(void)
{
	json_t *all = json_object();
	char text[17];
	templates_add(all, "0123456789abcdef", 3);
	templates_add(all, "0123456789abcdef", 5);
	templates_add(all, "../", 5);
	templates_add(all, NULL, 5);
	_cleanup_free_ char *said = json_dumps(all, JSON_COMPACT);
	is_str(said, "{\"0123456789abcdef\":[3,5]}", "the root tells who has which, and no nonsense");
	for (uint32_t i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "%016x", i);
		templates_add(all, text, 1);
		templates_add(all, "0123456789abcdef", i);
	}
	is_int(json_object_size(all), 64, "of so many at most");
	is_int(json_array_size(json_object_get(all, "0123456789abcdef")), 8,
	       "and so many nodes of each");
	json_decref(all);
}

int main(void)
{
	snprintf(dir, sizeof(dir), "/tmp/vse-kept-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	test_limit();
	test_age();
	test_others();
	test_coming();
	test_told();
	return done();
}
