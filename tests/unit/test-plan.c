/* SPDX-License-Identifier: Apache-2.0 */
/* Placement of VMs. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "cluster/plan.h"
#include "tap.h"

#define GIB (UINT64_C(1) << 30)

static const struct plan_node nodes[] = {
	{.name = "n1", .cpus = 4, .memory = 8 * GIB},
	{.name = "n2", .cpus = 2, .memory = 8 * GIB},
	{.name = "n3", .cpus = 8, .memory = 2 * GIB},
};

static struct plan_options options(enum plan_policy policy)
{
	return (struct plan_options){.policy = policy, .cpus = 1, .memory = GIB};
}

static const char *made(const struct plan_options *o, uint32_t n, uint32_t size)
{
	static char text[128];
	static struct err err;
	uint32_t node_of[32];
	size_t at = 0;
	err = (struct err)ERR_INIT;
	if (plan_make(o, nodes, n, size, node_of, &err) < 0)
		return err.text;
	for (uint32_t r = 0; r < size; r++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%u", node_of[r]);
	return text;
}

static void test_policies(void)
{
	struct plan_options o = options(PLAN_SPREAD);
	is_str(made(&o, 3, 3), "123", "spread: one each");
	is_str(made(&o, 3, 5), "11223", "spread: the rest goes to the first, neighbours stay together");
	is_str(made(&o, 3, 8), "11112233", "spread: no more than a node holds");
	o.policy = PLAN_PACK;
	is_str(made(&o, 3, 5), "11112", "pack: one node after the other");
	o.max = 1;
	is_str(made(&o, 3, 3), "123", "pack: at most one a node");
	o = options(PLAN_SPREAD);
	o.oversubscribe = true;
	is_str(made(&o, 2, 9), "111112222", "oversubscribed: cores are no bound");
	o.max = 2;
	ok(strstr(made(&o, 2, 9), "4 of 9 VMs fit on 2 nodes: --max-per-node") != NULL,
	   "but --max-per-node is");
}

static void test_full(void)
{
	struct plan_options o = options(PLAN_SPREAD);
	ok(strstr(made(&o, 3, 9), "8 of 9 VMs fit on 3 nodes: cores") != NULL,
	   "what is short is named: %s", made(&o, 3, 9));
	o.memory = 4 * GIB;
	ok(strstr(made(&o, 3, 9), "4 of 9 VMs fit on 3 nodes: memory") != NULL, "memory too: %s",
	   made(&o, 3, 9));
	ok(strstr(made(&o, 0, 1), "no node is usable") != NULL, "no node at all");
	o = options(PLAN_SPREAD);
	o.overhead = GIB;
	is_str(made(&o, 3, 7), "1111223", "what a VM costs beside its memory counts");
	struct plan_node odd[] = {{.name = "a"},
				  {.name = "b", .down = true},
				  {.name = "c", .spare = true}};
	uint32_t node_of[2];
	struct err err = ERR_INIT;
	o.overhead = 0;
	ok(plan_make(&o, odd, 3, 1, node_of, &err) == 0 && node_of[0] == 1,
	   "a node that does not say takes one VM");
	ok(plan_make(&o, odd, 3, 2, node_of, &err) < 0 && err.code == ENOSPC,
	   "nodes that are down or spare take none");
}

static void test_map(void)
{
	struct plan_options o = options(PLAN_SPREAD);
	struct err err = ERR_INIT;
	ok(plan_policy_parse("n2:1,n1:2", &o, &err) == 0 && o.policy == PLAN_MAP, "a map");
	is_str(made(&o, 3, 3), "211", "is followed, ranks in its order");
	ok(strstr(made(&o, 3, 4), "places 3 of the 4") != NULL, "too few");
	ok(strstr(made(&o, 3, 2), "places more than the 2") != NULL, "too many");
	const struct {
		const char *map, *said;
	} bad[] = {
		{"n9:3", "there is no node 'n9'"},
		{"n1:x", "is not NODE:COUNT"},
		{"n1:-1", "is not NODE:COUNT"},
		{"n1:1,,n2:1", "is not NODE:COUNT"},
		{"n2:3", "node n2 has room for 2 of the 3"},
		{":3", "there is no node ''"},
		{"n1:2,n1:3", "room for 2 of the 3"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		o = options(PLAN_MAP);
		o.map = bad[i].map;
		ok(strstr(made(&o, 3, 3), bad[i].said) != NULL, "%s: %s", bad[i].map, made(&o, 3, 3));
	}
	ok(plan_policy_parse("pack", &o, &err) == 0 && o.policy == PLAN_PACK, "pack");
	ok(plan_policy_parse("spread", &o, &err) == 0 && o.policy == PLAN_SPREAD, "spread");
	ok(plan_policy_parse("nearby", &o, &err) < 0 && err.code == EINVAL, "another word is none");
}

static const char *why(const struct plan_options *o, const struct plan_node *n, uint32_t here)
{
	static char text[256];
	_cleanup_buf_ struct buf b = BUF_INIT;
	plan_why(o, n, here, &b);
	snprintf(text, sizeof(text), "%s", buf_cstr(&b));
	return text;
}

static void test_why(void)
{
	struct plan_options o = options(PLAN_PACK);
	struct plan_node n = {.name = "x", .cpus = 4, .memory = 64 * GIB};
	is_str(why(&o, &n, 4), "full, room for 4: 4 cores, a VM takes 1", "why a node has so many");
	is_str(why(&o, &n, 1), "the rest, room for 4: 4 cores, a VM takes 1", "and not more");
	is_str(why(&o, &n, 0), "the others have room for all, room for 4: 4 cores, a VM takes 1",
	       "or none");
	o.policy = PLAN_SPREAD;
	n.memory = 3 * (o.memory + o.overhead);
	ok(strncmp(why(&o, &n, 2), "an even share, room for 3: ", 27) == 0 &&
		   strstr(why(&o, &n, 2), "B, a VM takes "),
	   "memory is the bound: %s", why(&o, &n, 2));
	o.max = 2;
	is_str(why(&o, &n, 2), "full, room for 2: --max-per-node 2", "the user's bound");
	o.max = 0;
	n.cpus = 0;
	is_str(why(&o, &n, 0), "fewer VMs than nodes, room for 1: its cores are not known", "not known");
	o.cpus = 8;
	n.cpus = 4;
	is_str(why(&o, &n, 0), "no room: 4 cores, a VM takes 8", "no room");
	o.oversubscribe = true;
	is_str(why(&o, &n, 5), "an even share: cores and memory are no bound", "asked for");
	o.policy = PLAN_MAP;
	is_str(why(&o, &n, 0), "the map gives it none: cores and memory are no bound", "by a map");
	n.unfit = "qemu: not here";
	is_str(why(&o, &n, 0), "refused: nothing there can run these VMs: qemu: not here", "unfit");
	is_int(plan_room(&o, &n), 0, "which has no room");
	n.unfit = NULL;
	n.spare = true;
	is_str(why(&o, &n, 0), "spare, kept free for VMs of nodes that die", "a spare one");
	n.down = true;
	is_str(why(&o, &n, 0), "down", "one that is not there");
}

static uint32_t seed = 1;

static uint32_t next(uint32_t n)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % n;
}

/* Whatever the numbers: no node gets more than its room, and what is placed is placed once. */
static void test_random(void)
{
	uint32_t bad = 0, placed = 0;
	for (int round = 0; round < 2000; round++) {
		struct plan_node some[16];
		uint32_t node_of[64], used[16] = {0};
		struct plan_options o = options(round % 2 ? PLAN_PACK : PLAN_SPREAD);
		uint32_t n = next(16), size = 1 + next(64);
		o.max = next(6);
		for (uint32_t i = 0; i < n; i++)
			some[i] = (struct plan_node){.name = "x",
						     .cpus = next(9),
						     .memory = next(9) * GIB,
						     .down = next(5) == 0};
		if (plan_make(&o, some, n, size, node_of, NULL) < 0)
			continue;
		placed++;
		for (uint32_t r = 0; r < size; r++) {
			bad += node_of[r] < 1 || node_of[r] > n;
			used[(node_of[r] - 1) % 16]++;
		}
		for (uint32_t i = 0; i < n; i++)
			bad += used[i] > plan_room(&o, &some[i]);
	}
	is_int(bad, 0, "2000 plans: no node has more than its room");
	ok(placed > 100, "many of them were possible: %u", placed);
}

static void test_pages(void)
{
	struct plan_options o = options(PLAN_SPREAD);
	struct plan_node n = {.name = "x", .cpus = 4, .memory = GIB / 2, .pages = 3 * GIB};
	const struct plan_node two[] = {n, n};
	uint32_t node_of[8];
	struct err err = ERR_INIT;
	o.pages = true;
	o.overhead = 64u << 20;
	is_int(plan_room(&o, &n), 3, "reserved pages are a bound");
	is_str(why(&o, &n, 3), "full, room for 3: 3 GiB in reserved pages, a VM takes 1 GiB",
	       "and named");
	o.oversubscribe = true;
	is_int(plan_room(&o, &n), 3, "also where cores are none: nobody can have more of them");
	ok(plan_make(&o, two, 2, 8, node_of, &err) < 0 &&
		   strstr(err.text, "6 of 8 VMs fit on 2 nodes: reserved pages of 2 MiB"),
	   "%s", err.text);
	o.oversubscribe = false;
	n.memory = 3 * o.overhead - 1;
	is_int(plan_room(&o, &n), 2, "what a VMM takes beside them is ordinary memory: a bound too");
	ok(strstr(why(&o, &n, 2), ", a VM takes 64 MiB beside its reserved pages"), "and named: %s",
	   why(&o, &n, 2));
	const struct plan_node less[] = {n, n};
	err = (struct err)ERR_INIT;
	ok(plan_make(&o, less, 2, 8, node_of, &err) < 0 &&
		   strstr(err.text, "4 of 8 VMs fit on 2 nodes: memory is the bound"),
	   "%s", err.text);
	o.oversubscribe = true;
	is_int(plan_room(&o, &n), 3, "unless it may be too little");
}

int main(void)
{
	test_pages();
	test_policies();
	test_full();
	test_map();
	test_why();
	test_random();
	return done();
}
