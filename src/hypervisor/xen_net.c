/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/xen.h"
#include "io/stream.h"

#define FRAME_MIN 14
#define FRAME_MAX 65550
#define WIRE_MTU 65500 /* its frames are as long as the guest likes; a vif takes 65517 */
#define QUEUED_MAX                                                                                 \
	(1u << 20) /* bytes that the switch has not taken: more frames are dropped, as a wire would */
#define ROUND 64   /* frames taken from the tap before others have their turn */

struct xen_net {
	int tap;
	struct watch *watch;
	struct stream *stream; /* our end of what was handed out */
};

void xen_net_bridge(const char *uuid, char out[XEN_BRIDGE_LEN])
{
	snprintf(out, XEN_BRIDGE_LEN, "vseb%.8s", uuid);
}

static int control(unsigned long request, void *arg)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd < 0 ? -1 : ioctl(fd, request, arg);
}

static int set_up(const char *name, bool up)
{
	struct ifreq r = {0};
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (control(SIOCGIFFLAGS, &r) < 0)
		return -1;
	r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
	return control(SIOCSIFFLAGS, &r);
}

/* A bridge drops, and tells nobody, what is longer than the MTU of the port it goes to. Xen's hotplug script gives a vif that of
 * its bridge. */
static int set_mtu(const char *name, struct err *err)
{
	struct ifreq r = {.ifr_mtu = WIRE_MTU};
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	return control(SIOCSIFMTU, &r) < 0 ? err_errno(err, errno, "%s: an MTU of %d", name, WIRE_MTU)
					   : 0;
}

/* Best effort: without them dom0 says a few words of its own on the guest's wire. */
static void set(const char *path, const char *value)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, value, strlen(value)) < 0)
		return;
}

int xen_net_make(const char *uuid, struct err *err)
{
	char bridge[XEN_BRIDGE_LEN];
	xen_net_bridge(uuid, bridge);
	if (control(SIOCBRADDBR, bridge) < 0 && errno != EEXIST)
		return err_errno(err, errno, "make the bridge %s for eth0 (module bridge)", bridge);
	_cleanup_free_ char *v6 = xasprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", bridge);
	_cleanup_free_ char *snoop = xasprintf("/sys/class/net/%s/bridge/multicast_snooping", bridge);
	set(v6, "1");
	set(snoop, "0");
	if (set_mtu(bridge, err) < 0)
		return -1;
	if (set_up(bridge, true) < 0)
		return err_errno(err, errno, "bridge %s", bridge);
	return 0;
}

void xen_net_remove(const char *uuid)
{
	char bridge[XEN_BRIDGE_LEN];
	xen_net_bridge(uuid, bridge);
	set_up(bridge, false);
	control(SIOCBRDELBR, bridge);
}

static int open_tap(const char *uuid, struct err *err)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	char bridge[XEN_BRIDGE_LEN];
	xen_net_bridge(uuid, bridge);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "vset%.8s", uuid);
	_cleanup_close_ int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, errno, "/dev/net/tun (module tun)");
	if (ioctl(fd, TUNSETIFF, &r) < 0)
		return err_errno(err, errno, "tap %s", r.ifr_name);
	_cleanup_free_ char *v6 = xasprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", r.ifr_name);
	set(v6, "1");
	if (set_mtu(r.ifr_name, err) < 0)
		return -1;
	struct ifreq port = {.ifr_ifindex = (int)if_nametoindex(r.ifr_name)};
	snprintf(port.ifr_name, sizeof(port.ifr_name), "%s", bridge);
	if (set_up(r.ifr_name, true) < 0 || control(SIOCBRADDIF, &port) < 0)
		return err_errno(err, errno, "put the tap %s into the bridge %s", r.ifr_name, bridge);
	return TAKE_FD(fd);
}

static void on_frame(void *arg, int events _unused_)
{
	struct xen_net *n = arg;
	static unsigned char frame[4 + FRAME_MAX];
	for (int i = 0; i < ROUND; i++) {
		ssize_t len = read(n->tap, frame + 4, FRAME_MAX);
		if (len < 0)
			return;
		if (len < FRAME_MIN || stream_queued(n->stream) > QUEUED_MAX)
			continue;
		frame[0] = (unsigned char)(len >> 24);
		frame[1] = (unsigned char)(len >> 16);
		frame[2] = (unsigned char)(len >> 8);
		frame[3] = (unsigned char)len;
		stream_write(n->stream, frame, 4 + (size_t)len);
	}
}

static void on_data(void *arg, struct buf *in)
{
	struct xen_net *n = arg;
	while (buf_len(in) >= 4) {
		const unsigned char *p = (const unsigned char *)buf_head(in);
		size_t len = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
		if (len > FRAME_MAX) {
			buf_clear(in); /* the switch is ours: this cannot be */
			return;
		}
		if (buf_len(in) < 4 + len)
			return;
		/* A tap that is full loses frames, as a wire does. */
		if (len >= FRAME_MIN && write(n->tap, p + 4, len) < 0 && errno != EAGAIN)
			errno = 0;
		buf_consume(in, 4 + len);
	}
}

static void on_close(void *arg, const struct err *err _unused_)
{
	struct xen_net *n = arg;
	watch_destroy(TAKE_PTR(n->watch));
	stream_destroy(TAKE_PTR(n->stream));
}

struct xen_net *xen_net_open(struct loop *l, const char *uuid, int *ret_fd, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_data, .on_close = on_close};
	int pair[2];
	struct xen_net *n = xcalloc(1, sizeof(*n));
	n->tap = open_tap(uuid, err);
	if (n->tap < 0) {
		free(n);
		return NULL;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		err_errno(err, errno, "socketpair");
		xen_net_close(n);
		return NULL;
	}
	n->stream = stream_create(l, pair[0], &ops, n, err);
	n->watch = n->stream ? watch_create(l, n->tap, on_frame, n, err) : NULL;
	if (!n->watch) {
		close(pair[1]);
		xen_net_close(n);
		return NULL;
	}
	watch_set(n->watch, WATCH_READ);
	*ret_fd = pair[1];
	return n;
}

void xen_net_close(struct xen_net *n)
{
	if (!n)
		return;
	watch_destroy(n->watch);
	stream_destroy(n->stream);
	if (n->tap >= 0)
		close(n->tap);
	free(n);
}
