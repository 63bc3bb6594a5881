/* SPDX-License-Identifier: Apache-2.0 */
/* A VM whose eth0 is a tap: what it sends comes out of the device, and what is sent into it reaches the guest. The device is
 * in a network namespace of its own, so that nothing of the node is touched. */
#include "tap-cases.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>

#include "base/time.h"
#include "tests/tap.h"

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 1};

/* In the namespace of the calling thread: a tap that is on, and a socket that sees and sends its frames. */
static int make_device(int *ret_packets)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "contract"};
	_cleanup_close_ int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (tap < 0 || ioctl(tap, TUNSETIFF, &r) < 0)
		return -1;
	_cleanup_close_ int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
				       htons(ETH_P_ALL));
	struct sockaddr_ll at = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(ETH_P_ALL),
				 .sll_ifindex = (int)if_nametoindex(r.ifr_name)};
	r.ifr_flags = IFF_UP;
	if (s < 0 || ioctl(s, SIOCSIFFLAGS, &r) < 0 ||
	    bind(s, (const struct sockaddr *)&at, sizeof(at)) < 0)
		return -1;
	*ret_packets = TAKE_FD(s);
	return TAKE_FD(tap);
}

static int make_tap(int *ret_packets)
{
	_cleanup_close_ int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (own < 0 || unshare(CLONE_NEWNET) < 0)
		return -1;
	int tap = make_device(ret_packets), why = errno;
	if (setns(own, CLONE_NEWNET) < 0)
		abort(); /* every test after this one would be elsewhere */
	errno = why;
	return tap;
}

bool tap_can_be_tried(struct env *env)
{
	const char *why = hypervisor_lacks(env->h, &env->probe, HV_CAP_TAP);
	struct testvm t;
	struct err e = ERR_INIT;
	if (why) {
		env->spec.nic = env->spec.tap = true;
		ok(testvm_start(&t, env, NULL, &e) < 0 && e.code == ENOTSUP, "a tap is refused: %s",
		   e.text);
		env->spec.nic = env->spec.tap = false;
		return false;
	}
	int packets, tap = make_tap(&packets);
	if (tap < 0) {
		printf("# tap: not tried: %s\n", strerror(errno));
		return false;
	}
	close(tap);
	close(packets);
	return true;
}

/* ARP frames of the guest that have come so far: it asks, it answers. */
struct came {
	int asks, answers;
};

static struct came *look(int packets, struct came *c)
{
	uint8_t f[2048];
	for (ssize_t n; (n = recv(packets, f, sizeof(f), 0)) > 0;)
		if (n >= 42 && memcmp(f + 6, guest_mac, 6) == 0 && f[12] == 8 && f[13] == 6) {
			c->asks += f[21] == 1;
			c->answers += f[21] == 2;
		}
	return c;
}

/* Who has 10.77.0.1? (RFC 826) */
static bool ask(int packets)
{
	static const uint8_t question[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,  0,  0, 0, 0,
					     2,    8,    6,    0,    1,    8,    0,  6,  4, 0, 1,
					     2,    0,    0,    0,    0,    2,    10, 77, 0, 2, 0,
					     0,    0,    0,    0,    0,    10,   77, 0,  1};
	return send(packets, question, sizeof(question), 0) == sizeof(question);
}

/* The VM has it, whatever becomes of ours. */
static bool starts_with(struct testvm *t, struct env *env, int fd, struct err *e)
{
	env->spec.tap_fd = fd;
	int rc = testvm_start(t, env, NULL, e);
	close(fd);
	env->spec.tap_fd = -1;
	return rc == 0;
}

static void test_frames(struct env *env)
{
	struct testvm t;
	struct came c = {0};
	struct err e = ERR_INIT;
	static const char *const ping[] = {"ping", "-c", "1", "-W", "1", "10.77.0.2", NULL};
	int packets = -1, tap = make_tap(&packets);
	if (!ok(tap >= 0, "a tap") || !ok(starts_with(&t, env, tap, &e), "start %s", e.text)) {
		if (packets >= 0)
			close(packets);
		return;
	}
	if (ok(testvm_wait(&t, t.readies || t.gone) && !t.gone, "ready%s", t.gone_reason)) {
		ok(t.net_fd < 0, "no descriptor comes for eth0");
		testvm_exec(&t, ping, NULL);
		ok(testvm_wait(&t, look(packets, &c)->asks), "a frame comes from the guest");
		ok(ask(packets) && testvm_wait(&t, look(packets, &c)->answers),
		   "and it answers one of ours");
	}
	testvm_finish(&t);
	close(packets);
}

static void test_no_tap(struct env *env)
{
	struct testvm t;
	struct err e = ERR_INIT;
	if (!starts_with(&t, env, open("/dev/null", O_RDWR | O_CLOEXEC), &e)) {
		ok(e.text[0] && !strchr(e.text, '\n'), "what is no tap is refused: %s", e.text);
		return;
	}
	ok(testvm_wait(&t, t.gone) && t.gone_reason[0] && !strchr(t.gone_reason, '\n') && !t.readies,
	   "what is no tap ends the VM: %s", t.gone_reason);
	testvm_finish(&t);
}

void test_tap(struct env *env)
{
	env->spec.nic = env->spec.tap = true;
	memcpy(env->spec.mac, guest_mac, 6);
	test_frames(env);
	test_no_tap(env);
	env->spec.nic = env->spec.tap = false;
}
