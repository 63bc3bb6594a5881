/* SPDX-License-Identifier: Apache-2.0 */
/* `vse __complete -- WORD...`: what the last word of a command line may become, for the shells' completion.
 * Each candidate is a line "word<TAB>what it is"; the line ":file" asks the shell for file names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rundir.h"
#include "commands/command.h"
#include "image/image.h"

static void offer(const char *before, const char *word, const char *typed, const char *what)
{
	if (strncmp(word, typed, strlen(typed)) == 0)
		printf("%s%s\t%s\n", before, word, what ? what : "");
}

static void offer_commands(const char *typed)
{
	const struct command *c;
	for (size_t i = 0; (c = command_at(i)); i++)
		if (!c->hidden)
			offer("", c->name, typed, c->summary);
}

static void offer_clusters(const char *before, const char *typed)
{
	_cleanup_free_ char *base = NULL;
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	struct err err;
	if (rundir_base(&base, &err) < 0 || rundir_list(base, &names, &err) < 0)
		return;
	for (size_t i = 0; i < names.n; i++)
		offer(before, names.v[i], typed, "cluster");
}

static void offer_images(const char *before, const char *typed)
{
	struct image **images;
	size_t n;
	struct err err;
	if (image_list(NULL, &images, &n, &err) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		offer(before, images[i]->name, typed, images[i]->id);
		image_destroy(images[i]);
	}
	free(images);
}

/* `kind` as in struct option_spec; `before` is what stands before the typed part ("--size="). */
static void offer_values(const char *kind, const char *before, const char *typed)
{
	if (!kind)
		return;
	if (strcmp(kind, "file") == 0) {
		puts(":file");
	} else if (strcmp(kind, "cluster") == 0) {
		offer_clusters(before, typed);
	} else if (strcmp(kind, "image") == 0) {
		offer_images(before, typed);
	} else if (strchr(kind, '|')) {
		_cleanup_strvec_ struct strvec words = STRVEC_INIT;
		strvec_split(&words, kind + (*kind == ','), "|");
		for (size_t i = 0; i < words.n; i++)
			offer(before, words.v[i], typed, "");
	}
}

static void offer_options(const struct command *cmd, const char *typed)
{
	for (const struct option_spec *o = cmd->options; o && o->name; o++) {
		_cleanup_free_ char *word = xasprintf("--%s%s", o->name, o->argument ? "=" : "");
		offer("", word, typed, o->help);
	}
	offer("", "--help", typed, "show help");
}

static const struct option_spec *find_option(const struct command *cmd, const char *word)
{
	if (word[0] != '-' || !word[1])
		return NULL;
	for (const struct option_spec *o = cmd->options; o && o->name; o++) {
		bool is_long = word[1] == '-' && strncmp(word + 2, o->name, strlen(o->name)) == 0;
		char after = is_long ? word[2 + strlen(o->name)] : 0;
		if ((is_long && (!after || after == '=')) ||
		    (o->letter && word[1] == o->letter && !word[2]))
			return o;
	}
	return NULL;
}

/* The words between the command and the last one: what do they leave for the last? */
struct place {
	const struct option_spec *value_of; /* its argument is what comes */
	int operands;
	bool operands_only;
};

static struct place find_place(const struct command *cmd, char **words, int n)
{
	struct place p = {0};
	for (int i = 0; i < n; i++) {
		if (p.value_of) {
			p.value_of = NULL;
		} else if (!p.operands_only && strcmp(words[i], "--") == 0) {
			p.operands_only = true;
		} else if (!p.operands_only && words[i][0] == '-' && words[i][1]) {
			const struct option_spec *o = find_option(cmd, words[i]);
			if (o && o->argument && !strchr(words[i], '='))
				p.value_of = o;
		} else {
			p.operands++;
			p.operands_only = p.operands_only || cmd->stop_at_operand;
		}
	}
	return p;
}

static void offer_word(const struct command *cmd, char **words, int n)
{
	const char *typed = words[n];
	struct place p = find_place(cmd, words, n);
	const char *equals = strchr(typed, '=');
	const struct option_spec *o = equals && !p.operands_only ? find_option(cmd, typed) : NULL;
	if (p.value_of) {
		offer_values(p.value_of->complete, "", typed);
	} else if (o) {
		_cleanup_free_ char *before = xasprintf("%.*s", (int)(equals + 1 - typed), typed);
		offer_values(o->complete, before, equals + 1);
	} else if (typed[0] == '-' && !p.operands_only) {
		offer_options(cmd, typed);
	} else if (cmd->max_args < 0 || p.operands < cmd->max_args) {
		offer_values(cmd->complete, "", typed);
	}
}

static int run(const struct command *cmd, struct args *args)
{
	(void)cmd;
	char **words = args->operands;
	int n = args->n_operands;
	const struct command *of = n > 1 ? command_find(words[0]) : NULL;
	if (n == 1 || (n == 2 && strcmp(words[0], "help") == 0))
		offer_commands(words[n - 1]);
	else if (of)
		offer_word(of, words + 1, n - 2);
	return EXIT_OK;
}

const struct command command_complete = {
	.name = "__complete",
	.summary = "what the last word of a command line may become",
	.usage = "-- WORD...",
	.min_args = 1,
	.max_args = -1,
	.hidden = true,
	.run = run,
};
