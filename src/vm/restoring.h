/* SPDX-License-Identifier: Apache-2.0 */
/* The way back of a saved VM (vm/saved.h): its state is unpacked into the hypervisor, and only when all of it was whole may
 * the VM be resumed. */
#ifndef VSE_VM_RESTORING_H
#define VSE_VM_RESTORING_H

#include "vm/saved.h"

struct restoring;

/* Reads what is known of it. */
struct restoring *restoring_create(struct loop *l, const char *dir, uint32_t rank, struct err *err);
const struct saved *restoring_saved(const struct restoring *r);
char *restoring_disk(const struct restoring *r);    /* the packed disk's path; malloc'ed */
char *restoring_pack_id(const struct restoring *r); /* malloc'ed */
/* Begins to unpack the state; ret_fd (taken) is where it comes out. done() once, from the loop: NULL = it was whole. */
int restoring_state(struct restoring *r, void (*done)(void *arg, const struct err *err), void *arg,
		    int *ret_fd, struct err *err);
void restoring_destroy(struct restoring *r); /* NULL is fine */

#endif
