/* SPDX-License-Identifier: Apache-2.0 */
/* The launcher `ssh`: hosts that the user gives, one connection to each. sshd is all that a node needs. The client
 * stays as long as the agent: when we die so does it, and the agent sees the end of its input. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "base/path.h"
#include "io/child.h"
#include "launcher/backend.h"
#include "launcher/parse.h"
#include "launcher/ssh_script.h"

#define AGENT_ERROR "vse-agent: error: "
#define CHUNK (256u << 10)
#define MARK_SIZE 16 /* hex digits */
#define BACKOFF_MS 200

enum state { WAITING, PAUSED, STARTING, RUNNING, OVER };

struct connection {
	struct ssh *ssh;
	size_t node;
	enum state state;
	unsigned tries;
	struct tool *tool;
	struct evtimer *timer; /* the deadline, or the pause before another try */
	const char *bytes;     /* the agent's, as they are or packed */
	size_t sent, to_send;  /* of them */
	char fail[TOOL_LINE_MAX + 1],
		last[TOOL_LINE_MAX + 1]; /* the script's word; the last line of ssh's own */
};

struct ssh {
	struct launching *launching;
	struct launch_options o;
	struct strvec options, args; /* of ssh; of the agent */
	struct payload *payload;
	char *shared; /* may be NULL */
	bool stage;
	unsigned *index; /* may be NULL */
	char mark[MARK_SIZE + 1];
	struct connection *c; /* one a node */
	size_t first;         /* none before it waits */
	size_t starting, over;
	bool some_failed;
	struct err err; /* of the first that failed */
	struct evtimer *again;
};

/* ---- why a connection failed ---- */

static const struct trouble {
	const char *text; /* in ssh's last line */
	int code;
	bool again; /* sshd drops connections when many come at once; networks lose some */
} troubles[] = {
	{"kex_exchange_identification", ECONNRESET, true},
	{"ssh_exchange_identification", ECONNRESET, true},
	{"Connection reset", ECONNRESET, true},
	{"Connection closed by", ECONNRESET, true},
	{"Broken pipe", ECONNRESET, true},
	{"Permission denied", EACCES, false},
	{"Host key verification failed", EPERM, false},
	{"Could not resolve hostname", ENOENT, false},
	{"Connection refused", ECONNREFUSED, false},
	{"No route to host", EHOSTUNREACH, false},
	{"Network is unreachable", ENETUNREACH, false},
	{"timed out", ETIMEDOUT, false},
};

static const struct trouble *trouble_of(const char *text)
{
	static const struct trouble other = {"", EIO, false};
	for (size_t i = 0; i < ARRAY_SIZE(troubles); i++)
		if (strstr(text, troubles[i].text))
			return &troubles[i];
	return &other;
}

/* Goes on with the rest, from the loop: never deeper than one failed start. */
static void go_on(struct ssh *s)
{
	evtimer_start(s->again, 0, 0);
}

static void close_connection(struct connection *c)
{
	if (c->state == STARTING)
		c->ssh->starting--;
	tool_destroy(TAKE_PTR(c->tool));
	evtimer_stop(c->timer);
}

/* The node is done with, for good or bad. May destroy all. */
static void finish(struct connection *c, const struct err *why)
{
	struct ssh *s = c->ssh;
	struct launching *l = s->launching;
	close_connection(c);
	c->state = OVER;
	s->over++;
	if (why->code && !s->some_failed) {
		s->some_failed = true;
		s->err = *why;
	}
	struct err ended = *why;
	if (!why->code)
		err_set(&ended, ECHILD, "its agent has ended");
	if (!launching_failed(l, c->node, &ended))
		return;
	if (s->over == l->n)
		launching_over(l, &s->err);
	else
		go_on(s);
}

static unsigned jitter(unsigned bound)
{
	unsigned r = 0;
	if (getrandom(&r, sizeof(r), GRND_NONBLOCK) < 0)
		r = (unsigned)getpid();
	return r % bound;
}

static void try_again(struct connection *c)
{
	struct ssh *s = c->ssh;
	unsigned pause = BACKOFF_MS << MIN(c->tries, 5u);
	close_connection(c);
	c->state = PAUSED;
	evtimer_start(c->timer, pause / 2 + jitter(pause), 0);
	go_on(s);
}

/* ---- one connection ---- */

/* What fits into the pipe at once has drained without a word. */
static void send_more(struct connection *c)
{
	while (c->sent < c->to_send && tool_input_empty(c->tool)) {
		size_t n = MIN(c->to_send - c->sent, (size_t)CHUNK);
		tool_write(c->tool, c->bytes + c->sent, n);
		c->sent += n;
	}
	evtimer_start(c->timer, c->ssh->o.deadline_ms, 0);
}

static void send_agent(struct connection *c, const char *bytes, size_t n)
{
	c->bytes = bytes;
	c->to_send = n;
	send_more(c);
}

static void on_drain(void *arg)
{
	struct connection *c = arg;
	if (c->state == STARTING && c->sent < c->to_send)
		send_more(c);
}

static void running(struct connection *c)
{
	struct ssh *s = c->ssh;
	c->state = RUNNING;
	s->starting--;
	evtimer_stop(c->timer);
	tool_write(c->tool, buf_head(&s->launching->bootstrap), buf_len(&s->launching->bootstrap));
	if (launching_started(s->launching, c->node))
		go_on(s);
}

/* A line of the script; anything before its mark is what start-up files printed. */
static void on_word(struct connection *c, const char *word)
{
	struct payload *p = c->ssh->payload;
	evtimer_start(c->timer, c->ssh->o.deadline_ms, 0);
	if (strcmp(word, "run") == 0) {
		running(c);
	} else if (strcmp(word, "send") == 0 && !c->to_send) {
		send_agent(c, p->data, p->sent.size);
	} else if (strcmp(word, "pack") == 0 && !c->to_send && payload_pack(p, NULL) == 0) {
		char line[24];
		int n = snprintf(line, sizeof(line), "%zu\n", p->packed_size);
		tool_write(c->tool, line, (size_t)n);
		send_agent(c, p->packed, p->packed_size);
	} else if (strncmp(word, "fail ", 5) == 0) {
		snprintf(c->fail, sizeof(c->fail), "%s", word + 5);
	}
}

static void on_line(void *arg, bool err, char *line)
{
	struct connection *c = arg;
	if (err && line[0])
		snprintf(c->last, sizeof(c->last), "%s", line);
	if (c->state == RUNNING) {
		launching_output(c->ssh->launching, c->node, line);
		return;
	}
	const char *mark = err ? NULL : strstr(line, c->ssh->mark);
	if (mark && mark[MARK_SIZE] == ' ')
		on_word(c, mark + MARK_SIZE + 1);
}

static void ended_early(struct connection *c, int status, const char *text)
{
	const struct trouble *t = trouble_of(c->last);
	struct err why = ERR_INIT;
	bool dropped = WIFEXITED(status) && WEXITSTATUS(status) == 255 && !c->fail[0];
	if (dropped && t->again && c->tries < c->ssh->o.tries) {
		try_again(c);
		return;
	}
	if (c->fail[0])
		err_set(&why, ENOEXEC, "%.400s", c->fail);
	else
		err_set(&why, dropped ? t->code : EIO, "ssh: %.400s",
			!c->last[0]                         ? text
			: strncmp(c->last, "ssh: ", 5) == 0 ? c->last + 5
							    : c->last);
	finish(c, &why);
}

static void on_exit_of(void *arg, int status)
{
	struct connection *c = arg;
	struct err why = ERR_INIT;
	char text[40];
	child_status_text(status, text);
	if (c->state == STARTING) {
		ended_early(c, status, text);
		return;
	}
	/* Of a line of its log what it says. */
	const char *error = strstr(c->last, AGENT_ERROR),
		   *said = error ? error + strlen(AGENT_ERROR) : c->last;
	if (status != 0)
		err_set(&why, ECHILD, "its agent has ended: %s%s%.300s", text, said[0] ? ": " : "",
			said);
	finish(c, &why);
}

static void on_timer(void *arg)
{
	struct connection *c = arg;
	struct err why = ERR_INIT;
	if (c->state == PAUSED) {
		c->state = WAITING;
		c->ssh->first = MIN(c->ssh->first, c->node);
		go_on(c->ssh);
		return;
	}
	err_set(&why, ETIMEDOUT, "no answer for %u s%s%.300s",
		(unsigned)(c->ssh->o.deadline_ms / 1000), c->last[0] ? ": " : "", c->last);
	finish(c, &why);
}

static const struct tool_ops connection_ops = {.on_line = on_line,
					       .on_drain = on_drain,
					       .on_exit = on_exit_of};

static void add_command(const struct connection *c, struct strvec *argv)
{
	const struct ssh *s = c->ssh;
	_cleanup_strvec_ struct strvec args = STRVEC_INIT;
	strvec_copy(&args, &s->args);
	if (s->index) {
		strvec_add(&args, "--index");
		strvec_addf(&args, "%u", s->index[c->node]);
	}
	strvec_copy(argv, &s->options);
	strvec_addv(argv, "--", s->launching->names[c->node], NULL);
	strvec_take(argv, ssh_script(s->mark, s->shared, s->stage, !s->o.forget, s->payload, args.v,
				     args.n));
}

static int connect_to(struct connection *c, struct err *err)
{
	_cleanup_strvec_ struct strvec argv = STRVEC_INIT;
	add_command(c, &argv);
	c->tries++;
	c->sent = c->to_send = 0;
	c->fail[0] = c->last[0] = '\0';
	struct tool_spec spec = {.argv = strvec_argv(&argv), .input = true, .die_with_parent = true};
	c->tool = tool_start(c->ssh->launching->loop, &spec, &connection_ops, c, err);
	if (!c->tool)
		return -1;
	c->state = STARTING;
	c->ssh->starting++;
	evtimer_start(c->timer, c->ssh->o.deadline_ms, 0);
	return 0;
}

/* ---- all of them ---- */

/* One name may be there several times: sshd drops connections of a burst. */
static bool host_is_busy(const struct ssh *s, const char *name)
{
	unsigned n = 0, seen = 0;
	for (size_t i = 0; i < s->launching->n && seen < s->starting; i++) {
		if (s->c[i].state != STARTING)
			continue;
		seen++;
		n += strcmp(s->launching->names[i], name) == 0;
	}
	return n >= s->o.per_host;
}

static void fill(void *arg)
{
	struct ssh *s = arg;
	size_t n = s->launching->n;
	while (s->first < n && s->c[s->first].state != WAITING)
		s->first++;
	for (size_t i = s->first; i < n && s->starting < s->o.parallel; i++) {
		struct connection *c = &s->c[i];
		struct err err = ERR_INIT;
		if (c->state != WAITING || host_is_busy(s, s->launching->names[i]))
			continue;
		if (connect_to(c, &err) < 0) {
			finish(c, &err); /* goes on with the next */
			return;
		}
	}
}

static void end(void *arg)
{
	struct ssh *s = arg;
	for (size_t i = 0; s->c && i < s->launching->n; i++) {
		tool_destroy(s->c[i].tool);
		evtimer_destroy(s->c[i].timer);
	}
	free(s->c);
	free(s->index);
	free(s->shared);
	strvec_finish(&s->options);
	strvec_finish(&s->args);
	payload_destroy(s->payload);
	evtimer_destroy(s->again);
	free(s);
}

static void add_options(struct ssh *s, const struct launch_options *o)
{
	/* The user's configuration stays in force but for what would make a connection wait for somebody, be no plain
	 * pipe, or be shared with one that ends before. */
	strvec_addv(&s->options, "ssh", "-x", "-T", "-oBatchMode=yes", "-oServerAliveInterval=5",
		    "-oServerAliveCountMax=3", "-oEscapeChar=none", "-oControlMaster=no",
		    "-oRemoteCommand=none", "-oClearAllForwardings=yes", "-oPermitLocalCommand=no",
		    NULL);
	strvec_addf(&s->options, "-oConnectTimeout=%u", (unsigned)((o->connect_ms + 999) / 1000));
	if (o->cheap_kex)
		strvec_add(&s->options, "-oKexAlgorithms=curve25519-sha256");
	if (o->args)
		strvec_copy(&s->options, o->args);
}

static int make_mark(char mark[MARK_SIZE + 1], struct err *err)
{
	unsigned char r[MARK_SIZE / 2];
	if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r))
		return err_errno(err, errno, "random bytes");
	for (size_t i = 0; i < sizeof(r); i++)
		snprintf(mark + 2 * i, 3, "%02x", r[i]);
	return 0;
}

static int start(struct launching *l, const struct launch_start *st, struct err *err)
{
	struct ssh *s = xcalloc(1, sizeof(*s));
	*s = (struct ssh){.launching = l, .o = *st->o, .stage = st->agent->stage};
	l->state = s;
	l->end = end;
	for (size_t i = 0; i < l->n; i++)
		if (host_name_check(l->names[i], err) < 0)
			return -1;
	if (!in_path("ssh"))
		return err_set(err, ENOENT, "ssh is not in PATH");
	if (make_mark(s->mark, err) < 0 || payload_load(st->agent->file, &s->payload, err) < 0)
		return -1;
	s->shared = xstrdup(st->agent->shared ? st->agent->shared : st->agent->file);
	if (st->agent->args)
		strvec_copy(&s->args, st->agent->args);
	if (st->agent->index) {
		s->index = xcalloc(l->n, sizeof(*s->index));
		memcpy(s->index, st->agent->index, l->n * sizeof(*s->index));
	}
	add_options(s, st->o);
	s->o.args = NULL;
	s->c = xcalloc(l->n, sizeof(*s->c));
	for (size_t i = 0; i < l->n; i++) {
		s->c[i] = (struct connection){.ssh = s, .node = i};
		s->c[i].timer = evtimer_create(l->loop, on_timer, &s->c[i]);
	}
	s->again = evtimer_create(l->loop, fill, s);
	go_on(s);
	return 0;
}

/* ---- which nodes ---- */

static enum launch_fit probe(const struct launcher *l _unused_, char why[LAUNCH_WHY_MAX])
{
	if (!in_path("ssh"))
		return launch_fit(why, LAUNCH_UNUSABLE, "ssh is not in PATH");
	return launch_fit(why, LAUNCH_USABLE,
			  "needs --hosts or --hostfile; nodes need sshd and your key");
}

static int read_hostfile(const char *path, struct allocation *all, struct err *err)
{
	_cleanup_free_ char *text = NULL;
	if (path_read_any(path, LAUNCH_TEXT_MAX, &text, NULL, err) < 0)
		return -1;
	return parse_hostfile(text, all, err) < 0 ? err_prefix(err, "%s: ", path) : 0;
}

static int allocate(struct allocating *a, const struct launch_request *r, struct err *err)
{
	_cleanup_allocation_ struct allocation *all = allocation_new(a->launcher, NULL);
	if (!r->hosts && !r->hostfile)
		return err_set(err, EINVAL, "it needs hosts: --hosts or --hostfile");
	if (r->hosts && allocation_add_hosts(all, r->hosts, err) < 0)
		return -1;
	if (r->hostfile && read_hostfile(r->hostfile, all, err) < 0)
		return -1;
	allocation_unite(all);
	allocating_ready(a, TAKE_PTR(all));
	return 0;
}

const struct launcher launcher_ssh = {
	.name = "ssh",
	.summary = "hosts of yours that run sshd, and need nothing else",
	.probe = probe,
	.allocate = allocate,
	.start = start,
	.carries_input = true,
	.names_nodes = true,
};
