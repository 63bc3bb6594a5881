/* SPDX-License-Identifier: Apache-2.0 */
/* What several commands need: which cluster is meant, a connection to it, signals, output. */
#ifndef VSE_COMMANDS_COMMON_H
#define VSE_COMMANDS_COMMON_H

#include <jansson.h>

#include "base/rankset.h"
#include "client/library.h"
#include "commands/command.h"

/* The option every command about a running cluster has. */
#define OPTION_CLUSTER                                                                             \
	{                                                                                          \
		"cluster", 'c', "NAME", "the cluster (needed only when several run)", "cluster"    \
	}
#define OPTION_RANK                                                                                \
	{                                                                                          \
		"rank", 'r', "SET", "the VMs: 3, or 0-3,7, or all", NULL                           \
	}
#define OPTION_JSON                                                                                \
	{                                                                                          \
		"json", 0, NULL, "print JSON", NULL                                                \
	}

/* Prints what went wrong; gives EXIT_USAGE where what was asked for is wrong, else EXIT_FAILED. */
int common_fail(const struct command *cmd, const struct vse_error *e);
/* The cluster named, or the only one that runs, in a session of its own. */
int common_connect(const char *named, struct vse_cluster **ret, struct vse_error *e);
void common_disconnect(struct vse_cluster *c);               /* and its session */
int common_names(struct strvec *names, struct vse_error *e); /* of all clusters; added */
/* The options of this command that the library has for these calls (client/options.h). 0, or an exit code with the
 * reason printed. */
int common_options(const struct command *cmd, const struct args *a, int calls, struct vse_options **ret);

/* One request to the cluster meant by --cluster, with its reply; gives an exit code, the reason printed. */
int common_ask(const struct command *cmd, const struct args *a, json_t *req, uint64_t bound_ms,
	       json_t **ret);
/* A reason that the agent gave: EXIT_USAGE where what was asked for does not exist in the cluster (a rank). */
int common_refused(const struct command *cmd, const struct err *err);
/* "ranks": of --rank, else `otherwise`. */
const char *common_ranks(const struct args *a, const char *otherwise);
/* "3", "vm3" or "0-3": a VM set as an operand; the "vm" before it is dropped. */
const char *common_vm_text(const char *operand);

char *common_vm_names(const struct rankset *ranks); /* "vm3", "vm[0-3,7]"; malloc'ed */

void common_print_json(const json_t *j); /* indented, one newline */

/* SIGINT, SIGTERM, SIGHUP call fn from the loop. */
struct interrupts;
struct interrupts *interrupts_create(struct loop *l, void (*fn)(void *arg, int signo), void *arg);
void interrupts_destroy(struct interrupts *i); /* NULL is fine */

#endif
