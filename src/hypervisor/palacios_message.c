/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "hypervisor/palacios.h"

int palacios_message_read(int fd, struct palacios_message *m, int *ret_fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = m, .iov_len = sizeof(*m)};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n;
	do
		n = recvmsg(fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	*ret_fd = -1;
	const struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	if (n != (ssize_t)sizeof(*m)) {
		if (*ret_fd >= 0)
			close(*ret_fd);
		return -1;
	}
	m->text[sizeof(m->text) - 1] = '\0';
	return 1;
}

int palacios_message_write(int fd, const struct palacios_message *m, int send_fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)m, .iov_len = sizeof(*m)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	if (send_fd >= 0) {
		memset(&control, 0, sizeof(control));
		control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
						.cmsg_level = SOL_SOCKET,
						.cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.head), &send_fd, sizeof(int));
		h.msg_control = &control;
		h.msg_controllen = sizeof(control.room);
	}
	ssize_t n;
	do
		n = sendmsg(fd, &h, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(*m) ? 0 : -1;
}

const char *palacios_op_name(enum palacios_op op)
{
	static const enum hv_cap caps[] = {
		[PALACIOS_OP_START] = HV_CAP_START,         [PALACIOS_OP_PAUSE] = HV_CAP_PAUSE,
		[PALACIOS_OP_RESET] = HV_CAP_RESET,         [PALACIOS_OP_SAVE] = HV_CAP_SAVE,
		[PALACIOS_OP_MIGRATE] = HV_CAP_MIGRATE_OUT, [PALACIOS_OP_PIN] = HV_CAP_PIN,
	};
	if (op == PALACIOS_OP_RESUME)
		return "resume";
	return (size_t)op < ARRAY_SIZE(caps) ? hv_cap_name(caps[op]) : "undo";
}
