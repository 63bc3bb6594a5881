/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/request.h"

#include <errno.h>

#include "base/alloc.h"
#include "wire/guestproto.h"

static struct request **bucket(struct guest *g, uint32_t id)
{
	return &g->requests[id % GUEST_BUCKETS];
}

struct request *request_find(struct guest *g, uint32_t id)
{
	for (struct request *r = *bucket(g, id); r; r = r->next)
		if (r->id == id && id && !r->over)
			return r;
	return NULL;
}

struct request *request_new(struct guest *g, uint32_t id, enum request_kind kind, struct err *err)
{
	if (!id || request_find(g, id)) {
		err_set(err, id ? EEXIST : EINVAL, "request id %u is %s", id,
			id ? "in use" : "not allowed");
		return NULL;
	}
	if (g->n_requests >= g->max_requests ||
	    (kind != REQUEST_EXEC && g->n_copies >= GUEST_MAX_COPIES)) {
		err_set(err, EAGAIN, "too many requests at once in this VM (%zu)", g->n_requests);
		return NULL;
	}
	struct request *r = xcalloc(1, sizeof(*r));
	r->id = id;
	r->kind = kind;
	r->window = GUESTPROTO_STDIN_WINDOW;
	r->next = *bucket(g, id);
	*bucket(g, id) = r;
	g->n_requests++;
	g->n_copies += kind != REQUEST_EXEC;
	return r;
}

void request_each(struct guest *g, void (*fn)(struct guest *g, struct request *r, void *arg), void *arg)
{
	for (size_t i = 0; g->n_requests && i < GUEST_BUCKETS; i++)
		for (struct request *r = g->requests[i]; r; r = r->next)
			if (!r->over)
				fn(g, r, arg);
}

void request_sweep(struct guest *g)
{
	for (size_t i = 0; g->n_requests && i < GUEST_BUCKETS; i++)
		for (struct request **p = &g->requests[i], *r; (r = *p);) {
			if (!r->over) {
				p = &r->next;
				continue;
			}
			*p = r->next;
			g->n_requests--;
			g->n_copies -= r->kind != REQUEST_EXEC;
			if (r->kind == REQUEST_EXEC)
				exec_finish(r);
			else
				copy_finish(r);
			free(r);
		}
}

void request_fail(struct guest *g, struct request *r, const struct err *err)
{
	if (r->id)
		agent_send_error(g, r->id, err);
	r->over = true;
}

void request_taken(struct guest *g, struct request *r, size_t n)
{
	r->taken += (uint32_t)n;
	if (r->taken < GUESTPROTO_STDIN_WINDOW / 4)
		return;
	frame_write_credit(&g->out, r->id, 0, 0, r->taken);
	r->window += r->taken;
	r->taken = 0;
}

void request_frame(struct guest *g, const struct frame *f)
{
	struct request *r = request_find(g, f->id);
	struct err err;
	if (!r)
		return;
	if (f->type == FRAME_CREDIT) {
		if (f->fd >= 1)
			r->credit[f->fd] = MIN(r->credit[f->fd] + frame_credit(f), (uint64_t)1 << 40);
		return;
	}
	if (f->fd != 0 || f->len > r->window) {
		err_set(&err, EPROTO,
			f->fd ? "data for output stream %u" : "more input than was allowed", f->fd);
		if (r->kind == REQUEST_EXEC)
			exec_abandon(r);
		agent_send_error(g, f->id, &err);
		r->over = r->kind != REQUEST_EXEC;
		return;
	}
	r->window -= f->len;
	if (r->kind == REQUEST_EXEC)
		exec_data(g, r, f);
	else
		copy_data(g, r, f);
}

static void watch_one(struct guest *g, struct request *r, void *w)
{
	if (r->kind == REQUEST_EXEC)
		exec_watch(g, r, w);
	else
		copy_watch(g, r, w);
}

void request_watch(struct guest *g, struct watches *w)
{
	request_each(g, watch_one, w);
}

static void tick_one(struct guest *g, struct request *r, void *now)
{
	if (r->kind == REQUEST_EXEC)
		exec_tick(g, r, *(uint64_t *)now);
	else
		copy_tick(g, r);
}

void request_tick(struct guest *g, uint64_t now)
{
	request_each(g, tick_one, &now);
}

static void abandon_one(struct guest *g _unused_, struct request *r, void *arg _unused_)
{
	if (r->kind == REQUEST_EXEC)
		exec_abandon(r);
	else
		r->over = true;
}

void request_abandon_all(struct guest *g)
{
	request_each(g, abandon_one, NULL);
}

struct child {
	pid_t pid;
	int status;
	bool found;
};

static void child_one(struct guest *g, struct request *r, void *arg)
{
	struct child *c = arg;
	if (c->found || r->kind != REQUEST_EXEC || r->exec.pid != c->pid || r->exec.exited)
		return;
	c->found = true;
	exec_exited(g, r, c->status);
}

bool request_child(struct guest *g, pid_t pid, int status)
{
	struct child c = {.pid = pid, .status = status};
	request_each(g, child_one, &c);
	return c.found;
}
