/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/choose.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "hypervisor/hypervisor.h"

/* The strongest wall first. Those that this vse was built without are passed over. */
static const char *const best_first[] = {"qemu", "xen", "palacios", "container"};

static bool is_fake(const struct hypervisor *h)
{
	return strcmp(h->name, "fake") == 0; /* nothing of it can break out of anything */
}

/* Why this one does not suit; NULL: it does. chosen: it alone was asked for, and says itself what it cannot do. */
static const char *unsuited(const struct cluster_spec *s, const struct hypervisor *h, bool chosen,
			    bool automatic)
{
	const char *floor = s->protection ? s->protection : "", *why;
	if (hypervisor_lacks(h, NULL, HV_CAP_KERNEL) && !is_fake(h) &&
	    (strcmp(floor, PROTECTION_VM) == 0 ||
	     (automatic && strcmp(floor, PROTECTION_CONTAINER) != 0)))
		return strcmp(floor, PROTECTION_VM) == 0
			       ? "it protects less than a VM, which the VSE asks for "
				 "('protection: vm')"
			       : "it protects less than a VM: it must be named, or the VSE have "
				 "'protection: container'";
	if (chosen)
		return NULL;
	if (s->scratch && (why = hypervisor_lacks(h, NULL, HV_CAP_SCRATCH)))
		return why;
	if (s->kernel_net && (why = hypervisor_lacks(h, NULL, HV_CAP_TAP)))
		return why;
	if (s->outbound && (why = hypervisor_lacks(h, NULL, HV_CAP_OUTBOUND)))
		return why;
	if (s->bind.unit != BINDING_NONE && (why = hypervisor_lacks(h, NULL, HV_CAP_PIN)))
		return why;
	if (s->bind.memory && (why = hypervisor_lacks(h, NULL, HV_CAP_NUMA)))
		return why;
	if (s->hugepages && (why = hypervisor_lacks(h, NULL, HV_CAP_HUGEPAGES)))
		return why;
	if (s->n_mounts && (why = hypervisor_lacks(h, NULL, HV_CAP_HOST_DIR)))
		return why;
	if (s->devices.n && (why = hypervisor_lacks(h, NULL, HV_CAP_DEVICES)))
		return why;
	if (s->systemd && hypervisor_lacks(h, NULL, HV_CAP_KERNEL))
		return "the VSE has 'init: systemd', which wants a kernel of its own";
	return s->size > 1 && !is_fake(h) ? hypervisor_lacks(h, NULL, HV_CAP_NET) : NULL;
}

static void refuse(struct buf *refused, const char *name, const char *why)
{
	buf_addf(refused, "%s%s: %s", buf_len(refused) ? "; " : "", name, why);
}

static void wanted(const struct cluster_spec *s, bool automatic, struct strvec *ret)
{
	if (!automatic)
		strvec_split(ret, s->hypervisor, ",");
	for (size_t i = 0; automatic && i < ARRAY_SIZE(best_first); i++)
		if (hypervisor_find(best_first[i]))
			strvec_add(ret, best_first[i]);
}

bool choose_several(const struct cluster_spec *s)
{
	return strcmp(s->hypervisor, CHOOSE_AUTO) == 0 || strchr(s->hypervisor, ',');
}

static bool taken(const struct strvec *names, bool machine, const char *word)
{
	bool any = !word || strcmp(word, "auto") == 0;
	for (size_t i = 0; i < names->n && !any; i++) {
		const struct hypervisor *h = hypervisor_find(names->v[i]);
		any = hypervisor_word(machine ? h->machines : h->accels, word) == word;
	}
	return any;
}

/* Each passes over the others' words, so a wrong one would go unnoticed. */
static int check_words(const struct cluster_spec *s, const struct strvec *names, struct err *err)
{
	if (!choose_several(s))
		return 0; /* it says itself what it knows */
	if (!taken(names, false, s->accel))
		return err_set(err, EINVAL,
			       "accelerator %.40s: no hypervisor that may be used has it", s->accel);
	if (!taken(names, true, s->machine))
		return err_set(err, EINVAL, "machine type %.40s: no hypervisor that may be used has it",
			       s->machine);
	return 0;
}

int choose_names(const struct cluster_spec *s, struct strvec *names, struct buf *refused, struct err *err)
{
	_cleanup_strvec_ struct strvec all = STRVEC_INIT;
	_cleanup_buf_ struct buf why = BUF_INIT;
	bool automatic = strcmp(s->hypervisor, CHOOSE_AUTO) == 0;
	wanted(s, automatic, &all);
	for (size_t i = 0; i < all.n; i++) {
		const struct hypervisor *h = hypervisor_find(all.v[i]);
		if (!h)
			return err_set(err, EINVAL, "hypervisor '%.40s': there is none of that name (see 'vse doctor')",
				       all.v[i]);
		const char *no = unsuited(s, h, all.n == 1 && !automatic, automatic);
		if (no)
			refuse(&why, h->name, no);
		else if (!strvec_has(names, h->name))
			strvec_add(names, h->name);
	}
	if (refused)
		buf_adds(refused, buf_cstr(&why));
	if (names->n)
		return check_words(s, names, err);
	return err_set(err, all.n ? ENOTSUP : EINVAL, "%s",
		       all.n ? buf_cstr(&why) : "no hypervisor is named");
}

/* ---- on a node ---- */

static void on_probe(void *arg, const struct hv_probe *p)
{
	*(struct hv_probe *)arg = *p;
}

const char *choose_here(const struct strvec *names, const char *accel, struct hv_probe *ret,
			char **ret_why)
{
	_cleanup_buf_ struct buf why = BUF_INIT;
	struct loop *l = loop_create();
	const char *chosen = NULL;
	for (size_t i = 0; i < names->n && !chosen; i++) {
		const struct hypervisor *h = hypervisor_find(names->v[i]);
		struct hv_probe p = {.why = "this vse does not know it"};
		struct err err = ERR_INIT;
		if (h &&
		    hypervisor_probe(h, l, hypervisor_word(h->accels, accel), on_probe, &p, &err) < 0)
			snprintf(p.why, sizeof(p.why), "%.255s", err.text);
		else if (h)
			loop_run(l);
		if (p.usable) {
			chosen = names->v[i];
			*ret = p;
		} else {
			refuse(&why, names->v[i], p.why);
		}
	}
	loop_destroy(l);
	*ret_why = xstrdup(buf_cstr(&why));
	return chosen;
}
