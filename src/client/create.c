/* SPDX-License-Identifier: Apache-2.0 */
#include "client/create.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/alloc.h"
#include "base/proc.h"
#include "base/rundir.h"
#include "base/text.h"
#include "base/topology.h"
#include "client/saved.h"
#include "client/sshkey.h"

#define BOOT_TIMEOUT_MS 120000
#define STOP_TIMEOUT_MS 20000

static const char *scratch_dir(void)
{
	const char *asked = getenv("VSE_SCRATCH"), *tmp = getenv("TMPDIR");
	if (asked && asked[0]) /* never another than the one that was asked for */
		return asked;
	return tmp && tmp[0] == '/' && access(tmp, W_OK) == 0 ? tmp : "/tmp";
}

static int load(struct create *c, const char *file, struct vse_error *e)
{
	if (vse_load(file, &c->vse, &e->problems, &e->err) == 0)
		return 0;
	e->usage = true;
	if (!e->problems.n)
		return error_code(e);
	int code = e->err.code ? e->err.code : EINVAL;
	if (e->problems.n > 1)
		return error_set(e, code, "%s (and %zu more)", e->problems.v[0], e->problems.n - 1);
	return error_set(e, code, "%s", e->problems.v[0]);
}

static int check_binding(const struct vse_options *o, struct vse_error *e)
{
	const char *cpus = options_text(o, "cpu-bind"), *memory = options_text(o, "mem-bind");
	if (!memory || strcmp(memory, "local") != 0 || (cpus && strcmp(cpus, "none") != 0))
		return 0;
	return error_option(e, "mem-bind",
			    " local: near which CPUs? It goes with --cpu-bind threads or cores");
}

/* A machine that was saved goes on with the devices that it had. */
static int check_network(const struct create *c, struct vse_error *e)
{
	const char *saved = json_string_value(json_object_get(c->saved, "network")),
		   *had = saved ? saved : "switch", *asked = create_choice(c, "network", had);
	if (c->saved && strcmp(asked, had) != 0)
		return error_option(e, "network", " %s: it was saved with --network %s", asked, had);
	/* With a launcher the agents may be somebody else's: the nodes say it. */
	if (strcmp(asked, "kernel") != 0 || c->launch)
		return 0;
	if (proc_capable(CAP_NET_ADMIN) && proc_capable(CAP_SYS_ADMIN))
		return 0;
	return error_option(e, "network",
			    " kernel: root is needed (CAP_NET_ADMIN and CAP_SYS_ADMIN); the "
			    "network that needs none is --network switch");
}

static int choose_place(struct create *c, struct vse_error *e)
{
	int rc = place_choose(c->o, &c->launch, c->where, e);
	return rc ? rc : check_network(c, e);
}

static int add_mounts(struct vse *v, const struct vse_options *o, struct vse_error *e)
{
	const struct strvec *all = options_all(o, "mount");
	char cwd[PATH_MAX] = "/";
	struct err err = ERR_INIT;
	if (all->n && !getcwd(cwd, sizeof(cwd)))
		return error_set(e, errno, "the current folder: %s", strerror(errno));
	for (size_t i = 0; i < all->n; i++)
		if (vse_add_mount(v, all->v[i], cwd, &err) < 0)
			return error_option(e, "mount", ": %s", err.text);
	return 0;
}

static int add_devices(struct vse *v, const struct vse_options *o, struct vse_error *e)
{
	strvec_copy(&v->devices, options_all(o, "device"));
	return v->devices.n <= VSE_DEVICES_MAX
		       ? 0
		       : error_option(e, "device", ": a VM has at most %d, with those of the VSE file",
				      VSE_DEVICES_MAX);
}

int create_prepare(struct create *c, const char *file, const struct vse_options *o, struct vse_error *e)
{
	int rc = options_check(o, FOR_UP, e);
	if (!rc)
		rc = check_binding(o, e);
	if (!rc)
		rc = load(c, file, e);
	if (!rc)
		rc = add_mounts(c->vse, o, e);
	if (!rc)
		rc = add_devices(c->vse, o, e);
	if (rc)
		return rc;
	struct vse *v = c->vse;
	c->o = o;
	c->size = (uint32_t)options_int(o, "count", 1);
	v->cpus = (unsigned)options_int(o, "cpus", v->cpus);
	v->memory = options_size(o, "memory", v->memory);
	v->scratch = options_size(o, "scratch", v->scratch);
	if (options_flag(o, "hugepages"))
		v->memory = (v->memory + HUGEPAGE - 1) / HUGEPAGE * HUGEPAGE;
	if (options_flag(c->o, "clone") && options_flag(c->o, "no-clone"))
		return error_option(e, "no-clone", ": not together with --clone");
	c->name = create_choice(c, "name", v->name);
	if (!text_is_utf8(scratch_dir())) {
		e->usage = true;
		return error_set(e, EINVAL, "the scratch folder is not UTF-8 text: set VSE_SCRATCH to another");
	}
	if (cluster_name_check(c->name, &e->err) < 0) {
		e->usage = true;
		return error_code(e);
	}
	return choose_place(c, e);
}

/* What a saved machine has cannot be chosen anew. */
static int check_saved_options(const struct vse_options *o, struct vse_error *e)
{
	static const char *const fixed[] = {"count",      "cpus",     "memory", "scratch",
					    "hypervisor", "machine",  "accel",  "hypervisor-arg",
					    "clone",      "no-clone", "mount",  "device"};
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (options_text(o, fixed[i]))
			return error_option(e, fixed[i], " is as it was saved");
	return options_check(o, FOR_UP, e);
}

int create_prepare_saved(struct create *c, const char *dir, const struct vse_options *o,
			 struct vse_error *e)
{
	int rc = check_saved_options(o, e);
	if (rc)
		return rc;
	c->dir = realpath(dir, NULL);
	if (!c->dir) {
		err_errno(&e->err, errno, "%s", dir);
		return error_code(e);
	}
	if (saved_cluster_read(c->dir, &c->saved, &e->err) < 0)
		return error_code(e);
	c->o = o;
	c->size = (uint32_t)json_integer_value(json_object_get(c->saved, "size"));
	c->name = create_choice(c, "name", json_string_value(json_object_get(c->saved, "name")));
	if (!c->name || cluster_name_check(c->name, &e->err) < 0) {
		e->usage = true;
		return c->name ? error_code(e) : error_set(e, EBADMSG, "%s: no name in it", c->dir);
	}
	return choose_place(c, e);
}

void create_finish(struct create *c)
{
	json_decref(c->saved);
	free(c->dir);
	image_destroy(c->image);
	vse_destroy(c->vse);
	json_decref(c->launch);
}

/* A VSE that says how well it wants to be protected leaves the choice to the nodes. */
const char *create_hypervisor(const struct create *c)
{
	return create_choice(c, "hypervisor", c->vse && c->vse->protection ? "auto" : "qemu");
}

const char *create_choice(const struct create *c, const char *key, const char *otherwise)
{
	const char *v = options_text(c->o, key);
	return v ? v : otherwise;
}

bool create_needs_image(const struct create *c)
{
	const char *saved = json_string_value(json_object_get(c->saved, "hypervisor"));
	return strcmp(saved ? saved : create_hypervisor(c), "fake") != 0;
}

/* ---- the message ---- */

static json_t *text_list(const struct strvec *v)
{
	json_t *list = json_array();
	for (size_t i = 0; i < v->n; i++)
		json_array_append_new(list, json_string(v->v[i]));
	return list;
}

static json_t *mount_list(const struct vse *v)
{
	json_t *list = json_array();
	for (size_t i = 0; i < v->n_mounts; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:b}", "host", v->mounts[i].host,
						"guest", v->mounts[i].guest, "rw", v->mounts[i].rw));
	return list;
}

static json_t *env_list(const struct vse *v)
{
	json_t *list = json_array();
	for (size_t i = 0; i < v->n_env; i++)
		json_array_append_new(list, json_sprintf("%s=%s", v->env[i].name, v->env[i].value));
	return list;
}

/* A path of this host may be no text: that is an error, never a message without it. */
static void set_text(json_t *j, const char *key, const char *text, struct err *err)
{
	_cleanup_free_ char *shown = text_cleaned(text);
	if (text && json_object_set_new(j, key, json_string(text)) < 0)
		err_set(err, EILSEQ, "%s %s: not UTF-8 text", key, shown);
}

static void set_image(json_t *j, const struct image *i, struct err *err)
{
	set_text(j, "image", i ? i->id : "", err);
	set_text(j, "kernel", i ? i->kernel : "", err);
	set_text(j, "vmlinux", i ? i->vmlinux : NULL, err);
	set_text(j, "initrd", i ? i->initrd : "", err);
	set_text(j, "root", i ? i->root : "", err);
	set_text(j, "root_type", i ? i->root_type : "", err);
	set_text(j, "modules", i ? i->modules : "", err);
}

static void set_keys(json_t *j, const char *name, struct err *err)
{
	_cleanup_free_ char *secret = NULL, *open = NULL;
	if (sshkey_make(name, &secret, &open, err) < 0)
		return;
	set_text(j, "ssh_private", secret, err);
	set_text(j, "ssh_public", open, err);
}

/* What was asked for anew, or at all. */
static void set_binding(const struct create *c, json_t *j)
{
	static const char *const texts[][2] = {{"cpu-bind", "cpu_bind"},
					       {"mem-bind", "mem_bind"},
					       {"network", "network"}};
	static const char *const flags[] = {"hugepages", "oversubscribe"};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (options_text(c->o, texts[i][0]))
			json_object_set_new(j, texts[i][1],
					    json_string(options_text(c->o, texts[i][0])));
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (options_text(c->o, flags[i]))
			json_object_set_new(j, flags[i], json_boolean(options_flag(c->o, flags[i])));
}

/* As it was, but for where it runs. */
static json_t *saved_message(const struct create *c, struct err *ret_err)
{
	static const char *const elsewhere[] = {"launch", "nodes", "place", "addresses", "files"};
	struct err err = ERR_INIT;
	json_t *j = json_deep_copy(c->saved);
	for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++)
		json_object_del(j, elsewhere[i]);
	set_text(j, "verb", "create", &err);
	set_text(j, "name", c->name, &err);
	set_text(j, "restore", c->dir, &err);
	set_text(j, "scratch_dir", scratch_dir(), &err);
	set_binding(c, j);
	if (c->image)
		set_image(j, c->image, &err);
	json_object_set_new(j, "parallel", json_integer((json_int_t)options_int(c->o, "parallel", 0)));
	json_object_set_new(j, "boot_timeout_ms",
			    json_integer((json_int_t)options_ms(c->o, "timeout", BOOT_TIMEOUT_MS)));
	if (c->launch)
		json_object_set(j, "launch", c->launch);
	if (!err.code)
		return j;
	json_decref(j);
	err_copy(ret_err, &err);
	return NULL;
}

json_t *create_message(const struct create *c, struct err *ret_err)
{
	if (c->saved)
		return saved_message(c, ret_err);
	const struct vse *v = c->vse;
	const struct image *i = c->image; /* NULL: the back end needs none */
	struct err err = ERR_INIT;
	json_t *j = json_pack("{s:s, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "verb",
			      "create", "size", (json_int_t)c->size, "cpus", (int)v->cpus, "memory",
			      (json_int_t)v->memory, "scratch", (json_int_t)v->scratch, "parallel",
			      (json_int_t)options_int(c->o, "parallel", 0), "boot_timeout_ms",
			      (json_int_t)options_ms(c->o, "timeout", BOOT_TIMEOUT_MS),
			      "stop_timeout_ms", (json_int_t)STOP_TIMEOUT_MS, "systemd",
			      i && i->init == VSE_INIT_SYSTEMD, "outbound", v->net_outbound);
	set_text(j, "name", c->name, &err);
	set_text(j, "vse", v->name, &err);
	set_image(j, i, &err);
	set_text(j, "scratch_dir", scratch_dir(), &err);
	set_text(j, "subnet", v->net_subnet, &err);
	set_text(j, "hypervisor", create_hypervisor(c), &err);
	set_text(j, "protection", v->protection, &err);
	set_text(j, "accel", create_choice(c, "accel", "auto"), &err);
	set_text(j, "machine", create_choice(c, "machine", "auto"), &err);
	if (options_text(c->o, "hung-after"))
		json_object_set_new(j, "hung_after_ms",
				    json_integer((json_int_t)options_ms(c->o, "hung-after", 0)));
	json_object_set_new(j, "extra_args", text_list(options_all(c->o, "hypervisor-arg")));
	json_object_set_new(j, "env", env_list(v));
	json_object_set_new(j, "mounts", mount_list(v));
	json_object_set_new(j, "devices", text_list(&v->devices));
	if (options_text(c->o, "clone") || options_flag(c->o, "no-clone"))
		json_object_set_new(j, "clone", json_boolean(options_flag(c->o, "clone")));
	set_binding(c, j);
	if (c->launch)
		json_object_set(j, "launch", c->launch);
	if (i && i->has_sshd)
		set_keys(j, c->name, &err);
	if (!err.code)
		return j;
	json_decref(j);
	err_copy(ret_err, &err);
	return NULL;
}
