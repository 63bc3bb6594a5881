/* SPDX-License-Identifier: Apache-2.0 */
#include "client/programs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "io/child.h"

#define ANSWER_MAX 65535u /* bytes */

/* The folder of the file that this code was loaded from: the library, or the program. By /proc, since dladdr() does not
 * work in a static program. malloc'ed, or NULL. */
static char *code_dir(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[PATH_MAX + 128], *found = NULL;
	uintptr_t here = (uintptr_t)code_dir;
	while (f && !found && fgets(line, sizeof(line), f)) {
		uintptr_t from, to;
		char *path = strchr(line, '/'), *last = strrchr(line, '/');
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) == 2 && path &&
		    here >= from && here < to)
			found = xasprintf("%.*s", (int)MAX(last - path, 1), path);
	}
	if (f)
		fclose(f);
	return found;
}

static char *look_in(const char *dir, const char *name)
{
	/* The last: from lib/x86_64-linux-gnu. */
	static const char *const places[] = {".", "../libexec/vse", "../../libexec/vse"};
	for (size_t i = 0; dir && i < ARRAY_SIZE(places); i++) {
		_cleanup_free_ char *path = strcmp(places[i], ".") == 0
						    ? path_join(dir, name)
						    : xasprintf("%s/%s/%s", dir, places[i], name);
		if (access(path, X_OK) == 0)
			return TAKE_PTR(path);
	}
	return NULL;
}

char *program_find(const char *name, struct err *err)
{
	_cleanup_free_ char *self = path_self_dir(), *code = code_dir();
	char *found = look_in(self, name);
	if (!found)
		found = look_in(code, name);
	if (!found)
		found = look_in(VSE_LIBEXEC, name);
	if (!found)
		err_set(err, ENOENT, "%s is not beside vse nor in ../libexec/vse: install it there",
			name);
	return found;
}

static int ask(char *const *argv, char *text, struct err *err)
{
	int p[2], status;
	pid_t pid;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	struct child_spec spec = {.argv = argv, .fds = {-1, p[1], -1}, .n_fds = 3, .die_with_parent = true};
	int rc = child_spawn(&spec, &pid, err);
	close(p[1]);
	if (rc == 0) {
		fd_read_full(p[0], text, ANSWER_MAX);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	close(p[0]);
	return rc;
}

json_t *offer_ask(const char *given, const char *accel, struct err *err)
{
	_cleanup_free_ char *agent = given ? xstrdup(given) : program_find("vse-agent", err),
			    *text = xcalloc(1, ANSWER_MAX + 1);
	char probe[] = "--probe";
	char *argv[] = {agent, probe, (char *)accel, NULL};
	if (!agent || ask(argv, text, err) < 0)
		return NULL;
	json_t *list = json_loads(text, 0, NULL);
	if (json_is_array(list))
		return list;
	json_decref(list);
	err_set(err, EPROTO, "%s --probe: no answer", agent);
	return NULL;
}

int offer_check(const char *agent, const char *hypervisor, const char *accel, struct err *err)
{
	/* Of several the agent takes what works; whether one does depends on the cluster, too. */
	if (strcmp(hypervisor, "auto") == 0 || strchr(hypervisor, ','))
		return 0;
	json_t *list = offer_ask(agent, accel, err), *h;
	size_t i;
	int rc = list ? 0 : -1;
	json_array_foreach (list, i, h) {
		const char *name = json_string_value(json_object_get(h, "name")),
			   *why = json_string_value(json_object_get(h, "why"));
		if (name && strcmp(name, hypervisor) == 0 && !json_is_true(json_object_get(h, "usable")))
			rc = err_set(err, ENODEV, "%s: %s", name, why ? why : "cannot be used here");
	}
	json_decref(list);
	return rc;
}
