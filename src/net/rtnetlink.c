/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rtnetlink.h"

#include <assert.h>
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"

static struct rtattr *tail(struct rtrequest *r)
{
	return (struct rtattr *)(void *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));
}

void rtrequest_init(struct rtrequest *r, uint16_t type, uint16_t flags, const void *body, size_t len)
{
	memset(r, 0, sizeof(*r));
	r->head.nlmsg_len = (uint32_t)NLMSG_LENGTH(len);
	r->head.nlmsg_type = type;
	r->head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
	memcpy(r->rest, body, len);
}

void rtrequest_add(struct rtrequest *r, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = tail(r);
	assert(NLMSG_ALIGN(r->head.nlmsg_len) + RTA_SPACE(len) <= sizeof(*r));
	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(len);
	if (len)
		memcpy(RTA_DATA(a), data, len);
	r->head.nlmsg_len = (uint32_t)(NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

void rtrequest_add_u8(struct rtrequest *r, uint16_t type, uint8_t v)
{
	rtrequest_add(r, type, &v, sizeof(v));
}

void rtrequest_add_u32(struct rtrequest *r, uint16_t type, uint32_t v)
{
	rtrequest_add(r, type, &v, sizeof(v));
}

void rtrequest_add_text(struct rtrequest *r, uint16_t type, const char *v)
{
	rtrequest_add(r, type, v, strlen(v) + 1);
}

struct rtattr *rtrequest_nest(struct rtrequest *r, uint16_t type)
{
	struct rtattr *a = tail(r);
	rtrequest_add(r, type, NULL, 0);
	return a;
}

void rtrequest_end(struct rtrequest *r, struct rtattr *nest)
{
	nest->rta_len = (unsigned short)((char *)tail(r) - (char *)nest);
}

int rtnetlink_open(struct err *err)
{
	int one = 1;
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return err_errno(err, errno, "rtnetlink");
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	return TAKE_FD(fd);
}

struct answer {
	struct nlmsghdr head;
	struct nlmsgerr error;
	char rest[1024];
};

/* The kernel's own words, behind the header of what was asked. */
static const char *words(const struct answer *a, size_t n)
{
	if (!(a->head.nlmsg_flags & NLM_F_ACK_TLVS) || n > sizeof(*a))
		return NULL;
	for (const char *p = a->rest, *end = (const char *)a + n; p + sizeof(struct nlattr) < end;) {
		struct nlattr at;
		memcpy(&at, p, sizeof(at));
		if (at.nla_len <= sizeof(at) || at.nla_len > (size_t)(end - p))
			return NULL;
		if (at.nla_type == NLMSGERR_ATTR_MSG &&
		    memchr(p + sizeof(at), '\0', at.nla_len - sizeof(at)))
			return p + sizeof(at);
		p += NLA_ALIGN(at.nla_len);
	}
	return NULL;
}

int rtnetlink_ask(int fd, const struct rtrequest *r, const char *what, struct err *err)
{
	struct answer a;
	ssize_t n;
	memset(&a, 0, sizeof(a));
	if (send(fd, r, r->head.nlmsg_len, 0) < 0)
		return err_errno(err, errno, "%s", what);
	while ((n = recv(fd, &a, sizeof(a), 0)) < 0 && errno == EINTR)
		;
	if (n < 0)
		return err_errno(err, errno, "%s", what);
	if ((size_t)n < offsetof(struct answer, rest) || a.head.nlmsg_type != NLMSG_ERROR)
		return err_set(err, EPROTO, "%s: the kernel gave no answer", what);
	if (!a.error.error)
		return 0;
	const char *why = words(&a, (size_t)n);
	if (why)
		return err_errno(err, -a.error.error, "%s (%s)", what, why);
	return err_errno(err, -a.error.error, "%s", what);
}
