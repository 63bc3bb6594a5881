/* SPDX-License-Identifier: Apache-2.0 */
/* vse-agent: the one process of ours on a node. Started by a launcher, not by people. */
#include <errno.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/keeper.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/rundir.h"
#include "base/size.h"
#include "io/child.h"
#include "launcher/launcher.h"
#include "vm/pack.h"

#define BOOTSTRAP_MS 60000 /* for the line on standard input to come */

static int usage(FILE *to, int code)
{
	fputs("Usage: vse-agent --base DIR --name CLUSTER [--ready-fd N] [--verbose]\n"
	      "       vse-agent --node [--index N] [--bootstrap FILE]   of one node of many; told "
	      "the rest on standard input\n"
	      "       vse-agent --probe [ACCEL]     what this node offers, as JSON\n"
	      "       vse-agent --version\n"
	      "The agent of a virtual cluster on one node. 'vse up' starts it.\n",
	      to);
	return code;
}

static int print_probe(const char *accel)
{
	_cleanup_free_ char *text = agent_probe(accel);
	return puts(text) < 0 || fflush(stdout) != 0;
}

/* The agent of a node: what it is told holds a secret, so it comes by other ways than arguments. */
static int run_node(struct agent_options *o, const char *file)
{
	struct bootstrap b = {0};
	struct err err = ERR_INIT;
	_cleanup_free_ char *base = NULL;
	int rc = file ? bootstrap_read_file(file, &b, &err)
		      : bootstrap_read_fd(STDIN_FILENO, BOOTSTRAP_MS, &b, &err);
	if (rc < 0 || rundir_base(&base, &err) < 0) {
		log_error("%s", err.text);
		return 1;
	}
	o->base = base;
	o->name = b.name;
	o->node = &b;
	o->input = !file;
	child_raise_limit();
	rc = keeper_run(o);
	bootstrap_finish(&b);
	return rc;
}

static int pack(int n, char **words)
{
	struct err err = ERR_INIT;
	if (pack_main(n, words, &err) == 0)
		return 0;
	fprintf(stderr, "%s\n", err.text);
	return 1;
}

int main(int argc, char **argv)
{
	struct agent_options o = {.ready_fd = -1};
	const char *bootstrap = NULL;
	bool node = false;
	struct err err = ERR_INIT;
	proc_fill_stdio();
	if (argc > 1 && strcmp(argv[1], "--pack") == 0) /* of a VM that is saved or restored (vm/packer.h) */
		return pack(argc - 2, argv + 2);
	launcher_name_self(argv[0]);
	log_setup("vse-agent", LOG_WARN, true);
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
		int64_t fd, number;
		if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
			return usage(stdout, 0);
		if (strcmp(word, "--version") == 0)
			return puts("vse-agent " VSE_VERSION) < 0;
		if (strcmp(word, "--probe") == 0)
			return print_probe(value ? value : "auto");
		if (strcmp(word, "--resume") == 0) {
			o.resume = true;
			continue;
		}
		if (strcmp(word, "--node") == 0) {
			node = true;
			continue;
		}
		if (strcmp(word, "--verbose") == 0) {
			log_setup("vse-agent", LOG_DEBUG, true);
			continue;
		}
		if (!value)
			return usage(stderr, 2);
		if (strcmp(word, "--base") == 0) {
			o.base = value;
		} else if (strcmp(word, "--name") == 0) {
			o.name = value;
		} else if (strcmp(word, "--ready-fd") == 0 && int_parse(value, 0, 1023, &fd, &err) == 0) {
			o.ready_fd = (int)fd;
		} else if (strcmp(word, "--index") == 0 &&
			   int_parse(value, 1, INT32_MAX, &number, &err) == 0) {
			o.index = (uint32_t)number;
		} else if (strcmp(word, "--hold") == 0 && o.n_held < AGENT_HELD_MAX &&
			   int_parse(value, 3, INT32_MAX, &fd, &err) == 0) {
			o.held[o.n_held++] = (int)fd;
		} else if (strcmp(word, "--bootstrap") == 0) {
			bootstrap = value;
		} else {
			return usage(stderr, 2);
		}
		i++;
	}
	if (node)
		return run_node(&o, bootstrap);
	if (!o.base || !o.name)
		return usage(stderr, 2);
	child_raise_limit(); /* a VM takes several descriptors */
	return agent_run(&o);
}
