/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.json: what an image is. The same build gives the same bytes: when it was built is the
 * file's modification time, not its content. */
#ifndef VSE_IMAGE_MANIFEST_H
#define VSE_IMAGE_MANIFEST_H

#include "base/err.h"
#include "image/image.h"
#include "image/recipe.h"

struct manifest_parts {
	const char *dir;                             /* the image's folder, all other files in it */
	const char *tree;                            /* digest of the root's tree */
	int64_t epoch;                               /* newest time in it */
	const char *kernel_version, *kernel_package; /* version may be NULL */
	bool has_vmlinux;
	const struct strvec *modules;
	const char *status; /* the root's dpkg status file, or NULL */
	bool has_sshd;
};

/* Writes dir/manifest.json and gives the image's id:
 * SHA-256 over name, architecture, init, environment, tree, kernel, module list and modules. */
int manifest_write(const struct recipe *r, const struct manifest_parts *p, char ret_id[DIGEST_HEX],
		   struct err *err);
/* dpkg's status file: installed packages as [{name, version, architecture}], by name; new
 * reference. */
json_t *manifest_packages(const char *status);

#endif
