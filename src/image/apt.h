/* SPDX-License-Identifier: Apache-2.0 */
/* Running mmdebstrap and apt inside the sandbox: progress from their output, and the one line that
 * tells why they failed. */
#ifndef VSE_IMAGE_APT_H
#define VSE_IMAGE_APT_H

#include "base/err.h"
#include "base/strvec.h"
#include "image/recipe.h"
#include "image/sandbox.h"

/* Counts what apt and dpkg say: "Get:7 ...", "Setting up NAME ...", "N newly installed". */
struct apt_progress {
	unsigned got, to_get, set_up, total;
	const char *step; /* "download" or "packages"; NULL: nothing to tell */
	char text[80];
};
/* True when something to tell has changed. */
bool apt_progress_line(struct apt_progress *p, const char *line);

/* What a failed apt or mmdebstrap wants to say, as one line with what to do. */
void apt_blame(const char *output, const struct recipe *r, struct err *err);

/* The base of a distribution with its packages, into root; cached .deb files are used, and new ones
 * are left in dir/debs. Work files go to dir. */
int apt_base(const char *root, const char *dir, const char *cache, const struct recipe *r,
	     struct sandbox_self *self, struct err *err);
/* Downloads the kernel package (and its modules' packages) that `wanted` leads to and unpacks them
 * into dir/kernel. root: its package lists are used when it has some. *ret_package: "NAME VERSION",
 * malloc'ed. */
int apt_kernel(const char *root, const char *dir, const char *cache, const struct recipe *r,
	       struct sandbox_self *self, char **ret_package, struct err *err);
/* "Depends: a (= 1), b | c" of `apt-cache show`: the names that begin with linux-image- or
 * linux-modules-. */
void apt_kernel_depends(const char *show, struct strvec *out);

#endif
