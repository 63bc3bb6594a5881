/* SPDX-License-Identifier: Apache-2.0 */
/* A template: a VM that has booted until its guest agent said hello, kept as its memory and the state of its devices. It
 * was told nothing, so it holds no cluster's names, keys or secrets. VMs that start from it copy its memory on write and
 * are told who they are, as after a boot (wire/guestproto.h). */
#ifndef VSE_VM_TEMPLATE_H
#define VSE_VM_TEMPLATE_H

#include "vm/vm.h"

struct template;
struct template_fetch;

/* Other nodes that may have it. */
struct template_source {
	/* Looks for it there, and puts it among those that are kept here (vm/kept.h); it need not be sound. done() once, from the loop:
	 * the name of the node it is from, or NULL. NULL: there is nobody to ask, and done() does not come. */
	struct template_fetch *(*begin)(void *arg, const char *key, const char *cache,
					void (*done)(void *done_arg, const char *from), void *done_arg);
	void (*cancel)(struct template_fetch *f); /* before its done() */
};

struct template_spec {
	const struct vm_profile *profile; /* borrowed for the template's life */
	const char *dir;                  /* of the VM that it is made of; made, and removed */
	const char *cache; /* folder of this user's alone where templates are kept; NULL: none is */
	const char *key;   /* KEPT_KEY characters: the same for what boots the same */
	const struct template_source *source; /* borrowed; asked when there is none in the cache; NULL: none */
	void *source_arg;
	bool make;         /* boot a VM for it when it is nowhere */
	uint64_t bound_ms; /* for that VM to say hello and be written out */
};

/* Looks for it, or makes it. done() once, from the loop: NULL when it can be used; ENOENT when there is none and none was
 * to be made. All borrowed for the call but what says otherwise. */
struct template *template_create(struct loop *l, const struct template_spec *s,
				 void (*done)(void *arg, const struct err *err), void *arg,
				 struct err *err);
/* VMs that have started from it go on; NULL is fine. */
void template_destroy(struct template *t);
/* " made now", " of the cache", " of node n1" */
const char *template_origin(const struct template *t);
/* The boot id that its guest agent said hello with, and its clones' would; "": not known. */
const char *template_boot(const struct template *t);
/* Of one that is ready: lets the VM start from it. ret_fd is to be closed after the start. */
int template_use(const struct template *t, struct hv_spec *spec, int *ret_fd, struct err *err);

#endif
