/* SPDX-License-Identifier: Apache-2.0 */
/* Packs or unpacks in a process of its own (pack.h), so that gigabytes hold nobody up. */
#ifndef VSE_VM_PACKER_H
#define VSE_VM_PACKER_H

#include "io/loop.h"
#include "vm/pack.h"

struct packer;

/* in, out: borrowed. done() once, from the loop: err NULL on success. The program is this one's own file, run with
 * --pack: it must be the agent's. */
struct packer *packer_start(struct loop *l, bool writing, enum pack_kind kind, const char *id,
			    int in, int out, void (*done)(void *arg, const struct err *err),
			    void *arg, struct err *err);
void packer_destroy(struct packer *p); /* ends it; NULL is fine */

#endif
