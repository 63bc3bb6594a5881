/* SPDX-License-Identifier: Apache-2.0 */
/* The "create" message: every member is needed, typed and bounded. */
#include <errno.h>

#include "cluster/cluster_spec.h"
#include "tap.h"
#include "wire/message.h"

static json_t *whole(void)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s,"
			 " s:i, s:i, s:I, s:I, s:i, s:i, s:i, s:[s,s], s:[s], s:b, s:b}",
			 "name", "c", "vse", "v", "image", "i", "kernel", "/k", "initrd", "/i",
			 "root", "/r", "root_type", "squashfs", "modules", "a,b", "scratch_dir",
			 "/tmp", "hypervisor", "fake", "accel", "auto", "machine", "auto", "subnet",
			 "10.199.0.0/16", "size", 4, "cpus", 2, "memory", (json_int_t)256 << 20,
			 "scratch", (json_int_t)0, "parallel", 2, "boot_timeout_ms", 1000,
			 "stop_timeout_ms", 1000, "env", "A=1", "B=2", "extra_args", "x", "systemd",
			 0, "outbound", 1);
}

static void test_whole(void)
{
	struct cluster_spec s;
	struct err err = ERR_INIT;
	_cleanup_json_ json_t *j = whole();
	ok(j && cluster_spec_read(j, &s, &err) == 0, "a whole message is read: %s", err.text);
	is_str(s.name, "c", "name");
	is_int(s.size, 4, "size");
	is_int(s.memory, 256 << 20, "memory");
	ok(s.env.n == 2 && s.extra_args.n == 1, "lists");
	ok(s.outbound && !s.systemd, "flags");
	ok(!s.vmlinux && !s.ssh_private, "what may be absent is");
	cluster_spec_finish(&s);
	ok(!s.name && !s.env.n, "and let go");
}

static void refused(json_t *j, const char *what)
{
	struct cluster_spec s = {0};
	struct err err = ERR_INIT;
	ok(cluster_spec_read(j, &s, &err) < 0 && err.code && err.text[0] && !s.name,
	   "refused: %s: %s", what, err.text);
	json_decref(j);
}

static void test_each_is_needed(void)
{
	_cleanup_json_ json_t *all = whole();
	const char *key;
	json_t *value;
	json_object_foreach (all, key, value) {
		if (json_is_array(value) || json_is_boolean(value))
			continue;
		json_t *j = whole();
		json_object_del(j, key);
		refused(j, key);
		j = whole();
		json_object_set_new(j, key, json_array());
		refused(j, key);
	}
}

static void with(const char *key, json_t *value)
{
	json_t *j = whole();
	json_object_set_new(j, key, value);
	refused(j, key);
}

static void test_binding(void)
{
	struct cluster_spec s;
	struct err err = ERR_INIT;
	_cleanup_json_ json_t *j = whole();
	ok(cluster_spec_read(j, &s, &err) == 0 && s.bind.unit == BINDING_NONE && !s.bind.memory &&
		   !s.bind.share && !s.hugepages && !s.kernel_net,
	   "no binding unless it is asked for %s", err.text);
	cluster_spec_finish(&s);
	json_object_set_new(j, "cpu_bind", json_string("cores"));
	json_object_set_new(j, "mem_bind", json_string("local"));
	json_object_set_new(j, "hugepages", json_true());
	json_object_set_new(j, "oversubscribe", json_true());
	json_object_set_new(j, "network", json_string("kernel"));
	ok(cluster_spec_read(j, &s, &err) == 0 && s.bind.unit == BINDING_CORES && s.bind.memory &&
		   s.bind.share && s.hugepages && s.kernel_net,
	   "cores, memory near them, reserved pages, shared, network by the kernel %s", err.text);
	cluster_spec_finish(&s);
	json_object_set_new(j, "memory", json_integer(257 << 20));
	refused(json_incref(j), "half a page");
	with("cpu_bind", json_string("sockets"));
	with("cpu_bind", json_integer(1));
	with("mem_bind", json_string("near"));
	with("mem_bind", json_true());
	with("mem_bind", json_string("local")); /* without cpu_bind */
	with("network", json_string("bridge"));
	with("network", json_true());
}

static void test_mounts(void)
{
	struct cluster_spec s;
	struct err err = ERR_INIT;
	_cleanup_json_ json_t *j = whole();
	ok(cluster_spec_read(j, &s, &err) == 0 && !s.n_mounts, "no host directories %s", err.text);
	is_int(cluster_spec_can_leave(&s, "save", &err), 0, "so it can be saved");
	cluster_spec_finish(&s);
	json_object_set_new(j, "mounts",
			    json_pack("[{s:s, s:s}, {s:s, s:s, s:b}]", "host", "/h", "guest", "/g",
				      "host", "/i", "guest", "/j", "rw", 1));
	ok(cluster_spec_read(j, &s, &err) == 0 && s.n_mounts == 2, "two %s", err.text);
	ok(strcmp(s.mounts[0].host, "/h") == 0 && strcmp(s.mounts[0].guest, "/g") == 0 &&
		   !s.mounts[0].rw && s.mounts[1].rw,
	   "the first is read-only");
	ok(cluster_spec_can_leave(&s, "save", &err) < 0 && err.code == ENOTSUP, "%s", err.text);
	cluster_spec_finish(&s);
	with("mounts", json_string("/h:/g"));
	with("mounts", json_pack("[s]", "/h:/g"));
	with("mounts", json_pack("[{s:s}]", "host", "/h"));
	with("mounts", json_pack("[{s:s, s:s}]", "host", "h", "guest", "/g"));
	with("mounts", json_pack("[{s:s, s:s}]", "host", "/h", "guest", "g"));
	json_t *many = json_array();
	for (int i = 0; i <= HV_MOUNTS_MAX; i++)
		json_array_append_new(many, json_pack("{s:s, s:s}", "host", "/h", "guest", "/g"));
	with("mounts", many);
	with("devices", json_string("pci:15b3:101e"));
	with("devices", json_pack("[i]", 1));
	j = (json_decref(j), whole());
	json_object_set_new(j, "devices", json_pack("[s]", "pci:15b3:101e"));
	ok(cluster_spec_read(j, &s, &err) == 0 && s.devices.n == 1, "a device %s", err.text);
	err = ERR_INIT;
	ok(cluster_spec_can_leave(&s, "migrate", &err) < 0 && err.code == ENOTSUP &&
		   strstr(err.text, "devices of their nodes"),
	   "%s", err.text);
	cluster_spec_finish(&s);
}

static void test_bounds(void)
{
	with("size", json_integer(0));
	with("size", json_integer(CLUSTER_SIZE_MAX + 1));
	with("size", json_integer(-1));
	with("cpus", json_integer(0));
	with("memory", json_integer(1 << 20));
	with("memory", json_integer(INT64_MAX));
	with("scratch", json_integer(-1));
	with("parallel", json_integer(-1));
	with("boot_timeout_ms", json_integer(0));
	with("hung_after_ms", json_integer(0));
	with("name", json_string("../x"));
	with("name", json_string("UPPER"));
	with("subnet", json_string("10.0.0.0/33"));
	with("subnet", json_string("10.0.0.0/30")); /* too small for four VMs and what a subnet keeps */
	with("subnet", json_string("not one"));
	with("env", json_string("A=1"));
	with("env", json_pack("[i]", 1));
	with("extra_args", json_pack("{}"));
}

int main(void)
{
	test_whole();
	test_each_is_needed();
	test_bounds();
	test_mounts();
	test_binding();
	return done();
}
