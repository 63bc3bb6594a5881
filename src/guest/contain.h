/* SPDX-License-Identifier: Apache-2.0 */
/* vse-guest without a VM: process 1 of a container, and the helpers around it. wire/container.h has the arguments. */
#ifndef VSE_GUEST_CONTAIN_H
#define VSE_GUEST_CONTAIN_H

#include <stdint.h>

#include "base/err.h"
#include "guest/guest.h"

/* contain.c: the roots, then the agent. Does not return. */
_Noreturn void contain_main(char **argv);

/* contain_net.c: makes eth0 and sends a packet socket of its other end over `wire`. */
int contain_net(int wire, struct err *err);

/* confine.c: what programs in a container may not do: calls, capabilities, more than their share. The caller keeps
 * the capabilities that it has; what it executes does not get them. */
int confine(uint64_t memory, unsigned cpus, unsigned first, struct err *err);

/* relay.c, unpack.c, guard.c: give an exit code. */
int relay_main(void);
int unpack_main(const char *dir, const char *key);
int guard_main(char **argv);

#endif
