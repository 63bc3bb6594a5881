/* SPDX-License-Identifier: Apache-2.0 */
/* The node's CPUs as /sys shows them, and who of the VMs gets which. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "tap.h"
#include "vm/binding.h"

static char *root;

static void put(const char *name, const char *text)
{
	_cleanup_free_ char *path = path_join(root, name), *dir = xstrdup(path);
	*strrchr(dir, '/') = '\0';
	struct err e = ERR_INIT;
	if (path_mkdirs(dir, 0700, &e) < 0 || path_replace(path, text, strlen(text), 0600, &e) < 0)
		ok(false, "%s", e.text);
}

/* Two NUMA nodes, four cores of two threads each: as x86 servers number them, siblings are 8 apart. */
static void make_sys(void)
{
	put("devices/system/node/online", "0-1\n");
	put("devices/system/node/node0/cpulist", "0-3,8-11\n");
	put("devices/system/node/node1/cpulist", "4-7,12-15\n");
	for (unsigned i = 0; i < 16; i++) {
		_cleanup_free_ char *
			name = xasprintf("devices/system/cpu/cpu%u/topology/thread_siblings_list", i),
		       *text = xasprintf("%u,%u\n", i % 8, i % 8 + 8);
		put(name, text);
	}
}

static const char *shown(const struct topology *t)
{
	static struct buf b;
	buf_finish(&b);
	b = BUF_INIT;
	for (size_t i = 0; i < t->n; i++)
		buf_addf(&b, "%s%u/%u/%u", i ? " " : "", t->cpus[i].node, t->cpus[i].core,
			 t->cpus[i].cpu);
	return buf_cstr(&b);
}

static void only(cpu_set_t *set, unsigned from, unsigned to)
{
	CPU_ZERO(set);
	for (unsigned i = from; i <= to; i++)
		CPU_SET(i, set);
}

static void test_topology(void)
{
	struct topology t;
	cpu_set_t may;
	only(&may, 2, 12);
	topology_read(root, &may, &t);
	is_str(shown(&t), "0/0/8 0/1/9 0/2/2 0/2/10 0/3/3 0/3/11 1/4/4 1/4/12 1/5/5 1/6/6 1/7/7",
	       "what may be used, by node, core and CPU");
	is_int(topology_cores(&t), 8, "cores of it");
	topology_finish(&t);
	topology_read("/no/such/folder", &may, &t);
	ok(t.n == 11 && topology_cores(&t) == 11 && !t.cpus[10].node,
	   "a kernel that tells nothing");
	topology_finish(&t);
	topology_here(&t);
	ok(t.n >= 1 && topology_cores(&t) >= 1 && topology_cores(&t) <= t.n, "this host: %s",
	   shown(&t));
	topology_finish(&t);
	ok(topology_memory_nodes(), "memory comes from somewhere");
}

static void test_pages(void)
{
	is_int(topology_hugepages(root, 0), 0, "no pool, no pages");
	ok(!topology_has_hugepages(root), "nor any to come");
	put("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "12\n");
	put("kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "10\n");
	put("kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "3\n");
	ok(topology_has_hugepages(root), "some are reserved");
	is_int(topology_hugepages(root, 0), 7 * HUGEPAGE, "what is free and promised to nobody");
	put("devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "4\n");
	put("devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "6\n");
	is_int(topology_hugepages(root, 1), 4 * HUGEPAGE, "on one node");
	is_int(topology_hugepages(root, 3), 7 * HUGEPAGE, "on both: not more than there is");
	put("kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages", "5\n");
	put("kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages", "1\n");
	is_int(topology_hugepages(root, 0), 11 * HUGEPAGE, "and what the kernel would still make");
}

/* ---- who gets which ---- */

static struct binding *books(enum binding_unit unit, bool share, unsigned from, unsigned to)
{
	struct topology t;
	cpu_set_t may;
	only(&may, from, to);
	topology_read(root, &may, &t);
	struct binding *b = binding_create(
		&(struct binding_spec){.unit = unit, .memory = true, .share = share}, &t);
	topology_finish(&t);
	return b;
}

/* The CPUs and the NUMA nodes, or why not. */
static const char *took(struct binding *b, unsigned n)
{
	static struct buf text;
	static struct err e;
	unsigned cpus[64];
	uint64_t nodes;
	e = (struct err)ERR_INIT;
	if (binding_take(b, n, cpus, &nodes, &e) < 0)
		return e.text;
	buf_finish(&text);
	text = BUF_INIT;
	for (unsigned i = 0; i < n; i++)
		buf_addf(&text, "%u ", cpus[i]);
	buf_addf(&text, "@%llx", (unsigned long long)nodes);
	return buf_cstr(&text);
}

static void test_threads(void)
{
	struct binding *b = books(BINDING_THREADS, false, 0, 15);
	is_str(took(b, 2), "0 8 @1", "both threads of a core belong to one VM");
	is_str(took(b, 7), "4 12 5 13 6 14 7 @2", "a node with room for all of it");
	is_str(took(b, 1), "15 @2", "where least is left over");
	is_str(took(b, 6), "1 9 2 10 3 11 @1", "so that a large block stays whole");
	ok(strstr(took(b, 1), "1 CPU wanted, 0 of the 16 that this agent may use are free"),
	   "full: %s", took(b, 1));
	binding_give(b, 2, (unsigned[]){0, 8});
	ok(strstr(took(b, 3), "3 CPUs wanted, 2 of the 16"), "a part is not taken: %s", took(b, 3));
	is_str(took(b, 2), "0 8 @1", "what was given back is there again");
	binding_destroy(b);
	b = books(BINDING_THREADS, false, 0, 15);
	is_str(took(b, 12), "0 8 1 9 2 10 3 11 4 12 5 13 @3", "over two nodes where one is too small");
	binding_destroy(b);
	binding_destroy(NULL);
}

static void test_cores(void)
{
	struct binding *b = books(BINDING_CORES, false, 0, 15);
	struct err e = ERR_INIT;
	is_str(took(b, 3), "0 1 2 @1", "a CPU of each core");
	is_str(took(b, 4), "4 5 6 7 @2", "the next on the other node");
	ok(strstr(took(b, 2), "2 cores wanted, 1 of the 8 that this agent may use is free"),
	   "full: %s", took(b, 2));
	ok(binding_check(b, 4, 2, &e) == 0, "four of two each would fit");
	ok(binding_check(b, 3, 3, &e) < 0 && e.code == ENOSPC, "three of three would not: %s", e.text);
	binding_destroy(b);
	b = books(BINDING_CORES, false, 6, 9);
	is_str(took(b, 4), "8 9 6 7 @3", "an allocation with one thread of each");
	binding_destroy(b);
}

static void test_shared(void)
{
	struct binding *b = books(BINDING_THREADS, true, 0, 2);
	struct err e = ERR_INIT;
	ok(binding_check(b, 100, 2, &e) == 0, "any number fits where VMs may share");
	is_str(took(b, 2), "0 1 @1", "first those that nobody has");
	is_str(took(b, 2), "2 0 @1", "the least taken first");
	is_str(took(b, 1), "1 @1", "and again");
	is_str(took(b, 5), "2 0 1 2 0 @1", "more vCPUs than CPUs");
	binding_destroy(b);
}

static void test_claim(void)
{
	struct binding *b = books(BINDING_THREADS, false, 0, 3);
	struct err e = ERR_INIT;
	uint64_t nodes = 0;
	is_int(binding_claim(b, 2, (unsigned[]){1, 2}, &nodes, &e), 0, "as they were before %s", e.text);
	is_int(nodes, 1, "with their node");
	is_str(took(b, 2), "0 3 @1", "the others get the rest");
	ok(binding_claim(b, 2, (unsigned[]){3, 9}, &nodes, &e) < 0 && e.code == EINVAL,
	   "not ours: %s", e.text);
	binding_give(b, 2, (unsigned[]){1, 2});
	is_str(took(b, 2), "1 2 @1", "given back");
	binding_destroy(b);
	struct topology none = {0};
	b = binding_create(&(struct binding_spec){.unit = BINDING_THREADS}, &none);
	ok(strstr(took(b, 1), "not known"), "no CPU is known: %s", took(b, 1));
	binding_destroy(b);
}

int main(void)
{
	root = xasprintf("%s/vse-binding.XXXXXX", getenv("TMPDIR") ?: "/tmp");
	if (!mkdtemp(root))
		return 1;
	make_sys();
	test_topology();
	test_pages();
	test_threads();
	test_cores();
	test_shared();
	test_claim();
	path_remove(root, NULL);
	free(root);
	return done();
}
