/* SPDX-License-Identifier: Apache-2.0 */
/* Output of many VMs on one descriptor. Equal lines are folded and labelled ("vm[0-15]: text"); each VM's lines
 * keep their order. A line waits for the other VMs' until FOLD_WAIT_MS have passed, or less when much waits. */
#ifndef VSE_COMMANDS_FOLD_H
#define VSE_COMMANDS_FOLD_H

#include "base/rankset.h"
#include "io/loop.h"

#define FOLD_WAIT_MS 200

struct fold;

/* fd: borrowed; written blocking. label false: bytes are passed through as they come. `window`: bytes that one VM
 * may have waiting. on_written: so many bytes of that VM were written or dropped (it may send as many more); told
 * when a quarter of the window has come together. */
struct fold *fold_create(struct loop *l, int fd, bool label, const struct rankset *ranks,
			 uint32_t window,
			 void (*on_written)(void *arg, struct fold *f, uint32_t rank, uint32_t bytes),
			 void *arg);
void fold_destroy(struct fold *f); /* NULL is fine */
void fold_add(struct fold *f, uint32_t rank, const char *p, size_t n, bool eof);
void fold_end_rank(struct fold *f, uint32_t rank); /* nothing more will come of it */
void fold_flush(struct fold *f);                   /* writes all that waits */
/* 0, or the errno of the first write that failed: after it everything is dropped. */
int fold_error(const struct fold *f);

#endif
