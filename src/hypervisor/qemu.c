/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a VM under QEMU. All its sockets are ours: bound in the VM's folder, handed to QEMU as
 * listening descriptors, connected to at once (the connection waits in the backlog until QEMU accepts), so
 * there is nothing to poll for and no race. What the VM does is learnt from QMP; that it ended, from the
 * process, after what QMP and stderr still had to say was read. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/room.h"
#include "base/size.h"
#include "hypervisor/files.h"
#include "hypervisor/qemu_vm.h"
#include "io/listener.h"

#define GREETING_MS 30000 /* QEMU greets after 30 ms; later on a node that swaps */
#define FILL_SHIFT 20 /* memory in reserved pages is filled before it greets: 1 MiB a ms or more */
#define DRAIN_MS 500  /* for the end of QMP and stderr, once the process is gone */
#define STDERR_KEEP 4096u /* bytes of the end of stderr */

enum { SOCK_QMP, SOCK_CHANNEL, SOCK_CONSOLE, SOCK_NET, SOCKS = QEMU_SOCKS };
static const char *const sock_names[SOCKS] = {"qmp", "ch", "con", "net"};
#define NOTE "qemu" /* a file: pid, its start time, QEMU's version; the signature */

/* ---- the end ---- */

/* QEMU says that it got no memory, not how much there is. */
static void add_room(const char *said, char *text, size_t size)
{
	char room[24];
	uint64_t bytes = room_memory();
	if (!strstr(said, "cannot set up guest memory") || bytes == UINT64_MAX)
		return;
	size_format(bytes, room);
	size_t n = strlen(text);
	snprintf(text + n, size - n,
		 ": the node has %s free: ask for less (--memory, or 'needs' of the VSE)", room);
}

static const char *end_reason(struct hv_vm *vm, char *text, size_t size, enum hv_state *ret)
{
	char said[200], how[40];
	*ret = HV_CRASHED;
	if (vm->killed) {
		*ret = HV_SHUTDOWN;
		return "stopped";
	}
	/* What QEMU said of the guest's end counts, however long QEMU itself then took to end. */
	if (strcmp(vm->shutdown, "guest-shutdown") == 0) {
		*ret = HV_SHUTDOWN;
		return "guest powered off";
	}
	if (vm->failure[0])
		return vm->failure;
	/* A panic is told as a reset where the guest has no driver for pvpanic (yet). */
	if (strcmp(vm->shutdown, "guest-reset") == 0)
		return "guest reset itself (reboot or kernel panic)";
	if (strcmp(vm->shutdown, "guest-panic") == 0)
		return "guest kernel panicked";
	if (WIFSIGNALED(vm->status)) {
		snprintf(text, size, "qemu %s", child_status_text(vm->status, how));
		return text;
	}
	if (vm->shutdown[0]) {
		snprintf(text, size, "qemu ended: %s", vm->shutdown);
		return text;
	}
	qemu_last_words(buf_cstr(&vm->tail), said, sizeof(said));
	snprintf(text, size, "qemu: %s%s%s", said, said[0] ? " (" : "",
		 child_status_text(vm->status, how));
	if (said[0])
		strncat(text, ")", size - strlen(text) - 1);
	add_room(said, text, size);
	return text;
}

static void remove_sockets(struct hv_vm *vm)
{
	_cleanup_free_ char *note = path_join(vm->dir, NOTE);
	unlink(note);
	for (int i = 0; i < SOCKS; i++) {
		if (!vm->listening[i])
			continue;
		_cleanup_free_ char *p = path_join(vm->dir, sock_names[i]);
		unlink(p);
		vm->listening[i] = false;
	}
}

static void tell_gone(struct hv_vm *vm)
{
	char text[400];
	struct hv_event e = {.type = HV_EVENT_GONE, .fd = -1};
	evtimer_stop(vm->timer);
	remove_sockets(vm);
	e.reason = end_reason(vm, text, sizeof(text), &e.state);
	hv_tell(&vm->to, &e);
}

/* Gone is told once the process has ended and both its streams were read to their end. */
static void maybe_gone(struct hv_vm *vm)
{
	if (!vm->exited)
		return;
	if (!vm->qmp && !vm->errors)
		tell_gone(vm);
	else
		evtimer_start(vm->timer, DRAIN_MS, 0); /* a descendant of QEMU might hold them open */
}

void qemu_give_up(struct hv_vm *vm, const char *why)
{
	if (!vm->failure[0])
		snprintf(vm->failure, sizeof(vm->failure), "%s", why);
	child_kill(vm->child, SIGKILL);
}

static void on_exit_status(void *arg, int status)
{
	struct hv_vm *vm = arg;
	vm->exited = true;
	vm->status = status;
	maybe_gone(vm);
}

static void drop_qmp(struct hv_vm *vm)
{
	qemu_out_finish(&vm->out);
	qemu_settle_finish(&vm->settle);
	qmp_destroy(TAKE_PTR(vm->qmp));
}

static void on_timer(void *arg)
{
	struct hv_vm *vm = arg;
	if (!vm->exited) {
		qemu_give_up(vm, "qemu closed its QMP connection");
		return;
	}
	drop_qmp(vm);
	stream_destroy(TAKE_PTR(vm->errors));
	maybe_gone(vm);
}

static void on_errors(void *arg, struct buf *in)
{
	struct hv_vm *vm = arg;
	buf_add(&vm->tail, buf_head(in), buf_len(in));
	buf_consume(in, buf_len(in));
	if (buf_len(&vm->tail) > STDERR_KEEP)
		buf_consume(&vm->tail, buf_len(&vm->tail) - STDERR_KEEP);
}

static void on_errors_end(void *arg, const struct err *err _unused_)
{
	struct hv_vm *vm = arg;
	stream_destroy(TAKE_PTR(vm->errors));
	maybe_gone(vm);
}

/* ---- QMP ---- */

static int connect_socket(struct hv_vm *vm, int which, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_free_ char *path = path_join(vm->dir, sock_names[which]);
	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, ENAMETOOLONG, "socket %s: the path is too long", path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	/* Not blocking: should the backlog be full, waiting for QEMU would stop the whole agent. */
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_errno(err, errno, "connect to %s", path);
	vm->fds[which] = TAKE_FD(fd);
	return 0;
}

static void tell_whole(struct hv_vm *vm)
{
	hv_tell(&vm->to, &(struct hv_event){.type = HV_EVENT_DONE,
					    .state = vm->to.state,
					    .op = hv_cap_name(HV_CAP_POST_COPY),
					    .signature = vm->signature,
					    .fd = -1});
}

static void on_status(void *arg, json_t *ret, const struct err *err)
{
	struct hv_vm *vm = arg;
	const char *status = json_string_value(json_object_get(ret, "status"));
	struct err e = ERR_INIT;
	if (err && err->code == EPIPE) /* QEMU ends: its exit status and its last words say why */
		return;
	/* Only now, for a guest whose state was taken over: it shall see that the host end was closed meanwhile. To a template
	 * nobody has said anything: its clones need not see it. */
	if (status && vm->fds[SOCK_CHANNEL] < 0 && connect_socket(vm, SOCK_CHANNEL, &e) < 0)
		err = &e;
	if (err || !status) {
		qemu_give_up(vm, err ? err->text : "query-status: no status");
		return;
	}
	/* One that is found may stand still for other reasons too: it was saved ("postmigrate"), its disk is full. */
	bool stands = vm->adopted ? strcmp(status, "running") != 0 : strcmp(status, "paused") == 0;
	if (vm->to.state == HV_STARTING && !hv_tell_state(&vm->to, stands ? HV_PAUSED : HV_RUNNING,
							  vm->adopted ? "adopted" : "started"))
		return;
	if (hv_tell_fd(&vm->to, HV_EVENT_CHANNEL, &vm->fds[SOCK_CHANNEL]) &&
	    hv_tell_fd(&vm->to, HV_EVENT_CONSOLE, &vm->fds[SOCK_CONSOLE]) &&
	    hv_tell_fd(&vm->to, HV_EVENT_NET, &vm->fds[SOCK_NET]) && vm->late && !vm->post_copy)
		tell_whole(vm);
}

static void on_in_begun(void *arg, json_t *ret _unused_, const struct err *err)
{
	struct hv_vm *vm = arg;
	/* QEMU that ends over a damaged stream says why itself. */
	if (err && err->code != EPIPE)
		qemu_give_up(vm, err->text);
}

static void make_vcpus(struct hv_vm *vm, unsigned n, const unsigned *pins)
{
	vm->vcpus = n;
	vm->tids = xcalloc(n, sizeof(*vm->tids));
	vm->on = xcalloc(n, sizeof(*vm->on));
	for (unsigned i = 0; i < n; i++)
		vm->on[i] = pins ? (int)pins[i] : -1;
}

static void on_vcpus(void *arg, json_t *ret, const struct err *err)
{
	struct hv_vm *vm = arg;
	struct err why = ERR_INIT;
	if (err && err->code == EPIPE)
		return;
	bool known = !err && qemu_pin_threads(ret, vm->vcpus, vm->tids, &why) == 0;
	for (unsigned i = 0; i < vm->vcpus; i++) {
		if (vm->on[i] < 0)
			continue;
		if (!known || qemu_pin_apply(vm->tids, vm->on, vm->vcpus, i, &why) < 0) {
			qemu_give_up(vm, why.code ? why.text : err->text);
			return;
		}
	}
}

/* What its owner before began has no reader any more; it would be found out later, by a guest that stops. Of post-copy the
 * rest of the memory went through him, and is lost: here, or at the target. */
static void on_begun_before(void *arg, json_t *ret, const struct err *err _unused_)
{
	struct hv_vm *vm = arg;
	const char *status = json_string_value(json_object_get(ret, "status"));
	if (status && strncmp(status, "postcopy-", 9) == 0) {
		qemu_give_up(
			vm,
			"its agent died when some of its memory was on another node (post-copy)");
		return;
	}
	qmp_command(vm->qmp, "migrate_cancel", NULL, QEMU_COMMAND_MS, NULL, NULL);
	qemu_settle_begin(&vm->settle, vm->loop, vm->qmp, "finish-migrate", on_status, vm);
}

static void on_qmp_ready(void *arg)
{
	struct hv_vm *vm = arg;
	qmp_command(vm->qmp, "query-cpus-fast", NULL, QEMU_COMMAND_MS, on_vcpus, vm);
	if (vm->adopted)
		qmp_command(vm->qmp, "query-migrate", NULL, QEMU_COMMAND_MS, on_begun_before, vm);
	else if (vm->from == HV_FROM_BOOT)
		qmp_command(vm->qmp, "query-status", NULL, QEMU_COMMAND_MS, on_status, vm);
	else
		qemu_in_begin(vm->qmp, QEMU_FD_STATE,
			      vm->post_copy                  ? QEMU_FLOW_POST_COPY
			      : vm->from == HV_FROM_TEMPLATE ? QEMU_FLOW_TEMPLATE
							     : QEMU_FLOW_ALL,
			      vm->fds[SOCK_NET] < 0, on_in_begun, vm);
}

/* One that comes by post-copy can be resumed when QEMU has its devices, a moment after it says so. */
static void on_coming(struct hv_vm *vm, json_t *data)
{
	if (qemu_status_is(data, "completed")) {
		vm->post_copy = false;
		if (!vm->came)
			qmp_command(vm->qmp, "query-status", NULL, QEMU_COMMAND_MS, on_status, vm);
		else if (vm->to.state != HV_STARTING) /* else on_status() does */
			tell_whole(vm);
	} else if (qemu_status_is(data, "postcopy-active") && !vm->came) {
		vm->came = true;
		qemu_settle_begin(&vm->settle, vm->loop, vm->qmp, "inmigrate", on_status, vm);
	} else if (vm->came &&
		   (qemu_status_is(data, "postcopy-paused") || qemu_status_is(data, "failed"))) {
		qemu_give_up(
			vm, "the rest of its memory did not come: its move by post-copy broke off");
	}
}

static void on_migration_event(struct hv_vm *vm, json_t *data)
{
	if (vm->post_copy) {
		on_coming(vm, data);
		return;
	}
	if (vm->to.state != HV_STARTING)
		qemu_out_event(&vm->out, data);
	else if (!vm->adopted && qemu_status_is(data, "completed"))
		qmp_command(vm->qmp, "query-status", NULL, QEMU_COMMAND_MS, on_status, vm);
}

/* A machine that was reset says hello again, on a new connection: what was half sent on the old one is
 * cut off. QEMU takes the new one as soon as the receiver lets go of the old. */
static void on_reset_event(struct hv_vm *vm, json_t *data)
{
	const char *reason = json_string_value(json_object_get(data, "reason"));
	bool asked = reason && strncmp(reason, "host-", 5) == 0;
	struct err e = ERR_INIT;
	if (vm->fds[SOCK_CHANNEL] < 0 && connect_socket(vm, SOCK_CHANNEL, &e) < 0) {
		qemu_give_up(vm, e.text);
		return;
	}
	if (hv_tell_state(&vm->to, vm->to.state, asked ? "reset" : "guest reset itself"))
		hv_tell_fd(&vm->to, HV_EVENT_CHANNEL, &vm->fds[SOCK_CHANNEL]);
}

static void on_qmp_event(void *arg, const char *name, json_t *data)
{
	struct hv_vm *vm = arg;
	const char *reason = json_string_value(json_object_get(data, "reason"));
	if (strcmp(name, "STOP") == 0) {
		/* QEMU stops by itself, too: just before it ends (SHUTDOWN comes after), or for a disk that is full. */
		if (vm->to.state == HV_RUNNING && !qemu_out_stopped(&vm->out))
			hv_tell_state(&vm->to, HV_PAUSED, "paused");
	} else if (strcmp(name, "RESUME") == 0) {
		if (!qemu_out_resumed(&vm->out) && vm->to.state == HV_PAUSED)
			hv_tell_state(&vm->to, HV_RUNNING, "resumed");
	} else if (strcmp(name, "SHUTDOWN") == 0) {
		snprintf(vm->shutdown, sizeof(vm->shutdown), "%s", reason ? reason : "shut down");
	} else if (strcmp(name, "RESET") == 0) {
		on_reset_event(vm, data);
	} else if (strcmp(name, "MIGRATION_PASS") == 0) {
		qemu_out_pass(&vm->out, data);
	} else if (strcmp(name, "MIGRATION") == 0) {
		on_migration_event(vm, data);
	}
}

/* QEMU closes QMP only by ending: the process follows at once, or its state can be known no longer. */
static void on_qmp_close(void *arg, const struct err *err)
{
	struct hv_vm *vm = arg;
	drop_qmp(vm);
	if (vm->exited)
		maybe_gone(vm);
	else if (err->code)
		qemu_give_up(vm, err->text);
	else
		evtimer_start(vm->timer, DRAIN_MS, 0);
}

static const struct qmp_ops qmp_ops = {.on_ready = on_qmp_ready,
				       .on_event = on_qmp_event,
				       .on_close = on_qmp_close};

/* ---- start ---- */

static int open_sockets(struct hv_vm *vm, const struct hv_spec *spec, int vmm[QEMU_FDS], struct err *err)
{
	bool stream = vm->qemu >= QEMU_SINCE_STREAM;
	for (int i = 0; i < SOCKS; i++) {
		if (i == SOCK_NET && (!spec->nic || spec->tap || !stream))
			continue;
		_cleanup_free_ char *path = path_join(vm->dir, sock_names[i]);
		unlink(path); /* of a VM that used this folder before and was not ended by us */
		if (unix_listen(path, &vmm[QEMU_FD_QMP + i], err) < 0)
			return -1;
		vm->listening[i] = true;
		bool late = i == SOCK_CHANNEL && vm->from != HV_FROM_BOOT &&
			    vm->from != HV_FROM_TEMPLATE;
		if (!late && connect_socket(vm, i, err) < 0)
			return -1;
	}
	int pair[2];
	if (!spec->nic || spec->tap || stream)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(err, errno, "socketpair");
	vm->fds[SOCK_NET] = pair[0];
	vmm[QEMU_FD_NET] = pair[1];
	return 0;
}

static int dup_given(const struct hv_spec *spec, int vmm[QEMU_FDS], struct err *err)
{
	if (spec->from != HV_FROM_BOOT) {
		vmm[QEMU_FD_STATE] = fcntl(spec->from_fd, F_DUPFD_CLOEXEC, 3);
		if (vmm[QEMU_FD_STATE] < 0)
			return err_errno(err, errno, "the descriptor of the saved state");
	}
	if (qemu_memory_in_file(spec)) {
		vmm[QEMU_FD_MEMORY] = fcntl(spec->memory_fd, F_DUPFD_CLOEXEC, 3);
		if (vmm[QEMU_FD_MEMORY] < 0)
			return err_errno(err, errno, "the descriptor of the memory");
	}
	if (spec->tap) {
		vmm[QEMU_FD_NET] = fcntl(spec->tap_fd, F_DUPFD_CLOEXEC, 3);
		if (vmm[QEMU_FD_NET] < 0)
			return err_errno(err, errno, "the descriptor of the tap");
	}
	return 0;
}

/* -1: none, or of no use: under emulation QEMU has to see every frame anyway. */
static int open_vhost(const struct hv_spec *spec, const struct hv_probe *p)
{
	return spec->tap && strcmp(p->accel, "kvm") == 0 ? open("/dev/vhost-net", O_RDWR | O_CLOEXEC)
							 : -1;
}

static int run_qemu(struct hv_vm *vm, const struct hv_spec *spec, struct strvec *argv,
		    int vmm[QEMU_FDS], struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_errors, .on_close = on_errors_end};
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	vmm[2] = p[1];
	vm->errors = stream_create(vm->loop, p[0], &ops, vm, err);
	if (!vm->errors)
		return -1;
	uint64_t filling = spec->hugepages || vm->devices.n ? spec->memory >> FILL_SHIFT : 0;
	vm->qmp = qmp_create(vm->loop, TAKE_FD(vm->fds[SOCK_QMP]), GREETING_MS + filling, &qmp_ops,
			     vm, err);
	if (!vm->qmp)
		return -1;
	_cleanup_free_ char *pid_note = path_join(vm->dir, "pid"); /* that of vm/pid_note.h */
	cpu_set_t cpus;
	bool pinned = qemu_pin_set(spec, &cpus);
	struct child_spec cs = {.argv = strvec_argv(argv),
				.cwd = "/",
				.n_fds = QEMU_FDS,
				.pid_note = pid_note,
				.cpus = pinned ? &cpus : NULL,
				.numa_nodes = spec->numa_nodes,
				.no_set_id = spec->n_mounts > 0,
				.lock_memory = vm->devices.n > 0,
				.die_with_parent = !spec->keep,
				.die_with_keeper = spec->keep};
	memcpy(cs.fds, vmm, sizeof(int) * QEMU_FDS);
	vm->child = child_start(vm->loop, &cs, on_exit_status, vm, err);
	return vm->child ? 0 : -1;
}

/* What adopt needs to know, beside the sockets. */
static int write_note(const struct hv_vm *vm, struct err *err)
{
	uint64_t begun;
	char text[64 + HV_SIGNATURE_MAX];
	_cleanup_free_ char *path = path_join(vm->dir, NOTE);
	if (proc_start_time(child_pid(vm->child), &begun, NULL) < 0)
		return 0; /* it has ended already, and that will be told */
	int n = snprintf(text, sizeof(text), "%d %" PRIu64 " %u\n%s\n", (int)child_pid(vm->child),
			 begun, vm->qemu, vm->signature);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || fd_write_all(fd, text, (size_t)n) < 0)
		return err_errno(err, errno, "%s", path);
	return 0;
}

static uint64_t host_tsc_khz(void)
{
	static uint64_t khz;
	static bool asked;
	_cleanup_free_ char *text = NULL;
	/* Over a thousand CPUs make it some MB; the first entry is what is wanted. */
	if (!asked && path_read("/proc/cpuinfo", 64u << 20, &text, NULL, NULL) == 0)
		khz = qemu_tsc_khz(text);
	asked = true;
	return khz;
}

static void release(struct hv_vm *vm)
{
	hv_teller_release(&vm->to);
	if (vm->child && !vm->exited)
		child_kill(vm->child, SIGKILL);
	child_destroy(vm->child);
	drop_qmp(vm);
	stream_destroy(vm->errors);
	evtimer_destroy(vm->timer);
	remove_sockets(vm);
	for (int i = 0; i < SOCKS; i++)
		if (vm->fds[i] >= 0)
			close(vm->fds[i]);
	qemu_devices_give(&vm->devices);
	buf_finish(&vm->tail);
	free(vm->tids);
	free(vm->on);
	free(vm->dir);
	free(vm);
}

/* devices: the VM's from then on, where one is made. */
static int start_with(struct strvec *devices, struct loop *l, const struct hv_spec *spec,
		      const struct hv_probe *p, hv_event_fn *fn, void *arg, struct hv_vm **ret,
		      struct err *err)
{
	_cleanup_close_ int vhost = open_vhost(spec, p);
	const struct qemu_host host = {.binary = qemu_binary_known(),
				       .accel = p->accel,
				       .tsc_khz = host_tsc_khz(),
				       .devices = devices->n ? devices : NULL,
				       .vhost = vhost >= 0};
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	if (!host.binary)
		return err_set(err, EINVAL, "not probed yet");
	char signature[HV_SIGNATURE_MAX];
	if (hv_check_files(spec, err) < 0 || qemu_pins_check(spec, err) < 0 ||
	    qemu_memory_check(spec, err) < 0 || qemu_args(spec, &host, &argv, err) < 0 ||
	    qemu_signature(spec, &host, signature, err) < 0)
		return -1;
	if (spec->from != HV_FROM_BOOT && spec->signature &&
	    qemu_signature_check(spec->signature, signature, err) < 0)
		return -1;
	struct hv_vm *vm = xcalloc(1, sizeof(*vm));
	*vm = (struct hv_vm){.loop = l,
			     .to = {.fn = fn, .arg = arg},
			     .qemu = host.binary->number,
			     .from = spec->from,
			     .template = spec->template,
			     .post_copy = spec->post_copy,
			     .late = spec->post_copy,
			     .reserved = spec->hugepages ? spec->memory : 0,
			     .devices = *devices,
			     .fds = {-1, -1, -1, -1}};
	*devices = STRVEC_INIT;
	memcpy(vm->signature, signature, sizeof(signature));
	make_vcpus(vm, spec->cpus, spec->pins);
	vm->dir = xstrdup(spec->dir);
	vm->timer = evtimer_create(l, on_timer, vm);
	int vmm[QEMU_FDS] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
	vmm[QEMU_FD_VHOST] = TAKE_FD(vhost);
	int rc = open_sockets(vm, spec, vmm, err);
	if (rc == 0)
		rc = dup_given(spec, vmm, err);
	if (rc == 0)
		rc = run_qemu(vm, spec, &argv, vmm, err);
	if (rc == 0 && spec->keep)
		rc = write_note(vm, err);
	for (int i = 0; i < QEMU_FDS; i++)
		if (vmm[i] >= 0)
			close(vmm[i]);
	if (rc < 0) {
		release(vm);
		return -1;
	}
	*ret = vm;
	return 0;
}

static int start(struct loop *l, const struct hv_spec *spec, const struct hv_probe *p,
		 hv_event_fn *fn, void *arg, struct hv_vm **ret, struct err *err)
{
	struct strvec devices = STRVEC_INIT;
	int rc = qemu_devices_take(spec, &devices, err);
	if (rc == 0)
		rc = start_with(&devices, l, spec, p, fn, arg, ret, err);
	qemu_devices_give(&devices);
	return rc;
}

/* ---- adopt ---- */

/* Connects to all of its sockets again: QEMU listens as soon as it sees that the one before us is gone, until then we
 * wait in the backlog. */
static int reconnect(struct hv_vm *vm, bool nic, struct err *err)
{
	if (nic && vm->qemu < QEMU_SINCE_STREAM)
		return err_set(err, ENOTSUP,
			       "eth0 cannot be connected again: QEMU %u.%u or later is needed",
			       QEMU_SINCE_STREAM / 100, QEMU_SINCE_STREAM % 100);
	for (int i = 0; i < SOCKS; i++)
		if ((i != SOCK_NET || nic) && connect_socket(vm, i, err) < 0)
			return -1;
	vm->qmp = qmp_create(vm->loop, TAKE_FD(vm->fds[SOCK_QMP]), GREETING_MS, &qmp_ops, vm, err);
	return vm->qmp ? 0 : -1;
}

static int adopt(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg,
		 struct hv_vm **ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(spec->dir, NOTE), *text = NULL;
	struct err why = ERR_INIT;
	unsigned version;
	int pid;
	uint64_t begun;
	if (path_read(path, 64 + HV_SIGNATURE_MAX, &text, NULL, NULL) < 0 ||
	    sscanf(text, "%d %" SCNu64 " %u", &pid, &begun, &version) != 3 || !strchr(text, '\n'))
		return err_set(err, ENOENT, "no VM that can be adopted in %s", spec->dir);
	struct hv_vm *vm = xcalloc(1, sizeof(*vm));
	*vm = (struct hv_vm){.loop = l,
			     .to = {.fn = fn, .arg = arg},
			     .qemu = version,
			     .adopted = true,
			     .reserved = spec->hugepages ? spec->memory : 0,
			     .status = -1,
			     .fds = {-1, -1, -1, -1},
			     .listening = {true, true, true, true}};
	/* The process before us may have ended before it had pinned them all; those of no use stay where they are. */
	make_vcpus(vm, spec->cpus, qemu_pins_check(spec, NULL) == 0 ? spec->pins : NULL);
	vm->dir = xstrdup(spec->dir);
	vm->timer = evtimer_create(l, on_timer, vm);
	snprintf(vm->signature, sizeof(vm->signature), "%.*s",
		 (int)strcspn(strchr(text, '\n') + 1, "\n"), strchr(text, '\n') + 1);
	if (!proc_alive(pid, begun)) {
		vm->exited = true;
		proc_exit_status(pid, begun, &vm->status, NULL);
	} else if (!(vm->child = child_adopt(l, pid, on_exit_status, vm, err))) {
		release(vm);
		return -1;
	} else if (reconnect(vm, spec->nic && !spec->tap, &why) < 0) {
		qemu_give_up(vm, why.text);
	}
	if (vm->exited)
		evtimer_start(vm->timer, 0, 0);
	*ret = vm;
	return 0;
}

const struct hypervisor hypervisor_qemu = {
	.name = "qemu",
	.accels = "kvm tcg",
	.machines = "microvm q35",
	.summary = "QEMU, with KVM where it works and by emulation elsewhere; no root needed",
	.probe = qemu_probe,
	.warm = qemu_warm,
	.start = start,
	.adopt = adopt,
	.stop = qemu_stop,
	.pause = qemu_pause,
	.resume = qemu_resume,
	.reset = qemu_reset,
	.save = qemu_save,
	.migrate_out = qemu_migrate_out,
	.post_copy = qemu_post_copy,
	.switch_over = qemu_switch_over,
	.snapshot = qemu_snapshot,
	.cancel = qemu_cancel,
	.pin = qemu_pin,
	.stats = qemu_stats,
	.release = release,
};
