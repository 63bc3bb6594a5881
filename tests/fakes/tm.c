/* SPDX-License-Identifier: Apache-2.0 */
/* TM, a STAND-IN for the libraries of Torque and OpenPBS, written from the public interface (PSCHED API): what passes with
 * it was not tested on either. Tasks are processes of this host, or of the nodes of a lab where STAND_IN_ON_NODE names
 * the program that starts there (tests/fakes/on-node). As on the real ones: an entry for each line of
 * PBS_NODEFILE; a task has the environment of a login and what the caller gives, its own PBS_TASKNUM (which the
 * caller's would override), the home folder, no input; tm_poll() waits; one connection a process. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTRIES_MAX 64
#define EVENTS_MAX 256

enum { SUCCESS = 0, ESYSTEM = 17000, EBADENVIRONMENT = 17005, EBADNODE = 17006, ENOTFOUND = 17007 };

typedef unsigned int tm_task_id;
typedef int tm_node_id, tm_event_t;

struct tm_roots {
	tm_task_id tm_me, tm_parent;
	int tm_nnodes, tm_ntasks, tm_taskpoolid;
	tm_task_id *tm_tasklist;
};

int tm_init(void *info, struct tm_roots *roots);
int tm_nodeinfo(tm_node_id **list, int *n);
int tm_spawn(int argc, char **argv, char **envp, tm_node_id where, tm_task_id *tid, tm_event_t *event);
int tm_poll(tm_event_t poll_event, tm_event_t *result_event, int wait_for, int *tm_errno);
int tm_obit(tm_task_id tid, int *obitval, tm_event_t *event);
int tm_kill(tm_task_id tid, int sig, tm_event_t *event);
int tm_finalize(void);

static char entries[ENTRIES_MAX][256];
static tm_node_id ids[ENTRIES_MAX];
static int n_entries;
static bool open_now;

static struct task {
	pid_t pid;
	int *status;
	tm_event_t obit; /* 0: not asked for */
	bool ended;
} tasks[ENTRIES_MAX];
static unsigned n_tasks;
static tm_event_t ready[EVENTS_MAX], last_event;
static unsigned n_ready;

static tm_event_t happened(void)
{
	ready[n_ready++] = ++last_event;
	return last_event;
}

int tm_init(void *info, struct tm_roots *roots)
{
	const char *file = getenv("PBS_NODEFILE");
	FILE *f = file ? fopen(file, "re") : NULL;
	(void)info;
	if (!f || !getenv("PBS_JOBID") || !getenv("PBS_JOBCOOKIE") || open_now)
		return EBADENVIRONMENT;
	while (n_entries < ENTRIES_MAX && fscanf(f, "%255s", entries[n_entries]) == 1) {
		ids[n_entries] = 100 + n_entries; /* no index: what tm_nodeinfo() gave must be used */
		n_entries++;
	}
	fclose(f);
	memset(roots, 0, sizeof(*roots));
	roots->tm_nnodes = n_entries;
	open_now = true;
	return SUCCESS;
}

int tm_nodeinfo(tm_node_id **list, int *n)
{
	*list = ids;
	*n = n_entries;
	return open_now ? SUCCESS : EBADENVIRONMENT;
}

static _Noreturn void run(int argc, char **argv, char **envp, const char *node)
{
	static const char *const keep[] = {"HOME",
					   "USER",
					   "LOGNAME",
					   "PBS_JOBID",
					   "PBS_JOBCOOKIE",
					   "VSE_LAUNCH_TEST",
					   "STAND_IN_MOM_PORT"};
	char *env[32], *words[256], text[32][512];
	char *on_node[] = {getenv("STAND_IN_ON_NODE"), (char *)"go-on", (char *)node};
	int n = 0, w = 0, null = open("/dev/null", O_RDWR);
	sigset_t none;
	for (size_t i = 0; i < sizeof(keep) / sizeof(keep[0]); i++)
		if (getenv(keep[i]) &&
		    snprintf(text[n], sizeof(text[n]), "%s=%s", keep[i], getenv(keep[i])) > 0)
			n++;
	snprintf(text[n++], sizeof(text[0]), "PATH=/usr/bin:/bin");
	snprintf(text[n++], sizeof(text[0]), "PBS_TASKNUM=%u", n_tasks + 2);
	snprintf(text[n++], sizeof(text[0]), "STAND_IN_NODE=%s", node);
	for (int i = 0; i < n; i++)
		env[i] = text[i];
	for (; envp && *envp && n < 31; envp++)
		env[n++] = *envp;
	env[n] = NULL;
	for (int i = 0; on_node[0] && i < 3; i++)
		words[w++] = on_node[i];
	for (int i = 0; i < argc && w < 255; i++)
		words[w++] = argv[i];
	words[w] = NULL;
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(null, 0) < 0 || dup2(2, 1) < 0 || (getenv("HOME") && chdir(getenv("HOME")) < 0))
		_exit(254);
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	execve(words[0], words, env);
	_exit(254);
}

int tm_spawn(int argc, char **argv, char **envp, tm_node_id where, tm_task_id *tid, tm_event_t *event)
{
	int at = where - 100;
	if (at < 0 || at >= n_entries || n_tasks == ENTRIES_MAX)
		return EBADNODE;
	pid_t pid = fork();
	if (pid == 0)
		run(argc, argv, envp, entries[at]);
	if (pid < 0)
		return ESYSTEM;
	tasks[n_tasks].pid = pid;
	*tid = ++n_tasks;
	*event = happened();
	return SUCCESS;
}

int tm_obit(tm_task_id tid, int *obitval, tm_event_t *event)
{
	if (tid < 1 || tid > n_tasks)
		return ENOTFOUND;
	tasks[tid - 1].status = obitval;
	tasks[tid - 1].obit = *event = ++last_event;
	return SUCCESS;
}

int tm_kill(tm_task_id tid, int sig, tm_event_t *event)
{
	if (tid < 1 || tid > n_tasks)
		return ENOTFOUND;
	if (!tasks[tid - 1].ended)
		kill(tasks[tid - 1].pid, sig);
	*event = ++last_event; /* its answer is never asked for */
	return SUCCESS;
}

static struct task *of_pid(pid_t pid)
{
	for (unsigned i = 0; i < n_tasks; i++)
		if (tasks[i].pid == pid)
			return &tasks[i];
	return NULL;
}

int tm_poll(tm_event_t poll_event, tm_event_t *result_event, int wait_for, int *tm_errno)
{
	(void)poll_event;
	*tm_errno = SUCCESS;
	if (n_ready) {
		*result_event = ready[0];
		memmove(ready, ready + 1, --n_ready * sizeof(*ready));
		return SUCCESS;
	}
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, wait_for ? 0 : WNOHANG);
		struct task *t = pid > 0 ? of_pid(pid) : NULL;
		if (pid < 0 && errno != EINTR)
			return ESYSTEM;
		if (!t)
			continue;
		t->ended = true;
		if (!t->obit)
			continue;
		*t->status = WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
		*result_event = t->obit;
		return SUCCESS;
	}
}

int tm_finalize(void)
{
	open_now = false;
	return SUCCESS;
}
