/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/xen.h"

#define CAPABILITIES "/proc/xen/capabilities"
#define ANSWER_MS 10000 /* what hypervisor.h gives a probe */

struct probe {
	struct hv_probe p;
	struct xen_run *run;
	struct evtimer *timer;
	void (*done)(void *arg, const struct hv_probe *p);
	void *arg;
};

static struct xen_host known;

const struct xen_host *xen_host_known(void)
{
	return known.number ? &known : NULL;
}

static void answer(struct probe *q)
{
	evtimer_destroy(q->timer);
	q->p.usable = !q->p.why[0];
	q->done(q->arg, &q->p);
	free(q);
}

static void on_info(void *arg, int status, const char *out, size_t len _unused_, const char *errors)
{
	struct probe *q = arg;
	struct hv_probe *p = &q->p;
	struct xen_host h;
	struct err e = ERR_INIT;
	q->run = NULL;
	if (status) {
		char cause[200];
		xen_cause(errors, cause, sizeof(cause));
		snprintf(p->why, sizeof(p->why), "xl info: %s", cause[0] ? cause : "failed");
	} else if (xen_parse_info(out, &h, &e) < 0) {
		snprintf(p->why, sizeof(p->why), "%.200s", e.text);
	} else if (h.number < XEN_OLDEST) {
		snprintf(p->why, sizeof(p->why), "Xen %s is too old, %d.%d or later is needed",
			 h.version, XEN_OLDEST / 100, XEN_OLDEST % 100);
	} else if (!h.pv && !h.hvm) {
		snprintf(p->why, sizeof(p->why), "Xen %s runs no x86-64 guests here", h.version);
	} else {
		known = h;
		snprintf(p->version, sizeof(p->version), "%s", h.version);
		snprintf(p->accel, sizeof(p->accel), "xen");
		p->memory = h.free;
		p->cpus = h.cpus;
	}
	answer(q);
}

static void on_timer(void *arg)
{
	answer(arg);
}

/* What keeps this node from being asked, in `why`. Nothing is run, and nothing waited for. */
static bool has_reason(char *why, size_t size)
{
	_cleanup_free_ char *text = NULL, *xl = xen_program("xl");
	if (path_read(CAPABILITIES, 4096, &text, NULL, NULL) < 0)
		snprintf(why, size,
			 path_exists("/proc/xen") ? "no Xen: " CAPABILITIES
						    " is missing (is xenfs mounted?)"
						  : "no Xen: " CAPABILITIES " is missing");
	else if (!strstr(text, "control_d"))
		snprintf(why, size, "this node is a guest of Xen, not its dom0");
	else if (geteuid() != 0)
		snprintf(why, size, "root is needed: xl works for root only");
	else if (!xl)
		snprintf(why, size,
			 "xl: not in PATH (Debian: package xen-utils; elsewhere: set VSE_XL)");
	return why[0] != '\0';
}

int xen_probe(struct loop *l, const char *accel, void (*done)(void *arg, const struct hv_probe *p),
	      void *arg, struct err *err)
{
	if (accel && strcmp(accel, "auto") != 0 && strcmp(accel, "xen") != 0)
		return err_set(err, EINVAL, "accelerator %s: unknown, allowed are auto and xen", accel);
	struct probe *q = xcalloc(1, sizeof(*q));
	*q = (struct probe){.done = done, .arg = arg};
	q->timer = evtimer_create(l, on_timer, q);
	if (has_reason(q->p.why, sizeof(q->p.why))) {
		evtimer_start(q->timer, 0, 0);
		return 0;
	}
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	struct err e = ERR_INIT;
	strvec_addv(&argv, "xl", "info", NULL);
	if (xen_run(l, &argv, -1, ANSWER_MS, on_info, q, &q->run, &e) < 0) {
		snprintf(q->p.why, sizeof(q->p.why), "%.200s", e.text);
		evtimer_start(q->timer, 0, 0);
	}
	return 0;
}
