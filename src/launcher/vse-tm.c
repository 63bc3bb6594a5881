/* SPDX-License-Identifier: Apache-2.0 */
/* vse-tm: starts tasks through the TM interface of Torque and OpenPBS, for the launchers torque and pbs. A program of its
 * own: TM's library is loaded at run time, which a static program cannot; it waits inside its calls; and a process has
 * one connection to it. It needs no header: the interface is the one of PSCHED, the same in all Torques and OpenPBS.
 *   vse-tm --probe      says which library there is
 *   vse-tm              standard input: "arg WORD" for each word of the command, "spawn I NODE" for each task, "go";
 *                       its end afterwards, with SIGTERM, ends the tasks (SIGTERM); its end alone is the death of the
 *                       launcher: the tasks go on, as they would under any other manager
 *                       standard output: "spawned I", "failed I TEXT", "ended I STATUS", "error TEXT"
 * TM_LIBRARY names another library. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORDS_MAX 256
#define TASKS_MAX 131072
#define LAST_SECONDS 2 /* for ending the tasks */
#define TERM_MS 500    /* between the end of the input and SIGTERM */

typedef unsigned int task_id;
typedef int node_id, event;
#define NULL_EVENT 0
#define SUCCESS 0

struct roots {
	task_id me, parent;
	int nnodes, ntasks, taskpoolid;
	task_id *tasklist;
};

static struct {
	int (*init)(void *info, struct roots *roots);
	int (*nodeinfo)(node_id **list, int *n);
	int (*spawn)(int argc, char **argv, char **envp, node_id where, task_id *tid, event *e);
	int (*poll)(event poll, event *result, int wait, int *error);
	int (*obit)(task_id tid, int *status, event *e);
	int (*kill)(task_id tid, int signo, event *e);
	int (*finalize)(void);
} tm;

struct task {
	long number;
	int place; /* in TM's list of nodes */
	task_id tid;
	event event; /* what is waited for; NULL_EVENT: nothing */
	int status;
	bool runs;
};

static struct task *tasks;
static size_t n_tasks;
static char *words[WORDS_MAX + 1];
static int n_words;

/* ---- the library ---- */

static const char *error_text(int code)
{
	static const char *const text[] = {"system error",    "no such event",
					   "not connected",   "unknown command",
					   "not implemented", "not within a job (bad environment)",
					   "no such node"};
	return code >= 17000 && code < 17007 ? text[code - 17000] : "refused";
}

static bool symbol(void *lib, const char *name, void *ret)
{
	void *p = dlsym(lib, name);
	memcpy(ret, &p, sizeof(p));
	return p != NULL;
}

/* NULL: none; its name otherwise. */
static const char *load(void)
{
	const char *names[] = {getenv("TM_LIBRARY"), "libtorque.so.2", "libpbs.so.0"};
	bool asked = names[0] && names[0][0];
	for (size_t i = asked ? 0 : 1; i < (asked ? 1 : 3); i++) {
		void *lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
		if (lib && symbol(lib, "tm_init", &tm.init) &&
		    symbol(lib, "tm_nodeinfo", &tm.nodeinfo) && symbol(lib, "tm_spawn", &tm.spawn) &&
		    symbol(lib, "tm_poll", &tm.poll) && symbol(lib, "tm_obit", &tm.obit) &&
		    symbol(lib, "tm_kill", &tm.kill) && symbol(lib, "tm_finalize", &tm.finalize))
			return names[i];
	}
	return NULL;
}

static int probe(void)
{
	const char *name = load(), *why = name ? NULL : dlerror();
	dprintf(STDOUT_FILENO, "%s\n", name ? name : why ? why : "no library with TM's functions");
	return name ? 0 : 1;
}

/* ---- commands ---- */

static int bad(const char *what)
{
	dprintf(STDOUT_FILENO, "error %s\n", what);
	return -1;
}

static int add_task(const char *line)
{
	struct task *t = &tasks[n_tasks];
	if (n_tasks == TASKS_MAX || sscanf(line, "%ld %d", &t->number, &t->place) != 2 || t->place < 0)
		return bad("malformed 'spawn'");
	n_tasks++;
	return 0;
}

/* Up to "go". */
static int read_commands(void)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int rc = 1;
	while (rc > 0 && (n = getline(&line, &cap, stdin)) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "arg ", 4) == 0 && n_words < WORDS_MAX)
			rc = (words[n_words++] = strdup(line + 4)) ? 1 : -1;
		else if (strncmp(line, "spawn ", 6) == 0)
			rc = add_task(line + 6) < 0 ? -1 : 1;
		else
			rc = strcmp(line, "go") == 0 && n_words && n_tasks ? 0 : bad("malformed command");
	}
	free(line);
	return rc;
}

/* ---- tasks ---- */

static int spawn_all(void)
{
	struct roots roots;
	node_id *list;
	char *env[] = {NULL}; /* none of ours: PBS_* here would be taken for the task's own */
	int n, code = tm.init(NULL, &roots);
	if (code == SUCCESS)
		code = tm.nodeinfo(&list, &n);
	if (code != SUCCESS) {
		dprintf(STDOUT_FILENO, "error tm_init: %s (%d)\n", error_text(code), code);
		return -1;
	}
	for (size_t i = 0; i < n_tasks; i++) {
		struct task *t = &tasks[i];
		code = t->place < n ? tm.spawn(n_words, words, env, list[t->place], &t->tid, &t->event)
				    : -1;
		if (code == SUCCESS)
			continue;
		t->event = NULL_EVENT;
		dprintf(STDOUT_FILENO, "failed %ld tm_spawn: %s (%d)\n", t->number,
			t->place < n ? error_text(code) : "no such node", code);
	}
	return 0;
}

/* Events come in about the order in which they were asked for. */
static struct task *task_of(event e)
{
	static size_t at;
	for (size_t k = 0; k < n_tasks; k++) {
		size_t i = (at + k) % n_tasks;
		if (tasks[i].event == e) {
			at = i;
			return &tasks[i];
		}
	}
	return NULL;
}

/* It was spawned, or it ended. True: another event of it will come. */
static bool advance(struct task *t, int error)
{
	t->event = NULL_EVENT;
	if (t->runs) {
		t->runs = false;
		dprintf(STDOUT_FILENO, "ended %ld %d\n", t->number, error == SUCCESS ? t->status : -1);
		return false;
	}
	if (error != SUCCESS) {
		dprintf(STDOUT_FILENO, "failed %ld tm_spawn: %s (%d)\n", t->number,
			error_text(error), error);
		return false;
	}
	t->runs = true;
	dprintf(STDOUT_FILENO, "spawned %ld\n", t->number);
	int code = tm.obit(t->tid, &t->status, &t->event);
	if (code == SUCCESS)
		return true;
	t->event = NULL_EVENT; /* its end will not be told; it runs all the same */
	return false;
}

static int wait_all(void)
{
	size_t pending = 0;
	for (size_t i = 0; i < n_tasks; i++)
		pending += tasks[i].event != NULL_EVENT;
	while (pending) {
		event e = NULL_EVENT;
		int error = SUCCESS, code = tm.poll(NULL_EVENT, &e, 1, &error);
		if (code != SUCCESS) {
			dprintf(STDOUT_FILENO, "error tm_poll: %s (%d)\n", error_text(code), code);
			return -1;
		}
		struct task *t = e == NULL_EVENT ? NULL : task_of(e);
		if (t && !advance(t, error))
			pending--;
	}
	return 0;
}

static void block_term(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	pthread_sigmask(SIG_BLOCK, ret, NULL);
}

/* The launcher is gone or wants the end. TM is not made for two threads: the other one waits within tm_poll(), here
 * only requests are written, and whatever comes of it this process ends within the alarm's time. */
static void *end_with_input(void *arg)
{
	char c;
	ssize_t n;
	event e;
	while ((n = read(STDIN_FILENO, &c, 1)) > 0)
		;
	struct timespec patience = {.tv_nsec = TERM_MS * 1000000L};
	if (sigtimedwait(arg, NULL, &patience) < 0)
		_exit(0);
	alarm(LAST_SECONDS);
	for (size_t i = 0; i < n_tasks; i++)
		if (tasks[i].runs)
			tm.kill(tasks[i].tid, SIGTERM, &e);
	_exit(0);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	if (argc == 2 && strcmp(argv[1], "--probe") == 0)
		return probe();
	if (argc != 1)
		return 2;
	sigset_t term;
	signal(SIGTERM, SIG_DFL); /* were it ignored, it would not be kept */
	block_term(&term);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdin, NULL, _IONBF, 0); /* the thread reads on from the descriptor */
	tasks = calloc(TASKS_MAX, sizeof(*tasks));
	if (!tasks || read_commands() != 0)
		return 1;
	if (!load())
		return bad("no TM library: libtorque.so.2, libpbs.so.0 or TM_LIBRARY") ? 1 : 0;
	if (pthread_create(&thread, NULL, end_with_input, &term) != 0)
		return bad("no thread") ? 1 : 0;
	if (spawn_all() < 0)
		return 1;
	if (wait_all() < 0)
		return 1;
	tm.finalize();
	return 0;
}
