/* SPDX-License-Identifier: Apache-2.0 */
/* Folding the output of many VMs: labels, order, waiting, credit. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "commands/fold.h"
#include "tap.h"

#define WINDOW 16384u

static struct loop *loop;
static uint64_t told[64];
static unsigned tellings;
static uint32_t least = UINT32_MAX;

static void on_written(void *arg _unused_, struct fold *f _unused_, uint32_t rank, uint32_t bytes)
{
	told[rank] += bytes;
	tellings++;
	least = MIN(least, bytes);
}

struct case_ {
	int fd;
	struct rankset ranks;
	struct fold *fold;
};

static void begin(struct case_ *c, uint32_t n, bool label)
{
	char path[] = "/tmp/vse-fold-XXXXXX";
	c->fd = mkostemp(path, O_CLOEXEC);
	unlink(path);
	c->ranks = RANKSET_INIT;
	rankset_add_range(&c->ranks, 0, n - 1);
	memset(told, 0, sizeof(told));
	tellings = 0;
	least = UINT32_MAX;
	c->fold = fold_create(loop, c->fd, label, &c->ranks, WINDOW, on_written, NULL);
}

/* What was written so far; malloc'ed. */
static char *written(const struct case_ *c)
{
	off_t n = lseek(c->fd, 0, SEEK_END);
	char *text = xcalloc(1, (size_t)n + 1);
	ok(pread(c->fd, text, (size_t)n, 0) == n, "the output can be read back");
	return text;
}

static void end(struct case_ *c)
{
	fold_destroy(c->fold);
	rankset_finish(&c->ranks);
	close(c->fd);
}

static void add(struct case_ *c, uint32_t rank, const char *text)
{
	fold_add(c->fold, rank, text, strlen(text), false);
}

static void is_output(struct case_ *c, const char *want, const char *what)
{
	_cleanup_free_ char *got = written(c);
	is_str(got, want, "%s", what);
}

static void test_equal_lines(void)
{
	struct case_ c;
	begin(&c, 4, true);
	for (uint32_t r = 0; r < 3; r++)
		add(&c, r, "same\n");
	is_output(&c, "", "a line waits for the other VMs'");
	add(&c, 3, "same\n");
	is_output(&c, "vm[0-3]: same\n", "equal lines become one");
	add(&c, 2, "b\n");
	add(&c, 0, "a\n");
	add(&c, 3, "a\n");
	add(&c, 1, "c\n");
	is_output(&c, "vm[0-3]: same\nvm[0,3]: a\nvm1: c\nvm2: b\n",
		  "different ones are told apart, by rank");
	end(&c);
}

static void test_order(void)
{
	struct case_ c;
	begin(&c, 2, true);
	add(&c, 0, "1\n2\n3\n");
	add(&c, 1, "1\nx\n3\n");
	is_output(&c, "vm[0-1]: 1\nvm0: 2\nvm1: x\nvm[0-1]: 3\n", "every VM's lines keep their order");
	end(&c);
}

static void test_ends(void)
{
	struct case_ c;
	begin(&c, 3, true);
	add(&c, 0, "tail");
	fold_end_rank(c.fold, 0);
	fold_end_rank(c.fold, 1);
	is_output(&c, "", "a VM that goes on is waited for");
	fold_end_rank(c.fold, 2);
	is_output(&c, "vm0: tail\n", "the last line needs no newline");
	add(&c, 0, "late\n");
	add(&c, 77, "nobody\n");
	fold_flush(c.fold);
	is_output(&c, "vm0: tail\nvm0: late\n", "what comes for a VM that was not asked is dropped");
	end(&c);
}

static void test_timer(void)
{
	struct case_ c;
	begin(&c, 2, true);
	add(&c, 1, "alone\n");
	for (int i = 0; i < 100 && lseek(c.fd, 0, SEEK_END) == 0; i++)
		loop_run_once(loop); /* the timer is all that wakes it */
	is_output(&c, "vm1: alone\n", "a line is not held for ever");
	end(&c);
}

static void test_long_line(void)
{
	struct case_ c;
	begin(&c, 2, true);
	_cleanup_free_ char *line = xcalloc(1, 40001);
	memset(line, 'x', 40000);
	add(&c, 0, line);
	fold_flush(c.fold);
	_cleanup_free_ char *got = written(&c);
	size_t x = 0, lines = 0;
	for (char *p = got; *p; p++) {
		x += *p == 'x';
		lines += *p == '\n';
	}
	is_int(x, 40000, "a line without end is whole");
	is_int(lines, 3, "in bounded pieces");
	end(&c);
}

static void test_binary(void)
{
	struct case_ c;
	char bytes[512];
	begin(&c, 1, false);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)i;
	fold_add(c.fold, 0, bytes, sizeof(bytes), false);
	is_int(lseek(c.fd, 0, SEEK_END), (long long)sizeof(bytes), "without labels bytes pass at once");
	_cleanup_free_ char *got = written(&c);
	ok(memcmp(got, bytes, sizeof(bytes)) == 0, "and unchanged");
	end(&c);
}

/* Credit for every line of two bytes made the VM answer in frames of two bytes. */
static void test_credit(bool label)
{
	struct case_ c;
	begin(&c, 2, label);
	for (int i = 0; i < 30000; i++) {
		add(&c, 0, "y\n");
		add(&c, 1, "y\n");
	}
	ok(told[0] <= 60000 && told[0] > 60000 - WINDOW / 4,
	   "all but a part of the window is told: %llu of 60000", (unsigned long long)told[0]);
	ok(tellings <= 2 * 60000 / (WINDOW / 4) && least >= WINDOW / 4,
	   "in large pieces: %u, the least %u", tellings, least);
	end(&c);
}

static void test_full_disk(void)
{
	struct case_ c;
	begin(&c, 1, false);
	close(c.fd);
	c.fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct fold *f = fold_create(loop, c.fd, false, &c.ranks, WINDOW, on_written, NULL);
	for (int i = 0; i < 3; i++)
		fold_add(f, 0, "text that has no room\n", 22, false);
	is_int(fold_error(f), ENOSPC, "a write that fails is kept");
	fold_destroy(f);
	end(&c);
}

int main(void)
{
	loop = loop_create();
	test_equal_lines();
	test_order();
	test_ends();
	test_timer();
	test_long_line();
	test_binary();
	test_credit(true);
	test_credit(false);
	test_full_disk();
	loop_destroy(loop);
	return done();
}
