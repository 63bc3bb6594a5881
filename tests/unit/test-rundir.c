/* SPDX-License-Identifier: Apache-2.0 */
/* The run directory: claimed once, swept when its owner is dead, refused when it is somebody else's. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/rundir.h"
#include "tap.h"

static char *home;

static void test_names(void)
{
	static const char *const good[] = {"a", "a1", "a-b", "abcdefghijklmnopqrstuvwxyz012345"};
	static const char *const bad[] = {"",    "A",
					  "1a",  "-a",
					  ".",   "..",
					  "a/b", "a b",
					  "a;b", "a\nb",
					  "a_b", "\xc3\xa4",
					  "a.b", "abcdefghijklmnopqrstuvwxyz0123456"};
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ok(cluster_name_check(good[i], NULL) == 0, "'%s' is a name", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = ERR_INIT;
		ok(cluster_name_check(bad[i], &err) < 0 && err.code == EINVAL,
		   "bad name %zu is refused", i);
	}
}

static void test_base(void)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *base = NULL, *want = path_join(home, "vse");
	setenv("XDG_RUNTIME_DIR", home, 1);
	ok(rundir_base(&base, &err) == 0 && strcmp(base, want) == 0, "it lies in XDG_RUNTIME_DIR");
	ok(!path_exists(base), "and is not made by who asks where it is");

	_cleanup_free_ char *elsewhere = path_join(home, "elsewhere");
	ok(mkdir(elsewhere, 0700) == 0 && symlink(elsewhere, want) == 0,
	   "a link is put in its place");
	free(TAKE_PTR(base));
	ok(rundir_base(&base, &err) < 0 && err.code == EPERM, "a link is refused");
	ok(strstr(err.text, "set XDG_RUNTIME_DIR") != NULL, "and what to do is said");
	unlink(want);

	ok(mkdir(want, 0700) == 0 && chmod(want, 0777) == 0,
	   "a folder that all may write to is put there");
	ok(rundir_base(&base, &err) < 0 && err.code == EPERM, "it is refused");
	rmdir(want);
	rmdir(elsewhere);
}

/* A process that sleeps, with its pid as a VM's folder has it. */
static pid_t sleeper(const char *dir, const char *name, int lock, bool right_time)
{
	_cleanup_free_ char *vm = path_join(dir, name), *path = path_join(vm, "pid");
	char text[64];
	uint64_t start = 0;
	char c;
	int ready[2];
	ok(pipe(ready) == 0, "a pipe");
	pid_t pid = fork();
	if (pid == 0) {
		close(lock); /* its copy holds the lock, too */
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	close(ready[1]);
	ok(read(ready[0], &c, 1) == 1, "a process without the lock");
	close(ready[0]);
	proc_start_time(pid, &start, NULL);
	snprintf(text, sizeof(text), "%d %llu\n", (int)pid, (unsigned long long)start + !right_time);
	ok(mkdir(vm, 0700) == 0 && path_write(path, text, strlen(text), 0600, NULL) == 0,
	   "a VM's folder is there");
	return pid;
}

static void test_claim(const char *base)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *dir = NULL, *again = NULL;
	int lock = -1, other = -1;
	struct stat st;
	ok(rundir_claim(base, "a", &dir, &lock, &err) == 0, "a name is claimed");
	ok(stat(base, &st) == 0 && (st.st_mode & 07777) == 0700,
	   "what was made is closed to others");
	ok(rundir_claim(base, "a", &again, &other, &err) < 0 && err.code == EEXIST, "only once");
	ok(rundir_alive(base, "a") && !rundir_alive(base, "b"), "it is alive, another is not");
	rundir_sweep(base, "a");
	ok(path_exists(dir), "what is alive is not swept");

	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	ok(rundir_list(base, &names, &err) == 0 && names.n == 1 && strcmp(names.v[0], "a") == 0,
	   "it is listed");
	rundir_leave(base, "a", lock);
	close(lock);
	ok(!path_exists(base), "who leaves last leaves nothing");
}

static void test_sweep(const char *base, bool right_time)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *dir = NULL;
	int lock = -1, status = 0;
	ok(rundir_claim(base, "dead", &dir, &lock, &err) == 0, "a cluster whose agent dies");
	pid_t pid = sleeper(dir, "vm0", lock, right_time);
	close(lock); /* as its death does */
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	signal(SIGCHLD, SIG_DFL);
	ok(rundir_list(base, &names, &err) == 0 && names.n == 0, "is not listed");
	ok(!path_exists(dir), "its folder is swept");
	if (right_time) {
		ok(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		   "its VMM is ended");
	} else {
		ok(kill(pid, 0) == 0 && waitpid(pid, &status, WNOHANG) == 0,
		   "a process that got its number later is not");
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	rmdir(base);
}

#define VMS 8

static void test_sweep_many(const char *base)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *dir = NULL;
	int lock = -1, status, killed = 0;
	pid_t pids[VMS];
	ok(rundir_claim(base, "many", &dir, &lock, &err) == 0, "a cluster of %d VMs", VMS);
	for (int i = 0; i < VMS; i++) {
		char name[8];
		snprintf(name, sizeof(name), "vm%d", i);
		pids[i] = sleeper(dir, name, lock, true);
	}
	close(lock);
	rundir_sweep(base, "many");
	for (int i = 0; i < VMS; i++)
		killed += waitpid(pids[i], &status, 0) == pids[i] && WIFSIGNALED(status) &&
			  WTERMSIG(status) == SIGKILL;
	is_int(killed, VMS, "all are ended");
	ok(!path_exists(base), "nothing is left");
}

static void test_home(const char *base)
{
	_cleanup_free_ char *other = xasprintf("%s-other", base), *below = xasprintf("%s/x", base);
	_cleanup_free_ char *a = rundir_home(base), *again = rundir_home(base),
			    *b = rundir_home(other), *c = rundir_home(below);
	ok(a && again && strcmp(a, again) == 0, "a base has an identity: %s", a ? a : "none");
	ok(b && strcmp(a, b) != 0, "another beside it has another");
	ok(!c, "one whose parent is not there has none");
}

/* Somebody removes the run directory below a cluster, and another cluster takes the name. */
static void test_replaced(const char *base)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *dir = NULL, *other_dir = NULL, *file = NULL;
	int lock = -1, other = -1;
	ok(rundir_claim(base, "a", &dir, &lock, &err) == 0, "a cluster");
	ok(rundir_owns(dir, lock), "has its folder");
	ok(path_remove(base, &err) == 0 && !rundir_owns(dir, lock), "it is removed: it has none");
	rundir_leave(base, "a", lock);
	ok(!path_exists(base), "it can leave nevertheless");
	ok(rundir_claim(base, "a", &other_dir, &other, &err) == 0, "another takes its name");
	file = path_join(other_dir, "sock");
	path_write(file, "", 0, 0600, NULL);
	ok(!rundir_owns(dir, lock) && rundir_owns(other_dir, other), "the folder is the other's");
	rundir_leave(base, "a", lock);
	ok(path_exists(file), "which keeps it when the first one leaves");
	rundir_leave(base, "a", other);
	ok(!path_exists(base), "until it leaves itself");
	close(lock);
	close(other);
}

static void test_reclaim(const char *base)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *dir = NULL, *junk = NULL;
	int lock = -1;
	ok(rundir_claim(base, "x", &dir, &lock, &err) == 0, "a cluster");
	junk = path_join(dir, "junk");
	ok(path_write(junk, "x", 1, 0600, NULL) == 0, "with a file in it");
	close(lock);
	free(TAKE_PTR(dir));
	ok(rundir_claim(base, "x", &dir, &lock, &err) == 0 && !path_exists(junk),
	   "its name is claimed anew, empty");
	rundir_leave(base, "x", lock);
	close(lock);
	ok(rundir_claim(base, "../x", &dir, &lock, &err) < 0 && err.code == EINVAL,
	   "a name that climbs is refused");
	rmdir(base);
}

/* What lies in a folder that all nodes see holds a secret: it goes with its cluster. */
static void test_elsewhere(const char *base)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *dir = NULL, *there = NULL, *again = NULL, *link = NULL,
			    *other = path_join(home, "other"), *file = NULL;
	int lock = -1;
	struct stat st;
	ok(rundir_claim(base, "e", &dir, &lock, &err) == 0 &&
		   rundir_elsewhere(dir, home, &there, &err) == 0,
	   "a cluster with a folder elsewhere: %s", err.text);
	ok(stat(there, &st) == 0 && (st.st_mode & 07777) == 0700, "it is closed to others");
	file = path_join(there, "bootstrap");
	ok(path_write(file, "x", 1, 0600, &err) == 0, "with a file in it");
	close(lock);
	rundir_sweep(base, "e");
	ok(!path_exists(there) && !path_exists(base), "a sweep removes both");

	ok(rundir_claim(base, "e", &again, &lock, &err) == 0 && mkdir(other, 0700) == 0,
	   "a link to something else");
	link = path_join(again, "elsewhere");
	ok(symlink(other, link) == 0, "in its place");
	close(lock);
	rundir_sweep(base, "e");
	ok(path_exists(other) && rmdir(other) == 0, "is not followed");
}

/* A host without power leaves its agents' folders on its disk; no user's command runs there. */
static void test_sweep_node(const char *base)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *name = rundir_node_name("old"), *now = rundir_node_name("now"),
			    *dead = NULL, *live = NULL, *own = NULL;
	_cleanup_free_ char *far = path_join(base, "old@another-host");
	int lock = -1, live_lock = -1, own_lock = -1;
	ok(rundir_claim(base, name, &dead, &lock, &err) == 0 &&
		   rundir_claim(base, now, &live, &live_lock, &err) == 0 &&
		   rundir_claim(base, "root", &own, &own_lock, &err) == 0 && mkdir(far, 0700) == 0,
	   "folders of two agents of this host, of a front end's cluster, and of another host");
	close(lock);
	close(own_lock); /* as a lock of another host looks where a shared folder knows of none */
	rundir_sweep_node(base);
	ok(!path_exists(dead), "what the dead agent left is swept");
	ok(path_exists(live), "the living one's is not");
	ok(path_exists(far), "nor another host's");
	ok(path_exists(own), "nor what another host may hold");
	rundir_leave(base, now, live_lock);
	close(live_lock);
	rundir_sweep(base, "root");
	ok(rmdir(far) == 0 && rmdir(base) == 0, "nothing is left");
}

static void test_foreign(const char *base)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *dir = NULL, *in = path_join(base, "a");
	int lock = -1;
	ok(mkdir(base, 0700) == 0 && chmod(base, 0720) == 0,
	   "others may write to the run directory");
	ok(rundir_claim(base, "a", &dir, &lock, &err) < 0 && err.code == EPERM && !path_exists(in),
	   "nothing is claimed in it");
	chmod(base, 0700);
	if (geteuid() == 0) {
		ok(chown(base, 65534, -1) == 0, "it is given to somebody else");
		ok(rundir_claim(base, "a", &dir, &lock, &err) < 0 && err.code == EPERM &&
			   !path_exists(in),
		   "nothing is claimed in it");
	} else {
		tap_skip("a folder can be given away by root only");
	}
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	rundir_list(base, &names, &err);
	if (geteuid() == 0)
		ok(path_exists(base) && chown(base, 0, -1) == 0, "nor is it removed");
	ok(rundir_list(base, &names, &err) == 0 && !path_exists(base), "an empty one of ours is");
}

/* What an age-based cleaner of /tmp, or a command short of descriptors, must not make of a living cluster. */
static void test_unsure(const char *base)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *dir = NULL, *file = NULL;
	struct rlimit was, none;
	int lock = -1;
	ok(rundir_claim(base, "a", &dir, &lock, &err) == 0, "a cluster");
	DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));)
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	ok(rundir_alive(base, "a"), "all files in its folder are taken away: it is alive");
	file = path_join(dir, "sock");
	path_write(file, "", 0, 0600, NULL);
	getrlimit(RLIMIT_NOFILE, &was);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = was.rlim_max};
	setrlimit(RLIMIT_NOFILE, &none);
	bool alive = rundir_alive(base, "a");
	rundir_sweep(base, "a");
	setrlimit(RLIMIT_NOFILE, &was);
	ok(alive && path_exists(file),
	   "who has no descriptor left to look with takes it for alive");
	rundir_leave(base, "a", lock);
	close(lock);
}

#define LOOKERS 3
#define CLAIMS 400

static _Noreturn void look(const char *at)
{
	for (;;) {
		if (at) { /* this one asks as fast as it can */
			rundir_alive(at, "a");
			continue;
		}
		_cleanup_free_ char *base = NULL;
		_cleanup_strvec_ struct strvec names = STRVEC_INIT;
		struct err err = ERR_INIT;
		if (rundir_base(&base, &err) < 0 || rundir_list(base, &names, &err) < 0)
			_exit(1);
	}
}

/* Commands that only look, while clusters come and go. */
static void test_together(const char *base)
{
	struct err err = ERR_INIT;
	pid_t lookers[LOOKERS];
	int claimed = 0, failed = 0;
	for (int i = 0; i < LOOKERS; i++) {
		lookers[i] = fork();
		if (lookers[i] == 0)
			look(i ? base : NULL);
	}
	for (int i = 0; i < CLAIMS; i++) {
		_cleanup_free_ char *dir = NULL;
		int lock = -1;
		if (rundir_claim(base, "a", &dir, &lock, &err) < 0)
			continue;
		claimed += rundir_alive(base, "a");
		rundir_leave(base, "a", lock);
		close(lock);
	}
	for (int i = 0; i < LOOKERS; i++) {
		int status = 0;
		kill(lookers[i], SIGKILL);
		waitpid(lookers[i], &status, 0);
		failed += !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
	}
	is_int(claimed, CLAIMS, "every claim succeeds while others look: %s", err.text);
	is_int(failed, 0, "and no look fails");
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	ok(rundir_list(base, &names, &err) == 0 && !path_exists(base), "nothing is left");
}

int main(void)
{
	char template[] = "/tmp/vse-rundir-XXXXXX";
	home = mkdtemp(template);
	_cleanup_free_ char *base = path_join(home, "vse");
	test_names();
	test_base();
	test_claim(base);
	test_sweep(base, true);
	test_sweep(base, false);
	test_sweep_many(base);
	test_home(base);
	test_replaced(base);
	test_reclaim(base);
	test_elsewhere(base);
	test_sweep_node(base);
	test_foreign(base);
	test_unsure(base);
	test_together(base);
	ok(rmdir(home) == 0, "nothing is left");
	return done();
}
