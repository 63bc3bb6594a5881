/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of hypervisor.h, checked the same way on every back end. TAP.
 *   contract BACKEND [--kernel F] [--vmlinux F] [--initrd F] [--root F] [--cmdline TEXT] [--accel A]
 *                    [--machine M] [--memory MIB] [--vms N] [--bound SECONDS] [--label TEXT]
 *                    [--results F] [--docs F] [--only TEST,...]
 *   contract --matrix F     prints the matrix of the runs that were given --results F
 *   contract --table        prints the table of docs/hypervisors.md; --docs F fails where that file has another */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/size.h"
#include "base/time.h"
#include "adopt-cases.h"
#include "clone-cases.h"
#include "lacking-cases.h"
#include "matrix.h"
#include "net-cases.h"
#include "save-cases.h"
#include "tap-cases.h"
#include "testvm.h"
#include "tests/tap.h"

#define VMS_MAX 4096
static struct env env;
static unsigned n_vms = 8;
static const char *label, *results, *docs, *only;
static enum cell cells[HV_CAPS];

static bool fake(void)
{
	return strcmp(env.h->name, "fake") == 0;
}

static bool one_line(const char *s)
{
	return s[0] && !strchr(s, '\n');
}

/* A VM that is ready; a failed one ends the check, not the run. */
static bool up(struct testvm *t, const char *const *words)
{
	struct err e = ERR_INIT;
	if (testvm_start(t, &env, words, &e) < 0) {
		ok(false, "start: %s", e.text);
		return false;
	}
	if (testvm_wait(t, t->readies || t->gone))
		return ok(t->readies && !t->gone, "ready%s%s", t->gone ? ", but: " : "", t->gone_reason);
	return ok(false, "ready in time (hellos %d, state %s)", t->hellos, hv_state_name(t->state));
}

/* ---- probe ---- */

static void on_probe(void *arg, const struct hv_probe *p)
{
	env.probe = *p;
	++*(int *)arg;
}

static void test_probe(const char *accel)
{
	struct err e = ERR_INIT;
	int answers = 0;
	struct testvm t = {.env = &env};
	uint64_t begin = time_mono_ms();
	ok(hypervisor_probe(env.h, env.loop, accel, on_probe, &answers, &e) == 0, "probe begins %s",
	   e.text);
	is_int(answers, 0, "no answer from inside the call");
	ok(testvm_wait(&t, answers), "an answer comes");
	printf("# probe: %llu ms, usable %d, accel '%s', version '%s', why '%s', note '%s'\n",
	       (unsigned long long)(time_mono_ms() - begin), env.probe.usable, env.probe.accel,
	       env.probe.version, env.probe.why, env.probe.note);
	ok(env.probe.usable ? env.probe.accel[0] && env.probe.version[0] : one_line(env.probe.why),
	   "usable: accelerator and version; else: why");
}

/* ---- the table ---- */

static bool has_op(const struct hypervisor *h, enum hv_cap cap)
{
	switch (cap) {
	case HV_CAP_START:
	case HV_CAP_RESTORE:
	case HV_CAP_MIGRATE_IN:
	case HV_CAP_CLONE: return h->start;
	case HV_CAP_ADOPT: return h->adopt;
	case HV_CAP_STOP_GRACEFUL:
	case HV_CAP_STOP_HARD: return h->stop;
	case HV_CAP_PAUSE: return h->pause && h->resume;
	case HV_CAP_RESET: return h->reset;
	case HV_CAP_SAVE: return h->save && h->cancel;
	case HV_CAP_MIGRATE_OUT: return h->migrate_out && h->cancel;
	case HV_CAP_POST_COPY: return h->post_copy && h->switch_over && h->cancel;
	case HV_CAP_SNAPSHOT: return h->snapshot && h->cancel;
	case HV_CAP_STATS: return h->stats;
	case HV_CAP_PIN: return h->pin;
	default: return true;
	}
}

static void test_entry(const struct hypervisor *h)
{
	unsigned bad = 0;
	for (enum hv_cap c = 0; c < HV_CAPS; c++) {
		const char *why = hypervisor_lacks(h, NULL, c);
		bad += why ? !one_line(why) || strlen(why) >= HV_LACK_MAX : !has_op(h, c);
		bad += !hv_cap_name(c)[0] || !hv_cap_help(c)[0];
	}
	ok(hypervisor_find(h->name) == h && h->summary && h->probe && h->release && !bad,
	   "table: %s: every op is there or has its reason", h->name);
}

static void test_table(void)
{
	size_t n = 0;
	for (const struct hypervisor *h; (h = hypervisor_at(n)); n++)
		test_entry(h);
	ok(n >= 2, "several back ends");
	ok(!hypervisor_find("nosuch"), "an unknown name is not found");
}

/* ---- one VM ---- */

static void test_start_and_exec(void)
{
	struct testvm t;
	struct hv_stats st = {0};
	struct err e = ERR_INIT;
	if (!up(&t, NULL)) {
		testvm_finish(&t);
		return;
	}
	printf("# running after %llu ms, hello %llu ms, ready %llu ms\n",
	       (unsigned long long)t.running_ms, (unsigned long long)t.hello_ms,
	       (unsigned long long)t.ready_ms);
	is_int(t.state, HV_RUNNING, "state: running");
	is_int(t.channels, 1, "one channel");
	is_int(t.hellos, 1, "one hello");
	static const char *const echo[] = {"echo", "round", "trip", NULL}, *const cat[] = {"cat", NULL},
				 *const none[] = {"no-such-program", NULL};
	testvm_exec(&t, echo, NULL);
	ok(testvm_wait(&t, t.exits == 1), "a program ends");
	is_int(t.exit_code, 0, "with exit code 0");
	is_str(buf_cstr(&t.out), "round trip\n", "and its output");
	testvm_exec(&t, cat, "through\n");
	ok(testvm_wait(&t, t.exits == 2) && t.exit_code == 0, "a program with input ends");
	is_str(buf_cstr(&t.out), "through\n", "input comes back");
	testvm_exec(&t, none, NULL);
	ok(testvm_wait(&t, t.exits == 3), "a program that is not there ends");
	is_int(t.exit_code, 127, "with 127");
	ok(testvm_feed(&t), "a program takes much input");
	is_int(hv_stats(t.hv, &st, &e), 0, "stats %s", e.text);
	ok(st.rss > 0, "it uses memory (%llu KiB)", (unsigned long long)st.rss / 1024);
	ok(hv_stop(t.hv, HV_STOP_HARD, &e) == 0, "hard stop begins %s", e.text);
	is_int(t.gone, 0, "no event from inside the call");
	ok(testvm_wait(&t, t.gone), "the VM is gone");
	is_int(t.gone_state, HV_SHUTDOWN, "a stop that was asked for is no crash");
	is_str(t.gone_reason, "stopped", "and the reason says so");
	ok(hv_pause(t.hv, &e) < 0 && e.code == ESRCH, "after the end every op is refused: %s", e.text);
	testvm_run(&env, 100);
	is_int(t.after_gone, 0, "no event after the end");
	is_int(t.failed, 0, "nothing failed");
	testvm_finish(&t);
}

/* What comes out of eth0: a frame with its length before it. */
static void test_net(void)
{
	struct testvm t;
	unsigned char head[4];
	static const char *const ping[] = {"ping", "-c", "1", "-W", "1", "10.77.0.2", NULL};
	env.spec.nic = true;
	memcpy(env.spec.mac, (uint8_t[]){2, 0, 0, 0, 0, 1}, 6);
	if (up(&t, NULL)) {
		ok(t.net_fd >= 0, "eth0 comes as a descriptor");
		testvm_exec(&t, ping, NULL);
		ok(testvm_wait(&t, recv(t.net_fd, head, 4, MSG_DONTWAIT | MSG_PEEK) == 4),
		   "a frame comes from the guest");
		unsigned n = (unsigned)head[0] << 24 | (unsigned)head[1] << 16 |
			     (unsigned)head[2] << 8 | head[3];
		ok(n >= 14 && n <= 1518, "of %u bytes", n);
		if (!fake() && testvm_wait(&t, t.exits == 1))
			test_long_frames(&t);
	}
	testvm_finish(&t);
	env.spec.nic = false;
}

/* A second NIC, and a writable disk: that the guest has it. */
static void guest_prints(const char *const *argv, const char *want)
{
	struct testvm t;
	if (up(&t, NULL) && !fake()) {
		testvm_exec(&t, argv, NULL);
		ok(testvm_wait(&t, t.exits == 1) && t.exit_code == 0, "the guest can tell");
		is_str(buf_cstr(&t.out), want, "and has it");
	}
	testvm_finish(&t);
}

static void test_outbound(void)
{
	static const char *const argv[] = {"cat", "/sys/class/net/eth0/address", NULL};
	env.spec.outbound = true;
	guest_prints(argv, "52:54:00:12:34:56\n");
	env.spec.outbound = false;
}

static void test_scratch(void)
{
	static const char *const argv[] = {"sh", "-c", "cat /sys/block/*vd[bf]/size", NULL};
	_cleanup_free_ char *path = path_join(env.tmp, "scratch");
	struct err e = ERR_INIT;
	ok(path_write(path, "", 0, 0600, &e) == 0 && truncate(path, 1 << 20) == 0, "a disk %s", e.text);
	env.spec.scratch = path;
	guest_prints(argv, "2048\n");
	env.spec.scratch = NULL;
	unlink(path);
}

static void test_console(void)
{
	struct testvm t;
	static const char *const words[] = {"console=line one\n", "console-bytes=100000", NULL},
				 *const print[] = {"sh", "-c", "echo on the console >/dev/console",
						   NULL};
	if (!fake()) {
		if (up(&t, NULL)) {
			testvm_exec(&t, print, NULL);
			ok(testvm_wait(&t, strstr(buf_cstr(&t.console_text), "on the console")),
			   "what the guest prints comes");
		}
		testvm_finish(&t);
		return;
	}
	if (up(&t, words)) {
		uint64_t begin = time_mono_ms();
		if (!ok(testvm_wait(&t, buf_len(&t.console_text) >= 100009),
			"the whole console comes"))
			printf("#   %zu of 100009 bytes after %llu ms\n", buf_len(&t.console_text),
			       (unsigned long long)(time_mono_ms() - begin));
		ok(strncmp(buf_cstr(&t.console_text), "line one\n", 9) == 0, "in order");
		size_t before = buf_len(&t.console_text);
		stream_write(t.console, "typed", 5);
		ok(testvm_wait(&t, buf_len(&t.console_text) == before + 5),
		   "the console takes input");
	}
	testvm_finish(&t);
}

static void test_pause(void)
{
	struct testvm t;
	struct err e = ERR_INIT;
	if (!up(&t, NULL)) {
		testvm_finish(&t);
		return;
	}
	is_int(hv_pause(t.hv, &e), 0, "pause begins %s", e.text);
	ok(testvm_wait(&t, t.state == HV_PAUSED), "state: paused");
	testvm_ping(&t);
	testvm_run(&env, 300);
	is_int(t.pongs, 0, "a paused guest does not answer");
	is_int(hv_resume(t.hv, &e), 0, "resume begins %s", e.text);
	ok(testvm_wait(&t, t.state == HV_RUNNING), "state: running");
	ok(testvm_wait(&t, t.pongs == 1), "the answer comes now");
	is_int(t.failed + t.gone, 0, "nothing failed");
	/* In order, also when nobody waits in between. */
	int before = t.states;
	hv_pause(t.hv, &e);
	hv_resume(t.hv, &e);
	ok(testvm_wait(&t, t.states >= before + 2) && t.state == HV_RUNNING,
	   "pause and resume at once end in running");
	testvm_finish(&t);
}

static void test_reset(void)
{
	struct testvm t;
	struct err e = ERR_INIT;
	char boot[64];
	if (up(&t, NULL)) {
		memcpy(boot, t.boot, sizeof(boot));
		is_int(hv_reset(t.hv, &e), 0, "reset begins %s", e.text);
		ok(testvm_wait(&t, t.hellos == 2 || t.gone), "the guest says hello again");
		is_int(t.channels, 2, "on a new channel");
		ok(strcmp(boot, t.boot) != 0, "with another boot id (%s, %s)", boot, t.boot);
		ok(testvm_wait(&t, t.readies == 2), "and is ready again");
		is_int(t.gone, 0, "it is the same VM");
	}
	testvm_finish(&t);
}

static void test_guest_shutdown(void)
{
	struct testvm t;
	if (up(&t, NULL)) {
		testvm_shutdown(&t, "poweroff");
		ok(testvm_wait(&t, t.gone), "the VM is gone");
		is_int(t.gone_state, HV_SHUTDOWN, "by a shutdown");
		is_str(t.gone_reason, "guest powered off", "and the reason says so");
		is_int(t.byes, 1, "the guest said bye");
	}
	testvm_finish(&t);
	if (up(&t, NULL)) {
		testvm_shutdown(&t, "reboot");
		ok(testvm_wait(&t, t.gone), "a guest that reboots by itself ends its VM");
		ok(strstr(t.gone_reason, "reset itself"), "and the reason says so: %s", t.gone_reason);
	}
	testvm_finish(&t);
}

/* A kernel that panics is no reboot and no clean end. */
static void test_guest_panics(void)
{
	struct testvm t;
	static const char *const crash[] = {"sh", "-c", "echo c >/proc/sysrq-trigger", NULL};
	if (up(&t, NULL)) {
		testvm_exec(&t, crash, NULL);
		ok(testvm_wait(&t, t.gone), "a guest that panics ends its VM");
		is_int(t.gone_state, HV_CRASHED, "as a crash");
		is_str(t.gone_reason, "guest kernel panicked", "and the reason says so");
		is_int(t.byes, 0, "nobody said bye");
	}
	testvm_finish(&t);
}

static void test_vmm_killed(void)
{
	struct testvm t;
	struct hv_stats st = {0};
	struct err e = ERR_INIT;
	static const char *const crash[] = {"crash-after=50ms", NULL};
	if (up(&t, fake() ? crash : NULL)) {
		if (!fake()) {
			hv_stats(t.hv, &st, &e);
			ok(st.pid > 1, "the VMM has a process");
			kill(st.pid, SIGKILL);
		}
		ok(testvm_wait(&t, t.gone), "the VM is gone");
		is_int(t.gone_state, HV_CRASHED, "by a crash");
		ok(one_line(t.gone_reason), "reason: %s", t.gone_reason);
		ok(fake() || testvm_killed(&t), "it names the signal, or says that it cannot");
		is_int(t.gone, 1, "told once");
	}
	testvm_finish(&t);
}

static void test_graceful(void)
{
	struct testvm t;
	struct err e = ERR_INIT;
	if (up(&t, NULL)) {
		/* What the guest does with a power button is its own matter. */
		is_int(hv_stop(t.hv, HV_STOP_GRACEFUL, &e), 0, "graceful stop begins %s", e.text);
		is_int(t.gone, 0, "no event from inside the call");
	}
	testvm_finish(&t);
}

/* ---- failures ---- */

static void test_start_fails(void)
{
	struct testvm t;
	struct err e = ERR_INIT;
	struct hv_spec was = env.spec;
	static const char *const refuse[] = {"refuse-start", NULL}, *const fail[] = {"fail-start", NULL},
				 *const bad_word[] = {"no-such-word", NULL},
				 *const bad_device[] = {"-device", "nosuch", NULL};
	if (!fake())
		env.spec.vmlinux = env.spec.kernel = "/nonexistent/kernel";
	ok(testvm_start(&t, &env, fake() ? refuse : NULL, &e) < 0,
	   "a start that cannot succeed is refused");
	ok(one_line(e.text) && (fake() || strstr(e.text, "/nonexistent/kernel")), "one line: %s",
	   e.text);
	env.spec = was;
	if (fake())
		ok(testvm_start(&t, &env, bad_word, &e) < 0 && e.code == EINVAL, "bad script: %s",
		   e.text);
	env.spec.machine = "nosuch";
	ok(fake() || (testvm_start(&t, &env, NULL, &e) < 0 && e.code == EINVAL), "bad machine: %s",
	   e.text);
	env.spec = was;
	if (testvm_start(&t, &env, fake() ? fail : bad_device, &e) < 0) {
		ok(false, "start: %s", e.text);
		return;
	}
	ok(testvm_wait(&t, t.gone), "a start that fails later ends in gone");
	testvm_run(&env, 50);
	is_int(t.gone, 1, "once");
	is_int(t.gone_state, HV_CRASHED, "as a crash");
	is_int(t.channels, 0, "with no channel");
	ok(one_line(t.gone_reason) && (fake() || strstr(t.gone_reason, "nosuch")), "one line: %s",
	   t.gone_reason);
	testvm_finish(&t);
}

static void test_kernel_is_nonsense(void)
{
	struct testvm t;
	struct err e = ERR_INIT;
	struct hv_spec was = env.spec;
	if (fake())
		return;
	_cleanup_free_ char *path = path_join(env.tmp, "nonsense");
	path_write(path, "no kernel\n", 10, 0600, &e);
	env.spec.vmlinux = NULL;
	env.spec.kernel = path;
	if (testvm_start(&t, &env, NULL, &e) == 0) {
		ok(testvm_wait(&t, t.gone), "a file that is no kernel ends the VM");
		ok(one_line(t.gone_reason), "one line: %s", t.gone_reason);
		testvm_finish(&t);
	} else {
		ok(one_line(e.text), "a file that is no kernel is refused: %s", e.text);
	}
	env.spec = was;
	unlink(path);
}

/* ---- release in every state; many VMs ---- */

static bool left_over(pid_t pid, uint64_t start)
{
	return pid > 0 && proc_alive(pid, start);
}

/* Starts, runs until `when` holds, releases; nothing may stay. */
static void release_when(const char *what, bool (*when)(const struct testvm *t), bool do_pause)
{
	struct testvm t;
	struct err e = ERR_INIT;
	struct hv_stats st = {0};
	uint64_t start = 0;
	if (testvm_start(&t, &env, NULL, &e) < 0) {
		ok(false, "start: %s", e.text);
		return;
	}
	bool reached = testvm_wait(&t, when(&t));
	if (reached && do_pause) {
		hv_pause(t.hv, &e);
		reached = testvm_wait(&t, t.state == HV_PAUSED);
	}
	hv_stats(t.hv, &st, &e);
	if (st.pid)
		proc_start_time(st.pid, &start, &e);
	testvm_finish(&t);
	int gone = t.gone;
	ok(reached && testvm_wait(&t, !left_over(st.pid, start)), "released %s: no process stays", what);
	ok(t.gone == gone, "and no event comes");
}

static bool at_once(const struct testvm *t _unused_)
{
	return true;
}

static bool is_running(const struct testvm *t)
{
	return t->states > 0;
}

static bool is_ready(const struct testvm *t)
{
	return t->readies > 0;
}

static void test_release(void)
{
	release_when("at once", at_once, false);
	release_when("when it runs", is_running, false);
	release_when("when it is ready", is_ready, false);
	release_when("when it is paused", is_running, true);
}

/* Of this process: what our side costs, without the VMMs. */
static uint64_t own_cpu_us(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static uint64_t own_rss(void)
{
	uint64_t rss = 0;
	proc_usage(getpid(), &rss, NULL, NULL);
	return rss;
}

static void test_many(void)
{
	static struct testvm vms[VMS_MAX];
	struct err e = ERR_INIT;
	unsigned begun = 0, ready = 0, gone = 0, single = 0;
	uint64_t begin = time_mono_ms(), cpu = own_cpu_us(), rss = own_rss();
	for (unsigned i = 0; i < n_vms; i++)
		begun += testvm_start(&vms[i], &env, NULL, &e) == 0;
	is_int(begun, n_vms, "%u VMs start at once %s", n_vms, e.text);
	if (begun < n_vms)
		return;
	uint64_t bound = env.bound_ms;
	env.bound_ms *= 1 + n_vms / 4;
	for (unsigned i = 0; i < n_vms; i++)
		ready += testvm_wait(&vms[i], vms[i].readies || vms[i].gone) && vms[i].readies == 1;
	is_int(ready, n_vms, "all are ready");
	for (unsigned i = 0; i < n_vms; i++)
		if (vms[i].gone)
			printf("# VM %u ended: %s\n", i, vms[i].gone_reason);
	printf("# our side, per VM: %.2f ms of CPU, %.1f KiB\n",
	       (double)(own_cpu_us() - cpu) / 1000 / n_vms,
	       (double)(int64_t)(own_rss() - rss) / 1024 / n_vms);
	printf("# %u VMs ready after %llu ms\n", n_vms, (unsigned long long)(time_mono_ms() - begin));
	begin = time_mono_ms();
	for (unsigned i = 0; i < n_vms; i++)
		hv_stop(vms[i].hv, HV_STOP_HARD, &e);
	for (unsigned i = 0; i < n_vms; i++)
		gone += testvm_wait(&vms[i], vms[i].gone);
	is_int(gone, n_vms, "all are gone");
	printf("# and gone %llu ms after the stop\n", (unsigned long long)(time_mono_ms() - begin));
	for (unsigned i = 0; i < n_vms; i++) {
		single += vms[i].gone == 1 && vms[i].after_gone == 0;
		testvm_finish(&vms[i]);
	}
	is_int(single, n_vms, "each once");
	env.bound_ms = bound;
}

/* A release from inside the event is what the layer above does with a VM that has ended. */
static struct hv *doomed;
static int doomed_events;

static void release_inside(void *arg _unused_, const struct hv_event *e)
{
	doomed_events++;
	if (e->fd >= 0)
		close(e->fd);
	hv_release(TAKE_PTR(doomed));
}

static void test_release_inside(void)
{
	struct err e = ERR_INIT;
	struct testvm t = {.env = &env};
	struct hv_spec spec = env.spec;
	_cleanup_free_ char *dir = path_join(env.tmp, "inside");
	mkdir(dir, 0700);
	spec.dir = dir;
	doomed_events = 0;
	is_int(hv_start(env.h, env.loop, &spec, &env.probe, release_inside, NULL, &doomed, &e), 0,
	       "start %s", e.text);
	ok(testvm_wait(&t, doomed_events), "the first event comes, and releases");
	testvm_run(&env, 100);
	is_int(doomed_events, 1, "no other comes");
	path_remove(dir, NULL);
}

/* ---- */

static int usage(void)
{
	fprintf(stderr, "usage: contract BACKEND [--kernel F] [--vmlinux F] [--initrd F] [--root "
			"F] [--cmdline TEXT]"
			" [--accel A] [--machine M] [--memory MIB] [--vms N] [--bound SECONDS] "
			"[--label TEXT] [--results F]"
			" [--docs F] [--only TEST,...]\n       contract --matrix F | --table\n");
	return 2;
}

static int parse(int argc, char **argv, const char **ret_accel)
{
	static const struct option options[] = {
		{"kernel", 1, NULL, 'k'},  {"vmlinux", 1, NULL, 'v'}, {"initrd", 1, NULL, 'i'},
		{"root", 1, NULL, 'r'},    {"cmdline", 1, NULL, 'c'}, {"accel", 1, NULL, 'a'},
		{"machine", 1, NULL, 'm'}, {"vms", 1, NULL, 'n'},     {"bound", 1, NULL, 'b'},
		{"label", 1, NULL, 'l'},   {"results", 1, NULL, 'R'}, {"docs", 1, NULL, 'd'},
		{"only", 1, NULL, 'o'},    {"memory", 1, NULL, 'M'},  {0}};
	int64_t n;
	struct hv_spec *s = &env.spec;
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (c) {
		case 'k': s->kernel = optarg; break;
		case 'v': s->vmlinux = optarg; break;
		case 'i': s->initrd = optarg; break;
		case 'r': s->root = optarg; break;
		case 'c': s->cmdline = optarg; break;
		case 'a': *ret_accel = optarg; break;
		case 'm': s->machine = optarg; break;
		case 'l': label = optarg; break;
		case 'R': results = optarg; break;
		case 'd': docs = optarg; break;
		case 'o': only = optarg; break;
		case 'n':
			if (int_parse(optarg, 1, VMS_MAX, &n, NULL) < 0)
				return usage();
			n_vms = (unsigned)n;
			break;
		case 'M':
			if (int_parse(optarg, 1, 4096, &n, NULL) < 0)
				return usage();
			s->memory = (uint64_t)n << 20;
			break;
		case 'b':
			if (int_parse(optarg, 1, 3600, &n, NULL) < 0)
				return usage();
			env.bound_ms = (uint64_t)n * 1000;
			break;
		default: return usage();
		}
	}
	env.h = argc == optind + 1 ? hypervisor_find(argv[optind]) : NULL;
	return env.h ? 0 : usage();
}

/* Runs a test that is about these operations, unless one of them is lacked: then that it is refused is all there is
 * (test_lacking), and the matrix says why. */
#define covers(fn, ...) covers_(fn, #fn, (const enum hv_cap[]){__VA_ARGS__, HV_CAPS})

static void covers_(void (*fn)(void), const char *name, const enum hv_cap *caps)
{
	int before = tap_failed;
	if (!test_wanted(only, name))
		return;
	for (const enum hv_cap *c = caps; *c != HV_CAPS; c++)
		if (hypervisor_lacks(env.h, &env.probe, *c))
			return;
	uint64_t begin = time_mono_ms();
	fn();
	printf("# %s: %llu ms\n", name, (unsigned long long)(time_mono_ms() - begin));
	for (; *caps != HV_CAPS; caps++)
		cells[*caps] = MAX(cells[*caps], tap_failed > before ? CELL_FAIL : CELL_PASS);
}

static void test_adopt(void)
{
	adopt_cases(&env);
}

#define WITH_ENV(name)                                                                             \
	static void name(void)                                                                     \
	{                                                                                          \
		test_##name(&env);                                                                 \
	}
WITH_ENV(save_and_restore)
WITH_ENV(save_fails)
WITH_ENV(migrate)
WITH_ENV(post_copy)
WITH_ENV(pin)
WITH_ENV(numa)
WITH_ENV(hugepages)
WITH_ENV(host_dir)
WITH_ENV(devices)
WITH_ENV(clone)
WITH_ENV(tap)
WITH_ENV(lacking)

static void run_all(void)
{
	covers(test_start_and_exec, HV_CAP_START, HV_CAP_STOP_HARD, HV_CAP_STATS);
	covers(test_console, HV_CAP_CONSOLE);
	covers(test_net, HV_CAP_NET);
	if (tap_can_be_tried(&env))
		covers(tap, HV_CAP_TAP);
	covers(test_outbound, HV_CAP_OUTBOUND);
	covers(test_scratch, HV_CAP_SCRATCH);
	covers(test_pause, HV_CAP_PAUSE);
	covers(test_reset, HV_CAP_RESET);
	covers(save_and_restore, HV_CAP_SAVE, HV_CAP_RESTORE);
	covers(save_fails, HV_CAP_SAVE, HV_CAP_RESTORE);
	covers(migrate, HV_CAP_MIGRATE_OUT, HV_CAP_MIGRATE_IN);
	covers(post_copy, HV_CAP_POST_COPY);
	covers(clone, HV_CAP_SNAPSHOT, HV_CAP_CLONE);
	if (strcmp(env.h->name, "qemu") == 0 ||
	    strcmp(env.h->name, "xen") == 0) /* they can be asked where it is */
		covers(pin, HV_CAP_PIN);
	if (strcmp(env.h->name, "qemu") == 0) { /* elsewhere a VM is no process that can be looked at */
		covers(numa, HV_CAP_NUMA);
		covers(hugepages, HV_CAP_HUGEPAGES);
	}
	/* The kernels that boot fastest have no 9p: a run of its own has one (tests/system/contract-qemu.t). */
	if (strcmp(env.h->name, "qemu") != 0 ||
	    (env.spec.cmdline && strstr(env.spec.cmdline, "9pnet")))
		covers(host_dir, HV_CAP_HOST_DIR);
	if (strcmp(env.h->name, "fake") == 0) /* others have real ones to give away */
		covers(devices, HV_CAP_DEVICES);
	covers(test_guest_shutdown, HV_CAP_START);
	covers(test_guest_panics, HV_CAP_KERNEL);
	covers(test_vmm_killed, HV_CAP_START);
	covers(test_graceful, HV_CAP_STOP_GRACEFUL);
	covers(test_start_fails, HV_CAP_START);
	covers(test_kernel_is_nonsense, HV_CAP_START);
	covers(test_release, HV_CAP_START);
	covers(test_release_inside, HV_CAP_START);
	covers(test_adopt, HV_CAP_ADOPT);
	covers(test_many, HV_CAP_START, HV_CAP_STOP_HARD);
}

static void finish_matrix(void)
{
	const char *reasons[HV_CAPS] = {0};
	struct err e = ERR_INIT;
	for (enum hv_cap c = 0; c < HV_CAPS; c++)
		if ((reasons[c] = hypervisor_lacks(env.h, &env.probe, c)))
			cells[c] = CELL_ENOTSUP;
	_cleanup_free_ char *own = path_join(env.tmp, "results");
	if (!results)
		results = own;
	const char *name = label ? label : env.h->name, *all = getenv("VSE_MATRIX_DIR");
	ok(matrix_save(results, name, cells, reasons, &e) == 0 && matrix_print(results, &e) == 0,
	   "matrix %s", e.text);
	if (all && *all) { /* tests/system/matrix.t */
		_cleanup_free_ char *path = xasprintf("%s/%s-%u", all, name, (unsigned)geteuid());
		ok(matrix_save(path, name, cells, reasons, &e) == 0, "kept for that of all %s", e.text);
	}
}

int main(int argc, char **argv)
{
	const char *accel = "auto";
	if (argc > 1 && (strcmp(argv[1], "--table") == 0 || strcmp(argv[1], "--matrix") == 0))
		return matrix_only(argv[2]);
	env.bound_ms = 60000;
	env.spec = (struct hv_spec){
		.name = "vm0", .cpus = 1, .memory = 256u << 20, .machine = "auto", .trusted = true};
	struct err e = ERR_INIT;
	int rc = parse(argc, argv, &accel);
	if (rc)
		return rc;
	env.spec.accel = accel;
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	env.loop = loop_create();
	env.tmp = xasprintf("%s/vse-contract.XXXXXX", getenv("TMPDIR") ?: "/tmp");
	if (!mkdtemp(env.tmp))
		return 1;
	test_table();
	lacking();
	test_probe(accel);
	if (env.probe.usable)
		run_all();
	else
		ok(false, "%s is usable here: %s", env.h->name, env.probe.why);
	finish_matrix();
	is_int(hv_told_inside(), 0, "no event has come from inside an op");
	if (docs)
		ok(matrix_in_docs(docs, &e), "%s has the table that 'contract --table' prints %s",
		   docs, e.text);
	testvm_run(&env, 10);
	loop_destroy(env.loop);
	path_remove(env.tmp, NULL);
	free(env.tmp);
	return done();
}
