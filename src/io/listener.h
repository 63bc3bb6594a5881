/* SPDX-License-Identifier: Apache-2.0 */
/* Unix-domain sockets that listen. */
#ifndef VSE_IO_LISTENER_H
#define VSE_IO_LISTENER_H

#include <sys/types.h>

#include "io/loop.h"

struct listener;

/* Binds `path` (mode 0600) and listens. on_connect gets each new descriptor (taken) with the peer's uid as
 * the kernel states it (SO_PEERCRED). ENAMETOOLONG over 107 bytes. */
struct listener *listener_create(struct loop *l, const char *path,
				 void (*on_connect)(void *arg, int fd, uid_t uid), void *arg,
				 struct err *err);
void listener_destroy(struct listener *ln); /* unlinks the path; NULL is fine */

/* A listening descriptor without a loop: for a VMM that is handed it. */
int unix_listen(const char *path, int *ret_fd, struct err *err);
/* A connected, blocking descriptor. ECONNREFUSED, ENOENT: nobody is there. */
int unix_connect(const char *path, int *ret_fd, struct err *err);

#endif
