/* SPDX-License-Identifier: Apache-2.0 */
#include "client/client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "io/listener.h"
#include "io/stream.h"
#include "wire/message.h"

#define HELLO_MS 10000

struct client {
	struct loop *loop;
	struct caller *caller;
	bool dead; /* it is being destroyed */
};

/* What is asked may hold a private key: never told to another user's process. */
static int check_peer(int fd, const char *path, struct err *err)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return err_errno(err, errno, "socket %s", path);
	if (peer.uid != geteuid())
		return err_set(err, EPERM, "socket %s: user %u answers there, not an agent of yours",
			       path, (unsigned)peer.uid);
	return 0;
}

int client_connect(struct loop *l, const char *base, const char *name, struct client **ret,
		   struct err *err)
{
	_cleanup_free_ char *path = xasprintf("%s/%s/sock", base, name);
	struct err why = ERR_INIT;
	_cleanup_close_ int fd = -1;
	if (unix_connect(path, &fd, &why) < 0) {
		if (why.code == ENOENT || why.code == ECONNREFUSED)
			return err_set(err, ENOENT, "no cluster '%s' runs (see 'vse ps')", name);
		return err_copy(err, &why);
	}
	if (check_peer(fd, path, err) < 0)
		return -1;
	_cleanup_free_ char *peer = xasprintf("the agent of cluster '%s'", name);
	struct stream *s = stream_create(l, TAKE_FD(fd), NULL, NULL, err);
	if (!s)
		return -1;
	struct client *c = xcalloc(1, sizeof(*c));
	c->loop = l;
	c->caller = caller_create(l, s, peer, NULL, NULL);
	if (client_ask(c, json_pack("{s:s, s:i}", "verb", "hello", "version", MESSAGE_VERSION),
		       HELLO_MS, NULL, err) < 0) {
		client_destroy(c);
		return -1;
	}
	*ret = c;
	return 0;
}

void client_destroy(struct client *c)
{
	if (!c || c->dead)
		return;
	c->dead = true;
	caller_destroy(c->caller);
	free(c);
}

uint32_t client_call(struct client *c, json_t *req, const struct client_ops *ops, void *arg)
{
	return caller_call(c->caller, req, ops, arg);
}

void client_message(struct client *c, uint32_t id, json_t *msg)
{
	caller_message(c->caller, id, msg);
}

void client_data(struct client *c, uint32_t id, uint32_t rank, const char *p, size_t n, bool eof)
{
	caller_data(c->caller, id, rank, p, n, eof);
}

void client_credit(struct client *c, uint32_t id, uint32_t rank, int fd, uint32_t bytes)
{
	caller_credit(c->caller, id, rank, fd, bytes);
}

void client_forget(struct client *c, uint32_t id)
{
	caller_forget(c->caller, id);
}

/* ---- one call, waited for ---- */

struct asked {
	bool over, late;
	json_t *reply;
	struct err err;
};

static void on_ask_end(void *arg, const json_t *reply, const struct err *err)
{
	struct asked *a = arg;
	a->over = true;
	a->reply = reply ? json_incref((json_t *)reply) : NULL;
	if (err)
		a->err = *err;
}

static void on_ask_timeout(void *arg)
{
	struct asked *a = arg;
	a->over = a->late = true;
	err_set(&a->err, ETIMEDOUT, "the agent did not answer in time");
}

static const struct client_ops ask_ops = {.on_end = on_ask_end};

int client_ask(struct client *c, json_t *req, uint64_t bound_ms, json_t **ret, struct err *err)
{
	struct asked a = {0};
	struct evtimer *timer = NULL;
	struct loop *l = c->loop;
	uint32_t id = client_call(c, req, &ask_ops, &a);
	if (bound_ms) {
		timer = evtimer_create(l, on_ask_timeout, &a);
		evtimer_start(timer, bound_ms, 0);
	}
	while (!a.over)
		loop_run_once(l);
	evtimer_destroy(timer);
	if (a.late)
		client_forget(c, id);
	if (!a.reply)
		return err_copy(err, &a.err);
	if (ret)
		*ret = a.reply;
	else
		json_decref(a.reply);
	return 0;
}

struct loop *client_loop(struct client *c)
{
	return c->loop;
}
