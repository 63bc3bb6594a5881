/* SPDX-License-Identifier: Apache-2.0 */
/* Images: what a VSE builds into. Kept in a content-addressed store: $XDG_DATA_HOME/vse (default
 * ~/.local/share/vse), with a read-only site store beside it ($VSE_SITE_STORE, default /var/lib/vse).
 * An image is a folder images/<id>/ that appears whole, by one rename, or not at all. */
#ifndef VSE_IMAGE_IMAGE_H
#define VSE_IMAGE_IMAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strvec.h"
#include "spec/vse.h"

struct image {
	char *id; /* 64 hex digits: SHA-256 over the root's tree, the kernel, its modules, name, init and environment */
	char *dir;    /* absolute */
	char *name;   /* the VSE's name */
	char *kernel; /* absolute path of a bzImage */
	char *vmlinux; /* absolute path of the uncompressed PVH ELF, or NULL where the kernel has none */
	char *initrd; /* absolute path: ours, uncompressed cpio: the image's modules behind this vse's guest agent, made
			* when the image is opened; NULL from image_list, and from image_open without a vse-guest */
	char *root;      /* absolute path of the read-only root */
	char *root_type; /* "erofs" or "squashfs": as mount(2) names it */
	char *arch;
	char *modules; /* comma-separated list of modules /init loads, in order */
	enum vse_init init;
	bool has_sshd;    /* /usr/sbin/sshd is in the root */
	uint64_t size;    /* bytes of all files */
	uint64_t built;   /* seconds since 1970 */
	json_t *manifest; /* owned: the whole manifest (packages with versions, hashes, VSE) */
};

/* What a build tells while it runs: step names a step ("packages", "root", "kernel", ...), done/total count
 * within it (total 0: unknown), text is one short line. Called from the thread that called image_build(). */
typedef void image_progress_fn(void *arg, const char *step, unsigned done, unsigned total,
			       const char *text);

struct image_build_options {
	const char *store;      /* NULL: the user's store */
	bool rebuild;           /* ignore the cache */
	const char *guest_init; /* path of vse-guest; NULL: beside the running program */
	/* Asked once when a build is about to begin, never where an image is found: -1 with *err refuses it. May be NULL. */
	int (*allow)(void *arg, struct err *err);
	void *allow_arg;
	image_progress_fn *progress; /* may be NULL */
	void *progress_arg;
};

/* Builds, or finds it in the store when the input is unchanged (*ret_cached). Blocks; runs mmdebstrap and
 * others. A build of the same input by another process is waited for and its result taken. Whatever kills
 * this process, no mount and no half image stay. */
int image_build(const struct vse *v, const struct image_build_options *o, struct image **ret,
		bool *ret_cached, struct err *err);
/* Where the finished image of this VSE is, if it is in a store already: no building. ENOENT when not. */
int image_find(const struct vse *v, const struct image_build_options *o, struct image **ret,
	       struct err *err);
/* By id, unique id prefix (at least 4 digits) or name (the newest of that name). ENOENT, ENOTUNIQ. */
int image_open(const char *store, const char *ref, struct image **ret, struct err *err);
void image_destroy(struct image *i); /* the object, not the files; NULL is fine */

/* All images of the user's and the site's store, newest first; *ret is malloc'ed, each to be destroyed. */
int image_list(const char *store, struct image ***ret, size_t *ret_n, struct err *err);
/* Deletes one image. EBUSY while a running cluster holds it (image_hold), EROFS for a site image. */
int image_remove(const char *store, const struct image *i, struct err *err);
/* Deletes what was not used for keep_days: inputs that a newer one of the same VSE name superseded, cached
 * downloads, logs; then every image that no input refers to or that is damaged, and partial builds of dead
 * processes. Nothing that is held. Gives the bytes freed. */
int image_gc(const char *store, unsigned keep_days, uint64_t *ret_freed, struct err *err);
/* A shared lock on the image, and on its initrd where it has one, for as long as *ret_fd is open: inherited by
 * whoever runs it. ENOENT: removed since it was opened. */
int image_hold(const struct image *i, int *ret_fd, struct err *err);
/* The user's store, made if absent (mode 0700); malloc'ed. */
int image_store_path(char **ret, struct err *err);

#endif
