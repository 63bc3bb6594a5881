/* SPDX-License-Identifier: Apache-2.0 */
/* Start through TM, by our program vse-tm. */
#include "launcher/tm.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/size.h"

#define PROBE_MS 5000
#define PROBE_MAX 4096

/* Beside the agent, beside this program, in libexec, in PATH; malloc'ed. */
static char *find_vse_tm(const char *agent)
{
	_cleanup_free_ char *self = path_self_dir(), *of_agent = xstrdup(agent);
	*strrchr(of_agent, '/') = '\0'; /* it is absolute */
	const char *folders[] = {of_agent, self};
	static const char *const names[] = {"vse-tm", "../libexec/vse/vse-tm"};
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		for (size_t k = 0; folders[i] && k < ARRAY_SIZE(names); k++) {
			char *path = path_join(folders[i], names[k]);
			if (access(path, X_OK) == 0)
				return path;
			free(path);
		}
	return path_find_program("vse-tm");
}

/* "ended 3 0", "failed 3 tm_spawn: ..." */
static bool on_line(struct launching *l, bool err, const char *line, bool *ret_own)
{
	struct err why = ERR_INIT;
	size_t node;
	int status, at = 0;
	if (err)
		return true;
	*ret_own = true;
	if (sscanf(line, "spawned %zu", &node) == 1 && node < l->n)
		return launching_started(l, node);
	if (sscanf(line, "ended %zu %d", &node, &status) == 2 && node < l->n) {
		err_set(&why, ECHILD,
			status ? "its agent has ended: status %d" : "its agent has ended", status);
		return launching_failed(l, node, &why);
	}
	if (sscanf(line, "failed %zu %n", &node, &at) == 1 && at && node < l->n) {
		err_set(&why, EIO, "%.400s", line + at);
		return launching_failed(l, node, &why);
	}
	if (strncmp(line, "error ", 6) == 0) {
		err_set(&why, EIO, "%.400s", line + 6);
		return launching_failed(l, LAUNCH_ALL, &why);
	}
	*ret_own = false;
	return true;
}

int tm_start(struct launching *l, const struct launch_start *s, struct err *err)
{
	_cleanup_free_ char *program = find_vse_tm(s->agent->file), *said = NULL;
	_cleanup_strvec_ struct strvec command = STRVEC_INIT;
	struct onecall c = {.input = true, .on_line = on_line};
	if (!program)
		return err_set(err, ENOENT, "vse-tm is not beside vse-agent");
	char *probe[] = {program, (char *)"--probe", NULL};
	if (query_now(probe, PROBE_MS, PROBE_MAX, &said, err) < 0) {
		if (err)
			err->code = ENOENT;
		return -1;
	}
	launch_agent_argv(l, s, LAUNCH_ALL, &command);
	for (size_t i = 0; i < command.n; i++)
		buf_addf(&c.first, "arg %s\n", command.v[i]);
	for (size_t i = 0; i < l->n; i++)
		buf_addf(&c.first, "spawn %zu %u\n", i, s->allocation->nodes[s->nodes[i]].launch_id);
	buf_adds(&c.first, "go\n");
	strvec_add(&c.argv, program);
	return onecall_start(l, &c, err);
}
