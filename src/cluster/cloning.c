/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/cloning.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/room.h"
#include "stage/sha.h"
#include "vm/kept.h"

#define WORTH 2 /* VMs: for one alone nothing is gained */
#define WORTH_AUTO                                                                                 \
	4 /* as many boot at once on a node that takes long for one, and nothing is kept of them */
#define INITRD_MAX (256u << 20)

/* What nobody asked for must cost nobody anything. */
static const char *does_not_pay(const struct cluster_spec *s, const struct vm_profile *p,
				uint32_t vms, unsigned cpus)
{
	if (strcmp(p->hypervisor->name, "fake") == 0)
		return "its guests boot by a script, which is to be seen";
	if (s->bind.memory)
		return "the template's memory is near no VM's CPUs (--mem-bind local)";
	/* What clones write to is in pages of 4 KiB, where a VM that was booted has transparent huge ones: under KVM
	 * that counts for as long as it runs. */
	if (strcmp(p->probe.accel, "kvm") == 0 && (uint64_t)vms * s->cpus <= cpus)
		return "each VM has CPUs of its own";
	/* A page that a clone is the first to touch is taken by the template, too. */
	if (room_memory() / s->memory <= vms)
		return "there is no memory for one VM more, which the template may grow to";
	return NULL;
}

const char *cloning_lacks(const struct cluster_spec *s, const struct vm_profile *p, uint32_t vms,
			  unsigned cpus)
{
	const char *why = hypervisor_lacks(p->hypervisor, &p->probe, HV_CAP_SNAPSHOT);
	if (!why)
		why = hypervisor_lacks(p->hypervisor, &p->probe, HV_CAP_CLONE);
	if (why)
		return why;
	if (s->kernel_net)
		return "the template has no tap (--network kernel)";
	if (s->hugepages)
		return "memory in reserved pages cannot be shared";
	if (s->devices.n)
		return "devices of the node have no copy";
	if (s->systemd)
		return "systemd (init: systemd) remembers who it is before it can be told";
	if (s->scratch)
		return "each has a scratch disk of its own, mounted while it boots";
	return s->clone == CLONE_AUTO ? does_not_pay(s, p, vms, cpus) : NULL;
}

static void add(struct sha *h, const char *text)
{
	sha_add(h, text ? text : "", text ? strlen(text) + 1 : 1);
}

static void add_number(struct sha *h, uint64_t n)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, n);
	add(h, text);
}

/* A file that was staged is named by its content, and lies elsewhere on other nodes. */
static const char *content(const char *path)
{
	const char *name = path ? strrchr(path, '/') : NULL;
	return name && strlen(name + 1) == 2 * SHA_SIZE &&
			       strspn(name + 1, "0123456789abcdef") == 2 * SHA_SIZE
		       ? name + 1
		       : path;
}

/* Who boots: kernel, root and modules are of the image, whose id is a hash; the initramfs is made by this vse. On what: the
 * hypervisor's own signature has the rest, and is compared when a VM starts. */
static int make_key(const struct cluster_spec *s, const struct vm_profile *p, char out[SHA_HEX],
		    struct err *err)
{
	_cleanup_free_ char *initrd = NULL;
	size_t n = 0;
	uint8_t hash[SHA_SIZE];
	if (s->initrd[0] && path_read(s->initrd, INITRD_MAX, &initrd, &n, err) < 0)
		return -1;
	struct sha *h = sha_new();
	const char *const texts[] = {"vse template 2", p->hypervisor->name, p->probe.accel,
				     p->probe.version, p->probe.node_type,  s->machine,
				     s->image,         content(s->kernel),  content(s->vmlinux),
				     content(s->root), p->cmdline};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		add(h, texts[i]);
	for (size_t i = 0; i < s->extra_args.n; i++)
		add(h, s->extra_args.v[i]);
	const uint64_t numbers[] = {s->extra_args.n, s->cpus,    s->memory,   p->nic,
				    p->outbound,     p->trusted, p->n_mounts, n};
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		add_number(h, numbers[i]);
	sha_add(h, initrd ? initrd : "", n);
	sha_end(h, hash);
	sha_free(h);
	sha_hex(hash, out);
	return 0;
}

struct template *cloning_begin(struct loop *l, const struct cluster_spec *s, const struct vm_profile *p,
			       const char *dir, uint32_t vms, const struct template_source *source,
			       void *source_arg, void (*done)(void *arg, const struct err *err),
			       void *arg, struct err *err)
{
	char key[SHA_HEX];
	if (make_key(s, p, key, err) < 0)
		return NULL;
	_cleanup_free_ char *own = path_join(dir, "template"), *cache = kept_folder();
	bool asked = s->clone != CLONE_AUTO;
	if (cache)
		kept_sweep(cache, kept_limit(), key);
	struct template_spec spec = {
		.profile = p,
		.dir = own,
		.cache = cache,
		.key = key,
		.source = asked || vms >= WORTH_AUTO ? source : NULL, /* what nobody asked for is not waited for */
		.source_arg = source_arg,
		.make = vms >= (asked ? WORTH : WORTH_AUTO),
		.bound_ms = asked ? p->boot_timeout_ms : MIN(s->hung_after_ms, p->boot_timeout_ms)};
	return template_create(l, &spec, done, arg, err);
}

void cloning_tell(struct events *events, const struct cluster_spec *s, uint32_t self,
		  const struct template *t, const struct err *err)
{
	bool node = self && self <= s->nodes.n;
	const char *name = node ? s->nodes.v[self - 1] : "", *kind = node ? "node" : "cluster";
	if (!err)
		events_add(events, EVENT_NO_RANK, kind, "%s%sVMs start from a template%s", name,
			   node ? ": " : "", template_origin(t));
	else if (err->code != ENOENT)
		events_add(events, EVENT_NO_RANK, kind, "%s%sno template, VMs boot: %s", name,
			   node ? ": " : "", err->text);
}
