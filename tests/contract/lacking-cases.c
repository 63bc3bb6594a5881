/* SPDX-License-Identifier: Apache-2.0 */
#include "lacking-cases.h"

#include <errno.h>
#include <string.h>

#include "tests/tap.h"

/* What a back end lacks is refused with ENOTSUP and why. A back end with no ops but those needed to begin. */
static int token;
static struct hv_vm *const bare_vm = (struct hv_vm *)&token;

static int bare_start(struct loop *l _unused_, const struct hv_spec *s _unused_,
		      const struct hv_probe *p _unused_, hv_event_fn *fn _unused_,
		      void *arg _unused_, struct hv_vm **ret, struct err *err _unused_)
{
	*ret = bare_vm;
	return 0;
}

static void bare_release(struct hv_vm *vm)
{
	ok(vm == bare_vm, "release reaches the back end");
}

void test_lacking(struct env *env)
{
	static struct hypervisor bare = {.name = "bare", .start = bare_start, .release = bare_release};
	for (enum hv_cap c = HV_CAP_START + 1; c < HV_CAPS; c++)
		bare.lacks[c] = "it is bare";
	struct hv *v = NULL;
	struct hv_stats st;
	struct err e = ERR_INIT;
	struct hv_probe p = {.why = "no metal"};
	ok(hv_start(&bare, env->loop, &env->spec, &p, NULL, NULL, &v, &e) < 0 && !v,
	   "not usable: not started");
	is_str(e.text, "bare: no metal", "and says why");
	p.usable = true;
	is_int(hv_start(&bare, env->loop, &env->spec, &p, NULL, NULL, &v, &e), 0, "started");
#define LACKS(call)                                                                                \
	do {                                                                                       \
		e = ERR_INIT;                                                                      \
		ok((call) < 0 && e.code == ENOTSUP && strstr(e.text, "it is bare"), "%s", e.text); \
	} while (0)
	LACKS(hv_adopt(&bare, env->loop, &env->spec, NULL, NULL, &v, &e));
	LACKS(hv_stop(v, HV_STOP_HARD, &e));
	LACKS(hv_stop(v, HV_STOP_GRACEFUL, &e));
	LACKS(hv_pause(v, &e));
	LACKS(hv_resume(v, &e));
	LACKS(hv_reset(v, &e));
	LACKS(hv_save(v, &e));
	LACKS(hv_migrate_out(v, &e));
	LACKS(hv_post_copy(v, &e));
	LACKS(hv_snapshot(v, &e));
	LACKS(hv_pin(v, 0, 0, &e));
	LACKS(hv_stats(v, &st, &e));
	e = ERR_INIT;
	ok(hv_cancel(v, &e) < 0 && e.code == EINVAL, "nothing to cancel: %s", e.text);
	hv_release(v);
	bare.lacks[HV_CAP_PAUSE] = NULL;
	snprintf(p.lacks[HV_CAP_PAUSE], HV_LACK_MAX, "it is bare here");
	is_int(hv_start(&bare, env->loop, &env->spec, &p, NULL, NULL, &v, &e), 0, "started");
	LACKS(hv_pause(v, &e)); /* what only the node lacks */
	hv_release(v);
	struct hv_spec spec = env->spec;
	static const enum hv_from from[] = {HV_FROM_SAVE, HV_FROM_MIGRATION, HV_FROM_TEMPLATE};
	for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
		spec.from = from[i];
		LACKS(hv_start(&bare, env->loop, &spec, &p, NULL, NULL, &v, &e));
	}
	spec.from = HV_FROM_BOOT;
	spec.n_mounts = 1;
	spec.mounts = &(struct hv_mount){.host = "/", .guest = "/x"};
	LACKS(hv_start(&bare, env->loop, &spec, &p, NULL, NULL, &v, &e));
	spec.n_mounts = 0;
	_cleanup_strvec_ struct strvec devices = STRVEC_INIT;
	strvec_add(&devices, "pci:15b3:101e");
	spec.devices = &devices;
	LACKS(hv_start(&bare, env->loop, &spec, &p, NULL, NULL, &v, &e));
	spec.devices = NULL;
	spec.hugepages = true;
	LACKS(hv_start(&bare, env->loop, &spec, &p, NULL, NULL, &v, &e));
	spec.hugepages = false;
	spec.tap = true;
	LACKS(hv_start(&bare, env->loop, &spec, &p, NULL, NULL, &v, &e));
	hv_release(NULL);
}
