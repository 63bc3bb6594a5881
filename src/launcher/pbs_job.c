/* SPDX-License-Identifier: Apache-2.0 */
/* A job of Torque or OpenPBS as the process on its first node sees it. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "launcher/parse.h"
#include "launcher/tm.h"

#define ASK_MS 5000

bool pbs_is_torque(void)
{
	const char *version = env_of("PBS_VERSION");
	return version && strncmp(version, "TORQUE", 6) == 0;
}

enum launch_fit pbs_probe(bool torque, char why[LAUNCH_WHY_MAX])
{
	const char *job = env_of("PBS_JOBID"), *file = env_of("PBS_NODEFILE");
	if (!job || pbs_is_torque() != torque)
		return launch_fit(why, LAUNCH_UNUSABLE, "in no job of %s", torque ? "Torque" : "PBS");
	if (!file || access(file, R_OK) < 0)
		return launch_fit(why, LAUNCH_UNUSABLE, "in job %.60s, but PBS_NODEFILE is not here: only on the first node of the job",
				  job);
	return launch_fit(why, LAUNCH_INSIDE, "in job %.60s", job);
}

int pbs_nodes(struct allocation *a, struct err *err)
{
	const char *file = env_of("PBS_NODEFILE");
	_cleanup_free_ char *text = NULL;
	if (!file)
		return err_set(err, ENOENT, "PBS_NODEFILE is not set: in no job");
	if (path_read(file, LAUNCH_TEXT_MAX, &text, NULL, err) < 0)
		return -1;
	return parse_nodefile(text, a, err) < 0 ? err_prefix(err, "%s: ", file) : 0;
}

/* ---- what `qstat -f JOB` tells: cores and memory, the time that is left ---- */

/* The value of "    key = value", continued by lines that begin with a tab; malloc'ed, NULL: not there. */
static char *attribute(const char *text, const char *key)
{
	_cleanup_free_ char *head = xasprintf(" %s = ", key);
	const char *at = strstr(text, head);
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (!at)
		return NULL;
	for (at += strlen(head); *at && (*at != '\n' || at[1] == '\t'); at++)
		if (*at != '\n' && *at != '\t')
			buf_addc(&b, *at);
	return buf_take(&b);
}

struct job_query {
	struct allocating *allocating;
	struct allocation *result;
	struct query *query;
};

static void end(void *arg)
{
	struct job_query *q = arg;
	query_destroy(q->query);
	allocation_destroy(q->result);
	free(q);
}

/* Hints only: whatever goes wrong here, the nodes are known. */
static void on_job(void *arg, const struct err *why, int status, const char *out,
		   const char *errors _unused_)
{
	struct job_query *q = arg;
	struct allocating *a = q->allocating;
	_cleanup_free_ char *vnodes = why->code || status ? NULL : attribute(out, "exec_vnode");
	_cleanup_allocation_ struct allocation *hints = allocation_new(a->launcher, NULL);
	if (vnodes && parse_exec_vnode(vnodes, hints, NULL) == 0)
		allocation_hint(q->result, hints);
	q->query = NULL;
	a->state = NULL;
	a->end = NULL;
	allocating_ready(a, TAKE_PTR(q->result));
	end(q);
}

int pbs_allocate(struct allocating *a, const struct launch_request *r _unused_, struct err *err)
{
	const char *job = env_of("PBS_JOBID");
	_cleanup_allocation_ struct allocation *all = allocation_new(a->launcher, job);
	if (pbs_nodes(all, err) < 0)
		return -1;
	char *argv[] = {(char *)"qstat", (char *)"-f", (char *)(job ? job : ""), NULL};
	struct job_query *q = xcalloc(1, sizeof(*q));
	q->allocating = a;
	if (job && !pbs_is_torque() && in_path("qstat"))
		q->query = query_start(a->loop, argv, ASK_MS, LAUNCH_TEXT_MAX, on_job, q, NULL);
	if (!q->query) {
		free(q);
		allocating_ready(a, TAKE_PTR(all));
		return 0;
	}
	q->result = TAKE_PTR(all);
	a->state = q;
	a->end = end;
	return 0;
}

static void on_time(void *arg, const struct err *why, int status, const char *out,
		    const char *errors _unused_)
{
	struct time_query *q = arg;
	int64_t all = -1, used = 0;
	_cleanup_free_ char *limit = why->code || status ? NULL
							 : attribute(out, "Resource_List.walltime");
	_cleanup_free_ char *gone = limit ? attribute(out, "resources_used.walltime") : NULL;
	q->query = NULL;
	if (!limit || parse_slurm_time(limit, &all, NULL) < 0)
		all = -1;
	if (!gone || parse_slurm_time(gone, &used, NULL) < 0)
		used = 0;
	time_query_answer(q, all < 0 ? -1 : MAX(all - used, (int64_t)0));
}

int pbs_time_left(struct time_query *q, const struct allocation *a, struct err *err)
{
	char *argv[] = {(char *)"qstat", (char *)"-f", a->job, NULL};
	q->query = query_start(q->loop, argv, ASK_MS, LAUNCH_TEXT_MAX, on_time, q, err);
	return q->query ? 0 : -1;
}
