/* SPDX-License-Identifier: Apache-2.0 */
/* What stop, kill, pause, resume and restart share: one verb on a set of VMs. */
#ifndef VSE_COMMANDS_CHANGE_H
#define VSE_COMMANDS_CHANGE_H

#include "commands/common.h"

#define CHANGE_USAGE "VMS"
#define CHANGE_DETAILS "VMS is a set of VMs: 3, vm3, 0-3,7 or all."

/* `verb` of wire/verbs.h on the VMs of operand 0; `hard` goes into the message. */
int change_run(const struct command *cmd, const struct args *a, const char *verb, bool hard);

#endif
