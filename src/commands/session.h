/* SPDX-License-Identifier: Apache-2.0 */
/* A command that runs in VMs, as `exec` and `run` need it: output folded, stdin to all, signals, exit codes. */
#ifndef VSE_COMMANDS_SESSION_H
#define VSE_COMMANDS_SESSION_H

#include "client/library.h"
#include "commands/command.h"

#define SESSION_OPTIONS                                                                                     \
	{"user", 'u', "USER", "run as this user of the VM (default root)", NULL},                           \
		{"cwd", 'w', "DIR", "working directory in the VM", NULL},                                   \
		{"env", 'e', "NAME=VALUE", "set a variable (may be repeated)", NULL},                       \
		{"tty", 't', NULL, "give it a terminal (one VM only)", NULL},                               \
		{"interactive", 'i', NULL, "pass on stdin even if it is a terminal", NULL},                 \
		{"no-stdin", 0, NULL, "do not read stdin", NULL},                                           \
	{                                                                                                   \
		"label", 'l', "WHEN", "label lines with their VM: auto, always, never", "auto|always|never" \
	}

/* What the command line alone tells is wrong with the ranks (text), --env and --tty in a cluster of `size`: 0 or an exit
 * code, the reason printed. For `run`, which starts nothing for nothing. */
int session_check(const struct command *cmd, const struct args *a, const char *ranks, uint32_t size);
/* Runs argv on the VMs of `ranks` (text), checked as above. The size of the cluster is known. Gives the exit code: the program's
 * own, 128 + signal, the greatest of many; 1 when a VM could not run it; 128 + the signal that ended vse itself (130: a
 * second SIGINT). Prints what went wrong. */
int session_run(const struct command *cmd, const struct args *a, struct vse_cluster *c,
		const char *ranks, char *const *argv);

#endif
