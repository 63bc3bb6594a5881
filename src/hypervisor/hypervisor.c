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
	bool gone;
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

static int lacking(const struct hypervisor *h, const char *op, struct err *err)
{
	return err_set(err, ENOTSUP, "%s: %s: not supported: %s", h->name, op, h->lacks);
}

static int named(const struct hypervisor *h, int rc, struct err *err)
{
	return rc < 0 ? err_prefix(err, "%s: ", h->name) : rc;
}

int hypervisor_probe(const struct hypervisor *h, struct loop *l, const char *accel,
		     void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err)
{
	if (!h->probe)
		return lacking(h, "probe", err);
	return named(h, h->probe(l, accel, done, arg, err), err);
}

void hypervisor_warm(struct loop *l)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i]->warm)
			table[i]->warm(l);
}

static void on_event(void *arg, const struct hv_event *e)
{
	struct hv *v = arg;
	if (v->gone)
		return;
	v->gone = e->type == HV_EVENT_GONE;
	v->fn(v->arg, e); /* may release v */
}

int hv_start(const struct hypervisor *h, struct loop *l, const struct hv_spec *spec,
	     const struct hv_probe *p, hv_event_fn *fn, void *arg, struct hv **ret, struct err *err)
{
	if (!h->start)
		return lacking(h, "start", err);
	if (!p->usable)
		return err_set(err, ENOTSUP, "%s: %s", h->name, p->why);
	struct hv *v = xcalloc(1, sizeof(*v));
	*v = (struct hv){.h = h, .fn = fn, .arg = arg};
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
	if (!h->adopt)
		return lacking(h, "adopt", err);
	struct hv *v = xcalloc(1, sizeof(*v));
	*v = (struct hv){.h = h, .fn = fn, .arg = arg};
	if (h->adopt(l, spec, on_event, v, &v->vm, err) < 0) {
		free(v);
		return named(h, -1, err);
	}
	*ret = v;
	return 0;
}

static int gone(struct err *err)
{
	return err_set(err, ESRCH, "the VM has ended");
}

int hv_stop(struct hv *v, enum hv_stop how, struct err *err)
{
	if (v->gone)
		return gone(err);
	if (!v->h->stop)
		return lacking(v->h, "stop", err);
	return named(v->h, v->h->stop(v->vm, how, err), err);
}

int hv_pause(struct hv *v, struct err *err)
{
	if (v->gone)
		return gone(err);
	if (!v->h->pause)
		return lacking(v->h, "pause", err);
	return named(v->h, v->h->pause(v->vm, err), err);
}

int hv_resume(struct hv *v, struct err *err)
{
	if (v->gone)
		return gone(err);
	if (!v->h->resume)
		return lacking(v->h, "resume", err);
	return named(v->h, v->h->resume(v->vm, err), err);
}

int hv_reset(struct hv *v, struct err *err)
{
	if (v->gone)
		return gone(err);
	if (!v->h->reset)
		return lacking(v->h, "reset", err);
	return named(v->h, v->h->reset(v->vm, err), err);
}

int hv_stats(struct hv *v, struct hv_stats *ret, struct err *err)
{
	if (v->gone)
		return gone(err);
	if (!v->h->stats)
		return lacking(v->h, "stats", err);
	return named(v->h, v->h->stats(v->vm, ret, err), err);
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
