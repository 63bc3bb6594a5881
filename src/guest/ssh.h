/* SPDX-License-Identifier: Apache-2.0 */
/* ssh between the VMs of the cluster: root's key, and (without systemd) sshd. */
#ifndef VSE_GUEST_SSH_H
#define VSE_GUEST_SSH_H

#include "guest/guest.h"

/* Writes root's ~/.ssh from "setup"; fresh: this VM is another than before, so are its host keys. */
int ssh_apply(struct guest *g, const char *data, size_t len, bool fresh, struct err *err);
void ssh_practise(void);      /* of setup_practise() */
bool ssh_up(struct guest *g); /* sshd listens, or is not wanted */
void ssh_child(struct guest *g, pid_t pid, int status);
void ssh_watch(struct guest *g, struct watches *w);
void ssh_tick(struct guest *g, uint64_t now);

#endif
