/* SPDX-License-Identifier: Apache-2.0 */
/* One `xl list -v` serves all VMs. It is run when a VM's operation wants to know how it ended, when xenstore says that some
 * domain has ended (@releaseDomain, by xenstore-watch: it fires for a domain that shut itself down, too), and every few
 * seconds in any case: a watch may be missed, and someone may pause a domain behind our back. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "hypervisor/xen.h"
#include "io/child.h"
#include "io/stream.h"

#define WATCHED_MS 2000 /* between two lists where xenstore tells of the ends */
#define POLL_MS 1000    /* and where it does not */
#define FAILS 3         /* lists that are not to be had, before it is told */

struct lister {
	struct loop *loop;
	struct xen_watch *first;
	struct xen_run *run;
	struct child *events; /* xenstore-watch */
	struct stream *lines;
	struct evtimer *timer;
	uint64_t asked;    /* number of the last question */
	bool again;        /* somebody asked after it had begun */
	unsigned fails;    /* one after the other */
	struct err cannot; /* xl could not even be started */
	bool *gone;        /* set when the lister goes while it tells */
};

struct xen_watch {
	struct lister *lister;
	struct xen_watch *next;
	char uuid[XEN_UUID_LEN + 1];
	xen_watch_fn *fn;
	void *arg;
	uint64_t told; /* the last list it was told of */
};

static struct lister *current; /* one agent has one loop */

static void list(struct lister *s);

static void next_round(struct lister *s)
{
	if (s->again)
		list(s);
	else
		evtimer_start(s->timer, s->events ? WATCHED_MS : POLL_MS, 0);
}

/* A receiver may end any watch, and begin some: each round looks for one that was not told yet. */
static void tell(struct lister *s, const char *out, const char *why)
{
	uint64_t asked = s->asked;
	bool gone = false;
	s->gone = &gone;
	for (struct xen_watch *w = s->first; w;) {
		if (w->told >= asked) {
			w = w->next;
			continue;
		}
		struct xen_domain d;
		bool there = !why && xen_parse_list(out, w->uuid, &d);
		w->told = asked;
		w->fn(w->arg, there ? &d : NULL, asked, why);
		if (gone)
			return;
		w = s->first;
	}
	s->gone = NULL;
	next_round(s);
}

static void failed(struct lister *s, const char *cause)
{
	_cleanup_free_ char *why = xasprintf("xl list: %s", cause);
	if (++s->fails >= FAILS)
		tell(s, "", why);
	else
		evtimer_start(s->timer, POLL_MS, 0);
}

static void on_list(void *arg, int status, const char *out, size_t len _unused_, const char *errors)
{
	struct lister *s = arg;
	char cause[200];
	s->run = NULL;
	/* Without dom0 in it, it is no list: nothing may be concluded. */
	if (status == 0 && strstr(out, "\nDomain-0 ")) {
		s->fails = 0;
		tell(s, out, NULL);
		return;
	}
	xen_cause(errors, cause, sizeof(cause));
	failed(s, cause[0] ? cause : "its answer has no dom0 in it");
}

static void list(struct lister *s)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	if (s->run) {
		s->again = true;
		return;
	}
	s->again = false;
	s->asked++;
	evtimer_stop(s->timer);
	strvec_addv(&argv, "xl", "list", "-v", NULL);
	s->cannot.code = 0;
	if (xen_run(s->loop, &argv, -1, XEN_READ_MS, on_list, s, &s->run, &s->cannot) < 0)
		evtimer_start(s->timer, POLL_MS, 0);
}

static void on_timer(void *arg)
{
	struct lister *s = arg;
	if (s->cannot.code) {
		s->cannot.code = 0;
		failed(s, s->cannot.text);
	} else {
		list(s);
	}
}

static void on_event(void *arg, struct buf *in)
{
	buf_consume(in, buf_len(in));
	list(arg);
}

static void on_events_end(void *arg, const struct err *err _unused_)
{
	struct lister *s = arg;
	stream_destroy(TAKE_PTR(s->lines));
	if (s->events)
		child_kill(s->events, SIGKILL);
	child_destroy(TAKE_PTR(s->events));
}

static void on_events_exit(void *arg _unused_, int status _unused_)
{
}

static void watch_events(struct lister *s)
{
	static const struct stream_ops ops = {.on_data = on_event, .on_close = on_events_end};
	_cleanup_free_ char *program = xen_program("xenstore-watch");
	char name[] = "@releaseDomain", *argv[] = {program, name, NULL};
	int p[2];
	if (!program || pipe2(p, O_CLOEXEC) < 0)
		return;
	struct child_spec cs = {
		.argv = argv, .cwd = "/", .fds = {-1, p[1], -1}, .n_fds = 3, .die_with_parent = true};
	s->lines = stream_create(s->loop, p[0], &ops, s, NULL);
	if (s->lines)
		s->events = child_start(s->loop, &cs, on_events_exit, s, NULL);
	close(p[1]);
	if (!s->events)
		stream_destroy(TAKE_PTR(s->lines));
}

static struct lister *lister_get(struct loop *l)
{
	if (current)
		return current;
	struct lister *s = xcalloc(1, sizeof(*s));
	s->loop = l;
	s->timer = evtimer_create(l, on_timer, s);
	watch_events(s);
	return current = s;
}

static void lister_put(struct lister *s)
{
	if (s->first)
		return;
	if (s->gone)
		*s->gone = true;
	xen_run_forget(s->run);
	on_events_end(s, NULL);
	evtimer_destroy(s->timer);
	free(s);
	current = NULL;
}

struct xen_watch *xen_watch_create(struct loop *l, const char *uuid, xen_watch_fn *fn, void *arg)
{
	struct lister *s = lister_get(l);
	struct xen_watch *w = xcalloc(1, sizeof(*w));
	*w = (struct xen_watch){.lister = s, .next = s->first, .fn = fn, .arg = arg, .told = s->asked};
	snprintf(w->uuid, sizeof(w->uuid), "%s", uuid);
	s->first = w;
	if (!s->run)
		list(s);
	return w;
}

void xen_watch_destroy(struct xen_watch *w)
{
	if (!w)
		return;
	struct xen_watch **p = &w->lister->first;
	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	lister_put(w->lister);
	free(w);
}

uint64_t xen_watch_ask(struct xen_watch *w)
{
	struct lister *s = w->lister;
	uint64_t n = s->asked + 1;
	list(s);
	return n;
}
