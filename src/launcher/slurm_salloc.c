/* SPDX-License-Identifier: Apache-2.0 */
/* An allocation of our own: `salloc ... cat /proc/self/environ -`. cat shows the job's variables and then waits for the
 * end of its input: that end, ours too whatever ends us, gives the allocation back. Unless somebody else has it open. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/size.h"
#include "base/text.h"
#include "io/child.h"
#include "launcher/slurm.h"

#define WAIT_MS 3600000u
#define FIRST_ASK_MS 2000u
#define ASK_EVERY_MS 15000u
#define ASK_MS 5000u
#define ENV_MAX (1u << 20)
/* Written to cat, comes back after the last variable. */
static const char end_mark[] = "\n--end of the environment--\n";

struct salloc {
	struct allocating *allocating;
	struct tool *tool;
	struct query *query;
	struct evtimer *ask, *deadline;
	struct buf env, said; /* NAME=VALUE with NULs; what salloc itself printed */
	char job[24];         /* "" before it is known */
	uint64_t wait_ms;
};

struct salloc_hold {
	struct allocation_hold base;
	struct tool *tool;
};

static void finish(struct salloc *s)
{
	query_destroy(s->query);
	evtimer_destroy(s->ask);
	evtimer_destroy(s->deadline);
	buf_finish(&s->env);
	buf_finish(&s->said);
	free(s);
}

/* Given up while it waits: at SIGTERM salloc takes its request back. */
static void end(void *arg)
{
	struct salloc *s = arg;
	tool_destroy(s->tool);
	finish(s);
}

static void fail(struct salloc *s, const struct err *why)
{
	struct allocating *a = s->allocating;
	a->state = NULL;
	a->end = NULL;
	end(s);
	allocating_failed(a, why);
}

static void give_back(struct allocation_hold *h)
{
	struct salloc_hold *hold = CONTAINER_OF(h, struct salloc_hold, base);
	if (hold->tool)
		tool_release(hold->tool);
	free(hold);
}

static int hold_fd(const struct allocation_hold *h)
{
	const struct salloc_hold *hold = CONTAINER_OF(h, struct salloc_hold, base);
	return hold->tool ? tool_input_fd(hold->tool) : -1;
}

/* ---- what it prints ---- */

/* salloc ended while we hold the job: it was cancelled, or its time is over. The agents see the end on their own. */
static void on_held_exit(void *arg, int status _unused_)
{
	struct salloc_hold *hold = arg;
	tool_destroy(TAKE_PTR(hold->tool));
}

static void on_held_bytes(void *arg _unused_, bool err _unused_, const char *data _unused_,
			  size_t len _unused_)
{
}

static const struct tool_ops held_ops = {.on_bytes = on_held_bytes, .on_exit = on_held_exit};

static const char *from_text(void *arg, const char *name)
{
	struct buf *env = arg;
	size_t n = strlen(name), at = 0;
	const char *text = buf_cstr(env);
	while (at < buf_len(env)) {
		const char *v = text + at;
		if (strncmp(v, name, n) == 0 && v[n] == '=')
			return v[n + 1] ? v + n + 1 : NULL;
		at += strlen(v) + 1;
	}
	return NULL;
}

static void granted(struct salloc *s)
{
	struct allocating *a = s->allocating;
	const char *job = from_text(&s->env, "SLURM_JOB_ID");
	_cleanup_allocation_ struct allocation *all = allocation_new(a->launcher, job ? job : s->job);
	struct err err = ERR_INIT;
	if (slurm_read(all, from_text, &s->env, &err) < 0) {
		fail(s, &err);
		return;
	}
	struct salloc_hold *hold = xcalloc(1, sizeof(*hold));
	hold->base.end = give_back;
	hold->base.fd = hold_fd;
	hold->tool = s->tool;
	tool_set_ops(hold->tool, &held_ops, hold);
	all->hold = &hold->base;
	a->state = NULL;
	a->end = NULL;
	finish(s);
	allocating_ready(a, TAKE_PTR(all));
}

/* "salloc: Granted job allocation 17", "salloc: Pending job allocation 17" */
static void look_for_job(struct salloc *s)
{
	static const char word[] = "job allocation ";
	const char *at = strstr(buf_cstr(&s->said), word);
	if (!at || s->job[0])
		return;
	at += strlen(word);
	size_t n = strspn(at, "0123456789");
	if (n && n < sizeof(s->job) && at[n])
		snprintf(s->job, sizeof(s->job), "%.*s", (int)n, at);
}

static void on_bytes(void *arg, bool err, const char *data, size_t len)
{
	struct salloc *s = arg;
	struct buf *b = err ? &s->said : &s->env;
	struct err why = ERR_INIT;
	if (buf_len(b) + len > ENV_MAX) {
		err_set(&why, EFBIG, "salloc prints more than %u bytes", ENV_MAX);
		fail(s, &why);
		return;
	}
	buf_add(b, data, len);
	look_for_job(s);
	if (!err && buf_len(b) && memmem(buf_head(b), buf_len(b), end_mark, strlen(end_mark)))
		granted(s);
}

static void on_exit_of(void *arg, int status)
{
	struct salloc *s = arg;
	struct err why = ERR_INIT;
	char text[40];
	_cleanup_free_ char *said = text_cleaned(last_line((char *)buf_cstr(&s->said)));
	err_set(&why, EIO, "%.300s", said[0] ? said : child_status_text(status, text));
	fail(s, &why);
}

static const struct tool_ops salloc_ops = {.on_bytes = on_bytes, .on_exit = on_exit_of};

/* ---- while it waits ---- */

static void on_reason(void *arg, const struct err *why, int status, const char *out,
		      const char *errors _unused_)
{
	struct salloc *s = arg;
	struct allocating *a = s->allocating;
	_cleanup_free_ char *reason = text_cleaned(out), *text = NULL;
	bool known = !why->code && status == 0 && reason[0];
	s->query = NULL;
	evtimer_start(s->ask, ASK_EVERY_MS, 0);
	text = xasprintf("waiting for job %s%s%.80s%s", s->job, known ? " (" : "",
			 known ? last_line(reason) : "", known ? ")" : "");
	allocating_progress(a, text);
}

static void on_ask(void *arg)
{
	struct salloc *s = arg;
	char *argv[] = {(char *)"squeue", (char *)"-h", (char *)"-j", s->job,
			(char *)"-o",     (char *)"%r", NULL};
	if (s->job[0])
		s->query = query_start(s->allocating->loop, argv, ASK_MS, ENV_MAX, on_reason, s, NULL);
	if (!s->query)
		evtimer_start(s->ask, ASK_EVERY_MS, 0);
}

static void on_deadline(void *arg)
{
	struct salloc *s = arg;
	struct err why = ERR_INIT;
	char text[24];
	duration_format(s->wait_ms, text);
	err_set(&why, ETIMEDOUT, "no nodes within %s%s%s", text, s->job[0] ? ", gave up job " : "",
		s->job);
	fail(s, &why);
}

/* ---- start ---- */

static bool asks_for(const struct launch_request *r, const char *const *options)
{
	for (size_t i = 0; r->args && i < r->args->n; i++)
		for (const char *const *o = options; *o; o++)
			if (strncmp(r->args->v[i], *o, strlen(*o)) == 0)
				return true;
	return false;
}

static void add_argv(const struct launch_request *r, struct strvec *argv)
{
	/* Whole nodes, unless the user says how much of one. */
	static const char *const cpus[] =
		{"-c",        "-n", "-s", "--cpus", "--ntasks", "--exclusive", "--oversubscribe",
		 "--mincpus", NULL},
				 *const memory[] = {"--mem", NULL};
	strvec_addv(argv, "salloc", "--no-kill", "--no-bell", NULL);
	strvec_addf(argv, "--nodes=%u", r->nodes);
	if (!asks_for(r, cpus))
		strvec_add(argv, "--exclusive");
	if (!asks_for(r, cpus) && !asks_for(r, memory))
		strvec_add(argv, "--mem=0");
	if (r->args)
		strvec_copy(argv, r->args);
	strvec_addv(argv, "cat", "/proc/self/environ", "-", NULL);
}

int slurm_salloc(struct allocating *a, const struct launch_request *r, struct err *err)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	if (!r->nodes)
		return err_set(err, EINVAL, "in no job, so it needs a number of nodes to ask for");
	add_argv(r, &argv);
	struct salloc *s = xcalloc(1, sizeof(*s));
	*s = (struct salloc){.allocating = a, .wait_ms = r->wait_ms ? r->wait_ms : WAIT_MS};
	struct tool_spec spec = {.argv = strvec_argv(&argv), .input = true};
	s->ask = evtimer_create(a->loop, on_ask, s);
	s->deadline = evtimer_create(a->loop, on_deadline, s);
	a->state = s;
	a->end = end;
	s->tool = tool_start(a->loop, &spec, &salloc_ops, s, err);
	if (!s->tool)
		return -1;
	tool_write(s->tool, end_mark, strlen(end_mark));
	evtimer_start(s->ask, FIRST_ASK_MS, 0);
	evtimer_start(s->deadline, s->wait_ms, 0);
	return 0;
}
