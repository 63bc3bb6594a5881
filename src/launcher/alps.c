/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher `alps`: Cray's aprun within a reservation. The nodes have no names here: the host that runs us is not
 * one of them, and each agent tells its own. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "launcher/parse.h"
#include "launcher/tm.h"

#define ASK_MS 4000
#define SAID_MAX (1u << 20)
#define TRIES 10 /* the reservation may come a moment after the job */
#define TRY_MS 1000

static const char *known_id(void)
{
	static const char *const variables[] = {"BASIL_RESERVATION_ID", "OMPI_ALPS_RESID",
						"BATCH_PARTITION_ID"};
	const char *id = NULL;
	for (size_t i = 0; !id && i < ARRAY_SIZE(variables); i++)
		id = env_of(variables[i]);
	return id;
}

/* The number of the batch job: "138309.sdb" gives "138309"; malloc'ed, NULL: in none. */
static char *batch_job(void)
{
	const char *job = env_of("PBS_JOBID");
	size_t n = job ? strspn(job, "0123456789") : 0;
	return n ? xstrndup(job, n) : NULL;
}

static enum launch_fit probe(const struct launcher *l _unused_, char why[LAUNCH_WHY_MAX])
{
	_cleanup_free_ char *job = batch_job(), *out = NULL;
	char *argv[] = {(char *)"apstat", (char *)"-r", NULL};
	uint64_t id;
	unsigned nodes;
	if (!in_path("aprun"))
		return launch_fit(why, LAUNCH_UNUSABLE, "aprun is not in PATH");
	if (known_id())
		return launch_fit(why, LAUNCH_INSIDE, "in reservation %.40s", known_id());
	if (job && query_now(argv, ASK_MS, SAID_MAX, &out, NULL) == 0 &&
	    parse_apstat(out, job, &id, &nodes, NULL) == 0)
		return launch_fit(why, LAUNCH_INSIDE, "in reservation %" PRIu64 " of job %.40s", id,
				  job);
	return launch_fit(why, LAUNCH_UNUSABLE, "aprun is here, but no reservation");
}

/* ---- which nodes: only how many ---- */

struct asking {
	struct allocating *allocating;
	struct query *query;
	struct evtimer *again;
	char *job; /* may be NULL */
	unsigned asked_for, tries;
};

static void end(void *arg)
{
	struct asking *q = arg;
	query_destroy(q->query);
	evtimer_destroy(q->again);
	free(q->job);
	free(q);
}

static unsigned node_file_count(const struct launcher *l)
{
	_cleanup_allocation_ struct allocation *a = allocation_new(l, NULL);
	return pbs_nodes(a, NULL) == 0 ? (unsigned)a->n_nodes : 0;
}

/* `count`: what apstat told; 0: nothing. A node file of one line may be the host of the job's script alone. */
static void answer(struct asking *q, const char *id, unsigned count)
{
	struct allocating *a = q->allocating;
	struct allocation *all = allocation_new(a->launcher, id);
	unsigned listed = node_file_count(a->launcher);
	if (!count)
		count = listed > 1 ? listed : q->asked_for ? q->asked_for : listed;
	while (count-- && allocation_add(all, ""))
		;
	a->state = NULL;
	a->end = NULL;
	end(q);
	allocating_ready(a, all);
}

static void on_apstat(void *arg, const struct err *why, int status, const char *out,
		      const char *errors _unused_)
{
	struct asking *q = arg;
	struct allocating *a = q->allocating;
	char text[24];
	uint64_t id;
	unsigned count;
	struct err err = *why;
	q->query = NULL;
	if (!why->code && status == 0 && q->job && parse_apstat(out, q->job, &id, &count, &err) == 0) {
		snprintf(text, sizeof(text), "%" PRIu64, id);
		answer(q, known_id() ? known_id() : text, count);
	} else if (known_id()) {
		answer(q, known_id(), 0);
	} else if (++q->tries < TRIES) {
		evtimer_start(q->again, TRY_MS, 0);
	} else {
		if (!err.code)
			err_set(&err, EIO, "apstat -r failed");
		a->state = NULL;
		a->end = NULL;
		end(q);
		allocating_failed(a, &err);
	}
}

static void ask(void *arg)
{
	struct asking *q = arg;
	char *argv[] = {(char *)"apstat", (char *)"-r", NULL};
	struct err err = ERR_INIT;
	q->query = query_start(q->allocating->loop, argv, ASK_MS, SAID_MAX, on_apstat, q, &err);
	if (!q->query)
		on_apstat(q, &err, -1, "", "");
}

static int allocate(struct allocating *a, const struct launch_request *r, struct err *err)
{
	_cleanup_free_ char *job = batch_job();
	if (!known_id() && !job)
		return err_set(err, ENOENT, "in no reservation");
	struct asking *q = xcalloc(1, sizeof(*q));
	*q = (struct asking){.allocating = a, .job = TAKE_PTR(job), .asked_for = r->nodes};
	q->again = evtimer_create(a->loop, ask, q);
	a->state = q;
	a->end = end;
	evtimer_start(q->again, 0, 0);
	return 0;
}

/* ---- start ---- */

static int start(struct launching *l, const struct launch_start *s, struct err *err)
{
	struct onecall c = {0};
	/* -b: the agent is run from where it is; -q: aprun's own lines stay out; no binding. PMI would open a
	 * connection for each agent that none of them uses. */
	strvec_addv(&c.argv, "aprun", "-b", "-q", "-n", NULL);
	strvec_addf(&c.argv, "%zu", l->n);
	strvec_addv(&c.argv, "-N", "1", "-cc", "none", "-e", "PMI_NO_PREINITIALIZE=1", "-e",
		    "PMI_NO_FORK=1", NULL);
	if (s->o->args)
		strvec_copy(&c.argv, s->o->args);
	launch_agent_argv(l, s, LAUNCH_ALL, &c.argv);
	return onecall_start(l, &c, err);
}

const struct launcher launcher_alps = {
	.name = "alps",
	.summary = "Cray ALPS: aprun, within a reservation",
	.probe = probe,
	.allocate = allocate,
	.time_left = pbs_time_left,
	.start = start,
};
