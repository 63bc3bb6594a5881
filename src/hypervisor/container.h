/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the back end `container`: the programs of a VSE in namespaces of the node's kernel, made by bubblewrap
 * (bwrap(1)), with vse-guest as process 1. docs/container.md has the whole. */
#ifndef VSE_HYPERVISOR_CONTAINER_H
#define VSE_HYPERVISOR_CONTAINER_H

#include "base/subid.h"
#include "hypervisor/hypervisor.h"
#include "io/child.h"
#include "wire/container.h"

/* ---- container_ids.c: who root inside is outside ---- */

struct container_ids {
	bool privileged;   /* we are root: the maps are written at once, bwrap runs as `uid` */
	uint32_t uid, gid; /* of root inside; never 0 */
	struct subid_range uids, gids; /* of 1, 2, ... inside */
};

/* ENOENT with what to do: no subordinate ids. */
int container_ids(struct container_ids *ret, struct err *err);
/* What goes into /proc/PID/uid_map or is said to newuidmap(1): three numbers a line. */
void container_map(const struct container_ids *ids, bool groups, uint32_t ret[2][3]);

/* ---- container_cage.c: one run of bwrap with ids of its own ---- */

struct cage;

struct cage_ops {
	/* bwrap and its process 1 have ended; status of bwrap, as of waitpid(2). May destroy the cage. */
	void (*on_end)(void *arg, int status);
};

struct cage_spec {
	const struct container_ids *ids;
	const struct strvec *args; /* of bwrap, after the ones that make the namespaces; then "--" and the command */
	int fds[CONTAINER_FD_INFO]; /* for the command, borrowed; CONTAINER_FD_PROGRAM is vse-guest. 0-2: given here */
	const char *copy_dir; /* where a file that only root may read (UNPACK_FD_IMAGE) is copied to; NULL: not wanted */
};

struct cage *cage_start(struct loop *l, const struct cage_spec *spec, const struct cage_ops *ops,
			void *arg, struct err *err);
void cage_destroy(struct cage *c); /* kills; no event after. NULL is fine */
void cage_kill(struct cage *c);
pid_t cage_pid(const struct cage *c); /* of bwrap */
pid_t cage_init(const struct cage *c); /* of process 1, as this side sees it; 0: not there yet, or no more */
void cage_signal(struct cage *c, int signo); /* to process 1 */
/* Why it could not begin, or the last line that it said; "" = nothing. */
const char *cage_words(struct cage *c, char *out, size_t size);

/* ---- container_root.c: the image's files ---- */

/* vse-guest out of an initramfs (a cpio archive that is not compressed), as a sealed memfd. */
int container_program(const char *initrd, int *ret_fd, struct err *err);

struct rootdir;

/* The tree of a root image, unpacked once for all containers of this user on this node. done(): root is an absolute
 * path, valid for as long as the rootdir lives, or NULL with *err; called from the loop. */
struct rootdir *rootdir_open(struct loop *l, const struct container_ids *ids, const char *image,
			     int program,
			     void (*done)(void *arg, const char *root, const struct err *err),
			     void *arg, struct err *err);
void rootdir_destroy(struct rootdir *r); /* NULL is fine */

/* ---- container_tree.c: the processes of a container, as /proc shows them ---- */

struct tree_member {
	pid_t pid;
	uint64_t start;
	bool stopped; /* every thread of it is, or it has ended */
};

struct tree {
	struct tree_member *v; /* parents before their children */
	size_t n, cap;
};

void tree_read(struct tree *t, pid_t root); /* replaces what was there */
void tree_add(struct tree *t, const struct tree_member *m);
bool tree_has(const struct tree *t, const struct tree_member *m);
void tree_finish(struct tree *t);

/* ---- container_probe.c ---- */

int container_probe(struct loop *l, const char *accel,
		    void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err);

/* container_args.c: what bwrap is told for one container. root: the unpacked tree; console: the terminal's name. */
int container_check(const struct hv_spec *spec, struct err *err);
struct container_size {
	uint64_t upper, run, memory; /* bytes: writable layer, /run and /dev/shm each, data of one process */
	unsigned cpus, first; /* so many, from which of those that we may use */
	bool nic;
};
void container_size(const struct hv_spec *spec, struct container_size *ret);
/* Host directories: for bwrap, which puts them at CONTAINER_MOUNT; and where vse-guest puts them then. */
struct container_mounts {
	struct strvec args, dirs;
};
void container_mounts(const struct hv_spec *spec, struct container_mounts *ret); /* *ret: only zeroes before */
void container_args(const char *name, const struct container_size *size,
		    const struct container_mounts *mounts, const struct strvec *extra,
		    const char *root, const char *console, struct strvec *args);

#endif
