/* SPDX-License-Identifier: Apache-2.0 */
/* A launching, as all back ends have it: who was told to have failed, the bootstrap's way, its end. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "base/path.h"
#include "launcher/backend.h"

/* ---- telling ---- */

static void release(struct launching *l)
{
	if (l->busy)
		return;
	for (size_t i = 0; i < l->n; i++)
		free(l->names[i]);
	free(l->names);
	free(l->failed);
	free(l->bootstrap_file);
	buf_finish(&l->bootstrap);
	evtimer_destroy(l->soon);
	free(l);
}

static bool leave(struct launching *l)
{
	l->busy--;
	if (!l->dead)
		return true;
	release(l);
	return false;
}

bool launching_started(struct launching *l, size_t node)
{
	l->busy++;
	if (l->ops->on_node_started)
		l->ops->on_node_started(l->arg, node);
	return leave(l);
}

bool launching_failed(struct launching *l, size_t node, const struct err *why)
{
	if (node != LAUNCH_ALL) {
		if (l->failed[node])
			return true;
		l->failed[node] = true;
	}
	l->busy++;
	l->ops->on_node_failed(l->arg, node, why);
	return leave(l);
}

bool launching_failed_name(struct launching *l, const char *name, const struct err *why)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->names[i], name) == 0 && !launching_failed(l, i, why))
			return false;
	return true;
}

bool launching_output(struct launching *l, size_t node, const char *line)
{
	l->busy++;
	if (l->ops->on_output)
		l->ops->on_output(l->arg, node, line);
	return leave(l);
}

static void on_over(void *arg)
{
	struct launching *l = arg;
	l->busy++;
	l->ops->on_ended(l->arg, &l->over);
	leave(l);
}

void launching_over(struct launching *l, const struct err *why)
{
	l->over = *why;
	evtimer_start(l->soon, 0, 0);
}

void launching_destroy(struct launching *l)
{
	if (!l)
		return;
	if (l->end)
		l->end(TAKE_PTR(l->state));
	l->end = NULL;
	if (l->bootstrap_file)
		unlink(l->bootstrap_file);
	evtimer_stop(l->soon);
	l->dead = true;
	release(l);
}

/* ---- what is started ---- */

void launch_agent_argv(const struct launching *l, const struct launch_start *s, size_t node,
		       struct strvec *argv)
{
	strvec_add(argv, s->agent->shared ? s->agent->shared : s->agent->file);
	if (s->agent->args)
		strvec_copy(argv, s->agent->args);
	if (l->bootstrap_file)
		strvec_addv(argv, "--bootstrap", l->bootstrap_file, NULL);
	if (node != LAUNCH_ALL && s->agent->index) {
		strvec_add(argv, "--index");
		strvec_addf(argv, "%u", s->agent->index[node]);
	}
}

char *launch_hostlist(const struct launching *l)
{
	return hostlist_fold(l->names, l->n);
}

/* They go through the user's login shell on the node, whichever that is. */
static int check_argument(const char *s, struct err *err)
{
	for (size_t i = 0; s[i]; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr("_/.=:,+@%-", s[i]))
			return err_set(
				err, EINVAL,
				"argument of the agent '%s': only letters, digits and _/.=:,+@%%-", s);
	return s[0] ? 0 : err_set(err, EINVAL, "an argument of the agent is empty");
}

static int check(const struct launch_start *s, struct err *err)
{
	const struct launch_agent *g = s->agent;
	if (!s->n)
		return err_set(err, EINVAL, "no node to start on");
	for (size_t i = 0; i < s->n; i++)
		if (s->nodes[i] >= s->allocation->n_nodes)
			return err_set(err, EINVAL, "there is no node %zu", s->nodes[i]);
	if (!g->file || g->file[0] != '/' || (g->shared && g->shared[0] != '/'))
		return err_set(err, EINVAL, "the agent needs an absolute path");
	for (size_t i = 0; g->args && i < g->args->n; i++)
		if (check_argument(g->args->v[i], err) < 0)
			return -1;
	return 0;
}

int launching_use_file(struct launching *l, const struct launch_start *s, struct err *err)
{
	const char *folder = s->agent->bootstrap_dir;
	struct stat st;
	if (!folder)
		return err_set(err,
			       EINVAL, "it does not carry input to every agent: a folder that all nodes see is needed");
	if (stat(folder, &st) < 0)
		return err_errno(err, errno, "%s", folder);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return err_set(err, EPERM, "%s: not a folder that is open to you alone (mode 0700)",
			       folder);
	_cleanup_free_ char *path = path_join(folder, "bootstrap-XXXXXX");
	if (check_argument(folder, err) < 0)
		return -1;
	_cleanup_close_ int fd = mkostemp(path, O_CLOEXEC); /* of mode 0600 */
	if (fd < 0)
		return err_errno(err, errno, "%s", path);
	l->bootstrap_file = TAKE_PTR(path);
	if (fd_write_all(fd, buf_head(&l->bootstrap), buf_len(&l->bootstrap)) < 0 || fsync(fd) < 0)
		return err_errno(err, errno, "%s", l->bootstrap_file);
	return 0;
}

struct launch_options launch_options_filled(const struct launch_options *o)
{
	struct launch_options all = o ? *o : (struct launch_options){0};
	all.parallel = all.parallel ? all.parallel : 32;
	all.per_host = all.per_host ? all.per_host : 4;
	all.tries = all.tries ? all.tries : 4;
	all.connect_ms = all.connect_ms ? all.connect_ms : 10000;
	all.deadline_ms = all.deadline_ms ? all.deadline_ms : 30000;
	return all;
}

/* All but the start itself. */
struct launching *launching_new(const struct launcher *how, struct loop *loop, struct launch_start *s,
				const struct launch_ops *ops, void *arg, struct err *err)
{
	if (check(s, err) < 0)
		return NULL;
	struct launching *l = xcalloc(1, sizeof(*l));
	*l = (struct launching){.how = how, .loop = loop, .ops = ops, .arg = arg, .n = s->n};
	l->soon = evtimer_create(loop, on_over, l);
	l->failed = xcalloc(s->n, sizeof(*l->failed));
	l->names = xcalloc(s->n, sizeof(*l->names));
	for (size_t i = 0; i < s->n; i++)
		l->names[i] = xstrdup(s->allocation->nodes[s->nodes[i]].name);
	buf_add(&l->bootstrap, s->agent->bootstrap, s->agent->bootstrap_len);
	if (how->carries_input || !s->agent->bootstrap_len || launching_use_file(l, s, err) == 0)
		return l;
	launching_destroy(l);
	return NULL;
}
