/* SPDX-License-Identifier: Apache-2.0 */
/* Which hypervisors may run the VMs of a cluster, best first: from what was asked for, what the VSE needs, and how well it
 * wants to be protected. What a node then has decides: it takes the first of them that is usable there. */
#ifndef VSE_CLUSTER_CHOOSE_H
#define VSE_CLUSTER_CHOOSE_H

#include "base/buf.h"
#include "cluster/cluster_spec.h"
#include "hypervisor/hypervisor.h"
#include "io/loop.h"

#define CHOOSE_AUTO "auto" /* every VMM there is, the strongest wall first */
/* Lowest level of protection that a VSE accepts: the field `protection`. */
#define PROTECTION_VM "vm" /* a kernel of the VM's own stands between it and the node */
#define PROTECTION_CONTAINER "container" /* the node's kernel is enough */

bool choose_several(const struct cluster_spec *s); /* more than one name was given, or CHOOSE_AUTO */

/* s->hypervisor is a name, names with commas, or CHOOSE_AUTO; VMs on no network of the cluster are chosen only where
 * one name was given. refused: "container: ..." for each that was not taken, with "; " between them; may be NULL.
 * EINVAL: an unknown name, or of several none has s->accel or s->machine. ENOTSUP: none is left; the text has all reasons. */
int choose_names(const struct cluster_spec *s, struct strvec *names, struct buf *refused,
		 struct err *err);

/* The first of `names`, those of a choice, that is usable on this node; `accel` binds those who know that word. Its own
 * loop runs meanwhile: as a rule 0.2 s, at worst 10 s a name.
 * ret: its answer. NULL: none; why then has every reason, else that of those before it; malloc'ed, "" = none. Borrowed. */
const char *choose_here(const struct strvec *names, const char *accel, struct hv_probe *ret,
			char **ret_why);

#endif
