/* SPDX-License-Identifier: Apache-2.0 */
#include "spec/schema.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/alloc.h"
#include "base/path.h"
#include "spec/rules.h"

static void replace(char **at, char *taken)
{
	free(*at);
	*at = taken;
}

/* Joins a path of the file to the file's folder and drops "." and empty parts; ".." stays, as it may cross a link. */
static char *host_path(const char *dir, const char *path)
{
	_cleanup_free_ char *full = *path == '/' ? xstrdup(path) : path_join(dir, path);
	char *out = xmalloc(strlen(full) + 2), *o = out;
	for (const char *p = full; *p;) {
		p += strspn(p, "/");
		size_t n = strcspn(p, "/");
		if (n && !(n == 1 && *p == '.')) {
			*o++ = '/';
			memcpy(o, p, n);
			o += n;
		}
		p += n;
	}
	if (o == out)
		*o++ = '/';
	*o = '\0';
	return out;
}

/* The path of something on this host that must be there. */
static int existing(const struct spec_context *c, const char *text, char **ret, struct stat *st,
		    struct err *err)
{
	char shown[RULE_SHOWN];
	if (!*text)
		return err_set(err, EINVAL, "'' is no path");
	_cleanup_free_ char *path = host_path(c->dir, text);
	if (stat(path, st) < 0)
		return err_errno(err, errno, "'%s'", rule_shown(text, shown));
	*ret = TAKE_PTR(path);
	return 0;
}

/* ---- setters: each checks by a rule and stores ---- */

static int set_version(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	char shown[RULE_SHOWN];
	(void)c;
	(void)object;
	return strcmp(text, "1") == 0 ? 0
				      : err_set(err, EINVAL, "'%s' is not a version this vse reads",
						rule_shown(text, shown));
}

#define SET_STRING(field)                                                                          \
	static int set_##field(const struct spec_context *c, void *object, const char *text,       \
			       struct err *err)                                                    \
	{                                                                                          \
		struct vse *v = object;                                                            \
		(void)c;                                                                           \
		if (rule_##field(text, err) < 0)                                                   \
			return -1;                                                                 \
		replace(&v->field, xstrdup(text));                                                 \
		return 0;                                                                          \
	}
SET_STRING(name)
SET_STRING(description)
SET_STRING(mirror)

#define SET_VALUE(fn, rule, member)                                                                  \
	static int fn(const struct spec_context *c, void *object, const char *text, struct err *err) \
	{                                                                                            \
		struct vse *v = object;                                                              \
		(void)c;                                                                             \
		return rule(text, &v->member, err);                                                  \
	}
SET_VALUE(set_cpus, rule_cpus, cpus)
SET_VALUE(set_memory, rule_memory, memory)
SET_VALUE(set_scratch, rule_scratch, scratch)
SET_VALUE(set_outbound, rule_bool, net_outbound)

static int set_subnet(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse *v = object;
	(void)c;
	if (rule_subnet(text, err) < 0)
		return -1;
	replace(&v->net_subnet, xstrdup(text));
	return 0;
}

static int set_root(const struct spec_context *c, struct vse *v, enum vse_base kind,
		    const char *path, struct err *err)
{
	_cleanup_free_ char *full = NULL;
	char shown[RULE_SHOWN];
	struct stat st;
	if (existing(c, path, &full, &st, err) < 0)
		return -1;
	if (kind == VSE_BASE_DIR ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "'%s' is not a %s", rule_shown(path, shown),
			       kind == VSE_BASE_DIR ? "folder" : "file");
	v->base = kind;
	replace(&v->base_path, TAKE_PTR(full));
	return 0;
}

static int set_base(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse *v = object;
	char shown[RULE_SHOWN];
	const char *colon = strchr(text, ':');
	if (!colon || !colon[1])
		return err_set(err, EINVAL, "'%s' is not KIND:WHAT", rule_shown(text, shown));
	if (strncmp(text, "dir:", 4) == 0)
		return set_root(c, v, VSE_BASE_DIR, colon + 1, err);
	if (strncmp(text, "tar:", 4) == 0)
		return set_root(c, v, VSE_BASE_TAR, colon + 1, err);
	_cleanup_free_ char *kind = xstrndup(text, (size_t)(colon - text));
	if (strcmp(kind, "debian") && strcmp(kind, "ubuntu"))
		return err_set(err, EINVAL, "'%s' is not a kind of base", rule_shown(kind, shown));
	if (rule_suite(colon + 1, err) < 0)
		return err_prefix(err, "the suite ");
	v->base = VSE_BASE_DISTRO;
	replace(&v->distro, TAKE_PTR(kind));
	replace(&v->suite, xstrdup(colon + 1));
	return 0;
}

static int set_arch(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse *v = object;
	char shown[RULE_SHOWN];
	(void)c;
	if (strcmp(text, "amd64") && strcmp(text, "arm64"))
		return err_set(err, EINVAL, "'%s' is not an architecture that vse runs",
			       rule_shown(text, shown));
	replace(&v->arch, xstrdup(text));
	return 0;
}

#define SET_ITEM(fn, rule, member)                                                                   \
	static int fn(const struct spec_context *c, void *object, const char *text, struct err *err) \
	{                                                                                            \
		struct vse *v = object;                                                              \
		(void)c;                                                                             \
		if (rule(text, err) < 0)                                                             \
			return -1;                                                                   \
		strvec_add(&v->member, text);                                                        \
		return 0;                                                                            \
	}
SET_ITEM(add_component, rule_component, components)
SET_ITEM(add_package, rule_package, packages)
SET_ITEM(add_step, rule_build_step, build)

static void *add_file(void *object)
{
	struct vse *v = object;
	v->files = xreallocarray(v->files, v->n_files + 1, sizeof(*v->files));
	struct vse_file *f = &v->files[v->n_files++];
	*f = (struct vse_file){.mode = UINT32_MAX};
	return f;
}

static int set_file_path(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse_file *f = object;
	char shown[RULE_SHOWN];
	if (rule_guest_path(text, err) < 0)
		return -1;
	for (size_t i = 0; i + 1 < c->vse->n_files; i++)
		if (c->vse->files[i].path && strcmp(c->vse->files[i].path, text) == 0)
			return err_set(err, EINVAL, "'%s' is the path of files[%zu] already",
				       rule_shown(text, shown), i);
	replace(&f->path, xstrdup(text));
	return 0;
}

static int set_file_content(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse_file *f = object;
	(void)c;
	(void)err;
	replace(&f->content, xstrdup(text));
	return 0;
}

static int set_file_source(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse_file *f = object;
	_cleanup_free_ char *full = NULL;
	char shown[RULE_SHOWN];
	struct stat st;
	if (existing(c, text, &full, &st, err) < 0)
		return -1;
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return err_set(err, EINVAL, "'%s' is neither a file nor a folder",
			       rule_shown(text, shown));
	if (f->mode == UINT32_MAX)
		f->mode = st.st_mode & 0777;
	replace(&f->source, TAKE_PTR(full));
	return 0;
}

static int set_file_mode(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse_file *f = object;
	(void)c;
	return rule_mode(text, &f->mode, err);
}

static int set_file_owner(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse_file *f = object;
	(void)c;
	return rule_owner(text, &f->uid, &f->gid, err);
}

static void *add_mount(void *object)
{
	struct vse *v = object;
	v->mounts = xreallocarray(v->mounts, v->n_mounts + 1, sizeof(*v->mounts));
	struct vse_mount *m = &v->mounts[v->n_mounts++];
	*m = (struct vse_mount){0};
	return m;
}

static int set_mount_host(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse_mount *m = object;
	if (!*text)
		return err_set(err, EINVAL, "'' is no path");
	_cleanup_free_ char *path = host_path(c->dir, text);
	if (rule_mount_host(path, err) < 0)
		return -1;
	replace(&m->host, TAKE_PTR(path));
	return 0;
}

static int set_mount_guest(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse_mount *m = object;
	char shown[RULE_SHOWN], other[RULE_SHOWN];
	if (rule_mount_guest(text, err) < 0)
		return -1;
	if (c->vse->n_mounts > VSE_MOUNTS_MAX)
		return err_set(err, EINVAL, "'%s' is one too many: a VM has at most %d",
			       rule_shown(text, shown), VSE_MOUNTS_MAX);
	for (size_t i = 0; i + 1 < c->vse->n_mounts; i++) {
		const char *there = c->vse->mounts[i].guest;
		if (there && rule_paths_meet(there, text))
			return err_set(err, EINVAL,
				       "'%s' and '%s' of mounts[%zu] lie one over the other",
				       rule_shown(text, shown), rule_shown(there, other), i);
	}
	replace(&m->guest, xstrdup(text));
	return 0;
}

static int set_mount_mode(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse_mount *m = object;
	(void)c;
	return rule_mount_mode(text, &m->rw, err);
}

/* The parts of HOST:GUEST[:MODE], in place. */
static int split_mount(char *text, char *part[3])
{
	size_t n = 0;
	for (char *p; (p = strsep(&text, ":"));) {
		if (n == 3)
			return -1;
		part[n++] = p;
	}
	return n >= 2 ? 0 : -1;
}

int vse_add_mount(struct vse *v, const char *text, const char *dir, struct err *err)
{
	_cleanup_free_ char *copy = xstrdup(text);
	char *part[3] = {0}, shown[RULE_SHOWN];
	struct spec_context c = {.vse = v, .dir = dir};
	if (split_mount(copy, part) < 0)
		return err_set(err, EINVAL, "'%s' is not HOST:GUEST or HOST:GUEST:MODE",
			       rule_shown(text, shown));
	void *m = add_mount(v);
	if (set_mount_host(&c, m, part[0], err) == 0 && set_mount_guest(&c, m, part[1], err) == 0 &&
	    (!part[2] || set_mount_mode(&c, m, part[2], err) == 0))
		return 0;
	v->n_mounts--;
	free(v->mounts[v->n_mounts].host);
	free(v->mounts[v->n_mounts].guest);
	return -1;
}

static int add_env(void *object, const char *name, const char *text, struct err *err)
{
	struct vse *v = object;
	if (rule_env_value(text, err) < 0)
		return -1;
	v->env = xreallocarray(v->env, v->n_env + 1, sizeof(*v->env));
	v->env[v->n_env++] = (struct vse_env){xstrdup(name), xstrdup(text)};
	return 0;
}

static int set_init(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse *v = object;
	char shown[RULE_SHOWN];
	(void)c;
	if (strcmp(text, "vse") && strcmp(text, "systemd"))
		return err_set(err, EINVAL, "'%s' is not an init", rule_shown(text, shown));
	v->init = strcmp(text, "vse") ? VSE_INIT_SYSTEMD : VSE_INIT_VSE;
	return 0;
}

static int set_protection(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse *v = object;
	char shown[RULE_SHOWN];
	(void)c;
	if (strcmp(text, "vm") && strcmp(text, "container"))
		return err_set(err, EINVAL, "'%s' is not a level of protection",
			       rule_shown(text, shown));
	replace(&v->protection, xstrdup(text));
	return 0;
}

static int set_kernel(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse *v = object;
	char shown[RULE_SHOWN];
	struct stat st;
	_cleanup_free_ char *full = NULL;
	if (!strchr(text, '/')) {
		if (strcmp(text, "auto") && rule_package(text, err) < 0)
			return -1;
		full = xstrdup(text);
	} else if (existing(c, text, &full, &st, err) < 0) {
		return -1;
	} else if (!S_ISREG(st.st_mode)) {
		return err_set(err, EINVAL, "'%s' is not a file", rule_shown(text, shown));
	}
	replace(&v->kernel, TAKE_PTR(full));
	return 0;
}

/* ---- the table ---- */

static const struct spec_field file_fields[] = {
	{.name = "path",
	 .required = true,
	 .set = set_file_path,
	 .allowed = "an absolute path such as /etc/motd, without '.' and '..', not below /proc, "
		    "/sys, /dev, /run, /tmp or /var/tmp",
	 .help = "where the file goes in the image"},
	{.name = "content", .either = 'c', .set = set_file_content, .allowed = "text", .help = "what the file holds"},
	{.name = "source",
	 .either = 'c',
	 .set = set_file_source,
	 .allowed = "a file or folder on this host, absolute or relative to the VSE file",
	 .help = "what to copy: a file, or a folder with all that is in it"},
	{.name = "mode",
	 .set = set_file_mode,
	 .standard = "0644, or the source's",
	 .allowed = "octal digits from 000 to 7777, such as 0644",
	 .help = "permission bits of the file, or of the folder itself"},
	{.name = "owner",
	 .set = set_file_owner,
	 .standard = "root:root",
	 .allowed = "USER:GROUP, each root or a number from 0 to 65534",
	 .help = "owner of the file, or of all in the folder"},
	{0},
};

static int add_device(const struct spec_context *c, void *object, const char *text, struct err *err)
{
	struct vse *v = object;
	char shown[RULE_SHOWN];
	(void)c;
	if (rule_device(text, err) < 0)
		return -1;
	if (v->devices.n == VSE_DEVICES_MAX)
		return err_set(err, EINVAL, "'%s' is one too many: a VM has at most %d",
			       rule_shown(text, shown), VSE_DEVICES_MAX);
	strvec_add(&v->devices, text);
	return 0;
}

static const struct spec_field needs_fields[] = {
	{.name = "cpus",
	 .set = set_cpus,
	 .standard = "1",
	 .allowed = "a whole number from 1 to 1024",
	 .help = "virtual CPUs"},
	{.name = "memory",
	 .set = set_memory,
	 .bytes = true,
	 .standard = "512M",
	 .allowed = "a size from 64M to 64T, such as 512M or 2G",
	 .help = "memory"},
	{.name = "scratch",
	 .set = set_scratch,
	 .bytes = true,
	 .standard = "0",
	 .allowed = "0 or a size from 16M to 64T, such as 2G",
	 .help = "writable scratch disk; with 0 all changes live in memory"},
	{.name = "devices",
	 .kind = SPEC_LIST,
	 .set = add_device,
	 .standard = "[]",
	 .allowed = "a list of at most 8 of pci:VENDOR:DEVICE, in hexadecimal digits as 'lspci -n' "
		    "has them, such as pci:15b3:101e",
	 .help = "PCI devices of the node, or virtual functions of one, that a VM has for itself"},
	{0},
};

static const struct spec_field mount_fields[] = {
	{.name = "host",
	 .required = true,
	 .set = set_mount_host,
	 .allowed = "a directory of the nodes, absolute or relative to the VSE file, not /",
	 .help = "the directory; looked up on the node when a VM starts"},
	{.name = "guest",
	 .required = true,
	 .set = set_mount_guest,
	 .allowed =
		 "an absolute path such as /scratch, without '.' and '..', not in the way of the "
		 "system (/, /etc, /usr, /proc, /tmp, ...), none below another",
	 .help = "where a VM sees it; made when it is not there"},
	{.name = "mode",
	 .set = set_mount_mode,
	 .standard = "ro",
	 .allowed = "ro or rw",
	 .help = "whether VMs may write to it"},
	{0},
};

static const struct spec_field network_fields[] = {
	{.name = "outbound",
	 .set = set_outbound,
	 .standard = "false",
	 .allowed = "true or false",
	 .help = "whether the VMs reach what the host reaches"},
	{.name = "subnet",
	 .set = set_subnet,
	 .standard = "10.199.0.0/16",
	 .allowed = "an IPv4 subnet from /8 to /29 such as 10.199.0.0/16",
	 .help = "addresses of the VMs"},
	{0},
};

const struct spec_field spec_fields[] = {
	{.name = "vse", .required = true, .set = set_version, .allowed = "1", .help = "version of this format"},
	{.name = "name",
	 .required = true,
	 .set = set_name,
	 .allowed = "at most 32 lower-case letters, digits and '-', with a letter first and no '-' "
		    "last",
	 .help = "name of the environment"},
	{.name = "description",
	 .set = set_description,
	 .allowed = "text of at most 4096 bytes",
	 .help = "what it is for"},
	{.name = "base",
	 .required = true,
	 .set = set_base,
	 .allowed = "debian:SUITE, ubuntu:SUITE, dir:PATH or tar:PATH, such as debian:bookworm",
	 .help = "what the root file system begins with"},
	{.name = "arch",
	 .set = set_arch,
	 .standard = "the host's",
	 .allowed = "amd64 or arm64",
	 .help = "architecture, as Debian names it"},
	{.name = "mirror",
	 .set = set_mirror,
	 .standard = "the host's apt sources",
	 .allowed = "http://..., https://... or file:///... of at most 512 characters",
	 .help = "where packages come from"},
	{.name = "components",
	 .kind = SPEC_LIST,
	 .set = add_component,
	 .standard = "[main]",
	 .allowed = "names such as main, contrib or universe",
	 .help = "parts of the distribution that packages come from"},
	{.name = "packages",
	 .kind = SPEC_LIST,
	 .set = add_package,
	 .standard = "[]",
	 .allowed = "NAME, NAME:ARCH or NAME=VERSION, with names as Debian writes them",
	 .help = "packages to install"},
	{.name = "files",
	 .kind = SPEC_MAPS,
	 .fields = file_fields,
	 .add = add_file,
	 .standard = "[]",
	 .allowed = "maps with path, content or source, mode, owner",
	 .help = "files to put into the image"},
	{.name = "env",
	 .kind = SPEC_PAIRS,
	 .name_rule = rule_env_name,
	 .pair = add_env,
	 .standard = "{}",
	 .allowed = "names of letters, digits and '_' with no digit first and not VSE_..., values "
		    "of one line",
	 .help = "environment of every program in the VMs"},
	{.name = "build",
	 .kind = SPEC_LIST,
	 .set = add_step,
	 .standard = "[]",
	 .allowed = "shell text of at most 65536 bytes",
	 .help = "steps run as root in the image after packages and files"},
	{.name = "init",
	 .set = set_init,
	 .standard = "vse",
	 .allowed = "vse or systemd",
	 .help = "what is process 1 in the VMs"},
	{.name = "kernel",
	 .set = set_kernel,
	 .standard = "auto",
	 .allowed = "auto, a package's name, or the path of a kernel on this host",
	 .help = "kernel of the VMs"},
	{.name = "protection", .set = set_protection, .allowed = "vm or container", .help = "the least that shall stand between a VM and its node: a kernel of its own, or namespaces"},
	{.name = "needs",
	 .kind = SPEC_MAP,
	 .fields = needs_fields,
	 .standard = "{}",
	 .allowed = "cpus, memory, scratch, devices",
	 .help = "what one VM asks for; 'vse up' and 'vse run' may override it"},
	{.name = "mounts",
	 .kind = SPEC_MAPS,
	 .fields = mount_fields,
	 .add = add_mount,
	 .standard = "[]",
	 .allowed = "a list of maps with host, guest, mode; at most 8",
	 .help = "directories of the nodes that the VMs see; 'vse up' and 'vse run' may add some"},
	{.name = "network",
	 .kind = SPEC_MAP,
	 .fields = network_fields,
	 .standard = "{}",
	 .allowed = "outbound, subnet",
	 .help = "the virtual network"},
	{0},
};

void spec_vse_init(struct vse *v)
{
	struct utsname u;
	*v = (struct vse){.cpus = 1, .memory = UINT64_C(512) << 20};
	v->arch = xstrdup(uname(&u) == 0 && strcmp(u.machine, "aarch64") == 0 ? "arm64" : "amd64");
	v->kernel = xstrdup("auto");
	v->net_subnet = xstrdup("10.199.0.0/16");
}

const struct spec_field *spec_find(const struct spec_field *fields, const char *name)
{
	for (; fields->name; fields++)
		if (strcmp(fields->name, name) == 0)
			return fields;
	return NULL;
}

#define NAME_MAX_LEN 24

/* Edit distance with swapped neighbours as one edit (Damerau's), of short names. */
static size_t distance(const char *a, const char *b)
{
	size_t d[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1], n = strlen(a), m = strlen(b);
	if (n > NAME_MAX_LEN || m > NAME_MAX_LEN)
		return SIZE_MAX;
	for (size_t i = 0; i <= n; i++)
		for (size_t j = 0; j <= m; j++) {
			if (!i || !j) {
				d[i][j] = i + j;
				continue;
			}
			size_t best = MIN(d[i - 1][j], d[i][j - 1]) + 1;
			best = MIN(best, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = MIN(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	return d[n][m];
}

const char *spec_suggest(const struct spec_field *fields, const char *name)
{
	const char *best = NULL;
	size_t near = 3;
	for (; fields->name; fields++) {
		size_t d = distance(name, fields->name);
		if (d < near && d < strlen(fields->name) / 2 + 1) {
			near = d;
			best = fields->name;
		}
	}
	return best;
}
