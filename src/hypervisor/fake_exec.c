/* SPDX-License-Identifier: Apache-2.0 */
/* What the fake guest does when it is asked to run a program or to take files: enough of each to test
 * whoever asks. Flow control is kept as strictly as by the real guest agent. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/size.h"
#include "base/strvec.h"
#include "hypervisor/fake.h"
#include "wire/guestproto.h"
#include "wire/kv.h"

#define CHUNK (16u << 10)      /* bytes of output a frame */
#define QUEUE_MAX (128u << 10) /* no more is put into the stream before it has drained */
#define ARGS_MAX 64

struct output {
	struct buf text;
	uint64_t more; /* bytes still to be made after the text: "y\n" over and over */
	uint64_t made;
	uint64_t window; /* bytes the host still takes */
	bool eof;
};

struct fake_request {
	struct fake_request *next;
	struct fake_guest *guest;
	uint32_t id;
	bool is_put, tty, cat, started, ended, due;
	uint64_t in_window, in_bytes;
	struct output out[2]; /* stdout, stderr */
	int code, signal;
	struct strvec args;
	struct evtimer *timer; /* of sleep and slow-exec; NULL = none */
};

static struct fake_request *find(struct fake_guest *g, uint32_t id)
{
	struct fake_request *r = g->requests;
	while (r && r->id != id)
		r = r->next;
	return r;
}

static void request_free(struct fake_request *r)
{
	struct fake_request **at = &r->guest->requests;
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	buf_finish(&r->out[0].text);
	buf_finish(&r->out[1].text);
	strvec_finish(&r->args);
	evtimer_destroy(r->timer);
	free(r);
}

static void send_error(struct fake_guest *g, uint32_t id, int code, const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "error");
	kv_addu(&b, "code", (uint64_t)code);
	kv_adds(&b, "text", text);
	fake_send(g, id, &b);
}

static void send_exit(struct fake_request *r)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "exit");
	if (r->signal)
		kv_addu(&b, "signal", (uint64_t)r->signal);
	else
		kv_addu(&b, "code", (uint64_t)r->code);
	fake_send(r->guest, r->id, &b);
}

/* ---- output ---- */

static void send_data(struct fake_request *r, int fd, const char *p, size_t n)
{
	frame_write_data(stream_out(r->guest->channel), r->id, 0, fd, p, n, false);
	r->out[fd - 1].window -= n;
	if (r->cat) {
		/* What cat has passed on may be sent anew. */
		frame_write_credit(stream_out(r->guest->channel), r->id, 0, 0, (uint32_t)n);
		r->in_window += n;
	}
}

/* True when this stream has said all. */
static bool pump_output(struct fake_request *r, int fd)
{
	struct output *o = &r->out[fd - 1];
	char made[CHUNK + 1];
	for (size_t i = 0; o->more && i < sizeof(made); i++)
		made[i] = i % 2 ? '\n' : 'y';
	while (o->window && stream_queued(r->guest->channel) < QUEUE_MAX) {
		size_t n = MIN(MIN((uint64_t)CHUNK, o->window),
			       buf_len(&o->text) ? buf_len(&o->text) : o->more);
		if (!n)
			break;
		if (buf_len(&o->text)) {
			send_data(r, fd, buf_head(&o->text), n);
			buf_consume(&o->text, n);
		} else {
			send_data(r, fd, made + (o->made & 1), n);
			o->made += n;
			o->more -= n;
		}
	}
	return !buf_len(&o->text) && !o->more;
}

static void pump(struct fake_request *r)
{
	struct fake_guest *g = r->guest;
	if (!r->started || g->paused || !g->channel)
		return;
	bool done = true;
	for (int fd = 1; fd <= 2; fd++)
		done = pump_output(r, fd) && done;
	if (done && r->ended) {
		frame_write_data(stream_out(g->channel), r->id, 0, 1, NULL, 0, true);
		if (!r->tty)
			frame_write_data(stream_out(g->channel), r->id, 0, 2, NULL, 0, true);
		send_exit(r);
		request_free(r);
		return;
	}
	stream_flush(g->channel);
}

/* ---- programs ---- */

static void end(struct fake_request *r, int code, int signal)
{
	r->ended = true;
	r->code = code;
	r->signal = signal;
}

static const char *arg(const struct fake_request *r, size_t i)
{
	return i < r->args.n ? r->args.v[i] : "";
}

static void echo(struct fake_request *r)
{
	for (size_t i = 1; i < r->args.n; i++)
		buf_addf(&r->out[0].text, "%s%s", i > 1 ? " " : "", r->args.v[i]);
	buf_addc(&r->out[0].text, '\n');
}

/* "vm17" says "7" when asked for ten: so many VMs give so many different answers. */
static void modulo(struct fake_request *r, int64_t n)
{
	const char *host = r->guest->hostname ? r->guest->hostname : "";
	unsigned long own = strtoul(host + strcspn(host, "0123456789"), NULL, 10);
	buf_addf(&r->out[0].text, "%lu\n", own % (unsigned long)n);
}

static void start_timer(struct fake_request *r, uint64_t ms);

static void run(struct fake_request *r)
{
	const char *slash = strrchr(arg(r, 0), '/'), *name = slash ? slash + 1 : arg(r, 0);
	int64_t n;
	uint64_t v;
	if (strcmp(name, "true") == 0)
		end(r, 0, 0);
	else if (strcmp(name, "false") == 0)
		end(r, 1, 0);
	else if (strcmp(name, "echo") == 0)
		echo(r), end(r, 0, 0);
	else if (strcmp(name, "hostname") == 0)
		buf_addf(&r->out[0].text, "%s\n", r->guest->hostname ? r->guest->hostname : "(none)"),
			end(r, 0, 0);
	else if (strcmp(name, "mounts") == 0)
		buf_adds(&r->out[0].text, r->guest->mounts ? r->guest->mounts : ""), end(r, 0, 0);
	else if (strcmp(name, "modulo") == 0 && int_parse(arg(r, 1), 1, INT32_MAX, &n, NULL) == 0)
		modulo(r, n), end(r, 0, 0);
	else if (strcmp(name, "cat") == 0)
		r->cat = true;
	else if (strcmp(name, "exit") == 0 && int_parse(arg(r, 1), 0, 255, &n, NULL) == 0)
		end(r, (int)n, 0);
	else if (strcmp(name, "kill") == 0 && int_parse(arg(r, 1), 1, 64, &n, NULL) == 0)
		end(r, 0, (int)n);
	else if (strcmp(name, "yes") == 0 && size_parse(arg(r, 1), &v, NULL) == 0)
		r->out[0].more = v, end(r, 0, 0);
	else if (strcmp(name, "spew") == 0 && size_parse(arg(r, 1), &v, NULL) == 0)
		r->out[1].more = v, end(r, 0, 0);
	else if (strcmp(name, "sleep") == 0 && duration_parse(arg(r, 1), &v, NULL) == 0)
		start_timer(r, v);
	else
		buf_addf(&r->out[1].text, "%s: no such program\n", arg(r, 0)), end(r, 127, 0);
}

static void begin(struct fake_request *r, bool has_stdin)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "started");
	kv_addu(&b, "pid", r->id);
	fake_send(r->guest, r->id, &b);
	r->started = true;
	run(r);
	if (r->cat && !has_stdin)
		end(r, 0, 0);
}

static void on_timer(void *p)
{
	struct fake_request *r = p;
	if (r->guest->paused) {
		r->due = true;
		return;
	}
	if (!r->started)
		begin(r, r->in_window > 0);
	else
		end(r, 0, 0);
	pump(r);
}

static void start_timer(struct fake_request *r, uint64_t ms)
{
	if (!r->timer)
		r->timer = evtimer_create(r->guest->loop, on_timer, r);
	evtimer_start(r->timer, ms, 0);
}

/* ---- frames ---- */

static struct fake_request *request_new(struct fake_guest *g, uint32_t id)
{
	struct fake_request *r = xcalloc(1, sizeof(*r));
	*r = (struct fake_request){
		.next = g->requests, .guest = g, .id = id, .in_window = GUESTPROTO_STDIN_WINDOW};
	g->requests = r;
	return r;
}

static int on_exec(struct fake_guest *g, const struct frame *f)
{
	struct kv_iter it = {.data = f->payload, .len = f->len};
	struct kv e;
	struct fake_request *r = request_new(g, f->id);
	while (kv_next(&it, &e))
		if (kv_is(&e, "arg") && r->args.n < ARGS_MAX)
			strvec_take(&r->args, xmemdup0(e.value, e.value_len));
	if (!r->args.n) {
		request_free(r);
		send_error(g, f->id, EINVAL, "exec without a program");
		return 0;
	}
	r->tty = kv_num(f->payload, f->len, "tty", 0) != 0;
	r->out[0].window = r->out[1].window = kv_num(f->payload, f->len, "window", 0);
	if (!kv_num(f->payload, f->len, "stdin", 0))
		r->in_window = 0;
	if (g->script->exec_ms) {
		start_timer(r, g->script->exec_ms);
		return 0;
	}
	begin(r, r->in_window > 0);
	pump(r);
	return 0;
}

static void put_done(struct fake_request *r)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	kv_adds(&b, "verb", "done");
	kv_addu(&b, "files", 1);
	kv_addu(&b, "bytes", r->in_bytes);
	fake_send(r->guest, r->id, &b);
	request_free(r);
}

static int on_stdin(struct fake_request *r, const struct frame *f)
{
	bool eof = f->flags & FRAME_EOF;
	if (f->fd != 0 || f->len > r->in_window)
		return -1; /* more than was granted */
	r->in_window -= f->len;
	r->in_bytes += f->len;
	if (r->cat && !r->ended) {
		buf_add(&r->out[0].text, f->payload, f->len);
		if (eof)
			end(r, 0, 0);
		pump(r);
	} else if (r->is_put && eof) {
		put_done(r);
	} else if (f->len) {
		frame_write_credit(stream_out(r->guest->channel), r->id, 0, 0, f->len);
		stream_flush(r->guest->channel);
		r->in_window += f->len;
	}
	return 0;
}

static void kill_request(struct fake_request *r, int signal)
{
	for (int i = 0; i < 2; i++) {
		buf_clear(&r->out[i].text);
		r->out[i].more = 0;
	}
	r->cat = false;
	r->started = true;
	end(r, 0, signal);
	pump(r);
}

static int on_message(struct fake_guest *g, const struct frame *f)
{
	_cleanup_free_ char *verb = kv_dup(f->payload, f->len, "verb");
	struct fake_request *r = find(g, f->id);
	if (!verb || !f->id)
		return -1;
	if (strcmp(verb, "signal") == 0 || strcmp(verb, "cancel") == 0) {
		if (r && r->is_put)
			request_free(r);
		else if (r && !r->ended)
			kill_request(r, (int)kv_num(f->payload, f->len, "signal", 1));
		return 0;
	}
	if (strcmp(verb, "resize") == 0)
		return 0;
	if (r)
		return -1; /* an id that is in use */
	if (strcmp(verb, "exec") == 0)
		return on_exec(g, f);
	if (strcmp(verb, "put") == 0) {
		request_new(g, f->id)->is_put = true;
		return 0;
	}
	if (strcmp(verb, "get") == 0) {
		send_error(g, f->id, ENOENT, "the fake guest keeps no files");
		return 0;
	}
	return -1;
}

int fake_request_frame(struct fake_guest *g, const struct frame *f)
{
	if (f->type == FRAME_MESSAGE)
		return on_message(g, f);
	struct fake_request *r = find(g, f->id);
	if (!r)
		return 0; /* it has ended meanwhile */
	if (f->type == FRAME_DATA)
		return on_stdin(r, f);
	if (f->fd < 1)
		return -1;
	r->out[f->fd - 1].window += frame_credit(f);
	pump(r);
	return 0;
}

void fake_request_pump(struct fake_guest *g)
{
	struct fake_request *next;
	for (struct fake_request *r = g->requests; r; r = next) {
		next = r->next;
		if (r->due) {
			r->due = false;
			on_timer(r);
		} else {
			pump(r);
		}
	}
}

void fake_request_end_all(struct fake_guest *g)
{
	while (g->requests)
		request_free(g->requests);
}
