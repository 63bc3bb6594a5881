/* SPDX-License-Identifier: Apache-2.0 */
/* vse validate: says everything that is wrong with VSE files. */
#include <jansson.h>
#include <stdio.h>

#include "commands/command.h"
#include "spec/vse.h"

static json_t *result_json(const char *file, const struct strvec *problems)
{
	json_t *list = json_array();
	for (size_t i = 0; i < problems->n; i++)
		json_array_append_new(list, json_string(problems->v[i]));
	/* A name that is not UTF-8 cannot be said in JSON. */
	json_t *name = json_string(file);
	return json_pack("{s:o, s:b, s:o}", "file", name ? name : json_null(), "ok",
			 problems->n == 0, "problems", list);
}

static int run(const struct command *cmd, struct args *args)
{
	int code = EXIT_OK;
	json_t *all = arg_flag(args, "json") ? json_array() : NULL;
	(void)cmd;
	for (int i = 0; i < args->n_operands; i++) {
		_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
		_cleanup_vse_ struct vse *v = NULL;
		const char *file = args->operands[i];
		if (vse_load(file, &v, &problems, NULL) < 0)
			code = EXIT_USAGE;
		if (all)
			json_array_append_new(all, result_json(file, &problems));
		else if (v)
			printf("%s: ok\n", file);
		for (size_t k = 0; k < problems.n && !all; k++)
			fprintf(stderr, "%s\n", problems.v[k]);
	}
	if (all) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(all);
	}
	return code;
}

static const struct option_spec options[] = {
	{.name = "json", .help = "print the results as JSON"},
	{0},
};

const struct command command_validate = {
	.name = "validate",
	.summary = "check VSE files",
	.usage = "FILE...",
	.details = "Prints 'FILE: ok' for each good file, and every problem of the others on "
		   "standard error as\n"
		   "'FILE:LINE:COLUMN: FIELD: what is wrong; allowed: ...'. Ends with 2 when a "
		   "file is not good.",
	.options = options,
	.min_args = 1,
	.max_args = -1,
	.complete = "file",
	.run = run,
};
