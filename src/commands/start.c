/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/start.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/size.h"
#include "client/options.h"
#include "commands/common.h"
#include "commands/progress.h"

struct start {
	const struct command *cmd;
	struct vse_session *session;
	struct progress progress;
	struct interrupts *interrupts; /* only while VMs start: a build is ended by the signal itself */
	int signo;                     /* that interrupted it */
	bool restore;
};

static void on_interrupt(void *arg, int signo)
{
	struct start *s = arg;
	s->signo = signo;
	vse_cancel(s->session);
}

static void print_note(struct start *s, const char *text)
{
	progress_clear(&s->progress);
	if (!s->progress.quiet)
		fprintf(stderr, "vse %s: note: %s\n", s->cmd->name, text);
}

static int on_event(void *arg, const struct vse_event *e)
{
	struct start *s = arg;
	int kind = vse_event_kind(e);
	const char *more = vse_event_data(e, NULL);
	unsigned done = (unsigned)vse_event_number(e, "done"),
		 total = (unsigned)vse_event_number(e, "total");
	if (kind == VSE_STARTING && !s->interrupts)
		s->interrupts = interrupts_create(s->session->loop, on_interrupt, s);
	if (kind == VSE_STARTING || kind == VSE_BUILDING)
		progress_step(&s->progress, vse_event_text(e), done, total, more ? more : "");
	else if (kind == VSE_NOTE)
		print_note(s, vse_event_text(e));
	return 0;
}

/* ---- --dry-run ---- */

static const char *text(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

static json_int_t number(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static void print_plan(const json_t *j)
{
	json_int_t n = number(j, "size"), cpus = number(j, "cpus");
	char memory[24], scratch[24];
	size_format((uint64_t)number(j, "memory"), memory);
	size_format((uint64_t)number(j, "scratch"), scratch);
	printf("cluster %s: %lld VM%s of %s, each %lld CPU%s, %s memory, %s scratch\n",
	       text(j, "name"), (long long)n, n == 1 ? "" : "s", text(j, "vse"), (long long)cpus,
	       cpus == 1 ? "" : "s", memory, number(j, "scratch") ? scratch : "no");
	printf("image: %s\n", json_is_false(json_object_get(j, "needs_image")) ? "none needed"
			      : text(j, "image")[0]                            ? text(j, "image")
									       : "would be built");
	printf("launcher %s: %s\n", text(j, "launcher"), text(j, "why"));
}

/* How the VMs would be placed, and why so. */
static void print_nodes(const json_t *j)
{
	const json_t *nodes = json_object_get(j, "nodes"), *n;
	size_t i;
	if (!nodes && strcmp(text(j, "launcher"), "local") != 0)
		printf("nodes: not known before the resource manager has given them\n");
	else if (!nodes)
		printf("nodes: this one, with all VMs\n");
	json_array_foreach (nodes, i, n) {
		const char *ranks = text(n, "ranks");
		bool many = strpbrk(ranks, ",-");
		printf("node %s: %s%s%s%s; %s\n", text(n, "name"), ranks[0] ? "vm" : "no VMs",
		       many ? "[" : "", ranks, many ? "]" : "", text(n, "why"));
	}
}

static int dry_run(struct start *s, const char *file, const struct vse_options *o)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	_cleanup_free_ char *plan = NULL;
	if (vse_plan(s->session, file, o, &plan, &e))
		return common_fail(s->cmd, &e);
	json_t *j = json_loads(plan, 0, NULL);
	print_plan(j);
	print_nodes(j);
	int code = -1;
	if (text(j, "problem")[0]) {
		fprintf(stderr, "vse %s: %s\n", s->cmd->name, text(j, "problem"));
		code = EXIT_FAILED;
	}
	json_decref(j);
	return code;
}

/* ---- */

static int failed(struct start *s, const struct vse_error *e, const char *name)
{
	if (s->signo) {
		fprintf(stderr, "vse %s: interrupted: the cluster was ended\n", s->cmd->name);
		return 128 + s->signo;
	}
	int code = common_fail(s->cmd, e);
	if (e->kept)
		fprintf(stderr, "vse %s: cluster '%s' was kept: 'vse logs -c %s vm0' shows a console, 'vse down %s' ends it\n",
			s->cmd->name, name, name, name);
	return code;
}

static int up(struct start *s, const char *file, const struct vse_options *o, struct vse_cluster **ret)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	int rc = (s->restore ? vse_restore : vse_up)(s->session, file, o, on_event, s, ret, &e);
	interrupts_destroy(s->interrupts);
	progress_clear(&s->progress);
	return rc ? failed(s, &e, e.cluster) : 0;
}

static int start(struct start *s, const struct args *a, const char *file, start_check *check,
		 const struct vse_options *o, struct vse_cluster **ret)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	int code = check ? check(s->cmd, a, (uint32_t)options_int(o, "count", 1)) : 0;
	if (code)
		return code;
	if (vse_open(&s->session, &e))
		return common_fail(s->cmd, &e);
	return !s->restore && arg_flag(a, "dry-run") ? dry_run(s, file, o) : up(s, file, o, ret);
}

static int begin(const struct command *cmd, const struct args *a, const char *file, bool restore,
		 start_check *check, struct started *ret)
{
	struct start s = {.cmd = cmd, .restore = restore};
	struct vse_options *o;
	struct vse_cluster *c;
	int code = common_options(cmd, a, FOR_UP, &o);
	if (code)
		return code;
	progress_begin(&s.progress, arg_flag(a, "quiet"));
	code = start(&s, a, file, check, o, &c);
	vse_options_free(o);
	if (code)
		vse_close(s.session);
	else
		*ret = (struct started){.session = s.session, .cluster = c};
	return code;
}

int start_cluster(const struct command *cmd, const struct args *a, const char *file,
		  start_check *check, struct started *ret)
{
	return begin(cmd, a, file, false, check, ret);
}

int start_restored(const struct command *cmd, const struct args *a, const char *dir, struct started *ret)
{
	return begin(cmd, a, dir, true, NULL, ret);
}

int start_leave(const struct command *cmd, const struct args *a, struct started *s)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	char took[24];
	int n = vse_size(s->cluster, NULL); /* known: asks nobody */
	int rc = vse_detach(s->cluster, &e);
	duration_format(s->cluster->ready_ms, took);
	if (!rc && !arg_flag(a, "quiet"))
		printf("%s: %d VM%s ready in %s\n", vse_name(s->cluster), n, n == 1 ? "" : "s", took);
	started_finish(s);
	return rc ? common_fail(cmd, &e) : EXIT_OK;
}

void started_finish(struct started *s)
{
	vse_close(s->session);
	*s = (struct started){0};
}
