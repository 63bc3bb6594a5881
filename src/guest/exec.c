/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "base/alloc.h"
#include "base/time.h"
#include "guest/request.h"
#include "guest/spawn.h"
#include "wire/kv.h"

#define ARGS_MAX 4096
#define KILLED UINT64_MAX /* as kill_at: SIGKILL was sent */

static void add_text(struct strvec *v, const struct kv *e)
{
	strvec_take(v, xmemdup0(e->value, e->value_len));
}

static void base_environment(struct guest *g, struct spawn *s)
{
	spawn_env(&s->env, "PATH=" SPAWN_PATH);
	strvec_addf(&s->env, "HOME=%s", s->user.home);
	strvec_addf(&s->env, "USER=%s", s->user.name);
	strvec_addf(&s->env, "LOGNAME=%s", s->user.name);
	strvec_addf(&s->env, "SHELL=%s", s->user.shell);
	if (s->tty)
		strvec_add(&s->env, "TERM=linux");
	for (size_t i = 0; i < g->env.n; i++)
		spawn_env(&s->env, g->env.v[i]);
}

static int parse_user(struct guest *g, const char *data, size_t len, struct user *u, struct err *err)
{
	_cleanup_free_ char *who = kv_dup(data, len, "user");
	if (!who)
		who = xasprintf("%u", g->init == INIT_NONE ? (unsigned)geteuid() : 0u);
	return user_find(who, u, err);
}

static int parse_exec(struct guest *g, const char *data, size_t len, struct spawn *s, struct err *err)
{
	struct kv_iter it = {.data = data, .len = len};
	struct kv e;
	s->tty = kv_num(data, len, "tty", 0);
	s->in = kv_num(data, len, "stdin", 0);
	s->rows = (unsigned)kv_num(data, len, "rows", 24) & 0xffff;
	s->cols = (unsigned)kv_num(data, len, "cols", 80) & 0xffff;
	s->cwd = kv_dup(data, len, "cwd");
	s->forget_oom = g->init == INIT_SYSTEMD;
	if (parse_user(g, data, len, &s->user, err) < 0)
		return -1;
	base_environment(g, s);
	while (kv_next(&it, &e)) {
		bool arg = kv_is(&e, "arg");
		if (!arg && !kv_is(&e, "env"))
			continue;
		if (memchr(e.value, 0, e.value_len))
			return err_set(err, EINVAL, "a NUL byte in an argument or a variable");
		if (arg) {
			add_text(&s->argv, &e);
		} else if (memchr(e.value, '=', e.value_len)) {
			_cleanup_free_ char *v = xmemdup0(e.value, e.value_len);
			spawn_env(&s->env, v);
		}
	}
	if (s->argv.n == 0 || s->argv.n > ARGS_MAX || !s->argv.v[0][0])
		return err_set(err, EINVAL, "a program needs a name and at most %d arguments", ARGS_MAX);
	return 0;
}

static void init_exec(struct request *r, uint64_t window, bool tty)
{
	r->credit[1] = r->credit[2] = window;
	r->exec.tty = tty;
	for (int i = 0; i < 3; i++) {
		r->exec.fd[i] = -1;
		r->exec.drain[i] = -1;
	}
}

void exec_start(struct guest *g, uint32_t id, const char *data, size_t len)
{
	struct spawn s = {0};
	struct err err = ERR_INIT;
	struct request *r = NULL;
	if (parse_exec(g, data, len, &s, &err) < 0 || !(r = request_new(g, id, REQUEST_EXEC, &err))) {
		agent_send_error(g, id, &err);
		spawn_finish(&s);
		return;
	}
	init_exec(r, kv_num(data, len, "window", GUEST_BLOCK), s.tty);
	if (spawn_start(&s, &r->exec.pid, r->exec.fd, &err) < 0) {
		request_fail(g, r, &err);
	} else {
		_cleanup_buf_ struct buf more = BUF_INIT;
		kv_addu(&more, "pid", (uint64_t)r->exec.pid);
		agent_send(g, id, "started", &more);
	}
	r->exec.in_cut = !s.in;
	r->exec.end_sent[2] = s.tty;
	spawn_finish(&s);
}

static void signal_group(const struct exec *x, int signal)
{
	if (x->pid > 1)
		kill(-x->pid, signal);
}

static bool group_alive(const struct exec *x)
{
	return x->pid > 1 && kill(-x->pid, 0) == 0;
}

static void close_fd(struct exec *x, int i)
{
	if (x->fd[i] >= 0)
		close(TAKE_FD(x->fd[i]));
}

/* stdin: the rest of what came is dropped. */
static void cut_input(struct guest *g, struct request *r)
{
	struct exec *x = &r->exec;
	x->in_cut = true;
	request_taken(g, r, buf_len(&x->in));
	buf_finish(&x->in);
	close_fd(x, 0);
}

static int input_fd(const struct exec *x)
{
	return x->tty ? x->fd[1] : x->fd[0];
}

static void flush_input(struct guest *g, struct request *r)
{
	struct exec *x = &r->exec;
	if (x->in_cut)
		return;
	while (buf_len(&x->in)) {
		ssize_t n = write(input_fd(x), buf_head(&x->in), buf_len(&x->in));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			cut_input(g, r);
			return;
		}
		buf_consume(&x->in, (size_t)n);
		request_taken(g, r, (size_t)n);
	}
	if (x->in_end)
		cut_input(g, r);
}

void exec_data(struct guest *g, struct request *r, const struct frame *f)
{
	struct exec *x = &r->exec;
	if (x->in_cut || x->in_end) {
		request_taken(g, r, f->len);
		return;
	}
	buf_add(&x->in, f->payload, f->len);
	if (f->flags & FRAME_EOF) {
		x->in_end = true;
		/* A terminal has no end but the character that means it. */
		if (x->tty)
			buf_addc(&x->in, 4);
	}
	flush_input(g, r);
}

void exec_signal(struct guest *g _unused_, struct request *r, int signal)
{
	if (signal >= 1 && signal < NSIG)
		signal_group(&r->exec, signal);
}

void exec_resize(struct request *r, unsigned rows, unsigned cols)
{
	struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols};
	if (r->exec.tty && r->exec.fd[1] >= 0)
		ioctl(r->exec.fd[1], TIOCSWINSZ, &size);
}

void exec_cancel(struct request *r)
{
	if (r->exec.kill_at)
		return;
	signal_group(&r->exec, SIGHUP);
	signal_group(&r->exec, SIGCONT);
	r->exec.kill_at = time_mono_ms() + GUEST_GRACE_MS;
}

void exec_abandon(struct request *r)
{
	exec_cancel(r);
	r->id = 0;
	for (int i = 0; i < 3; i++)
		close_fd(&r->exec, i);
	buf_finish(&r->exec.in);
}

static void end_output(struct guest *g, struct request *r, int i)
{
	close_fd(&r->exec, i);
	if (!r->exec.end_sent[i])
		frame_write_data(&g->out, r->id, 0, i, NULL, 0, true);
	r->exec.end_sent[i] = true;
}

static void read_output(struct guest *g, struct request *r, int i)
{
	struct exec *x = &r->exec;
	char block[GUEST_BLOCK];
	uint64_t max = MIN((uint64_t)sizeof(block), r->credit[i]);
	if (x->drain[i] >= 0)
		max = MIN(max, (uint64_t)x->drain[i]);
	if (!max || x->fd[i] < 0)
		return;
	ssize_t n = read(x->fd[i], block, max);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* a terminal whose last user is gone gives EIO */
		end_output(g, r, i);
		return;
	}
	frame_write_data(&g->out, r->id, 0, i, block, (size_t)n, false);
	r->credit[i] -= (uint64_t)n;
	if (x->drain[i] >= 0 && (x->drain[i] -= n) == 0)
		end_output(g, r, i);
}

static void on_fd(struct guest *g, void *arg, int which, short revents)
{
	struct request *r = arg;
	if (r->over || !r->id)
		return;
	if (which == 0 || (revents & POLLOUT))
		flush_input(g, r);
	if (which > 0 && (revents & (POLLIN | POLLHUP | POLLERR)) && buf_len(&g->out) < GUEST_OUT_HIGH)
		read_output(g, r, which);
}

void exec_watch(struct guest *g, struct request *r, struct watches *w)
{
	struct exec *x = &r->exec;
	bool room = buf_len(&g->out) < GUEST_OUT_HIGH;
	short in = buf_len(&x->in) && !x->in_cut ? POLLOUT : 0;
	if (in && !x->tty)
		watch_fd(w, x->fd[0], POLLOUT, on_fd, r, 0);
	for (int i = 1; i < 3; i++) {
		short events = (short)((room && r->credit[i] ? POLLIN : 0) |
				       (x->tty && i == 1 ? in : 0));
		if (x->fd[i] >= 0 && events)
			watch_fd(w, x->fd[i], events, on_fd, r, i);
	}
	if (x->kill_at)
		watch_until(w, x->kill_at);
	if (x->cut_at && (x->fd[1] >= 0 || x->fd[2] >= 0) && x->drain[1] < 0 && x->drain[2] < 0)
		watch_until(w, x->cut_at);
}

void exec_exited(struct guest *g, struct request *r, int status)
{
	struct exec *x = &r->exec;
	x->exited = true;
	x->status = status;
	x->cut_at = time_mono_ms() + GUEST_LINGER_MS;
	if (r->id && !x->in_cut && !x->tty)
		cut_input(g, r);
}

static void send_exit(struct guest *g, struct request *r)
{
	_cleanup_buf_ struct buf more = BUF_INIT;
	struct exec *x = &r->exec;
	if (WIFSIGNALED(x->status))
		kv_addu(&more, "signal", (uint64_t)WTERMSIG(x->status));
	else
		kv_addu(&more, "code", (uint64_t)WEXITSTATUS(x->status));
	agent_send(g, r->id, "exit", &more);
	if (x->kill_at && x->kill_at != KILLED && group_alive(x))
		exec_abandon(r); /* a cancelled program's children still have to end */
	else
		r->over = true;
}

/* The program ended: what is in its pipes is still sent, at the host's pace, but what its children in the
 * background add later is not. */
static void tick_output(struct guest *g, struct request *r, int i, uint64_t now)
{
	struct exec *x = &r->exec;
	int waiting = 0;
	if (x->fd[i] < 0)
		return;
	if (x->drain[i] < 0 && now >= x->cut_at) {
		x->drain[i] = ioctl(x->fd[i], FIONREAD, &waiting) == 0 ? waiting : 0;
		if (x->drain[i] == 0)
			end_output(g, r, i);
		return;
	}
	struct pollfd p = {.fd = x->fd[i], .events = POLLIN};
	if (r->credit[i] == 0 && poll(&p, 1, 0) == 1 && !(p.revents & POLLIN))
		end_output(g, r, i);
}

void exec_tick(struct guest *g, struct request *r, uint64_t now)
{
	struct exec *x = &r->exec;
	if (x->kill_at && now >= x->kill_at) {
		signal_group(x, SIGKILL);
		x->kill_at = KILLED;
	}
	if (!r->id) {
		r->over = x->exited && (x->kill_at == KILLED || !group_alive(x));
		return;
	}
	if (!x->exited)
		return;
	tick_output(g, r, 1, now);
	tick_output(g, r, 2, now);
	if (x->fd[1] < 0 && x->fd[2] < 0)
		send_exit(g, r);
}

void exec_finish(struct request *r)
{
	for (int i = 0; i < 3; i++)
		close_fd(&r->exec, i);
	buf_finish(&r->exec.in);
}
