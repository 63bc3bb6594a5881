/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at files only: no ioctl, so that it is quick and harmless on every node. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/palacios.h"

struct probing {
	struct hv_probe p;
	struct evtimer *timer;
	void (*done)(void *arg, const struct hv_probe *p);
	void *arg;
};

static uint64_t free_memory(const struct palacios_info *info)
{
	uint64_t blocks = 0;
	for (unsigned node = 0; node < info->nodes; node++) {
		_cleanup_free_ char *name = xasprintf("/proc/v3vee/v3-mem%u", node),
				    *path = palacios_path(name), *text = NULL;
		if (path_read(path, 4u << 20, &text, NULL, NULL) == 0)
			blocks += palacios_free_blocks(text, info->block);
	}
	return blocks * info->block;
}

static void look_nu(struct hv_probe *p)
{
	struct palacios_info info;
	struct palacios_loader loader;
	struct err e = ERR_INIT;
	_cleanup_free_ char *device = palacios_path("/dev/v3vee");
	if (access(device, R_OK) < 0)
		snprintf(p->why, sizeof(p->why), "%.120s: %s: ask for a udev rule, or be root",
			 device, strerror(errno));
	else if (palacios_info_read(&info, &e) < 0 || palacios_loader_find(&loader, &e) < 0)
		snprintf(p->why, sizeof(p->why), "%.*s", (int)sizeof(p->why) - 1, e.text);
	if (p->why[0])
		return;
	p->usable = true;
	snprintf(p->accel, sizeof(p->accel), "palacios");
	snprintf(p->version, sizeof(p->version), "NU line, blocks of %" PRIu64 " MiB", info.block >> 20);
	int n = snprintf(p->note, sizeof(p->note), "%" PRIu64 " MiB of memory free for VMs",
			 free_memory(&info) >> 20);
	if (path_exists("/sys/module/kvm_amd") || path_exists("/sys/module/kvm_intel"))
		snprintf(p->note + n,
			 sizeof(p->note) - (size_t)n, "; KVM is loaded, too, and only one of them can use the processor: unload kvm_amd or kvm_intel");
}

static void look(struct hv_probe *p)
{
#if defined(__x86_64__)
	switch (palacios_line()) {
	case PALACIOS_NU: look_nu(p); break;
	case PALACIOS_PITT:
		/* Its /proc gives neither free memory nor states: a create that asks for too much may crash the node, and
		 * what a VM does would be our belief. */
		snprintf(p->why, sizeof(p->why),
			 "the Pitt/Hobbes line is loaded: it tells neither its free memory nor its "
			 "VMs' states, without "
			 "which no VM can be started safely; the NU line is supported");
		break;
	case PALACIOS_ABSENT:
		snprintf(p->why, sizeof(p->why), "its module is not loaded (no /proc/v3vee)");
		break;
	}
#else
	snprintf(p->why, sizeof(p->why), "x86-64 only");
#endif
}

static void on_timer(void *arg)
{
	struct probing *q = arg;
	evtimer_destroy(q->timer);
	q->done(q->arg, &q->p);
	free(q);
}

int palacios_probe(struct loop *l, const char *accel, void (*done)(void *arg, const struct hv_probe *p),
		   void *arg, struct err *err _unused_)
{
	struct probing *q = xcalloc(1, sizeof(*q));
	*q = (struct probing){.timer = evtimer_create(l, on_timer, q), .done = done, .arg = arg};
	if (accel && strcmp(accel, "auto") != 0 && strcmp(accel, "palacios") != 0)
		snprintf(q->p.why, sizeof(q->p.why), "it has no accelerator '%.40s'", accel);
	else
		look(&q->p);
	evtimer_start(q->timer, 0, 0);
	return 0;
}
