/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/cloning.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/room.h"
#include "stage/cache.h"

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
	const char *const texts[] = {"vse template 1", p->hypervisor->name, p->probe.accel,
				     p->probe.version, s->machine,          s->image,
				     s->kernel,        s->vmlinux,          s->root,
				     p->cmdline};
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

#define UNFINISHED_S 3600 /* a file under way, of an agent that was killed */
#define TEMPLATE_S                                                                                 \
	(14 * 24 * 3600) /* then it is made anew: what it was made of may be gone for good, and nobody tells */

static void sweep_templates(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	struct stat st;
	while (d && (e = readdir(d)))
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		    time(NULL) - st.st_mtime > (e->d_name[0] == '.' ? UNFINISHED_S : TEMPLATE_S))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

/* Where the node keeps files of images too; NULL where there is no such folder of ours alone. */
static char *cache_for_templates(void)
{
	const char *asked = getenv("VSE_CACHE");
	_cleanup_free_ char *folder = asked && asked[0] == '/' ? xstrdup(asked)
							       : xasprintf("/var/tmp/vse-cache-%u",
									   (unsigned)geteuid());
	struct cache *c;
	if (cache_open(folder, UINT64_MAX, &c, NULL) < 0)
		return NULL;
	char *path = path_join(cache_folder(c), "templates");
	cache_close(c);
	if (mkdir(path, 0700) == 0 || errno == EEXIST) {
		sweep_templates(path);
		return path;
	}
	free(path);
	return NULL;
}

struct template *cloning_begin(struct loop *l, const struct cluster_spec *s,
			       const struct vm_profile *p, const char *dir, uint32_t vms,
			       void (*done)(void *arg, const struct err *err), void *arg,
			       struct err *err)
{
	char key[SHA_HEX];
	if (make_key(s, p, key, err) < 0)
		return NULL;
	_cleanup_free_ char *own = path_join(dir, "template"), *cache = cache_for_templates();
	bool asked = s->clone != CLONE_AUTO;
	struct template_spec spec = {.profile = p,
				     .dir = own,
				     .cache = cache,
				     .key = key,
				     .make = vms >= (asked ? WORTH : WORTH_AUTO),
				     .bound_ms = asked ? p->boot_timeout_ms
						       : MIN(s->hung_after_ms, p->boot_timeout_ms)};
	return template_create(l, &spec, done, arg, err);
}
