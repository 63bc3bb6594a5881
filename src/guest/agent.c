/* SPDX-License-Identifier: Apache-2.0 */
/* The loop and the verbs. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "guest/request.h"
#include "guest/ssh.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

#define MAX_REQUESTS 4096
#define LOOK_MS 1000 /* while it is being set up */
#define MUTE_MS 100  /* a stream of nonsense is over when nothing came for so long */
#define EARLY_LINES 32
#define READY_WAIT_SSH_MS 20000
#define READY_WAIT_SYSTEMD_MS 180000

void watch_fd(struct watches *w, int fd, short events,
	      void (*fn)(struct guest *, void *, int, short), void *arg, int which)
{
	if (w->n == w->cap) {
		w->cap = MAX(w->cap * 2, (size_t)32);
		w->fds = xreallocarray(w->fds, w->cap, sizeof(*w->fds));
		w->watch = xreallocarray(w->watch, w->cap, sizeof(*w->watch));
	}
	w->fds[w->n] = (struct pollfd){.fd = fd, .events = events};
	w->watch[w->n++] = (struct watch){.fn = fn, .arg = arg, .which = which};
}

void watch_until(struct watches *w, uint64_t at_ms)
{
	w->until = MIN(w->until, at_ms);
}

void agent_send(struct guest *g, uint32_t id, const char *verb, const struct buf *more)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", verb);
	if (more && buf_len(more))
		buf_add(&b, buf_head(more), buf_len(more));
	frame_write(&g->out, &(struct frame){.type = FRAME_MESSAGE,
					     .id = id,
					     .len = (uint32_t)buf_len(&b),
					     .payload = buf_head(&b)});
}

static void send_text(struct guest *g, uint32_t id, const char *verb, const char *text)
{
	_cleanup_buf_ struct buf more = BUF_INIT;
	kv_adds(&more, "text", text);
	agent_send(g, id, verb, &more);
}

void agent_send_error(struct guest *g, uint32_t id, const struct err *err)
{
	_cleanup_buf_ struct buf more = BUF_INIT;
	kv_addu(&more, "code", (uint64_t)err->code);
	kv_adds(&more, "text", err->text);
	agent_send(g, id, "error", &more);
}

void agent_log(struct guest *g, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (g->init != INIT_NONE)
		fprintf(stderr, "vse-guest: %s\n", text);
	if (g->set_up && buf_len(&g->out) < GUEST_OUT_MAX)
		send_text(g, 0, "log", text);
	else if (!g->set_up && g->early_log.n < EARLY_LINES)
		strvec_add(&g->early_log, text);
}

static uint64_t uptime_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void greet(struct guest *g)
{
	_cleanup_buf_ struct buf more = BUF_INIT;
	_cleanup_free_ char *boot = NULL;
	/* Once: a clone shows its programs another one (guest/setup.c), and is no other guest for that. */
	if (!g->boot[0] && path_read("/proc/sys/kernel/random/boot_id", 64, &boot, NULL, NULL) == 0)
		snprintf(g->boot, sizeof(g->boot), "%.*s", (int)strcspn(boot, "\n"), boot);
	kv_addu(&more, "version", GUESTPROTO_VERSION);
	kv_adds(&more, "boot", g->boot[0] ? g->boot : "unknown");
	kv_addu(&more, "uptime_ms", uptime_ms());
	agent_send(g, 0, "hello", &more);
	g->greeted = true;
}

static void forget_host(struct guest *g)
{
	request_abandon_all(g);
	buf_finish(&g->in);
	buf_finish(&g->out);
	g->greeted = g->set_up = g->want_ready = false;
	g->mute_until = 0;
}

static void host_gone(struct guest *g)
{
	forget_host(g);
	channel_down(&g->channel, time_mono_ms());
	if (g->channel.kind == CHANNEL_STDIO) {
		g->channel.retry_at = UINT64_MAX;
		g->quit = true;
	}
}

static void nonsense(struct guest *g, const char *what)
{
	forget_host(g);
	agent_log(g, "nonsense on the host's channel: %s", what);
	g->mute_until = time_mono_ms() + MUTE_MS;
	if (g->channel.kind == CHANNEL_STDIO)
		g->quit = g->failed = true;
}

static void on_setup(struct guest *g, const char *data, size_t len)
{
	struct err err = ERR_INIT;
	bool ok = setup_apply(g, data, len, &err) == 0;
	channel_proven(&g->channel);
	g->set_up = true;
	for (size_t i = 0; i < g->early_log.n; i++)
		send_text(g, 0, "log", g->early_log.v[i]);
	strvec_finish(&g->early_log);
	if (!ok) {
		send_text(g, 0, "failed", err.text);
		return;
	}
	g->want_ready = true;
	g->ready_by = time_mono_ms() +
		      (g->init == INIT_SYSTEMD ? READY_WAIT_SYSTEMD_MS : READY_WAIT_SSH_MS);
}

static void on_stats(struct guest *g, uint32_t id)
{
	_cleanup_buf_ struct buf more = BUF_INIT;
	struct sysinfo s;
	char load[24];
	if (sysinfo(&s) < 0)
		memset(&s, 0, sizeof(s));
	snprintf(load, sizeof(load), "%.2f", (double)s.loads[0] / 65536);
	kv_addu(&more, "uptime_ms", uptime_ms());
	kv_adds(&more, "load1", load);
	kv_addu(&more, "mem_total", (uint64_t)s.totalram * s.mem_unit);
	kv_addu(&more, "mem_free", (uint64_t)s.freeram * s.mem_unit);
	kv_addu(&more, "procs", s.procs);
	agent_send(g, id, "stats", &more);
}

static void on_shutdown(struct guest *g, const char *data, size_t len)
{
	_cleanup_free_ char *how = kv_dup(data, len, "how");
	power_down(g, how && strcmp(how, "reboot") == 0 ? "reboot" : "poweroff");
}

static void on_request(struct guest *g, const struct frame *f, const char *verb)
{
	struct err err = ERR_INIT;
	struct request *r = request_find(g, f->id);
	const char *d = f->payload;
	if (strcmp(verb, "exec") == 0)
		exec_start(g, f->id, d, f->len);
	else if (strcmp(verb, "put") == 0)
		copy_put(g, f->id, d, f->len);
	else if (strcmp(verb, "get") == 0)
		copy_get(g, f->id, d, f->len);
	else if (strcmp(verb, "signal") == 0 || strcmp(verb, "resize") == 0 ||
		 strcmp(verb, "cancel") == 0) {
		if (!r) /* it ended while the message was under way */
			return;
		if (*verb == 'c' && r->kind != REQUEST_EXEC)
			copy_cancel(g, r);
		else if (r->kind != REQUEST_EXEC)
			return;
		else if (*verb == 'c')
			exec_cancel(r);
		else if (*verb == 's')
			exec_signal(g, r, (int)kv_num(d, f->len, "signal", 0) & 0xff);
		else
			exec_resize(r, (unsigned)kv_num(d, f->len, "rows", 0),
				    (unsigned)kv_num(d, f->len, "cols", 0));
	} else {
		err_set(&err, ENOSYS, "this guest agent knows no '%.32s'", verb);
		agent_send_error(g, f->id, &err);
	}
}

static void on_message(struct guest *g, const struct frame *f)
{
	if (!kv_check(f->payload, f->len)) {
		nonsense(g, "a message that is not one");
		return;
	}
	_cleanup_free_ char *verb = kv_dup(f->payload, f->len, "verb");
	if (!verb)
		verb = xstrdup("");
	if (strcmp(verb, "ping") == 0)
		agent_send(g, f->id, "pong", NULL);
	else if (strcmp(verb, "stats") == 0)
		on_stats(g, f->id);
	else if (f->id)
		on_request(g, f, verb);
	else if (strcmp(verb, "setup") == 0)
		on_setup(g, f->payload, f->len);
	else if (strcmp(verb, "time") == 0)
		setup_time(g, kv_num(f->payload, f->len, "time_ns", 0));
	else if (strcmp(verb, "shutdown") == 0)
		on_shutdown(g, f->payload, f->len);
	else
		agent_log(g, "the host sent an unknown '%.32s'", verb);
}

static void handle_frames(struct guest *g)
{
	struct frame f;
	struct err err = ERR_INIT;
	int code = 0;
	while (!g->quit && !g->mute_until && buf_len(&g->out) < GUEST_OUT_MAX &&
	       (code = frame_read(&g->in, FRAME_MAX_GUEST, &f, &err)) > 0) {
		if (f.type == FRAME_MESSAGE)
			on_message(g, &f);
		else
			request_frame(g, &f);
		if (buf_len(&g->in)) /* else: all was forgotten */
			frame_drop(&g->in, &f);
	}
	if (code < 0)
		nonsense(g, err.text);
}

static void read_channel(struct guest *g)
{
	buf_reserve(&g->in, 2 * GUEST_BLOCK);
	ssize_t n = channel_read(&g->channel, g->in.data + g->in.end, 2 * GUEST_BLOCK);
	if (n < 0) {
		host_gone(g);
	} else if (n > 0 && g->mute_until) {
		g->mute_until = time_mono_ms() + MUTE_MS;
	} else if (n > 0) {
		g->in.end += (size_t)n;
		handle_frames(g);
	}
}

static void flush_channel(struct guest *g)
{
	while (g->channel.up && buf_len(&g->out)) {
		ssize_t n = channel_write(&g->channel, buf_head(&g->out),
					  MIN(buf_len(&g->out), (size_t)GUEST_BLOCK));
		if (n < 0)
			host_gone(g);
		if (n <= 0)
			return;
		buf_consume(&g->out, (size_t)n);
	}
}

void agent_flush(struct guest *g, unsigned ms)
{
	uint64_t until = time_mono_ms() + ms, now;
	for (;;) {
		flush_channel(g);
		if (!g->channel.up || !buf_len(&g->out) || (now = time_mono_ms()) >= until)
			return;
		struct pollfd p = {.fd = g->channel.out, .events = POLLOUT};
		poll(&p, 1, (int)(until - now));
	}
}

static void on_channel(struct guest *g, void *arg _unused_, int which, short revents)
{
	if (which == 0 && (revents & (POLLIN | POLLHUP | POLLERR)))
		read_channel(g);
	/* Writing is tried at the end of every round. */
}

static void watch_channel(struct guest *g, struct watches *w)
{
	struct channel *c = &g->channel;
	if (!c->up) {
		watch_until(w, c->retry_at);
		return;
	}
	bool room = buf_len(&g->out) < GUEST_OUT_MAX;
	short out = buf_len(&g->out) ? POLLOUT : 0;
	if (c->in == c->out) {
		watch_fd(w, c->in, (short)((room ? POLLIN : 0) | out), on_channel, NULL, 0);
	} else {
		watch_fd(w, c->in, room ? POLLIN : 0, on_channel, NULL, 0);
		if (out)
			watch_fd(w, c->out, out, on_channel, NULL, 1);
	}
	if (g->mute_until)
		watch_until(w, g->mute_until);
	if (c->prove_by)
		watch_until(w, c->prove_by);
}

static void reap(struct guest *g)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (!request_child(g, pid, status))
			ssh_child(g, pid, status);
}

static void on_signal(struct guest *g, void *arg, int which _unused_, short revents _unused_)
{
	struct signalfd_siginfo s;
	int fd = *(int *)arg;
	while (read(fd, &s, sizeof(s)) == sizeof(s)) {
		int n = (int)s.ssi_signo;
		if (n == SIGCHLD)
			reap(g);
		else if (g->init == INIT_SYSTEMD)
			g->quit = true; /* systemd stops us: the system goes down */
		/* How the kernel (Ctrl-Alt-Del is SIGINT), busybox and systemctl ask process 1. */
		else if (n == SIGUSR1 || n == SIGUSR2 || n == SIGPWR || n == SIGRTMIN + 4)
			power_down(g, "poweroff");
		else if (n == SIGINT || n == SIGTERM || n == SIGRTMIN + 5)
			power_down(g, "reboot");
	}
}

static int open_signals(const struct guest *g)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (g->init != INIT_NONE)
		sigaddset(&set, SIGTERM);
	if (g->init == INIT_VSE) {
		static const int more[] = {SIGINT, SIGUSR1, SIGUSR2, SIGPWR, SIGHUP, SIGQUIT};
		for (size_t i = 0; i < ARRAY_SIZE(more); i++)
			sigaddset(&set, more[i]);
		sigaddset(&set, SIGRTMIN + 4);
		sigaddset(&set, SIGRTMIN + 5);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* A program takes up to three descriptors of ours. */
static size_t request_bound(void)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return 64;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
	size_t n = r.rlim_max == RLIM_INFINITY || r.rlim_max > 1 << 20 ? 1 << 20 : (size_t)r.rlim_max;
	return n < 256 ? 16 : MIN((size_t)MAX_REQUESTS, (n - 192) / 3);
}

static void tick_ready(struct guest *g, uint64_t now)
{
	if (!g->want_ready)
		return;
	bool late = now >= g->ready_by;
	bool is = g->init == INIT_NONE || (g->init == INIT_VSE && ssh_up(g)) ||
		  (g->init == INIT_SYSTEMD && g->system_up && g->keygen <= 0);
	if (!is && !late)
		return;
	if (!is)
		agent_log(g, "%s is still not up: going on", g->init == INIT_VSE ? "sshd" : "systemd");
	_cleanup_buf_ struct buf more = BUF_INIT;
	kv_addu(&more, "uptime_ms", uptime_ms());
	agent_send(g, 0, "ready", &more);
	g->want_ready = false;
}

static void tick(struct guest *g)
{
	uint64_t now = time_mono_ms();
	if (g->mute_until && now >= g->mute_until) {
		g->mute_until = 0;
		g->greeted = false;
	}
	if (channel_doubted(&g->channel, now)) {
		host_gone(g);
		agent_log(g,
			  "nothing of the host's is understood: its terminal is opened once more");
	}
	if (channel_try(&g->channel, now) && !g->greeted && !g->mute_until)
		greet(g);
	if (buf_len(&g->in))
		handle_frames(g);
	request_tick(g, now);
	ssh_tick(g, now);
	systemd_tick(g, now);
	tick_ready(g, now);
	request_sweep(g);
	flush_channel(g);
}

static void wait_round(struct guest *g, struct watches *w, int *signals)
{
	w->n = 0;
	w->until = UINT64_MAX;
	watch_fd(w, *signals, POLLIN, on_signal, signals, 0);
	watch_channel(g, w);
	request_watch(g, w);
	ssh_watch(g, w);
	systemd_watch(g, w);
	if (g->want_ready)
		watch_until(w, g->ready_by);
	uint64_t now = time_mono_ms();
	/* Asleep without a bound, a wake-up that the port's driver lost would be the end: a VM has been seen to wait for
	 * ever after its hello. Once it is ready, whoever wants something of it asks again. */
	if (g->greeted && (!g->set_up || g->want_ready))
		watch_until(w, now + LOOK_MS);
	int ms = w->until == UINT64_MAX ? -1
		 : w->until <= now      ? 0
					: (int)MIN(w->until - now, (uint64_t)60000);
	if (poll(w->fds, w->n, ms) <= 0)
		return;
	for (size_t i = 0; i < w->n; i++)
		if (w->fds[i].revents)
			w->watch[i].fn(g, w->watch[i].arg, w->watch[i].which, w->fds[i].revents);
}

static void terminate_one(struct guest *g, struct request *r, void *arg _unused_)
{
	if (r->kind == REQUEST_EXEC)
		exec_signal(g, r, SIGTERM);
}

/* We have to go, or (--stdio) the host is gone: programs get the time to end that they were promised. */
static void drain(struct guest *g, struct watches *w, int *signals)
{
	channel_down(&g->channel, 0);
	g->channel.retry_at = UINT64_MAX;
	if (g->init == INIT_SYSTEMD)
		request_each(g, terminate_one, NULL);
	request_abandon_all(g);
	while (g->n_requests) {
		request_tick(g, time_mono_ms());
		request_sweep(g);
		if (g->n_requests)
			wait_round(g, w, signals);
	}
}

int agent_run(struct guest *g)
{
	struct watches w = {0};
	int signals = open_signals(g);
	g->max_requests = request_bound();
	if (signals < 0)
		return 1;
	if (g->init == INIT_SYSTEMD)
		systemd_begin(g);
	tick(g);
	while (!g->quit) {
		wait_round(g, &w, &signals);
		tick(g);
	}
	if (g->init == INIT_SYSTEMD)
		power_bye(g, systemd_reboots() ? "reboot" : "poweroff");
	drain(g, &w, &signals);
	free(w.fds);
	free(w.watch);
	strvec_finish(&g->env);
	strvec_finish(&g->early_log);
	buf_finish(&g->in);
	buf_finish(&g->out);
	close(signals);
	return g->failed ? 1 : 0;
}
