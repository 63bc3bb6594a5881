/* SPDX-License-Identifier: Apache-2.0 */
/* The unpacked root of an image under construction. All of this runs inside the sandbox as its
 * root. The tree is a stranger's: no path in it is followed from outside; what must follow links
 * does so in a process that has made the tree its root. */
#ifndef VSE_IMAGE_ROOTFS_H
#define VSE_IMAGE_ROOTFS_H

#include "base/buf.h"
#include "base/err.h"
#include "base/strvec.h"
#include "image/recipe.h"
#include "image/sandbox.h"

/* What SOURCE_DATE_EPOCH says to the packages' scripts (accounts' dates and the like): any fixed
 * day. */
#define ROOTFS_EPOCH "1700000000"

/* Runs fn in a child process that is chrooted to root. */
int rootfs_inside(const char *root, int (*fn)(void *arg, struct err *err), void *arg, struct err *err);
/* The file of this path as seen from inside the root, links followed there; malloc'ed. */
int rootfs_read(const char *root, const char *path, size_t max, char **ret, size_t *ret_len,
		struct err *err);
/* root/usr/lib or root/lib, whichever is a real folder; malloc'ed. */
int rootfs_lib(const char *root, char **ret, struct err *err);

/* Unpacks an archive (fd at its start; borrowed) with our tar filter before the tar program. */
int rootfs_unpack(const char *root, int fd, struct recipe *r, struct sandbox_self *self,
		  struct err *err);
/* The folders that others are mounted on are there and are folders. */
int rootfs_folders(const char *root, struct err *err);
/* Those, a known shell, the right architecture. */
int rootfs_check(const char *root, const struct recipe *r, struct err *err);
int rootfs_files(const char *root, const struct recipe *r, struct err *err);
int rootfs_steps(const char *root, struct recipe *r, struct sandbox_self *self, struct err *err);
/* Nothing of this host and nothing that differs from build to build stays. */
int rootfs_neutralize(const char *root, const struct recipe *r, struct err *err);

#endif
