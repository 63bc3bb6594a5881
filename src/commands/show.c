/* SPDX-License-Identifier: Apache-2.0 */
/* vse show: what a VSE file says, in one form; with --resolved, with every default filled in. */
#include <stdio.h>

#include "base/alloc.h"
#include "commands/command.h"
#include "spec/schema.h"
#include "spec/vse.h"

static const char *kind_text(const struct spec_field *f)
{
	static const char *const kinds[] = {
		[SPEC_TEXT] = "text",         [SPEC_LIST] = "list of text", [SPEC_MAP] = "map",
		[SPEC_MAPS] = "list of maps", [SPEC_PAIRS] = "map of text",
	};
	return f->bytes ? "size" : kinds[f->kind];
}

static void print_fields(const struct spec_field *fields, const char *prefix)
{
	for (const struct spec_field *f = fields; f->name; f++) {
		printf("%s%s (%s%s%s%s)\n    %s\n    allowed: %s\n", prefix, f->name, kind_text(f),
		       f->required ? ", required" : "", f->standard ? ", default: " : "",
		       f->standard ? f->standard : "", f->help, f->allowed);
		if (!f->fields)
			continue;
		_cleanup_free_ char *below = xasprintf("%s%s%s", prefix, f->name,
						       f->kind == SPEC_MAPS ? "[]." : ".");
		print_fields(f->fields, below);
	}
}

static void print_json(json_t *taken)
{
	json_dumpf(taken, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(taken);
}

static int run(const struct command *cmd, struct args *args)
{
	bool resolved = arg_flag(args, "resolved");
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	_cleanup_vse_ struct vse *v = NULL;
	if (arg_flag(args, "schema")) {
		if (args->n_operands || resolved || arg_flag(args, "json"))
			return command_usage(cmd, "--schema goes alone");
		print_fields(spec_fields, "");
		return EXIT_OK;
	}
	if (args->n_operands == 0)
		return command_usage(cmd, "missing argument");
	if (vse_load(args->operands[0], &v, &problems, NULL) < 0) {
		for (size_t i = 0; i < problems.n; i++)
			fprintf(stderr, "%s\n", problems.v[i]);
		return EXIT_USAGE;
	}
	if (arg_flag(args, "json")) {
		print_json(resolved ? vse_to_json(v) : vse_given_json(v));
		return EXIT_OK;
	}
	_cleanup_free_ char *yaml = resolved ? vse_to_yaml(v) : vse_given_yaml(v);
	fputs(yaml, stdout);
	return EXIT_OK;
}

static const struct option_spec options[] = {
	{.name = "resolved", .letter = 'r', .help = "fill in every default"},
	{.name = "json", .help = "print JSON, with sizes in bytes"},
	{.name = "schema", .help = "print what a VSE file may hold, and stop"},
	{0},
};

const struct command command_show = {
	.name = "show",
	.summary = "print what a VSE file says",
	.usage = "FILE",
	.details = "Prints the file as YAML in one form: fields in the order of vse.yaml(5), sizes "
		   "with their unit,\n"
		   "paths absolute. The output is a VSE file again.",
	.options = options,
	.min_args = 0,
	.max_args = 1,
	.complete = "file",
	.run = run,
};
