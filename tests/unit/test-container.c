/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the back end `container` that need no namespace: what it reads, writes down and sees of processes. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "base/proc.h"
#include "hypervisor/container.h"
#include "io/loop.h"
#include "tap.h"

static char *tmp;

/* ---- the program in an initramfs ---- */

static void record(struct buf *b, const char *name, const char *data, size_t len)
{
	buf_addf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 1, 0100755, 0, 0,
		 1, 0, (unsigned)len, 0, 0, 0, 0, (unsigned)strlen(name) + 1, 0);
	buf_add(b, name, strlen(name) + 1);
	while (buf_len(b) % 4)
		buf_addc(b, 0);
	buf_add(b, data, len);
	while (buf_len(b) % 4)
		buf_addc(b, 0);
}

static char *archive(struct buf *b)
{
	char *path = path_join(tmp, "initrd");
	record(b, "TRAILER!!!", "", 0);
	path_write(path, buf_head(b), buf_len(b), 0600, NULL);
	return path;
}

static void takes(struct buf *b, const char *want, const char *what)
{
	_cleanup_free_ char *path = archive(b);
	_cleanup_close_ int fd = -1;
	struct err e = ERR_INIT;
	char got[64] = "";
	if (ok(container_program(path, &fd, &e) == 0, "%s: found %s", what, e.text)) {
		ok(pread(fd, got, sizeof(got) - 1, 0) >= 0, "%s: readable", what);
		is_str(got, want, "%s: its bytes", what);
		ok(write(fd, "x", 1) < 0 && ftruncate(fd, 0) < 0, "%s: nobody can change it", what);
	}
	buf_finish(b);
}

static void refuses(struct buf *b, const char *what)
{
	_cleanup_free_ char *path = archive(b);
	struct err e = ERR_INIT;
	int fd = -1;
	ok(container_program(path, &fd, &e) < 0 && fd < 0 && strstr(e.text, path), "%s: %s", what,
	   e.text);
	buf_finish(b);
}

static void test_program(void)
{
	struct buf b = BUF_INIT;
	record(&b, "init", "#!one", 5);
	takes(&b, "#!one", "first");
	record(&b, "modules", "", 0);
	record(&b, "modules/init", "wrong", 5);
	record(&b, "initial", "wrong", 5);
	record(&b, "./init", "#!two", 5);
	takes(&b, "#!two", "after others");
	record(&b, "initial", "wrong", 5);
	refuses(&b, "none in it");
	refuses(&b, "empty");
	buf_adds(&b, "\x1f\x8b this is compressed, and longer than a record's head. "
		     "this is compressed, and longer than a record's head.");
	refuses(&b, "compressed");
	record(&b, "init", "cut", 3);
	memcpy(b.data + 6 + 8 * 6, "00FFFFFF", 8);
	refuses(&b, "longer than the archive");
	record(&b, "x", "", 0);
	memcpy(b.data + 6 + 8 * 11, "FFFFFFFF", 8);
	refuses(&b, "a name beyond the end");
	struct err e = ERR_INIT;
	int fd;
	ok(container_program("/nonexistent/initrd", &fd, &e) < 0 && e.code == ENOENT, "%s", e.text);
}

/* ---- ids ---- */

static void test_map(void)
{
	const struct container_ids ids = {
		.uid = 1000, .gid = 100, .uids = {200000, 65536}, .gids = {300000, 5000}};
	uint32_t m[2][3];
	container_map(&ids, false, m);
	ok(m[0][0] == 0 && m[0][1] == 1000 && m[0][2] == 1, "root inside is the user");
	ok(m[1][0] == 1 && m[1][1] == 200000 && m[1][2] == 65536,
	   "the others are his subordinates");
	container_map(&ids, true, m);
	ok(m[0][1] == 100 && m[1][1] == 300000 && m[1][2] == 5000, "and so the groups");
	struct container_ids own;
	struct err e = ERR_INIT;
	if (container_ids(&own, &e) == 0)
		ok(own.uid && own.gid && own.uids.first && own.gids.first,
		   "nobody inside is root outside");
	else
		ok(e.text[0], "no ids: %s", e.text);
}

/* ---- arguments ---- */

static void test_args(void)
{
	_cleanup_strvec_ struct strvec v = STRVEC_INIT, extra = STRVEC_INIT;
	struct hv_spec spec = {.name = "vm3", .rank = 3, .cpus = 2, .memory = 1000u << 20, .nic = true};
	struct container_size size;
	struct container_mounts mounts = {0}, some = {0};
	container_size(&spec, &size);
	ok(size.upper == 800u << 20 && size.run == 500u << 20 && size.memory == 1000u << 20,
	   "the share of memory");
	ok(size.cpus == 2 && size.first == 6 && size.nic, "CPUs of its own");
	strvec_addv(&extra, "--ro-bind", "/a", "/b", NULL);
	container_args("vm3", &size, &mounts, &extra, "/the/root", "/dev/pts/7", &v);
	_cleanup_buf_ struct buf line = BUF_INIT;
	for (size_t i = 0; i < v.n; i++)
		buf_addf(&line, "%s ", v.v[i]);
	const char *text = buf_cstr(&line), *end = strstr(text, " -- /proc/self/fd/6 --container ");
	ok(strstr(text, "--ro-bind /the/root /lower "), "the root, read-only");
	ok(strstr(text, "--dev-bind /dev/pts/7 /dev/console "), "the console");
	ok(!strstr(text, " --bind "), "nothing of the node can be written");
	ok(end && strstr(text, "--ro-bind /a /b ") && strstr(text, "--ro-bind /a /b ") < end,
	   "the administrator's arguments are bwrap's");
	ok(end && strcmp(end,
			 " -- /proc/self/fd/6 --container 838860800 524288000 2 6 1048576000 1 ") == 0,
	   "what process 1 is told: %s", end ? end : "");
	spec.mounts = (const struct hv_mount[]){{.host = "/h", .guest = "/g"},
						{.host = "/i", .guest = "/j", .rw = true}};
	spec.n_mounts = 2;
	container_mounts(&spec, &some);
	container_args("vm3", &size, &some, NULL, "/the/root", "/dev/pts/7", &v);
	buf_clear(&line);
	for (size_t i = 0; i < v.n; i++)
		buf_addf(&line, "%s ", v.v[i]);
	text = buf_cstr(&line);
	ok(strstr(text, " --ro-bind /h /mount0 --bind /i /mount1 -- "),
	   "host directories for bwrap");
	ok(strstr(text, " 1048576000 1 /g /j "), "and for process 1");
	strvec_finish(&some.args);
	strvec_finish(&some.dirs);
}

static void refused(const struct hv_spec *spec, const char *say)
{
	struct err e = ERR_INIT;
	ok(container_check(spec, &e) < 0 && strstr(e.text, say), "refused: %s", e.text);
}

static void test_check(void)
{
	_cleanup_free_ char *kernel = path_join(tmp, "kernel"), *empty = path_join(tmp, "empty");
	struct hv_spec spec = {.kernel = kernel,
			       .initrd = empty,
			       .root = empty,
			       .machine = "auto",
			       .accel = "auto"},
		       was;
	struct err e = ERR_INIT;
	char head[0x210] = "";
	memcpy(head + 0x202, "HdrS", 4);
	path_write(kernel, head, sizeof(head), 0600, NULL);
	path_write(empty, "", 0, 0600, NULL);
	spec.cmdline = "vse.mods=a vse.root=squashfs:vda:mem vse.init=vse";
	ok(container_check(&spec, &e) == 0, "what runs %s", e.text);
	was = spec;
	spec.cmdline = "vse.init=systemd systemd.getty_auto=no";
	refused(&spec, "init: systemd: not supported");
	spec.cmdline = "vse.root=erofs:vda:mem";
	refused(&spec, "only squashfs");
	spec = was;
	spec.machine = "q35";
	refused(&spec, "machine type q35");
	spec = was;
	spec.accel = "kvm";
	refused(&spec, "accelerator kvm");
	spec = was;
	spec.kernel = empty;
	refused(&spec, "is none");
	spec = was;
	spec.root = "root";
	refused(&spec, "not an absolute path");
	spec = was;
	spec.initrd = NULL;
	refused(&spec, "no initramfs");
}

/* ---- processes ---- */

/* A child with a child of its own; both wait for ever. The grandchild's pid comes by the pipe. */
static pid_t family(pid_t *ret_grandchild)
{
	int p[2];
	if (pipe(p) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		pid_t child = fork();
		if (child == 0)
			for (;;)
				pause();
		if (write(p[1], &child, sizeof(child)) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	close(p[1]);
	if (fd_read_full(p[0], ret_grandchild, sizeof(pid_t)) != sizeof(pid_t))
		*ret_grandchild = -1;
	close(p[0]);
	return pid;
}

static bool all_stopped(pid_t root, size_t want)
{
	struct tree t = {0};
	tree_read(&t, root);
	bool all = t.n == want;
	for (size_t i = 0; i < t.n; i++)
		all = all && t.v[i].stopped;
	tree_finish(&t);
	return all;
}

static void test_tree(void)
{
	pid_t grandchild = -1, child = family(&grandchild);
	struct tree t = {0};
	tree_read(&t, child);
	if (t.n == 1 && !path_exists("/proc/self/task/1/children")) {
		char path[64];
		snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
		if (!path_exists(path)) {
			tap_skip("this kernel does not tell the children of a process");
			goto end;
		}
	}
	ok(t.n == 2 && t.v[0].pid == child && t.v[1].pid == grandchild, "parents before children");
	ok(t.n == 2 && !t.v[0].stopped && !t.v[1].stopped, "they run");
	struct tree_member other = t.n ? t.v[0] : (struct tree_member){0};
	ok(tree_has(&t, &other), "one of them is known");
	other.start++;
	ok(!tree_has(&t, &other), "another process with its number is not");
	kill(child, SIGSTOP);
	kill(grandchild, SIGSTOP);
	for (int i = 0; i < 2000 && !all_stopped(child, 2); i++)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	ok(all_stopped(child, 2), "stopped, both");
	kill(grandchild, SIGCONT);
	for (int i = 0; i < 2000 && all_stopped(child, 2); i++)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	ok(!all_stopped(child, 2), "one goes on: not all are stopped");
end:
	tree_finish(&t);
	kill(child, SIGKILL);
	kill(grandchild, SIGKILL);
	waitpid(child, NULL, 0);
	tree_read(&t, child);
	is_int(t.n, 0, "a process that is gone has no tree");
	tree_finish(&t);
}

/* ---- the tree of a root image ---- */

/* In place of vse-guest: does as the image says, and is counted. */
static const char UNPACKER[] =
	"#!/bin/sh\n"
	"read what <&3\n"
	"echo >>\"$VSE_ROOTS/count\"\n"
	"for key; do :; done\n"
	"case $what in\n"
	"make) mkdir -p \"$VSE_ROOTS/$key/root\"; : >\"$VSE_ROOTS/$key.lock\" ;;\n"
	"fail) echo 'vse-guest: no space' >&2; exit 1 ;;\n"
	"esac\n";
#define OPENED 4

struct opened {
	struct rootdir *rootdir;
	unsigned told, good;
	char why[ERR_TEXT_MAX];
};

static void on_root(void *arg, const char *root, const struct err *err)
{
	struct opened *o = arg;
	o->told++;
	o->good += root && path_exists(root);
	snprintf(o->why, sizeof(o->why), "%s", err->text);
}

/* Opens the same image so many times, lets the first ones go, and gives how many programs ran for the rest. */
static size_t open_all(struct opened o[OPENED], int program, const char *what, int gone)
{
	const struct container_ids ids = {.uid = geteuid(), .gid = getegid()};
	_cleanup_free_ char *image = path_join(tmp, what), *count = path_join(tmp, "roots/count"),
			    *ran = NULL;
	struct loop *l = loop_create();
	struct err e = ERR_INIT;
	char text[8];
	size_t n = 0;
	unlink(count);
	snprintf(text, sizeof(text), "%.4s\n", what);
	path_write(image, text, 5, 0600, NULL);
	memset(o, 0, OPENED * sizeof(*o));
	for (int i = 0; i < OPENED; i++) {
		o[i].rootdir = rootdir_open(l, &ids, image, program, on_root, &o[i], &e);
		ok(o[i].rootdir, "%s %d: opened %s", what, i, e.text);
	}
	for (int i = 0; i < gone; i++)
		rootdir_destroy(TAKE_PTR(o[i].rootdir));
	loop_run(l);
	for (int i = 0; i < OPENED; i++) {
		is_int(o[i].told, i < gone ? 0 : 1, "%s %d: is told once, if it is there", what, i);
		rootdir_destroy(o[i].rootdir);
	}
	loop_destroy(l);
	path_read(count, 100, &ran, &n, NULL);
	return n;
}

static void test_root(void)
{
	struct opened o[OPENED];
	_cleanup_free_ char *roots = path_join(tmp, "roots"), *path = path_join(tmp, "bwrap"),
			    *places = xasprintf("%s:%s", tmp, getenv("PATH") ?: "/bin:/usr/bin");
	setenv("VSE_ROOTS", roots, 1);
	setenv("PATH", places, 1); /* bwrap is looked for, and not run */
	path_write(path, UNPACKER, strlen(UNPACKER), 0700, NULL);
	_cleanup_close_ int program = open(path, O_RDONLY | O_CLOEXEC);
	is_int(open_all(o, program, "make", 0), 1, "one unpacks for all");
	is_int(o[0].good + o[3].good, 2, "and all have it %s%s", o[0].why, o[3].why);
	is_int(open_all(o, program, "make", 0), 1, "another file is unpacked anew, once");
	is_int(open_all(o, program, "make more", OPENED - 1), 1,
	       "who has begun it goes: it is made for the last");
	is_int(o[OPENED - 1].good, 1, "who has it %s", o[OPENED - 1].why);
	is_int(open_all(o, program, "fail", 0), 1, "one that fails");
	ok(strstr(o[0].why, "no space") && strstr(o[3].why, "no space"), "fails for all: %s", o[0].why);
	is_int(open_all(o, program, "gone", 0), 3, "one that is gone again is tried so often");
	ok(strstr(o[0].why, "gone again") && strstr(o[3].why, "gone again"), "then not: %s", o[3].why);
	unsetenv("VSE_ROOTS");
}

int main(void)
{
	tmp = xasprintf("%s/container.XXXXXX", getenv("TMPDIR") ?: "/tmp");
	if (!mkdtemp(tmp))
		return 1;
	test_program();
	test_map();
	test_args();
	test_check();
	test_tree();
	test_root();
	path_remove(tmp, NULL);
	free(tmp);
	return done();
}
