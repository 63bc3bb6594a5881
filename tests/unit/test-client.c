/* SPDX-License-Identifier: Apache-2.0 */
/* The front end's side of a connection: how calls end when they cannot be sent, when the agent dies, and when it is
 * somebody else's. The agent is played by a child process. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "client/client.h"
#include "io/listener.h"
#include "tap.h"
#include "wire/message.h"

#define STRANGER 65534

static char *home;

static int say_ok(int fd, uint32_t id)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_json_ json_t *ok = json_pack("{s:b}", "ok", 1);
	message_write(&out, id, 0, ok, NULL);
	return fd_write_all(fd, buf_head(&out), buf_len(&out));
}

/* Answers every request but {"verb": "die"}: there it ends. */
static void serve(int fd)
{
	_cleanup_buf_ struct buf in = BUF_INIT;
	struct frame f;
	char chunk[4096];
	ssize_t n;
	while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
		buf_add(&in, chunk, (size_t)n);
		while (frame_read(&in, FRAME_MAX_MESSAGE, &f, NULL) == 1) {
			_cleanup_json_ json_t *j = message_read(&f, NULL);
			const char *verb = json_string_value(json_object_get(j, "verb"));
			if (!verb || strcmp(verb, "die") == 0 || say_ok(fd, f.id) < 0)
				return;
			frame_drop(&in, &f);
		}
	}
}

/* An agent for one connection to home/NAME/sock, of this user or as `uid`. */
static pid_t agent(const char *name, uid_t uid)
{
	_cleanup_free_ char *dir = path_join(home, name), *sock = path_join(dir, "sock");
	int fd = -1, ready[2];
	char c;
	if (mkdir(dir, 0700) < 0 || unix_listen(sock, &fd, NULL) < 0 || pipe(ready) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The kernel notes who listens, not who made the socket. */
		if (uid != geteuid() && (setresuid(uid, uid, uid) < 0 || listen(fd, 1) < 0))
			_exit(1);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		int peer = accept(fd, NULL, NULL);
		if (peer >= 0)
			serve(peer);
		_exit(0);
	}
	close(ready[1]);
	close(fd);
	if (read(ready[0], &c, 1) != 1)
		pid = -1;
	close(ready[0]);
	return pid;
}

struct seen {
	int ends, code;
	bool good;
};

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct seen *s = arg;
	s->ends++;
	s->good = reply != NULL;
	s->code = err ? err->code : 0;
}

static const struct client_ops ops = {.on_end = on_end};

static json_t *verb(const char *name)
{
	return json_pack("{s:s}", "verb", name);
}

static json_t *too_large(void)
{
	_cleanup_free_ char *text = xcalloc(1, FRAME_MAX_MESSAGE + 2);
	memset(text, 'x', FRAME_MAX_MESSAGE + 1);
	return json_pack("{s:s, s:s}", "verb", "create", "text", text);
}

static void test_too_large(struct loop *l, struct client *c)
{
	struct seen big = {0}, next = {0};
	uint32_t id = client_call(c, too_large(), &ops, &big);
	is_int(big.ends, 0, "a call that cannot be sent has not ended before its id is known");
	uint32_t other = client_call(c, verb("status"), &ops, &next);
	ok(id && other && id != other, "it has an id of its own");
	while (!big.ends || !next.ends)
		loop_run_once(l);
	ok(big.ends == 1 && !big.good && big.code == E2BIG, "it ends once, with the reason");
	ok(next.ends == 1 && next.good, "the next one is answered");

	struct seen more = {0};
	id = client_call(c, verb("status"), &ops, &more);
	client_message(c, id, too_large());
	is_int(more.ends, 0, "the same for a later message of a call");
	while (!more.ends)
		loop_run_once(l);
	ok(client_ask(c, verb("status"), 10000, NULL, NULL) == 0 && more.ends == 1 && more.code == E2BIG,
	   "its reply, which came too, is not a second end");
}

static void test_lost(struct loop *l, struct client *c)
{
	struct err err = ERR_INIT;
	struct seen s = {0};
	ok(client_ask(c, verb("die"), 0, NULL, &err) < 0 && err.code == ECONNRESET,
	   "the agent dies: the call ends");
	err = ERR_INIT;
	/* Without a bound: waiting for one would be forever. */
	ok(client_ask(c, verb("status"), 0, NULL, &err) < 0 && err.code == ECONNRESET,
	   "one made later ends too");
	uint32_t id = client_call(c, verb("status"), &ops, &s);
	is_int(s.ends, 0, "and not before its id is known");
	client_message(c, id, verb("more"));
	client_data(c, id, 0, "x", 1, true);
	client_credit(c, id, 0, 1, 1);
	while (!s.ends)
		loop_run_once(l);
	ok(s.ends == 1 && s.code == ECONNRESET, "then once");
	s = (struct seen){0};
	client_call(c, verb("status"), &ops, &s);
	client_destroy(c);
	ok(s.ends == 1 && s.code == ECONNRESET,
	   "a client that goes before that ends it itself, with the reason");
}

static void test_stranger(struct loop *l)
{
	struct err err = ERR_INIT;
	struct client *c = NULL;
	if (geteuid() != 0) {
		tap_skip("only root can play another user");
		return;
	}
	pid_t pid = agent("stranger", STRANGER);
	ok(pid > 0, "a process of another user listens");
	ok(client_connect(l, home, "stranger", &c, &err) < 0 && err.code == EPERM && !c,
	   "it is not spoken to: %s", err.text);
	waitpid(pid, NULL, 0);
}

int main(void)
{
	char template[] = "/tmp/vse-client-XXXXXX";
	struct err err = ERR_INIT;
	struct client *c = NULL;
	signal(SIGPIPE, SIG_IGN);
	home = mkdtemp(template);
	struct loop *l = loop_create();
	pid_t pid = agent("a", geteuid());
	ok(pid > 0, "an agent");
	if (!ok(client_connect(l, home, "a", &c, &err) == 0, "connect %s", err.text))
		return done();
	test_too_large(l, c);
	test_lost(l, c);
	waitpid(pid, NULL, 0);
	ok(client_connect(l, home, "a", &c, &err) < 0 && err.code == ENOENT,
	   "nobody is there any more");
	test_stranger(l);
	loop_destroy(l);
	path_remove(home, NULL);
	return done();
}
