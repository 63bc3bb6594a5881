/* SPDX-License-Identifier: Apache-2.0 */
#include "qmp-peer.h"

#include <inttypes.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "tap.h"

static void on_ready(void *arg)
{
	struct peer *p = arg;
	p->ready++;
}

static void on_event(void *arg, const char *name, json_t *data _unused_)
{
	struct peer *p = arg;
	p->events++;
	snprintf(p->event, sizeof(p->event), "%s", name);
	if (p->destroy_at_event)
		qmp_destroy(TAKE_PTR(p->q));
}

static void on_close(void *arg, const struct err *err)
{
	struct peer *p = arg;
	p->closed++;
	p->close_code = err->code;
}

void peer_on_answer(void *arg, json_t *ret, const struct err *err)
{
	struct peer *p = arg;
	_cleanup_free_ char *text = ret ? json_dumps(ret, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	p->answers++;
	snprintf(p->answer, sizeof(p->answer), "%d %s", err ? err->code : 0, err ? err->text : text);
	if (p->destroy_at_answer)
		qmp_destroy(TAKE_PTR(p->q));
}

static const struct qmp_ops ops = {.on_ready = on_ready, .on_event = on_event, .on_close = on_close};

void peer_say(struct peer *p, const char *s)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (const char *c = s; *c;) {
		if (*c == '@')
			buf_addf(&b, "%" PRIu64, p->base + strtoul(c + 1, (char **)&c, 10));
		else
			buf_add(&b, c++, 1);
	}
	ok(send(p->fd, buf_head(&b), buf_len(&b), MSG_NOSIGNAL) == (ssize_t)buf_len(&b),
	   "peer says %.40s", s);
}

void peer_heard(struct peer *p, char *out, size_t size)
{
	static const char key[] = "\"id\":";
	char text[1000];
	ssize_t n = recv(p->fd, text, sizeof(text) - 1, MSG_DONTWAIT);
	size_t at = 0;
	text[n > 0 ? n : 0] = '\0';
	out[0] = '\0';
	for (char *c = text, *id; (id = strstr(c, key)) && at < size;) {
		uint64_t number = strtoull(id + strlen(key), &id, 10);
		p->base = number >> 20 << 20;
		at += (size_t)snprintf(out + at, size - at, "%.*s@%" PRIu64,
				       (int)(strstr(c, key) + strlen(key) - c), c, number - p->base);
		c = id;
		if (!strstr(c, key))
			snprintf(out + at, size - at, "%s", c);
	}
}

static void nothing(void *arg _unused_)
{
}

void peer_settle(struct peer *p)
{
	struct evtimer *t = evtimer_create(p->loop, nothing, NULL);
	for (int i = 0; i < 10; i++) {
		evtimer_start(t, 1, 0);
		loop_run_once(p->loop);
	}
	evtimer_destroy(t);
}

void peer_begin(struct peer *p, uint64_t greeting_ms)
{
	int pair[2];
	struct err e = ERR_INIT;
	*p = (struct peer){.loop = loop_create()};
	ok(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	p->fd = pair[1];
	p->q = qmp_create(p->loop, pair[0], greeting_ms, &ops, p, &e);
	ok(p->q != NULL, "client %s", e.text);
}

void peer_finish(struct peer *p)
{
	qmp_destroy(p->q);
	if (p->fd >= 0)
		close(p->fd);
	peer_settle(p);
	loop_destroy(p->loop);
}

void peer_negotiate(struct peer *p)
{
	char text[1000];
	peer_begin(p, 60000);
	peer_say(p, GREETING);
	peer_settle(p);
	peer_heard(p, text, sizeof(text));
	is_str(text, "{\"execute\":\"qmp_capabilities\",\"id\":@1}\n", "capabilities are negotiated");
	is_int(p->ready, 0, "not ready before the answer");
	peer_say(p, "{\"return\": {}, \"id\": @1}\r\n");
	peer_settle(p);
	is_int(p->ready, 1, "ready");
}
