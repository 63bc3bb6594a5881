/* SPDX-License-Identifier: Apache-2.0 */
/* What this node offers to run VMs with, by the word of its agent. */
#ifndef VSE_COMMANDS_OFFER_H
#define VSE_COMMANDS_OFFER_H

#include <jansson.h>

#include "base/err.h"

/* The agent's program: beside vse, or where an installation has it. malloc'ed; NULL: ENOENT with what to do. */
char *offer_agent(struct err *err);
/* One object a hypervisor, as `vse-agent --probe` prints it: name, usable, why, ... Takes 20 ms as a rule, at worst 10 s.
 * NULL with *err. */
json_t *offer_ask(const char *accel, struct err *err);
/* That hypervisor runs VMs here. -1 with the reason. */
int offer_check(const char *hypervisor, const char *accel, struct err *err);

#endif
