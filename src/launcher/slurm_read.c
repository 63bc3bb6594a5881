/* SPDX-License-Identifier: Apache-2.0 */
/* What Slurm says in words: its environment, its version, srun's messages. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "base/size.h"
#include "launcher/parse.h"
#include "launcher/slurm.h"

#define GROUPS_MAX 128
#define MEGABYTE (1ull << 20)

struct source {
	const char *(*get)(void *arg, const char *name);
	void *arg;
	int group; /* -1: not a heterogeneous job */
};

static const char *value(const struct source *s, const char *name)
{
	char full[128];
	if (s->group < 0)
		return s->get(s->arg, name);
	snprintf(full, sizeof(full), "%s_HET_GROUP_%d", name, s->group);
	return s->get(s->arg, full);
}

static uint64_t megabytes(const struct source *s, const char *name)
{
	const char *text = value(s, name);
	int64_t n = 0;
	if (!text || int_parse(text, 0, INT64_MAX / (int64_t)MEGABYTE, &n, NULL) < 0)
		return 0;
	return (uint64_t)n * MEGABYTE;
}

/* One component's nodes. */
static int component(struct allocation *a, const struct source *s, struct err *err)
{
	const char *list = value(s, "SLURM_JOB_NODELIST"),
		   *cpus = value(s, "SLURM_JOB_CPUS_PER_NODE");
	uint64_t per_node = megabytes(s, "SLURM_MEM_PER_NODE"),
		 per_cpu = megabytes(s, "SLURM_MEM_PER_CPU");
	size_t first = a->n_nodes;
	if (!list && s->group < 0)
		list = value(s, "SLURM_NODELIST");
	if (!list)
		return err_set(err, ENOENT, "SLURM_JOB_NODELIST is not set");
	if (allocation_add_hosts(a, list, err) < 0)
		return -1;
	if (cpus && parse_counts(cpus, a->nodes + first, a->n_nodes - first, err) < 0)
		return err_prefix(err, "SLURM_JOB_CPUS_PER_NODE: ");
	for (size_t i = first; i < a->n_nodes; i++) {
		a->nodes[i].memory = per_node ? per_node : per_cpu * a->nodes[i].cores;
		a->nodes[i].group = s->group < 0 ? 0 : (unsigned)s->group;
	}
	return 0;
}

int slurm_read(struct allocation *a, const char *(*get)(void *arg, const char *name), void *arg,
	       struct err *err)
{
	struct source s = {.get = get, .arg = arg, .group = -1};
	const char *size = get(arg, "SLURM_HET_SIZE"), *end = get(arg, "SLURM_JOB_END_TIME");
	int64_t groups = 0;
	if (size && int_parse(size, 1, GROUPS_MAX, &groups, err) < 0)
		return err_prefix(err, "SLURM_HET_SIZE: ");
	if (end)
		int_parse(end, 0, INT64_MAX, &a->end_time, NULL);
	if (!size)
		return component(a, &s, err);
	for (s.group = 0; s.group < groups; s.group++)
		if (component(a, &s, err) < 0)
			return -1;
	return 0;
}

unsigned slurm_version(const char *text)
{
	const char *at = strchr(text, ' ');
	unsigned major, minor;
	if (!at || sscanf(at + 1, "%4u.%4u", &major, &minor) != 2 || major > 99 || minor > 99)
		return 0;
	return major * 100 + minor;
}

bool slurm_lost_nodes(const char *line, struct strvec *ret_names)
{
	static const char error[] = "srun: error: ", failure[] = "Node failure on ";
	if (strncmp(line, error, strlen(error)) != 0)
		return false;
	line += strlen(error);
	bool node = strncmp(line, failure, strlen(failure)) == 0;
	if (node)
		line += strlen(failure);
	const char *end = node ? line + strlen(line) : strstr(line, ": task");
	if (!end)
		return false;
	_cleanup_free_ char *list = xstrndup(line, (size_t)(end - line));
	return hostlist_expand(list, ret_names, NULL) == 0 && ret_names->n;
}
