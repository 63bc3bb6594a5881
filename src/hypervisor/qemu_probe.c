/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "hypervisor/qemu.h"
#include "hypervisor/qemu_state.h"

#define KVM_DEVICE "/dev/kvm"

/* Two questions are out at once: the program, and KVM. The later answer ends the probe. */
struct probe {
	bool want_kvm, want_tcg;
	int waiting;
	bool kvm;
	struct hv_probe p;
	struct err binary;
	char kvm_text[200];
	struct evtimer *timer;
	void (*done)(void *arg, const struct hv_probe *p);
	void *arg;
};

static void decide(struct probe *q)
{
	struct hv_probe *p = &q->p;
	if (q->binary.code) {
		snprintf(p->why, sizeof(p->why), "%.*s", (int)sizeof(p->why) - 1, q->binary.text);
	} else if (q->kvm) {
		snprintf(p->accel, sizeof(p->accel), "kvm");
	} else if (q->want_tcg) {
		snprintf(p->accel, sizeof(p->accel), "tcg");
		if (q->want_kvm)
			snprintf(p->note, sizeof(p->note), "%s: using TCG (emulation, slow)",
				 q->kvm_text);
	} else {
		snprintf(p->why, sizeof(p->why), "%s", q->kvm_text);
	}
	p->usable = !p->why[0];
	qemu_node_type(p->accel, p->node_type, sizeof(p->node_type));
}

static void one_answer(struct probe *q)
{
	if (--q->waiting)
		return;
	decide(q);
	evtimer_destroy(q->timer);
	q->done(q->arg, &q->p);
	free(q);
}

static void version_lacks(struct hv_probe *p, const struct qemu_binary *b)
{
	if (b->number < QEMU_SINCE_SET_ACTION)
		snprintf(p->lacks[HV_CAP_RESET], HV_LACK_MAX,
			 "QEMU %u.%u or later is needed, this is %s", QEMU_SINCE_SET_ACTION / 100,
			 QEMU_SINCE_SET_ACTION % 100, b->version);
}

/* What QEMU makes to hear of memory that a guest misses. A process that may not hear of the kernel's own access (KVM's) is of no
 * use, so the right to that is wanted, or since QEMU 8.0 the device. */
static void post_copy_lacks(struct hv_probe *p, const struct qemu_binary *b)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), code = errno;
	if (fd >= 0)
		close(fd);
	else if (b->number < QEMU_SINCE_UFFD_DEVICE || access("/dev/userfaultfd", R_OK | W_OK) < 0)
		snprintf(p->lacks[HV_CAP_POST_COPY], HV_LACK_MAX, "userfaultfd: %s%s",
			 strerror(code), code == EPERM ? " (vm.unprivileged_userfaultfd is 0)" : "");
}

static void on_binary(void *arg, const struct qemu_binary *b, const struct err *err)
{
	struct probe *q = arg;
	if (b) {
		snprintf(q->p.version, sizeof(q->p.version), "%s", b->version);
		version_lacks(&q->p, b);
		post_copy_lacks(&q->p, b);
		qemu_memory_lacks(&q->p);
		qemu_devices_lacks(&q->p);
	} else {
		q->binary = *err;
	}
	one_answer(q);
}

static void on_kvm(void *arg, bool works, const char *text)
{
	struct probe *q = arg;
	q->kvm = works;
	snprintf(q->kvm_text, sizeof(q->kvm_text), "%s", text);
	one_answer(q);
}

static void on_begun(void *arg)
{
	one_answer(arg);
}

int qemu_probe(struct loop *l, const char *accel, void (*done)(void *arg, const struct hv_probe *p),
	       void *arg, struct err *err)
{
	bool any = !accel || strcmp(accel, "auto") == 0;
	struct probe *q = xcalloc(1, sizeof(*q));
	q->done = done;
	q->arg = arg;
	q->want_kvm = any || strcmp(accel, "kvm") == 0;
	q->want_tcg = any || strcmp(accel, "tcg") == 0;
	if (!q->want_kvm && !q->want_tcg) {
		free(q);
		return err_set(err, EINVAL,
			       "accelerator %s: unknown, allowed are auto, kvm and tcg", accel);
	}
	/* One more answer, from the loop: whatever the others say at once, done() is never called from here. */
	q->waiting = 1;
	q->timer = evtimer_create(l, on_begun, q);
	evtimer_start(q->timer, 0, 0);
#if defined(__x86_64__)
	struct err e = ERR_INIT;
	q->waiting += q->want_kvm ? 2 : 1; /* before they are asked: what is known is answered at once */
	if (qemu_binary_find(l, on_binary, q, &q->binary) < 0)
		q->waiting--;
	if (q->want_kvm && qemu_kvm_probe(l, KVM_DEVICE, on_kvm, q, &e) < 0) {
		snprintf(q->kvm_text, sizeof(q->kvm_text), "%.*s", (int)sizeof(q->kvm_text) - 1, e.text);
		q->waiting--;
	}
#else
	err_set(&q->binary, ENOTSUP, "only x86-64 nodes are supported so far");
	(void)on_binary;
	(void)on_kvm;
#endif
	return 0;
}

static void ignore(void *arg _unused_, const struct hv_probe *p _unused_)
{
	/* What was found out is remembered (qemu_binary.c, qemu_kvm.c). */
}

void qemu_warm(struct loop *l)
{
	qemu_probe(l, "auto", ignore, NULL, NULL);
}
