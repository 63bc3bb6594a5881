/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "base/size.h"
#include "launcher/backend.h"

#define CORES_MAX 1000000

/* The next line, cut off from *rest; NULL at the end. */
static char *next_line(char **rest)
{
	char *line = strsep(rest, "\n");
	if (line)
		line[strcspn(line, "\r")] = '\0';
	return line;
}

static struct launch_node *add(struct allocation *a, const char *name, struct err *err)
{
	struct launch_node *n = NULL;
	if (host_name_check(name, err) == 0 && !(n = allocation_add(a, name)))
		err_set(err, E2BIG, "more than %u nodes", LAUNCH_NODES_MAX);
	return n;
}

/* ---- files with a line a host ---- */

int parse_nodefile(const char *text, struct allocation *a, struct err *err)
{
	_cleanup_free_ char *copy = xstrdup(text);
	char *rest = copy, *line;
	unsigned id = 0;
	for (unsigned number = 1; (line = next_line(&rest)); number++) {
		char *name = strsep(&line, " \t");
		if (!name[0])
			continue;
		struct launch_node *n = add(a, name, err);
		if (!n)
			return err_prefix(err, "node file, line %u: ", number);
		n->cores = 1;
		n->launch_id = id++;
	}
	allocation_unite(a);
	return 0;
}

static int hostfile_line(char *line, struct allocation *a, struct err *err)
{
	size_t first = a->n_nodes;
	int64_t cores = 0;
	char *word = strsep(&line, " \t");
	if (allocation_add_hosts(a, word, err) < 0)
		return -1;
	while ((word = strsep(&line, " \t"))) {
		if (!word[0])
			continue;
		char *value = strchr(word, '=');
		if (!value || (strncmp(word, "slots=", 6) != 0 && strncmp(word, "cores=", 6) != 0))
			return err_set(err, EINVAL,
				       "'%.40s': after the hosts only slots=N or cores=N", word);
		if (int_parse(value + 1, 1, CORES_MAX, &cores, err) < 0)
			return -1;
	}
	for (size_t i = first; i < a->n_nodes; i++)
		a->nodes[i].cores = (unsigned)cores;
	return 0;
}

int parse_hostfile(const char *text, struct allocation *a, struct err *err)
{
	_cleanup_free_ char *copy = xstrdup(text);
	char *rest = copy, *line;
	for (unsigned number = 1; (line = next_line(&rest)); number++) {
		line[strcspn(line, "#")] = '\0';
		line += strspn(line, " \t");
		if (line[0] && hostfile_line(line, a, err) < 0)
			return err_prefix(err, "line %u: ", number);
	}
	return 0;
}

/* ---- Slurm ---- */

/* A decimal number at *at; moves it. */
static int number(const char **at, int64_t min, int64_t max, int64_t *ret, struct err *err)
{
	char text[20];
	size_t n = strspn(*at, "0123456789");
	if (n >= sizeof(text))
		return err_set(err, ERANGE, "a number of %zu digits", n);
	memcpy(text, *at, n);
	text[n] = '\0';
	if (int_parse(text, min, max, ret, err) < 0)
		return -1;
	*at += n;
	return 0;
}

int parse_counts(const char *text, struct launch_node *nodes, size_t n, struct err *err)
{
	const char *at = text;
	size_t i = 0;
	while (*at) {
		int64_t cores, times = 1;
		if (number(&at, 1, CORES_MAX, &cores, err) < 0)
			return -1;
		if (strncmp(at, "(x", 2) == 0) {
			at += 2;
			if (number(&at, 1, LAUNCH_NODES_MAX, &times, err) < 0)
				return -1;
			if (*at++ != ')')
				return err_set(err, EINVAL, "'(x' without ')'");
		}
		for (; times && i < n; times--)
			nodes[i++].cores = (unsigned)cores;
		if (times)
			return err_set(err, EINVAL, "counts for more than %zu nodes", n);
		if (*at && *at++ != ',')
			return err_set(err, EINVAL, "counts are written as 2(x3),1");
	}
	return i == n ? 0 : err_set(err, EINVAL, "counts for %zu of %zu nodes", i, n);
}

int parse_slurm_time(const char *text, int64_t *ret, struct err *err)
{
	int64_t part[4], days = -1, seconds = 0;
	const char *at = text;
	int n = 0;
	if (strcmp(text, "UNLIMITED") == 0) {
		*ret = -1;
		return 0;
	}
	for (;; at++) {
		if (n == 4 || number(&at, 0, 1000000, &part[n++], err) < 0)
			return err_set(err, EINVAL, "'%.40s': no time", text);
		if (*at == '-' && n == 1 && days < 0)
			days = part[--n];
		else if (*at != ':')
			break;
	}
	if (*at || n > 3 || n < 1)
		return err_set(err, EINVAL, "'%.40s': no time", text);
	for (int i = 0; i < n; i++)
		seconds = seconds * 60 + part[i];
	*ret = MAX(days, (int64_t)0) * 86400 + seconds;
	return 0;
}

/* ---- OpenPBS ---- */

/* "4gb", "2048kb", "100": bytes, or words of 8 bytes ("gw"). */
static int pbs_size(const char *text, uint64_t *ret, struct err *err)
{
	size_t n = strlen(text);
	char plain[32];
	bool words = n && (text[n - 1] == 'w' || text[n - 1] == 'W');
	if (n >= sizeof(plain))
		return err_set(err, EINVAL, "'%.40s': no size", text);
	memcpy(plain, text, n + 1);
	if (words || (n && (plain[n - 1] == 'b' || plain[n - 1] == 'B')))
		plain[n - 1] = '\0';
	if (size_parse(plain, ret, err) < 0)
		return -1;
	if (words && *ret > UINT64_MAX / 8)
		return err_set(err, ERANGE, "'%s': too much", text);
	*ret *= words ? 8 : 1;
	return 0;
}

/* "n1:ncpus=2:mem=4gb" */
static int vnode(char *text, struct allocation *a, struct err *err)
{
	char *name = strsep(&text, ":"), *word;
	name[strcspn(name, "[")] = '\0'; /* "n1[0]": the sockets of one host are vnodes of their own */
	struct launch_node *n = add(a, name, err);
	int64_t cores;
	if (!n)
		return -1;
	while ((word = strsep(&text, ":"))) {
		if (strncmp(word, "ncpus=", 6) == 0) {
			if (int_parse(word + 6, 0, CORES_MAX, &cores, err) < 0)
				return -1;
			n->cores = (unsigned)cores;
		} else if (strncmp(word, "mem=", 4) == 0 && pbs_size(word + 4, &n->memory, err) < 0) {
			return -1;
		}
	}
	return 0;
}

int parse_exec_vnode(const char *text, struct allocation *a, struct err *err)
{
	_cleanup_free_ char *copy = xstrdup(text);
	char *at = copy;
	at += strspn(at, " \t\n");
	while (*at) {
		size_t n = strcspn(at + 1, ")");
		if (*at != '(' || !at[n + 1])
			return err_set(err, EINVAL,
				       "exec_vnode is written as (n1:ncpus=2)+(n2:ncpus=2)");
		char *chunk = at + 1, *one;
		chunk[n] = '\0';
		at = chunk + n + 1;
		while ((one = strsep(&chunk, "+")))
			if (vnode(one, a, err) < 0)
				return err_prefix(err, "exec_vnode: ");
		at += *at == '+';
		at += strspn(at, " \t\n");
	}
	allocation_unite(a);
	return 0;
}

/* ---- ALPS ---- */

/* ResId ApId From Arch PEs N d Memory State; rows of applications begin with an A. */
static bool apstat_row(char *line, const char *from, uint64_t *ret_id, unsigned *ret_nodes)
{
	_cleanup_strvec_ struct strvec f = STRVEC_INIT;
	int64_t id, all, each;
	strvec_split(&f, line, " \t");
	if (f.n < 6 || strcmp(f.v[2], from) != 0 || int_parse(f.v[0], 0, INT64_MAX, &id, NULL) < 0)
		return false;
	*ret_id = (uint64_t)id;
	*ret_nodes = 0;
	if (int_parse(f.v[4], 1, LAUNCH_NODES_MAX, &all, NULL) == 0 &&
	    int_parse(f.v[5], 1, LAUNCH_NODES_MAX, &each, NULL) == 0)
		*ret_nodes = (unsigned)((all + each - 1) / each);
	return true;
}

int parse_apstat(const char *text, const char *job, uint64_t *ret_id, unsigned *ret_nodes,
		 struct err *err)
{
	_cleanup_free_ char *copy = xstrdup(text), *from = xasprintf("batch:%s", job);
	char *rest = copy, *line;
	while ((line = next_line(&rest)))
		if (apstat_row(line, from, ret_id, ret_nodes))
			return 0;
	return err_set(err, ENOENT, "apstat -r shows no reservation of batch job %.40s", job);
}
