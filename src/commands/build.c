/* SPDX-License-Identifier: Apache-2.0 */
/* vse build: makes the image of a VSE, or finds it. */
#include <jansson.h>
#include <stdio.h>

#include "base/size.h"
#include "base/time.h"
#include "commands/command.h"
#include "commands/progress.h"
#include "image/image.h"

static void print_json(const struct image *i, bool cached, uint64_t ms)
{
	json_t *j = json_pack("{s:s,s:s,s:s,s:b,s:I,s:I,s:s,s:s,s:s*,s:s,s:s,s:s}", "id", i->id,
			      "name", i->name, "path", i->dir, "cached", (int)cached, "size",
			      (json_int_t)i->size, "milliseconds", (json_int_t)ms, "architecture",
			      i->arch, "kernel", i->kernel, "vmlinux", i->vmlinux, "initrd",
			      i->initrd, "root", i->root, "root_type", i->root_type);
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
}

static int run(const struct command *cmd, struct args *args)
{
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	struct vse *v = NULL;
	struct image *i = NULL;
	struct err err = ERR_INIT;
	struct progress p;
	bool cached = false;
	uint64_t begun = time_mono_ms();
	if (vse_load(args->operands[0], &v, &problems, &err) < 0) {
		for (size_t k = 0; k < problems.n; k++)
			fprintf(stderr, "%s\n", problems.v[k]);
		return EXIT_USAGE;
	}
	progress_begin(&p, arg_flag(args, "quiet"));
	struct image_build_options o = {.rebuild = arg_flag(args, "rebuild"),
					.progress = progress_step,
					.progress_arg = &p};
	int code = image_build(v, &o, &i, &cached, &err);
	progress_clear(&p);
	vse_destroy(v);
	if (code < 0)
		return command_fail(cmd, &err);
	uint64_t took = time_mono_ms() - begun;
	if (arg_flag(args, "json")) {
		print_json(i, cached, took);
	} else {
		char size[24], t[24];
		size_format(i->size, size);
		duration_format(took, t);
		if (!arg_flag(args, "quiet"))
			fprintf(stderr, "%s: %s, %s, %s\n", i->name, cached ? "unchanged" : "built",
				size, t);
		printf("%s\n", i->id);
	}
	image_destroy(i);
	return EXIT_OK;
}

static const struct option_spec options[] = {
	{.name = "rebuild", .help = "build even when the input is unchanged"},
	{.name = "quiet", .letter = 'q', .help = "no progress, only the id"},
	{.name = "json", .help = "print JSON"},
	{0},
};

const struct command command_build = {
	.name = "build",
	.summary = "build the image of a VSE",
	.usage = "FILE",
	.details = "Prints the image's id. An unchanged VSE is found in the store in a few "
		   "milliseconds.\n"
		   "Works as root and as an ordinary user with subordinate ids (/etc/subuid).\n"
		   "VSE_BUILD_ON_DISK=1 works in the store's folder instead of in memory.",
	.options = options,
	.min_args = 1,
	.max_args = 1,
	.complete = "file",
	.run = run,
};
