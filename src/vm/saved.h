/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's part of a saved cluster, in a folder that every node sees: vm3.state (memory, devices), vm3.disk (its scratch disk,
 * where it has one) and, written last, vm3.json, without which there is nothing. Mode 0600: memory holds secrets. */
#ifndef VSE_VM_SAVED_H
#define VSE_VM_SAVED_H

#include <stdbool.h>
#include <stdint.h>

#include "io/loop.h"

#define SAVED_VERSION 1

struct saved {
	char *id;         /* of the cluster's save: the same in all files of all VMs */
	char *signature;  /* of the hypervisor (hypervisor.h) */
	uint64_t scratch; /* bytes of the disk; 0: none */
};

/* dir: absolute. ENOENT: this VM was not saved there; EBADMSG: no such file as we write. */
int saved_read(const char *dir, uint32_t rank, struct saved *ret, struct err *err);
void saved_finish(struct saved *s);
/* What pack.h checks the files against; malloc'ed. */
char *saved_pack_id(const char *id, uint32_t rank);
char *saved_path(const char *dir, uint32_t rank, const char *what); /* "disk": DIR/vm3.disk; malloc'ed */

/* Removes what was written of this VM by a save that came to nothing, and the folder when that was the last. A folder with the
 * cluster's note is whole, and has another name by now: where the file system of several nodes is slow to tell so (NFS), the old
 * name still leads there. Nothing of it is removed. */
void saved_remove(const char *dir, uint32_t rank);

/* To read; a descriptor, or -1. Regular files only: a FIFO would hold up whoever opens it. */
int saved_open(const char *path, struct err *err);

struct saving; /* the files of one VM, being written */

/* disk: the scratch disk (borrowed), -1: none. done() once, from the loop. */
struct saving *saving_create(struct loop *l, const char *dir, const char *id, uint32_t rank,
			     int disk, void (*done)(void *arg, const struct err *err), void *arg);
/* The hypervisor's stream; fd: taken. */
int saving_stream(struct saving *s, int fd, struct err *err);
/* The VM stands still from now on: its disk is copied. */
int saving_state_done(struct saving *s, const char *signature, struct err *err);
void saving_destroy(struct saving *s); /* ends what is under way; its files stay; NULL is fine */

#endif
