/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on one VM. What an ioctl returns is not believed: PAUSE, CONTINUE and STOP succeed when they were refused,
 * and a LAUNCH of a VM that ran before says running though nothing runs. So each reads back what it has done. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/time.h"
#include "hypervisor/palacios.h"

#define SETTLE_MS 5000 /* for a state that was asked for to be seen */
#define STEP_MS 20

/* The VM of that name, as it is now: its number is not remembered, since another may have it tomorrow. */
static int find(const char *name, struct palacios_guest *ret, struct err *err)
{
	int found = palacios_look(name, ret, err);
	if (found == 0)
		return err_set(err, ESRCH, "Palacios has no VM %s any more", name);
	if (found == 1 && ret->state == PALACIOS_LOST)
		return err_set(err, EIO, "VM %s crashed while it was made: its slot is lost until the node reboots",
			       name);
	return found < 0 ? -1 : 0;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000}, NULL);
}

/* What err says before is the kernel's own word on the operation, if it had one. */
static int await(const char *name, enum palacios_state want, const char *what,
		 struct palacios_guest *g, struct err *err)
{
	uint64_t until = time_mono_ms() + SETTLE_MS;
	struct err said = err ? *err : ERR_INIT;
	for (;;) {
		if (find(name, g, err) < 0)
			return -1;
		if (g->state == want)
			break;
		if (g->state == PALACIOS_ERROR || time_mono_ms() >= until) {
			if (said.code)
				return err_copy(err, &said);
			return err_set(err, EIO, "%s: the VM is %s", what,
				       palacios_state_name(g->state));
		}
		nap();
	}
	if (err)
		*err = ERR_INIT;
	return 0;
}

static int change(const char *name, unsigned number, enum palacios_state from,
		  enum palacios_state to, const char *what, struct err *err)
{
	struct palacios_guest g;
	if (find(name, &g, err) < 0)
		return -1;
	if (g.state == to)
		return 0;
	if (g.state != from)
		return err_set(err, EINVAL, "%s: the VM is %s", what, palacios_state_name(g.state));
	if (palacios_ioctl((int)g.number, number, NULL, what, name, NULL, err) < 0)
		return -1;
	return await(name, to, what, &g, err);
}

int palacios_pause(const char *name, struct err *err)
{
	return change(name, V3_VM_PAUSE, PALACIOS_RUNNING, PALACIOS_PAUSED, "pause", err);
}

int palacios_continue(const char *name, struct err *err)
{
	return change(name, V3_VM_CONTINUE, PALACIOS_PAUSED, PALACIOS_RUNNING, "continue", err);
}

/* Running is believed when a vcore runs, too. */
static int await_cores(const char *name, struct err *err)
{
	uint64_t until = time_mono_ms() + SETTLE_MS;
	struct palacios_cores c;
	struct palacios_guest g;
	for (;;) {
		palacios_look_cores(name, &c);
		if (c.running)
			return 0;
		if (find(name, &g, err) < 0)
			return -1;
		if (g.state != PALACIOS_RUNNING)
			return err_set(err, EIO, "launch: the VM is %s", palacios_state_name(g.state));
		if (time_mono_ms() >= until)
			return err_set(err, EIO,
				       "launch: Palacios says running, but no virtual CPU runs");
		nap();
	}
}

int palacios_launch(const char *name, struct err *err)
{
	if (change(name, V3_VM_LAUNCH, PALACIOS_STOPPED, PALACIOS_RUNNING, "launch", err) < 0)
		return -1;
	return await_cores(name, err);
}

int palacios_reset(const char *name, struct err *err)
{
	struct v3_reset all = {.type = 0};
	struct palacios_guest g;
	if (find(name, &g, err) < 0)
		return -1;
	bool paused = g.state == PALACIOS_PAUSED;
	if (paused && palacios_continue(name, err) < 0) /* only a running VM can be reset */
		return -1;
	if (find(name, &g, err) < 0)
		return -1;
	if (g.state != PALACIOS_RUNNING)
		return err_set(err, EINVAL, "reset: the VM is %s", palacios_state_name(g.state));
	if (palacios_ioctl((int)g.number, V3_VM_RESET, &all, "reset", name, NULL, err) < 0 ||
	    await(name, PALACIOS_RUNNING, "reset", &g, err) < 0)
		return -1;
	return paused ? palacios_pause(name, err) : 0;
}

int palacios_stream(const char *name, const char *stream, int *ret_fd, struct err *err)
{
	char wanted[128] = ""; /* the module copies all of it */
	struct palacios_guest g;
	_cleanup_free_ char *what = xasprintf("stream %s", stream);
	if (find(name, &g, err) < 0)
		return -1;
	snprintf(wanted, sizeof(wanted), "%s", stream);
	if (palacios_ioctl((int)g.number, V3_VM_STREAM_CONNECT, wanted, what, name, ret_fd, err) < 0)
		return -1;
	fcntl(*ret_fd, F_SETFD, FD_CLOEXEC);
	fcntl(*ret_fd, F_SETFL, fcntl(*ret_fd, F_GETFL) | O_NONBLOCK);
	return 0;
}

int palacios_move_core(const char *name, unsigned vcore, unsigned cpu, struct err *err)
{
	struct v3_move_core m = {.vcore = (uint16_t)vcore, .pcore = (uint16_t)cpu};
	struct palacios_guest g;
	struct palacios_info info;
	_cleanup_free_ char *what = xasprintf("move vCPU %u to CPU %u", vcore, cpu);
	if (find(name, &g, err) < 0 || palacios_info_read(&info, err) < 0)
		return -1;
	if (cpu >= info.cpus || vcore >= g.vcores)
		return err_set(err, EINVAL, "%s: there is no such CPU or vCPU", what);
	return palacios_ioctl((int)g.number, V3_VM_MOVE_CORE, &m, what, name, NULL, err);
}

int palacios_create(const char *name, const struct buf *image, struct err *err)
{
	struct v3_create c = {.size = buf_len(image), .image = buf_head(image)};
	struct palacios_guest g;
	int n;
	snprintf(c.name, sizeof(c.name), "%s", name);
	if (palacios_ioctl(-1, V3_CREATE_GUEST, &c, "create", name, &n, err) < 0)
		return -1;
	if (err)
		*err = ERR_INIT;
	if (find(name, &g, err) < 0)
		return err_prefix(err, "create: ");
	if ((int)g.number != n)
		return err_set(err, EIO, "create: VM %d was made and VM %u has its name", n, g.number);
	return 0;
}

/* ---- save and load ---- */

static int checkpoint(const char *name, unsigned number, const char *folder, const char *what,
		      struct err *err)
{
	struct v3_checkpoint c = {.store = "DIR"};
	struct palacios_guest g;
	if (find(name, &g, err) < 0)
		return -1;
	/* A path that the module cannot make crashes the kernel: it is there before, and it is ours. */
	if (folder[0] != '/' || strlen(folder) >= sizeof(c.url))
		return err_set(err, ENAMETOOLONG,
			       "%s: %s: an absolute path of at most %zu bytes is needed", what,
			       folder, sizeof(c.url) - 1);
	if (access(folder, R_OK | W_OK | X_OK) < 0)
		return err_errno(err, errno, "%s: %s", what, folder);
	snprintf(c.url, sizeof(c.url), "%s", folder);
	return palacios_ioctl((int)g.number, number, &c, what, name, NULL, err);
}

int palacios_save(const char *name, const char *folder, struct err *err)
{
	struct palacios_guest g;
	if (checkpoint(name, V3_VM_SAVE, folder, "save", err) < 0)
		return -1;
	if (err)
		*err = ERR_INIT;
	return await(name, PALACIOS_PAUSED, "save", &g, err);
}

int palacios_load(const char *name, const char *folder, struct err *err)
{
	struct palacios_guest g;
	if (checkpoint(name, V3_VM_LOAD, folder, "load", err) < 0)
		return -1;
	if (err)
		*err = ERR_INIT;
	return await(name, PALACIOS_STOPPED, "load", &g, err);
}

/* ---- the end ---- */

static int stop(const char *name, struct palacios_guest *g, struct err *err)
{
	if (g->state == PALACIOS_PAUSED) {
		/* A paused VM cannot be stopped. */
		if (palacios_continue(name, err) < 0)
			return -1;
		if (find(name, g, err) < 0)
			return -1;
	}
	if (g->state == PALACIOS_STOPPED || g->state == PALACIOS_ERROR)
		return 0;
	if (palacios_ioctl((int)g->number, V3_VM_STOP, NULL, "stop", name, NULL, err) < 0)
		return -1;
	return await(name, PALACIOS_STOPPED, "stop", g, err);
}

int palacios_remove(const char *name, struct err *err)
{
	struct palacios_guest g;
	int found = palacios_look(name, &g, err);
	if (found <= 0)
		return found;
	if (find(name, &g, err) < 0)
		return -1;
	/* A guest may end by itself meanwhile, which is as good: FREE says whether the VM was stopped. */
	if (stop(name, &g, err) < 0 && (palacios_look(name, &g, NULL) != 1 || g.state != PALACIOS_ERROR))
		return -1;
	if (palacios_ioctl(-1, V3_FREE_GUEST, (void *)(uintptr_t)g.number, "free", name, NULL, err) < 0)
		return -1;
	if (err)
		*err = ERR_INIT;
	uint64_t until = time_mono_ms() + SETTLE_MS;
	while ((found = palacios_look(name, &g, err)) == 1 && time_mono_ms() < until)
		nap();
	return found == 1 ? err_set(err, EIO, "free: the VM is still there") : found;
}

/* ---- VMs whose keeper is dead ---- */

static uint64_t pid_namespace(void)
{
	char link[64];
	uint64_t n = 0;
	ssize_t len = readlink("/proc/self/ns/pid", link, sizeof(link) - 1);
	if (len <= 0)
		return 0;
	link[len] = '\0';
	return sscanf(link, "pid:[%" SCNu64 "]", &n) == 1 ? n : 0;
}

/* "vse.<pid>.<start>.<pid namespace>-<name>": who keeps it. Ids of another namespace say nothing here. */
void palacios_name_of(pid_t keeper, const char *given, char out[PALACIOS_NAME_MAX + 1])
{
	uint64_t start = 0;
	proc_start_time(keeper, &start, NULL);
	snprintf(out, PALACIOS_NAME_MAX + 1, "vse.%d.%" PRIu64 ".%" PRIu64 "-%.40s", (int)keeper,
		 start, pid_namespace(), given);
}

bool palacios_is_orphan(const char *name)
{
	int pid;
	uint64_t start, space;
	return sscanf(name, "vse.%d.%" SCNu64 ".%" SCNu64 "-", &pid, &start, &space) == 3 &&
	       pid > 0 && space && space == pid_namespace() && !proc_alive(pid, start);
}

void palacios_sweep(void)
{
	struct palacios_guest v[PALACIOS_VMS_MAX];
	size_t n;
	if (palacios_list(v, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (v[i].state != PALACIOS_LOST && palacios_is_orphan(v[i].name))
			palacios_remove(v[i].name, NULL);
}
