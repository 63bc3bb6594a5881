/* SPDX-License-Identifier: Apache-2.0 */
#include "adopt-cases.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/time.h"
#include "tests/tap.h"

/* What the process that dies tells of its VM. */
struct word {
	pid_t pid;
	uint64_t start;
	char boot[64];
	char dir[200];
};

enum last { LAST_READY, LAST_PAUSED, LAST_EXEC };

static bool is_fake(const struct env *env)
{
	return strcmp(env->h->name, "fake") == 0;
}

/* The process that dies. It says nothing: what it prints would be this test's. */
static _Noreturn void begin(struct env *env, enum last last, int out)
{
	struct testvm t;
	struct word w = {0};
	struct err e = ERR_INIT;
	struct hv_stats st = {0};
	static const char *const mark[] = {"sh", "-c", "echo here >/tmp/mark", NULL},
				 *const busy[] = {"sh",
						  "-c", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done",
						  NULL},
				 *const fake_busy[] = {"yes", "1000000", NULL};
	env->loop = loop_create();
	if (testvm_start(&t, env, NULL, &e) < 0)
		_exit(3);
	if (!testvm_wait(&t, t.readies || t.gone) || t.gone) {
		fprintf(stderr, "# not ready: %s\n", t.gone_reason);
		_exit(4);
	}
	testvm_exec(&t, mark, NULL);
	if (!testvm_wait(&t, t.exits))
		_exit(5);
	if (last == LAST_PAUSED && (hv_pause(t.hv, &e) < 0 || !testvm_wait(&t, t.state == HV_PAUSED)))
		_exit(6);
	if (last == LAST_EXEC) {
		testvm_exec(&t, is_fake(env) ? fake_busy : busy, NULL);
		if (!testvm_wait(&t, buf_len(&t.out) > 20000))
			_exit(7);
	}
	hv_stats(t.hv, &st, &e);
	w.pid = st.pid;
	if (w.pid > 0)
		proc_start_time(w.pid, &w.start, NULL);
	memcpy(w.boot, t.boot, sizeof(w.boot));
	snprintf(w.dir, sizeof(w.dir), "%s", t.dir);
	if (write(out, &w, sizeof(w)) != (ssize_t)sizeof(w))
		_exit(8);
	raise(SIGKILL);
	_exit(9);
}

/* False: that process had no VM to leave behind. */
static bool orphan(struct env *env, enum last last, struct word *ret)
{
	int p[2], status = 0;
	fflush(stdout);
	if (pipe(p) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0)
		begin(env, last, p[1]);
	close(p[1]);
	bool told = fd_read_full(p[0], ret, sizeof(*ret)) == (ssize_t)sizeof(*ret);
	close(p[0]);
	waitpid(pid, &status, 0);
	env->made++; /* its folder's number is taken */
	return ok(told && WIFSIGNALED(status),
		  "a process has started a VM, and was killed (status %#x)", (unsigned)status);
}

static bool lives(const struct word *w)
{
	return w->pid <= 0 || proc_alive(w->pid, w->start);
}

/* The VMM is a child of this process now. */
static void reap(const struct word *w)
{
	if (w->pid > 0)
		waitpid(w->pid, NULL, 0);
}

static void check_guest(struct testvm *t, const struct word *w)
{
	struct hv_stats st = {0};
	static const char *const look[] = {"cat", "/tmp/mark", NULL}, *const echo[] = {"echo",
										       "here", NULL};
	ok(testvm_wait(t, t->readies || t->gone) && !t->gone, "its guest is ready again%s%s",
	   t->gone ? ", but: " : "", t->gone_reason);
	is_str(t->boot, w->boot, "it has not rebooted");
	testvm_exec(t, is_fake(t->env) ? echo : look, NULL);
	ok(testvm_wait(t, t->exits) && t->exit_code == 0, "a program runs");
	is_str(buf_cstr(&t->out), "here\n", "and finds what was there before");
	hv_stats(t->hv, &st, NULL);
	is_int(st.pid, w->pid, "the VMM is the same process");
}

static void test_running(struct env *env, enum last last)
{
	struct testvm t;
	struct word w;
	struct err e = ERR_INIT;
	if (!orphan(env, last, &w))
		return;
	ok(lives(&w), "the VM has outlived it");
	if (!ok(testvm_adopt(&t, env, xstrdup(w.dir), &e) == 0, "adopt begins %s", e.text))
		return;
	is_int(t.states + t.channels + t.gone, 0, "no event from inside the call");
	ok(testvm_wait(&t, t.states || t.gone), "a state comes%s%s", t.gone ? ", but: " : "",
	   t.gone_reason);
	is_int(t.state, HV_RUNNING, "running");
	is_str(t.reason, "adopted", "reason: adopted");
	check_guest(&t, &w);
	is_int(t.channels, 1, "one channel");
	ok(!env->spec.nic || t.net_fd >= 0, "eth0 comes as a new descriptor");
	static const char *const ping[] = {"ping", "-c", "1", "-W", "1", "10.77.0.2", NULL};
	unsigned char head[4];
	if (env->spec.nic) {
		testvm_exec(&t, ping, NULL);
		ok(testvm_wait(&t, recv(t.net_fd, head, 4, MSG_DONTWAIT | MSG_PEEK) == 4) &&
			   !head[0] && !head[1],
		   "and begins with a whole frame");
	}
	static const char *const print[] = {"sh", "-c", "echo on the console >/dev/console", NULL};
	if (!is_fake(env)) {
		testvm_exec(&t, print, NULL);
		ok(testvm_wait(&t, strstr(buf_cstr(&t.console_text), "on the console")),
		   "the console goes on");
	}
	is_int(hv_pause(t.hv, &e), 0, "pause begins %s", e.text);
	ok(testvm_wait(&t, t.state == HV_PAUSED), "state: paused");
	is_int(t.failed + t.gone, 0, "nothing failed");
	testvm_finish(&t);
	ok(testvm_wait(&t, w.pid <= 0 || !lives(&w)), "a release ends it");
	reap(&w);
}

static void test_paused(struct env *env)
{
	struct testvm t;
	struct word w;
	struct err e = ERR_INIT;
	if (!orphan(env, LAST_PAUSED, &w))
		return;
	if (!ok(testvm_adopt(&t, env, xstrdup(w.dir), &e) == 0, "adopt of a paused VM begins %s", e.text))
		return;
	ok(testvm_wait(&t, t.states || t.gone), "a state comes");
	is_int(t.state, HV_PAUSED, "paused, as it was");
	testvm_run(env, 200);
	is_int(t.hellos, 0, "its guest says nothing");
	is_int(hv_resume(t.hv, &e), 0, "resume begins %s", e.text);
	check_guest(&t, &w);
	is_int(hv_stop(t.hv, HV_STOP_HARD, &e), 0, "stop begins %s", e.text);
	ok(testvm_wait(&t, t.gone), "the VM is gone");
	is_int(t.gone_state, HV_SHUTDOWN, "as a stop that was asked for");
	testvm_run(env, 50);
	is_int(t.gone + t.after_gone, 1, "told once");
	testvm_finish(&t);
	reap(&w);
}

/* Nobody looked when it ended. */
static void test_ended(struct env *env)
{
	struct testvm t;
	struct word w;
	struct err e = ERR_INIT;
	if (is_fake(env) || !orphan(env, LAST_READY, &w))
		return;
	kill(w.pid, SIGKILL);
	ok(testvm_wait(&(struct testvm){.env = env}, !lives(&w)), "its VMM was killed meanwhile");
	if (!ok(testvm_adopt(&t, env, xstrdup(w.dir), &e) == 0, "adopt begins %s", e.text))
		return;
	ok(testvm_wait(&t, t.gone), "gone follows");
	is_int(t.gone_state, HV_CRASHED, "a crash");
	ok(testvm_killed(&t), "with its reason: %s", t.gone_reason);
	is_int(t.states + t.channels, 0, "and nothing else");
	testvm_finish(&t);
	reap(&w);
}

static void test_nothing(struct env *env)
{
	struct testvm t;
	struct err e = ERR_INIT;
	char *dir = path_join(env->tmp, "empty");
	mkdir(dir, 0700);
	ok(testvm_adopt(&t, env, dir, &e) < 0 && e.code == ENOENT,
	   "an empty folder has nothing to adopt: %s", e.text);
}

/* Without spec.keep it dies with who started it. */
static void test_not_kept(struct env *env)
{
	struct word w;
	env->spec.keep = false;
	if (!is_fake(env) && orphan(env, LAST_READY, &w)) {
		ok(testvm_wait(&(struct testvm){.env = env}, !lives(&w)),
		   "a VM that is not to be kept dies with it");
		path_remove(w.dir, NULL);
	}
	env->spec.keep = true;
}

void adopt_cases(struct env *env)
{
	struct hv_spec was = env->spec;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	env->spec.keep = true;
	env->spec.nic = !hypervisor_lacks(env->h, &env->probe, HV_CAP_NET);
	memcpy(env->spec.mac, (uint8_t[]){2, 0, 0, 0, 0, 1}, 6);
	test_running(env, LAST_READY);
	test_running(env, LAST_EXEC);
	test_paused(env);
	test_ended(env);
	test_nothing(env);
	test_not_kept(env);
	env->spec = was;
	prctl(PR_SET_CHILD_SUBREAPER, 0);
}
