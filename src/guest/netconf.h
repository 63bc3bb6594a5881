/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's addresses, by ioctl: no program is started for them. */
#ifndef VSE_GUEST_NETCONF_H
#define VSE_GUEST_NETCONF_H

#include "base/err.h"

/* lo is brought up. */
void net_loopback(void);
/* mac, ipv4, ipv6, mtu of eth0 and nat of "setup". The interface with that mac becomes eth0; when none has it
 * (a clone) eth0 gets it. Waits up to 2 s for an interface that is still being found. */
int net_apply(const char *data, size_t len, struct err *err);

#endif
