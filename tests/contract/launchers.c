/* SPDX-License-Identifier: Apache-2.0 */
/* launchers NAME AGENT FAKES LIBRARY PROGRAMS: the contract of a launcher, the same for each: which nodes there are; N agents say
 * hello, each with the secret and none with it in its words or environment; one that is killed leaves the others
 * alone; nothing runs on after the launching was destroyed, nor after the launcher was killed. Resource managers are
 * played by the stand-ins of tests/fakes; ssh is real, with a sshd of this user's own. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/strvec.h"
#include "base/time.h"
#include "io/child.h"
#include "io/listener.h"
#include "io/stream.h"
#include "launcher/launcher.h"
#include "launcher/site.h"
#include "contract/launch-cases.h"
#include "contract/sshd.h"
#include "tap.h"

#define SECRET "5e1f0c0ffee0deadbeef5e1f0c0ffee0"
#define WAIT_MS 60000 /* a bound for what comes at once: a busy machine may take long */

char *tmp, *tm_library;
struct strvec launch_args;
static char *fakes, *agent, *programs;
static const struct scenario *sc;

/* ---- the server to which agents say hello ---- */

struct hello {
	struct stream *stream;
	pid_t pid;
	uint64_t start;
	char node[64], index[16], how[16];
};

struct server {
	struct loop *loop;
	struct listener *listener;
	struct hello hello[NODES];
	unsigned n, gone, wrong;
	/* of the launching */
	struct allocation *allocation;
	struct launching *launching;
	unsigned started, failed, ended, output;
	size_t failed_node;
	struct err why, err;
	bool allocated, late;
	struct evtimer *timer;
	int report; /* pids are written here; -1: nobody wants them */
};

static void on_hello(void *arg, struct buf *in);
static void on_gone(void *arg, const struct err *err _unused_)
{
	struct server *s = arg;
	s->gone++;
}

static const struct stream_ops hello_ops = {.on_data = on_hello, .on_close = on_gone};

static void on_hello(void *arg, struct buf *in)
{
	struct server *s = arg;
	struct hello *h = &s->hello[s->n];
	char secret[64];
	int pid;
	const char *text = buf_cstr(in);
	if (!strchr(text, '\n') || s->n >= NODES)
		return;
	if (sscanf(text, "hello %63s %d %63s %15s %15s", secret, &pid, h->node, h->index, h->how) != 5 ||
	    strcmp(secret, SECRET) != 0)
		s->wrong++;
	buf_clear(in);
	h->pid = pid;
	proc_start_time(pid, &h->start, NULL);
	if (s->report >= 0 && write(s->report, &h->pid, sizeof(h->pid)) != sizeof(h->pid))
		s->wrong++;
	s->n++;
}

static struct stream *streams[4 * NODES];
static unsigned n_streams;

static void on_connect(void *arg, int fd, uid_t uid _unused_)
{
	struct server *s = arg;
	if (n_streams < ARRAY_SIZE(streams))
		streams[n_streams++] = stream_create(s->loop, fd, &hello_ops, s, NULL);
}

static void on_late(void *arg)
{
	struct server *s = arg;
	s->late = true;
}

/* Runs the loop until the condition holds; false after WAIT_MS. */
#define until(s, cond)                                                                             \
	__extension__({                                                                            \
		(s)->late = false;                                                                 \
		evtimer_start((s)->timer, WAIT_MS, 0);                                             \
		while (!(cond) && !(s)->late)                                                      \
			loop_run_once((s)->loop);                                                  \
		(cond);                                                                            \
	})

static char *socket_path(void)
{
	return path_join(tmp, "hello");
}

static void server_open(struct server *s)
{
	_cleanup_free_ char *path = socket_path();
	struct err err = ERR_INIT;
	*s = (struct server){.loop = loop_create(), .report = -1};
	s->timer = evtimer_create(s->loop, on_late, s);
	n_streams = 0;
	unlink(path);
	s->listener = listener_create(s->loop, path, on_connect, s, &err);
	if (!s->listener)
		printf("# %s\n", err.text);
}

static void server_close(struct server *s)
{
	launching_destroy(s->launching);
	allocation_destroy(s->allocation);
	for (unsigned i = 0; i < n_streams; i++)
		stream_destroy(streams[i]);
	listener_destroy(s->listener);
	evtimer_destroy(s->timer);
	while (loop_run_once(s->loop)) /* what was ended is reaped */
		;
	loop_destroy(s->loop);
}

/* ---- which nodes ---- */

static void on_ready(void *arg, struct allocation *a)
{
	struct server *s = arg;
	s->allocation = a;
	s->allocated = true;
}

static void on_no_nodes(void *arg, const struct err *why)
{
	struct server *s = arg;
	s->err = *why;
	s->allocated = true;
}

static bool allocate(struct server *s)
{
	static const struct allocate_ops ops = {.on_ready = on_ready, .on_failed = on_no_nodes};
	struct launch_request r = {.launcher = sc->inside ? NULL : sc->name,
				   .hosts = sc->hosts,
				   .nodes = sc->nodes};
	const struct launcher *l = NULL;
	char why[LAUNCH_WHY_MAX];
	struct err err = ERR_INIT;
	if (launcher_pick(&r, &l, why, &err) < 0 || strcmp(l->name, sc->name) != 0) {
		printf("# picked %s: %s\n", l ? l->name : "none", l ? why : err.text);
		return false;
	}
	struct allocating *a = launcher_allocate(l, s->loop, &r, &ops, s, &err);
	bool there = a && until(s, s->allocated) && s->allocation;
	if (!there)
		printf("# %s%s\n", err.text, s->err.text);
	allocating_destroy(a);
	return there;
}

static char *names_of(const struct allocation *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < a->n_nodes; i++)
		buf_addf(&b, "%s%s", i ? " " : "", a->nodes[i].name);
	return buf_take(&b);
}

/* ---- start ---- */

static void on_started(void *arg, size_t node _unused_)
{
	struct server *s = arg;
	s->started++;
}

static void on_failed(void *arg, size_t node, const struct err *why)
{
	struct server *s = arg;
	s->failed++;
	s->failed_node = node;
	s->why = *why;
}

static void on_ended(void *arg, const struct err *why)
{
	struct server *s = arg;
	s->ended++;
	s->err = *why;
}

static void on_output(void *arg, size_t node _unused_, const char *line)
{
	struct server *s = arg;
	if (strstr(line, "a word of the agent"))
		s->output++;
	else if (line[0])
		printf("# %s\n", line);
}

static const struct launch_ops ops = {.on_node_started = on_started,
				      .on_node_failed = on_failed,
				      .on_ended = on_ended,
				      .on_output = on_output};

static bool start(struct server *s)
{
	static const size_t all[NODES] = {0, 1, 2};
	static const unsigned index[NODES] = {11, 12, 13};
	_cleanup_free_ char *path = socket_path(), *text = xasprintf(SECRET " %s\n", path),
			    *folder = path_join(tmp, "private");
	struct strvec args = STRVEC_INIT;
	strvec_addv(&args, "--node", "--x=1,2", NULL);
	struct launch_agent a = {.file = agent,
				 .shared = sc->stage ? "/nonexistent/vse-agent" : NULL,
				 .stage = sc->stage,
				 .args = &args,
				 .index = index,
				 .bootstrap = text,
				 .bootstrap_len = strlen(text),
				 .bootstrap_dir = folder};
	struct launch_options o = {.args = &launch_args};
	struct err err = ERR_INIT;
	s->launching = launcher_start(s->allocation->launcher, s->loop, s->allocation, all, NODES,
				      &a, &o, &ops, s, &err);
	strvec_finish(&args);
	if (!s->launching)
		printf("# %s\n", err.text);
	return s->launching != NULL;
}

static void say_why(const struct server *s)
{
	printf("# hellos %u, failed %u (%s), ended %u (%s)\n", s->n, s->failed, s->why.text,
	       s->ended, s->err.text);
}

static bool file_has(pid_t pid, const char *what, const char *text)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/%s", (int)pid, what), *data = NULL;
	size_t len;
	return path_read(path, 1 << 20, &data, &len, NULL) == 0 &&
	       memmem(data, len, text, strlen(text));
}

static bool alive(const struct hello *h)
{
	return proc_alive(h->pid, h->start);
}

/* A dead process takes a moment to be gone. */
static bool gone(const struct hello *h)
{
	uint64_t end = time_mono_ms() + WAIT_MS;
	while (alive(h)) {
		if (time_mono_ms() > end)
			return false;
		usleep(10000);
	}
	return true;
}

static bool all_gone(const struct server *s)
{
	for (unsigned i = 0; i < s->n; i++)
		if (!gone(&s->hello[i]))
			return false;
	return true;
}

static unsigned files_in(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	unsigned n = 0;
	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

/* ---- the contract ---- */

static void nodes(struct server *s)
{
	if (!ok(allocate(s), "gets nodes%s", sc->inside ? ", unasked" : ""))
		return;
	const struct allocation *a = s->allocation;
	_cleanup_free_ char *names = names_of(a);
	is_str(names, sc->names, "their names");
	is_int(a->nodes[0].cores, sc->cores, "cores of the first");
	is_int(a->nodes[0].memory, sc->memory, "memory of the first");
	is_str(a->job, sc->job ? sc->job : "", "the job");
}

static bool told(const struct server *s)
{
	_cleanup_strvec_ struct strvec want = STRVEC_INIT, got = STRVEC_INIT;
	strvec_split(&want, sc->names, " ");
	for (unsigned i = 0; i < s->n; i++)
		strvec_add(&got, s->hello[i].node);
	strvec_sort(&want);
	strvec_sort(&got);
	for (unsigned i = 0; i < s->n; i++)
		if (strcmp(want.v[i], got.v[i]) != 0)
			return false;
	return true;
}

static void hellos(struct server *s)
{
	unsigned how = 0, leaks = 0, index = 0;
	if (!ok(start(s) && until(s, s->n == NODES || s->ended) && s->n == NODES,
		"%d agents say hello", NODES)) {
		say_why(s);
		return;
	}
	is_int(s->wrong, 0, "each with the secret");
	for (int i = 0; i < NODES; i++) {
		const struct hello *h = &s->hello[i];
		how += strcmp(h->how, sc->by_file ? "file" : "stdin") == 0;
		leaks += file_has(h->pid, "cmdline", SECRET) || file_has(h->pid, "environ", SECRET);
		index += atoi(h->index) - 10 > 0 ? 1u << (atoi(h->index) - 11) : 0;
	}
	is_int(how, NODES, "which came by %s", sc->by_file ? "file" : "standard input");
	is_int(leaks, 0, "and is in no agent's words or environment");
	if (sc->named)
		ok(told(s), "each knows its node");
	is_int(index, sc->indexed ? 7 : 0, "each is told its index%s", sc->indexed ? "" : ": not here");
	ok(until(s, s->output == NODES), "their words arrive");
	_cleanup_free_ char *folder = path_join(tmp, "private");
	is_int(files_in(folder), sc->by_file ? 1 : 0, "files with the secret");
}

static void one_dies(struct server *s)
{
	unsigned left = sc->kill_spreads ? NODES : 1;
	kill(s->hello[0].pid, SIGKILL);
	ok(until(s, s->gone >= left), "one agent is killed%s", sc->kill_spreads ? ", and so all" : "");
	if (sc->tells_node) {
		ok(until(s, s->failed), "which is told");
		is_int(s->failed, 1, "of one node");
		is_int(s->why.code, ECHILD, "as an end: %s", s->why.text);
	}
	if (sc->kill_spreads)
		return;
	ok(gone(&s->hello[0]) && alive(&s->hello[1]) && alive(&s->hello[2]), "the others live");
	is_int(s->ended, 0, "the launching goes on");
}

static void destroyed(struct server *s)
{
	_cleanup_free_ char *folder = path_join(tmp, "private");
	launching_destroy(TAKE_PTR(s->launching));
	if (sc->by_link) { /* the manager tells them nothing: they see that nobody is at the other end */
		for (unsigned i = 0; i < n_streams; i++)
			shutdown(stream_fd(streams[i]), SHUT_RDWR);
	}
	ok(until(s, s->gone == NODES) && all_gone(s), "destroying it ends all agents");
	is_int(files_in(folder), 0, "and leaves no file with the secret");
}

/* All agents end by themselves: the launching tells its end. */
static void ends(void)
{
	struct server s;
	server_open(&s);
	if (ok(allocate(&s) && start(&s) && until(&s, s.n == NODES || s.ended) && s.n == NODES,
	       "starts again")) {
		for (unsigned i = 0; i < n_streams; i++)
			stream_write(streams[i], "exit 0\n", 7);
		ok(until(&s, s.ended), "all agents end: that is told");
		is_int(s.err.code, 0, "as no error %s", s.err.text);
	} else {
		say_why(&s);
	}
	server_close(&s);
}

/* In a process of its own, which is killed. */
static void launcher_process(int report)
{
	struct server s;
	server_open(&s);
	s.report = report;
	if (!allocate(&s) || !start(&s))
		_exit(1);
	loop_run(s.loop);
	_exit(2);
}

static void killed(void)
{
	struct server s = {0};
	int p[2];
	if (!ok(pipe2(p, O_CLOEXEC) == 0, "a pipe"))
		return;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		launcher_process(p[1]);
	close(p[1]);
	while (s.n < NODES && fd_read_full(p[0], &s.hello[s.n].pid, sizeof(pid_t)) == sizeof(pid_t)) {
		proc_start_time(s.hello[s.n].pid, &s.hello[s.n].start, NULL);
		s.n++;
	}
	is_int(s.n, NODES, "a launcher of its own starts agents");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(p[0]);
	ok(all_gone(&s), "it is killed: its agents end");
}

/* A program of this test (marked in its environment) is left. */
static bool marked_left(pid_t *ret)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	_cleanup_free_ char *mark = xasprintf("VSE_LAUNCH_TEST=%s", tmp);
	bool found = false;
	while (d && !found && (e = readdir(d))) {
		pid_t pid = atoi(e->d_name);
		uint64_t start;
		if (pid > 0 && pid != getpid() && file_has(pid, "environ", mark) &&
		    proc_start_time(pid, &start, NULL) == 0 && proc_alive(pid, start) && !sshd_is(pid)) {
			*ret = pid;
			found = true;
		}
	}
	if (d)
		closedir(d);
	return found;
}

static void nothing_left(void)
{
	uint64_t end = time_mono_ms() + WAIT_MS;
	pid_t pid = 0;
	bool left;
	while ((left = marked_left(&pid)) && time_mono_ms() < end)
		usleep(20000);
	ok(!left, "no process is left");
	_cleanup_free_ char *job = path_join(tmp, "job-42");
	ok(!path_exists(job), "no allocation of our own is left");
	if (left) {
		printf("# process %d\n", (int)pid);
		kill(pid, SIGKILL);
	}
}

static bool clean(const char *variable)
{
	static const char *const prefixes[] = {"SLURM", "PBS_",  "FLUX_", "BASIL_",
					       "ALPS_", "PALS_", "OMPI_", "BATCH_"};
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
			return false;
	return true;
}

extern char **environ;

static void prepare(const char *name)
{
	_cleanup_free_ char *folder = path_join(tmp, "private"),
			    *path = xasprintf("%s:%s:/usr/bin:/bin", fakes, programs);
	for (size_t i = 0; environ[i];) {
		_cleanup_free_ char *variable = xstrndup(environ[i], strcspn(environ[i], "="));
		if (clean(variable))
			i++;
		else
			unsetenv(variable);
	}
	setenv("PATH", path, 1);
	setenv("VSE_LAUNCH_TEST", tmp, 1);
	setenv("PYTHONDONTWRITEBYTECODE", "1", 1); /* the stand-ins leave nothing in the tree */
	setenv("XDG_CONFIG_HOME", "/nonexistent", 1);
	mkdir(folder, 0700);
	sc = scenario_find(name);
	if (sc)
		sc->prepare();
}

int main(int argc, char **argv)
{
	const char *base = getenv("VSE_TEST_TMP");
	if (argc < 6)
		return 2;
	base = base ? base : getenv("TMPDIR");
	tmp = xasprintf("%s/launchers.XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(tmp))
		return 2;
	agent = argv[2];
	fakes = argv[3];
	tm_library = argv[4];
	programs = argv[5];
	prepare(argv[1]);
	if (!sc)
		return 2;
	struct server s;
	server_open(&s);
	nodes(&s);
	if (s.allocation) {
		hellos(&s);
		if (s.n == NODES) {
			one_dies(&s);
			destroyed(&s);
		}
	}
	server_close(&s);
	ends();
	killed();
	nothing_left();
	sshd_stop();
	strvec_finish(&launch_args);
	site_forget();
	path_remove(tmp, NULL);
	free(tmp);
	return done();
}
