/* SPDX-License-Identifier: Apache-2.0 */
/* Launchers out of configuration files: the same ops for all, each with its own words. */
#include "launcher/site.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/text.h"
#include "launcher/backend.h"
#include "launcher/parse.h"

#define SITE_LAUNCHERS_MAX 64
#define ASK_MS 30000

struct loaded {
	struct launcher launcher; /* .site NULL: malformed */
	char *name, *wrong;
};

static struct loaded *all;
static size_t n_all;
static bool was_read;

/* ---- which nodes ---- */

static enum launch_fit probe(const struct launcher *l, char why[LAUNCH_WHY_MAX])
{
	const struct site_launcher *s = l->site;
	if (!s)
		return launch_fit(why, LAUNCH_UNUSABLE, "%.240s",
				  CONTAINER_OF(l, struct loaded, launcher)->wrong);
	if (!in_path(s->launch.v[0]))
		return launch_fit(why, LAUNCH_UNUSABLE, "%.100s is not in PATH", s->launch.v[0]);
	if (s->inside_env && env_of(s->inside_env))
		return launch_fit(why, LAUNCH_INSIDE, "%.60s is set", s->inside_env);
	return launch_fit(why, LAUNCH_USABLE, "%.60s is here%s%.60s%s", s->launch.v[0],
			  s->inside_env ? "; " : "", s->inside_env ? s->inside_env : "",
			  s->inside_env ? " is not set" : "");
}

static const char *job_of(const struct site_launcher *s)
{
	const char *job = s->job_env ? env_of(s->job_env) : NULL;
	return job ? job : "";
}

/* One word with what its %-words stand for; malloc'ed. */
static char *fill_in(const char *word, size_t n, const char *list, const char *job, const char *host)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (const char *p = word; *p; p++) {
		if (*p != '%') {
			buf_addc(&b, *p);
			continue;
		}
		switch (*++p) {
		case 'n': buf_addf(&b, "%zu", n); break;
		case 'l': buf_adds(&b, list); break;
		case 'j': buf_adds(&b, job); break;
		case 'h': buf_adds(&b, host); break;
		default: buf_addc(&b, '%');
		}
	}
	return buf_take(&b);
}

struct asking {
	struct allocating *allocating;
	struct query *query;
};

static void end(void *arg)
{
	struct asking *q = arg;
	query_destroy(q->query);
	free(q);
}

static void on_nodes(void *arg, const struct err *why, int status, const char *out, const char *errors)
{
	struct asking *q = arg;
	struct allocating *a = q->allocating;
	_cleanup_allocation_ struct allocation *r = allocation_new(a->launcher,
								   job_of(a->launcher->site));
	_cleanup_free_ char *said = text_cleaned(errors);
	struct err err = *why;
	if (!err.code && status != 0)
		err_set(&err, EIO, "%s: %.300s", a->launcher->site->nodes.v[0], last_line(said));
	if (!err.code)
		allocation_add_hosts(r, out, &err);
	q->query = NULL;
	a->state = NULL;
	a->end = NULL;
	end(q);
	allocation_unite(r);
	if (err.code)
		allocating_failed(a, &err);
	else
		allocating_ready(a, TAKE_PTR(r));
}

static int ask_command(struct allocating *a, struct err *err)
{
	const struct site_launcher *s = a->launcher->site;
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	for (size_t i = 0; i < s->nodes.n; i++)
		strvec_take(&argv, fill_in(s->nodes.v[i], 0, "", job_of(s), ""));
	struct asking *q = xcalloc(1, sizeof(*q));
	q->allocating = a;
	a->state = q;
	a->end = end;
	q->query = query_start(a->loop, strvec_argv(&argv), ASK_MS, LAUNCH_TEXT_MAX, on_nodes, q, err);
	return q->query ? 0 : -1;
}

static int read_file(const struct site_launcher *s, struct allocation *r, struct err *err)
{
	const char *path = s->nodes_file[0] == '$' ? env_of(s->nodes_file + 1) : s->nodes_file;
	_cleanup_free_ char *text = NULL;
	if (!path)
		return err_set(err, ENOENT, "%s is not set", s->nodes_file + 1);
	if (path_read(path, LAUNCH_TEXT_MAX, &text, NULL, err) < 0)
		return -1;
	return parse_nodefile(text, r, err) < 0 ? err_prefix(err, "%s: ", path) : 0;
}

static int allocate(struct allocating *a, const struct launch_request *req, struct err *err)
{
	const struct site_launcher *s = a->launcher->site;
	const char *list = s->nodes_env ? env_of(s->nodes_env) : req->hosts;
	if (s->nodes.n)
		return ask_command(a, err);
	_cleanup_allocation_ struct allocation *r = allocation_new(a->launcher, job_of(s));
	if (s->nodes_file && read_file(s, r, err) < 0)
		return -1;
	if (!s->nodes_file && !list)
		return err_set(err, ENOENT, s->nodes_env ? "%s is not set" : "%sit needs --hosts",
			       s->nodes_env ? s->nodes_env : "");
	if (list && !s->nodes_file && allocation_add_hosts(r, list, err) < 0)
		return -1;
	allocation_unite(r);
	allocating_ready(a, TAKE_PTR(r));
	return 0;
}

/* ---- start ---- */

static void add_argv(const struct launching *l, const struct launch_start *st, const char *list,
		     size_t node, struct strvec *argv)
{
	const struct site_launcher *s = l->how->site;
	const char *host = node == LAUNCH_ALL ? "" : l->names[node];
	for (size_t i = 0; i < s->launch.n; i++) {
		if (strcmp(s->launch.v[i], "%a") == 0)
			launch_agent_argv(l, st, node, argv);
		else
			strvec_take(argv,
				    fill_in(s->launch.v[i], l->n, list, st->allocation->job, host));
	}
}

static int start(struct launching *l, const struct launch_start *st, struct err *err)
{
	const struct site_launcher *s = l->how->site;
	bool input = s->input == SITE_STDIN_ALL;
	if (!s->per_node) {
		struct onecall c = {.input = input};
		_cleanup_free_ char *list = launch_hostlist(l);
		add_argv(l, st, list, LAUNCH_ALL, &c.argv);
		return onecall_start(l, &c, err);
	}
	struct strvec *argv = xcalloc(l->n, sizeof(*argv));
	for (size_t i = 0; i < l->n; i++)
		add_argv(l, st, "", i, &argv[i]);
	pernode_start(l, argv, st->o->parallel, input);
	return 0;
}

/* ---- the files ---- */

static bool taken(const char *name)
{
	const struct launcher *l;
	for (size_t i = 0; i < n_all; i++)
		if (strcmp(all[i].name, name) == 0)
			return true;
	for (size_t i = 0; (l = launcher_at(i)) && !l->site; i++)
		if (strcmp(l->name, name) == 0)
			return true;
	return false;
}

static void load(const char *folder, const char *file)
{
	_cleanup_free_ char *path = path_join(folder, file), *text = NULL;
	_cleanup_free_ char *name = xstrndup(file, strlen(file) - strlen(".conf"));
	struct err err = ERR_INIT;
	struct site_launcher *s = NULL;
	if (n_all == SITE_LAUNCHERS_MAX || taken(name))
		return;
	if (path_read(path, SITE_FILE_MAX, &text, NULL, &err) == 0)
		site_parse(text, &s, &err);
	struct loaded *l = &all[n_all++];
	l->name = TAKE_PTR(name);
	l->launcher = (struct launcher){.name = l->name,
					.summary = s && s->summary ? s->summary : "of the site",
					.probe = probe,
					.allocate = s ? allocate : NULL,
					.start = s ? start : NULL,
					.carries_input = s && s->input == SITE_STDIN_ALL,
					.names_nodes = s && s->per_node,
					.site = s};
	if (!s)
		l->wrong = xasprintf("%s: %s", path, err.text);
}

static void load_folder(const char *folder)
{
	_cleanup_strvec_ struct strvec files = STRVEC_INIT;
	DIR *d = opendir(folder);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		size_t n = strlen(e->d_name);
		if (n > 5 && e->d_name[0] != '.' && strcmp(e->d_name + n - 5, ".conf") == 0)
			strvec_add(&files, e->d_name);
	}
	if (d)
		closedir(d);
	strvec_sort(&files);
	for (size_t i = 0; i < files.n; i++)
		load(folder, files.v[i]);
}

static void load_all(void)
{
	const char *config = env_of("XDG_CONFIG_HOME"), *home = env_of("HOME");
	_cleanup_free_ char *own = config ? xasprintf("%s/vse/launchers.d", config)
				   : home ? xasprintf("%s/.config/vse/launchers.d", home)
					  : NULL;
	was_read = true;
	all = xcalloc(SITE_LAUNCHERS_MAX, sizeof(*all));
	if (own)
		load_folder(own);
	load_folder("/etc/vse/launchers.d");
}

const struct launcher *site_launcher_at(size_t i)
{
	if (!was_read)
		load_all();
	return i < n_all ? &all[i].launcher : NULL;
}

void site_forget(void)
{
	for (size_t i = 0; i < n_all; i++) {
		site_destroy((struct site_launcher *)all[i].launcher.site);
		free(all[i].name);
		free(all[i].wrong);
	}
	free(all);
	all = NULL;
	n_all = 0;
	was_read = false;
}
