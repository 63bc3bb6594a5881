/* SPDX-License-Identifier: Apache-2.0 */
/* One program a node: pbs_tmrsh, a site's own. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "io/child.h"
#include "launcher/backend.h"

struct one {
	struct pernode *all;
	size_t node;
	struct tool *tool;
	char last[TOOL_LINE_MAX + 1];
};

struct pernode {
	struct launching *launching;
	struct strvec *argv; /* one a node */
	struct one *c;
	size_t next, over; /* the first that was not started; how many have ended */
	unsigned at_once;
	bool input, some_failed;
	struct err err;
	struct evtimer *again;
};

static void end(void *arg)
{
	struct pernode *p = arg;
	for (size_t i = 0; i < p->launching->n; i++) {
		tool_destroy(p->c[i].tool);
		strvec_finish(&p->argv[i]);
	}
	free(p->c);
	free(p->argv);
	evtimer_destroy(p->again);
	free(p);
}

/* False: the launching is gone. */
static bool finish(struct one *c, const struct err *why)
{
	struct pernode *p = c->all;
	struct err ended = *why;
	tool_destroy(TAKE_PTR(c->tool));
	p->over++;
	if (why->code && !p->some_failed) {
		p->some_failed = true;
		p->err = *why;
	}
	if (!why->code)
		err_set(&ended, ECHILD, "its agent has ended");
	if (!launching_failed(p->launching, c->node, &ended))
		return false;
	if (p->over == p->launching->n)
		launching_over(p->launching, &p->err);
	return true;
}

static void on_line(void *arg, bool err, char *line)
{
	struct one *c = arg;
	if (err && line[0])
		snprintf(c->last, sizeof(c->last), "%s", line);
	launching_output(c->all->launching, c->node, line);
}

static void on_exit_of(void *arg, int status)
{
	struct one *c = arg;
	struct err why = ERR_INIT;
	char text[40];
	if (status != 0)
		err_set(&why, ECHILD, "%s: %s%s%.300s", c->all->argv[c->node].v[0],
			child_status_text(status, text), c->last[0] ? ": " : "", c->last);
	finish(c, &why);
}

static const struct tool_ops one_ops = {.on_line = on_line, .on_exit = on_exit_of};

static int start_one(struct one *c, struct err *err)
{
	struct pernode *p = c->all;
	struct launching *l = p->launching;
	struct tool_spec spec = {.argv = strvec_argv(&p->argv[c->node]),
				 .input = p->input,
				 .die_with_parent = true};
	c->tool = tool_start(l->loop, &spec, &one_ops, c, err);
	if (!c->tool)
		return -1;
	if (p->input && !l->bootstrap_file)
		tool_write(c->tool, buf_head(&l->bootstrap), buf_len(&l->bootstrap));
	return 0;
}

static void go_on(void *arg)
{
	struct pernode *p = arg;
	for (unsigned i = 0; i < p->at_once && p->next < p->launching->n; i++) {
		struct one *c = &p->c[p->next++];
		struct err err = ERR_INIT;
		if (start_one(c, &err) < 0 && !finish(c, &err))
			return;
	}
	if (p->next < p->launching->n)
		evtimer_start(p->again, 0, 0);
}

void pernode_start(struct launching *l, struct strvec *argv, unsigned at_once, bool input)
{
	struct pernode *p = xcalloc(1, sizeof(*p));
	*p = (struct pernode){.launching = l, .argv = argv, .at_once = at_once, .input = input};
	p->c = xcalloc(l->n, sizeof(*p->c));
	for (size_t i = 0; i < l->n; i++)
		p->c[i] = (struct one){.all = p, .node = i};
	p->again = evtimer_create(l->loop, go_on, p);
	evtimer_start(p->again, 0, 0);
	l->state = p;
	l->end = end;
}
