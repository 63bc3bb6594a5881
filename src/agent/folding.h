/* SPDX-License-Identifier: Apache-2.0 */
/* Output of many VMs on its way to who asked: what is equal leaves as one piece, with the set of those that said it. Each
 * VM's bytes keep their order, also that between its stdout and its stderr; where pieces begin and end is not kept. What is
 * held is bounded by time and by size, and the windows of the VMs bound it anyway: nobody gets credit for bytes that were
 * not delivered. Pure: the owner has the timer and calls folding_flush() when folding_wait() says so. */
#ifndef VSE_AGENT_FOLDING_H
#define VSE_AGENT_FOLDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rankset.h"

struct folding;

#define FOLDING_BLOCK                                                                              \
	(16u << 10) /* bytes: pieces begin at multiples of it in their stream, so that those who ran ahead meet */
#define FOLDING_HELD_MAX (1u << 20) /* bytes held, of all VMs together */
#define FOLDING_WAIT_MS 20          /* for others to say the same */
#define FOLDING_FULL_MS 3 /* where a VM has said a whole block: it may be waiting for credit */

/* `emit` gets ranks and bytes borrowed; it must not change the folding. */
typedef void folding_emit(void *arg, const struct rankset *ranks, int fd, const char *p, size_t n,
			  bool eof);
struct folding *folding_create(const struct rankset *ranks, folding_emit *emit, void *arg);
void folding_destroy(struct folding *f); /* what it holds is dropped; NULL is fine */
/* VMs that it does not know are passed over. fd: 1 or 2. */
void folding_add(struct folding *f, const struct rankset *ranks, int fd, const char *p, size_t n,
		 bool eof);
/* These say nothing more: nobody need wait for them. */
void folding_end(struct folding *f, const struct rankset *ranks);
/* How many ms from now on it is to be flushed: 0: now, nobody is worth waiting for. UINT64_MAX: nothing is held. */
uint64_t folding_wait(const struct folding *f);
void folding_flush(struct folding *f);

#endif
