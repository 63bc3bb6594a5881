/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a VM under Xen. A domain is no child of ours: xl makes it, changes it and tells of it, each call a child
 * that ends. A VM does one thing at a time (what is asked meanwhile waits in a queue), and its state is what the next
 * `xl list` says, however the call ended: xl's own exit code proves nothing. Xen keeps a domain that has shut itself down
 * until we destroy it (no xl stays behind that would: -e), so that the reason can be read. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/files.h"
#include "hypervisor/xen_vm.h"
#include "io/child.h"
#include "io/listener.h"

/* ---- start ---- */

static void release(struct hv_vm *vm)
{
	hv_teller_release(&vm->teller);
	bool there = vm->destroyed != UINT64_MAX && vm->keeper >= 0;
	xen_close_all(vm);
	if (there)
		xen_keeper_end(&vm->keeper); /* which removes the bridge, too */
	else
		xen_keeper_leave(&vm->keeper);
	if (!there && vm->nic)
		xen_net_remove(vm->id.uuid);
	xen_run_forget(vm->run);
	xen_run_forget(vm->hold);
	xen_run_forget(vm->destroy);
	evtimer_destroy(vm->timer);
	evtimer_destroy(vm->begin);
	xen_remove_files(vm->dir);
	free(vm->pins);
	free(vm->dir);
	free(vm);
}

static struct hv_vm *make(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg)
{
	struct hv_vm *vm = xcalloc(1, sizeof(*vm));
	*vm = (struct hv_vm){.loop = l,
			     .teller = {.fn = fn, .arg = arg},
			     .from = spec->from,
			     .nic = spec->nic,
			     .net_fd = -1,
			     .keeper = -1,
			     .channel_fd = -1,
			     .console_fd = -1};
	vm->dir = xstrdup(spec->dir);
	vm->timer = evtimer_create(l, xen_on_timer, vm);
	vm->begin = evtimer_create(l, xen_on_begin, vm);
	return vm;
}

/* xl reads the saved state by a pipe of ours, since it opens what it is given by name, and a socket cannot be. */
static int feed(struct hv_vm *vm, int from, int *ret_xl, struct err *err)
{
	int p[2], fd = fcntl(from, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "the descriptor of the saved state");
	vm->relay = xen_relay_create(vm->loop, fd, p[1], xen_on_relayed, vm, err);
	*ret_xl = p[0];
	return vm->relay ? 0 : -1;
}

static int run_make(struct hv_vm *vm, const struct hv_spec *spec, struct err *err)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	_cleanup_free_ char *config = path_join(vm->dir, XEN_CONFIG);
	_cleanup_close_ int state = -1;
	if (spec->from == HV_FROM_BOOT) {
		strvec_addv(&argv, "xl", "create", "-q", "-p", "-e", config, NULL);
	} else {
		if (feed(vm, spec->from_fd, &state, err) < 0)
			return -1;
		strvec_addv(&argv, "xl", "restore", "-p", "-e", config, "/proc/self/fd/3", NULL);
	}
	vm->op = XEN_OP_MAKE;
	if (xen_run(vm->loop, &argv, state, XEN_MAKE_MS, xen_on_call, vm, &vm->run, err) < 0)
		return -1;
	xen_run_ask(vm->run, xen_moves);
	xen_keeper_making(vm->keeper, xen_run_pid(vm->run));
	vm->watch = xen_watch_create(vm->loop, vm->id.uuid, xen_on_list, vm);
	return 0;
}

static int prepare(struct hv_vm *vm, const struct hv_spec *spec, enum xen_type type, struct err *err)
{
	_cleanup_buf_ struct buf config = BUF_INIT;
	char bridge[XEN_BRIDGE_LEN];
	xen_net_bridge(vm->id.uuid, bridge);
	_cleanup_free_ char *path = path_join(vm->dir, XEN_CONFIG);
	if (xen_config(spec, &vm->id, type, bridge, &config, err) < 0 ||
	    path_write(path, buf_cstr(&config), buf_len(&config), 0600, err) < 0 ||
	    (spec->nic && xen_net_make(vm->id.uuid, err) < 0) ||
	    xen_keeper_start(&vm->id, spec->keep, &vm->keeper, err) < 0 ||
	    xen_note_write(vm->dir, &vm->id, vm->signature, err) < 0)
		return -1;
	return 0;
}

static int start(struct loop *l, const struct hv_spec *spec, const struct hv_probe *p _unused_,
		 hv_event_fn *fn, void *arg, struct hv_vm **ret, struct err *err)
{
	const struct xen_host *host = xen_host_known();
	enum xen_type type;
	uint8_t random[16];
	char sign[HV_SIGNATURE_MAX];
	if (!host)
		return err_set(err, EINVAL, "not probed yet");
	if (xen_type(spec, host, &type, err) < 0 || hv_check_files(spec, err) < 0 ||
	    xen_pins_check(spec, err) < 0)
		return -1;
	xen_signature(spec, host, type, sign);
	if (spec->from != HV_FROM_BOOT && spec->signature && strcmp(spec->signature, sign) != 0)
		return err_set(err, EINVAL,
			       "the state was taken under %.100s, this VM would run under %.100s",
			       spec->signature, sign);
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_errno(err, errno, "random bytes");
	struct hv_vm *vm = make(l, spec, fn, arg);
	xen_identify(spec, random, &vm->id);
	xen_pins_take(vm, spec, false);
	memcpy(vm->signature, sign, sizeof(sign));
	if (prepare(vm, spec, type, err) < 0 || run_make(vm, spec, err) < 0) {
		release(vm);
		return -1;
	}
	*ret = vm;
	return 0;
}

static int adopt(struct loop *l, const struct hv_spec *spec, hv_event_fn *fn, void *arg,
		 struct hv_vm **ret, struct err *err)
{
	struct xen_id id;
	char sign[HV_SIGNATURE_MAX];
	if (xen_note_read(spec->dir, &id, sign, err) < 0)
		return -1;
	struct hv_vm *vm = make(l, spec, fn, arg);
	vm->id = id;
	vm->adopted = true;
	vm->op = XEN_OP_CONNECT; /* what is asked before waits */
	memcpy(vm->signature, sign, sizeof(sign));
	if (xen_keeper_start(&id, true, &vm->keeper, err) < 0) {
		vm->destroyed = UINT64_MAX; /* nothing is to be ended, nor its bridge removed */
		vm->nic = false;
		release(vm);
		return -1;
	}
	vm->watch = xen_watch_create(l, id.uuid, xen_on_list, vm);
	xen_pins_take(vm, spec, true);
	xen_pin_all(vm, NULL);
	*ret = vm;
	return 0;
}

/* ---- the other ops ---- */

static int stop(struct hv_vm *vm, enum hv_stop how, struct err *err)
{
	if (how == HV_STOP_GRACEFUL)
		return xen_enqueue(vm, XEN_OP_SHUTDOWN, err);
	vm->killed = true;
	xen_end(vm, HV_SHUTDOWN, "stopped");
	return 0;
}

static int pause_vm(struct hv_vm *vm, struct err *err)
{
	return xen_enqueue(vm, XEN_OP_PAUSE, err);
}

static int resume_vm(struct hv_vm *vm, struct err *err)
{
	return xen_enqueue(vm, XEN_OP_RESUME, err);
}

static int stats(struct hv_vm *vm, struct hv_stats *ret, struct err *err)
{
	if (!vm->seen)
		return err_set(err, ESRCH, "the domain is not there yet");
	*ret = (struct hv_stats){.rss = vm->domain.memory, .cpu_ms = vm->domain.cpu_ms, .pid = vm->model};
	return 0;
}

const struct hypervisor hypervisor_xen = {
	.name = "xen",
	.accels = "xen",
	.machines = "pv pvh hvm",
	.own_node = true,
	.hangs_up = true,
	.summary = "Xen, in dom0 as root, by xl: PV, PVH and HVM guests",
	.lacks = {[HV_CAP_RESET] =
			  "Xen has no reset of a running domain: stop it and start it anew",
		  [HV_CAP_POST_COPY] = "libxl has no post-copy",
		  [HV_CAP_SNAPSHOT] = "Xen cannot share memory of a template between domains by xl",
		  [HV_CAP_CLONE] = "Xen cannot share memory of a template between domains by xl",
		  [HV_CAP_TAP] =
			  "not built: its vif is in a bridge of its own, not in the cluster's",
		  [HV_CAP_OUTBOUND] = "not built yet: dom0's own network would have to be changed",
		  [HV_CAP_NUMA] = "not built: Xen itself prefers memory of the nodes that a VM's "
				  "CPUs are on",
		  [HV_CAP_HUGEPAGES] = "Xen chooses its pages by itself",
		  [HV_CAP_HOST_DIR] =
			  "9p under Xen wants a QEMU of dom0 beside each VM, which is not begun",
		  [HV_CAP_DEVICES] = "PCI pass-through by xl is not built yet"},
	.probe = xen_probe,
	.start = start,
	.adopt = adopt,
	.stop = stop,
	.pause = pause_vm,
	.resume = resume_vm,
	.save = xen_save,
	.migrate_out = xen_migrate_out,
	.cancel = xen_cancel,
	.pin = xen_pin,
	.stats = stats,
	.release = release,
};
