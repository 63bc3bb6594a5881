/* SPDX-License-Identifier: Apache-2.0 */
/* One program of the resource manager starts all agents: srun, aprun, flux exec, a site's own. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "io/child.h"
#include "launcher/backend.h"

extern char **environ;

struct state {
	struct launching *launching;
	struct tool *tool;
	char *program;
	char last[TOOL_LINE_MAX + 1]; /* of standard error: why it ended */
	bool (*on_line)(struct launching *l, bool err, const char *line, bool *ret_own);
};

static void end(void *arg)
{
	struct state *s = arg;
	tool_destroy(s->tool);
	free(s->program);
	free(s);
}

static void on_line(void *arg, bool err, char *line)
{
	struct state *s = arg;
	struct launching *l = s->launching;
	bool own = false;
	if (err && line[0])
		snprintf(s->last, sizeof(s->last), "%s", line);
	if (s->on_line && !s->on_line(l, err, line, &own))
		return;
	if (!own)
		launching_output(l, LAUNCH_ALL, line);
}

static void on_exit_of(void *arg, int status)
{
	struct state *s = arg;
	struct err why = ERR_INIT;
	char text[40];
	if (status != 0)
		err_set(&why, ECHILD, "%s: %s%s%.300s", s->program, child_status_text(status, text),
			s->last[0] ? ": " : "", s->last);
	launching_over(s->launching, &why);
}

static const struct tool_ops onecall_ops = {.on_line = on_line, .on_exit = on_exit_of};

int onecall_start(struct launching *l, struct onecall *c, struct err *err)
{
	struct state *s = xcalloc(1, sizeof(*s));
	*s = (struct state){.launching = l, .program = xstrdup(c->argv.v[0]), .on_line = c->on_line};
	/* It lives on when we are killed: its input ends then, and with it the agents'. Killed, it would leave them. */
	struct tool_spec spec = {.argv = strvec_argv(&c->argv),
				 .env = c->env.n ? strvec_argv(&c->env) : NULL,
				 .input = c->input,
				 .die_with_parent = !c->input};
	s->tool = tool_start(l->loop, &spec, &onecall_ops, s, err);
	strvec_finish(&c->argv);
	strvec_finish(&c->env);
	if (s->tool)
		tool_write(s->tool, buf_head(&c->first), buf_len(&c->first));
	buf_finish(&c->first);
	if (!s->tool) {
		end(s);
		return -1;
	}
	l->state = s;
	l->end = end;
	if (c->input && !l->bootstrap_file)
		tool_write(s->tool, buf_head(&l->bootstrap), buf_len(&l->bootstrap));
	return 0;
}

static bool begins(const char *variable, const char *const *words, bool whole)
{
	for (; words && *words; words++) {
		size_t n = strlen(*words);
		if (strncmp(variable, *words, n) == 0 && (!whole || variable[n] == '='))
			return true;
	}
	return false;
}

void env_without(struct strvec *env, const char *const *prefixes, const char *const *keep)
{
	for (char **v = environ; *v; v++)
		if (!begins(*v, prefixes, false) || begins(*v, keep, true))
			strvec_add(env, *v);
}
