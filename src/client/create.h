/* SPDX-License-Identifier: Apache-2.0 */
/* What a cluster is made of: the VSE file with the options over it, and the message that asks an agent for it. */
#ifndef VSE_CLIENT_CREATE_H
#define VSE_CLIENT_CREATE_H

#include "client/options.h"
#include "client/place.h"
#include "image/image.h"
#include "spec/vse.h"

struct create {
	const struct vse_options *o;
	struct vse *vse;            /* NULL: it is restored */
	json_t *saved;              /* then: the request that made the cluster which was saved */
	char *dir;                  /* and where */
	struct image *image;        /* NULL: none needed, or not there yet */
	json_t *launch;             /* other nodes; NULL: all runs on this one */
	char where[LAUNCH_WHY_MAX]; /* why there */
	const char *name;           /* of the cluster */
	uint32_t size;
};

/* Reads `file` and checks everything that can be before anything is built. *c: only zeroes before. */
int create_prepare(struct create *c, const char *file, const struct vse_options *o, struct vse_error *e);
/* Instead: of the cluster that was saved in the folder `dir`. */
int create_prepare_saved(struct create *c, const char *dir, const struct vse_options *o,
			 struct vse_error *e);
void create_finish(struct create *c);
const char *create_choice(const struct create *c, const char *key, const char *otherwise);
/* The back end `fake` runs no VM, so it needs no image: clusters of it are for tests and for studies of scale. */
const char *create_hypervisor(const struct create *c); /* a name, names with commas, or "auto" */
bool create_needs_image(const struct create *c);
/* NULL with the reason. */
json_t *create_message(const struct create *c, struct err *err);

#endif
