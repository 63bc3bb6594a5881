/* SPDX-License-Identifier: Apache-2.0 */
/* vse-agent: the one process of ours on a node. Started by a launcher, not by people. */
#include <errno.h>
#include <string.h>

#include "agent/agent.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/size.h"
#include "io/child.h"

static int usage(FILE *to, int code)
{
	fputs("Usage: vse-agent --base DIR --name CLUSTER [--ready-fd N] [--verbose]\n"
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

int main(int argc, char **argv)
{
	struct agent_options o = {.ready_fd = -1};
	struct err err = ERR_INIT;
	proc_fill_stdio();
	log_setup("vse-agent", LOG_WARN, true);
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
		int64_t fd;
		if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
			return usage(stdout, 0);
		if (strcmp(word, "--version") == 0)
			return puts("vse-agent " VSE_VERSION) < 0;
		if (strcmp(word, "--probe") == 0)
			return print_probe(value ? value : "auto");
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
		} else {
			return usage(stderr, 2);
		}
		i++;
	}
	if (!o.base || !o.name)
		return usage(stderr, 2);
	child_raise_limit(); /* a VM takes several descriptors */
	return agent_run(&o);
}
