/* SPDX-License-Identifier: Apache-2.0 */
/* What stop, kill, pause, resume and restart share: vse_control() of the command's name on a set of VMs. */
#ifndef VSE_COMMANDS_CHANGE_H
#define VSE_COMMANDS_CHANGE_H

#include "commands/common.h"

#define CHANGE_USAGE "VMS"
#define CHANGE_DETAILS "VMS is a set of VMs: 3, vm3, 0-3,7 or all."

/* On the VMs of operand 0. Gives an exit code. */
int change_run(const struct command *cmd, const struct args *a);

#endif
