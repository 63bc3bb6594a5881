/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher `pbs`: OpenPBS and PBS Pro; the nodes of the job we run in; started through TM, without its library by
 * pbs_tmrsh. */
#include <errno.h>

#include "base/alloc.h"
#include "launcher/tm.h"

static enum launch_fit probe(const struct launcher *l _unused_, char why[LAUNCH_WHY_MAX])
{
	return pbs_probe(false, why);
}

static int start(struct launching *l, const struct launch_start *s, struct err *err)
{
	struct err why = ERR_INIT;
	if (tm_start(l, s, &why) == 0)
		return 0;
	if (why.code != ENOENT || !in_path("pbs_tmrsh"))
		return err_copy(err, &why);
	struct strvec *argv = xcalloc(l->n, sizeof(*argv));
	for (size_t i = 0; i < l->n; i++) {
		strvec_addv(&argv[i], "pbs_tmrsh", l->names[i], NULL);
		launch_agent_argv(l, s, i, &argv[i]);
	}
	pernode_start(l, argv, s->o->parallel, false);
	return 0;
}

const struct launcher launcher_pbs = {
	.name = "pbs",
	.summary = "OpenPBS and PBS Pro: TM, or pbs_tmrsh, within a job",
	.probe = probe,
	.allocate = pbs_allocate,
	.time_left = pbs_time_left,
	.start = start,
};
