/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/command.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"

#define COMMAND(x) extern const struct command command_##x;
#include "commands/commands.def"
#undef COMMAND

static const struct command *const table[] = {
#define COMMAND(x) &command_##x,
#include "commands/commands.def"
#undef COMMAND
};

const struct command *command_at(size_t i)
{
	return i < ARRAY_SIZE(table) ? table[i] : NULL;
}

const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strcmp(table[i]->name, name) == 0)
			return table[i];
	return NULL;
}

int command_fail(const struct command *cmd, const struct err *err)
{
	fprintf(stderr, "vse %s: %s\n", cmd->name, err->text[0] ? err->text : strerror(err->code));
	return EXIT_FAILED;
}

int command_usage(const struct command *cmd, const char *fmt, ...)
{
	va_list ap;
	fprintf(stderr, "vse %s: ", cmd->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (see 'vse %s --help')\n", cmd->name);
	return EXIT_USAGE;
}

/* ---- help ---- */

static int option_width(const struct option_spec *o)
{
	return (int)(strlen(o->name) + (o->argument ? strlen(o->argument) + 1 : 0));
}

static void print_options(const struct command *cmd)
{
	int width = 4;
	for (const struct option_spec *o = cmd->options; o && o->name; o++)
		width = MAX(width, option_width(o));
	puts("\nOptions:");
	for (const struct option_spec *o = cmd->options; o && o->name; o++) {
		char letter[4] = "   ";
		if (o->letter)
			snprintf(letter, sizeof(letter), "-%c,", o->letter);
		printf("  %s --%s%s%s%*s  %s\n", letter, o->name, o->argument ? " " : "",
		       o->argument ? o->argument : "", width - option_width(o), "", o->help);
	}
	printf("  -h, --help%*s  show this\n", width - 4, "");
}

static int print_help(const struct command *cmd)
{
	printf("vse %s - %s\n\nUsage: vse %s [options]%s%s\n", cmd->name, cmd->summary, cmd->name,
	       cmd->usage && *cmd->usage ? " " : "", cmd->usage ? cmd->usage : "");
	if (cmd->details)
		printf("\n%s\n", cmd->details);
	print_options(cmd);
	printf("\nMore: man vse-%s\n", cmd->name);
	return EXIT_OK;
}

static int print_overview(void)
{
	puts("vse - virtual system environments: build one, run it as a virtual cluster\n\n"
	     "Usage: vse COMMAND [options] ...\n\nCommands:");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!table[i]->hidden)
			printf("  %-10s %s\n", table[i]->name, table[i]->summary);
	puts("\n'vse COMMAND --help' tells more of one; 'vse --version' gives the version.");
	return EXIT_OK;
}

/* ---- the command line ---- */

static int index_of(const struct command *cmd, const char *name, size_t len)
{
	for (int i = 0; cmd->options && cmd->options[i].name; i++)
		if (strlen(cmd->options[i].name) == len && strncmp(cmd->options[i].name, name, len) == 0)
			return i;
	return -1;
}

static int letter_of(const struct command *cmd, char letter)
{
	for (int i = 0; cmd->options && cmd->options[i].name; i++)
		if (cmd->options[i].letter == letter)
			return i;
	return -1;
}

static void set(struct args *a, int i, const char *value)
{
	a->values[i] = value;
	strvec_add(&a->repeated[i], value);
}

static bool is_in(const char *list, const char *word, size_t len)
{
	for (const char *p = list; *p; p += strcspn(p, "|"), p += *p == '|')
		if (strcspn(p, "|") == len && strncmp(p, word, len) == 0)
			return true;
	return false;
}

/* An option whose values are a list ("auto|kvm|tcg") takes no other; with a comma in front, several of them with commas. */
static int check_choice(const struct command *cmd, const struct option_spec *o, const char *value)
{
	const char *list = o->complete, *v = value;
	if (!list || !strchr(list, '|'))
		return 0;
	bool many = *list == ',';
	list += many;
	for (;; v++) {
		size_t len = many ? strcspn(v, ",") : strlen(v);
		if (!is_in(list, v, len))
			break;
		v += len;
		if (!*v)
			return 0;
	}
	_cleanup_free_ char *text = xstrdup(list);
	for (char *p = text; *p; p++)
		*p = *p == '|' ? ' ' : *p;
	return command_usage(cmd, "--%s %s: not one of: %s", o->name, value, text);
}

static int parse_long(struct args *a, char **argv, int *i)
{
	const struct command *cmd = a->cmd;
	const char *name = argv[*i] + 2;
	size_t len = strcspn(name, "=");
	int o = index_of(cmd, name, len);
	if (o < 0)
		return command_usage(cmd, "unknown option '--%.*s'", (int)len, name);
	if (!cmd->options[o].argument) {
		if (name[len])
			return command_usage(cmd, "option '--%s' takes no value", cmd->options[o].name);
		set(a, o, "");
		return 0;
	}
	if (!name[len] && !argv[*i + 1])
		return command_usage(cmd, "option '--%s' needs %s", cmd->options[o].name,
				     cmd->options[o].argument);
	set(a, o, name[len] ? name + len + 1 : argv[++*i]);
	return check_choice(cmd, cmd->options + o, a->values[o]);
}

static int parse_letters(struct args *a, char **argv, int *i)
{
	const struct command *cmd = a->cmd;
	for (const char *p = argv[*i] + 1; *p; p++) {
		int o = letter_of(cmd, *p);
		if (o < 0)
			return command_usage(cmd, "unknown option '-%c'", *p);
		if (!cmd->options[o].argument) {
			set(a, o, "");
			continue;
		}
		if (!p[1] && !argv[*i + 1])
			return command_usage(cmd, "option '-%c' needs %s", *p, cmd->options[o].argument);
		set(a, o, p[1] ? p + 1 : argv[++*i]);
		return check_choice(cmd, cmd->options + o, a->values[o]);
	}
	return 0;
}

static bool asks_help(char **argv)
{
	return strcmp(*argv, "--help") == 0 || strcmp(*argv, "-h") == 0;
}

/* 0: go on; -2: help was asked for; else an exit code. Operands are gathered at the front of argv. */
static int parse(struct args *a, int argc, char **argv)
{
	const struct command *cmd = a->cmd;
	bool rest = false;
	a->operands = argv;
	for (int i = 0; i < argc; i++) {
		int code = 0;
		if (!rest && strcmp(argv[i], "--") == 0) {
			rest = true;
			continue;
		}
		if (rest || argv[i][0] != '-' || !argv[i][1]) {
			a->operands[a->n_operands++] = argv[i];
			if (cmd->stop_at_operand && a->n_operands >= cmd->min_args)
				rest = true;
			continue;
		}
		if (asks_help(argv + i))
			return -2;
		code = argv[i][1] == '-' ? parse_long(a, argv, &i) : parse_letters(a, argv, &i);
		if (code)
			return code;
	}
	a->operands[a->n_operands] = NULL;
	if (a->n_operands < cmd->min_args)
		return command_usage(cmd, "%s: vse %s [options] %s",
				     a->n_operands ? "too few arguments" : "missing argument",
				     cmd->name, cmd->usage ? cmd->usage : "");
	if (cmd->max_args >= 0 && a->n_operands > cmd->max_args)
		return command_usage(cmd, "unexpected argument '%s'", a->operands[cmd->max_args]);
	return 0;
}

const char *arg_value(const struct args *a, const char *name)
{
	int i = index_of(a->cmd, name, strlen(name));
	assert(i >= 0);
	return a->values[i];
}

const struct strvec *arg_values(const struct args *a, const char *name)
{
	int i = index_of(a->cmd, name, strlen(name));
	assert(i >= 0);
	return &a->repeated[i];
}

bool arg_flag(const struct args *a, const char *name)
{
	return arg_value(a, name) != NULL;
}

/* Nearly every argument goes into a JSON message, which holds nothing else; a message would go without it. */
static int check_text(const struct command *cmd, char *const *argv)
{
	for (; *argv; argv++)
		if (!text_is_utf8(*argv))
			return command_usage(cmd, "an argument is not UTF-8 text");
	return 0;
}

static int run(const struct command *cmd, int argc, char **argv)
{
	struct args a = {.cmd = cmd};
	int code = check_text(cmd, argv);
	if (!code)
		code = parse(&a, argc, argv);
	if (code == -2)
		code = print_help(cmd);
	else if (code == 0)
		code = cmd->run(cmd, &a);
	for (size_t i = 0; i < ARRAY_SIZE(a.repeated); i++)
		strvec_finish(&a.repeated[i]);
	/* Output that could not be written (a full disk, a closed pipe) is a failure of the command. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		if (errno != EPIPE)
			fprintf(stderr, "vse %s: write output: %s\n", cmd->name, strerror(errno));
		code = code ? code : EXIT_FAILED;
	}
	return code;
}

static const struct command *nearest(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!table[i]->hidden && strncmp(table[i]->name, name, 2) == 0)
			return table[i];
	return NULL;
}

int command_main(int argc, char **argv)
{
	while (argc > 1 && (strcmp(argv[1], "-v") == 0 || strcmp(argv[1], "--verbose") == 0)) {
		log_setup("vse", LOG_DEBUG, true);
		argc--;
		argv++;
	}
	if (argc < 2) {
		print_overview();
		return EXIT_USAGE;
	}
	if (asks_help(argv + 1) || (strcmp(argv[1], "help") == 0 && argc == 2))
		return print_overview();
	if (strcmp(argv[1], "--version") == 0) {
		puts("vse " VSE_VERSION);
		return fflush(stdout) ? EXIT_FAILED : EXIT_OK;
	}
	bool help = strcmp(argv[1], "help") == 0;
	const char *name = argv[help ? 2 : 1];
	const struct command *cmd = command_find(name);
	if (!cmd) {
		const struct command *near = nearest(name);
		fprintf(stderr, "vse: no command '%s'%s%s%s (see 'vse --help')\n", name,
			near ? "; did you mean '" : "", near ? near->name : "", near ? "'?" : "");
		return EXIT_USAGE;
	}
	return help ? print_help(cmd) : run(cmd, argc - 2, argv + 2);
}
