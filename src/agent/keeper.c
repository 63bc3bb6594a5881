/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/reaper.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/rundir.h"
#include "base/time.h"
#include "io/tcp.h"

/* How long a VMM that has ended is not waited for: its agent reads from it how it did. */
#define ZOMBIE_MS 2000
#define SIGNATURE "keeper"
#define FORMER_MS 10000 /* for the VMs of a former cluster to end */

struct keeper {
	const struct agent_options *o;
	char *own, *dir; /* the run directory's name and path */
	int lock, listener;
	uint16_t port;
	struct kept_page *page;
	int life[2]; /* a pipe: the writing end is the keeper's and the agents', its end tells the reaper that all are dead */
	pid_t agent, reaper;
	uint64_t died[KEEPER_DEATHS];
	unsigned deaths;
	bool told_to_end;
	int code;
};

/* ---- the folder ---- */

/* "PID STARTTIME CLUSTER HOME\n", in the run directory: whose it is. */
static void sign_folder(const struct keeper *k)
{
	const struct bootstrap *b = k->o->node;
	_cleanup_free_ char *path = path_join(k->dir, SIGNATURE), *text = NULL;
	_cleanup_free_ char *id = bootstrap_id(b);
	uint64_t start;
	if (!b->home || proc_start_time(getpid(), &start, NULL) < 0)
		return;
	text = xasprintf("%d %" PRIu64 " %s %s\n", (int)getpid(), start, id, b->home);
	if (path_replace(path, text, strlen(text), 0600, NULL) < 0)
		log_warn("%s: %s", path, strerror(errno));
}

/* Who holds the folder: an agent of a former cluster, which was told to end; of this one; of one that was started elsewhere. */
enum holder { HOLDER_UNKNOWN, HOLDER_FORMER, HOLDER_SAME, HOLDER_ELSEWHERE };

/* Of two clusters of one name that were started from one place the former is over: its root did not reach this node to
 * say so. */
static enum holder end_former(const struct keeper *k)
{
	const struct bootstrap *b = k->o->node;
	_cleanup_free_ char *path = xasprintf("%s/%s/%s", k->o->base, k->own, SIGNATURE), *text = NULL;
	_cleanup_free_ char *id = bootstrap_id(b);
	char cluster[2 * MESH_ID_SIZE + 1];
	int pid, at = 0;
	uint64_t start;
	if (!b->home || path_read(path, PATH_MAX, &text, NULL, NULL) < 0)
		return HOLDER_UNKNOWN;
	text[strcspn(text, "\n")] = '\0';
	if (sscanf(text, "%d %" SCNu64 " %32s %n", &pid, &start, cluster, &at) < 3 || !at)
		return HOLDER_UNKNOWN;
	if (strcmp(text + at, b->home) != 0)
		return HOLDER_ELSEWHERE;
	if (strcmp(cluster, id) == 0)
		return HOLDER_SAME;
	log_info("the agent of a former cluster of this name is told to end");
	proc_signal(pid, start, SIGTERM);
	return HOLDER_FORMER;
}

static int claim(struct keeper *k, struct err *err)
{
	static const char *const texts[] = {
		[HOLDER_FORMER] = "the agent of the former cluster '%s' is still ending here: try "
				  "again in a while",
		[HOLDER_SAME] = "this host has an agent of this cluster '%s' already",
		[HOLDER_ELSEWHERE] = "cluster '%s' is here already, started elsewhere: end it "
				     "there, or take another --name"};
	const struct timespec moment = {.tv_nsec = 20000000};
	uint64_t until = time_mono_ms() + FORMER_MS;
	int rc = rundir_claim(k->o->base, k->own, &k->dir, &k->lock, err);
	enum holder who = rc < 0 && err->code == EEXIST ? end_former(k) : HOLDER_UNKNOWN;
	while (rc < 0 && err->code == EEXIST && who == HOLDER_FORMER && time_mono_ms() < until) {
		nanosleep(&moment, NULL);
		*err = (struct err)ERR_INIT;
		rc = rundir_claim(k->o->base, k->own, &k->dir, &k->lock, err);
	}
	if (rc == 0)
		sign_folder(k);
	else if (err->code == EEXIST && who != HOLDER_UNKNOWN)
		err_set(err, EEXIST, texts[who], k->o->name);
	return rc;
}

/* ---- life ---- */

static int prepare(struct keeper *k, struct err *err)
{
	const struct agent_options *o = k->o;
	k->own = rundir_node_name(o->name);
	rundir_sweep_node(o->base);
	if (claim(k, err) < 0 || tcp_listen(NULL, 0, &k->listener, &k->port, err) < 0)
		return -1;
	k->page = mmap(NULL, sizeof(*k->page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (k->page == MAP_FAILED || pipe2(k->life, O_CLOEXEC) < 0)
		return err_errno(err, errno, "the agent's keeper");
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return err_errno(err, errno, "the agent's keeper: PR_SET_CHILD_SUBREAPER");
	return 0;
}

/* Signals are blocked here, and must not be there. */
static void unblock(void)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void be_agent(struct keeper *k, pid_t parent)
{
	struct agent_options o = *k->o;
	const struct kept kept = {.dir = k->dir,
				  .lock = k->lock,
				  .listener = k->listener,
				  .port = k->port,
				  .deaths = k->deaths,
				  .page = k->page};
	prctl(PR_SET_NAME, "vse-agent");
	/* Without its keeper it ends in good order, as it does when the manager tells it to. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	close(k->life[0]);
	unblock();
	o.kept = &kept;
	o.input &= !k->page->incarnation; /* who was let in outlives its launcher */
	int code = agent_run(&o);
	fflush(NULL);
	_exit(code);
}

static int start_agent(struct keeper *k)
{
	pid_t self = getpid();
	k->agent = fork();
	if (k->agent == 0)
		be_agent(k, self);
	return k->agent < 0 ? -1 : 0;
}

static void start_reaper(struct keeper *k)
{
	k->reaper = reaper_fork(k->life[0], k->life[1], k->o->base, k->own);
}

/* An agent that dies again and again is not worth it, or there is something wrong with its node. */
static bool dies_often(struct keeper *k)
{
	uint64_t now = time_mono_ms();
	k->died[k->deaths++ % KEEPER_DEATHS] = now;
	return k->deaths >= KEEPER_DEATHS && now - k->died[k->deaths % KEEPER_DEATHS] < KEEPER_WITHIN_MS;
}

/* False: it is over. */
static bool on_agent_end(struct keeper *k, int status)
{
	k->agent = 0;
	if (WIFEXITED(status) || k->told_to_end) {
		k->code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
		return false;
	}
	k->code = 128 + WTERMSIG(status);
	return !dies_often(k) && start_agent(k) == 0;
}

/* Everything but the VMMs, which their agent looks at first. */
static bool look(struct keeper *k)
{
	int status;
	if (k->reaper > 0 && waitpid(k->reaper, NULL, WNOHANG) == k->reaper)
		start_reaper(k);
	return waitpid(k->agent, &status, WNOHANG) != k->agent || on_agent_end(k, status);
}

static void reap_others(struct keeper *k)
{
	siginfo_t i;
	/* The first two are seen by look(): they must not be waited for here. */
	while (i.si_pid = 0, waitid(P_ALL, 0, &i, WEXITED | WNOHANG | WNOWAIT) == 0 && i.si_pid &&
				     i.si_pid != k->agent && i.si_pid != k->reaper)
		waitpid(i.si_pid, NULL, WNOHANG);
}

static void watch(struct keeper *k, const sigset_t *set)
{
	uint64_t reap_at = 0;
	while (look(k)) {
		siginfo_t info;
		struct timespec wait = {.tv_sec = ZOMBIE_MS / 1000};
		int signo = reap_at ? sigtimedwait(set, &info, &wait) : sigwaitinfo(set, &info);
		if (signo == SIGCHLD) {
			reap_at = reap_at ? reap_at : time_mono_ms() + ZOMBIE_MS;
		} else if (signo > 0) {
			k->told_to_end = true;
			kill(k->agent, signo);
		}
		if (reap_at && time_mono_ms() >= reap_at) {
			reap_others(k);
			reap_at = 0;
		}
	}
}

/* What an agent has left that did not end in good order is the reaper's to sweep, as if the keeper were dead. */
static void end_reaper(struct keeper *k)
{
	signal(SIGPIPE, SIG_IGN);
	if (k->dir && path_exists(k->dir))
		close(k->life[1]);
	else if (fd_write_all(k->life[1], "", 1) < 0)
		return;
	waitpid(k->reaper, NULL, 0);
}

static void finish(struct keeper *k)
{
	if (k->listener >= 0)
		close(k->listener);
	if (k->lock >= 0)
		close(k->lock);
	if (k->reaper > 0)
		end_reaper(k);
	free(k->dir);
	free(k->own);
}

int keeper_run(const struct agent_options *o)
{
	struct keeper k = {.o = o, .lock = -1, .listener = -1, .life = {-1, -1}, .code = 1};
	static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP};
	struct err err = ERR_INIT;
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (prepare(&k, &err) < 0) {
		log_error("%s", err.text);
	} else {
		start_reaper(&k);
		if (start_agent(&k) == 0) {
			prctl(PR_SET_NAME, "vse-keeper");
			watch(&k, &set);
		}
	}
	finish(&k);
	return k.code;
}
