/* SPDX-License-Identifier: Apache-2.0 */
/* vCPUs on CPUs of the node, memory of its NUMA nodes and in reserved pages. Who knows where they are is asked: the kernel
 * where the VMM is a process with a thread for each vCPU, under Xen xl. */
#include "save-cases.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "base/topology.h"
#include "tests/tap.h"

/* Threads of a process; on: those that may run on this CPU alone; on all that we may use: cpu -1. */
static unsigned threads(pid_t pid, int cpu, unsigned *on)
{
	_cleanup_free_ char *dir = xasprintf("/proc/%d/task", (int)pid);
	DIR *d = opendir(dir);
	unsigned n = 0;
	cpu_set_t set, own;
	sched_getaffinity(0, sizeof(own), &own);
	*on = 0;
	for (struct dirent *e; d && (e = readdir(d));) {
		int tid = atoi(e->d_name);
		if (tid <= 0 || sched_getaffinity(tid, sizeof(set), &set) < 0)
			continue;
		n++;
		*on += cpu < 0 ? CPU_EQUAL(&set, &own) != 0
			       : CPU_COUNT(&set) == 1 && CPU_ISSET((unsigned)cpu, &set);
	}
	if (d)
		closedir(d);
	return n;
}

static bool all_on(pid_t pid, int cpu)
{
	unsigned on, n = threads(pid, cpu, &on);
	return n && on == n;
}

static bool any_on(pid_t pid, int cpu)
{
	unsigned on;
	threads(pid, cpu, &on);
	return on > 0;
}

static bool up(struct testvm *t, struct env *env)
{
	struct err e = ERR_INIT;
	bool good = testvm_start(t, env, NULL, &e) == 0 && testvm_wait(t, t->readies || t->gone) &&
		    !t->gone;
	return ok(good, "it comes up %s%s", e.text, t->gone_reason);
}

static pid_t vmm(struct testvm *t)
{
	struct hv_stats st = {0};
	struct err e = ERR_INIT;
	is_int(hv_stats(t->hv, &st, &e), 0, "stats %s", e.text);
	return st.pid;
}

/* Read back from the kernel. */
static void repin(struct testvm *t, pid_t pid, unsigned cpu)
{
	cpu_set_t own;
	struct err e = ERR_INIT;
	sched_getaffinity(0, sizeof(own), &own);
	ok(all_on(pid, (int)cpu), "it is on CPU %u, with all its threads", cpu);
	ok(hv_pin(t->hv, 0, -1, &e) == 0 && any_on(pid, -1), "and then its vCPU on any %s", e.text);
	ok(hv_pin(t->hv, 0, (int)cpu, &e) == 0 && all_on(pid, (int)cpu), "and there again %s", e.text);
	ok(hv_pin(t->hv, 1, (int)cpu, &e) < 0 && e.code == EINVAL, "it has no other: %s", e.text);
	e = ERR_INIT;
	ok(hv_pin(t->hv, 0, CPU_SETSIZE - 1, &e) < 0 && e.code == EINVAL,
	   "never on a CPU that is not ours: %s", e.text);
}

/* ---- the same under Xen ---- */

/* The word after `key` in what xl prints; "" when there is none. */
static void xl_word(const char *command, const char *key, char out[16])
{
	char line[512];
	FILE *f = popen(command, "r");
	out[0] = '\0';
	while (f && fgets(line, sizeof(line), f)) {
		const char *at = strstr(line, key);
		if (at)
			sscanf(at + strlen(key), "%*[ :]%15s", out);
	}
	if (f)
		pclose(f);
}

/* Where the only vCPU may run: "3", or "all". "NAME ID VCPU CPU STATE TIME HARD / SOFT" */
static bool xen_is_on(struct testvm *t, const char *where)
{
	_cleanup_free_ char *path = path_join(t->dir, "xen"), *text = NULL, *command = NULL;
	char line[512] = "", hard[16] = "", name[65] = "";
	if (path_read(path, 1024, &text, NULL, NULL) < 0 || sscanf(text, "%64s", name) != 1)
		return false;
	command = xasprintf("xl vcpu-list %s", name);
	uint64_t until = time_mono_ms() + t->env->bound_ms;
	do {
		FILE *f = popen(command, "r");
		while (f && fgets(line, sizeof(line), f))
			;
		if (f)
			pclose(f);
		sscanf(line, "%*s %*s %*s %*s %*s %*s %15s /", hard);
		if (strcmp(hard, where) == 0)
			return true;
		testvm_run(t->env, 200);
	} while (!t->gone && time_mono_ms() < until);
	printf("# xl vcpu-list: %s", line);
	return false;
}

static void test_pin_xen(struct env *env)
{
	struct testvm t = {0};
	struct err e = ERR_INIT;
	char text[16], one[16];
	xl_word("xl info", "nr_cpus", text);
	unsigned n = (unsigned)strtoul(text, NULL, 10), last = n - 1;
	if (!ok(n > 0, "the node has %u CPUs", n))
		return;
	env->spec.pins = &n;
	ok(testvm_start(&t, env, NULL, &e) < 0 && e.code == EINVAL, "a CPU that is not there: %s",
	   e.text);
	testvm_finish(&t);
	env->spec.pins = &last;
	/* Of a node with one CPU xl says "all" in any case. */
	snprintf(one, sizeof(one), n > 1 ? "%u" : "all", last);
	if (up(&t, env)) {
		ok(xen_is_on(&t, one), "its vCPU is on CPU %u", last);
		ok(hv_pin(t.hv, 0, -1, &e) == 0 && xen_is_on(&t, "all"), "and then on any %s", e.text);
		ok(hv_pin(t.hv, 0, (int)last, &e) == 0 && xen_is_on(&t, one), "and there again %s",
		   e.text);
		ok(hv_pin(t.hv, 1, (int)last, &e) < 0 && e.code == EINVAL, "it has no other: %s",
		   e.text);
		e = ERR_INIT;
		ok(hv_pin(t.hv, 0, (int)n, &e) < 0 && e.code == EINVAL,
		   "never on one that is not there: %s", e.text);
		ok(!t.failed && !t.gone, "nothing failed %s", t.failed_text);
	}
	testvm_finish(&t);
	env->spec.pins = NULL;
}

void test_pin(struct env *env)
{
	if (strcmp(env->h->name, "xen") == 0) {
		test_pin_xen(env);
		return;
	}
	struct testvm t = {0};
	struct err e = ERR_INIT;
	cpu_set_t own;
	unsigned cpu = 0, strange = CPU_SETSIZE - 1;
	sched_getaffinity(0, sizeof(own), &own);
	for (unsigned i = 0; i < CPU_SETSIZE; i++)
		cpu = CPU_ISSET(i, &own) ? i : cpu; /* the last: the kernel itself likes the first */
	env->spec.pins = &strange;
	ok(testvm_start(&t, env, NULL, &e) < 0 && e.code == EINVAL, "a CPU that is not ours: %s",
	   e.text);
	testvm_finish(&t);
	env->spec.pins = &cpu;
	if (up(&t, env))
		repin(&t, vmm(&t), cpu);
	testvm_finish(&t);
	env->spec.pins = NULL;
}

/* ---- memory ---- */

/* Every mapping has the policy of its process: "7f...000 bind:0 anon=...". */
static bool bound(pid_t pid, const char *policy)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/numa_maps", (int)pid), *text = NULL;
	struct err e = ERR_INIT;
	unsigned lines = 0, good = 0;
	if (path_read(path, 4u << 20, &text, NULL, &e) < 0)
		return ok(false, "%s", e.text);
	for (char *line = text; line && *line;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *word = strchr(line, ' ');
		lines++;
		good += word && strncmp(word + 1, policy, strlen(policy)) == 0;
	}
	printf("# %u of %u mappings are %s\n", good, lines, policy);
	return lines && good == lines;
}

static void refused(struct env *env, int code, const char *what)
{
	struct testvm t = {0};
	struct err e = ERR_INIT;
	ok(testvm_start(&t, env, NULL, &e) < 0 && e.code == code && !strchr(e.text, '\n'), "%s: %s",
	   what, e.text);
	testvm_finish(&t);
}

void test_numa(struct env *env)
{
	struct testvm t = {0};
	uint64_t mine = topology_memory_nodes(), first = mine & -mine;
	char policy[16];
	if (!ok(mine && mine != UINT64_MAX, "the nodes that memory may come from are known"))
		return;
	env->spec.numa_nodes = first | (~mine & -~mine);
	refused(env, EINVAL, "a node that is not ours");
	env->spec.numa_nodes = first;
	snprintf(policy, sizeof(policy), "bind:%d", __builtin_ctzll(first));
	if (up(&t, env))
		ok(bound(vmm(&t), policy), "all of its memory comes from the first node");
	testvm_finish(&t);
	env->spec.numa_nodes = 0;
}

static uint64_t in_pages(pid_t pid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/status", (int)pid), *text = NULL;
	const char *line = NULL;
	if (path_read(path, 65536, &text, NULL, NULL) == 0)
		line = strstr(text, "HugetlbPages:");
	return line ? strtoull(line + 13, NULL, 10) << 10 : 0;
}

static void restores_elsewhere(struct env *env, struct testvm *t);

void test_hugepages(struct env *env)
{
	struct testvm t = {0};
	uint64_t memory = env->spec.memory, have = topology_hugepages("/sys", 0);
	env->spec.hugepages = true;
	env->spec.memory = UINT64_C(1) << 45;
	refused(env, ENOMEM, "more than there is");
	env->spec.memory = memory + (1 << 20);
	refused(env, EINVAL, "half a page");
	env->spec.memory = memory;
	if (have < memory) {
		refused(env, ENOMEM, "too few are free");
		printf("# %llu MiB are free: a VM was not started\n", (unsigned long long)have >> 20);
	} else if (up(&t, env)) {
		struct hv_stats st = {0};
		struct err e = ERR_INIT;
		is_int(hv_stats(t.hv, &st, &e), 0, "stats %s", e.text);
		is_int(in_pages(st.pid), memory, "all of its memory is in reserved pages");
		ok(st.rss > memory, "and counted as used: %llu KiB", (unsigned long long)st.rss >> 10);
		restores_elsewhere(env, &t);
	}
	testvm_finish(&t);
	env->spec.hugepages = false;
}

/* What was saved with them goes on without: they are where it is, not what it is. */
static void restores_elsewhere(struct env *env, struct testvm *t)
{
	struct testvm to = {0};
	struct err e = ERR_INIT;
	static const char *const mark[] = {"sh", "-c", "echo kept >/run/mark", NULL},
				 *const read_mark[] = {"cat", "/run/mark", NULL};
	if (hypervisor_lacks(env->h, &env->probe, HV_CAP_SAVE))
		return;
	testvm_exec(t, mark, NULL);
	ok(testvm_wait(t, t->exits == 1), "a file in memory");
	if (!ok(hv_save(t->hv, &e) == 0 && testvm_wait(t, t->state_fd >= 0 || t->failed) && !t->failed,
		"a save begins %s%s", e.text, t->failed_text))
		return;
	env->spec.hugepages = false;
	int rc = testvm_start_from(&to, env, HV_FROM_SAVE, t->state_fd, NULL, &e);
	env->spec.hugepages = true;
	close(TAKE_FD(t->state_fd));
	ok(rc == 0 && testvm_wait(&to, to.state == HV_PAUSED || to.gone) && !to.gone,
	   "and comes up in other memory %s%s", e.text, to.gone_reason);
	if (rc == 0 && !to.gone && hv_resume(to.hv, &e) == 0 && testvm_wait(&to, to.readies || to.gone)) {
		testvm_exec(&to, read_mark, NULL);
		ok(testvm_wait(&to, to.exits == 1), "it goes on");
		is_str(buf_cstr(&to.out), "kept\n", "with what it had");
	}
	testvm_finish(&to);
}
