/* SPDX-License-Identifier: Apache-2.0 */
/* A subcommand of `vse`: one const struct at the end of its own file. Help, completion and the check of the
 * man page come from it.
 *
 * To add one: write src/commands/NAME.c that ends in `const struct command command_NAME = {...}`, put the word
 * into the list of src/commands/meson.build, and write man/vse-NAME.1.scd. */
#ifndef VSE_COMMANDS_COMMAND_H
#define VSE_COMMANDS_COMMAND_H

#include <stdbool.h>

#include "base/err.h"
#include "base/strvec.h"

/* Exit codes of every command. `run` and `exec` give the program's own. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

#define OPTIONS_MAX 64 /* of a command */

struct args;

struct option_spec {
	const char *name;     /* long name without dashes: "rank" */
	char letter;          /* short one, or 0 */
	const char *argument; /* "N", or NULL for a flag */
	const char *help;     /* one line, no capital, no full stop */
	const char *complete; /* what completes the argument: "file", "cluster", "node", "image", or "a|b|c" (",a|b|c": several, with
			       * commas); may be NULL */
};

struct command {
	const char *name;
	const char *summary; /* one line */
	const char *usage;   /* what follows the options: "FILE [--] COMMAND [ARG...]" */
	const char *details; /* more lines of help, or NULL */
	const struct option_spec *options; /* ends with a zeroed entry; may be NULL */
	int min_args, max_args;            /* operands; max -1 = any */
	/* Everything after the first operand is an operand too (exec, run: the program's own options). */
	bool stop_at_operand;
	const char *complete; /* what completes an operand: as in option_spec */
	bool hidden;
	int (*run)(const struct command *cmd, struct args *args);
};

/* A parsed command line. */
struct args {
	const struct command *cmd;
	const char *values[OPTIONS_MAX]; /* by index of the option in cmd->options; NULL = not given; flags: "" */
	struct strvec repeated[OPTIONS_MAX]; /* every value of an option that was given more than once, in order */
	char **operands;                     /* borrowed from argv, NULL-terminated */
	int n_operands;
};

/* By long name: which must be one of the command's. */
const char *arg_value(const struct args *a, const char *name); /* the last one given, or NULL */
const struct strvec *arg_values(const struct args *a, const char *name); /* all, in order */
bool arg_flag(const struct args *a, const char *name);

/* Finds and runs: gives the exit code. */
int command_main(int argc, char **argv);
const struct command *command_find(const char *name); /* NULL: none */
const struct command *command_at(size_t i);           /* NULL past the last */

/* Prints "vse NAME: text" and gives EXIT_FAILED (EXIT_USAGE for a usage error, with a hint at --help). */
int command_fail(const struct command *cmd, const struct err *err);
int command_usage(const struct command *cmd, const char *fmt, ...) _printf_(2, 3);

#endif
