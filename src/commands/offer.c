/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/offer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "io/child.h"

#define ANSWER_MAX 65535u /* bytes */

char *offer_agent(struct err *err)
{
	static const char *const places[] = {"vse-agent", "../libexec/vse/vse-agent"};
	_cleanup_free_ char *dir = path_self_dir();
	for (size_t i = 0; dir && i < ARRAY_SIZE(places); i++) {
		_cleanup_free_ char *path = path_join(dir, places[i]);
		if (access(path, X_OK) == 0)
			return TAKE_PTR(path);
	}
	err_set(err, ENOENT, "vse-agent is not beside vse nor in ../libexec/vse: install it there");
	return NULL;
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

json_t *offer_ask(const char *accel, struct err *err)
{
	_cleanup_free_ char *agent = offer_agent(err), *text = xcalloc(1, ANSWER_MAX + 1);
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

int offer_check(const char *hypervisor, const char *accel, struct err *err)
{
	json_t *list = offer_ask(accel, err), *h;
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
