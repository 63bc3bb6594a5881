/* SPDX-License-Identifier: Apache-2.0 */
/* The store's folders and the rules of who may touch what, when:
 *
 *   images/<id>/      whole and never changed: kernel vmlinux modules.cpio root.squashfs
 * manifest.json
 *   initrd/<id>-<g>   the initramfs: modules.cpio behind an archive of the guest agent whose
 * SHA-256 begins
 *                     with <g>. Derived when an image is opened, so that a new vse needs no new
 * image and
 *                     an image's identity does not hang on vse's version
 *   inputs/<key>      the id that this input was built into; its time says when it was last used
 *   locks/<key>       flock: one build of an input at a time
 *   tmp/<boot>-<ns>-<pid>-<start>-<n>/  a build under way: kernel, pid namespace and process that
 *                     will remove it, or is dead. Another node's is swept when it is two days old
 *   cache/debs/<suite>/     downloaded packages
 *   logs/<name>.log   output of the last failed build of a VSE of that name
 *
 * An image in use is held by shared flocks on its manifest.json and on the initramfs in use; who
 * removes either takes the exclusive one first. */
#ifndef VSE_IMAGE_STORE_H
#define VSE_IMAGE_STORE_H

#include "base/err.h"
#include "image/image.h"

/* The store of this option (NULL: the user's), made if absent; malloc'ed. */
int store_open(const char *path, char **ret, struct err *err);
/* For reading: one that cannot be made or written will do. *ret is NULL where the user has none and the site has. */
int store_look(const char *path, char **ret, struct err *err);
/* The site's store, malloc'ed, or NULL where there is none. */
char *store_site(void);
/* A new name below tmp/, not made; malloc'ed. */
char *store_temp(const char *store);
/* Removes what dead processes left in tmp/. */
void store_sweep(const char *store);
/* Waits for the exclusive lock on locks/<key>; told(arg) is called once if it must wait. */
int store_lock(const char *store, const char *key, void (*told)(void *arg), void *arg, int *ret_fd,
	       struct err *err);
/* The exclusive lock on a file that image_hold locks. EBUSY: somebody holds it; "what" begins the error. */
int store_lock_idle(const char *path, const char *what, int *ret_fd, struct err *err);
/* The id of this input, malloc'ed. ENOENT. */
int store_input(const char *store, const char *key, char **ret_id, struct err *err);
/* This input was asked for: its modification time, by which gc goes. */
void store_used(const char *store, const char *key);
/* Held shared while an image is published and its input is written, exclusively (closed) while
 * garbage is looked for: in between the image is one that no input refers to. */
int store_gate(const char *store, bool closed, int *ret_fd, struct err *err);
/* temp/image becomes images/<id>, or is dropped when that is there and whole; inputs/<key> names it. EBUSY: the one
 * that is there is damaged, and held. */
int store_publish(const char *store, const char *temp, const char *id, const char *key, struct err *err);
/* temp holds what was downloaded (temp/debs): moved to cache/debs/<name>/. Failure is no error. */
void store_cache_debs(const char *store, const char *temp, const char *name);
/* Free bytes for an ordinary user. */
int store_free(const char *store, uint64_t *ret, struct err *err);
/* Moves images/<id> out of sight and deletes it, its initramfs first. EBUSY: held. */
int store_drop_image(const char *store, const char *id, struct err *err);
/* Both ends of a manifest: the object from images/<id>. Fails where a file of it is missing or has another size
 * than the manifest says. */
int image_load(const char *dir, struct image **ret, struct err *err);
/* Reads all of it: EINVAL where a file is not what the manifest says. */
int image_verify(const struct image *i, struct err *err);
/* Sets i->initrd, writing it when it is not there: into this store, or where that cannot be written (or is NULL) into
 * .initrd of the run directory. guest: path of vse-guest, or NULL: beside this program. */
int image_initrd(const char *store, struct image *i, const char *guest, struct err *err);

#endif
