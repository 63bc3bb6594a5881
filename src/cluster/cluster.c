/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/cluster.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "base/topology.h"
#include "cluster/bind.h"
#include "cluster/choose.h"
#include "cluster/cloning.h"
#include "cluster/hung.h"
#include "cluster/kernel_network.h"
#include "cluster/setup.h"
#include "cluster/status.h"
#include "net/kernet.h"
#include "net/switch.h"

struct cluster {
	struct loop *loop;
	struct cluster_spec spec;
	char *dir;
	const struct cluster_ops *ops;
	void *arg;

	enum cluster_phase phase;
	bool graceful, down_told;
	uint64_t begun, ready_after, created_ns;
	struct vm_profile profile;
	struct setup_texts texts;
	struct netswitch *net; /* one of the two, or none: */
	struct kernet *kernet;
	uint32_t self;
	struct vm **vms; /* by rank; NULL: it is on another node */
	struct vm **coming; /* by rank, or NULL: they come from other nodes, and are not of this one yet */
	uint32_t n_local; /* VMs of this node */
	uint32_t next;    /* the first rank that was not started yet */
	bool elsewhere;   /* the VMs run on other nodes, and not all of that is over */
	bool adopting;    /* VMs of the process before: */
	struct rankset to_adopt;
	struct strvec names; /* of the hypervisors that may be used, best first */
	size_t named;        /* the one that profile.hypervisor is */
	struct buf unusable; /* why those before it are not */
	bool probed; /* the hypervisor is known to be usable, and the template there if there is to be one */
	struct template *template;
	uint32_t told_ready, told_lost;
	struct cluster **probe; /* the cell that a probe under way reports to; NULL: none */
	struct evtimer *soon;   /* does what must not happen inside a VM's callback */
	struct hung *hung;
	struct events events;
};

static const char *const phase_names[] = {"starting", "up", "failed", "ending", "down"};

static bool all_over(struct cluster *c)
{
	for (uint32_t r = 0; r < c->spec.size; r++)
		if (c->vms[r] && vm_state_is_live(vm_get_state(c->vms[r])))
			return false;
	return !c->elsewhere;
}

/* ---- starting ---- */

static void started(struct cluster *c, const struct err *err)
{
	if (c->phase != CLUSTER_STARTING)
		return;
	c->phase = err ? CLUSTER_FAILED : CLUSTER_UP;
	if (err) {
		events_add(&c->events, EVENT_NO_RANK, "cluster", "start failed: %s", err->text);
	} else {
		c->ready_after = MAX(loop_now(c->loop) - c->begun, (uint64_t)1);
		events_add(&c->events, EVENT_NO_RANK, "cluster", "all %u VMs ready",
			   c->elsewhere ? c->spec.size : c->n_local);
	}
	c->ops->on_started(c->arg, err);
}

/* How the start stands, read from the VMs' own states: they may change in any order. */
struct tally {
	uint32_t ready, starting;
	struct rankset lost; /* over, and not about to be started anew */
};

static void tally(struct cluster *c, struct tally *t)
{
	*t = (struct tally){0};
	for (uint32_t r = 0; r < c->next; r++) {
		if (!c->vms[r])
			continue;
		enum vm_state s = vm_get_state(c->vms[r]);
		if (s == VM_READY || s == VM_PAUSED)
			t->ready++;
		else if (vm_state_is_over(s) && !vm_is_restarting(c->vms[r]))
			rankset_add(&t->lost, r);
		else
			t->starting++;
	}
}

/* Names every VM that is lost, with the first one's reason. */
static void start_failed(struct cluster *c, const struct rankset *lost)
{
	_cleanup_buf_ struct buf names = BUF_INIT;
	struct err err = ERR_INIT;
	uint32_t first = rankset_next(lost, 0);
	const char *reason = vm_reason(c->vms[first]);
	if (!reason[0])
		reason = vm_state_name(vm_get_state(c->vms[first]));
	rankset_format(lost, &names);
	if (rankset_count(lost) == 1)
		err_set(&err, EIO, "vm%u: %s", first, reason);
	else
		err_set(&err, EIO, "vm[%.60s] failed; vm%u: %s", buf_cstr(&names), first, reason);
	started(c, &err);
}

/* A failure comes as a state, like every other. */
static void begin_one(struct cluster *c, struct vm *vm)
{
	if (c->spec.restore)
		vm_restore(vm, c->spec.restore, NULL);
	else
		vm_start(vm, NULL);
}

/* A clone waits for its VMM, or the VMM for it, as long as it computes. */
static unsigned at_once(const struct cluster *c)
{
	return c->spec.parallel ? c->spec.parallel
				: topology_cpus_here() * (c->profile.template ? 2 : 1);
}

static void start_more(struct cluster *c)
{
	struct tally t;
	for (;;) {
		tally(c, &t);
		while (c->next < c->spec.size && !c->vms[c->next])
			c->next++;
		if (c->phase != CLUSTER_STARTING || !c->probed || rankset_count(&t.lost) ||
		    c->next == c->spec.size || t.starting >= at_once(c))
			break;
		begin_one(c, c->vms[c->next++]);
	}
	uint32_t lost = rankset_count(&t.lost);
	if (c->phase == CLUSTER_STARTING && (t.ready != c->told_ready || lost != c->told_lost)) {
		c->told_ready = t.ready;
		c->told_lost = lost;
		c->ops->on_progress(c->arg, t.ready, lost);
	}
	if (c->phase == CLUSTER_STARTING && lost)
		start_failed(c, &t.lost);
	else if (c->phase == CLUSTER_STARTING && t.ready == c->n_local)
		started(c, NULL);
	rankset_finish(&t.lost);
}

/* Every VM that was to be adopted is as it was, or has ended. */
static void look_adopted(struct cluster *c)
{
	_cleanup_rankset_ struct rankset lost = RANKSET_INIT;
	uint32_t adopted = 0;
	for (uint32_t r = 0; r < c->spec.size; r++) {
		if (!c->vms[r])
			continue;
		if (vm_is_adopting(c->vms[r]))
			return;
		adopted += vm_was_adopted(c->vms[r]);
		if (rankset_has(&c->to_adopt, r) && !vm_was_adopted(c->vms[r]))
			rankset_add(&lost, r);
	}
	c->adopting = false;
	c->ops->on_adopted(c->arg, adopted, &lost);
}

static void drop_failed_coming(struct cluster *c)
{
	for (uint32_t r = 0; c->coming && r < c->spec.size; r++)
		if (c->coming[r] && vm_state_is_over(vm_get_state(c->coming[r])))
			cluster_drop_coming(c, r);
}

static void on_soon(void *arg)
{
	struct cluster *c = arg;
	drop_failed_coming(c);
	if (c->adopting)
		look_adopted(c);
	if (c->phase == CLUSTER_STARTING && !c->elsewhere)
		start_more(c);
	if (c->phase == CLUSTER_ENDING && all_over(c) && !c->down_told) {
		c->down_told = true;
		c->phase = CLUSTER_DOWN;
		c->ops->on_down(c->arg);
	}
}

static void soon(struct cluster *c)
{
	evtimer_start(c->soon, 0, 0);
}

/* ---- what the VMs tell ---- */

static void on_state(void *arg, struct vm *vm, enum vm_state was _unused_, const char *reason)
{
	struct cluster *c = arg;
	enum vm_state now = vm_get_state(vm);
	if (c->vms[vm_rank(vm)] != vm) { /* it has not arrived: nobody's business */
		soon(c);
		return;
	}
	events_add(&c->events, vm_rank(vm), "state", "%s%s%s", vm_state_name(now),
		   reason[0] ? ": " : "", reason);
	if (c->net && vm_state_is_over(now))
		netswitch_detach(c->net, vm_rank(vm));
	hung_vm_state(c->hung, vm);
	c->ops->on_vm_state(c->arg, vm);
	soon(c);
}

static void on_net(void *arg, struct vm *vm, int fd)
{
	struct cluster *c = arg;
	struct err err = ERR_INIT;
	if (!c->net)
		close(fd);
	else if (netswitch_attach(c->net, vm_rank(vm), fd, &err) < 0)
		events_add(&c->events, vm_rank(vm), "note", "network: %s", err.text);
}

static int make_tap(void *arg, struct vm *vm, int *ret_fd, struct err *err)
{
	struct cluster *c = arg;
	if (!c->kernet)
		return err_set(err, ENODEV, "network by the kernel: there is none on this node");
	return kernet_tap(c->kernet, vm_rank(vm), ret_fd, err);
}

static void make_setup(void *arg, struct vm *vm, struct buf *kv)
{
	struct cluster *c = arg;
	setup_write(kv, &c->spec, &c->texts, vm_rank(vm), c->net || c->kernet, vm_is_set_up(vm));
}

static void on_note(void *arg, struct vm *vm, const char *text)
{
	struct cluster *c = arg;
	events_add(&c->events, vm_rank(vm), "note", "%s", text);
}

static void on_anew(void *arg, struct vm *vm, const char *text)
{
	struct cluster *c = arg;
	_cleanup_free_ char *said = xasprintf("%s: %s", vm_name(vm), text);
	on_note(c, vm, text);
	c->ops->on_note(c->arg, said);
}

static const struct vm_ops vm_ops = {
	.on_state = on_state,
	.on_net = on_net,
	.make_tap = make_tap,
	.make_setup = make_setup,
	.on_note = on_note,
};

/* ---- making and ending ---- */

static void use_hypervisor(struct cluster *c)
{
	const struct hypervisor *h = hypervisor_find(c->names.v[c->named]);
	const struct cluster_spec *s = &c->spec;
	c->profile.hypervisor = h;
	c->profile.accel = choose_several(s) ? hypervisor_word(h->accels, s->accel) : s->accel;
	c->profile.machine = choose_several(s) ? hypervisor_word(h->machines, s->machine) : s->machine;
	c->profile.nic = !hypervisor_lacks(h, NULL, HV_CAP_NET);
	c->profile.tap = s->kernel_net;
}

static void profile_init(struct cluster *c)
{
	const struct cluster_spec *s = &c->spec;
	struct vm_profile *p = &c->profile;
	*p = (struct vm_profile){
		.kernel = s->kernel,
		.vmlinux = s->vmlinux,
		.initrd = s->initrd,
		.root = s->root,
		.extra_args = s->extra_args, /* borrowed, as all strings here: of the spec */
		.cpus = s->cpus,
		.memory = s->memory,
		.scratch = s->scratch,
		.scratch_dir = s->scratch_dir,
		.outbound = s->outbound,
		.binding = s->node_of && !c->self ? NULL : bind_create(s),
		.hugepages = s->hugepages,
		.mounts = s->mounts,
		.n_mounts = s->n_mounts,
		.devices = &s->devices,
		.trusted = true, /* a VM of the user's own, next to nobody else's */
		.boot_timeout_ms = s->boot_timeout_ms,
		.stop_timeout_ms = s->stop_timeout_ms,
	};
	use_hypervisor(c);
	/* No login prompt on the console: nobody has a password, and systemd would wait for the device. */
	p->cmdline = xasprintf("vse.mods=%s vse.root=%s:vda:%s vse.init=%s%s", s->modules,
			       s->root_type, s->scratch ? "vdb" : "mem",
			       s->systemd ? "systemd systemd.getty_auto=no" : "vse",
			       s->n_mounts ? " vse.mounts=9p" : "");
}

/* A set-up record is one frame; the last rank's is the longest. */
static int check_setup(struct cluster *c, struct err *err)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	setup_write(&kv, &c->spec, &c->texts, c->spec.size - 1, true, false);
	if (buf_len(&kv) <= FRAME_MAX_GUEST)
		return 0;
	return err_set(
		err, E2BIG,
		"the environment and the names of %u VMs make a set-up of %zu bytes, at most %u "
		"are possible: shorten 'env' or start fewer VMs",
		c->spec.size, buf_len(&kv), FRAME_MAX_GUEST);
}

static int make_vm(struct cluster *c, uint32_t rank, struct err *err)
{
	_cleanup_free_ char *dir = xasprintf("%s/vm%u", c->dir, rank);
	c->vms[rank] = vm_create(c->loop, rank, dir, &c->profile, &vm_ops, c, err);
	if (!c->vms[rank])
		return -1;
	c->n_local++;
	return 0;
}

static int make_vms(struct cluster *c, struct err *err)
{
	c->vms = xcalloc(c->spec.size, sizeof(*c->vms));
	c->hung = hung_create(c->loop, &c->spec, c->vms, on_anew, c);
	for (uint32_t r = 0; r < c->spec.size; r++)
		if ((!c->spec.node_of || c->spec.node_of[r] == c->self) && make_vm(c, r, err) < 0)
			return -1;
	return 0;
}

static void drop_vm(struct cluster *c, uint32_t rank)
{
	if (c->net)
		netswitch_detach(c->net, rank);
	vm_destroy(c->vms[rank]);
	c->vms[rank] = NULL;
	c->n_local--;
}

struct vm *cluster_receive(struct cluster *c, uint32_t rank, struct err *err)
{
	if (!c->spec.node_of || rank >= c->spec.size || c->phase != CLUSTER_UP) {
		err_set(err, EBUSY, "vm%u: this node takes no VMs now", rank);
		return NULL;
	}
	drop_failed_coming(c);
	if (!c->coming)
		c->coming = xcalloc(c->spec.size, sizeof(*c->coming));
	if (c->vms[rank] || c->coming[rank]) {
		err_set(err, EEXIST, "vm%u: it is on this node, or on its way already", rank);
		return NULL;
	}
	_cleanup_free_ char *dir = xasprintf("%s/vm%u", c->dir, rank);
	c->coming[rank] = vm_create(c->loop, rank, dir, &c->profile, &vm_ops, c, err);
	return c->coming[rank];
}

int cluster_take(struct cluster *c, uint32_t rank, struct err *err)
{
	struct vm *vm = c->coming ? c->coming[rank] : NULL;
	if (!vm || c->phase != CLUSTER_UP)
		return err_set(err, ENOENT, "vm%u: is not on its way to this node", rank);
	if (vm_take(vm, err) < 0)
		return -1;
	c->coming[rank] = NULL;
	c->vms[rank] = vm;
	c->n_local++;
	c->spec.node_of[rank] = c->self;
	return 0;
}

void cluster_drop_coming(struct cluster *c, uint32_t rank)
{
	struct vm *vm = c->coming ? TAKE_PTR(c->coming[rank]) : NULL;
	if (vm && c->net)
		netswitch_detach(c->net, rank);
	vm_destroy(vm);
}

static void drop_all_coming(struct cluster *c)
{
	for (uint32_t r = 0; c->coming && r < c->spec.size; r++)
		cluster_drop_coming(c, r);
}

void cluster_fence(struct cluster *c)
{
	drop_all_coming(c);
	if (c->phase == CLUSTER_STARTING) {
		struct err err = ERR_INIT;
		err_set(&err, ESHUTDOWN, "the node was declared lost while the cluster started");
		started(c, &err);
	}
	for (uint32_t r = 0; r < c->spec.size; r++)
		if (c->vms[r])
			drop_vm(c, r);
	soon(c);
}

int cluster_move(struct cluster *c, uint32_t rank, uint32_t node, bool start, struct err *err)
{
	if (!c->spec.node_of || rank >= c->spec.size || node < 1 || node > c->spec.nodes.n)
		return err_set(err, ERANGE, "vm%u cannot be moved to node %u", rank, node);
	c->spec.node_of[rank] = node;
	if (c->net && node != c->self)
		netswitch_detach(c->net, rank);
	bool split = c->vms[rank] && vm_is_split(c->vms[rank]);
	if (c->vms[rank] && (node != c->self ? !split : split && start))
		drop_vm(c, rank);
	if (node != c->self)
		return 0;
	if (c->vms[rank])
		return start && vm_get_state(c->vms[rank]) == VM_PLANNED ? vm_start(c->vms[rank], err)
									 : 0;
	cluster_drop_coming(c, rank); /* it begins anew */
	if (c->phase >= CLUSTER_ENDING)
		return err_set(err, ESHUTDOWN, "the cluster is being ended");
	if (make_vm(c, rank, err) < 0)
		return -1;
	return start ? vm_start(c->vms[rank], err) : 0;
}

/* On a node of many the root has seen to it already. */
static int find_names(const struct cluster_spec *s, uint32_t self, struct strvec *ret, struct err *err)
{
	if (!self || self > s->hypervisor_of.n || !hypervisor_find(s->hypervisor_of.v[self - 1]))
		return choose_names(s, ret, NULL, err);
	strvec_add(ret, s->hypervisor_of.v[self - 1]);
	return 0;
}

struct cluster *cluster_create(struct loop *l, struct cluster_spec *spec, uint32_t self, const char *dir,
			       const struct cluster_ops *ops, void *arg, struct err *err)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	if (find_names(spec, self, &names, err) < 0) {
		cluster_spec_finish(spec);
		return NULL;
	}
	struct cluster *c = xcalloc(1, sizeof(*c));
	*c = (struct cluster){
		.loop = l, .spec = *spec, .self = self, .dir = xstrdup(dir), .ops = ops, .arg = arg};
	*spec = (struct cluster_spec){0};
	c->names = names;
	names = STRVEC_INIT;
	c->created_ns = time_wall_ns();
	c->soon = evtimer_create(l, on_soon, c);
	setup_texts_init(&c->texts, &c->spec);
	profile_init(c);
	if (c->profile.nic && !c->spec.kernel_net)
		c->net = netswitch_create(l, &c->spec.subnet, c->spec.size);
	if (kernel_network(l, &c->spec, c->profile.hypervisor, self, dir, &c->kernet, err) == 0 &&
	    check_setup(c, err) == 0 && make_vms(c, err) == 0)
		return c;
	cluster_destroy(c);
	return NULL;
}

void cluster_destroy(struct cluster *c)
{
	if (!c)
		return;
	if (c->probe)
		*c->probe = NULL;
	drop_all_coming(c);
	for (uint32_t r = 0; c->vms && r < c->spec.size; r++)
		vm_destroy(c->vms[r]);
	free(c->vms);
	hung_destroy(c->hung);
	template_destroy(c->template);
	free(c->coming);
	netswitch_destroy(c->net);
	kernet_destroy(c->kernet);
	evtimer_destroy(c->soon);
	setup_texts_finish(&c->texts);
	binding_destroy(c->profile.binding);
	free(c->profile.cmdline);
	rankset_finish(&c->to_adopt);
	events_finish(&c->events);
	strvec_finish(&c->names);
	buf_finish(&c->unusable);
	cluster_spec_finish(&c->spec);
	free(c->dir);
	free(c);
}

static int probe(struct cluster *c, struct err *err);

static void no_hypervisor(struct cluster *c, const char *why)
{
	struct err err = ERR_INIT;
	buf_addf(&c->unusable, "%s%s: %s", c->named ? "; " : "", c->names.v[c->named], why);
	if (c->named + 1 < c->names.n) {
		c->named++;
		use_hypervisor(c);
		if (probe(c, &err) == 0)
			return;
		buf_addf(&c->unusable, "; %s", err.text);
	}
	err = ERR_INIT;
	err_set(&err, ENODEV, "%s", buf_cstr(&c->unusable));
	if (c->self && !c->n_local) { /* nobody minds: it was given no VM */
		events_add(&c->events, EVENT_NO_RANK, "note", "%s", err.text);
		c->profile.probe = (struct hv_probe){0};
		snprintf(c->profile.probe.why, sizeof(c->profile.probe.why), "%.255s", err.text);
		c->probed = true;
		soon(c);
		return;
	}
	started(c, &err);
}

/* ---- cloning ---- */

static void note(struct cluster *c, const char *text)
{
	events_add(&c->events, EVENT_NO_RANK, "note", "%s", text);
	c->ops->on_note(c->arg, text);
}

static void note_booting(struct cluster *c, const char *why)
{
	_cleanup_free_ char *text = xasprintf("VMs are booted, not cloned: %s", why);
	note(c, text);
}

static void on_template(void *arg, const struct err *err)
{
	struct cluster *c = arg;
	if (!err)
		c->profile.template = c->template;
	if (err && err->code != ENOENT && c->spec.clone == CLONE_ALWAYS)
		note_booting(c, err->text);
	else
		cloning_tell(&c->events, &c->spec, c->self, c->template, err);
	c->probed = true;
	soon(c);
}

/* True: on_template() follows. */
static bool begin_template(struct cluster *c)
{
	struct err err = ERR_INIT;
	if (c->spec.clone == CLONE_NEVER || c->spec.restore || !c->n_local)
		return false;
	const char *lack = cloning_lacks(&c->spec, &c->profile, c->n_local, topology_cpus_here());
	if (!lack)
		c->template = cloning_begin(c->loop, &c->spec, &c->profile, c->dir, c->n_local,
					    c->ops->templates, c->arg, on_template, c, &err);
	if (!c->template && c->spec.clone == CLONE_ALWAYS)
		note_booting(c, lack ? lack : err.text);
	return c->template != NULL;
}

/* Of a process that followed another: it was to start them when it ended. */
static void start_planned(struct cluster *c)
{
	for (uint32_t r = 0; r < c->spec.size; r++)
		if (c->vms[r] && vm_get_state(c->vms[r]) == VM_PLANNED)
			vm_start(c->vms[r], NULL);
}

static void on_probe(void *arg, const struct hv_probe *p)
{
	/* A probe cannot be called off: the cluster may be gone before it answers. */
	struct cluster **cell = arg, *c = *cell;
	free(cell);
	if (!c)
		return;
	c->probe = NULL;
	if (c->phase == CLUSTER_UP && p->usable) {
		c->profile.probe = *p; /* for VMs that are started anew */
		start_planned(c);
	}
	if (c->phase != CLUSTER_STARTING)
		return;
	c->profile.probe = *p;
	if (!p->usable) {
		no_hypervisor(c, p->why);
		return;
	}
	struct err err = ERR_INIT;
	if (c->n_local && bind_check(&c->spec, &c->profile, c->n_local, &err) < 0) {
		started(c, &err);
		return;
	}
	if (c->named)
		events_add(&c->events, EVENT_NO_RANK, "note", "%s is used: %s",
			   c->names.v[c->named], buf_cstr(&c->unusable));
	if (p->note[0])
		note(c, p->note);
	c->probed = !begin_template(c);
	soon(c);
}

void cluster_keep(struct cluster *c)
{
	c->profile.keep = true;
}

static int probe(struct cluster *c, struct err *err)
{
	struct cluster **cell = xmalloc(sizeof(struct cluster *));
	*cell = c;
	c->probe = cell;
	if (hypervisor_probe(c->profile.hypervisor, c->loop, c->profile.accel, on_probe, cell, err) == 0)
		return 0;
	c->probe = NULL;
	free(cell);
	return -1;
}

int cluster_start(struct cluster *c, struct err *err)
{
	c->begun = loop_now(c->loop);
	events_add(&c->events, EVENT_NO_RANK, "cluster", "starting %u VM%s of %s", c->spec.size,
		   c->spec.size == 1 ? "" : "s", c->spec.vse);
	return probe(c, err);
}

/* ---- adoption ---- */

json_t *cluster_save(const struct cluster *c)
{
	const struct hv_probe *p = &c->profile.probe;
	return json_pack("{s:I, s:I, s:s, s:s}", "created_ns", (json_int_t)c->created_ns, "ready_ms",
			 (json_int_t)c->ready_after, "accel", p->accel, "version", p->version);
}

static void read_saved(struct cluster *c, const json_t *saved)
{
	const char *accel = json_string_value(json_object_get(saved, "accel")),
		   *version = json_string_value(json_object_get(saved, "version"));
	struct hv_probe *p = &c->profile.probe;
	c->created_ns = (uint64_t)json_integer_value(json_object_get(saved, "created_ns"));
	c->ready_after = (uint64_t)json_integer_value(json_object_get(saved, "ready_ms"));
	p->usable = true;
	snprintf(p->accel, sizeof(p->accel), "%s", accel ? accel : "");
	snprintf(p->version, sizeof(p->version), "%s", version ? version : "");
}

void cluster_adopt(struct cluster *c, const json_t *saved)
{
	read_saved(c, saved);
	c->phase = CLUSTER_UP;
	c->next = c->spec.size;
	c->probed = c->adopting = true;
	for (uint32_t r = 0; r < c->spec.size; r++)
		if (c->vms[r] && vm_adopt(c->vms[r]))
			rankset_add(&c->to_adopt, r);
	probe(c, NULL); /* the one from before is good enough until this answers */
	soon(c);
}

void cluster_down(struct cluster *c, bool graceful)
{
	if (c->phase == CLUSTER_DOWN)
		return;
	if (c->phase == CLUSTER_STARTING) {
		struct err err = ERR_INIT;
		err_set(&err, ECANCELED, "the cluster was ended while it started");
		started(c, &err);
	}
	if (c->phase != CLUSTER_ENDING)
		events_add(&c->events, EVENT_NO_RANK, "cluster", "ending");
	c->phase = CLUSTER_ENDING;
	drop_all_coming(c);
	for (uint32_t r = 0; r < c->spec.size; r++)
		if (c->vms[r])
			vm_stop(c->vms[r], graceful ? HV_STOP_GRACEFUL : HV_STOP_HARD, NULL);
	soon(c);
}

/* ---- VMs on other nodes ---- */

void cluster_start_elsewhere(struct cluster *c)
{
	c->elsewhere = true;
	c->begun = loop_now(c->loop);
	events_add(&c->events, EVENT_NO_RANK, "cluster", "starting %u VM%s of %s over several nodes",
		   c->spec.size, c->spec.size == 1 ? "" : "s", c->spec.vse);
}

void cluster_set_place(struct cluster *c, const struct strvec *nodes, const uint32_t *node_of)
{
	strvec_finish(&c->spec.nodes);
	for (size_t i = 0; i < nodes->n; i++)
		strvec_add(&c->spec.nodes, nodes->v[i]);
	memcpy(c->spec.node_of, node_of, c->spec.size * sizeof(*node_of));
}

void cluster_add_nodes(struct cluster *c, const struct strvec *names)
{
	for (size_t i = c->spec.nodes.n; i < names->n; i++)
		strvec_add(&c->spec.nodes, names->v[i]);
}

void cluster_elsewhere_progress(struct cluster *c, uint32_t ready, uint32_t failed)
{
	if (c->phase == CLUSTER_STARTING)
		c->ops->on_progress(c->arg, ready, failed);
}

void cluster_elsewhere_started(struct cluster *c, const struct err *err)
{
	started(c, err);
}

void cluster_elsewhere_down(struct cluster *c)
{
	c->elsewhere = false;
	soon(c);
}

/* ---- asking ---- */

enum cluster_phase cluster_get_phase(const struct cluster *c)
{
	return c->phase;
}

const char *cluster_phase_name(enum cluster_phase p)
{
	return phase_names[p];
}

const struct cluster_spec *cluster_get_spec(const struct cluster *c)
{
	return &c->spec;
}

struct vm *cluster_vm(struct cluster *c, uint32_t rank)
{
	return c->vms[rank];
}

struct netswitch *cluster_net(struct cluster *c)
{
	return c->net;
}

struct kernet *cluster_kernet(struct cluster *c)
{
	return c->kernet;
}

struct events *cluster_events(struct cluster *c)
{
	return &c->events;
}

uint64_t cluster_ready_ms(const struct cluster *c)
{
	return c->ready_after;
}

json_t *cluster_status(struct cluster *c)
{
	const struct cluster_spec *s = &c->spec;
	json_t *vms = json_array();
	for (uint32_t r = 0; r < s->size; r++)
		/* By post-copy what is left of one that runs elsewhere is told of by nobody. */
		if (c->vms[r] && !(c->self && s->node_of[r] != c->self && vm_is_split(c->vms[r])))
			json_array_append_new(vms, status_of_vm(s, &c->profile, c->net || c->kernet,
								c->vms[r]));
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:o}",
			 "name", s->name, "phase", phase_names[c->phase], "vse", s->vse, "image",
			 s->image, "size", (int)s->size, "hypervisor",
			 c->elsewhere && c->names.n > 1 ? s->hypervisor : c->profile.hypervisor->name,
			 "accel", c->profile.probe.accel, "hypervisor_version",
			 c->profile.probe.version, "cpus", (int)s->cpus, "memory",
			 (json_int_t)s->memory, "scratch", (json_int_t)s->scratch, "created",
			 (json_int_t)(c->created_ns / 1000000000u), "ready_ms",
			 (json_int_t)c->ready_after, "vms", vms);
}
