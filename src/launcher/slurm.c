/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher `slurm`: the nodes of the job we run in, or of one that is asked for with salloc; one srun starts all
 * agents. The options and why: docs/launchers.md. */
#include "launcher/slurm.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "launcher/parse.h"

#define ASK_MS 5000
#define SAID_MAX (64u << 10)
#define EXTERNAL_LAUNCHER 2311 /* the first version that has the option */

static const char *from_env(void *arg _unused_, const char *name)
{
	return env_of(name);
}

static const char *job_id(void)
{
	const char *id = env_of("SLURM_JOB_ID");
	return id ? id : env_of("SLURM_JOBID");
}

static enum launch_fit probe(const struct launcher *l _unused_, char why[LAUNCH_WHY_MAX])
{
	bool srun = in_path("srun");
	if (job_id())
		return launch_fit(why, srun ? LAUNCH_INSIDE : LAUNCH_UNUSABLE, "in job %.40s%s",
				  job_id(), srun ? "" : ", but srun is not in PATH");
	if (!srun || !in_path("salloc"))
		return launch_fit(why, LAUNCH_UNUSABLE, "%s is not in PATH", srun ? "salloc" : "srun");
	return launch_fit(why, LAUNCH_USABLE, "srun and salloc are here; in no job now");
}

static int allocate(struct allocating *a, const struct launch_request *r, struct err *err)
{
	if (!job_id())
		return slurm_salloc(a, r, err);
	_cleanup_allocation_ struct allocation *all = allocation_new(a->launcher, job_id());
	if (slurm_read(all, from_env, NULL, err) < 0)
		return -1;
	allocating_ready(a, TAKE_PTR(all));
	return 0;
}

/* ---- time ---- */

static void on_left(void *arg, const struct err *why, int status, const char *out,
		    const char *errors _unused_)
{
	struct time_query *q = arg;
	_cleanup_free_ char *text = xstrdup(out);
	int64_t seconds;
	q->query = NULL;
	if (why->code || status != 0 || parse_slurm_time(last_line(text), &seconds, NULL) < 0)
		seconds = -1;
	time_query_answer(q, seconds);
}

static int time_left(struct time_query *q, const struct allocation *a, struct err *err)
{
	char *argv[] = {(char *)"squeue", (char *)"-h", (char *)"-j", a->job,
			(char *)"-o",     (char *)"%L", NULL};
	q->query = query_start(q->loop, argv, ASK_MS, SAID_MAX, on_left, q, err);
	return q->query ? 0 : -1;
}

/* ---- start ---- */

static bool on_line(struct launching *l, bool err, const char *line, bool *ret_own)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	struct err why = ERR_INIT;
	*ret_own = err && strncmp(line, "srun: ", 6) == 0;
	if (!err || !slurm_lost_nodes(line, &names))
		return true;
	/* What slurmstepd exits with when there is no such program. */
	bool absent = strstr(line, "Exited with exit code 2") != NULL;
	err_set(&why, ECHILD, "%.400s%s", line,
		absent ? " (is vse-agent there, at the same path as here?)" : "");
	for (size_t i = 0; i < names.n; i++)
		if (!launching_failed_name(l, names.v[i], &why))
			return false;
	return true;
}

static unsigned version(void)
{
	char *argv[] = {(char *)"srun", (char *)"--version", NULL};
	_cleanup_free_ char *out = NULL;
	return query_now(argv, ASK_MS, SAID_MAX, &out, NULL) < 0 ? 0 : slurm_version(out);
}

/* One component: its options and the agent's command. */
static void add_component(const struct launching *l, const struct launch_start *s, unsigned group,
			  bool several, struct strvec *argv)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	size_t there = 0;
	for (size_t i = 0; i < s->allocation->n_nodes; i++)
		there += s->allocation->nodes[i].group == group;
	for (size_t i = 0; i < s->n; i++)
		if (s->allocation->nodes[s->nodes[i]].group == group)
			strvec_add(&names, l->names[i]);
	if (several)
		strvec_addf(argv, "--het-group=%u", group);
	strvec_addf(argv, "--nodes=%zu", names.n);
	strvec_addf(argv, "--ntasks=%zu", names.n);
	/* One of a component cannot kill the others, nor can a node that fails; the agent's own rules decide. */
	strvec_addv(argv, "--ntasks-per-node=1", "--cpu-bind=none", "--mpi=none", "--kill-on-bad-exit=0",
		    "--no-kill", "--wait=0", "--unbuffered", "--input=all", NULL);
	if (names.n < there) {
		_cleanup_free_ char *list = hostlist_fold(names.v, names.n);
		strvec_addf(argv, "--nodelist=%s", list);
	}
	if (s->o->args && s->allocation->hold == NULL)
		strvec_copy(argv, s->o->args);
	launch_agent_argv(l, s, LAUNCH_ALL, argv);
}

/* Components of a heterogeneous job; 1: it is an ordinary one. */
static unsigned groups_of(const struct allocation *a)
{
	unsigned n = 1;
	for (size_t i = 0; i < a->n_nodes; i++)
		n = MAX(n, a->nodes[i].group + 1);
	return n;
}

static bool starts_in(const struct launch_start *s, unsigned group)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->allocation->nodes[s->nodes[i]].group == group)
			return true;
	return false;
}

static void add_srun(const struct launching *l, const struct launch_start *s, struct strvec *argv)
{
	unsigned groups = groups_of(s->allocation);
	bool external = version() >= EXTERNAL_LAUNCHER;
	for (unsigned group = 0; group < groups; group++) {
		if (!starts_in(s, group))
			continue;
		strvec_add(argv, argv->n ? ":" : "srun");
		if (groups == 1)
			strvec_addf(argv, "--jobid=%s", s->allocation->job);
		if (external)
			strvec_add(argv, "--external-launcher");
		else
			strvec_addv(argv, "--overlap", "--mem=0", "--gres=none", NULL);
		add_component(l, s, group, groups > 1, argv);
	}
}

/* Slurm's own options stand in its variables too: those of the job would be this step's. The components of a
 * heterogeneous job are found by two of them only: --jobid names one component. */
static void add_env(const struct allocation *a, struct strvec *env)
{
	static const char *const drop[] = {"SLURM_", "SRUN_", "SALLOC_", "SBATCH_", NULL};
	static const char *const keep[] = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", NULL};
	unsigned groups = groups_of(a);
	env_without(env, drop, keep);
	if (groups == 1)
		return;
	strvec_addf(env, "SLURM_JOB_ID=%s", a->job);
	strvec_addf(env, "SLURM_HET_SIZE=%u", groups);
}

static int start(struct launching *l, const struct launch_start *s, struct err *err)
{
	struct onecall c = {.input = true, .on_line = on_line};
	if (!s->allocation->job[0])
		return err_set(err, EINVAL, "these nodes are of no job");
	/* srun hands its input to the first component alone. */
	if (groups_of(s->allocation) > 1 && launching_use_file(l, s, err) < 0)
		return -1;
	add_srun(l, s, &c.argv);
	add_env(s->allocation, &c.env);
	return onecall_start(l, &c, err);
}

const struct launcher launcher_slurm = {
	.name = "slurm",
	.summary = "Slurm: srun, within a job or one that salloc gets",
	.probe = probe,
	.allocate = allocate,
	.time_left = time_left,
	.start = start,
	.carries_input = true,
};
