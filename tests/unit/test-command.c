/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands and the reading of command lines. */
#include <stdlib.h>

#include "client/options.h"
#include "commands/command.h"
#include "commands/common.h"
#include "tap.h"

/* ---- the table keeps what its header promises ---- */

static void check_options(const struct command *c)
{
	bool good = true;
	size_t n = 0;
	for (const struct option_spec *o = c->options; o && o->name; o++, n++) {
		size_t len = strlen(o->help);
		good = good && len && o->help[len - 1] != '.' && strncmp(o->name, "--", 2) != 0;
		for (const struct option_spec *p = c->options; p < o; p++)
			good = good && strcmp(p->name, o->name) != 0 &&
			       (!p->letter || p->letter != o->letter);
	}
	ok(good, "%s: options have names and letters of their own, and help", c->name);
	ok(n <= OPTIONS_MAX, "%s: not more of them than fit", c->name);
}

static void test_table(void)
{
	const struct command *c;
	for (size_t i = 0; (c = command_at(i)); i++) {
		ok(c->name && c->summary && c->run && strlen(c->summary) < 79, "%s: is whole", c->name);
		ok(command_find(c->name) == c, "%s: is found", c->name);
		ok(c->max_args < 0 || c->max_args >= c->min_args, "%s: bounds of its operands", c->name);
		check_options(c);
	}
	ok(!command_find("nothing") && !command_find(""), "what is not there is not found");
}

/* What the library does not know is not passed on to it: an option of `up` that is missing there would say nothing. */
static void check_passed_on(const char *name, int calls, const char *const *own)
{
	for (const struct option_spec *o = command_find(name)->options; o->name; o++) {
		bool ours = false;
		for (const char *const *w = own; *w; w++)
			ours = ours || strcmp(*w, o->name) == 0;
		ok(option_known(o->name, calls) != ours, "%s --%s: the library's or the command's",
		   name, o->name);
	}
}

static void test_passed_on(void)
{
	check_passed_on("up", FOR_UP, (const char *const[]){"dry-run", "quiet", NULL});
	check_passed_on("exec", FOR_EXEC,
			(const char *const[]){"cluster", "rank", "interactive", "no-stdin", "label",
					      NULL});
	check_passed_on("events", FOR_FOLLOW, (const char *const[]){"cluster", "json", NULL});
	check_passed_on("logs", FOR_FOLLOW, (const char *const[]){"cluster", NULL});
}

/* ---- sets of VMs as operands ---- */

static void test_vm_text(void)
{
	is_str(common_vm_text("vm3"), "3", "vm3 is 3");
	is_str(common_vm_text("0-3"), "0-3", "a set is itself");
	is_str(common_vm_text("vm"), "vm", "vm alone is a mistake that stays one");
}

/* ---- command lines ---- */

static int call(char **argv)
{
	int argc = 0;
	while (argv[argc])
		argc++;
	fflush(NULL);
	return command_main(argc, argv);
}
#define CALL(...) call((char *[]){(char *)"vse", __VA_ARGS__, NULL})
#define W(x) ((char *)(x))

static void test_lines(void)
{
	is_int(CALL(W("nothing")), EXIT_USAGE, "an unknown command");
	is_int(CALL(W("down"), W("a"), W("b")), EXIT_USAGE, "too many operands");
	is_int(CALL(W("cp"), W("a")), EXIT_USAGE, "too few");
	is_int(CALL(W("ps"), W("--frob")), EXIT_USAGE, "an unknown option");
	is_int(CALL(W("ps"), W("-c")), EXIT_USAGE, "an option without its value");
	is_int(CALL(W("ps"), W("--json=1")), EXIT_USAGE, "a flag with one");
	is_int(CALL(W("up"), W("--accel"), W("gpu"), W("x")), EXIT_USAGE,
	       "a value that is not in the list");
	is_int(CALL(W("up"), W("--accel=kv"), W("x")), EXIT_USAGE, "nor is the beginning of one");
	is_int(CALL(W("exec"), W("-l"), W("")), EXIT_USAGE, "nor is nothing");
	is_int(CALL(W("ps"), W("-ZZ")), EXIT_USAGE, "an unknown letter");
	is_int(CALL(W("exec"), W("-e"), W("X=\xff"), W("true")), EXIT_USAGE,
	       "a variable that is not UTF-8");
	is_int(CALL(W("cp"), W("\xc3"), W("vm0:/")), EXIT_USAGE, "nor is a path");
}

int main(void)
{
	/* Messages are not what is tested here; TAP goes to stdout. */
	if (!freopen("/dev/null", "w", stderr))
		return 1;
	test_table();
	test_passed_on();
	test_vm_text();
	test_lines();
	return done();
}
