/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's side of a VM under Palacios: what it asks the keeper, and what the keeper says as events. */
#include "hypervisor/palacios.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "hypervisor/teller.h"

#define HELLO_MS 30000 /* for an adopted VM's keeper to say who it is, or for its end */
#define CLEANING_MS 50

struct hv_vm {
	struct loop *loop;
	struct hv_teller to;
	uint64_t memory;
	struct palacios_keeper keeper; /* control and cleaned: -1 once they have ended, or before the keeper said hello */
	struct watch *control, *cleaned;
	struct evtimer *timer;        /* hello; then the last round before GONE */
	bool killed, ended, over;     /* killed: by hv_stop; ended: the keeper has told how */
	bool greeted;                 /* adopted, and its keeper lived then */
	struct palacios_message last; /* how the guest ended */
	struct buf trouble;           /* what came by `cleaned` */
	char *dir;                    /* of an adopted VM */
	uint64_t until;               /* loop time: it is given up then */
};

/* ---- telling ---- */

static void gone(struct hv_vm *vm)
{
	struct hv_event e = {.type = HV_EVENT_GONE, .state = HV_CRASHED, .fd = -1};
	_cleanup_free_ char *text = NULL;
	if (vm->killed) {
		e.state = HV_SHUTDOWN;
		e.reason = "stopped";
	} else if (vm->ended) {
		e.state = vm->last.state;
		e.reason = vm->last.text;
	} else {
		const char *how = buf_cstr(&vm->trouble);
		e.reason = text = xasprintf("the VM's keeper ended: %s",
					    how[0] ? how : "nobody knows why");
	}
	vm->over = true;
	hv_tell(&vm->to, &e);
}

/* ---- what the keeper says ---- */

static bool on_event(struct hv_vm *vm, const struct palacios_message *m, int fd)
{
	struct err err = {.code = m->code};
	struct hv_event e = {.type = m->event, .state = m->state, .fd = fd, .reason = m->text};
	if (m->event == HV_EVENT_FAILED || m->event == HV_EVENT_STREAM || m->event == HV_EVENT_DONE)
		e.op = palacios_op_name(m->op);
	if (m->event == HV_EVENT_FAILED) {
		snprintf(err.text, sizeof(err.text), "%s", m->text);
		e.err = &err;
	}
	if (m->event == HV_EVENT_DONE) {
		e.signature = m->text;
		e.bytes = e.total = m->bytes;
		e.reason = m->op == PALACIOS_OP_MIGRATE
				   ? "saved and restored: Palacios moves no running VM here"
				   : NULL;
	}
	return hv_tell(&vm->to, &e);
}

static void on_cleaned(void *arg, int events);

static int watch_cleaned(struct hv_vm *vm, struct err *err)
{
	vm->cleaned = watch_create(vm->loop, vm->keeper.cleaned, on_cleaned, vm, err);
	if (!vm->cleaned)
		return -1;
	watch_set(vm->cleaned, WATCH_READ);
	return 0;
}

static void on_hello(struct hv_vm *vm, const struct palacios_message *m, int fd)
{
	evtimer_stop(vm->timer);
	vm->greeted = true;
	vm->keeper.pid = m->pid;
	proc_start_time(m->pid, &vm->keeper.start, NULL);
	vm->keeper.cleaned = fd;
	if (fd >= 0)
		watch_cleaned(vm, NULL);
}

static void control_ended(struct hv_vm *vm)
{
	watch_destroy(TAKE_PTR(vm->control));
	close(TAKE_FD(vm->keeper.control));
	if (!vm->cleaned) /* it never said hello */
		evtimer_start(vm->timer, 0, 0);
}

/* False when the VM was released. */
static bool on_message(struct hv_vm *vm, const struct palacios_message *m, int fd)
{
	if (m->kind == PALACIOS_EVENT && !vm->over)
		return on_event(vm, m, fd);
	if (m->kind == PALACIOS_HELLO && !vm->cleaned) {
		on_hello(vm, m, fd);
		return true;
	}
	if (m->kind == PALACIOS_END) {
		vm->last = *m;
		vm->ended = true;
	}
	if (fd >= 0)
		close(fd);
	return true;
}

static void on_control(void *arg, int events _unused_)
{
	struct hv_vm *vm = arg;
	struct palacios_message m;
	int fd, rc;
	while ((rc = palacios_message_read(vm->keeper.control, &m, &fd)) == 1)
		if (!on_message(vm, &m, fd))
			return;
	if (rc < 0)
		control_ended(vm);
}

/* The shadow ends when nothing of the VM is left. What the guest said last is on other descriptors: one more round. */
static void on_cleaned(void *arg, int events _unused_)
{
	struct hv_vm *vm = arg;
	char text[256];
	ssize_t n = read(vm->keeper.cleaned, text, sizeof(text));
	if (n > 0 && buf_len(&vm->trouble) < 4096)
		buf_add(&vm->trouble, text, (size_t)n);
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	watch_destroy(TAKE_PTR(vm->cleaned));
	evtimer_start(vm->timer, 0, 0);
}

/* False when the VM was released meanwhile. */
static bool read_last_words(struct hv_vm *vm)
{
	struct hv_hold h;
	hv_enter(&vm->to, &h);
	on_control(vm, 0);
	return hv_leave(&vm->to, &h);
}

/* Adopted, and its keeper is dead: the shadow cleans up, writes how it ended, and removes the socket last. */
static bool still_cleaning(struct hv_vm *vm)
{
	if (!vm->dir || vm->ended || vm->greeted || loop_now(vm->loop) >= vm->until)
		return false;
	_cleanup_free_ char *socket = palacios_keeper_socket(vm->dir);
	if (path_exists(socket)) {
		evtimer_start(vm->timer, CLEANING_MS, 0);
		return true;
	}
	vm->ended = palacios_ended_read(vm->dir, &vm->last.state, vm->last.text, sizeof(vm->last.text));
	return false;
}

static void on_timer(void *arg)
{
	struct hv_vm *vm = arg;
	if (vm->cleaned || vm->over)
		return;
	if (vm->control && !read_last_words(vm))
		return;
	if (!vm->cleaned && !vm->over && !still_cleaning(vm))
		gone(vm);
}

/* ---- ops ---- */

static void release(struct hv_vm *vm)
{
	hv_teller_release(&vm->to);
	if (!vm->over && vm->keeper.pid > 0)
		proc_kill(vm->keeper.pid, vm->keeper.start);
	watch_destroy(vm->control);
	watch_destroy(vm->cleaned);
	evtimer_destroy(vm->timer);
	if (vm->keeper.control >= 0)
		close(vm->keeper.control);
	if (vm->keeper.cleaned >= 0)
		close(vm->keeper.cleaned);
	buf_finish(&vm->trouble);
	free(vm->dir);
	free(vm);
}

static struct hv_vm *make(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg)
{
	struct hv_vm *vm = xcalloc(1, sizeof(*vm));
	*vm = (struct hv_vm){.loop = l,
			     .to = {.fn = fn, .arg = arg},
			     .memory = spec->memory,
			     .keeper = {.control = -1, .cleaned = -1}};
	vm->timer = evtimer_create(l, on_timer, vm);
	return vm;
}

static int watch_control(struct hv_vm *vm, struct err *err)
{
	fcntl(vm->keeper.control, F_SETFL, fcntl(vm->keeper.control, F_GETFL) | O_NONBLOCK);
	vm->control = watch_create(vm->loop, vm->keeper.control, on_control, vm, err);
	if (!vm->control)
		return -1;
	watch_set(vm->control, WATCH_READ);
	return 0;
}

static int check_file(const char *what, const char *path, int mode, struct err *err)
{
	if (!path)
		return 0;
	if (path[0] != '/')
		return err_set(err, EINVAL, "%s %s: not an absolute path", what, path);
	return access(path, mode) < 0 ? err_errno(err, errno, "%s %s", what, path) : 0;
}

static int check_spec(const struct hv_spec *s, struct err *err)
{
	if (s->machine && strcmp(s->machine, "auto") != 0 && strcmp(s->machine, "pc") != 0)
		return err_set(err, EINVAL, "machine type %s: unknown, allowed are auto and pc",
			       s->machine);
	if (!s->kernel)
		return err_set(err, EINVAL, "no kernel given (a bzImage is needed)");
	if (s->memory % (1u << 20))
		return err_set(err, EINVAL, "memory: whole MiB are needed");
	for (unsigned i = 0; s->pins && i < s->cpus; i++)
		if (s->pins[i] >= PALACIOS_CPUS_MAX)
			return err_set(err, EINVAL, "CPU %u: Palacios runs VMs on CPUs 0 to %d only",
				       s->pins[i], PALACIOS_CPUS_MAX - 1);
	if (s->from != HV_FROM_BOOT &&
	    palacios_check_signature(s->signature, s->cpus, s->memory, err) < 0)
		return -1;
	if (check_file("kernel", s->kernel, R_OK, err) < 0 || palacios_check_kernel(s->kernel, err) < 0 ||
	    check_file("initramfs", s->initrd, R_OK, err) < 0 ||
	    check_file("root image", s->root, R_OK, err) < 0)
		return -1;
	return check_file("scratch disk", s->scratch, R_OK | W_OK, err);
}

static int start(struct loop *l, const struct hv_spec *spec, const struct hv_probe *p _unused_,
		 hv_event_fn *fn, void *arg, struct hv_vm **ret, struct err *err)
{
	if (check_spec(spec, err) < 0)
		return -1;
	struct hv_vm *vm = make(l, spec, fn, arg);
	if (palacios_keeper_start(spec, &vm->keeper, err) < 0 || watch_control(vm, err) < 0 ||
	    watch_cleaned(vm, err) < 0) {
		release(vm);
		return -1;
	}
	*ret = vm;
	return 0;
}

static bool has_ended(const char *dir)
{
	enum hv_state state;
	char reason[ERR_TEXT_MAX];
	return palacios_ended_read(dir, &state, reason, sizeof(reason));
}

static int adopt(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg,
		 struct hv_vm **ret, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_free_ char *path = palacios_keeper_socket(spec->dir);
	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, ENAMETOOLONG, "socket %s: the path is too long", path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(err, errno, "socket");
	bool lives = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;
	if (!lives && !has_ended(spec->dir) && !path_exists(path))
		return err_set(err, ENOENT, "nothing to adopt in %s", spec->dir);
	struct hv_vm *vm = make(l, spec, fn, arg);
	vm->dir = xstrdup(spec->dir);
	vm->until = loop_now(l) + HELLO_MS;
	if (lives) {
		struct ucred peer = {.pid = 0};
		socklen_t len = sizeof(peer);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 0 &&
		    proc_start_time(peer.pid, &vm->keeper.start, NULL) == 0)
			vm->keeper.pid = peer.pid;
		vm->keeper.control = TAKE_FD(fd);
		if (watch_control(vm, err) < 0) {
			release(vm);
			return -1;
		}
	}
	evtimer_start(vm->timer, lives ? HELLO_MS : 0, 0);
	*ret = vm;
	return 0;
}

static int ask(struct hv_vm *vm, const struct palacios_message *m, struct err *err)
{
	if (vm->killed || vm->ended || vm->keeper.control < 0)
		return err_set(err, ESRCH, "the VM is ending");
	if (palacios_message_write(vm->keeper.control, m, -1) < 0)
		return err_set(err, EBUSY, "too many requests at once");
	return 0;
}

static int ask_op(struct hv_vm *vm, enum palacios_op op, struct err *err)
{
	return ask(vm, &(struct palacios_message){.kind = PALACIOS_DO, .op = op}, err);
}

static int stop(struct hv_vm *vm, enum hv_stop how _unused_, struct err *err)
{
	if (vm->keeper.pid <= 0)
		return err_set(err, EBUSY, "the VM's keeper has not answered yet");
	vm->killed = true;
	proc_kill(vm->keeper.pid, vm->keeper.start);
	return 0;
}

static int pause_vm(struct hv_vm *vm, struct err *err)
{
	return ask_op(vm, PALACIOS_OP_PAUSE, err);
}

static int resume_vm(struct hv_vm *vm, struct err *err)
{
	return ask_op(vm, PALACIOS_OP_RESUME, err);
}

static int reset_vm(struct hv_vm *vm, struct err *err)
{
	return ask_op(vm, PALACIOS_OP_RESET, err);
}

static int save(struct hv_vm *vm, struct err *err)
{
	return ask_op(vm, PALACIOS_OP_SAVE, err);
}

static int migrate_out(struct hv_vm *vm, struct err *err)
{
	return ask_op(vm, PALACIOS_OP_MIGRATE, err);
}

static int cancel(struct hv_vm *vm, struct err *err)
{
	return ask(vm, &(struct palacios_message){.kind = PALACIOS_CANCEL}, err);
}

static int pin(struct hv_vm *vm, unsigned vcpu, int cpu, struct err *err)
{
	if (cpu < 0) /* a core of Palacios is on some CPU always: it stays where it is, and may be moved */
		return 0;
	if (cpu >= PALACIOS_CPUS_MAX)
		return err_set(err, EINVAL, "CPU %d: Palacios runs VMs on CPUs 0 to %d only", cpu,
			       PALACIOS_CPUS_MAX - 1);
	return ask(vm,
		   &(struct palacios_message){
			   .kind = PALACIOS_DO, .op = PALACIOS_OP_PIN, .vcpu = vcpu, .cpu = cpu},
		   err);
}

/* The memory is given to the VM as a whole when it is made. How long its cores ran is not told by the module. */
static int stats(struct hv_vm *vm, struct hv_stats *ret, struct err *err _unused_)
{
	*ret = (struct hv_stats){.rss = vm->memory, .pid = vm->keeper.pid};
	return 0;
}

const struct hypervisor hypervisor_palacios = {
	.name = "palacios",
	.machines = "pc",
	.summary = "Palacios (v3vee), the VMM for HPC; its module must be loaded",
	.lacks = {[HV_CAP_STOP_GRACEFUL] = "its VMs have no power button; ask the guest agent",
		  [HV_CAP_POST_COPY] = "its module has no post-copy",
		  [HV_CAP_SNAPSHOT] = "memory of its VMs cannot be shared",
		  [HV_CAP_CLONE] = "memory of its VMs cannot be shared",
		  [HV_CAP_NET] = "its NICs end at one of the host, not at the cluster's switch",
		  [HV_CAP_TAP] = "its NICs end at one of the host, not at the cluster's bridge",
		  [HV_CAP_OUTBOUND] = "it has no NAT",
		  [HV_CAP_NUMA] = "the module chooses the memory, by the CPU that asks for it",
		  [HV_CAP_HUGEPAGES] = "memory comes from the module's own pool",
		  [HV_CAP_HOST_DIR] = "the module has no device that shares files",
		  [HV_CAP_DEVICES] = "its PCI pass-through is not built yet"},
	.probe = palacios_probe,
	.start = start,
	.adopt = adopt,
	.stop = stop,
	.pause = pause_vm,
	.resume = resume_vm,
	.reset = reset_vm,
	.save = save,
	.migrate_out = migrate_out,
	.cancel = cancel,
	.pin = pin,
	.stats = stats,
	.release = release,
};
