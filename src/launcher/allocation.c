/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations, and what all back ends have in common on the way to one. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "base/path.h"
#include "launcher/backend.h"

#define HINTS_MISSED_MAX 64 /* more: it tells of other nodes */

struct allocation *allocation_new(const struct launcher *l, const char *job)
{
	struct allocation *a = xcalloc(1, sizeof(*a));
	a->launcher = l;
	a->job = xstrdup(job ? job : "");
	return a;
}

struct allocation *allocation_of_job(const struct launcher *l, const char *job, int64_t end_time)
{
	struct allocation *a = allocation_new(l, job);
	a->end_time = end_time;
	return a;
}

int allocation_hold_fd(const struct allocation *a)
{
	return a->hold ? a->hold->fd(a->hold) : -1;
}

struct launch_node *allocation_add(struct allocation *a, const char *name)
{
	if (a->n_nodes >= LAUNCH_NODES_MAX)
		return NULL;
	if ((a->n_nodes & (a->n_nodes - 1)) == 0) /* a power of two, or none: it may be full */
		a->nodes = xreallocarray(a->nodes, MAX(2 * a->n_nodes, (size_t)1), sizeof(*a->nodes));
	struct launch_node *n = &a->nodes[a->n_nodes++];
	*n = (struct launch_node){.name = xstrdup(name)};
	return n;
}

int allocation_add_hosts(struct allocation *a, const char *hostlist, struct err *err)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	if (hostlist_expand(hostlist, &names, err) < 0)
		return -1;
	for (size_t i = 0; i < names.n; i++)
		if (!allocation_add(a, names.v[i]))
			return err_set(err, E2BIG, "more than %u nodes", LAUNCH_NODES_MAX);
	return 0;
}

static void drop_nodes(struct allocation *a, size_t from)
{
	for (size_t i = from; i < a->n_nodes; i++)
		free(a->nodes[i].name);
	a->n_nodes = MIN(a->n_nodes, from);
}

void allocation_destroy(struct allocation *a)
{
	if (!a)
		return;
	if (a->hold)
		a->hold->end(a->hold);
	drop_nodes(a, 0);
	free(a->nodes);
	free(a->job);
	free(a);
}

void cleanup_allocation(struct allocation **a)
{
	allocation_destroy(*a);
}

struct numbered {
	struct launch_node node;
	size_t place;
};

static int by_name(const void *a, const void *b)
{
	const struct numbered *x = a, *y = b;
	int c = strcmp(x->node.name, y->node.name);
	return c ? c : x->place < y->place ? -1 : 1;
}

static int by_place(const void *a, const void *b)
{
	const struct numbered *x = a, *y = b;
	return x->place < y->place ? -1 : 1;
}

void allocation_unite(struct allocation *a)
{
	size_t n = 0;
	if (a->n_nodes < 2)
		return;
	_cleanup_free_ struct numbered *v = xcalloc(a->n_nodes, sizeof(*v));
	for (size_t i = 0; i < a->n_nodes; i++)
		v[i] = (struct numbered){a->nodes[i], i};
	qsort(v, a->n_nodes, sizeof(*v), by_name);
	for (size_t i = 0; i < a->n_nodes; i++) {
		if (n && strcmp(v[n - 1].node.name, v[i].node.name) == 0) {
			v[n - 1].node.cores += v[i].node.cores;
			v[n - 1].node.memory += v[i].node.memory;
			free(v[i].node.name);
		} else {
			v[n++] = v[i];
		}
	}
	qsort(v, n, sizeof(*v), by_place);
	for (size_t i = 0; i < n; i++)
		a->nodes[i] = v[i].node;
	a->n_nodes = n;
}

static bool same_host(const char *a, const char *b)
{
	size_t n = strcspn(a, ".");
	return strcmp(a, b) == 0 || (n == strcspn(b, ".") && strncmp(a, b, n) == 0);
}

void allocation_hint(struct allocation *a, const struct allocation *from)
{
	size_t at = 0, missed = 0; /* both are mostly in one order, and of the same nodes */
	for (size_t i = 0; i < a->n_nodes && missed < HINTS_MISSED_MAX; i++) {
		missed++;
		for (size_t k = 0; k < from->n_nodes; k++) {
			const struct launch_node *f = &from->nodes[(at + k) % from->n_nodes];
			if (!same_host(a->nodes[i].name, f->name))
				continue;
			a->nodes[i].cores = f->cores ? f->cores : a->nodes[i].cores;
			a->nodes[i].memory = f->memory ? f->memory : a->nodes[i].memory;
			at = (at + k + 1) % from->n_nodes;
			missed--;
			break;
		}
	}
}

/* ---- the outcome ---- */

static void check(struct allocating *a)
{
	struct allocation *r = a->result;
	if (!r)
		return;
	if (!r->n_nodes)
		err_set(&a->err, ENOENT, "launcher %s: no nodes", a->launcher->name);
	else if (a->wanted > r->n_nodes)
		err_set(&a->err, EINVAL, "launcher %s: %u nodes are wanted, there are %zu",
			a->launcher->name, a->wanted, r->n_nodes);
	else if (a->wanted)
		drop_nodes(r, a->wanted);
	if (a->err.code)
		allocation_destroy(TAKE_PTR(a->result));
}

static void on_soon(void *arg)
{
	struct allocating *a = arg;
	check(a);
	if (a->result)
		a->ops->on_ready(a->arg, TAKE_PTR(a->result));
	else
		a->ops->on_failed(a->arg, &a->err);
}

void allocating_ready(struct allocating *a, struct allocation *result)
{
	a->result = result;
	evtimer_start(a->soon, 0, 0);
}

void allocating_failed(struct allocating *a, const struct err *why)
{
	a->err = *why;
	err_prefix(&a->err, "launcher %s: ", a->launcher->name);
	evtimer_start(a->soon, 0, 0);
}

void allocating_progress(struct allocating *a, const char *text)
{
	if (a->ops->on_progress)
		a->ops->on_progress(a->arg, text);
}

struct allocating *allocating_new(const struct launcher *l, struct loop *loop, unsigned wanted,
				  const struct allocate_ops *ops, void *arg)
{
	struct allocating *a = xcalloc(1, sizeof(*a));
	*a = (struct allocating){.launcher = l, .loop = loop, .ops = ops, .arg = arg, .wanted = wanted};
	a->soon = evtimer_create(loop, on_soon, a);
	return a;
}

void allocating_destroy(struct allocating *a)
{
	if (!a)
		return;
	if (a->end)
		a->end(TAKE_PTR(a->state));
	evtimer_destroy(a->soon);
	allocation_destroy(a->result);
	free(a);
}

/* ---- the time that is left ---- */

static void on_time(void *arg)
{
	struct time_query *q = arg;
	q->on_answer(q->arg, q->seconds);
}

void time_query_answer(struct time_query *q, int64_t seconds)
{
	q->seconds = seconds;
	evtimer_start(q->soon, 0, 0);
}

struct time_query *time_query_new(struct loop *loop, void (*on_answer)(void *arg, int64_t seconds),
				  void *arg)
{
	struct time_query *q = xcalloc(1, sizeof(*q));
	*q = (struct time_query){.loop = loop, .on_answer = on_answer, .arg = arg};
	q->soon = evtimer_create(loop, on_time, q);
	return q;
}

void time_query_destroy(struct time_query *q)
{
	if (!q)
		return;
	query_destroy(q->query);
	evtimer_destroy(q->soon);
	free(q);
}

/* ---- small words ---- */

bool in_path(const char *program)
{
	_cleanup_free_ char *path = path_find_program(program);
	return path != NULL;
}

enum launch_fit launch_fit(char why[LAUNCH_WHY_MAX], enum launch_fit fit, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, LAUNCH_WHY_MAX, fmt, ap);
	va_end(ap);
	return fit;
}

const char *env_of(const char *name)
{
	const char *v = getenv(name);
	return v && v[0] ? v : NULL;
}
