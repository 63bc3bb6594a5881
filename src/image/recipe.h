/* SPDX-License-Identifier: Apache-2.0 */
/* A VSE with everything it refers to on this host looked up: what a build reads, and the key of the
 * cache.
 *
 * The key is the SHA-256 of a canonical JSON text: this room's format number, the parts of the VSE
 * that shape an image, the repositories, the SHA-256 of each file, an outline of this host's modules for
 * a kernel that is a file, and of a folder or archive as base a fingerprint by stat (tree.h): reading gigabytes to find that nothing changed would be no
 * cache. What the repositories hold today is not in it: a finished image stays until `--rebuild`.
 * */
#ifndef VSE_IMAGE_RECIPE_H
#define VSE_IMAGE_RECIPE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/strvec.h"
#include "image/digest.h"
#include "spec/vse.h"

/* Raised when the same input would give another image. */
#define IMAGE_FORMAT 5

struct recipe {
	const struct vse *v; /* borrowed */
	char key[DIGEST_HEX];
	json_t *json; /* what the key was made from, but for the base's fingerprint and the modules */
	char *sources; /* one-line repositories: of the base, or (folder, archive) for the kernel; or NULL */
	char *sources_problem; /* why there are none */
	char *cache_name;      /* folder of cache/debs */
	struct strvec apt; /* the host's own apt settings that matter to a download: 'Acquire::x "y";' */
	struct strvec proxy; /* NAME=value of the proxy variables: part of no image */
	uint64_t base_bytes; /* an estimate of how much there is to unpack */
	bool base_inside; /* the folder has files of our subordinate ids: read it in the namespace */
	bool base_unknown;      /* not all of the folder could be seen: its key is like no other */
	const char *compressor; /* of the archive: program, or "" */
	uint32_t own_uid, own_gid; /* who builds, as seen outside */
	int base_fd; /* where an archive of the folder comes from, made outside the namespace; or -1 */
};

/* The program that writes a tar archive of the base folder to its stdout. */
void recipe_tar_folder(const struct recipe *r, struct strvec *argv, struct strvec *env);
/* Looks up what the key needs: no program is run, unless a base folder must be read in the namespace; store (may be
 * NULL) has room for that. */
int recipe_make(const struct vse *v, const char *store, struct recipe **ret, struct err *err);
/* Looks up what only a build needs. */
void recipe_read_apt(struct recipe *r);
void recipe_free(struct recipe *r); /* NULL is fine */
static inline void cleanup_recipe(struct recipe **r)
{
	recipe_free(*r);
}

/* mmdebstrap that makes `root` from the repositories in the file `list`. */
void recipe_mmdebstrap(const struct recipe *r, const char *root, const char *list, struct strvec *argv);
/* The architecture of this machine as Debian names it: "amd64", "arm64", or what uname says. */
const char *recipe_host_arch(void);
/* Programs, subordinate ids, architecture, room in the store: one line on what is missing and what
 * to do. */
int recipe_check(const struct recipe *r, const char *store, struct err *err);

#endif
