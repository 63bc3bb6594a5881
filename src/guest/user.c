/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/user.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <string.h>

#include "base/path.h"
#include "base/size.h"

#define FILE_MAX (4u << 20)

/* Splits a line in place at each ':'; missing fields are "". */
static void fields(char *line, char **f, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		f[i] = line;
		line += strcspn(line, ":");
		if (*line)
			*line++ = '\0';
	}
}

static bool number(const char *s, uint32_t *ret)
{
	int64_t v;
	if (int_parse(s, 0, UINT32_MAX - 1, &v, NULL) < 0)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* The line of /etc/passwd with that name, or (name NULL) that uid. */
static bool passwd_find(const char *name, uid_t uid, struct user *u)
{
	_cleanup_free_ char *text = NULL;
	if (path_read("/etc/passwd", FILE_MAX, &text, NULL, NULL) < 0)
		return false;
	for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
		char *f[7];
		uint32_t id, gid;
		fields(line, f, 7);
		if (!number(f[2], &id) || !number(f[3], &gid) ||
		    (name ? strcmp(f[0], name) != 0 : id != uid))
			continue;
		u->uid = id;
		u->gid = gid;
		snprintf(u->name, sizeof(u->name), "%s", f[0]);
		snprintf(u->home, sizeof(u->home), "%s", *f[5] ? f[5] : "/");
		snprintf(u->shell, sizeof(u->shell), "%s", *f[6] ? f[6] : "/bin/sh");
		return true;
	}
	return false;
}

static void groups_find(struct user *u)
{
	_cleanup_free_ char *text = NULL;
	if (path_read("/etc/group", FILE_MAX, &text, NULL, NULL) < 0)
		return;
	for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
		char *f[4], *member;
		uint32_t gid;
		fields(line, f, 4);
		if (!number(f[2], &gid) || gid == u->gid)
			continue;
		while ((member = strsep(&f[3], ",")))
			if (strcmp(member, u->name) == 0 && u->n_groups < USER_GROUPS) {
				u->groups[u->n_groups++] = gid;
				break;
			}
	}
}

int user_find(const char *who, struct user *ret, struct err *err)
{
	char first[64];
	uint32_t uid, gid;
	struct user u = {.home = "/", .shell = "/bin/sh"};
	size_t n = strcspn(who, ":");
	snprintf(first, sizeof(first), "%.*s", (int)n, who);
	if (number(first, &uid)) {
		if (!passwd_find(NULL, uid, &u)) {
			u.uid = uid;
			u.gid = uid;
			snprintf(u.name, sizeof(u.name), "%u", uid);
			if (uid == 0)
				snprintf(u.home, sizeof(u.home), "/root");
		}
		if (who[n] && !number(who + n + 1, &gid))
			return err_set(err, EINVAL, "user '%s': not a uid:gid", who);
		if (who[n])
			u.gid = gid;
	} else if (who[n]) {
		return err_set(err, EINVAL, "user '%s': not a uid:gid", who);
	} else if (strcmp(who, "root") == 0 && !passwd_find(who, 0, &u)) {
		snprintf(u.name, sizeof(u.name), "root");
		snprintf(u.home, sizeof(u.home), "/root");
	} else if (!u.name[0] && !passwd_find(who, 0, &u)) {
		return err_set(err, ENOENT, "user '%s': not in the VM's /etc/passwd", who);
	}
	groups_find(&u);
	*ret = u;
	return 0;
}

int user_become(const struct user *u)
{
	if (setgroups(u->n_groups, u->groups) < 0 && !(errno == EPERM && u->uid == geteuid()))
		return -1;
	if (setresgid(u->gid, u->gid, u->gid) < 0)
		return -1;
	return setresuid(u->uid, u->uid, u->uid);
}
