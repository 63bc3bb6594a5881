/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/change.h"

int change_run(const struct command *cmd, const struct args *a, const char *verb, bool hard)
{
	const char *ranks = common_vm_text(a->operands[0]);
	/* The agent bounds the wait: it knows the cluster's own time-outs. */
	return common_ask(cmd, a,
			  json_pack("{s:s, s:s, s:b}", "verb", verb, "ranks", ranks, "hard", hard),
			  0, NULL);
}
