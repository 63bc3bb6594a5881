/* SPDX-License-Identifier: Apache-2.0 */
/* vse image show|rm|gc: one image, or the store's upkeep. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/time.h"
#include "commands/command.h"
#include "image/image.h"

#define KEEP_DAYS 30

static void show_text(const struct image *i)
{
	char size[24], built[24];
	json_t *k = json_object_get(i->manifest, "kernel"),
	       *p = json_object_get(i->manifest, "packages");
	const char *package = json_string_value(json_object_get(k, "package"));
	const char *version = json_string_value(json_object_get(k, "version"));
	size_t at;
	json_t *one;
	size_format(i->size, size);
	time_format(i->built, built);
	printf("name          %s\nid            %s\npath          %s\narchitecture  %s\ninit       "
	       "   %s\n"
	       "kernel        %s (%s)%s\nroot          %s\nmodules       %s\nssh server    "
	       "%s\nsize          %s\n"
	       "built         %s\npackages      %zu\n",
	       i->name, i->id, i->dir, i->arch, i->init == VSE_INIT_SYSTEMD ? "systemd" : "vse",
	       version ? version : "?", package ? package : "?", i->vmlinux ? ", PVH" : "",
	       i->root_type, i->modules, i->has_sshd ? "yes" : "no", size, built, json_array_size(p));
	json_array_foreach (p, at, one)
		printf("  %s %s\n", json_string_value(json_object_get(one, "name")),
		       json_string_value(json_object_get(one, "version")));
}

static int show(const struct command *cmd, struct args *args)
{
	struct image *i = NULL;
	struct err err = ERR_INIT;
	if (args->n_operands != 2)
		return command_usage(cmd, "show takes one image");
	if (image_open(NULL, args->operands[1], &i, &err) < 0)
		return command_fail(cmd, &err);
	if (arg_flag(args, "json")) {
		json_dumpf(i->manifest, stdout, JSON_INDENT(2) | JSON_SORT_KEYS);
		putchar('\n');
	} else {
		show_text(i);
	}
	image_destroy(i);
	return EXIT_OK;
}

static int remove_images(const struct command *cmd, struct args *args)
{
	int code = EXIT_OK;
	if (args->n_operands < 2)
		return command_usage(cmd, "rm takes one image or more");
	for (int n = 1; n < args->n_operands; n++) {
		struct image *i = NULL;
		struct err err = ERR_INIT;
		if (image_open(NULL, args->operands[n], &i, &err) < 0 || image_remove(NULL, i, &err) < 0)
			code = command_fail(cmd, &err);
		else
			printf("%s\n", i->id);
		image_destroy(i);
	}
	return code;
}

static int collect(const struct command *cmd, struct args *args)
{
	struct err err = ERR_INIT;
	int64_t days = KEEP_DAYS;
	uint64_t freed = 0;
	char size[24];
	const char *keep = arg_value(args, "keep");
	if (args->n_operands != 1)
		return command_usage(cmd, "gc takes no image");
	if (keep && int_parse(keep, 0, 36500, &days, &err) < 0)
		return command_usage(cmd, "--keep: %s", err.text);
	if (image_gc(NULL, (unsigned)days, &freed, &err) < 0)
		return command_fail(cmd, &err);
	size_format(freed, size);
	if (arg_flag(args, "json"))
		printf("{\"freed\": %llu}\n", (unsigned long long)freed);
	else
		printf("freed %s\n", size);
	return EXIT_OK;
}

static int run(const struct command *cmd, struct args *args)
{
	static const struct {
		const char *name;
		int (*run)(const struct command *cmd, struct args *args);
	} actions[] = {{"show", show}, {"rm", remove_images}, {"gc", collect}};
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (strcmp(args->operands[0], actions[i].name) == 0)
			return actions[i].run(cmd, args);
	return command_usage(cmd, "unknown action '%s': show, rm or gc", args->operands[0]);
}

static const struct option_spec options[] = {
	{.name = "keep", .argument = "DAYS", .help = "gc: keep what was used within so many days (default 30)"},
	{.name = "json", .help = "print JSON"},
	{0},
};

const struct command command_image = {
	.name = "image",
	.summary = "show or remove an image, or free space in the store",
	.usage = "show IMAGE | rm IMAGE... | gc",
	.details =
		"IMAGE is a name (the newest of that name), an id, or the first digits of one "
		"(4 at least).\n"
		"gc removes images that an edited VSE left behind, damaged ones, what dead builds "
		"left, and old\ndownloads. The image last used of each VSE name stays.\n"
		"An image that a running cluster uses is never removed.",
	.options = options,
	.min_args = 1,
	.max_args = -1,
	.complete = "image",
	.run = run,
};
