/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the kernel about network devices, by rtnetlink(7): one at a time, each acknowledged. */
#ifndef VSE_NET_RTNETLINK_H
#define VSE_NET_RTNETLINK_H

#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define RTNETLINK_MAX 2048 /* bytes of a request */

struct rtrequest {
	struct nlmsghdr head;
	char rest[RTNETLINK_MAX - sizeof(struct nlmsghdr)];
};

/* type: RTM_...; flags: NLM_F_... beside REQUEST and ACK; body: struct ifinfomsg, ndmsg or tcmsg. */
void rtrequest_init(struct rtrequest *r, uint16_t type, uint16_t flags, const void *body, size_t len);
void rtrequest_add(struct rtrequest *r, uint16_t type, const void *data, size_t len);
void rtrequest_add_u8(struct rtrequest *r, uint16_t type, uint8_t v);
void rtrequest_add_u32(struct rtrequest *r, uint16_t type, uint32_t v);
void rtrequest_add_text(struct rtrequest *r, uint16_t type, const char *v);
struct rtattr *rtrequest_nest(struct rtrequest *r, uint16_t type);
void rtrequest_end(struct rtrequest *r, struct rtattr *nest);

/* A socket of the network namespace that the caller is in; -1: err. */
int rtnetlink_open(struct err *err);
/* Sends and waits for the answer, which the kernel has when send() returns. The error is the kernel's, its words for it
 * where it has some; `what` begins the text. */
int rtnetlink_ask(int fd, const struct rtrequest *r, const char *what, struct err *err);

#endif
