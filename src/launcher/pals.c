/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher `pals`: Cray EX with PBS; the nodes are PBS', one mpiexec of PALS starts all agents. Never chosen by
 * itself: where TM's library is there, `pbs` does it with less. */
#include <errno.h>
#include <string.h>

#include "base/path.h"
#include "launcher/tm.h"

static enum launch_fit probe(const struct launcher *l _unused_, char why[LAUNCH_WHY_MAX])
{
	_cleanup_free_ char *path = path_find_program("mpiexec");
	if (!path)
		return launch_fit(why, LAUNCH_UNUSABLE, "mpiexec is not in PATH");
	if (!strstr(path, "/pals/"))
		return launch_fit(why, LAUNCH_UNUSABLE, "mpiexec is not the one of PALS");
	if (!env_of("PBS_JOBID"))
		return launch_fit(why, LAUNCH_UNUSABLE, "PALS is here, but in no job");
	return launch_fit(why, LAUNCH_USABLE, "in job %.60s, when asked for", env_of("PBS_JOBID"));
}

static int start(struct launching *l, const struct launch_start *s, struct err *err)
{
	struct onecall c = {0};
	if (l->n != s->allocation->n_nodes)
		return err_set(err, ENOTSUP, "it starts on all nodes of the job, not on a part");
	strvec_addv(&c.argv, "mpiexec", "-n", NULL);
	strvec_addf(&c.argv, "%zu", l->n);
	strvec_addv(&c.argv, "--ppn", "1", "--cpu-bind", "none", NULL);
	if (s->o->args)
		strvec_copy(&c.argv, s->o->args);
	launch_agent_argv(l, s, LAUNCH_ALL, &c.argv);
	return onecall_start(l, &c, err);
}

const struct launcher launcher_pals = {
	.name = "pals",
	.summary = "Cray PALS: its mpiexec, within a job of PBS",
	.probe = probe,
	.allocate = pbs_allocate,
	.time_left = pbs_time_left,
	.start = start,
};
