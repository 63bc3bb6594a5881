/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's end of a guest's channel, with a guest made of a socket. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tap.h"
#include "vm/channel.h"
#include "wire/guestproto.h"

static struct loop *loop;

struct seen {
	struct channel *channel;
	int fd; /* the guest's end */
	char boot[32], failed[256], bye[16], log[32];
	int ready, closed, ended, messages, end_code;
	bool destroy_on_message, destroy_on_hello;
	size_t data;
	uint64_t credit;
};

static void on_hello(void *arg, const char *boot)
{
	struct seen *s = arg;
	snprintf(s->boot, sizeof(s->boot), "%s", boot);
	if (s->destroy_on_hello)
		channel_destroy(TAKE_PTR(s->channel));
}

static void on_ready(void *arg)
{
	((struct seen *)arg)->ready++;
}

static void on_failed(void *arg, const char *text)
{
	struct seen *s = arg;
	snprintf(s->failed, sizeof(s->failed), "%s", text);
}

static void on_bye(void *arg, const char *how)
{
	struct seen *s = arg;
	snprintf(s->bye, sizeof(s->bye), "%s", how);
}

static void on_log(void *arg, const char *text)
{
	struct seen *s = arg;
	snprintf(s->log, sizeof(s->log), "%s", text);
}

static void on_close(void *arg, const struct err *err _unused_)
{
	((struct seen *)arg)->closed++;
}

static const struct channel_ops ops = {on_hello, on_ready, on_failed, on_bye, on_log, on_close};

static void on_message(void *arg, const char *verb _unused_, const char *kv _unused_, size_t len _unused_)
{
	struct seen *s = arg;
	s->messages++;
	if (s->destroy_on_message)
		channel_destroy(TAKE_PTR(s->channel));
}

static void on_data(void *arg, int fd _unused_, const char *p _unused_, size_t n, bool eof _unused_)
{
	((struct seen *)arg)->data += n;
}

static void on_credit(void *arg, int fd _unused_, uint32_t bytes)
{
	((struct seen *)arg)->credit += bytes;
}

static void on_end(void *arg, const struct err *err)
{
	struct seen *s = arg;
	s->ended++;
	s->end_code = err ? err->code : 0;
}

static const struct request_ops request_ops = {on_message, on_data, on_credit, on_end};

static void begin(struct seen *s)
{
	int pair[2];
	struct err err = ERR_INIT;
	*s = (struct seen){0};
	ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "a channel");
	s->fd = pair[1];
	s->channel = channel_create(loop, pair[0], &ops, s, &err);
}

static void end(struct seen *s)
{
	channel_destroy(s->channel);
	if (s->fd >= 0)
		close(s->fd);
}

/* The guest says something: words in pairs, the first the verb. */
static void say(struct seen *s, uint32_t id, const char *verb, const char *key, const char *value)
{
	_cleanup_buf_ struct buf kv = BUF_INIT, out = BUF_INIT;
	kv_adds(&kv, "verb", verb);
	if (key)
		kv_adds(&kv, key, value);
	frame_write(&out, &(struct frame){.len = (uint32_t)buf_len(&kv),
					  .type = FRAME_MESSAGE,
					  .id = id,
					  .payload = buf_head(&kv)});
	ok(write(s->fd, buf_head(&out), buf_len(&out)) == (ssize_t)buf_len(&out),
	   "the guest says %s", verb);
	loop_run_once(loop);
}

static struct request *ask(struct seen *s, const char *verb)
{
	_cleanup_buf_ struct buf kv = BUF_INIT;
	kv_adds(&kv, "verb", verb);
	kv_adds(&kv, "window", "8");
	return channel_request(s->channel, &kv, &request_ops, s);
}

/* The next frame that the guest gets. */
static struct frame heard(struct seen *s, struct buf *in)
{
	struct frame f = {0};
	while (frame_read(in, FRAME_MAX_GUEST, &f, NULL) == 0) {
		buf_reserve(in, 4096);
		ssize_t n = recv(s->fd, in->data + in->end, 4096, MSG_DONTWAIT);
		if (n <= 0)
			break;
		in->end += (size_t)n;
	}
	return f;
}

static void test_life(void)
{
	struct seen s;
	char version[16];
	begin(&s);
	_cleanup_buf_ struct buf kv = BUF_INIT, out = BUF_INIT;
	snprintf(version, sizeof(version), "%d", GUESTPROTO_VERSION);
	kv_adds(&kv, "verb", "hello");
	kv_adds(&kv, "version", version);
	kv_adds(&kv, "boot", "id-1");
	frame_write(&out, &(struct frame){.len = (uint32_t)buf_len(&kv),
					  .type = FRAME_MESSAGE,
					  .payload = buf_head(&kv)});
	/* A byte at a time: frames know nothing of reads. */
	for (size_t i = 0; i < buf_len(&out); i++) {
		if (write(s.fd, buf_head(&out) + i, 1) != 1)
			break;
		loop_run_once(loop);
	}
	is_str(s.boot, "id-1", "hello is heard, with the boot id");
	say(&s, 0, "ready", NULL, NULL);
	is_int(s.ready, 1, "ready");
	say(&s, 0, "log", "text", "a line");
	is_str(s.log, "a line", "log");
	say(&s, 0, "failed", "text", "no root");
	is_str(s.failed, "no root", "failed");
	say(&s, 0, "bye", "how", "reboot");
	is_str(s.bye, "reboot", "bye");
	say(&s, 0, "something-new", "x", "y");
	is_int(s.closed, 0, "a verb of the future is let pass");
	say(&s, 0, "hello", "version", "99");
	ok(strstr(s.failed, "version 99") != NULL, "a guest of another version is told apart: %s",
	   s.failed);
	end(&s);
}

static void test_requests(void)
{
	struct seen s;
	begin(&s);
	_cleanup_buf_ struct buf in = BUF_INIT;
	ask(&s, "exec");
	ask(&s, "exec");
	struct frame a = heard(&s, &in);
	uint32_t first = a.id;
	frame_drop(&in, &a);
	struct frame b = heard(&s, &in);
	uint32_t second = b.id;
	ok(first && second && first != second, "requests have ids of their own");
	say(&s, second, "started", "pid", "7");
	say(&s, first, "exit", "code", "0");
	is_int(s.messages, 2, "what is said of each is heard");
	is_int(s.ended, 1, "an exit ends one");
	say(&s, first, "exit", "code", "0");
	is_int(s.ended, 1, "only once: what comes later is dropped");
	_cleanup_buf_ struct buf out = BUF_INIT;
	frame_write_data(&out, second, 0, 1, "hello", 5, false);
	frame_write_credit(&out, second, 0, 0, 77);
	frame_write_data(&out, 4242, 0, 1, "stray", 5, false);
	ok(write(s.fd, buf_head(&out), buf_len(&out)) > 0, "data and credit come");
	loop_run_once(loop);
	ok(s.data == 5 && s.credit == 77, "to whom they belong");
	say(&s, second, "error", "text", "no such file");
	ok(s.ended == 2 && s.end_code, "an error ends a request, with its code");
	end(&s);
	is_int(s.closed, 0, "who destroys it is not told");
}

static void test_window(void)
{
	struct seen s;
	begin(&s);
	_cleanup_buf_ struct buf in = BUF_INIT, out = BUF_INIT;
	struct request *r = ask(&s, "exec");
	uint32_t id = heard(&s, &in).id;
	frame_write_data(&out, id, 0, 1, "12345678", 8, false);
	ok(write(s.fd, buf_head(&out), buf_len(&out)) > 0, "a guest fills its window");
	loop_run_once(loop);
	is_int(s.data, 8, "it is heard");
	request_credit(r, 1, 3);
	buf_clear(&out);
	frame_write_data(&out, id, 0, 1, "abc", 3, false);
	frame_write_data(&out, id, 0, 1, "d", 1, false);
	ok(write(s.fd, buf_head(&out), buf_len(&out)) > 0, "it gets three more and sends four");
	loop_run_once(loop);
	ok(s.data == 11 && s.closed == 1 && s.ended == 1 && s.end_code,
	   "and is cut off at the fourth");
	end(&s);
}

static void test_abandon(void)
{
	struct seen s;
	begin(&s);
	_cleanup_buf_ struct buf in = BUF_INIT;
	struct request *r = ask(&s, "exec");
	struct frame f = heard(&s, &in);
	uint32_t id = f.id;
	frame_drop(&in, &f);
	request_abandon(r);
	f = heard(&s, &in);
	_cleanup_free_ char *verb = f.payload ? kv_dup(f.payload, f.len, "verb") : NULL;
	ok(f.id == id && verb && strcmp(verb, "cancel") == 0, "an abandoned request is cancelled");
	say(&s, id, "exit", "signal", "1");
	ok(!s.messages && !s.ended, "and nothing more is heard of it");
	end(&s);
}

static void test_death(void)
{
	struct seen s;
	begin(&s);
	ask(&s, "exec");
	ask(&s, "get");
	close(s.fd);
	s.fd = -1;
	loop_run_once(loop);
	ok(s.ended == 2 && s.end_code == ECONNRESET, "a guest that is gone ends every request");
	is_int(s.closed, 1, "then the channel");
	end(&s);
}

static void test_nonsense(void)
{
	struct seen s;
	begin(&s);
	ask(&s, "exec");
	ok(write(s.fd, "this is no frame at all, is it?", 31) == 31, "a guest speaks nonsense");
	loop_run_once(loop);
	ok(s.closed == 1 && s.ended == 1, "its channel is closed, the request ended");
	end(&s);
}

static void test_destroyed_within(void)
{
	struct seen s;
	begin(&s);
	_cleanup_buf_ struct buf in = BUF_INIT;
	s.destroy_on_message = true;
	ask(&s, "exec");
	uint32_t id = heard(&s, &in).id;
	say(&s, id, "exit", "code", "0");
	ok(!s.channel && s.ended == 1, "a callback may destroy the channel");
	end(&s);

	char version[16];
	begin(&s);
	s.destroy_on_hello = true;
	snprintf(version, sizeof(version), "%d", GUESTPROTO_VERSION);
	say(&s, 0, "hello", "version", version);
	ok(!s.channel, "within the hello, too");
	end(&s);
}

static void send_raw(struct seen *s, const char *p, size_t n)
{
	ok(write(s->fd, p, n) == (ssize_t)n, "the guest sends %zu bytes", n);
	loop_run_once(loop);
}

static void write_hello(struct buf *out)
{
	char version[16];
	_cleanup_buf_ struct buf kv = BUF_INIT;
	snprintf(version, sizeof(version), "%d", GUESTPROTO_VERSION);
	kv_adds(&kv, "verb", "hello");
	kv_adds(&kv, "version", version);
	kv_adds(&kv, "boot", "id-2");
	frame_write(out, &(struct frame){.len = (uint32_t)buf_len(&kv),
					 .type = FRAME_MESSAGE,
					 .payload = buf_head(&kv)});
}

/* A guest that was in the middle of something else. */
static void test_attach(void)
{
	struct seen s = {0};
	int pair[2];
	struct err err = ERR_INIT;
	char junk[70000], got[4096];
	_cleanup_buf_ struct buf hello = BUF_INIT;
	ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0,
	   "a channel to a guest that runs");
	s.fd = pair[1];
	s.channel = channel_attach(loop, pair[0], &ops, &s, &err);
	memset(junk, 'y', sizeof(junk));
	send_raw(&s, junk, sizeof(junk));
	is_int(s.closed, 0, "what is left of another conversation is no nonsense");
	size_t zeros = 0, others = 0;
	for (ssize_t n; zeros < FRAME_MAX_GUEST + FRAME_HEADER && !others;) {
		loop_run_once(loop);
		while ((n = recv(s.fd, got, sizeof(got), MSG_DONTWAIT)) > 0)
			for (ssize_t i = 0; i < n; i++)
				got[i] ? others++ : zeros++;
	}
	ok(zeros == FRAME_MAX_GUEST + FRAME_HEADER && !others,
	   "a guest that is silent is made to say hello");
	write_hello(&hello);
	send_raw(&s, junk, 13);
	send_raw(&s, buf_head(&hello), 20);
	send_raw(&s, buf_head(&hello) + 20, buf_len(&hello) - 20);
	is_str(s.boot, "id-2", "it is found behind more of the same");
	/* A slow guest hears the second knock only now, cuts off what it was about to say, and begins again. */
	*s.boot = '\0';
	send_raw(&s, junk, 100);
	is_int(s.closed, 0, "a guest that is not ready yet may begin again in the middle of a frame");
	send_raw(&s, buf_head(&hello), buf_len(&hello));
	is_str(s.boot, "id-2", "with another hello");
	say(&s, 0, "ready", NULL, NULL);
	is_int(s.ready, 1, "from there on all is as ever");
	send_raw(&s, junk, 100);
	is_int(s.closed, 1, "nonsense too");
	end(&s);
}

/* A clone's guest said its hello before it was one. */
static void test_taken_up(void)
{
	int pair[2];
	struct seen s = {0};
	struct err err = ERR_INIT;
	ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0,
	   "a channel that is taken up");
	s.fd = pair[1];
	s.channel = channel_take_up(loop, pair[0], &ops, &s, &err);
	say(&s, 0, "ready", NULL, NULL);
	is_int(s.ready, 1, "a guest that was spoken to answers without another hello");
	_cleanup_buf_ struct buf hello = BUF_INIT;
	write_hello(&hello);
	send_raw(&s, buf_head(&hello), buf_len(&hello));
	is_str(s.boot, "id-2", "one that begins anew is heard as well");
	end(&s);
}

/* A guest agent that begins anew has forgotten what it was asked. */
static void test_anew(void)
{
	struct seen s = {0};
	_cleanup_buf_ struct buf hello = BUF_INIT;
	begin(&s);
	ask(&s, "exec");
	write_hello(&hello);
	send_raw(&s, buf_head(&hello), buf_len(&hello));
	is_int(s.ended, 1, "a hello ends what was asked before");
	is_int(s.end_code, ECONNRESET, "and says why");
	is_str(s.boot, "id-2", "then it is told");
	is_int(s.closed, 0, "the channel stays");
	end(&s);
}

int main(void)
{
	loop = loop_create();
	test_life();
	test_requests();
	test_window();
	test_abandon();
	test_death();
	test_nonsense();
	test_destroyed_within();
	test_attach();
	test_taken_up();
	test_anew();
	loop_destroy(loop);
	return done();
}
