/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <string.h>

#include "agent/keeper.h"
#include "agent/node.h"
#include "agent/reaper.h"
#include "agent/services.h"
#include "agent/state.h"
#include "agent/templates.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/path.h"
#include "base/rundir.h"
#include "net/kernet.h"
#include "wire/message.h"

/* An agent that nobody gave a cluster ends after this: its front end was killed. Within the 5 s in which everything
 * is gone after a death. */
#define LONELY_MS 4000
#define RECLAIM_TRIES 250 /* every 20 ms */
/* How often the run directory is looked for. Nobody finds a cluster that has lost it, so nobody could end it. */
#define HOME_MS 5000

/* ---- waiters ---- */

void agent_add_waiter(struct agent *a, struct waiter *w)
{
	w->next = a->waiters;
	a->waiters = w;
}

void agent_remove_waiter(struct agent *a, struct waiter *w)
{
	for (struct waiter **p = &a->waiters; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			return;
		}
}

void agent_on_event(void *arg, const struct event *e)
{
	struct agent *a = arg;
	for (struct waiter *w = a->waiters, *next; w; w = next) {
		next = w->next; /* a waiter may end itself, never another */
		if (w->on_event)
			w->on_event(w, e);
	}
	if (a->report)
		report_event(a->report, e);
	if (e->rank == EVENT_NO_RANK)
		log_info("%s", e->text);
	else
		log_info("vm%u: %s", e->rank, e->text);
}

/* ---- the cluster ---- */

static void on_progress(void *arg, uint32_t ready, uint32_t failed)
{
	struct agent *a = arg;
	if (a->creating)
		call_event(a->creating, json_pack("{s:s, s:i, s:i, s:i}", "event", "progress",
						  "ready", (int)ready, "failed", (int)failed,
						  "size", (int)cluster_get_spec(a->cluster)->size));
}

static void on_note(void *arg, const char *text)
{
	struct agent *a = arg;
	if (a->creating)
		call_event(a->creating, json_pack("{s:s, s:s}", "event", "note", "text", text));
}

static void on_started(void *arg, const struct err *err)
{
	struct agent *a = arg;
	if (!err && a->self)
		node_save(a);
	if (!a->creating)
		return;
	struct err why = err ? *err : (struct err)ERR_INIT;
	if (err && a->self)
		err_prefix(&why, "%s: ", mesh_node_name(a->mesh, a->self));
	if (err)
		call_fail(a->creating, &why);
	else
		call_reply(a->creating, json_pack("{s:b, s:I, s:o}", "ok", 1, "ready_ms",
						  (json_int_t)cluster_ready_ms(a->cluster), "nodes",
						  json_sprintf("%u", a->self)));
}

static void on_vm_state(void *arg, struct vm *vm)
{
	struct agent *a = arg;
	for (struct waiter *w = a->waiters, *next; w; w = next) {
		next = w->next;
		if (w->on_vm)
			w->on_vm(w, vm);
	}
}

static void on_down(void *arg)
{
	struct agent *a = arg;
	if (a->self)
		node_leave(a);
	else
		agent_end(a);
}

const struct cluster_ops agent_cluster_ops = {
	.on_progress = on_progress,
	.on_note = on_note,
	.on_started = on_started,
	.on_vm_state = on_vm_state,
	.on_adopted = node_adopted,
	.on_down = on_down,
	.templates = &templates_elsewhere,
};

void agent_conn_lost(struct agent *a, struct conn *c)
{
	if (a->holder != c)
		return;
	a->holder = NULL;
	log_info("the front end that held the cluster is gone: ending it");
	if (a->cluster)
		agent_down(a, false);
}

void agent_down(struct agent *a, bool graceful)
{
	cluster_down(a->cluster, graceful);
	if (a->deploy)
		deploy_down(a->deploy, graceful);
}

void agent_end(struct agent *a)
{
	a->over = true;
	loop_stop(a->loop);
}

/* ---- life ---- */

static void on_connect(void *arg, int fd, uid_t uid)
{
	struct agent *a = arg;
	/* The folder's mode keeps others out; the kernel's word on who it is keeps out whoever got past that. */
	if (uid != geteuid()) {
		log_warn("a process of uid %u was refused", (unsigned)uid);
		close(fd);
		return;
	}
	conn_create(a, fd);
}

static void on_signal(void *arg, int signo)
{
	struct agent *a = arg;
	log_info("SIG%s: ending the cluster", sigabbrev_np(signo) ?: "?");
	a->signalled = true;
	if (a->leave)
		return; /* it ends already; resource managers say it more than once */
	if (a->cluster)
		agent_down(a, false);
	else
		agent_end(a);
}

static void on_lonely(void *arg)
{
	struct agent *a = arg;
	log_info("nobody gave this agent a cluster: ending");
	agent_end(a);
}

static void on_home(void *arg)
{
	struct agent *a = arg;
	if (!a->dir || rundir_owns(a->dir, a->lock))
		return;
	evtimer_stop(a->home);
	log_error("the run directory %s was removed: ending the cluster", a->dir);
	if (!a->cluster) {
		agent_end(a);
		return;
	}
	events_add(cluster_events(a->cluster), EVENT_NO_RANK, "cluster",
		   "the run directory was removed: ending");
	agent_down(a, false);
}

static void open_log(const char *dir)
{
	_cleanup_free_ char *path = path_join(dir, "agent.log");
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW,
				      0600);
	if (fd < 0)
		return;
	dup2(fd, STDERR_FILENO);
	log_setup("vse-agent", log_is(LOG_DEBUG) ? LOG_DEBUG : LOG_INFO, true);
}

static void report(int *fd, const struct err *err)
{
	_cleanup_free_ char *line = err ? xasprintf("error %s\n", err->text) : xstrdup("ready\n");
	if (*fd < 0)
		return;
	if (fd_write_all(*fd, line, strlen(line)) < 0)
		log_debug("nobody waits for the agent to be ready");
	close(TAKE_FD(*fd));
}

static int prepare_node(struct agent *a, const struct agent_options *o, struct err *err)
{
	a->dir = xstrdup(o->kept->dir);
	a->lock = o->kept->lock;
	open_log(a->dir);
	return node_join(a, o->node, o->index, o->input, err);
}

/* The dead agent's lock goes with its last descriptor, a moment after it. */
static int reclaim(struct agent *a, struct err *err)
{
	for (int i = 0; i < RECLAIM_TRIES; i++) {
		if (rundir_reclaim(a->base, a->name, &a->dir, &a->lock, err) == 0)
			return 0;
		if (err->code != EEXIST)
			return -1;
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
	return -1;
}

static int prepare(struct agent *a, const struct agent_options *o, struct err *err)
{
	if (o->node)
		return prepare_node(a, o, err);
	int rc = o->resume ? reclaim(a, err) : rundir_claim(a->base, a->name, &a->dir, &a->lock, err);
	if (rc < 0)
		return -1;
	open_log(a->dir);
	if (o->resume && deploy_resume(a, err) < 0)
		return -1;
	_cleanup_free_ char *sock = path_join(a->dir, "sock");
	if (o->resume)
		unlink(sock); /* the dead one's */
	a->listener = listener_create(a->loop, sock, on_connect, a, err);
	return a->listener ? 0 : -1;
}

void agent_release(struct agent *a)
{
	service_send_finish(a);
	service_arrive_finish(a);
	templates_finish(a);
	node_adoption_finish(a);
	fabric_destroy(TAKE_PTR(a->fabric));
	cluster_destroy(TAKE_PTR(a->cluster));
	if (a->dir) {
		_cleanup_free_ char *own = a->self ? rundir_node_name(a->name) : xstrdup(a->name);
		rundir_leave(a->base, own, a->lock);
	}
	free(TAKE_PTR(a->dir));
	if (a->lock >= 0)
		close(TAKE_FD(a->lock));
}

static void finish(struct agent *a)
{
	struct err ended = ERR_INIT;
	err_set(&ended, ESHUTDOWN, "the cluster was ended");
	for (struct conn *c = a->conns; c; c = conn_next(c))
		conn_fail_calls(c, &ended);
	deploy_destroy(TAKE_PTR(a->deploy));
	listener_destroy(a->listener);
	evtimer_destroy(a->lonely);
	evtimer_destroy(a->home);
	node_finish(a);
	service_launch_finish(a);
	agent_release(a);
	/* Only now: who is told that the cluster is down may start one of the same name at once. */
	for (size_t i = 0; i < a->n_ending; i++)
		if (a->ending[i])
			call_ok(a->ending[i]);
	for (struct conn *c = a->conns, *next; c; c = next) {
		next = conn_next(c);
		if (!conn_is_link(c)) /* else it is the mesh's */
			conn_destroy(c);
	}
	report_destroy(a->report);
	mesh_destroy(a->mesh);
	json_decref(a->request);
	free(a->base);
	free(a->name);
}

static void on_probe(void *arg, const struct hv_probe *p)
{
	*(struct hv_probe *)arg = *p;
}

/* By name of the operation: what cannot be done here, and why. */
static json_t *lacks_json(const struct hypervisor *h, const struct hv_probe *p, const char *no_tap)
{
	json_t *o = json_object();
	for (enum hv_cap c = 0; c < HV_CAPS; c++) {
		const char *why = hypervisor_lacks(h, p, c);
		if (!why && c == HV_CAP_TAP)
			why = no_tap;
		json_object_set_new(o, hv_cap_name(c), why ? json_string(why) : json_null());
	}
	return o;
}

char *agent_probe(const char *accel)
{
	struct loop *l = loop_create();
	json_t *all = json_array();
	const struct hypervisor *h;
	struct err tap = ERR_INIT;
	kernet_probe(&tap);
	for (size_t i = 0; (h = hypervisor_at(i)); i++) {
		struct err err = ERR_INIT;
		struct hv_probe p = {0};
		if (hypervisor_probe(h, l, accel, on_probe, &p, &err) < 0)
			snprintf(p.why, sizeof(p.why), "%.255s", err.text);
		else
			loop_run(l);
		json_array_append_new(all, json_pack("{s:s, s:s, s:b, s:s, s:s, s:s, s:s, s:o}",
						     "name", h->name, "summary", h->summary,
						     "usable", p.usable, "accel", p.accel, "version",
						     p.version, "why", p.why, "note", p.note, "lacks",
						     lacks_json(h, &p, tap.code ? tap.text : NULL)));
	}
	loop_destroy(l);
	char *text = json_dumps(all, JSON_COMPACT);
	json_decref(all);
	return text ? text : xstrdup("[]");
}

/* What the root before has left lives on for as long as this one, and with its reaper. */
static void take_held(struct agent *a, const struct agent_options *o)
{
	for (int i = 0; i < o->n_held; i++) {
		if (a->reaper && reaper_hold(a->reaper, o->held[i]) < 0)
			log_warn("what the root before this one held is lost: %s", strerror(errno));
		close(o->held[i]);
	}
}

int agent_run(const struct agent_options *o)
{
	struct agent a = {.loop = loop_create(),
			  .base = xstrdup(o->base),
			  .name = xstrdup(o->name),
			  .kept = o->kept,
			  .lock = -1};
	struct err err = ERR_INIT;
	int ready_fd = o->ready_fd, code = 0;
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
	struct sigwatch *watches[ARRAY_SIZE(signals)];
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		watches[i] = sigwatch_create(a.loop, signals[i], on_signal, &a);
	a.lonely = evtimer_create(a.loop, on_lonely, &a);
	if (!o->node && !o->resume)
		evtimer_start(a.lonely, LONELY_MS, 0);
	a.home = evtimer_create(a.loop, on_home, &a);
	evtimer_start(a.home, HOME_MS, HOME_MS);
	bool good = prepare(&a, o, &err) == 0;
	if (good && !o->node) /* a node's belongs to its keeper */
		good = (a.reaper = reaper_create(a.loop, a.base, a.name, &err)) != NULL;
	take_held(&a, o);
	if (good) {
		report(&ready_fd, NULL);
		if (!o->node)
			hypervisor_warm(a.loop); /* while the front end connects and says what it wants */
		while (!a.over)
			loop_run(a.loop);
	} else {
		log_error("%s", err.text);
		report(&ready_fd, &err);
		code = 1;
	}
	finish(&a);
	reaper_destroy(a.reaper);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigwatch_destroy(watches[i]);
	loop_destroy(a.loop);
	return code;
}
