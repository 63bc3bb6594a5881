/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the nodes is this one? */
#include <string.h>
#include <sys/prctl.h>

#include "base/size.h"
#include "launcher/backend.h"

static const char *host_part(const char *name)
{
	const char *at = strrchr(name, '@'); /* user@host, as ssh takes it */
	return at ? at + 1 : name;
}

static bool same(const char *a, const char *b, bool first_label)
{
	size_t n = strlen(a), m = strlen(b);
	if (first_label) {
		n = strcspn(a, ".");
		m = strcspn(b, ".");
	}
	return n == m && n && strncasecmp(a, b, n) == 0;
}

/* -1: none; -2: more than one. */
static int only(char *const *names, size_t n, const char *self, bool first_label)
{
	int found = -1;
	for (size_t i = 0; i < n; i++) {
		if (!same(host_part(names[i]), self, first_label))
			continue;
		if (found >= 0)
			return -2;
		found = (int)i;
	}
	return found;
}

static int by_name(char *const *names, size_t n, const char *self)
{
	int found = only(names, n, self, false);
	return found == -1 ? only(names, n, self, true) : found;
}

/* Where nodes have no names: the rank that the manager gave counts them. */
static int by_rank(size_t n)
{
	static const char *const variables[] = {"ALPS_APP_PE", "PALS_RANKID", "FLUX_TASK_RANK"};
	for (size_t i = 0; i < ARRAY_SIZE(variables); i++) {
		const char *text = env_of(variables[i]);
		int64_t rank;
		if (text && int_parse(text, 0, (int64_t)n - 1, &rank, NULL) == 0)
			return (int)rank;
	}
	return -1;
}

int launcher_self(char *const *names, size_t n)
{
	char host[256];
	int found = -1;
	if (!n || n > LAUNCH_NODES_MAX)
		return -1;
	if (!names[0][0])
		return by_rank(n);
	if (env_of("SLURMD_NODENAME"))
		found = by_name(names, n, env_of("SLURMD_NODENAME"));
	if (found == -1 && gethostname(host, sizeof(host)) == 0) {
		host[sizeof(host) - 1] = '\0';
		found = by_name(names, n, host);
	}
	return MAX(found, -1);
}

void launcher_name_self(char *argv0)
{
	static const char by_descriptor[] = "/proc/self/fd/9", shown[] = "(ssh)/vse-agent";
	_Static_assert(sizeof(shown) == sizeof(by_descriptor), "one takes the place of the other");
	if (!argv0 || strcmp(argv0, by_descriptor) != 0)
		return;
	memcpy(argv0, shown, sizeof(shown));
	prctl(PR_SET_NAME, "vse-agent");
	close(9);
}
