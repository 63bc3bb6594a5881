/* SPDX-License-Identifier: Apache-2.0 */
#include "guest-client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/time.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

#define BLOCK 32768

static void begin(struct client *c, int fd, pid_t pid)
{
	*c = (struct client){.fd = fd, .pid = pid, .next_id = 1};
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

int client_spawn(struct client *c, const char *guest)
{
	int s[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		dup2(s[1], 0);
		dup2(s[1], 1);
		execl(guest, guest, "--stdio", (char *)NULL);
		_exit(127);
	}
	close(s[1]);
	begin(c, s[0], pid);
	return pid < 0 ? -1 : 0;
}

int client_connect(struct client *c, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		close(fd);
		return -1;
	}
	begin(c, fd, 0);
	return 0;
}

static int wait_end(pid_t pid)
{
	uint64_t until = time_mono_ms() + CLIENT_WAIT_MS;
	int status;
	while (time_mono_ms() < until) {
		pid_t r = waitpid(pid, &status, WNOHANG);
		if (r == pid)
			return status;
		if (r < 0)
			return -1;
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

int client_close_and_wait(struct client *c)
{
	if (c->fd >= 0)
		close(TAKE_FD(c->fd));
	int status = c->pid > 0 ? wait_end(c->pid) : 0;
	c->pid = 0;
	return status;
}

void client_forget(struct client *c, struct job *j)
{
	for (struct job **p = &c->jobs; *p; p = &(*p)->next)
		if (*p == j) {
			*p = j->next;
			break;
		}
	for (int i = 0; i < 3; i++)
		buf_finish(&j->out[i]);
	free(j);
}

void client_finish(struct client *c)
{
	client_close_and_wait(c);
	while (c->jobs)
		client_forget(c, c->jobs);
	buf_finish(&c->in);
	buf_finish(&c->out);
	buf_finish(&c->stats);
}

static struct job *find(struct client *c, uint32_t id)
{
	for (struct job *j = c->jobs; j; j = j->next)
		if (j->id == id)
			return j;
	return NULL;
}

static void wrong(struct client *c, const char *what, uint32_t id)
{
	if (!c->wrong[0])
		snprintf(c->wrong, sizeof(c->wrong), "%s (request %u)", what, id);
}

static void on_data(struct client *c, const struct frame *f)
{
	struct job *j = find(c, f->id);
	if (!j || f->fd == 0 || j->end[f->fd] || j->ended) {
		wrong(c, "data that nobody waits for", f->id);
		return;
	}
	if (f->len > j->allowed[f->fd]) {
		wrong(c, "more output than its window", f->id);
		return;
	}
	j->allowed[f->fd] -= f->len;
	j->got[f->fd] += f->len;
	if (!j->discard)
		buf_add(&j->out[f->fd], f->payload, f->len);
	if (f->flags & FRAME_EOF) {
		j->end[f->fd] = true;
	} else if (!j->hold && f->len) {
		frame_write_credit(&c->out, f->id, 0, f->fd, f->len);
		j->allowed[f->fd] += f->len;
	}
}

static void copy_text(char *to, size_t n, const struct frame *f, const char *key)
{
	_cleanup_free_ char *s = kv_dup(f->payload, f->len, key);
	snprintf(to, n, "%s", s ? s : "");
}

static void on_answer(struct client *c, struct job *j, const struct frame *f, const char *verb)
{
	if (j->ended) {
		wrong(c, "an answer after the last one", f->id);
		return;
	}
	if (strcmp(verb, "started") == 0) {
		j->started = true;
		j->pid = (pid_t)kv_num(f->payload, f->len, "pid", 0);
		return;
	}
	j->ended = true;
	copy_text(j->text, sizeof(j->text), f, "text");
	if (strcmp(verb, "exit") == 0) {
		j->code = (int)kv_num(f->payload, f->len, "code", UINT32_MAX);
		j->signal = (int)kv_num(f->payload, f->len, "signal", UINT32_MAX);
		if (!j->end[1])
			wrong(c, "exit before the end of output", f->id);
	} else if (strcmp(verb, "error") == 0) {
		j->error = (int)kv_num(f->payload, f->len, "code", EIO);
	} else if (strcmp(verb, "done") == 0) {
		j->done = true;
		j->files = kv_num(f->payload, f->len, "files", 0);
		j->bytes = kv_num(f->payload, f->len, "bytes", 0);
	} else {
		wrong(c, "an unknown answer", f->id);
	}
}

static void on_message(struct client *c, const struct frame *f)
{
	_cleanup_free_ char *verb = kv_check(f->payload, f->len) ? kv_dup(f->payload, f->len, "verb")
								 : NULL;
	struct job *j = find(c, f->id);
	if (!verb)
		wrong(c, "a bad message", f->id);
	else if (strcmp(verb, "hello") == 0)
		c->hellos++;
	else if (strcmp(verb, "ready") == 0)
		c->readies++;
	else if (strcmp(verb, "pong") == 0)
		c->pongs++;
	else if (strcmp(verb, "bye") == 0)
		c->byes++;
	else if (strcmp(verb, "failed") == 0)
		copy_text(c->failed, sizeof(c->failed), f, "text");
	else if (strcmp(verb, "log") == 0) {
		c->logs++;
		copy_text(c->last_log, sizeof(c->last_log), f, "text");
		printf("# guest log: %s\n", c->last_log);
	} else if (strcmp(verb, "stats") == 0) {
		buf_clear(&c->stats);
		buf_add(&c->stats, f->payload, f->len);
	} else if (j)
		on_answer(c, j, f, verb);
	else
		wrong(c, "an answer that nobody waits for", f->id);
}

static void take(struct client *c)
{
	struct frame f;
	struct err err;
	int code;
	while ((code = frame_read(&c->in, FRAME_MAX_GUEST, &f, &err)) > 0) {
		struct job *j = find(c, f.id);
		if (f.type == FRAME_MESSAGE)
			on_message(c, &f);
		else if (f.type == FRAME_DATA)
			on_data(c, &f);
		else if (j && f.fd == 0)
			j->in_credit += frame_credit(&f);
		frame_drop(&c->in, &f);
	}
	if (code < 0)
		wrong(c, err.text, 0);
}

static void feed(struct client *c)
{
	for (struct job *j = c->jobs; j; j = j->next)
		while (!j->ended && (j->in_left || j->in_end) && buf_len(&c->out) < 8 * BLOCK) {
			size_t n = MIN(MIN(j->in_left, (size_t)BLOCK), (size_t)j->in_credit);
			bool end = j->in_end && n == j->in_left;
			if (!n && !end)
				break;
			frame_write_data(&c->out, j->id, 0, 0, j->in, n, end);
			j->in += n;
			j->in_left -= n;
			j->in_credit -= n;
			j->in_sent += n;
			j->in_end = j->in_end && !end;
		}
}

bool client_pump(struct client *c, int ms)
{
	if (c->closed || c->fd < 0)
		return false;
	feed(c);
	struct pollfd p = {.fd = c->fd, .events = (short)(POLLIN | (buf_len(&c->out) ? POLLOUT : 0))};
	if (poll(&p, 1, ms) <= 0)
		return false;
	if (p.revents & POLLOUT) {
		ssize_t n = send(c->fd, buf_head(&c->out), buf_len(&c->out), MSG_NOSIGNAL);
		if (n > 0)
			buf_consume(&c->out, (size_t)n);
	}
	if (p.revents & (POLLIN | POLLHUP)) {
		buf_reserve(&c->in, 4 * BLOCK);
		ssize_t n = read(c->fd, c->in.data + c->in.end, 4 * BLOCK);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			c->closed = true;
		if (n > 0) {
			c->in.end += (size_t)n;
			take(c);
		}
	}
	return true;
}

static void write_message(struct client *c, uint32_t id, const struct buf *b)
{
	frame_write(&c->out, &(struct frame){.type = FRAME_MESSAGE,
					     .id = id,
					     .len = (uint32_t)buf_len(b),
					     .payload = buf_head(b)});
}

static void add_pairs(struct buf *b, const char *const *kv)
{
	for (; kv && kv[0]; kv += 2)
		kv_adds(b, kv[0], kv[1]);
}

void client_verb(struct client *c, uint32_t id, const char *verb, const char *const *kv)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", verb);
	add_pairs(&b, kv);
	write_message(c, id, &b);
}

static struct job *new_job(struct client *c, uint32_t window)
{
	struct job *j = xcalloc(1, sizeof(*j));
	j->id = c->next_id++;
	j->allowed[1] = j->allowed[2] = window;
	j->in_credit = GUESTPROTO_STDIN_WINDOW;
	j->code = j->signal = -1;
	j->next = c->jobs;
	c->jobs = j;
	return j;
}

struct job *client_exec(struct client *c, const char *const *argv, uint32_t window,
			const char *const *more)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct job *j = new_job(c, window);
	kv_adds(&b, "verb", "exec");
	for (; *argv; argv++)
		kv_adds(&b, "arg", *argv);
	kv_addu(&b, "window", window);
	add_pairs(&b, more);
	write_message(c, j->id, &b);
	return j;
}

struct job *client_put(struct client *c, const char *path, bool into, const void *archive, size_t len)
{
	struct job *j = new_job(c, 0);
	client_verb(c, j->id, "put",
		    (const char *const[]){"path", path, "into", into ? "1" : "0", NULL});
	client_input(j, archive, len, true);
	return j;
}

struct job *client_get(struct client *c, const char *path, uint32_t window)
{
	struct job *j = new_job(c, window);
	char w[16];
	snprintf(w, sizeof(w), "%u", window);
	client_verb(c, j->id, "get", (const char *const[]){"path", path, "window", w, NULL});
	return j;
}

void client_input(struct job *j, const char *data, size_t len, bool end)
{
	j->in = data;
	j->in_left = len;
	j->in_end = end;
}

static bool pump_until(struct client *c, const bool *flag, const unsigned *counter, unsigned at_least)
{
	uint64_t until = time_mono_ms() + CLIENT_WAIT_MS;
	while (flag ? !*flag : *counter < at_least) {
		if (c->closed || time_mono_ms() > until)
			return false;
		client_pump(c, 1000);
	}
	return true;
}

bool client_wait(struct client *c, struct job *j)
{
	return pump_until(c, &j->ended, NULL, 0);
}

bool client_until(struct client *c, const unsigned *counter, unsigned at_least)
{
	return pump_until(c, NULL, counter, at_least);
}

void client_setup(struct client *c, const char *const *kv)
{
	unsigned before = c->readies;
	client_verb(c, 0, "setup", kv);
	uint64_t until = time_mono_ms() + 4 * CLIENT_WAIT_MS;
	while (c->readies == before && !c->failed[0] && !c->closed && time_mono_ms() < until)
		client_pump(c, 1000);
}
