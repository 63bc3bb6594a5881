/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/topology.h"
#include "base/proc.h"
#include "base/strvec.h"
#include "io/child.h"
#include "io/listener.h"
#include "io/loop.h"
#include "io/stream.h"
#include "tap.h"

static struct loop *loop;

struct seen {
	int status, exits, fired, closes;
	size_t bytes;
	char text[64];
	struct stream *s;
	struct evtimer *t;
};

static void stop_loop(void *arg _unused_)
{
	loop_stop(loop);
}

static void on_exit_status(void *arg, int status)
{
	struct seen *s = arg;
	s->status = status;
	s->exits++;
	loop_stop(loop);
}

static void run_child(struct seen *s, char *const argv[], bool want)
{
	struct err err = ERR_INIT;
	struct child_spec spec = {.argv = argv};
	struct child *c = child_start(loop, &spec, on_exit_status, s, &err);
	ok(!!c == want, "start %s %s", argv[0], err.text);
	if (!c)
		return;
	loop_run(loop);
	child_destroy(c);
}

static void test_pid_note(void)
{
	char dir[] = "/tmp/test-io.XXXXXX";
	struct err err = ERR_INIT;
	if (!mkdtemp(dir))
		return;
	_cleanup_free_ char *note = path_join(dir, "a note"), *copy = path_join(dir, "copy"),
			    *text = NULL;
	_cleanup_free_ char *line = xasprintf("cat '%s' >'%s'; exec sleep 1000", note, copy);
	char *argv[] = {(char *)"sh", (char *)"-c", line, NULL};
	struct child_spec spec = {.argv = argv, .pid_note = note};
	pid_t pid = 0, noted = 0;
	uint64_t start = 0, noted_start = 1;
	ok(child_spawn(&spec, &pid, &err) == 0 && proc_start_time(pid, &start, &err) == 0,
	   "a program with a note: %s", err.text);
	for (int i = 0;
	     i < 1000 && (path_read(copy, 100, &text, NULL, NULL) < 0 || !strchr(text, '\n')); i++) {
		free(TAKE_PTR(text));
		usleep(10000);
	}
	ok(text && sscanf(text, "%d %" SCNu64 "\n", &noted, &noted_start) == 2 && noted == pid &&
		   noted_start == start,
	   "it is noted when the program begins: %s", text ? text : "nothing");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	path_remove(dir, NULL);
}

static void test_child(void)
{
	struct seen s = {0};
	char text[40];
	run_child(&s, (char *[]){(char *)"sh", (char *)"-c", (char *)"exit 3", NULL}, true);
	is_str(child_status_text(s.status, text), "exit 3", "exit status");
	run_child(&s, (char *[]){(char *)"sh", (char *)"-c", (char *)"kill -9 $$", NULL}, true);
	is_str(child_status_text(s.status, text), "killed by SIGKILL", "signal");
	run_child(&s, (char *[]){(char *)"/no/such/program", NULL}, false);
	run_child(&s, (char *[]){(char *)"/etc", NULL}, false);
	is_int(s.exits, 2, "one exit each");
}

static void test_child_fds(void)
{
	/* A child sees exactly the descriptors it was given, in their places. */
	int p[2], leak = open("/dev/null", O_RDONLY); /* not close-on-exec on purpose */
	ok(pipe2(p, O_CLOEXEC) == 0 && leak >= 0, "pipe");
	struct seen s = {0};
	struct err err = ERR_INIT;
	struct child_spec spec = {
		.argv = (char *[]){(char *)"sh", (char *)"-c",
				   (char *)"echo /proc/self/fd/*; echo five >&5", NULL},
		.fds = {-1, p[1], 2, -1, -1, p[1]},
		.n_fds = 6,
	};
	struct child *c = child_start(loop, &spec, on_exit_status, &s, &err);
	ok(c != NULL, "start %s", err.text);
	loop_run(loop);
	close(p[1]);
	char out[256] = "";
	fd_read_full(p[0], out, sizeof(out) - 1);
	/* 3 is the folder that the shell reads for its pattern. */
	is_str(out, "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3 /proc/self/fd/5\nfive\n",
	       "descriptors of the child");
	child_destroy(c);
	close(p[0]);
	close(leak);
}

/* What a shell says of itself that was started so. */
static void bound_child(const char *script, const cpu_set_t *cpus, uint64_t numa_nodes, char out[256])
{
	int p[2] = {-1, -1};
	struct seen s = {0};
	struct err err = ERR_INIT;
	ok(pipe2(p, O_CLOEXEC) == 0, "a pipe");
	struct child_spec spec = {
		.argv = (char *[]){(char *)"sh", (char *)"-c", (char *)script, NULL},
		.fds = {-1, p[1], 2},
		.n_fds = 3,
		.cpus = cpus,
		.numa_nodes = numa_nodes,
	};
	struct child *c = child_start(loop, &spec, on_exit_status, &s, &err);
	memset(out, 0, 256);
	if (ok(c != NULL, "start %s", err.text))
		loop_run(loop);
	close(p[1]);
	fd_read_full(p[0], out, 255);
	child_destroy(c);
	close(p[0]);
}

/* Where a child may run: as the kernel says. */
static void test_child_cpus(void)
{
	cpu_set_t own, one;
	unsigned last = 0;
	char out[256], want[80];
	ok(sched_getaffinity(0, sizeof(own), &own) == 0, "CPUs");
	for (unsigned i = 0; i < CPU_SETSIZE; i++)
		last = CPU_ISSET(i, &own) ? i : last;
	CPU_ZERO(&one);
	CPU_SET(last, &one);
	bound_child("grep Cpus_allowed_list /proc/self/status", &one, 0, out);
	snprintf(want, sizeof(want), "Cpus_allowed_list:\t%u\n", last);
	is_str(out, want, "one CPU");
}

/* NULL: this kernel binds memory, and shows it. */
static const char *why_no_numa(void)
{
	if (syscall(SYS_get_mempolicy, NULL, NULL, 0ul, NULL, 0ul) < 0)
		return errno == ENOSYS ? "a kernel without NUMA" : "memory policies are forbidden here";
	if (!topology_memory_nodes() || !path_exists("/proc/self/numa_maps"))
		return "this kernel does not show NUMA nodes";
	return NULL;
}

/* And where its memory comes from. */
static void test_child_memory(void)
{
	const char *why = why_no_numa();
	char out[256], want[80];
	struct seen s = {0};
	struct err err = ERR_INIT;
	if (why) {
		tap_skip(why);
		return;
	}
	uint64_t nodes = topology_memory_nodes(), first = nodes & -nodes;
	bound_child("cut -d' ' -f2 /proc/self/numa_maps | sort -u", NULL, first, out);
	snprintf(want, sizeof(want), "bind:%d\n", __builtin_ctzll(first));
	is_str(out, want, "one NUMA node");
	struct child_spec spec = {.argv = (char *[]){(char *)"true", NULL},
				  .numa_nodes = UINT64_C(1) << 63};
	struct child *c = nodes & spec.numa_nodes
				  ? NULL
				  : child_start(loop, &spec, on_exit_status, &s, &err);
	ok(!c, "a node that is not there: %s", err.text);
}

/* From here on this process is on a kernel that has no such call. */
static bool take_away(unsigned call, unsigned code)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(f), .filter = f};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

static void test_no_numa(void)
{
	struct seen s = {0};
	struct err err = ERR_INIT;
	if (!take_away(SYS_set_mempolicy, ENOSYS) || !take_away(SYS_get_mempolicy, ENOSYS)) {
		tap_skip("no seccomp filters here");
		return;
	}
	struct child_spec spec = {.argv = (char *[]){(char *)"true", NULL}, .numa_nodes = 1};
	struct child *c = child_start(loop, &spec, on_exit_status, &s, &err);
	ok(!c && err.code == ENOSYS, "a kernel without NUMA: refused, not unbound: %s", err.text);
	child_destroy(c);
	ok(why_no_numa() != NULL, "and what needs one is skipped: %s", why_no_numa());
}

static bool raise_in_child;

static void in_child(void)
{
	if (raise_in_child)
		kill(getpid(), SIGUSR1); /* blocked by now: it stays pending */
}

static void on_usr1(void *arg, int signo _unused_)
{
	(*(int *)arg)++;
}

static void test_child_signal(void)
{
	/* A signal for the child, sent before it has shed the parent's handlers. */
	struct seen s = {0};
	char text[40];
	int told = 0;
	struct sigwatch *w = sigwatch_create(loop, SIGUSR1, on_usr1, &told);
	pthread_atfork(NULL, NULL, in_child);
	raise_in_child = true;
	run_child(&s, (char *[]){(char *)"true", NULL}, true);
	raise_in_child = false;
	loop_run_once(loop);
	is_str(child_status_text(s.status, text), "killed by SIGUSR1", "it ends the child");
	is_int(told, 0, "and is not told to the parent");
	sigwatch_destroy(w);
}

static void test_child_limit(void)
{
	struct rlimit was, rl;
	getrlimit(RLIMIT_NOFILE, &was);
	rl = (struct rlimit){.rlim_cur = MIN(200, was.rlim_max), .rlim_max = was.rlim_max};
	ok(setrlimit(RLIMIT_NOFILE, &rl) == 0, "a low limit of descriptors");
	child_raise_limit();
	child_raise_limit(); /* a second time changes nothing */
	ok(getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur == was.rlim_max,
	   "is raised to the highest");
	struct seen s = {0};
	char text[40];
	run_child(&s, (char *[]){(char *)"sh", (char *)"-c", (char *)"exit $(ulimit -S -n)", NULL},
		  true);
	is_str(child_status_text(s.status, text), "exit 200", "a child has the low one");
	setrlimit(RLIMIT_NOFILE, &was);
}

static void test_adopt(void)
{
	struct seen s = {0};
	struct err err = ERR_INIT;
	pid_t pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	struct child *c = child_adopt(loop, pid, on_exit_status, &s, &err);
	ok(c != NULL, "adopt %s", err.text);
	child_kill(c, SIGKILL);
	loop_run(loop);
	is_int(s.exits, 1, "the end of an adopted process is seen");
	child_destroy(c);
	waitpid(pid, NULL, 0);
	ok(!child_adopt(loop, pid, on_exit_status, &s, &err) && err.code == ESRCH, "none to adopt");
}

/* keeper, who starts, and what is started: what outlives the second dies with the first. */
static pid_t keep_a_sleeper(int report, bool is_keeper)
{
	pid_t keeper = fork(), pid = -1;
	if (keeper)
		return keeper;
	prctl(PR_SET_CHILD_SUBREAPER, is_keeper);
	pid_t starter = fork();
	if (starter == 0) {
		char *const argv[] = {(char *)"sleep", (char *)"1000", NULL};
		struct err err = ERR_INIT;
		struct child_spec spec = {.argv = argv, .die_with_keeper = true};
		if (child_spawn(&spec, &pid, &err) < 0)
			pid = -err.code;
		if (write(report, &pid, sizeof(pid)) != (ssize_t)sizeof(pid))
			_exit(1);
		raise(SIGKILL);
	}
	waitpid(starter, NULL, 0);
	pause();
	_exit(0);
}

static void test_keeper(void)
{
	int p[2];
	uint64_t start = 0;
	pid_t pid = 0;
	struct seen s = {0};
	struct err err = ERR_INIT;
	is_int(pipe2(p, O_CLOEXEC), 0, "pipe");
	pid_t keeper = keep_a_sleeper(p[1], true);
	is_int(fd_read_full(p[0], &pid, sizeof(pid)), sizeof(pid), "started under a keeper");
	ok(pid > 0 && proc_start_time(pid, &start, NULL) == 0, "it has a process of its own");
	struct child *c = child_adopt(loop, pid, on_exit_status, &s, &err);
	struct evtimer *t = evtimer_create(loop, stop_loop, NULL);
	evtimer_start(t, 200, 0);
	loop_run(loop);
	ok(c && s.exits == 0 && proc_alive(pid, start), "which lives when its starter has died %s",
	   err.text);
	kill(keeper, SIGKILL);
	while (c && !s.exits)
		loop_run(loop);
	ok(!proc_alive(pid, start), "and dies with the keeper");
	child_destroy(c);
	waitpid(keeper, NULL, 0);
	keeper = keep_a_sleeper(p[1], false);
	is_int(fd_read_full(p[0], &pid, sizeof(pid)), sizeof(pid), "and without a keeper");
	is_int(pid, -ECHILD, "it is refused");
	kill(keeper, SIGKILL);
	waitpid(keeper, NULL, 0);
	evtimer_destroy(t);
	close(p[0]);
	close(p[1]);
}

/* Its parent, this process, has not waited for it yet: how it ended can be seen. */
static void test_adopted_status(void)
{
	struct seen s = {0};
	char text[40];
	pid_t pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	struct child *c = child_adopt(loop, pid, on_exit_status, &s, NULL);
	kill(pid, SIGUSR1);
	while (c && !s.exits)
		loop_run(loop);
	is_str(child_status_text(s.status, text), "killed by SIGUSR1",
	       "how an adopted process has ended");
	child_destroy(c);
	waitpid(pid, NULL, 0);
}

static void on_data(void *arg, struct buf *in)
{
	struct seen *s = arg;
	s->bytes += buf_len(in);
	buf_consume(in, buf_len(in));
}

static void on_close(void *arg, const struct err *err _unused_)
{
	struct seen *s = arg;
	s->closes++;
	stream_destroy(s->s);
	s->s = NULL;
	loop_stop(loop);
}

static const struct stream_ops ops = {.on_data = on_data, .on_close = on_close};

static void test_stream(void)
{
	int p[2];
	struct err err = ERR_INIT;
	struct seen a = {0}, b = {0};
	ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) == 0, "socketpair");
	a.s = stream_create(loop, p[0], &ops, &a, &err);
	b.s = stream_create(loop, p[1], &ops, &b, &err);
	size_t n = 5 << 20;
	char *big = xcalloc(1, n);
	stream_pause(b.s, true);
	stream_write(a.s, big, n);
	free(big);
	ok(stream_queued(a.s) > 0, "a reader that does not read leaves the rest in the queue");
	stream_pause(b.s, false);
	stream_end(a.s);
	loop_run(loop);
	is_int(b.bytes, n, "all bytes came");
	is_int(b.closes, 1, "then the end");
	loop_run(loop); /* b is gone: a learns it */
	is_int(a.closes, 1, "and the other side");
}

/* The peer leaves in anger, with much of what it said still unread. */
static void test_stream_reset(void)
{
	int p[2];
	struct err err = ERR_INIT;
	struct seen a = {0};
	static char big[150000];
	ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) == 0, "socketpair");
	a.s = stream_create(loop, p[0], &ops, &a, &err);
	stream_write(a.s, "never read", 10);
	ok(fd_write_all(p[1], big, sizeof(big)) == 0, "more than is read at once");
	close(p[1]);
	loop_run(loop);
	is_int(a.bytes, sizeof(big), "all of it came");
	is_int(a.closes, 1, "then the end");
}

static void on_timer(void *arg)
{
	struct seen *s = arg;
	if (++s->fired == 3) {
		evtimer_destroy(s->t); /* from its own callback */
		loop_stop(loop);
	}
}

static void test_timer(void)
{
	struct seen s = {0};
	s.t = evtimer_create(loop, on_timer, &s);
	evtimer_start(s.t, 1, 1);
	loop_run(loop);
	is_int(s.fired, 3, "a repeating timer");
}

static void on_connect(void *arg, int fd, uid_t uid)
{
	struct seen *s = arg;
	s->fired++;
	ok(uid == getuid(), "the kernel names the peer");
	close(fd);
	loop_stop(loop);
}

static void test_listener(void)
{
	char dir[] = "/tmp/vse-unit-XXXXXX";
	struct err err = ERR_INIT;
	struct seen s = {0};
	int fd = -1;
	struct stat st;
	ok(mkdtemp(dir) != NULL, "folder");
	_cleanup_free_ char *path = path_join(dir, "s");
	struct listener *ln = listener_create(loop, path, on_connect, &s, &err);
	ok(ln != NULL, "listen %s", err.text);
	ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "mode 0600");
	ok(unix_connect(path, &fd, &err) == 0, "connect %s", err.text);
	loop_run(loop);
	is_int(s.fired, 1, "seen");
	close(fd);
	listener_destroy(ln);
	ok(unix_connect(path, &fd, &err) < 0 && err.code == ENOENT, "the path is gone");
	char deep[200];
	memset(deep, 'x', sizeof(deep) - 1);
	deep[0] = '/';
	deep[sizeof(deep) - 1] = '\0';
	ok(unix_listen(deep, &fd, &err) < 0 && err.code == ENAMETOOLONG,
	   "too long a path is refused");
	path_remove(dir, NULL);
}

/* No descriptor is left for who connects: that costs no time, and he is served once there is one. */
static void test_listener_full(void)
{
	char dir[] = "/tmp/vse-unit-XXXXXX";
	struct err err = ERR_INIT;
	struct seen s = {0};
	struct rlimit was, none;
	int fd = -1, rounds = 0;
	ok(mkdtemp(dir) != NULL, "folder");
	_cleanup_free_ char *path = path_join(dir, "s");
	struct listener *ln = listener_create(loop, path, on_connect, &s, &err);
	ok(ln && unix_connect(path, &fd, &err) == 0, "connect %s", err.text);
	getrlimit(RLIMIT_NOFILE, &was);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = was.rlim_max};
	setrlimit(RLIMIT_NOFILE, &none);
	struct seen ticks = {0};
	ticks.t = evtimer_create(loop, on_timer, &ticks); /* ends at its third tick */
	evtimer_start(ticks.t, 20, 20);
	for (; ticks.fired < 3; rounds++)
		loop_run_once(loop);
	setrlimit(RLIMIT_NOFILE, &was);
	is_int(s.fired, 0, "nobody is let in");
	ok(rounds <= 10, "the loop sleeps meanwhile: %d rounds", rounds);
	while (!s.fired)
		loop_run_once(loop);
	is_int(s.fired, 1, "then he is");
	close(fd);
	listener_destroy(ln);
	path_remove(dir, NULL);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	loop = loop_create();
	test_child();
	test_child_fds();
	test_pid_note();
	test_child_cpus();
	test_child_memory();
	test_child_signal();
	test_child_limit();
	test_adopt();
	test_keeper();
	test_adopted_status();
	test_stream();
	test_stream_reset();
	test_timer();
	test_listener();
	test_listener_full();
	test_no_numa(); /* the last: it stays so */
	loop_destroy(loop);
	return done();
}
