/* SPDX-License-Identifier: Apache-2.0 */
#include "save-cases.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "tests/tap.h"

static bool is(const struct env *env, const char *name)
{
	return strcmp(env->h->name, name) == 0;
}

static void put(const char *path, const char *text, mode_t mode)
{
	struct err e = ERR_INIT;
	ok(path_write(path, text, strlen(text), mode, &e) == 0, "%s %s", path, e.text);
}

/* As a program of the VM: its exit code, output in t->out. */
static int64_t sh(struct testvm *t, const char *script)
{
	int before = t->exits;
	testvm_exec(t, (const char *const[]){"sh", "-c", script, NULL}, NULL);
	ok(testvm_wait(t, t->exits > before || t->gone) && !t->gone, "sh -c '%s'", script);
	return t->exit_code;
}

static void refused(struct env *env, const char *host, bool rw, int code, const char *say)
{
	const struct hv_mount m = {.host = host, .guest = "/mnt/x", .rw = rw};
	struct testvm t;
	struct err e = ERR_INIT;
	env->spec.mounts = &m;
	env->spec.n_mounts = 1;
	int rc = testvm_start(&t, env, NULL, &e);
	ok(rc < 0 && e.code == code && strstr(e.text, say) && strstr(e.text, "on node "),
	   "%s: nothing is begun: %s", host, e.text);
	if (rc == 0)
		testvm_finish(&t);
}

static void stays(struct testvm *t, int rc, const struct err *e)
{
	ok(rc < 0 && e->code == ENOTSUP && strstr(e->text, "host directories"), "%s", e->text);
	is_int(t->state, HV_RUNNING, "and nothing was touched");
}

static void inside(struct env *env, struct testvm *t, const char *rw)
{
	_cleanup_free_ char *made = path_join(rw, "made"), *text = NULL;
	struct stat st = {0};
	struct err e = ERR_INIT;
	ok(sh(t, "cat /mnt/in/file") == 0, "it reads");
	is_str(buf_cstr(&t->out), "of the node\n", "what is on the node");
	ok(sh(t, "echo x >/mnt/in/file || busybox rm /mnt/in/file") != 0,
	   "what is ro it does not change");
	ok(sh(t, "cat /mnt/in/out /mnt/in/up") != 0, "links do not lead out");
	is_str(buf_cstr(&t->out), "", "of the directory");
	ok(sh(t, "echo of the guest >/mnt/out/made") == 0, "it writes");
	ok(path_read(made, 100, &text, NULL, &e) == 0 && strcmp(text, "of the guest\n") == 0,
	   "what the node reads %s", e.text);
	if (is(env, "container")) /* a mount of the node's own: modes are between it and its user */
		return;
	ok(stat(made, &st) == 0 && st.st_uid == geteuid(), "as our own");
	ok(sh(t, "busybox chmod 4755 /mnt/out/made") != 0, "no set-user-id bit");
	sh(t, "busybox chmod 2755 /mnt/out/made");
	ok(stat(made, &st) == 0 && !(st.st_mode & (S_ISUID | S_ISGID)),
	   "nor set-group-id has got there");
	ok(sh(t, "busybox chmod 750 /mnt/out/made && busybox mkdir /mnt/out/group && "
		 "busybox chmod 2770 /mnt/out/group && (umask 2; busybox mkdir "
		 "/mnt/out/group/below)") == 0,
	   "modes as they are wanted");
	ok(stat(made, &st) == 0 && (st.st_mode & 07777) == 0750, "are on the node");
	_cleanup_free_ char *below = path_join(rw, "group/below");
	ok(stat(below, &st) == 0, "a directory below");
	is_int(st.st_mode & 07777, 02775, "inherits set-group-id");
	ok(sh(t, "busybox mknod /mnt/out/disk b 8 0") != 0, "and no device");
}

static void after_reset(struct env *env, struct testvm *t)
{
	struct err e = ERR_INIT;
	if (hypervisor_lacks(env->h, &env->probe, HV_CAP_RESET))
		return;
	int before = t->readies;
	ok(hv_reset(t->hv, &e) == 0 && testvm_wait(t, t->readies > before || t->gone) && !t->gone,
	   "after a reset %s%s", e.text, t->gone_reason);
	if (is(env, "fake"))
		return;
	ok(sh(t, "cat /mnt/in/file /mnt/out/made") == 0, "they are there again");
}

static void with_two(struct env *env, const char *ro, const char *rw)
{
	const struct hv_mount m[] = {{.host = ro, .guest = "/mnt/in"},
				     {.host = rw, .guest = "/mnt/out", .rw = true}};
	struct testvm t;
	struct err e = ERR_INIT;
	env->spec.mounts = m;
	env->spec.n_mounts = 2;
	if (!ok(testvm_start(&t, env, NULL, &e) == 0, "starts with two %s", e.text))
		return;
	if (ok(testvm_wait(&t, t.readies || t.gone || t.errors) && t.readies, "comes up %s",
	       t.gone_reason)) {
		if (is(env, "fake")) {
			_cleanup_free_ char *want =
				xasprintf("%s on /mnt/in ro\n%s on /mnt/out rw\n", ro, rw);
			testvm_exec(&t, (const char *const[]){"mounts", NULL}, NULL);
			ok(testvm_wait(&t, t.exits == 1), "asked");
			is_str(buf_cstr(&t.out), want, "it has what it was given");
		} else {
			inside(env, &t, rw);
		}
		if (!hypervisor_lacks(env->h, &env->probe, HV_CAP_SAVE))
			stays(&t, hv_save(t.hv, &e), &e);
		e = ERR_INIT;
		if (!hypervisor_lacks(env->h, &env->probe, HV_CAP_MIGRATE_OUT))
			stays(&t, hv_migrate_out(t.hv, &e), &e);
		after_reset(env, &t);
	}
	testvm_finish(&t);
}

/* Who has a real one to give is asked by hand (docs/devices.md). */
void test_devices(struct env *env)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	struct testvm t;
	struct err e = ERR_INIT;
	strvec_addv(&names, "pci:15b3:101e", NULL);
	env->spec.devices = &names;
	if (ok(testvm_start(&t, env, NULL, &e) == 0 && testvm_wait(&t, t.readies || t.gone),
	       "a VM with one %s", e.text)) {
		testvm_exec(&t, (const char *const[]){"mounts", NULL}, NULL);
		ok(testvm_wait(&t, t.exits == 1), "asked");
		is_str(buf_cstr(&t.out), "pci:15b3:101e\n", "it has it");
		ok(hv_save(t.hv, &e) < 0 && e.code == ENOTSUP && strstr(e.text, "pci:15b3:101e"),
		   "%s", e.text);
		e = ERR_INIT;
		ok(hv_migrate_out(t.hv, &e) < 0 && e.code == ENOTSUP, "%s", e.text);
	}
	testvm_finish(&t);
	env->spec.template = true;
	e = ERR_INIT;
	ok(testvm_start(&t, env, NULL, &e) < 0 && e.code == ENOTSUP, "no template of it: %s", e.text);
	env->spec.template = false;
	env->spec.devices = NULL;
}

void test_host_dir(struct env *env)
{
	_cleanup_free_ char *top = path_join(env->tmp, "dirs"), *ro = path_join(top, "ro"),
			    *rw = path_join(top, "rw"), *none = path_join(top, "none"),
			    *file = path_join(ro, "file"), *out = path_join(ro, "out"),
			    *up = path_join(ro, "up"), *secret = path_join(top, "secret"),
			    *words = xasprintf("%s vse.mounts=9p",
					       env->spec.cmdline ? env->spec.cmdline : "");
	const char *cmdline = env->spec.cmdline;
	/* A container of root's runs as somebody else, who must get there. */
	chmod(env->tmp, 0711);
	mkdir(top, 0755);
	mkdir(ro, 0755);
	mkdir(rw, 0700);
	chmod(rw, 0777);
	put(file, "of the node\n", 0644);
	put(secret, "a secret\n", 0644);
	ok(symlink(secret, out) == 0 && symlink("../secret", up) == 0, "links that lead out");
	env->spec.cmdline = words;
	refused(env, none, false, ENOENT, none);
	refused(env, file, false, ENOTDIR, file);
	refused(env, "/proc/self", false, EPERM, "the kernel's (proc)");
	refused(env, "/", false, EPERM, "root itself");
	if (geteuid() != 0) /* who may write to it anyway */
		refused(env, "/usr", true, EACCES, "cannot be written to");
	with_two(env, ro, rw);
	env->spec.mounts = NULL;
	env->spec.n_mounts = 0;
	env->spec.cmdline = cmdline;
}
