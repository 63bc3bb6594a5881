/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/change.h"

int change_run(const struct command *cmd, const struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_cluster *c;
	if (common_connect(arg_value(a, "cluster"), &c, &e))
		return common_fail(cmd, &e);
	int rc = vse_control(c, cmd->name, common_vm_text(a->operands[0]), &e);
	common_disconnect(c);
	return rc ? common_fail(cmd, &e) : EXIT_OK;
}
