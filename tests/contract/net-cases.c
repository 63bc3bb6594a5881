/* SPDX-License-Identifier: Apache-2.0 */
#include "net-cases.h"

#include <sys/socket.h>

#include "base/time.h"
#include "tests/tap.h"

#define LONG_FRAME 8942 /* a ping with 8900 bytes */

/* Reads what the guest says on eth0 up to a frame as long as the longest that its MTU allows or nearly. */
static bool long_frame_comes(int fd)
{
	static unsigned char all[1 << 20];
	static size_t have;
	ssize_t n = recv(fd, all + have, sizeof(all) - have, MSG_DONTWAIT);
	have += n > 0 ? (size_t)n : 0;
	for (size_t at = 0; at + 4 <= have;) {
		size_t len = (size_t)all[at] << 24 | (size_t)all[at + 1] << 16 |
			     (size_t)all[at + 2] << 8 | all[at + 3];
		if (len >= LONG_FRAME && at + 4 + len <= have)
			return true;
		at += 4 + len;
	}
	return false;
}

/* Nothing between the guest and us may hold to an MTU of its own: a frame that is too long for a bridge, say, is lost. */
void test_long_frames(struct testvm *t)
{
	static const char *const ping[] = {"ping",          "-c", "1", "-W", "1", "-s", "8900",
					   "10.77.255.255", NULL},
				 *const wait[] = {"sh", "-c",
						  "cd /sys/class/net/eth0/statistics; n=0; until "
						  "[ $(cat rx_bytes) -ge 8942 ] || [ $n = 50 ]; do "
						  "n=$((n + 1)); sleep 0.1; done; [ $n != 50 ]",
						  NULL};
	static unsigned char frame[4 + LONG_FRAME] = {
		0,    0,   LONG_FRAME >> 8, LONG_FRAME & 0xff, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2,
		0x88, 0xb5};
	int exits = t->exits;
	testvm_exec(t, ping, NULL);
	ok(testvm_wait(t, long_frame_comes(t->net_fd)), "a frame of %d bytes comes", LONG_FRAME);
	ok(testvm_wait(t, t->exits == exits + 1) &&
		   send(t->net_fd, frame, sizeof(frame), MSG_NOSIGNAL) == (ssize_t)sizeof(frame),
	   "and one is sent to it");
	testvm_exec(t, wait, NULL);
	ok(testvm_wait(t, t->exits == exits + 2) && t->exit_code == 0, "which has arrived");
}
