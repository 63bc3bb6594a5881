/* SPDX-License-Identifier: Apache-2.0 */
/* Everything personal that the host hands over: names, clock, randomness, environment, keys. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "guest/guest.h"
#include "guest/netconf.h"
#include "guest/spawn.h"
#include "guest/ssh.h"
#include "guest/user.h"
#include "wire/kv.h"

#define SEED_MAX 512
#define MARK_BEGIN "# vse: begin (made at start, do not edit)\n"
#define MARK_END "# vse: end\n"

/* linux/random.h */
struct entropy {
	int bits, bytes;
	unsigned char data[SEED_MAX];
};
#define ENTROPY_ADD _IOW('R', 0x03, int[2])
#define ENTROPY_RESEED _IO('R', 0x07)

int setup_file(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
	_cleanup_free_ char *temp = xasprintf("%s.vse-new", path);
	_cleanup_close_ int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || fd_write_all(fd, data, len) < 0 || fchmod(fd, mode) < 0)
		goto fail;
	if (rename(temp, path) == 0)
		return 0;
	if (errno == EBUSY) { /* systemd mounts a file over /etc/machine-id */
		_cleanup_close_ int there = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		if (there >= 0 && fd_write_all(there, data, len) == 0) {
			unlink(temp);
			return 0;
		}
	}
fail:;
	int code = errno;
	unlink(temp);
	return err_errno(err, code, "write %s", path);
}

static int file_text(const char *path, struct buf *text, mode_t mode, struct err *err)
{
	return setup_file(path, buf_cstr(text), buf_len(text), mode, err);
}

int setup_marked(const char *path, const char *otherwise, const char *block, mode_t mode, struct err *err)
{
	_cleanup_free_ char *old = NULL;
	_cleanup_buf_ struct buf text = BUF_INIT;
	if (path_read(path, 1 << 20, &old, NULL, NULL) < 0 || !*old) {
		free(old);
		old = xstrdup(otherwise);
	}
	char *begin = strstr(old, MARK_BEGIN), *end = begin ? strstr(begin, MARK_END) : NULL;
	buf_add(&text, old, begin ? (size_t)(begin - old) : strlen(old));
	if (!begin && buf_len(&text) && text.data[text.end - 1] != '\n')
		buf_addc(&text, '\n');
	buf_addf(&text, "%s%s%s%s", MARK_BEGIN, block,
		 *block && block[strlen(block) - 1] != '\n' ? "\n" : "", MARK_END);
	if (end)
		buf_adds(&text, end + strlen(MARK_END));
	return file_text(path, &text, mode, err);
}

void setup_time(struct guest *g, uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
	if (g->init == INIT_NONE || g->container || !ns)
		return;
	if (clock_settime(CLOCK_REALTIME, &ts) < 0)
		agent_log(g, "set the clock: %s", strerror(errno));
}

/* Clones of one template hold the same generator state: what the host gives must count, and at once. */
static void apply_seed(struct guest *g, const char *data, size_t len)
{
	struct entropy e;
	struct kv seed;
	if (!kv_find(data, len, "seed", &seed) || !seed.value_len)
		return;
	e.bytes = (int)MIN(seed.value_len, (size_t)SEED_MAX);
	e.bits = e.bytes * 8;
	memcpy(e.data, seed.value, (size_t)e.bytes);
	_cleanup_close_ int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, ENTROPY_ADD, &e) < 0 || ioctl(fd, ENTROPY_RESEED) < 0)
		agent_log(g, "add the host's random seed: %s", strerror(errno));
	explicit_bzero(&e, sizeof(e));
}

/* The kernel's own is that of the template, and programs take two hosts with the same one for one host (UCX chooses
 * shared memory by it, for one). So another is put over it, made of the randomness that is this clone's by now. */
static void apply_boot_id(struct guest *g)
{
	static const char shown[] = "/proc/sys/kernel/random/boot_id", own[] = "/run/vse-boot-id";
	_cleanup_free_ char *id = NULL;
	struct err err = ERR_INIT;
	if (path_read("/proc/sys/kernel/random/uuid", 64, &id, NULL, &err) < 0 ||
	    setup_file(own, id, strlen(id), 0444, &err) < 0)
		agent_log(g, "a boot id of its own: %s", err.text);
	else if (mount(own, shown, NULL, MS_BIND, NULL) < 0)
		agent_log(g, "a boot id of its own: %s", strerror(errno));
	else
		g->own_boot_id = true;
}

static bool hostname_ok(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && s[i] != '-' && s[i] != '.')
			return false;
	return n >= 1 && n <= 64;
}

/* "vm0 slots=4", as most have it, is "vm0:4" for MPICH and its kin. */
static int write_hostfiles(const char *list, struct err *err)
{
	static const char slots[] = " slots=";
	_cleanup_buf_ struct buf machines = BUF_INIT;
	const char *rest = list;
	for (const char *at; (at = strstr(rest, slots)); rest = at + strlen(slots)) {
		buf_add(&machines, rest, (size_t)(at - rest));
		buf_addc(&machines, ':');
	}
	buf_adds(&machines, rest);
	if (path_mkdirs("/etc/vse", 0755, err) < 0 ||
	    setup_file("/etc/vse/hostfile", list, strlen(list), 0644, err) < 0)
		return -1;
	return file_text("/etc/vse/machinefile", &machines, 0644, err);
}

static int apply_names(struct guest *g, const char *data, size_t len, struct err *err)
{
	_cleanup_free_ char *host = kv_dup(data, len, "hostname"),
			    *domain = kv_dup(data, len, "domain"),
			    *hosts = kv_dup(data, len, "hosts"),
			    *list = kv_dup(data, len, "hostfile");
	if (host && !hostname_ok(host))
		return err_set(err, EINVAL, "'%.80s' is no host name", host);
	if (host && sethostname(host, strlen(host)) < 0)
		return err_errno(err, errno, "set the host name");
	if (domain && *domain && setdomainname(domain, strlen(domain)) < 0)
		agent_log(g, "set the domain name: %s", strerror(errno));
	_cleanup_free_ char *line = host ? xasprintf("%s\n", host) : NULL;
	if (line && setup_file("/etc/hostname", line, strlen(line), 0644, err) < 0)
		return -1;
	if (hosts &&
	    setup_marked("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
			 hosts, 0644, err) < 0)
		return -1;
	return list ? write_hostfiles(list, err) : 0;
}

/* *ret_fresh: the VM was another one before (a clone of a template). */
static int apply_machine_id(struct guest *g, const char *data, size_t len, bool *ret_fresh,
			    struct err *err)
{
	_cleanup_free_ char *id = kv_dup(data, len, "machine_id");
	*ret_fresh = false;
	if (!id)
		return 0;
	if (strlen(id) != 32 || strspn(id, "0123456789abcdef") != 32)
		return err_set(err, EINVAL, "a machine id is 32 hexadecimal digits, not '%.40s'", id);
	*ret_fresh = g->personal && strcmp(id, g->machine_id) != 0;
	memcpy(g->machine_id, id, 33);
	_cleanup_free_ char *line = xasprintf("%s\n", id);
	return setup_file("/etc/machine-id", line, 33, 0444, err);
}

bool setup_env_name_ok(const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isalpha((unsigned char)name[i]) && name[i] != '_' &&
		    (i == 0 || !isdigit((unsigned char)name[i])))
			return false;
	return len >= 1;
}

static void env_number(struct strvec *env, const char *name, const char *data, size_t len,
		       const char *key)
{
	_cleanup_free_ char *v = kv_dup(data, len, key);
	if (v)
		strvec_addf(env, "%s=%s", name, v);
}

static void read_env(struct guest *g, const char *data, size_t len)
{
	struct kv_iter it = {.data = data, .len = len};
	struct kv e;
	strvec_finish(&g->env);
	env_number(&g->env, "VSE_RANK", data, len, "rank");
	env_number(&g->env, "VSE_SIZE", data, len, "size");
	env_number(&g->env, "VSE_NAME", data, len, "cluster");
	while (kv_next(&it, &e)) {
		const char *eq = memchr(e.value, '=', e.value_len);
		if (!kv_is(&e, "env") || memchr(e.value, 0, e.value_len))
			continue;
		if (!eq || !setup_env_name_ok(e.value, (size_t)(eq - e.value))) {
			agent_log(g, "not a variable: '%.*s'", (int)MIN(e.value_len, (size_t)80),
				  e.value);
			continue;
		}
		_cleanup_free_ char *v = xmemdup0(e.value, e.value_len);
		spawn_env(&g->env, v);
	}
}

/* A login shell reads it: between single quotes everything is itself but the quote. */
static void shell_line(struct buf *out, const char *assignment)
{
	size_t n = strcspn(assignment, "=");
	buf_addf(out, "export %.*s='", (int)n, assignment);
	for (const char *c = assignment + n + 1; *c; c++) {
		if (*c == '\'')
			buf_adds(out, "'\\''");
		else
			buf_addc(out, *c);
	}
	buf_adds(out, "'\n");
}

/* pam_env(8) cuts a line at any '#', strips quotes and reads at most 1024 bytes: what it would change it
 * does not get. */
static bool pam_takes(const char *assignment)
{
	const char *value = strchr(assignment, '=') + 1;
	return !strpbrk(value, "#\n") && *value != '"' && *value != '\'' && strlen(assignment) < 1000;
}

static int apply_env(struct guest *g, struct err *err)
{
	_cleanup_buf_ struct buf shell = BUF_INIT, pam = BUF_INIT;
	for (size_t i = 0; i < g->env.n; i++) {
		shell_line(&shell, g->env.v[i]);
		if (pam_takes(g->env.v[i]))
			buf_addf(&pam, "%s\n", g->env.v[i]);
	}
	if (path_mkdirs("/etc/profile.d", 0755, err) < 0)
		return -1;
	if (file_text("/etc/profile.d/vse.sh", &shell, 0644, err) < 0)
		return -1;
	return setup_marked("/etc/environment", "", buf_cstr(&pam), 0644, err);
}

/* Its folder and what it takes to write there, but nothing that stays. */
static void practise_write(const char *folder)
{
	_cleanup_free_ char *path = path_join(folder, ".vse-practice");
	if (path_exists(folder) && setup_file(path, "", 0, 0600, NULL) == 0)
		unlink(path);
}

void setup_practise(void)
{
	static const char *const files[] = {"/etc/hostname",         "/etc/hosts",
					    "/etc/machine-id",       "/etc/environment",
					    "/etc/profile.d/vse.sh", "/etc/vse/hostfile"};
	static const char *const folders[] = {"/etc", "/etc/profile.d"};
	struct user root;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *text = NULL;
		(void)!path_read(files[i], 1 << 20, &text, NULL, NULL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		practise_write(folders[i]);
	if (user_find("root", &root, NULL) == 0)
		practise_write(root.home);
	ssh_practise();
}

int setup_apply(struct guest *g, const char *data, size_t len, struct err *err)
{
	bool fresh;
	read_env(g, data, len);
	if (g->init == INIT_NONE)
		return 0;
	setup_time(g, kv_num(data, len, "time_ns", 0));
	if (!g->container)
		apply_seed(g, data, len);
	if (g->init == INIT_VSE && !g->container && !g->own_boot_id && kv_num(data, len, "clone", 0))
		apply_boot_id(g);
	if (apply_names(g, data, len, err) < 0 || apply_machine_id(g, data, len, &fresh, err) < 0 ||
	    apply_env(g, err) < 0 || net_apply(data, len, err) < 0 ||
	    ssh_apply(g, data, len, fresh, err) < 0 ||
	    (!g->container && mounts_apply(data, len, err) < 0))
		return err_prefix(err, "setup: ");
	g->personal = true;
	return 0;
}
