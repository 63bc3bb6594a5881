/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a container: first the image's tree (container_root.c), then bwrap (container_cage.c), then vse-guest
 * in it, which says when all is in place. A reset is another bwrap; terminal, relay and tree stay. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "base/proc.h"
#include "hypervisor/container.h"
#include "hypervisor/teller.h"
#include "io/stream.h"

#define LOOK_MS 2 /* between two looks at the processes that are to stop */
#define PAUSE_MS 5000

struct hv_vm {
	struct loop *loop;
	struct hv_teller to;
	char *name;
	struct container_ids ids;
	struct container_size size;
	struct container_mounts mounts;
	struct strvec extra;
	char *root; /* the unpacked tree; NULL until it is there */
	struct rootdir *rootdir;
	struct cage *cage;
	struct stream *status; /* of vse-guest: CONTAINER_UP */
	struct child *relay;
	struct evtimer *timer;
	char console_name[64];
	int program, console,
		terminal; /* vse-guest; the terminal's two ends: ours until told, the container's */
	int wire, net; /* to the relay, for each container in turn; the switch's end until told */
	int channel;   /* our end until told */
	bool up, told; /* this container's process 1 is in place; the descriptors that stay are told */
	bool killed, resetting;
	bool want_pause;     /* what was asked for last */
	struct tree stopped; /* what pause() has stopped */
	uint64_t pause_until;
	char failure[ERR_TEXT_MAX];
};

/* ---- the end ---- */

/* Process 1 tells by its end: bwrap gives 128 and the signal (wait(2) in bwrap.c), and the kernel has SIGINT for power
 * off and SIGHUP for reboot (pid_namespaces(7)). */
static const char *end_reason(struct hv_vm *vm, int status, char *text, size_t size, enum hv_state *ret)
{
	char words[300] = "", how[40];
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	*ret = HV_CRASHED;
	if (vm->killed) {
		*ret = HV_SHUTDOWN;
		return "stopped";
	}
	if (vm->failure[0])
		return vm->failure;
	if (vm->up && code == 128 + SIGINT) {
		*ret = HV_SHUTDOWN;
		return "guest powered off";
	}
	if (vm->up && code == 128 + SIGHUP)
		return "guest reset itself (reboot)";
	if (vm->up && code > 128) {
		snprintf(text, size, "the container's process 1 was killed by SIG%s",
			 sigabbrev_np(code - 128) ?: "?");
		return text;
	}
	cage_words(vm->cage, words, sizeof(words));
	snprintf(text, size, "%s%s(%s)", words[0] ? words : "bwrap", words[0] ? " " : " ended ",
		 child_status_text(status, how));
	if (WIFSIGNALED(status))
		snprintf(text, size, "bwrap %s", how);
	return text;
}

/* Arguments of the administrator's are the first suspects where bwrap did not even begin. */
static void blame_extra(struct hv_vm *vm, char *text, size_t size)
{
	if (!vm->extra.n || vm->told)
		return;
	size_t n = strlen(text);
	n += (size_t)snprintf(text + n, size - n, ", with");
	for (size_t i = 0; i < vm->extra.n && n < size; i++)
		n += (size_t)snprintf(text + n, size - n, " %s", vm->extra.v[i]);
}

static void tell_gone(struct hv_vm *vm, int status)
{
	char text[700] = "";
	struct hv_event e = {.type = HV_EVENT_GONE, .fd = -1};
	evtimer_stop(vm->timer);
	if (vm->relay)
		child_kill(vm->relay, SIGKILL);
	e.reason = end_reason(vm, status, text, sizeof(text), &e.state);
	if (e.reason == text)
		blame_extra(vm, text, sizeof(text));
	hv_tell(&vm->to, &e);
}

static void fail(struct hv_vm *vm, const char *why)
{
	if (!vm->failure[0])
		snprintf(vm->failure, sizeof(vm->failure), "%s", why);
	if (vm->cage)
		cage_kill(vm->cage);
	else
		tell_gone(vm, 0);
}

static int launch(struct hv_vm *vm, struct err *err);

static void on_end(void *arg, int status)
{
	struct hv_vm *vm = arg;
	struct err err = ERR_INIT;
	if (!vm->resetting || vm->killed || vm->failure[0]) {
		tell_gone(vm, status);
		return;
	}
	stream_destroy(TAKE_PTR(vm->status));
	cage_destroy(TAKE_PTR(vm->cage));
	if (launch(vm, &err) < 0)
		fail(vm, err.text);
}

/* ---- start ---- */

static void on_up(struct hv_vm *vm)
{
	const char *reason = vm->resetting ? "reset" : "started";
	vm->up = vm->told = true;
	vm->resetting = false;
	if (!hv_tell_state(&vm->to, HV_RUNNING, reason) ||
	    !hv_tell_fd(&vm->to, HV_EVENT_CHANNEL, &vm->channel) ||
	    !hv_tell_fd(&vm->to, HV_EVENT_CONSOLE, &vm->console))
		return;
	hv_tell_fd(&vm->to, HV_EVENT_NET, &vm->net);
}

static void on_status(void *arg, struct buf *in)
{
	struct hv_vm *vm = arg;
	bool up = memchr(buf_head(in), CONTAINER_UP, buf_len(in));
	buf_consume(in, buf_len(in));
	if (up && !vm->up)
		on_up(vm);
}

static void on_status_end(void *arg, const struct err *err _unused_)
{
	struct hv_vm *vm = arg;
	stream_destroy(TAKE_PTR(vm->status));
}

static int make_status(struct hv_vm *vm, int *ret, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_status, .on_close = on_status_end};
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	*ret = p[1];
	vm->status = stream_create(vm->loop, p[0], &ops, vm, err);
	return vm->status ? 0 : -1;
}

static int make_pair(int *ret_ours, int *ret_theirs, struct err *err)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, errno, "socketpair");
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
	return 0;
}

static int launch(struct hv_vm *vm, struct err *err)
{
	static const struct cage_ops ops = {.on_end = on_end};
	_cleanup_strvec_ struct strvec args = STRVEC_INIT;
	_cleanup_close_ int channel = -1, status = -1;
	if (vm->channel >= 0)
		close(TAKE_FD(vm->channel));
	if (make_pair(&vm->channel, &channel, err) < 0 || make_status(vm, &status, err) < 0)
		return -1;
	vm->up = false;
	container_args(vm->name, &vm->size, &vm->mounts, &vm->extra, vm->root, vm->console_name, &args);
	struct cage_spec spec = {.ids = &vm->ids, .args = &args, .fds = {-1, -1, -1}};
	spec.fds[CONTAINER_FD_CHANNEL] = channel;
	spec.fds[CONTAINER_FD_CONSOLE] = vm->terminal;
	spec.fds[CONTAINER_FD_WIRE] = vm->wire;
	spec.fds[CONTAINER_FD_PROGRAM] = vm->program;
	spec.fds[CONTAINER_FD_STATUS] = status;
	vm->cage = cage_start(vm->loop, &spec, &ops, vm, err);
	return vm->cage ? 0 : -1;
}

static void on_root(void *arg, const char *root, const struct err *why)
{
	struct hv_vm *vm = arg;
	struct err err = *why;
	if (vm->killed) {
		tell_gone(vm, 0);
		return;
	}
	vm->root = root ? xstrdup(root) : NULL;
	if (!root || launch(vm, &err) < 0)
		fail(vm, err.text);
}

/* ---- what stays over a reset ---- */

static int open_terminal(struct hv_vm *vm, struct err *err)
{
	vm->console = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (vm->console < 0 || grantpt(vm->console) < 0 || unlockpt(vm->console) < 0 ||
	    ptsname_r(vm->console, vm->console_name, sizeof(vm->console_name)) != 0)
		return err_errno(err, errno, "a terminal for the console");
	vm->terminal = open(vm->console_name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (vm->terminal < 0 || (vm->ids.privileged && fchown(vm->terminal, vm->ids.uid, (gid_t)-1) < 0))
		return err_errno(err, errno, "%s", vm->console_name);
	return 0;
}

static void on_relay(void *arg, int status _unused_)
{
	struct hv_vm *vm = arg;
	child_destroy(TAKE_PTR(vm->relay));
	if (vm->to.state == HV_STARTING || vm->to.state == HV_RUNNING || vm->to.state == HV_PAUSED)
		fail(vm, "the relay of its network ended");
}

static int start_relay(struct hv_vm *vm, struct err *err)
{
	_cleanup_close_ int wire = -1, net = -1;
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	if (make_pair(&vm->wire, &wire, err) < 0 || make_pair(&vm->net, &net, err) < 0)
		return -1;
	strvec_addf(&argv, "/proc/%d/fd/%d", (int)getpid(), vm->program);
	strvec_add(&argv, "--relay");
	struct child_spec cs = {.argv = strvec_argv(&argv),
				.cwd = "/",
				.fds = {-1, -1, -1, [RELAY_FD_WIRE] = wire, [RELAY_FD_SWITCH] = net},
				.n_fds = RELAY_FD_SWITCH + 1,
				.die_with_parent = true};
	vm->relay = child_start(vm->loop, &cs, on_relay, vm, err);
	return vm->relay ? 0 : -1;
}

static void release(struct hv_vm *vm)
{
	const int fds[] = {vm->program, vm->console, vm->terminal, vm->wire, vm->net, vm->channel};
	hv_teller_release(&vm->to);
	cage_destroy(vm->cage);
	rootdir_destroy(vm->rootdir);
	stream_destroy(vm->status);
	if (vm->relay)
		child_kill(vm->relay, SIGKILL);
	child_destroy(vm->relay);
	evtimer_destroy(vm->timer);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	tree_finish(&vm->stopped);
	strvec_finish(&vm->extra);
	strvec_finish(&vm->mounts.args);
	strvec_finish(&vm->mounts.dirs);
	free(vm->name);
	free(vm->root);
	free(vm);
}

static void on_timer(void *arg);

static int start(struct loop *l, const struct hv_spec *spec, const struct hv_probe *p _unused_,
		 hv_event_fn *fn, void *arg, struct hv_vm **ret, struct err *err)
{
	struct container_ids ids;
	if (container_check(spec, err) < 0 || container_ids(&ids, err) < 0)
		return -1;
	struct hv_vm *vm = xcalloc(1, sizeof(*vm));
	*vm = (struct hv_vm){.loop = l,
			     .to = {.fn = fn, .arg = arg},
			     .ids = ids,
			     .name = xstrdup(spec->name),
			     .program = -1,
			     .console = -1,
			     .terminal = -1,
			     .wire = -1,
			     .net = -1,
			     .channel = -1};
	container_size(spec, &vm->size);
	container_mounts(spec, &vm->mounts);
	vm->timer = evtimer_create(l, on_timer, vm);
	if (spec->extra_args)
		strvec_copy(&vm->extra, spec->extra_args);
	if (container_program(spec->initrd, &vm->program, err) < 0 || open_terminal(vm, err) < 0 ||
	    (vm->size.nic && start_relay(vm, err) < 0))
		goto fail;
	vm->rootdir = rootdir_open(l, &vm->ids, spec->root, vm->program, on_root, vm, err);
	if (!vm->rootdir)
		goto fail;
	*ret = vm;
	return 0;
fail:
	release(vm);
	return -1;
}

/* ---- the other ops ---- */

static int check_up(struct hv_vm *vm, struct err *err)
{
	if (vm->killed)
		return err_set(err, ESRCH, "the VM is ending");
	if (!vm->cage || !cage_init(vm->cage))
		return err_set(err, EBUSY, "the VM is still starting");
	return 0;
}

static int stop(struct hv_vm *vm, enum hv_stop how, struct err *err)
{
	if (how == HV_STOP_GRACEFUL) {
		if (check_up(vm, err) < 0)
			return -1;
		cage_signal(vm->cage, SIGPWR);
		return 0;
	}
	vm->killed = true;
	if (vm->cage)
		cage_kill(vm->cage);
	else /* its root is still being unpacked */
		evtimer_start(vm->timer, 0, 0);
	return 0;
}

/* Whoever is found running is stopped, parents first: a child that is born meanwhile is found in the next look. */
static bool stop_all(struct hv_vm *vm)
{
	struct tree now = {0};
	bool all = true;
	tree_read(&now, cage_init(vm->cage));
	for (size_t i = 0; i < now.n; i++) {
		if (now.v[i].stopped)
			continue;
		all = false;
		if (!tree_has(&vm->stopped, &now.v[i]))
			tree_add(&vm->stopped, &now.v[i]);
		kill(now.v[i].pid, SIGSTOP);
	}
	all = all && now.n;
	tree_finish(&now);
	return all;
}

/* Those that were stopped before, by their own shell, stay so. Children first: a parent that looks sees them run. */
static void continue_all(struct hv_vm *vm)
{
	for (size_t i = vm->stopped.n; i-- > 0;)
		if (proc_alive(vm->stopped.v[i].pid, vm->stopped.v[i].start))
			kill(vm->stopped.v[i].pid, SIGCONT);
	vm->stopped.n = 0;
}

static bool init_runs(struct hv_vm *vm)
{
	struct tree now = {0};
	tree_read(&now, cage_init(vm->cage));
	bool runs = now.n && !now.v[0].stopped;
	tree_finish(&now);
	return runs;
}

static void look_pause(struct hv_vm *vm)
{
	struct err err = ERR_INIT;
	if (stop_all(vm)) {
		if (hv_tell_state(&vm->to, HV_PAUSED, "paused") && !vm->want_pause)
			evtimer_start(vm->timer, 0, 0); /* resume() came meanwhile */
	} else if (loop_now(vm->loop) > vm->pause_until) {
		continue_all(vm);
		vm->want_pause = false;
		err_set(&err, ETIMEDOUT, "some of its processes do not stop");
		hv_tell_failed(&vm->to, hv_cap_name(HV_CAP_PAUSE), &err);
	} else {
		evtimer_start(vm->timer, LOOK_MS, 0);
	}
}

static void look_resume(struct hv_vm *vm)
{
	if (vm->stopped.n)
		continue_all(vm);
	if (init_runs(vm))
		hv_tell_state(&vm->to, HV_RUNNING, "resumed");
	else
		evtimer_start(vm->timer, LOOK_MS, 0);
}

static void on_timer(void *arg)
{
	struct hv_vm *vm = arg;
	if (!vm->cage) { /* stopped before it began */
		if (vm->killed)
			tell_gone(vm, 0);
	} else if (!cage_init(vm->cage)) {
		return; /* it ended: that is told */
	} else if (vm->to.state == HV_RUNNING && (vm->want_pause || vm->stopped.n)) {
		look_pause(vm);
	} else if (vm->to.state == HV_PAUSED && !vm->want_pause) {
		look_resume(vm);
	}
}

static int pause_vm(struct hv_vm *vm, struct err *err)
{
	if (check_up(vm, err) < 0)
		return -1;
	vm->want_pause = true;
	vm->pause_until = loop_now(vm->loop) + PAUSE_MS;
	evtimer_start(vm->timer, 0, 0);
	return 0;
}

/* Right after a pause: that one is finished first. */
static int resume_vm(struct hv_vm *vm, struct err *err)
{
	if (check_up(vm, err) < 0)
		return -1;
	if (vm->to.state == HV_RUNNING && vm->want_pause && !vm->stopped.n)
		stop_all(vm);
	vm->want_pause = false;
	evtimer_start(vm->timer, 0, 0);
	return 0;
}

static int reset_vm(struct hv_vm *vm, struct err *err)
{
	if (check_up(vm, err) < 0)
		return -1;
	vm->resetting = true;
	vm->want_pause = false;
	vm->stopped.n = 0;
	evtimer_stop(vm->timer);
	cage_kill(vm->cage);
	return 0;
}

static int stats(struct hv_vm *vm, struct hv_stats *ret, struct err *err _unused_)
{
	struct hv_stats s = {.pid = vm->cage ? cage_init(vm->cage) : 0};
	struct tree now = {0};
	if (s.pid)
		tree_read(&now, s.pid);
	for (size_t i = 0; i < now.n; i++) {
		uint64_t rss = 0, cpu = 0;
		if (proc_usage(now.v[i].pid, &rss, &cpu, NULL) < 0)
			continue;
		s.rss += rss;
		s.cpu_ms += cpu;
	}
	tree_finish(&now);
	*ret = s;
	return 0;
}

const struct hypervisor hypervisor_container = {
	.name = "container",
	.accels = "namespaces",
	.summary = "namespaces of the node's own kernel, by bubblewrap; no root: lighter "
		   "protection than a VM",
	.lacks = {[HV_CAP_KERNEL] = "programs run on the node's kernel",
		  [HV_CAP_ADOPT] = "its processes end with the agent",
		  [HV_CAP_SAVE] = "the node's kernel cannot write its programs out",
		  [HV_CAP_RESTORE] = "the node's kernel cannot take programs over",
		  [HV_CAP_MIGRATE_OUT] = "the node's kernel cannot write its programs out",
		  [HV_CAP_MIGRATE_IN] = "the node's kernel cannot take programs over",
		  [HV_CAP_POST_COPY] = "the node's kernel cannot write its programs out",
		  [HV_CAP_SNAPSHOT] = "there is no memory of a machine to share",
		  [HV_CAP_CLONE] = "there is no memory of a machine to share; a start takes a "
				   "tenth of a second",
		  [HV_CAP_TAP] = "its eth0 is one end of a veth pair",
		  [HV_CAP_OUTBOUND] = "needs a helper for NAT without root",
		  [HV_CAP_SCRATCH] = "only root of the node may mount a disk; with --scratch 0 "
				     "changes are in memory",
		  [HV_CAP_PIN] =
			  "there are no vCPUs; programs are kept on as many CPUs as were asked for",
		  [HV_CAP_NUMA] = "memory is the programs' own: they place it (numactl)",
		  [HV_CAP_HUGEPAGES] = "memory is the programs' own: they ask for them (madvise)",
		  [HV_CAP_DEVICES] = "the node's kernel drives all devices; bwrap gives device "
				     "files (--hypervisor-arg)"},
	.probe = container_probe,
	.start = start,
	.stop = stop,
	.pause = pause_vm,
	.resume = resume_vm,
	.reset = reset_vm,
	.stats = stats,
	.release = release,
};
