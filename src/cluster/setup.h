/* SPDX-License-Identifier: Apache-2.0 */
/* The "setup" record of a VM: everything personal that its guest agent applies (wire/guestproto.h). */
#ifndef VSE_CLUSTER_SETUP_H
#define VSE_CLUSTER_SETUP_H

#include "base/buf.h"
#include "cluster/cluster_spec.h"

/* Texts that are the same for every VM of a cluster, made once. */
struct setup_texts {
	char *hosts, *hostfile;
	unsigned char ids[16]; /* random: what the machine ids are made of (RFC 4122, version 4) */
};

void setup_texts_init(struct setup_texts *t, const struct cluster_spec *s);
void setup_texts_finish(struct setup_texts *t);
/* network: the VM has an eth0. again: to a guest that was ready with it before: its machine id stays, and what hangs on
 * it, also where another agent's texts gave it. One that is told twice before it is ready gets the same one twice. */
void setup_write(struct buf *kv, const struct cluster_spec *s, const struct setup_texts *t,
		 uint32_t rank, bool network, bool again);

#endif
