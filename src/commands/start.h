/* SPDX-License-Identifier: Apache-2.0 */
/* What `up` and `run` share: vse_up() or vse_plan() with the command line's options, and what they print. */
#ifndef VSE_COMMANDS_START_H
#define VSE_COMMANDS_START_H

#include "client/library.h"
#include "commands/command.h"
#include "commands/where.h"

#define START_OPTIONS                                                                                                        \
	{"count", 'n', "N", "number of VMs (default 1)", NULL},                                                              \
		{"name", 0, "NAME", "name of the cluster (default: the VSE's)", NULL},                                       \
		{"cpus", 0, "N", "CPUs of a VM, instead of the VSE's", NULL},                                                \
		{"memory", 'm', "SIZE", "memory of a VM, instead of the VSE's", NULL},                                       \
		{"scratch", 0, "SIZE", "scratch disk of a VM, instead of the VSE's (0: none)", NULL},                        \
		{"timeout", 0, "TIME",                                                                                       \
		 "a VM that is not ready after this has failed (default 2m)", NULL},                                         \
		{"hung-after", 0,                                                                                            \
		 "TIME", "start one anew that gives no sign of life in its boot for this long (default 1m)",                 \
		 NULL},                                                                                                      \
		{"parallel", 0, "N",                                                                                         \
		 "VMs that start at once (default: CPUs of the node, twice that for clones)", NULL},                         \
		{"hypervisor", 0,                                                                                            \
		 "NAME", "qemu (default), container, xen, palacios or fake; the first usable of names with commas; or auto", \
		 ",auto|qemu|container|xen|palacios|fake"},                                                                  \
		{"hypervisor-arg", 0, "ARG",                                                                                 \
		 "one more argument for the hypervisor (may be repeated)", NULL},                                            \
		{"accel", 0, "NAME", "auto (default), kvm or tcg", "auto|kvm|tcg"},                                          \
		{"machine", 0, "TYPE", "auto (default), microvm or q35; with xen: pv, pvh or hvm",                           \
		 "auto|microvm|q35|pv|pvh|hvm"},                                                                             \
		{"clone", 0, NULL,                                                                                           \
		 "boot one VM of a node, start the others from its memory, also if they are few",                            \
		 NULL},                                                                                                      \
		{"no-clone", 0, NULL,                                                                                        \
		 "boot each VM: they share nothing that a kernel draws at boot", NULL},                                      \
		{"mount", 0,                                                                                                 \
		 "MOUNT", "HOST:GUEST[:MODE]: a directory of the nodes in the VMs, ro (default) or rw (may be repeated)",    \
		 NULL},                                                                                                      \
		{"device", 0, "NAME",                                                                                        \
		 "a PCI device of the node for each VM, as pci:15b3:101e (may be repeated)", NULL},                          \
		WHERE_OPTIONS,                                                                                               \
		{"keep-failed", 0, NULL,                                                                                     \
		 "leave a cluster that did not come up, for a look at its logs", NULL},                                      \
		{"dry-run", 0, NULL, "say what would be done, do nothing", NULL},                                            \
	{                                                                                                                    \
		"quiet", 'q', NULL, "no progress", NULL                                                                      \
	}

struct started {
	struct vse_session *session;
	struct vse_cluster *cluster; /* ends with this connection unless it is kept */
};

/* Looks at the rest of the command line when the size is known, before anything is built or started: 0 or an exit code. */
typedef int start_check(const struct command *cmd, const struct args *a, uint32_t size);
/* check: may be NULL. 0 with *ret, or an exit code with the reason printed; EXIT_OK - 1 (that is -1) after a --dry-run. */
int start_cluster(const struct command *cmd, const struct args *a, const char *file,
		  start_check *check, struct started *ret);
/* The same for a cluster that was saved in a folder; the command has no --dry-run. */
int start_restored(const struct command *cmd, const struct args *a, const char *dir,
		   struct started *ret);
/* Leaves it running, and says so; then *s is finished. Gives the exit code. */
int start_leave(const struct command *cmd, const struct args *a, struct started *s);
void started_finish(struct started *s);

#endif
