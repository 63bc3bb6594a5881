/* SPDX-License-Identifier: Apache-2.0 */
/* vCPUs on CPUs of the node. Only where each is a thread of the VMM, so that the kernel can be asked. */
#include "save-cases.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/time.h"
#include "tests/tap.h"

/* Threads of the VMM that may run on this CPU alone; on all that we may use: cpu -1. */
static unsigned threads_on(pid_t pid, int cpu)
{
	_cleanup_free_ char *dir = xasprintf("/proc/%d/task", (int)pid);
	DIR *d = opendir(dir);
	unsigned n = 0;
	cpu_set_t set, own;
	sched_getaffinity(0, sizeof(own), &own);
	for (struct dirent *e; d && (e = readdir(d));) {
		int tid = atoi(e->d_name);
		if (tid <= 0 || sched_getaffinity(tid, sizeof(set), &set) < 0)
			continue;
		n += cpu < 0 ? CPU_EQUAL(&set, &own) != 0
			     : CPU_COUNT(&set) == 1 && CPU_ISSET((unsigned)cpu, &set);
	}
	if (d)
		closedir(d);
	return n;
}

/* Read back from the kernel, where a vCPU is a thread of the VMM. */
void test_pin(struct env *env)
{
	struct testvm t = {0};
	struct err e = ERR_INIT;
	struct hv_stats st = {0};
	cpu_set_t own;
	unsigned cpu = 0;
	sched_getaffinity(0, sizeof(own), &own);
	while (!CPU_ISSET(cpu, &own))
		cpu++;
	env->spec.pins = &cpu;
	if (testvm_start(&t, env, NULL, &e) == 0 && testvm_wait(&t, t.readies || t.gone) && !t.gone) {
		hv_stats(t.hv, &st, &e);
		is_int(threads_on(st.pid, (int)cpu), CPU_COUNT(&own) > 1 ? 1 : threads_on(st.pid, -1),
		       "its vCPU runs on CPU %u, and nothing else of it is held there", cpu);
		ok(hv_pin(t.hv, 0, -1, &e) == 0 &&
			   threads_on(st.pid, (int)cpu) ==
				   (CPU_COUNT(&own) > 1 ? 0 : threads_on(st.pid, -1)),
		   "and then on any %s", e.text);
		ok(hv_pin(t.hv, 0, (int)cpu, &e) == 0 && threads_on(st.pid, (int)cpu) >= 1,
		   "and there again %s", e.text);
		ok(hv_pin(t.hv, 1, (int)cpu, &e) < 0 && e.code == EINVAL, "it has no other: %s", e.text);
		e = ERR_INIT;
		ok(hv_pin(t.hv, 0, CPU_SETSIZE - 1, &e) < 0 && e.code == EINVAL,
		   "never on a CPU that is not ours: %s", e.text);
	} else {
		ok(false, "it comes up %s%s", e.text, t.gone_reason);
	}
	testvm_finish(&t);
	env->spec.pins = NULL;
}
