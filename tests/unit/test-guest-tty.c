/* SPDX-License-Identifier: Apache-2.0 */
/* The guest agent's channel where it is a terminal that is hung up, as Xen's is by a restore. Its clock is ours. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "guest/channel.h"
#include "guest/guest.h"
#include "tap.h"

/* What is opened is the master of a new pseudoterminal each time, which is hung up when its slave has been closed. */
char *cmdline_get(const char *name)
{
	return strcmp(name, "vse.ch") == 0 ? xstrdup("ptmx") : NULL;
}

static bool hang_up(struct channel *c)
{
	char name[64];
	if (grantpt(c->in) < 0 || unlockpt(c->in) < 0 || ptsname_r(c->in, name, sizeof(name)) != 0)
		return false;
	int fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	return fd >= 0 && close(fd) == 0;
}

static void test_first(struct channel *c)
{
	char b[8];
	channel_init(c);
	ok(channel_try(c, 5000) && c->kind == CHANNEL_TTY, "the terminal is opened");
	is_int(channel_read(c, b, sizeof(b)), 0, "nothing is there");
	ok(!channel_doubted(c, 1000000), "the first one is not doubted");
}

static void test_hung_up(struct channel *c)
{
	char b[8];
	ok(hang_up(c), "hung up");
	is_int(channel_read(c, b, sizeof(b)), -1, "the host's end is gone");
	ok(c->in < 0, "the terminal is let go");
	channel_down(c, 10000);
	ok(!channel_try(c, 10099), "and not opened at once");
	ok(channel_try(c, 10100), "but a little later");
}

/* What it was opened at and how long it is believed: 1 s, doubled each time. */
static void test_doubted(struct channel *c)
{
	static const unsigned ms[] = {1000, 2000, 4000, 8000, 16000, 32000, 64000, 120000, 120000};
	uint64_t now = 10100;
	for (size_t i = 0; i < sizeof(ms) / sizeof(*ms); i++) {
		ok(!channel_doubted(c, now + ms[i] - 1) && c->in >= 0, "believed for %u ms", ms[i]);
		now += ms[i];
		ok(channel_doubted(c, now) && c->in < 0, "then it is let go");
		ok(!channel_doubted(c, now + 100000), "once");
		channel_down(c, now);
		ok(!channel_try(c, now + 99), "not opened at once either");
		now += 100;
		ok(channel_try(c, now), "and opened anew");
	}
	channel_proven(c);
	ok(!channel_doubted(c, now + 1000000) && c->in >= 0,
	   "one that the host came through is kept");
	ok(hang_up(c) && channel_read(c, &(char){0}, 1) == -1, "hung up again");
	channel_down(c, now);
	ok(channel_try(c, now + 100) && !channel_doubted(c, now + 1099) && channel_doubted(c, now + 1100),
	   "it begins with the shortest time");
}

int main(void)
{
	struct channel c;
	if (access("/dev/ptmx", R_OK | W_OK) < 0) {
		printf("1..0 # SKIP no pseudoterminals here\n");
		return 0;
	}
	test_first(&c);
	test_hung_up(&c);
	test_doubted(&c);
	return done();
}
