/* SPDX-License-Identifier: Apache-2.0 */
/* Our other programs, and what this node offers to run VMs with by the word of its agent. */
#ifndef VSE_CLIENT_PROGRAMS_H
#define VSE_CLIENT_PROGRAMS_H

#include <jansson.h>

#include "base/err.h"

/* vse-agent or vse-guest: beside the running program or the library, in the libexec folder next to them, or where vse
 * was installed. malloc'ed; NULL: ENOENT with what to do. */
char *program_find(const char *name, struct err *err);
/* One object a hypervisor, as `vse-agent --probe` prints it: name, usable, why, ... Takes 20 ms as a rule, at worst 10 s.
 * agent: NULL: to be found. NULL with *err. */
json_t *offer_ask(const char *agent, const char *accel, struct err *err);
/* That hypervisor runs VMs here; "auto" and lists are the agent's to judge. -1 with the reason. */
int offer_check(const char *agent, const char *hypervisor, const char *accel, struct err *err);

#endif
