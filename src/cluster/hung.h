/* SPDX-License-Identifier: Apache-2.0 */
/* A VM whose boot hangs is started anew, before its time is over. Hung is one that gives no sign of life (vm/pulse.h) for much
 * longer than others of this node took from start to ready. A VMM can lose a wake-up: one of many starts never ends then. */
#ifndef VSE_CLUSTER_HUNG_H
#define VSE_CLUSTER_HUNG_H

#include "cluster/cluster_spec.h"
#include "vm/vm.h"

#define HUNG_TRIES 2u /* so often a VM is started anew between two times that it was ready */

struct hung;

/* s, vms (by rank; NULL: not here): borrowed, outlive it. on_anew: before the VM is started anew, with a line that says why. */
struct hung *hung_create(struct loop *l, const struct cluster_spec *s, struct vm **vms,
			 void (*on_anew)(void *arg, struct vm *vm, const char *text), void *arg);
void hung_destroy(struct hung *h);                       /* NULL is fine */
void hung_vm_state(struct hung *h, const struct vm *vm); /* after every change */

/* A VM may be silent for so long, ms. after_ms: never less; timeout_ms: of a start; ready_ms: how long each of those n took
 * that are ready (it is sorted). With none to compare to it is most of timeout_ms. */
uint64_t hung_bound_ms(uint64_t after_ms, uint64_t timeout_ms, uint64_t *ready_ms, uint32_t n);

#endif
