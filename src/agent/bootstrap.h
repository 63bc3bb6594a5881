/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent of a node is told at its start: one line of JSON, on its standard input or in a file of mode 0600. It
 * carries the cluster's secret, so it is never in an argument or in the environment. */
#ifndef VSE_AGENT_BOOTSTRAP_H
#define VSE_AGENT_BOOTSTRAP_H

#include "agent/mesh.h"

#define BOOTSTRAP_MAX (2u << 20) /* bytes of the line */

struct bootstrap {
	char *name; /* of the cluster */
	uint8_t id[MESH_ID_SIZE];
	uint8_t secret[TLS_SECRET_SIZE];
	char *home;          /* rundir_home() of the root; NULL: it cannot tell */
	char *root;          /* where the root agent is: "10.0.0.1:4000,..." */
	struct strvec nodes; /* names of nodes 1..n; "" where only the agent can tell */
	uint32_t fanout, beat_ms, lost_ms, give_up_ms;
	char *hypervisors; /* which may be used, with commas, best first; NULL: the agent need not look */
	char *accel;       /* with them */
};

char *bootstrap_id(const struct bootstrap *b);                     /* hexadecimal; malloc'ed */
char *bootstrap_write(const struct bootstrap *b, struct err *err); /* one line with its newline; malloc'ed */
int bootstrap_parse(const char *text, size_t len, struct bootstrap *ret, struct err *err);
/* Reads and parses the line. fd: until the newline, at most bound_ms. file: it must be ours and of no use to others.
 * ETIMEDOUT, EPROTO, EPERM. */
int bootstrap_read_fd(int fd, uint64_t bound_ms, struct bootstrap *ret, struct err *err);
int bootstrap_read_file(const char *path, struct bootstrap *ret, struct err *err);
void bootstrap_finish(struct bootstrap *b); /* wipes the secret */

#endif
