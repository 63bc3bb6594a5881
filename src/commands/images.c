/* SPDX-License-Identifier: Apache-2.0 */
/* vse images: what is in the stores. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/time.h"
#include "commands/command.h"
#include "image/image.h"

static void print_table(struct image **v, size_t n)
{
	int wide = 4;
	for (size_t i = 0; i < n; i++)
		wide = MAX(wide, (int)strlen(v[i]->name));
	if (n)
		printf("%-*s  %-12s  %-5s  %9s  %s\n", wide, "NAME", "ID", "ARCH", "SIZE", "BUILT");
	for (size_t i = 0; i < n; i++) {
		char size[24], built[24];
		size_format(v[i]->size, size);
		time_format(v[i]->built, built);
		printf("%-*s  %.12s  %-5s  %9s  %s\n", wide, v[i]->name, v[i]->id, v[i]->arch, size,
		       built);
	}
}

static void print_json(struct image **v, size_t n)
{
	json_t *a = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_pack("{s:s,s:s,s:s,s:s,s:I,s:I}", "id", v[i]->id, "name",
						   v[i]->name, "path", v[i]->dir, "architecture",
						   v[i]->arch, "size", (json_int_t)v[i]->size,
						   "built", (json_int_t)v[i]->built));
	json_dumpf(a, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(a);
}

static int run(const struct command *cmd, struct args *args)
{
	_cleanup_free_ struct image **v = NULL;
	struct err err = ERR_INIT;
	size_t n = 0;
	if (image_list(NULL, &v, &n, &err) < 0)
		return command_fail(cmd, &err);
	(arg_flag(args, "json") ? print_json : print_table)(v, n);
	for (size_t i = 0; i < n; i++)
		image_destroy(v[i]);
	return EXIT_OK;
}

static const struct option_spec options[] = {
	{.name = "json", .help = "print JSON"},
	{0},
};

const struct command command_images = {
	.name = "images",
	.summary = "list the images in the store",
	.details = "The user's store is $XDG_DATA_HOME/vse (default ~/.local/share/vse); the "
		   "site's is\n"
		   "$VSE_SITE_STORE (default /var/lib/vse) and is only read.",
	.options = options,
	.max_args = 0,
	.run = run,
};
