/* SPDX-License-Identifier: Apache-2.0 */
/* Which VM is held for one that hangs in its boot. */
#include "cluster/hung.h"
#include "tap.h"
#include "vm/pulse.h"

/* Looks each second for so long; what it does a second. */
static uint64_t after(unsigned seconds, double bytes, double cpu_ms)
{
	struct pulse p = {0};
	uint64_t silent = 0;
	for (unsigned i = 0; i <= seconds; i++)
		silent = pulse_look(&p, 5000 + 1000 * i, (uint64_t)(bytes * i),
				    1000 + (uint64_t)(cpu_ms * i));
	return silent;
}

static void test_signs(void)
{
	is_int(after(100, 0, 0), 100000, "neither a word nor CPU time: silent");
	ok(after(100, 0.05, 0) < 21000, "a byte on the console now and then is a sign");
	ok(after(100, 0, 1000) == 0, "CPU time is");
	ok(after(100, 0, 5) < 15000, "also the little that a busy node leaves: half a percent");
	ok(after(600, 0, 0.5) > 500000, "a VMM that wakes up for a moment now and then is not");
}

static void test_unknown(void)
{
	struct pulse p = {0};
	uint64_t silent = 0;
	for (unsigned i = 0; i < 100; i++)
		silent = pulse_look(&p, 1000 * i, 7, 0);
	is_int(silent, 0, "where CPU time is not known nothing is silent");
	p = (struct pulse){0};
	pulse_look(&p, 0, 0, 500);
	pulse_look(&p, 5000, 0, 500);
	is_int(pulse_look(&p, 6000, 0, 400), 0, "processes that ended have lived");
}

static void test_stopped_node(void)
{
	struct pulse p = {0};
	pulse_look(&p, 1000, 0, 500);
	is_int(pulse_look(&p, 2000, 0, 500), 1000, "a second");
	ok(pulse_look(&p, 3602000, 0, 500) <= 1000 + PULSE_LOOK_MAX_MS,
	   "an hour in which nobody ran, we neither, is no hour of silence");
}

static void test_bound(void)
{
	uint64_t some[] = {9000, 3000, 4000};
	is_int(hung_bound_ms(60000, 120000, NULL, 0), 90000, "alone: most of its time");
	is_int(hung_bound_ms(100000, 120000, NULL, 0), 100000, "or more where that is wanted");
	is_int(hung_bound_ms(60000, 120000, some, 3), 60000, "never less than is asked for");
	is_int(hung_bound_ms(10000, 120000, some, 3), 16000, "four times the median of the others");
	is_int(hung_bound_ms(10000, 120000, (uint64_t[]){300000}, 1), 1200000,
	       "on a slow node more than its time: then only that counts");
}

int main(void)
{
	test_signs();
	test_unknown();
	test_stopped_node();
	test_bound();
	return done();
}
