/* SPDX-License-Identifier: Apache-2.0 */
/* Who a program runs as: /etc/passwd and /etc/group, read directly (no NSS in a static program). */
#ifndef VSE_GUEST_USER_H
#define VSE_GUEST_USER_H

#include <sys/types.h>

#include "base/err.h"

#define USER_GROUPS 64

struct user {
	uid_t uid;
	gid_t gid;
	char name[64], home[256], shell[256];
	gid_t groups[USER_GROUPS]; /* supplementary */
	size_t n_groups;
};

/* `who`: a name, "uid" or "uid:gid". A uid need not be in /etc/passwd: its group is then its own number,
 * its home "/". ENOENT for an unknown name, EINVAL for a malformed pair. */
int user_find(const char *who, struct user *ret, struct err *err);
/* In a child: becomes that user. Does nothing when it is that user already and may not change groups. */
int user_become(const struct user *u);

#endif
