/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/cluster_spec.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rankset.h"
#include "base/rundir.h"
#include "base/size.h"
#include "wire/message.h"

#define MEMORY_MIN (32ll << 20)
#define MEMORY_MAX (1ll << 46)
#define HUNG_AFTER_MS 60000 /* of a message that does not say */

static int text(const json_t *j, const char *key, char **ret, struct err *err)
{
	const char *s;
	if (message_str(j, key, &s, err) < 0)
		return -1;
	*ret = xstrdup(s);
	return 0;
}

static char *optional(const json_t *j, const char *key)
{
	return xstrdup(json_string_value(json_object_get(j, key)));
}

static int list(const json_t *j, const char *key, struct strvec *ret, struct err *err)
{
	const json_t *a = json_object_get(j, key), *item;
	size_t i;
	if (a && !json_is_array(a))
		return err_set(err, EPROTO, "message: '%s' is no list", key);
	json_array_foreach (a, i, item) {
		if (!json_is_string(item))
			return err_set(err, EPROTO, "message: '%s' holds something that is no text",
				       key);
		strvec_add(ret, json_string_value(item));
	}
	return 0;
}

struct numbers {
	json_int_t size, cpus, memory, scratch, parallel, boot, stop, hung;
};

static int read_numbers(const json_t *j, struct numbers *n, struct err *err)
{
	return message_int(j, "size", 1, CLUSTER_SIZE_MAX, &n->size, err) < 0 ||
			       message_int(j, "cpus", 1, 1024, &n->cpus, err) < 0 ||
			       message_int(j, "memory", MEMORY_MIN, MEMORY_MAX, &n->memory, err) < 0 ||
			       message_int(j, "scratch", 0, MEMORY_MAX, &n->scratch, err) < 0 ||
			       message_int(j, "parallel", 0, CLUSTER_SIZE_MAX, &n->parallel, err) < 0 ||
			       message_int(j, "boot_timeout_ms", 1, 86400000, &n->boot, err) < 0 ||
			       message_int(j, "stop_timeout_ms", 1, 86400000, &n->stop, err) < 0 ||
			       (json_object_get(j, "hung_after_ms") &&
				message_int(j, "hung_after_ms", 1, 86400000, &n->hung, err) < 0)
		       ? -1
		       : 0;
}

static int read_texts(const json_t *j, struct cluster_spec *s, struct err *err)
{
	const struct {
		const char *key;
		char **to;
	} needed[] = {
		{"name", &s->name},
		{"vse", &s->vse},
		{"image", &s->image},
		{"kernel", &s->kernel},
		{"initrd", &s->initrd},
		{"root", &s->root},
		{"root_type", &s->root_type},
		{"modules", &s->modules},
		{"scratch_dir", &s->scratch_dir},
		{"hypervisor", &s->hypervisor},
		{"accel", &s->accel},
		{"machine", &s->machine},
	};
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (text(j, needed[i].key, needed[i].to, err) < 0)
			return -1;
	s->vmlinux = optional(j, "vmlinux");
	s->protection = optional(j, "protection");
	s->restore = optional(j, "restore");
	s->ssh_private = optional(j, "ssh_private");
	s->ssh_public = optional(j, "ssh_public");
	return cluster_name_check(s->name, err);
}

/* "cpu_bind" and "mem_bind" as the options of the front end; absent: none. */
static int read_binding(const json_t *j, struct cluster_spec *s, struct err *err)
{
	static const char *const units[] = {
		[BINDING_NONE] = "none", [BINDING_THREADS] = "threads", [BINDING_CORES] = "cores"};
	const json_t *cpus = json_object_get(j, "cpu_bind"),
		     *memory = json_object_get(j, "mem_bind");
	const char *unit = cpus ? json_string_value(cpus) : "none",
		   *near = memory ? json_string_value(memory) : "none";
	for (size_t i = 0; unit && i < ARRAY_SIZE(units); i++)
		if (strcmp(unit, units[i]) == 0) {
			s->bind.unit = (enum binding_unit)i;
			unit = NULL;
		}
	s->bind.memory = near && strcmp(near, "local") == 0;
	s->bind.share = json_is_true(json_object_get(j, "oversubscribe"));
	if (unit || (cpus && !json_is_string(cpus)))
		return err_set(err, EPROTO, "message: 'cpu_bind' is none of none, threads, cores");
	if (!near || (!s->bind.memory && strcmp(near, "none") != 0))
		return err_set(err, EPROTO, "message: 'mem_bind' is none of none, local");
	if (s->bind.memory && s->bind.unit == BINDING_NONE)
		return err_set(
			err, EINVAL,
			"mem-bind local: near which CPUs? It goes with cpu-bind threads or cores");
	s->hugepages = json_is_true(json_object_get(j, "hugepages"));
	if (s->hugepages && s->memory % HUGEPAGE)
		return err_set(err, EINVAL, "hugepages: memory is no whole number of pages of 2 MiB");
	return 0;
}

static int read_network(const json_t *j, struct cluster_spec *s, struct err *err)
{
	const json_t *v = json_object_get(j, "network");
	const char *how = v ? json_string_value(v) : "switch";
	s->kernel_net = how && strcmp(how, "kernel") == 0;
	if (!how || (!s->kernel_net && strcmp(how, "switch") != 0))
		return err_set(err, EPROTO, "message: 'network' is none of switch, kernel");
	return 0;
}

/* [{"host", "guest", "rw"}] */
static int read_mounts(const json_t *j, struct cluster_spec *s, struct err *err)
{
	const json_t *list = json_object_get(j, "mounts"), *m;
	size_t i;
	if (list && (!json_is_array(list) || json_array_size(list) > HV_MOUNTS_MAX))
		return err_set(err, EPROTO, "message: 'mounts' is no list of at most %d", HV_MOUNTS_MAX);
	s->mounts = xcalloc(HV_MOUNTS_MAX, sizeof(*s->mounts));
	json_array_foreach (list, i, m) {
		const char *host, *guest;
		if (message_str(m, "host", &host, err) < 0 || message_str(m, "guest", &guest, err) < 0)
			return -1;
		if (host[0] != '/' || guest[0] != '/')
			return err_set(err, EPROTO,
				       "message: 'mounts' holds a path that is not absolute");
		s->mounts[s->n_mounts++] = (struct hv_mount){.host = xstrdup(host),
							     .guest = xstrdup(guest),
							     .rw = json_is_true(
								     json_object_get(m, "rw"))};
	}
	return 0;
}

int cluster_spec_can_leave(const struct cluster_spec *s, const char *verb, struct err *err)
{
	if (s->n_mounts)
		return err_set(err, ENOTSUP, "%s: not supported: the VMs have directories of their nodes (%s), which cannot come along",
			       verb, s->mounts[0].guest);
	if (s->devices.n)
		return err_set(err, ENOTSUP, "%s: not supported: the VMs have devices of their nodes (%s), which cannot come along",
			       verb, s->devices.v[0]);
	return 0;
}

static int place_one(struct cluster_spec *s, const char *key, const json_t *ranks, struct err *err)
{
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	int64_t node;
	if (int_parse(key, 1, (int64_t)s->nodes.n, &node, err) < 0 || !json_is_string(ranks) ||
	    rankset_parse(&set, json_string_value(ranks), s->size, err) < 0)
		return err_set(err, EPROTO, "message: 'place' of node %.20s is wrong", key);
	for (uint32_t r = rankset_next(&set, 0); r != UINT32_MAX; r = rankset_next(&set, r + 1)) {
		if (s->node_of[r])
			return err_set(err, EPROTO, "message: 'place' has vm%u twice", r);
		s->node_of[r] = (uint32_t)node;
	}
	return 0;
}

static int read_place(const json_t *j, struct cluster_spec *s, struct err *err)
{
	const char *key;
	json_t *ranks, *place = json_object_get(j, "place");
	if (list(j, "nodes", &s->nodes, err) < 0)
		return -1;
	if (!place)
		return 0;
	s->node_of = xcalloc(s->size, sizeof(*s->node_of));
	json_object_foreach (place, key, ranks)
		if (place_one(s, key, ranks, err) < 0)
			return -1;
	for (uint32_t r = 0; r < s->size; r++)
		if (!s->node_of[r])
			return err_set(err, EPROTO, "message: 'place' lacks vm%u", r);
	return 0;
}

void cluster_spec_write_place(const struct strvec *nodes, const uint32_t *node_of, uint32_t size,
			      json_t *j)
{
	json_t *names = json_array(), *place = json_object();
	struct rankset *sets = xcalloc(nodes->n + 1, sizeof(*sets));
	for (uint32_t r = 0; r < size; r++)
		rankset_add(&sets[node_of[r]], r);
	for (size_t i = 1; i <= nodes->n; i++) {
		_cleanup_buf_ struct buf text = BUF_INIT;
		char key[24];
		json_array_append_new(names, json_string(nodes->v[i - 1]));
		snprintf(key, sizeof(key), "%zu", i);
		rankset_format(&sets[i], &text);
		if (rankset_count(&sets[i]))
			json_object_set_new(place, key, json_string(buf_cstr(&text)));
		rankset_finish(&sets[i]);
	}
	free(sets);
	json_object_set_new(j, "nodes", names);
	json_object_set_new(j, "place", place);
}

int cluster_spec_read(const json_t *j, struct cluster_spec *ret, struct err *err)
{
	struct cluster_spec s = {0};
	struct numbers n = {.hung = HUNG_AFTER_MS};
	const char *subnet;
	if (read_numbers(j, &n, err) < 0 || read_texts(j, &s, err) < 0 ||
	    list(j, "env", &s.env, err) < 0 || list(j, "extra_args", &s.extra_args, err) < 0 ||
	    list(j, "devices", &s.devices, err) < 0 ||
	    list(j, "hypervisor_of", &s.hypervisor_of, err) < 0 ||
	    message_str(j, "subnet", &subnet, err) < 0 ||
	    subnet_parse(subnet, (uint32_t)n.size, &s.subnet, err) < 0) {
		cluster_spec_finish(&s);
		return -1;
	}
	s.size = (uint32_t)n.size;
	s.memory = (uint64_t)n.memory;
	if (read_place(j, &s, err) < 0 || read_binding(j, &s, err) < 0 ||
	    read_network(j, &s, err) < 0 || read_mounts(j, &s, err) < 0) {
		cluster_spec_finish(&s);
		return -1;
	}
	s.cpus = (unsigned)n.cpus;
	s.scratch = (uint64_t)n.scratch;
	s.parallel = (unsigned)n.parallel;
	s.boot_timeout_ms = (uint64_t)n.boot;
	s.stop_timeout_ms = (uint64_t)n.stop;
	s.hung_after_ms = (uint64_t)n.hung;
	s.systemd = json_is_true(json_object_get(j, "systemd"));
	s.outbound = json_is_true(json_object_get(j, "outbound"));
	const json_t *clone = json_object_get(j, "clone");
	s.clone = !clone ? CLONE_AUTO : json_is_true(clone) ? CLONE_ALWAYS : CLONE_NEVER;
	*ret = s;
	return 0;
}

void cluster_spec_finish(struct cluster_spec *s)
{
	char *const owned[] = {s->name,      s->vse,         s->image,      s->kernel,
			       s->vmlinux,   s->initrd,      s->root,       s->root_type,
			       s->modules,   s->scratch_dir, s->hypervisor, s->accel,
			       s->machine,   s->ssh_private, s->ssh_public, s->restore,
			       s->protection};
	for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
		free(owned[i]);
	strvec_finish(&s->env);
	strvec_finish(&s->extra_args);
	strvec_finish(&s->devices);
	strvec_finish(&s->hypervisor_of);
	strvec_finish(&s->nodes);
	for (size_t i = 0; i < s->n_mounts; i++) {
		free((char *)s->mounts[i].host);
		free((char *)s->mounts[i].guest);
	}
	free(s->mounts);
	free(s->node_of);
	*s = (struct cluster_spec){0};
}
