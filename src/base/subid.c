/* SPDX-License-Identifier: Apache-2.0 */
#include "base/subid.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"

#define SUBID_FILE_MAX (16u << 20) /* sites with thousands of users */
#define SUBID_LEAST 1000u          /* system accounts go up to 999; "nobody" may stay unmapped */

/* A front end that is linked statically has no NSS: the name comes from /etc/passwd or the environment, and
 * /etc/subuid may name the user by number as well. NULL: a user without a name. */
static char *user_name(uint32_t id)
{
	_cleanup_free_ char *text = NULL;
	if (path_read("/etc/passwd", SUBID_FILE_MAX, &text, NULL, NULL) == 0) {
		char *save = NULL;
		for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
			char *colon = strchr(l, ':'), *num = colon ? strchr(colon + 1, ':') : NULL;
			if (num && strtoul(num + 1, NULL, 10) == id && num[1] >= '0' && num[1] <= '9')
				return xstrndup(l, (size_t)(colon - l));
		}
	}
	const char *env = getenv("USER");
	return env && env[0] ? xstrdup(env) : NULL;
}

bool subid_parse(const char *text, const char *user, uint32_t id, struct subid_range *ret)
{
	_cleanup_free_ char *copy = xstrdup(text), *number = xasprintf("%" PRIu32, id);
	char *save = NULL;
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char *a = strchr(l, ':');
		if (!a)
			continue;
		*a++ = '\0';
		if ((!user || strcmp(l, user) != 0) && strcmp(l, number) != 0)
			continue;
		unsigned long long first, count;
		if (sscanf(a, "%10llu:%10llu", &first, &count) == 2 && count >= SUBID_LEAST &&
		    first > 0 && first + count <= UINT32_MAX) {
			*ret = (struct subid_range){(uint32_t)first, (uint32_t)count};
			return true;
		}
	}
	return false;
}

int subid_read(const char *file, const char *user, uint32_t id, struct subid_range *ret, struct err *err)
{
	_cleanup_free_ char *text = NULL;
	if (path_read(file, SUBID_FILE_MAX, &text, NULL, NULL) == 0 && subid_parse(text, user, id, ret))
		return 0;
	char number[16];
	snprintf(number, sizeof(number), "%" PRIu32, id);
	return err_set(
		err, ENOENT,
		"%s %s has no range in %s%s: ask the administrator for `usermod --add-subuids "
		"100000-165535 --add-subgids 100000-165535 %s`",
		user ? "user" : "uid", user ? user : number, file,
		user ? "" : ", nor a name in /etc/passwd or $USER", user ? user : "NAME");
}

int subid_ranges(struct subid_range *ret_uid, struct subid_range *ret_gid, struct err *err)
{
	uint32_t id = (uint32_t)getuid();
	_cleanup_free_ char *user = user_name(id);
	struct subid_range u, g;
	if (subid_read("/etc/subuid", user, id, &u, err) < 0 ||
	    subid_read("/etc/subgid", user, id, &g, err) < 0)
		return -1;
	*ret_uid = u;
	*ret_gid = g;
	return 0;
}
