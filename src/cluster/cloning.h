/* SPDX-License-Identifier: Apache-2.0 */
/* Whether VMs of a cluster can start from a template on this node, and which template that is. */
#ifndef VSE_CLUSTER_CLONING_H
#define VSE_CLUSTER_CLONING_H

#include "cluster/cluster_spec.h"
#include "cluster/events.h"
#include "vm/template.h"

/* Why not; NULL: they can. p: with the probe's answer. vms: how many would start from it here, with so many CPUs. With CLONE_AUTO
 * also why it does not pay. */
const char *cloning_lacks(const struct cluster_spec *s, const struct vm_profile *p, uint32_t vms,
			  unsigned cpus);
/* Begins to look for the template, here and in `source` (may be NULL), or to make it (vms: how many would start from it here). p: borrowed for the template's
 * life. dir: of the cluster. done() once, from the loop: NULL = there it is; ENOENT = it is not worth making. */
struct template *cloning_begin(struct loop *l, const struct cluster_spec *s, const struct vm_profile *p,
			       const char *dir, uint32_t vms, const struct template_source *source,
			       void *source_arg, void (*done)(void *arg, const struct err *err),
			       void *arg, struct err *err);
/* Of a done(): where the template is from, or why there is none. self: as cluster_create() has it; the root gets a node's, too. */
void cloning_tell(struct events *events, const struct cluster_spec *s, uint32_t self,
		  const struct template *t, const struct err *err);

#endif
