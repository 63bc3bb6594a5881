/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher `torque`: the nodes of the job we run in; started through TM, without its library by pbsdsh. */
#include <errno.h>

#include "launcher/tm.h"

static enum launch_fit probe(const struct launcher *l _unused_, char why[LAUNCH_WHY_MAX])
{
	return pbs_probe(true, why);
}

static int start(struct launching *l, const struct launch_start *s, struct err *err)
{
	struct onecall c = {0};
	struct err why = ERR_INIT;
	if (tm_start(l, s, &why) == 0)
		return 0;
	/* pbsdsh starts on every node of the job or on one: a part of them is TM's alone. */
	if (why.code != ENOENT || !in_path("pbsdsh") || l->n != s->allocation->n_nodes)
		return err_copy(err, &why);
	strvec_addv(&c.argv, "pbsdsh", "-u", NULL);
	launch_agent_argv(l, s, LAUNCH_ALL, &c.argv);
	return onecall_start(l, &c, err);
}

const struct launcher launcher_torque = {
	.name = "torque",
	.summary = "Torque: TM, or pbsdsh, within a job",
	.probe = probe,
	.allocate = pbs_allocate,
	.time_left = pbs_time_left,
	.start = start,
};
