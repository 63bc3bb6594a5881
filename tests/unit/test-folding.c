/* SPDX-License-Identifier: Apache-2.0 */
/* Output of many VMs: equal pieces leave as one, each VM's bytes and their order stay, and nothing is held for ever. */
#include "agent/folding.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "tap.h"

#define N 12u
#define MANY 1000u

/* What came out. The streams of one VM are joined as they came, each piece with its descriptor before every byte. */
static struct buf heard[MANY];
static unsigned pieces, eofs[MANY];
static size_t bytes;

static void hear(void *arg _unused_, const struct rankset *ranks, int fd, const char *p, size_t n,
		 bool eof)
{
	pieces++;
	bytes += n;
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1)) {
		for (size_t i = 0; i < n; i++) {
			buf_addc(&heard[r], (char)fd);
			buf_addc(&heard[r], p[i]);
		}
		eofs[r] += eof;
	}
}

static void forget(void)
{
	for (uint32_t r = 0; r < MANY; r++) {
		buf_finish(&heard[r]);
		eofs[r] = 0;
	}
	pieces = 0;
	bytes = 0;
}

static struct folding *begin(uint32_t n)
{
	_cleanup_rankset_ struct rankset all = RANKSET_INIT;
	rankset_add_range(&all, 0, n - 1);
	forget();
	return folding_create(&all, hear, NULL);
}

static void say(struct folding *f, uint32_t a, uint32_t b, int fd, const char *p, size_t n, bool eof)
{
	_cleanup_rankset_ struct rankset some = RANKSET_INIT;
	rankset_add_range(&some, a, b);
	folding_add(f, &some, fd, p, n, eof);
}

static void end(struct folding *f, uint32_t a, uint32_t b)
{
	_cleanup_rankset_ struct rankset some = RANKSET_INIT;
	rankset_add_range(&some, a, b);
	folding_end(f, &some);
}

static void equal_ones(void)
{
	struct folding *f = begin(MANY);
	ok(folding_wait(f) == UINT64_MAX, "nothing is held at first");
	for (uint32_t r = 0; r < MANY; r++) { /* in pieces that differ from VM to VM */
		size_t cut = r % 5;
		say(f, r, r, 1, "hello\n", cut, false);
		say(f, r, r, 1, &"hello\n"[cut], 6 - cut, r % 2);
		if (!(r % 2))
			say(f, r, r, 1, NULL, 0, true);
		say(f, r, r, 2, NULL, 0, true);
	}
	is_int((long)folding_wait(f), FOLDING_WAIT_MS, "others may say the same");
	end(f, 0, MANY - 1);
	is_int((long)folding_wait(f), 0, "not once all have ended");
	folding_flush(f);
	ok(folding_wait(f) == UINT64_MAX, "all was delivered");
	is_int(pieces, 2,
	       "a thousand equal outputs are two pieces: stdout with its end, the end of stderr");
	is_int((long)bytes, 6, "of six bytes");
	unsigned good = 0;
	for (uint32_t r = 0; r < MANY; r++)
		good += buf_len(&heard[r]) == 12 && eofs[r] == 2;
	is_int(good, MANY, "and everybody's");
	folding_destroy(f);
}

static void distinct_ones(void)
{
	struct folding *f = begin(MANY);
	char text[16];
	for (uint32_t r = 0; r < MANY; r++) {
		int n = snprintf(text, sizeof(text), "%u\n", r % 10);
		say(f, r, r, 1, text, (size_t)n, false);
		say(f, r, r, 1, NULL, 0, true);
		say(f, r, r, 2, "same", 4, true);
	}
	folding_flush(f);
	is_int(pieces, 11, "ten answers are ten pieces, and what is equal after them is one more");
	is_int((long)bytes, 24, "bytes grow with what differs");
	folding_destroy(f);
}

static void who_is_waited_for(void)
{
	struct folding *f = begin(3);
	char *block = xcalloc(1, FOLDING_BLOCK);
	say(f, 0, 0, 1, block, FOLDING_BLOCK, false);
	is_int((long)folding_wait(f), FOLDING_FULL_MS, "who has said a block waits a shorter time");
	say(f, 1, 2, 2, block, FOLDING_BLOCK, false);
	is_int((long)folding_wait(f), 0, "all have: nobody waits");
	folding_flush(f);
	end(f, 0, 0);
	say(f, 1, 1, 1, "x", 1, false);
	is_int((long)folding_wait(f), FOLDING_WAIT_MS, "two go on");
	end(f, 1, 1);
	is_int((long)folding_wait(f), 0, "the last one alone has nobody to wait for");
	folding_flush(f);
	say(f, 2, 2, 1, "y", 1, false);
	is_int((long)folding_wait(f), 0, "never");
	say(f, 7, 9, 1, "z", 1, false);
	folding_flush(f);
	is_int((long)buf_len(&heard[7]), 0, "VMs that it does not know are passed over");
	folding_destroy(f);
	f = begin(MANY);
	for (uint32_t r = 0; r < MANY; r++)
		say(f, r, r, 1, block, 2000, false);
	is_int((long)folding_wait(f), 0, "what is held is bounded");
	folding_destroy(f); /* and dropped */
	free(block);
}

static uint32_t seed;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13; /* xorshift: Marsaglia, 2003 */
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % n;
}

/* Everybody says the same on stdout (up to 50 KB, of all byte values) in pieces of any size, with words of his own on
 * stderr between; delivered at any time. */
static bool any_order(uint32_t with)
{
	static char text[50000];
	size_t at[N] = {0};
	struct buf said[N] = {0};
	seed = with;
	size_t len = rnd(sizeof(text));
	for (size_t i = 0; i < len; i++)
		text[i] = (char)rnd(256);
	struct folding *f = begin(N);
	for (uint32_t left = N; left;) {
		uint32_t r = rnd(N);
		size_t some = rnd(rnd(4) ? 20000 : 50), n = MIN(len - at[r], some);
		bool last = at[r] + n == len && rnd(2), other = !rnd(8);
		if (at[r] > len)
			continue;
		int fd = other ? 2 : 1;
		if (other) {
			say(f, r, r, 2, "e", 1, false);
			buf_add(&said[r], "\2e", 2);
		} else {
			say(f, r, r, 1, text + at[r], n, last);
			for (size_t i = 0; i < n; i++) {
				buf_addc(&said[r], (char)fd);
				buf_addc(&said[r], text[at[r] + i]);
			}
			at[r] += n + last;
		}
		if (last && !other) {
			end(f, r, r);
			left--;
		}
		if (!rnd(20) || !folding_wait(f))
			folding_flush(f);
	}
	folding_flush(f);
	bool good = folding_wait(f) == UINT64_MAX;
	for (uint32_t r = 0; r < N; r++) {
		good = good && eofs[r] == 1 && buf_len(&heard[r]) == buf_len(&said[r]) &&
		       memcmp(buf_head(&heard[r]), buf_head(&said[r]), buf_len(&said[r])) == 0;
		buf_finish(&said[r]);
	}
	folding_destroy(f);
	return good;
}

int main(void)
{
	equal_ones();
	distinct_ones();
	who_is_waited_for();
	uint32_t bad = 0;
	for (uint32_t with = 1; with <= 25 && !bad; with++)
		bad = any_order(with) ? 0 : with;
	ok(!bad, "every VM's bytes in their order, whatever the pieces (seed %u)", bad);
	forget();
	return done();
}
