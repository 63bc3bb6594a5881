/* SPDX-License-Identifier: Apache-2.0 */
/* The move of a VM: when its target is held for dead. */
#include "agent/moving.h"
#include "tap.h"

static unsigned looks_until_stalled(struct moving_stall *s, uint64_t put, size_t queued, bool answer)
{
	for (unsigned i = 1; i <= 2 * MOVING_STALL_LOOKS; i++)
		if (moving_stalls(s, put, queued, answer, MOVING_STALL_LOOKS))
			return i;
	return 0;
}

static void test_stall(void)
{
	struct moving_stall s = {0};
	is_int(looks_until_stalled(&s, 1000, 1000, false), MOVING_STALL_LOOKS,
	       "a target that takes nothing of what waits for it stalls");
	s = (struct moving_stall){0};
	is_int(looks_until_stalled(&s, 1000, 0, false), 0,
	       "a source with nothing to send, for however long, is not its target's fault");
	is_int(looks_until_stalled(&s, 1000, 0, true), MOVING_STALL_LOOKS,
	       "a target that has all and says nothing stalls");
}

static void test_slow(void)
{
	struct moving_stall s = {0};
	bool stalled = false;
	uint64_t put = 1u << 20;
	for (unsigned i = 0; i < 100;
	     i++) { /* the source adds as fast as the target takes: the queue stays as long */
		put += 1000;
		stalled |= moving_stalls(&s, put, 500000, false, MOVING_STALL_LOOKS);
	}
	ok(!stalled, "a target that takes little by little does not");
	for (unsigned i = 0; i < MOVING_STALL_LOOKS; i++) {
		put += 1000;
		stalled = moving_stalls(&s, put, 500000 + 1000 * (i + 1), false, MOVING_STALL_LOOKS);
	}
	ok(stalled, "what the source adds is no sign of the target");
}

static void test_pause(void)
{
	struct moving_stall s = {0};
	for (unsigned i = 1; i < MOVING_STALL_LOOKS; i++)
		ok(!moving_stalls(&s, 1000, 600, false, MOVING_STALL_LOOKS), "not yet (%u)", i);
	ok(!moving_stalls(&s, 1000, 599, false, MOVING_STALL_LOOKS), "one byte more is a sign");
	is_int(looks_until_stalled(&s, 1000, 599, false), MOVING_STALL_LOOKS,
	       "and it has all its time again");
	s = (struct moving_stall){0};
	moving_stalls(&s, 1000, 0, false, MOVING_STALL_LOOKS);
	ok(!moving_stalls(&s, 1000, 20, false, MOVING_STALL_LOOKS),
	   "a link's own bytes (encryption) in the queue do no harm");
}

int main(void)
{
	test_stall();
	test_slow();
	test_pause();
	return done();
}
