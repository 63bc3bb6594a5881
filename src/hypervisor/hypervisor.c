/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/hypervisor.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

#define HYPERVISOR(x) extern const struct hypervisor hypervisor_##x;
#include "hypervisor/hypervisors.def"
#undef HYPERVISOR

#define HYPERVISOR(x) &hypervisor_##x,
static const struct hypervisor *const table[] = {
#include "hypervisor/hypervisors.def"
};
#undef HYPERVISOR

/* One VM: which back end, its state there, and who listens. The listener is ours, so that the rules of
 * the contract (one GONE, nothing after it) are kept here for every back end. */
struct hv {
	const struct hypervisor *h;
	struct hv_vm *vm;
	hv_event_fn *fn;
	void *arg;
	const struct hv_probe *probe; /* borrowed */
	enum hv_cap busy;             /* what streams its state out; HV_CAPS = nothing */
	bool waits, switched;         /* a post-copy: for switch_over(); it was called */
	char stays[80];               /* why it can be neither saved nor moved; "": it can */
	bool gone;
	bool inside; /* an op is being called: no event may come */
};

static const struct {
	const char *name, *help;
} caps[HV_CAPS] = {
	[HV_CAP_START] = {"start", "boot a VM of a VSE image"},
	[HV_CAP_KERNEL] = {"own kernel", "of its image; it stands between the VM and the node"},
	[HV_CAP_ADOPT] = {"adopt", "take over running VMs when the agent was started anew"},
	[HV_CAP_STOP_GRACEFUL] = {"graceful stop", "a power button the guest can see"},
	[HV_CAP_STOP_HARD] = {"hard stop", "end it now"},
	[HV_CAP_PAUSE] = {"pause", "and resume"},
	[HV_CAP_RESET] = {"reset", "from outside, without a new VMM"},
	[HV_CAP_SAVE] = {"save", "memory and devices to a file"},
	[HV_CAP_RESTORE] = {"restore", "go on from a save, also on another node"},
	[HV_CAP_MIGRATE_OUT] = {"migrate out", "to another node while the guest runs"},
	[HV_CAP_MIGRATE_IN] = {"migrate in", "from another node"},
	[HV_CAP_POST_COPY] = {"post-copy",
			      "migrate a guest that writes faster than the link carries"},
	[HV_CAP_SNAPSHOT] = {"snapshot", "make a template of a running VM"},
	[HV_CAP_CLONE] = {"clone", "start from a template, memory copied on write"},
	[HV_CAP_CONSOLE] = {"console", "the guest's console, both ways"},
	[HV_CAP_NET] = {"network", "eth0 on the cluster's network"},
	[HV_CAP_TAP] = {"tap", "eth0 as a tap of the node's kernel"},
	[HV_CAP_OUTBOUND] = {"outbound", "a second NIC with NAT to the outside"},
	[HV_CAP_SCRATCH] = {"scratch", "a writable disk"},
	[HV_CAP_STATS] = {"stats", "memory and CPU time used on the node"},
	[HV_CAP_PIN] = {"pin", "vCPUs onto CPUs of the node"},
	[HV_CAP_NUMA] = {"numa", "memory from chosen NUMA nodes"},
	[HV_CAP_HUGEPAGES] = {"hugepages", "memory in reserved pages of 2 MiB"},
	[HV_CAP_HOST_DIR] = {"host directories", "seen from inside the VM"},
	[HV_CAP_DEVICES] = {"devices", "PCI devices of the node, by VFIO"},
};

const struct hypervisor *hypervisor_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strcmp(table[i]->name, name) == 0)
			return table[i];
	return NULL;
}

const struct hypervisor *hypervisor_at(size_t i)
{
	return i < ARRAY_SIZE(table) ? table[i] : NULL;
}

const char *hv_cap_name(enum hv_cap cap)
{
	return (size_t)cap < HV_CAPS ? caps[cap].name : "unknown";
}

const char *hv_cap_help(enum hv_cap cap)
{
	return (size_t)cap < HV_CAPS ? caps[cap].help : "";
}

const char *hypervisor_lacks(const struct hypervisor *h, const struct hv_probe *p, enum hv_cap cap)
{
	if (h->lacks[cap])
		return h->lacks[cap];
	return p && p->lacks[cap][0] ? p->lacks[cap] : NULL;
}

static int check(const struct hypervisor *h, const struct hv_probe *p, enum hv_cap cap, struct err *err)
{
	const char *why = hypervisor_lacks(h, p, cap);
	return why ? err_set(err, ENOTSUP, "%s: %s: not supported: %s", h->name, hv_cap_name(cap), why)
		   : 0;
}

static int named(const struct hypervisor *h, int rc, struct err *err)
{
	return rc < 0 ? err_prefix(err, "%s: ", h->name) : rc;
}

const char *hypervisor_word(const char *words, const char *word)
{
	_cleanup_strvec_ struct strvec all = STRVEC_INIT;
	strvec_split(&all, words ? words : "", " ");
	return word && strvec_has(&all, word) ? word : "auto";
}

int hypervisor_probe(const struct hypervisor *h, struct loop *l, const char *accel,
		     void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err)
{
	return named(h, h->probe(l, accel, done, arg, err), err);
}

void hypervisor_warm(struct loop *l)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i]->warm)
			table[i]->warm(l);
}

static unsigned told_inside;

unsigned hv_told_inside(void)
{
	return told_inside;
}

static void on_event(void *arg, const struct hv_event *e)
{
	struct hv *v = arg;
	told_inside += v->inside;
	if (v->gone)
		return;
	v->gone = e->type == HV_EVENT_GONE;
	if ((e->type == HV_EVENT_DONE || e->type == HV_EVENT_FAILED) && v->busy != HV_CAPS &&
	    strcmp(e->op, hv_cap_name(v->busy)) == 0)
		v->busy = HV_CAPS;
	if (e->type == HV_EVENT_SWITCH)
		v->waits = true;
	v->fn(v->arg, e); /* may release v */
}

static bool has_devices(const struct hv_spec *s)
{
	return s->devices && s->devices->n;
}

/* What a spec asks for beyond a plain boot. */
static int check_spec(const struct hypervisor *h, const struct hv_spec *s, const struct hv_probe *p,
		      struct err *err)
{
	static const enum hv_cap from[] = {
		[HV_FROM_BOOT] = HV_CAP_START,
		[HV_FROM_SAVE] = HV_CAP_RESTORE,
		[HV_FROM_MIGRATION] = HV_CAP_MIGRATE_IN,
		[HV_FROM_TEMPLATE] = HV_CAP_CLONE,
	};
	const struct {
		bool wanted;
		enum hv_cap cap;
	} extras[] = {
		{s->template, HV_CAP_SNAPSHOT},
		{s->post_copy, HV_CAP_POST_COPY},
		{s->nic, HV_CAP_NET},
		{s->tap, HV_CAP_TAP},
		{s->outbound, HV_CAP_OUTBOUND},
		{s->scratch != NULL, HV_CAP_SCRATCH},
		{s->pins != NULL, HV_CAP_PIN},
		{s->numa_nodes != 0, HV_CAP_NUMA},
		{s->hugepages, HV_CAP_HUGEPAGES},
		{s->n_mounts != 0, HV_CAP_HOST_DIR},
		{has_devices(s), HV_CAP_DEVICES},
	};
	if (check(h, p, from[s->from], err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(extras); i++)
		if (extras[i].wanted && check(h, p, extras[i].cap, err) < 0)
			return -1;
	if (has_devices(s) && (s->from != HV_FROM_BOOT || s->template))
		return err_set(err, ENOTSUP, "%s: %s: not supported with devices of the node",
			       h->name, hv_cap_name(s->template ? HV_CAP_SNAPSHOT : from[s->from]));
	if (s->n_mounts && (s->from == HV_FROM_SAVE || s->from == HV_FROM_MIGRATION))
		return err_set(err, ENOTSUP, "%s: %s: not supported with host directories", h->name,
			       hv_cap_name(from[s->from]));
	return hypervisor_check_mounts(s->mounts, s->n_mounts, err) < 0
		       ? err_prefix(err, "%s: ", h->name)
		       : 0;
}

static struct hv *make(const struct hypervisor *h, const struct hv_spec *s, hv_event_fn *fn,
		       void *arg, const struct hv_probe *p)
{
	struct hv *v = xcalloc(1, sizeof(*v));
	*v = (struct hv){.h = h, .fn = fn, .arg = arg, .probe = p, .busy = HV_CAPS};
	if (s->n_mounts)
		snprintf(v->stays, sizeof(v->stays), "host directories (%.50s)", s->mounts[0].guest);
	else if (has_devices(s))
		snprintf(v->stays, sizeof(v->stays), "devices of the node (%.40s)", s->devices->v[0]);
	return v;
}

int hv_start(const struct hypervisor *h, struct loop *l, const struct hv_spec *spec,
	     const struct hv_probe *p, hv_event_fn *fn, void *arg, struct hv **ret, struct err *err)
{
	if (!p->usable)
		return err_set(err, ENOTSUP, "%s: %s", h->name, p->why);
	if (check_spec(h, spec, p, err) < 0)
		return -1;
	struct hv *v = make(h, spec, fn, arg, p);
	if (h->start(l, spec, p, on_event, v, &v->vm, err) < 0) {
		free(v);
		return named(h, -1, err);
	}
	*ret = v;
	return 0;
}

int hv_adopt(const struct hypervisor *h, struct loop *l, const struct hv_spec *spec,
	     hv_event_fn *fn, void *arg, struct hv **ret, struct err *err)
{
	if (check(h, NULL, HV_CAP_ADOPT, err) < 0)
		return -1;
	struct hv *v = make(h, spec, fn, arg, NULL);
	if (h->adopt(l, spec, on_event, v, &v->vm, err) < 0) {
		free(v);
		return named(h, -1, err);
	}
	*ret = v;
	return 0;
}

/* Whether an op may be called now. */
static int allow(struct hv *v, enum hv_cap cap, struct err *err)
{
	if (v->gone)
		return err_set(err, ESRCH, "the VM has ended");
	return check(v->h, v->probe, cap, err);
}

int hv_stop(struct hv *v, enum hv_stop how, struct err *err)
{
	if (allow(v, how == HV_STOP_HARD ? HV_CAP_STOP_HARD : HV_CAP_STOP_GRACEFUL, err) < 0)
		return -1;
	return named(v->h, v->h->stop(v->vm, how, err), err);
}

int hv_pause(struct hv *v, struct err *err)
{
	return allow(v, HV_CAP_PAUSE, err) < 0 ? -1 : named(v->h, v->h->pause(v->vm, err), err);
}

int hv_resume(struct hv *v, struct err *err)
{
	return allow(v, HV_CAP_PAUSE, err) < 0 ? -1 : named(v->h, v->h->resume(v->vm, err), err);
}

static int not_busy(struct hv *v, struct err *err)
{
	if (v->busy == HV_CAPS)
		return 0;
	return err_set(err, EBUSY, "%s: %s is under way", v->h->name, hv_cap_name(v->busy));
}

int hv_reset(struct hv *v, struct err *err)
{
	if (allow(v, HV_CAP_RESET, err) < 0 || not_busy(v, err) < 0)
		return -1;
	return named(v->h, v->h->reset(v->vm, err), err);
}

static int stream_out(struct hv *v, enum hv_cap cap, int (*op)(struct hv_vm *vm, struct err *err),
		      struct err *err)
{
	if (allow(v, cap, err) < 0 || not_busy(v, err) < 0)
		return -1;
	if (v->stays[0] && cap != HV_CAP_SNAPSHOT)
		return err_set(err, ENOTSUP, "%s: %s: not supported with %s", v->h->name,
			       hv_cap_name(cap), v->stays);
	v->inside = true;
	int rc = op(v->vm, err);
	v->inside = false;
	if (rc < 0)
		return named(v->h, -1, err);
	v->busy = cap;
	v->waits = v->switched = false;
	return 0;
}

int hv_save(struct hv *v, struct err *err)
{
	return stream_out(v, HV_CAP_SAVE, v->h->save, err);
}

int hv_migrate_out(struct hv *v, struct err *err)
{
	return stream_out(v, HV_CAP_MIGRATE_OUT, v->h->migrate_out, err);
}

/* What a node lacks for it, it lacks as a target. */
int hv_post_copy(struct hv *v, struct err *err)
{
	const struct hv_probe *probe = TAKE_PTR(v->probe);
	int rc = stream_out(v, HV_CAP_POST_COPY, v->h->post_copy, err);
	v->probe = probe;
	return rc;
}

int hv_switch_over(struct hv *v, struct err *err)
{
	if (v->busy != HV_CAP_POST_COPY || !v->waits || v->switched)
		return err_set(err, EINVAL, "%s: switch over: nothing waits for it", v->h->name);
	if (v->gone)
		return err_set(err, ESRCH, "the VM has ended");
	v->switched = true;
	return named(v->h, v->h->switch_over(v->vm, err), err);
}

int hv_snapshot(struct hv *v, struct err *err)
{
	return stream_out(v, HV_CAP_SNAPSHOT, v->h->snapshot, err);
}

int hv_cancel(struct hv *v, struct err *err)
{
	if (v->busy == HV_CAPS)
		return err_set(err, EINVAL, "%s: cancel: nothing is under way", v->h->name);
	if (v->busy == HV_CAP_POST_COPY && v->switched)
		return err_set(err, EBUSY, "%s: cancel: it was switched over to the target", v->h->name);
	if (v->gone)
		return err_set(err, ESRCH, "the VM has ended");
	return named(v->h, v->h->cancel(v->vm, err), err);
}

int hv_pin(struct hv *v, unsigned vcpu, int cpu, struct err *err)
{
	return allow(v, HV_CAP_PIN, err) < 0 ? -1 : named(v->h, v->h->pin(v->vm, vcpu, cpu, err), err);
}

int hv_stats(struct hv *v, struct hv_stats *ret, struct err *err)
{
	return allow(v, HV_CAP_STATS, err) < 0 ? -1 : named(v->h, v->h->stats(v->vm, ret, err), err);
}

void hv_release(struct hv *v)
{
	if (!v)
		return;
	v->h->release(v->vm);
	free(v);
}

const char *hv_state_name(enum hv_state s)
{
	static const char *const names[] = {
		[HV_STARTING] = "starting", [HV_RUNNING] = "running",   [HV_PAUSED] = "paused",
		[HV_CRASHED] = "crashed",   [HV_SHUTDOWN] = "shutdown",
	};
	return (size_t)s < ARRAY_SIZE(names) ? names[s] : "unknown";
}
