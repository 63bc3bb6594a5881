/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/plan.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rankset.h"
#include "base/size.h"

int plan_policy_parse(const char *text, struct plan_options *o, struct err *err)
{
	if (strcmp(text, "spread") == 0) {
		o->policy = PLAN_SPREAD;
	} else if (strcmp(text, "pack") == 0) {
		o->policy = PLAN_PACK;
	} else if (strchr(text, ':')) {
		o->policy = PLAN_MAP;
		o->map = text;
	} else {
		return err_set(err, EINVAL, "'%.60s': 'spread', 'pack' or a map as n1:2,n2:1", text);
	}
	return 0;
}

static uint32_t by_cpus(const struct plan_options *o, const struct plan_node *n)
{
	uint32_t cpus = n->cpus ? n->cpus : o->cpus;
	return cpus / MAX(o->cpus, 1u);
}

/* Of a VM on its node, outside of reserved pages. */
static uint64_t ordinary(const struct plan_options *o)
{
	return o->pages ? o->overhead : o->memory + o->overhead;
}

static uint64_t by_memory(const struct plan_options *o, const struct plan_node *n)
{
	return n->memory && ordinary(o) ? n->memory / ordinary(o) : UINT32_MAX;
}

static uint64_t by_pages(const struct plan_options *o, const struct plan_node *n)
{
	return o->pages && n->pages ? n->pages / MAX(o->memory, UINT64_C(1)) : UINT32_MAX;
}

uint32_t plan_room(const struct plan_options *o, const struct plan_node *n)
{
	uint64_t room = o->max ? o->max : UINT32_MAX;
	if (n->down || n->spare || n->unfit)
		return 0;
	if (!o->oversubscribe)
		room = MIN(room, MIN(by_memory(o, n), (uint64_t)by_cpus(o, n)));
	return (uint32_t)MIN(room, by_pages(o, n));
}

/* ---- the policies; left[i] is the room of node i + 1 ---- */

static uint32_t spread(uint32_t *left, uint32_t n, uint32_t size, uint32_t *node_of)
{
	/* How many each node gets is decided round by round; ranks are then dealt in blocks, so that neighbours in
	 * rank are neighbours in place. */
	uint32_t *take = xcalloc(n, sizeof(*take)), given = 0, rank = 0;
	for (bool any = true; any && given < size;) {
		any = false;
		for (uint32_t i = 0; i < n && given < size; i++)
			if (take[i] < left[i]) {
				take[i]++;
				given++;
				any = true;
			}
	}
	for (uint32_t i = 0; i < n; i++)
		while (take[i]-- > 0)
			node_of[rank++] = i + 1;
	free(take);
	return given;
}

static uint32_t pack(const uint32_t *left, uint32_t n, uint32_t size, uint32_t *node_of)
{
	uint32_t rank = 0;
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < left[i] && rank < size; k++)
			node_of[rank++] = i + 1;
	return rank;
}

static uint32_t node_by_name(const struct plan_node *nodes, uint32_t n, const char *name, size_t len)
{
	for (uint32_t i = 0; i < n; i++)
		if (strlen(nodes[i].name) == len && memcmp(nodes[i].name, name, len) == 0)
			return i + 1;
	return 0;
}

static int map_entry(const char *p, const char *end, const struct plan_node *nodes, uint32_t n,
		     uint32_t *node, int64_t *count, struct err *err)
{
	const char *colon = memrchr(p, ':', (size_t)(end - p));
	_cleanup_free_ char *number = colon ? xasprintf("%.*s", (int)(end - colon - 1), colon + 1)
					    : NULL;
	if (!colon || int_parse(number, 0, RANK_MAX, count, NULL) < 0)
		return err_set(err, EINVAL, "map: '%.*s': is not NODE:COUNT",
			       (int)MIN(end - p, (ptrdiff_t)60), p);
	*node = node_by_name(nodes, n, p, (size_t)(colon - p));
	if (!*node)
		return err_set(err, EINVAL, "map: there is no node '%.*s'",
			       (int)MIN(colon - p, (ptrdiff_t)60), p);
	return 0;
}

static int map(const struct plan_options *o, const struct plan_node *nodes, uint32_t n,
	       uint32_t *left, uint32_t size, uint32_t *node_of, struct err *err)
{
	uint32_t rank = 0, node = 0;
	int64_t count = 0;
	for (const char *p = o->map, *end; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, ',');
		if (map_entry(p, end, nodes, n, &node, &count, err) < 0)
			return -1;
		if (count > left[node - 1])
			return err_set(err, ENOSPC, "map: node %s has room for %u of the %d VMs; --oversubscribe lifts that",
				       nodes[node - 1].name, left[node - 1], (int)count);
		left[node - 1] -= (uint32_t)count;
		for (; count > 0 && rank < size; count--)
			node_of[rank++] = node;
		if (count > 0)
			return err_set(err, EINVAL,
				       "map: places more than the %u VMs of the cluster", size);
	}
	if (rank < size)
		return err_set(err, EINVAL, "map: places %u of the %u VMs", rank, size);
	return 0;
}

static const char *cpus_or_most(uint32_t cpus, uint32_t most)
{
	return cpus >= most ? "cores are the bound on most nodes"
			    : "--max-per-node is the bound on most nodes";
}

/* What keeps the VMs out, in the words of who can change it. */
static int no_room(const struct plan_options *o, const struct plan_node *nodes, uint32_t n,
		   uint32_t size, uint32_t placed, struct err *err)
{
	uint32_t cpus = 0, memory = 0, pages = 0, most = 0, usable = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (nodes[i].down || nodes[i].spare || nodes[i].unfit)
			continue;
		uint64_t room = plan_room(o, &nodes[i]);
		usable++;
		cpus += !o->oversubscribe && room == by_cpus(o, &nodes[i]);
		memory += !o->oversubscribe && room == by_memory(o, &nodes[i]);
		pages += room == by_pages(o, &nodes[i]);
		most += o->max && room == o->max;
	}
	const char *why = !usable ? "no node is usable"
			  : pages && pages >= MAX(memory, MAX(cpus, most))
				  ? "reserved pages of 2 MiB are the bound on most nodes"
			  : memory < cpus || memory < most ? cpus_or_most(cpus, most)
							   : "memory is the bound on most nodes";
	return err_set(err, ENOSPC,
		       "%u of %u VMs fit on %u node%s: %s; more nodes, smaller VMs%s would help",
		       placed, size, usable, usable == 1 ? "" : "s", why,
		       o->oversubscribe ? "" : " or --oversubscribe");
}

int plan_make(const struct plan_options *o, const struct plan_node *nodes, uint32_t n,
	      uint32_t size, uint32_t *node_of, struct err *err)
{
	_cleanup_free_ uint32_t *left = xcalloc(MAX(n, 1u), sizeof(*left));
	for (uint32_t i = 0; i < n; i++)
		left[i] = plan_room(o, &nodes[i]);
	if (o->policy == PLAN_MAP)
		return map(o, nodes, n, left, size, node_of, err);
	uint32_t placed = o->policy == PLAN_PACK ? pack(left, n, size, node_of)
						 : spread(left, n, size, node_of);
	return placed == size ? 0 : no_room(o, nodes, n, size, placed, err);
}

/* What sets the room of a node. */
static void add_bound(const struct plan_options *o, const struct plan_node *n, struct buf *out)
{
	uint64_t room = plan_room(o, n);
	char has[24], takes[24];
	if (o->max && room == o->max) {
		buf_addf(out, "--max-per-node %u", o->max);
	} else if (o->pages && n->pages && room == by_pages(o, n)) {
		size_format(n->pages, has);
		size_format(o->memory, takes);
		buf_addf(out, "%s in reserved pages, a VM takes %s", has, takes);
	} else if (o->oversubscribe) {
		buf_adds(out, "cores and memory are no bound");
	} else if (room == by_cpus(o, n) && n->cpus) {
		buf_addf(out, "%u core%s, a VM takes %u", n->cpus, n->cpus == 1 ? "" : "s", o->cpus);
	} else if (n->memory && room == by_memory(o, n)) {
		size_format(n->memory, has);
		size_format(ordinary(o), takes);
		buf_addf(out, "%s, a VM takes %s%s", has, takes,
			 o->pages ? " beside its reserved pages" : "");
	} else {
		buf_adds(out, "its cores are not known");
	}
}

void plan_why(const struct plan_options *o, const struct plan_node *n, uint32_t here, struct buf *out)
{
	static const char *const none[] = {
		[PLAN_SPREAD] = "fewer VMs than nodes", [PLAN_PACK] = "the others have room for all", [PLAN_MAP] = "the map gives it none"};
	uint32_t room = plan_room(o, n);
	if (n->down || n->spare) {
		buf_adds(out, n->down ? "down" : "spare, kept free for VMs of nodes that die");
		return;
	}
	if (n->unfit) {
		buf_addf(out, "refused: nothing there can run these VMs: %s", n->unfit);
		return;
	}
	if (!room)
		buf_adds(out, "no room");
	else if (!here)
		buf_adds(out, none[o->policy]);
	else if (o->policy == PLAN_MAP)
		buf_adds(out, "as the map says");
	else if (here == room)
		buf_adds(out, "full");
	else
		buf_adds(out, o->policy == PLAN_PACK ? "the rest" : "an even share");
	if (room && room != UINT32_MAX)
		buf_addf(out, ", room for %u", room);
	buf_adds(out, ": ");
	add_bound(o, n, out);
}
