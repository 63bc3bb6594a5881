/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "stage/state.h"

#define IDLE_CHECK_MS 30000

uint64_t stage_now(struct stage *s)
{
	return loop_now(s->loop) + 1; /* never 0, which means never */
}

/* ---- the loop's work: slices, chunks to send, and whatever the owner is told ---- */

void stage_work(struct stage *s)
{
	if (s->working)
		return;
	s->working = true;
	evtimer_start(s->work, 0, 0);
}

void stage_wake(struct stage *s)
{
	if (s->ticking)
		return;
	s->ticking = true;
	evtimer_start(s->tick, SWARM_TICK_MS, 0);
}

void stage_tell(struct stage *s, uint32_t node, bool closed, const struct err *err)
{
	struct notice *n = xcalloc(1, sizeof(*n));
	n->node = node;
	n->closed = closed;
	err_copy(&n->err, err);
	*s->notices_tail = n;
	s->notices_tail = &n->next;
	stage_work(s);
}

static void tell_notice(struct stage *s)
{
	struct notice *n = s->notices;
	s->notices = n->next;
	if (!s->notices)
		s->notices_tail = &s->notices;
	if (!n->closed)
		s->ops->connect(s->arg, n->node);
	else if (s->ops->closed)
		s->ops->closed(s->arg, n->node, &n->err);
	free(n);
}

static bool due(const struct stage_job *j)
{
	return !j->told &&
	       (!j->entry || j->entry->state == STAGE_DONE || j->entry->state == STAGE_FAILED);
}

static void tell_job(struct stage_job *j)
{
	struct entry *e = j->entry;
	struct err none = ERR_INIT;
	const struct err *err = !e ? &j->err : e->state == STAGE_FAILED ? &e->err : &none;
	j->told = true;
	if (j->on_offer)
		j->on_offer(j->arg, err->code ? NULL : &e->file, err);
	else
		j->on_done(j->arg, err->code ? NULL : e->path, err);
}

/* One callback at a time: each may end everything. */
static bool tell_next(struct stage *s)
{
	if (s->notices) {
		tell_notice(s);
		return true;
	}
	for (struct stage_job *j = s->jobs; j; j = j->next)
		if (due(j)) {
			tell_job(j);
			return true;
		}
	return false;
}

static void on_work(void *arg)
{
	struct stage *s = arg;
	bool more = false;
	s->working = false;
	for (struct entry *e = s->entries; e; e = e->next) {
		entry_work(e);
		more |= entry_busy(e);
	}
	more |= link_pump_all(s);
	s->busy++;
	while (!s->dead && tell_next(s))
		;
	s->busy--;
	if (s->dead) {
		free(s);
		return;
	}
	if (more)
		stage_work(s);
}

static void on_tick(void *arg)
{
	struct stage *s = arg;
	uint64_t now = stage_now(s);
	bool waiting = false;
	s->ticking = false;
	swarm_tick(s->swarm, now);
	for (struct entry *e = s->entries; e; e = e->next) {
		entry_tick(e, now);
		waiting |= e->state == STAGE_WAITING;
	}
	if (waiting || swarm_busy(s->swarm))
		stage_wake(s);
}

static void on_idle(void *arg)
{
	struct stage *s = arg;
	link_close_idle(s, stage_now(s));
	if (link_any(s))
		evtimer_start(s->idle, IDLE_CHECK_MS, 0);
}

/* ---- the swarm's wishes ---- */

static void want_connect(void *arg, uint32_t node)
{
	stage_tell(arg, node, false, NULL);
}

static void want_send(void *arg, uint32_t node, const struct stage_msg *m)
{
	stage_link_send(arg, node, m);
}

static void want_pump(void *arg, uint32_t node)
{
	link_want_pump(arg, node);
}

/* Others want from us what we found on a shared store: we lack its index only. */
static void want_file(void *arg, struct swarm_file *f)
{
	struct stage *s = arg;
	struct entry *e = swarm_file_user(f);
	if (e->shared)
		swarm_file_want(f, true, stage_now(s));
}

static const struct swarm_ops swarm_ops = {want_connect, want_send, want_pump, want_file};

/* ---- making and ending ---- */

int stage_create(struct loop *l, const struct stage_config *config, const struct stage_ops *ops,
		 void *arg, struct stage **ret, struct err *err)
{
	struct cache *cache = NULL;
	if (config->self >= STAGE_NODES_MAX || config->nodes >= STAGE_NODES_MAX)
		return err_set(err, EINVAL, "staging: more than %u nodes", STAGE_NODES_MAX);
	if (config->cache && cache_open(config->cache, config->cache_limit, &cache, err) < 0)
		return -1;
	struct stage *s = xcalloc(1, sizeof(*s));
	s->loop = l;
	s->ops = ops;
	s->arg = arg;
	s->self = config->self;
	s->nodes = config->nodes;
	s->name = config->name ? xstrdup(config->name) : xasprintf("node %u", config->self);
	s->cache = cache;
	s->notices_tail = &s->notices;
	s->swarm = swarm_create(s->self, &swarm_ops, s);
	s->work = evtimer_create(l, on_work, s);
	s->tick = evtimer_create(l, on_tick, s);
	s->idle = evtimer_create(l, on_idle, s);
	*ret = s;
	return 0;
}

void stage_destroy(struct stage *s)
{
	if (!s)
		return;
	link_close_all(s);
	while (s->entries)
		entry_free(s->entries);
	for (struct stage_job *j = s->jobs, *next; j; j = next) {
		next = j->next;
		free(j);
	}
	for (struct notice *n = s->notices, *next; n; n = next) {
		next = n->next;
		free(n);
	}
	s->jobs = NULL;
	s->notices = NULL;
	evtimer_destroy(s->work);
	evtimer_destroy(s->tick);
	evtimer_destroy(s->idle);
	swarm_destroy(s->swarm);
	cache_close(s->cache);
	free(s->name);
	if (s->busy)
		s->dead = true;
	else
		free(s);
}

/* ---- nodes and links ---- */

void stage_attach(struct stage *s, uint32_t node, struct stream *stream)
{
	if (node == s->self || swarm_banned(s->swarm, node)) {
		stream_destroy(stream);
		return;
	}
	if (!link_any(s))
		evtimer_start(s->idle, IDLE_CHECK_MS, 0);
	link_create(s, node, stream);
}

void stage_connect_failed(struct stage *s, uint32_t node, const struct err *err _unused_)
{
	if (link_to(s, node))
		return; /* it has made one itself */
	swarm_link_down(s->swarm, node, stage_now(s));
	stage_wake(s);
}

void stage_node_lost(struct stage *s, uint32_t node)
{
	swarm_node_lost(s->swarm, node, true);
	link_close_node(s, node, NULL);
	swarm_link_down(s->swarm, node, stage_now(s));
}

void stage_node_back(struct stage *s, uint32_t node)
{
	swarm_node_lost(s->swarm, node, false);
	stage_wake(s);
}

void stage_set_nodes(struct stage *s, uint32_t nodes)
{
	s->nodes = MAX(s->nodes, nodes);
}

/* ---- jobs ---- */

static struct stage_job *new_job(struct stage *s, struct entry *e)
{
	struct stage_job *j = xcalloc(1, sizeof(*j));
	j->stage = s;
	j->entry = e;
	if (e)
		e->jobs++;
	j->next = s->jobs;
	s->jobs = j;
	stage_work(s);
	return j;
}

static int open_offer(const char *path, int *ret_fd, struct stat *ret_st, struct err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, ret_st) < 0)
		return err_errno(err, errno, "%s", path);
	if (!S_ISREG(ret_st->st_mode))
		return err_set(err, EINVAL, "%s: not a regular file", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

struct stage_job *stage_offer(struct stage *s, const char *path,
			      void (*on_offer)(void *arg, const struct stage_file *f,
					       const struct err *err),
			      void *arg)
{
	struct stage_job *j;
	struct err err = ERR_INIT;
	struct stat st;
	int fd = -1;
	if (path[0] != '/' || strlen(path) >= STAGE_PATH_MAX)
		err_set(&err, EINVAL, "%s: not an absolute path", path);
	else
		open_offer(path, &fd, &st, &err);
	if (fd < 0) {
		j = new_job(s, NULL);
		err_prefix(&err, "%s: ", s->name);
		j->err = err;
	} else {
		struct entry *e = entry_new(s, true);
		e->fd = fd;
		e->st = st;
		e->path = xstrdup(path);
		e->work = WORK_START;
		j = new_job(s, e);
	}
	j->on_offer = on_offer;
	j->arg = arg;
	return j;
}

struct stage_job *stage_fetch(struct stage *s, const struct stage_file *f,
			      void (*on_done)(void *arg, const char *path, const struct err *err),
			      void *arg)
{
	struct entry *e = entry_find(s, f->index);
	if (!e) {
		e = entry_new(s, false);
		e->file = *f;
		e->work = WORK_START;
	}
	struct stage_job *j = new_job(s, e);
	j->on_done = on_done;
	j->arg = arg;
	return j;
}

void stage_release(struct stage_job *j)
{
	if (!j)
		return;
	struct stage_job **at = &j->stage->jobs;
	while (*at != j)
		at = &(*at)->next;
	*at = j->next;
	if (j->entry && !--j->entry->jobs)
		entry_free(j->entry);
	free(j);
}

void stage_get_stats(const struct stage *s, struct stage_stats *ret)
{
	*ret = s->stats;
	ret->moved = swarm_moved(s->swarm);
}
