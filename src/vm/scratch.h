/* SPDX-License-Identifier: Apache-2.0 */
/* Scratch disks: a raw, sparse ext4 file that never has a name, so that nothing can be left of it. */
#ifndef VSE_VM_SCRATCH_H
#define VSE_VM_SCRATCH_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "io/loop.h"

struct scratch;

/* Makes a file of `size` bytes in `dir` and runs mke2fs on it; done(arg, fd, err) follows from the loop: fd is
 * borrowed and open until scratch_destroy(), -1 with err on failure. A VMM opens it as /proc/<our pid>/fd/<fd>,
 * and keeps it when we are gone. */
struct scratch *scratch_create(struct loop *l, const char *dir, uint64_t size,
			       void (*done)(void *arg, int fd, const struct err *err), void *arg,
			       struct err *err);
/* The same from a packed disk (vm/pack.h) of that size, instead of mke2fs. */
struct scratch *scratch_restore(struct loop *l, const char *dir, uint64_t size, const char *packed,
				const char *pack_id,
				void (*done)(void *arg, int fd, const struct err *err), void *arg,
				struct err *err);
/* One that its owner fills, of zeros until then; at once. */
struct scratch *scratch_empty(const char *dir, uint64_t size, struct err *err);
/* Notes in the VM's folder which file it is, for scratch_adopt() in another process. */
void scratch_note(const struct scratch *s, const char *dir);
/* The disk of a VM that another process has started: that one is gone, the VM's VMM (a process of this user) has the file open.
 * ENOENT: nothing was noted, or it has it open no more. */
struct scratch *scratch_adopt(const char *dir, pid_t vmm, struct err *err);
int scratch_fd(const struct scratch *s); /* of one that was made; borrowed; -1 for NULL */
void scratch_destroy(struct scratch *s); /* NULL is fine */

#endif
