/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/hung.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"

#define LOOK_MAX_MS 2000 /* between two looks, while any VM boots */
#define LOOKS 8          /* at least so many in hung_after_ms */
#define TIMES 4          /* as long as the others took */

struct hung {
	const struct cluster_spec *spec;
	struct vm **vms;
	void (*on_anew)(void *arg, struct vm *vm, const char *text);
	void *arg;
	uint64_t look_ms;
	struct evtimer *timer;
	bool looks;           /* the timer runs */
	unsigned char *tries; /* by rank */
};

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

uint64_t hung_bound_ms(uint64_t after_ms, uint64_t timeout_ms, uint64_t *ready_ms, uint32_t n)
{
	if (!n)
		return MAX(after_ms, timeout_ms / 4 * 3);
	qsort(ready_ms, n, sizeof(*ready_ms), by_size);
	return MAX(after_ms, TIMES * ready_ms[n / 2]);
}

static void start_anew(struct hung *h, struct vm *vm, uint64_t silent, uint32_t others)
{
	struct err err = ERR_INIT;
	uint32_t rank = vm_rank(vm);
	_cleanup_free_ char *than = others ? xasprintf("%u other%s of this node %s ready", others,
						       others == 1 ? "" : "s",
						       others == 1 ? "is" : "are")
					   : xstrdup("no other of this node is ready");
	_cleanup_free_ char *text =
		xasprintf("no sign of life for %.1f s of its boot, %s: started anew (%u of %u)",
			  (double)silent / 1000, than, h->tries[rank] + 1u, HUNG_TRIES);
	h->tries[rank]++;
	h->on_anew(h->arg, vm, text);
	if (vm_boot_anew(vm, &err) < 0)
		log_warn("%s", err.text);
}

static void on_look(void *arg)
{
	struct hung *h = arg;
	uint32_t n = 0, booting = 0;
	_cleanup_free_ uint64_t *ready = xcalloc(h->spec->size, sizeof(*ready));
	for (uint32_t r = 0; r < h->spec->size; r++)
		if (h->vms[r] && vm_ready_ms(h->vms[r]))
			ready[n++] = vm_ready_ms(h->vms[r]);
	uint64_t bound = hung_bound_ms(h->spec->hung_after_ms, h->spec->boot_timeout_ms, ready, n);
	for (uint32_t r = 0; r < h->spec->size; r++) {
		struct vm *vm = h->vms[r];
		if (!vm || vm_get_state(vm) != VM_BOOTING)
			continue;
		booting++;
		uint64_t silent = vm_silent_ms(vm);
		if (silent >= bound && h->tries[r] < HUNG_TRIES)
			start_anew(h, vm, silent, n);
	}
	h->looks = booting > 0;
	if (h->looks)
		evtimer_start(h->timer, h->look_ms, 0);
}

void hung_vm_state(struct hung *h, const struct vm *vm)
{
	enum vm_state s = vm_get_state(vm);
	if (s == VM_READY)
		h->tries[vm_rank(vm)] = 0;
	if (s != VM_BOOTING || h->looks)
		return;
	h->looks = true;
	evtimer_start(h->timer, h->look_ms, 0);
}

struct hung *hung_create(struct loop *l, const struct cluster_spec *s, struct vm **vms,
			 void (*on_anew)(void *arg, struct vm *vm, const char *text), void *arg)
{
	struct hung *h = xcalloc(1, sizeof(*h));
	*h = (struct hung){.spec = s, .vms = vms, .on_anew = on_anew, .arg = arg};
	h->look_ms = MIN(s->hung_after_ms / LOOKS + 1, (uint64_t)LOOK_MAX_MS);
	h->tries = xcalloc(s->size, 1);
	h->timer = evtimer_create(l, on_look, h);
	return h;
}

void hung_destroy(struct hung *h)
{
	if (!h)
		return;
	evtimer_destroy(h->timer);
	free(h->tries);
	free(h);
}
