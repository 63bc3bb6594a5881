/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/fold.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"

#define LINE_MAX_BYTES (16u << 10) /* a longer line is broken there */
#define OUT_MAX (64u << 10)        /* bytes gathered for one write */
#define FULL_WAIT_MS 20 /* a VM that has no credit left waits so long for the others' lines */

struct source {
	uint32_t rank; /* first: searched by it */
	bool ended;
	uint32_t owed; /* bytes written, not told yet */
	size_t front;  /* while a row is printed: its line in it; 0: none, or printed */
	struct buf buf;
};

struct fold {
	int fd, error;
	bool label;
	struct source *sources;
	size_t n;
	size_t waiting; /* bytes in all sources' buffers */
	struct buf out;
	uint32_t window;
	struct evtimer *timer;
	bool timer_runs, hurry; /* hurry: the timer runs with FULL_WAIT_MS */
	void (*on_written)(void *arg, struct fold *f, uint32_t rank, uint32_t bytes);
	void *arg;
};

static void put(struct fold *f, const void *p, size_t n)
{
	if (n && !f->error && fd_write_all(f->fd, p, n) < 0)
		f->error = errno;
}

static void put_gathered(struct fold *f)
{
	put(f, buf_head(&f->out), buf_len(&f->out));
	buf_clear(&f->out);
}

/* Told in large pieces: credit for a few bytes would make the VM send a few bytes, for ever (the silly window
 * syndrome of RFC 813). What is held back is a part of the window only, so the VM never waits for it. */
static void written(struct fold *f, struct source *s, size_t n)
{
	s->owed += (uint32_t)n;
	if (s->owed < f->window / 4)
		return;
	uint32_t owed = s->owed;
	s->owed = 0;
	f->on_written(f->arg, f, s->rank, owed);
}

/* The length of the first line that can be printed, with its newline; 0: none yet. */
static size_t front(const struct source *s)
{
	size_t n = buf_len(&s->buf);
	if (!n)
		return 0;
	const char *nl = memchr(buf_head(&s->buf), '\n', MIN(n, (size_t)LINE_MAX_BYTES));
	if (nl)
		return (size_t)(nl - buf_head(&s->buf)) + 1;
	return n >= LINE_MAX_BYTES ? LINE_MAX_BYTES : s->ended ? n : 0;
}

static void take(struct fold *f, struct source *s, size_t n)
{
	buf_consume(&s->buf, n);
	f->waiting -= n;
	written(f, s, n);
}

/* Prints one group of a row: the line of `first`, with all VMs whose line is the same. */
static void print_group(struct fold *f, size_t first)
{
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	_cleanup_buf_ struct buf ranks = BUF_INIT;
	size_t len = f->sources[first].front;
	_cleanup_free_ char *line = xmemdup0(buf_head(&f->sources[first].buf), len);
	for (size_t i = first; i < f->n; i++) {
		struct source *s = &f->sources[i];
		if (s->front == len && memcmp(buf_head(&s->buf), line, len) == 0) {
			rankset_add(&set, s->rank);
			s->front = 0;
			take(f, s, len);
		}
	}
	rankset_format(&set, &ranks);
	buf_addf(&f->out, rankset_count(&set) > 1 ? "vm[%s]: " : "vm%s: ", buf_cstr(&ranks));
	buf_add(&f->out, line, len);
	if (line[len - 1] != '\n')
		buf_addc(&f->out, '\n');
	if (buf_len(&f->out) >= OUT_MAX)
		put_gathered(f);
}

/* One row: the next line of every VM. False: there is none, or (unless forced) a VM has yet to say its. */
static bool print_row(struct fold *f, bool force)
{
	bool any = false, missing = false;
	for (size_t i = 0; i < f->n; i++) {
		struct source *s = &f->sources[i];
		s->front = front(s);
		any = any || s->front;
		missing = missing || (!s->front && !s->ended);
	}
	if (!any || (missing && !force))
		return false;
	for (size_t i = 0; i < f->n; i++)
		if (f->sources[i].front)
			print_group(f, i);
	return true;
}

static void print_lines(struct fold *f, bool force)
{
	while (print_row(f, force))
		;
	put_gathered(f);
	if (!f->waiting) {
		evtimer_stop(f->timer);
		f->timer_runs = f->hurry = false;
	} else if (!f->timer_runs) {
		evtimer_start(f->timer, FOLD_WAIT_MS, 0);
		f->timer_runs = true;
	}
}

/* A VM that is far ahead has no credit to go on with: the others get a moment to catch up, no more. */
static void hurry(struct fold *f, const struct source *s)
{
	if (f->hurry || buf_len(&s->buf) < f->window / 2)
		return;
	evtimer_start(f->timer, FULL_WAIT_MS, 0);
	f->timer_runs = f->hurry = true;
}

static void on_timer(void *arg)
{
	struct fold *f = arg;
	f->timer_runs = f->hurry = false;
	print_lines(f, true);
}

struct fold *fold_create(struct loop *l, int fd, bool label, const struct rankset *ranks,
			 uint32_t window,
			 void (*on_written)(void *arg, struct fold *f, uint32_t rank, uint32_t bytes),
			 void *arg)
{
	struct fold *f = xcalloc(1, sizeof(*f));
	*f = (struct fold){.fd = fd, .label = label, .window = window, .on_written = on_written, .arg = arg};
	f->n = rankset_count(ranks);
	f->sources = xcalloc(f->n, sizeof(*f->sources));
	uint32_t r = rankset_next(ranks, 0);
	for (size_t i = 0; i < f->n; i++, r = rankset_next(ranks, r + 1))
		f->sources[i].rank = r;
	f->timer = evtimer_create(l, on_timer, f);
	return f;
}

void fold_destroy(struct fold *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n; i++)
		buf_finish(&f->sources[i].buf);
	buf_finish(&f->out);
	evtimer_destroy(f->timer);
	free(f->sources);
	free(f);
}

static struct source *find(struct fold *f, uint32_t rank)
{
	return rank_search(f->sources, f->n, sizeof(*f->sources), rank);
}

void fold_add(struct fold *f, uint32_t rank, const char *p, size_t n, bool eof)
{
	struct source *s = find(f, rank);
	if (!s)
		return;
	s->ended = s->ended || eof;
	if (!f->label) {
		put(f, p, n);
		written(f, s, n);
		return;
	}
	buf_add(&s->buf, p, n);
	f->waiting += n;
	print_lines(f, false);
	hurry(f, s);
}

void fold_end_rank(struct fold *f, uint32_t rank)
{
	fold_add(f, rank, "", 0, true);
}

void fold_flush(struct fold *f)
{
	for (size_t i = 0; i < f->n; i++)
		f->sources[i].ended = true;
	print_lines(f, true);
}

int fold_error(const struct fold *f)
{
	return f->error;
}
