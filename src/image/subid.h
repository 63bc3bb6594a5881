/* SPDX-License-Identifier: Apache-2.0 */
/* A build's user namespace with the user's subordinate ids (base/subid.h). */
#ifndef VSE_IMAGE_SUBID_H
#define VSE_IMAGE_SUBID_H

#include <sys/types.h>

#include "base/subid.h"

/* The tools and ranges are there. */
int subid_check(struct err *err);
/* Writes the id maps of `pid`, which has just unshared its user namespace: 0 is the caller, 1.. the
 * range. */
int subid_map(pid_t pid, struct err *err);

#endif
