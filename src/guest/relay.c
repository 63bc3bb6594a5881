/* SPDX-License-Identifier: Apache-2.0 */
/* Between a container's eth0 and the switch, as a process of its own outside the container: frames of a packet socket
 * become a stream with a 4-byte length before each, and back. Ends when the switch's side does. A frame that one side
 * does not take is lost, as on any wire. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/alloc.h"
#include "guest/contain.h"
#include "wire/container.h"

#define FRAME_MIN 14
#define FRAME_MAX 65550 /* as net/switch.h has it */
#define BATCH 32
#define IN_SIZE (1u << 20)

struct relay {
	int packets; /* -1: no container has handed one over yet */
	uint8_t (*frames)[4 + FRAME_MAX];
	struct buf out; /* what the switch has not taken yet of a batch */
	uint8_t *in;
	size_t in_len;
};

/* A container that was reset hands over its new one. */
static bool take_packets(struct relay *r)
{
	char byte;
	union {
		char data[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} c;
	struct iovec v = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = c.data,
			   .msg_controllen = sizeof(c.data)};
	ssize_t n = recvmsg(RELAY_FD_WIRE, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (!h || h->cmsg_type != SCM_RIGHTS || h->cmsg_len != CMSG_LEN(sizeof(int)))
		return true;
	if (r->packets >= 0)
		close(r->packets);
	memcpy(&r->packets, CMSG_DATA(h), sizeof(int));
	return true;
}

static void store_length(uint8_t *p, size_t n)
{
	p[0] = (uint8_t)(n >> 24);
	p[1] = (uint8_t)(n >> 16);
	p[2] = (uint8_t)(n >> 8);
	p[3] = (uint8_t)n;
}

static size_t load_length(const uint8_t *p)
{
	return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

/* The container's frames to the switch: false when that is gone. */
static bool flush_out(struct relay *r)
{
	while (buf_len(&r->out)) {
		ssize_t n = send(RELAY_FD_SWITCH, buf_head(&r->out), buf_len(&r->out),
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		buf_consume(&r->out, (size_t)n);
	}
	return true;
}

static bool send_batch(struct relay *r, const struct mmsghdr *m, int got)
{
	struct iovec v[BATCH];
	size_t n = 0;
	for (int i = 0; i < got; i++) {
		size_t len = m[i].msg_len;
		if (len < FRAME_MIN || len > FRAME_MAX)
			continue;
		store_length(r->frames[i], len);
		v[n++] = (struct iovec){r->frames[i], 4 + len};
	}
	struct msghdr all = {.msg_iov = v, .msg_iovlen = n};
	ssize_t put = n ? sendmsg(RELAY_FD_SWITCH, &all, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	if (put < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	size_t sent = put < 0 ? 0 : (size_t)put;
	for (size_t i = 0; i < n; i++) {
		size_t skip = MIN(sent, v[i].iov_len);
		buf_add(&r->out, (char *)v[i].iov_base + skip, v[i].iov_len - skip);
		sent -= skip;
	}
	return true;
}

static bool from_container(struct relay *r)
{
	struct mmsghdr m[BATCH];
	struct iovec v[BATCH];
	memset(m, 0, sizeof(m));
	for (size_t i = 0; i < BATCH; i++) {
		v[i] = (struct iovec){r->frames[i] + 4, FRAME_MAX};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	}
	int got = recvmmsg(r->packets, m, BATCH, MSG_DONTWAIT, NULL);
	if (got < 0 && errno != EAGAIN && errno != EINTR) {
		close(TAKE_FD(r->packets)); /* the container is gone; another may come in its place */
		return true;
	}
	return got <= 0 || send_batch(r, m, got);
}

/* The switch's frames to the container: false when the switch is gone or talks nonsense. */
static bool to_container(struct relay *r)
{
	ssize_t n = recv(RELAY_FD_SWITCH, r->in + r->in_len, IN_SIZE - r->in_len, MSG_DONTWAIT);
	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	r->in_len += (size_t)n;
	size_t at = 0;
	for (size_t len; r->in_len - at >= 4; at += 4 + len) {
		len = load_length(r->in + at);
		if (len < FRAME_MIN || len > FRAME_MAX)
			return false;
		if (r->in_len - at < 4 + len)
			break;
		if (r->packets >= 0)
			(void)!send(r->packets, r->in + at + 4, len, MSG_DONTWAIT);
	}
	memmove(r->in, r->in + at, r->in_len - at);
	r->in_len -= at;
	return true;
}

static bool one_round(struct relay *r)
{
	bool busy = buf_len(&r->out) > 0;
	struct pollfd p[3] = {
		{.fd = RELAY_FD_SWITCH, .events = (short)(POLLIN | (busy ? POLLOUT : 0))},
		{.fd = RELAY_FD_WIRE, .events = POLLIN},
		{.fd = busy ? -1 : r->packets, .events = POLLIN},
	};
	if (poll(p, 3, -1) < 0)
		return errno == EINTR;
	if ((p[0].revents & (POLLIN | POLLHUP | POLLERR)) && !to_container(r))
		return false;
	if ((p[0].revents & POLLOUT) && !flush_out(r))
		return false;
	if (p[2].revents && !from_container(r))
		return false;
	return !p[1].revents || take_packets(r);
}

int relay_main(void)
{
	struct relay r = {.packets = -1,
			  .frames = xcalloc(BATCH, sizeof(*r.frames)),
			  .in = xmalloc(IN_SIZE)};
	prctl(PR_SET_NAME, "vse-relay");
	while (one_round(&r))
		;
	return 0;
}
