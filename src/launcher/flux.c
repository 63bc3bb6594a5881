/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher `flux`: the nodes of the Flux instance whose broker answers; one `flux exec` starts all agents. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rankset.h"
#include "base/text.h"
#include "launcher/backend.h"
#include "launcher/parse.h"

#define ASK_MS 5000

static enum launch_fit probe(const struct launcher *l _unused_, char why[LAUNCH_WHY_MAX])
{
	char *argv[] = {(char *)"flux", (char *)"getattr", (char *)"hostlist", NULL};
	_cleanup_free_ char *out = NULL;
	struct err err = ERR_INIT;
	if (!in_path("flux"))
		return launch_fit(why, LAUNCH_UNUSABLE, "flux is not in PATH");
	if (!env_of("FLUX_URI"))
		return launch_fit(why, LAUNCH_UNUSABLE,
				  "flux is here, but FLUX_URI is not set: in no instance");
	if (query_now(argv, ASK_MS, LAUNCH_TEXT_MAX, &out, &err) < 0)
		return launch_fit(why, LAUNCH_UNUSABLE, "the broker does not answer: %.180s", err.text);
	return launch_fit(why, LAUNCH_INSIDE, "the broker answers; hosts %.100s", last_line(out));
}

/* ---- which nodes: R, else the broker's host list ---- */

struct asking {
	struct allocating *allocating;
	struct query *query;
	bool second;
};

static void end(void *arg)
{
	struct asking *q = arg;
	query_destroy(q->query);
	free(q);
}

static void give(struct asking *q, struct allocation *all, const struct err *why)
{
	struct allocating *a = q->allocating;
	a->state = NULL;
	a->end = NULL;
	end(q);
	if (all)
		allocating_ready(a, all);
	else
		allocating_failed(a, why);
}

static int read_answer(const struct asking *q, const char *out, struct allocation *all, struct err *err)
{
	if (!q->second)
		return parse_flux_r(out, all, err);
	if (allocation_add_hosts(all, out, err) < 0)
		return -1;
	for (size_t i = 0; i < all->n_nodes; i++)
		all->nodes[i].launch_id = (unsigned)i; /* the list is in the order of the ranks */
	return 0;
}

static int ask(struct asking *q, struct err *err);

static void on_answer(void *arg, const struct err *why, int status, const char *out, const char *errors)
{
	struct asking *q = arg;
	_cleanup_allocation_ struct allocation *all = allocation_new(q->allocating->launcher,
								     env_of("FLUX_JOB_ID"));
	_cleanup_free_ char *said = text_cleaned(errors);
	struct err err = *why;
	q->query = NULL;
	if (!err.code && status != 0)
		err_set(&err, EIO, "flux: %.300s", last_line(said));
	if (!err.code && read_answer(q, out, all, &err) == 0) {
		give(q, TAKE_PTR(all), NULL);
		return;
	}
	bool last = q->second;
	q->second = true;
	if (last || ask(q, &err) < 0)
		give(q, NULL, &err);
}

static int ask(struct asking *q, struct err *err)
{
	char *first[] = {(char *)"flux", (char *)"resource", (char *)"R", NULL};
	char *then[] = {(char *)"flux", (char *)"getattr", (char *)"hostlist", NULL};
	q->query = query_start(q->allocating->loop, q->second ? then : first, ASK_MS,
			       LAUNCH_TEXT_MAX, on_answer, q, err);
	return q->query ? 0 : -1;
}

static int allocate(struct allocating *a, const struct launch_request *r _unused_, struct err *err)
{
	struct asking *q = xcalloc(1, sizeof(*q));
	q->allocating = a;
	a->state = q;
	a->end = end;
	return ask(q, err);
}

/* ---- start ---- */

static int start(struct launching *l, const struct launch_start *s, struct err *err)
{
	struct onecall c = {.input = true};
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT;
	for (size_t i = 0; i < s->n; i++)
		if (s->allocation->nodes[s->nodes[i]].launch_id < RANK_MAX)
			rankset_add(&ranks, s->allocation->nodes[s->nodes[i]].launch_id);
	rankset_format(&ranks, &text);
	strvec_addv(&c.argv, "flux", "exec", "-l", "-r", buf_cstr(&text), NULL);
	if (s->o->args)
		strvec_copy(&c.argv, s->o->args);
	launch_agent_argv(l, s, LAUNCH_ALL, &c.argv);
	return onecall_start(l, &c, err);
}

const struct launcher launcher_flux = {
	.name = "flux",
	.summary = "Flux: flux exec, within an instance",
	.probe = probe,
	.allocate = allocate,
	.start = start,
	.carries_input = true,
};
