/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/cluster_spec.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rundir.h"
#include "wire/message.h"

#define MEMORY_MIN (32ll << 20)
#define MEMORY_MAX (1ll << 46)

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
	json_int_t size, cpus, memory, scratch, parallel, boot, stop;
};

static int read_numbers(const json_t *j, struct numbers *n, struct err *err)
{
	return message_int(j, "size", 1, CLUSTER_SIZE_MAX, &n->size, err) < 0 ||
			       message_int(j, "cpus", 1, 1024, &n->cpus, err) < 0 ||
			       message_int(j, "memory", MEMORY_MIN, MEMORY_MAX, &n->memory, err) < 0 ||
			       message_int(j, "scratch", 0, MEMORY_MAX, &n->scratch, err) < 0 ||
			       message_int(j, "parallel", 1, CLUSTER_SIZE_MAX, &n->parallel, err) < 0 ||
			       message_int(j, "boot_timeout_ms", 1, 86400000, &n->boot, err) < 0 ||
			       message_int(j, "stop_timeout_ms", 1, 86400000, &n->stop, err) < 0
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
	s->ssh_private = optional(j, "ssh_private");
	s->ssh_public = optional(j, "ssh_public");
	return cluster_name_check(s->name, err);
}

int cluster_spec_read(const json_t *j, struct cluster_spec *ret, struct err *err)
{
	struct cluster_spec s = {0};
	struct numbers n = {0};
	const char *subnet;
	if (read_numbers(j, &n, err) < 0 || read_texts(j, &s, err) < 0 ||
	    list(j, "env", &s.env, err) < 0 || list(j, "extra_args", &s.extra_args, err) < 0 ||
	    message_str(j, "subnet", &subnet, err) < 0 ||
	    subnet_parse(subnet, (uint32_t)n.size, &s.subnet, err) < 0) {
		cluster_spec_finish(&s);
		return -1;
	}
	s.size = (uint32_t)n.size;
	s.cpus = (unsigned)n.cpus;
	s.memory = (uint64_t)n.memory;
	s.scratch = (uint64_t)n.scratch;
	s.parallel = (unsigned)n.parallel;
	s.boot_timeout_ms = (uint64_t)n.boot;
	s.stop_timeout_ms = (uint64_t)n.stop;
	s.systemd = json_is_true(json_object_get(j, "systemd"));
	s.outbound = json_is_true(json_object_get(j, "outbound"));
	*ret = s;
	return 0;
}

void cluster_spec_finish(struct cluster_spec *s)
{
	char *const owned[] = {s->name,    s->vse,         s->image,      s->kernel,
			       s->vmlinux, s->initrd,      s->root,       s->root_type,
			       s->modules, s->scratch_dir, s->hypervisor, s->accel,
			       s->machine, s->ssh_private, s->ssh_public};
	for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
		free(owned[i]);
	strvec_finish(&s->env);
	strvec_finish(&s->extra_args);
	*s = (struct cluster_spec){0};
}
