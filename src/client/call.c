/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: what goes on in a cluster while the loop runs. One that is freed within its own callback goes when that
 * returns (`busy`, `dead`). */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rankset.h"
#include "wire/message.h"
#include "base/text.h"
#include "client/input.h"
#include "client/options.h"
#include "wire/guestproto.h"

#define WINDOW_TOTAL (16u << 20) /* bytes of output on the way, of all VMs together */
#define STDIN_CHUNK (64u << 10)
#define LOG_ALL (2 << 20) /* bytes: the whole log is bounded to this (vm/console.h) */
#define UNKNOWN (-1)

struct vse_call {
	struct vse_session *session;
	struct vse_cluster *cluster; /* NULL: released */
	struct vse_call *next;
	uint32_t id;
	vse_callback *fn;
	void *arg;
	bool follows; /* the end of the cluster is its regular end */
	unsigned busy;
	bool dead, over;
	struct err err; /* why it failed as a whole */

	/* of a command */
	uint32_t size;
	int16_t *codes; /* [size] */
	uint32_t *owed[2]; /* [size]: bytes of stdout and stderr that were dealt with and not told yet */
	bool manual;
	uint32_t window;
	int code;
	bool input;
	uint64_t credit; /* bytes of stdin that may be sent */
	bool input_eof;
	struct input *from;
};

static struct client *client_of(const struct vse_call *c)
{
	return c->over || !c->cluster ? NULL : c->cluster->client;
}

/* Nothing more is asked or told but VSE_ENDED. */
static void close_call(struct vse_call *c)
{
	if (client_of(c))
		client_forget(c->cluster->client, c->id);
	c->over = true;
	input_destroy(c->from);
	c->from = NULL;
}

static void leave_cluster(struct vse_call *c)
{
	if (!c->cluster)
		return;
	struct vse_call **at = &c->cluster->calls;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->cluster = NULL;
}

static void destroy(struct vse_call *c)
{
	free(c->codes);
	free(c->owed[0]);
	free(c->owed[1]);
	free(c);
}

void vse_call_free(struct vse_call *c)
{
	if (!c || c->dead)
		return;
	close_call(c);
	leave_cluster(c);
	c->dead = true;
	if (!c->busy)
		destroy(c);
}

/* ---- telling ---- */

static void tell(struct vse_call *c, const struct vse_event *e)
{
	if (c->fn && !c->dead && c->fn(c->arg, e) && !c->over) {
		close_call(c);
		err_set(&c->err, ECANCELED, "the caller ended it");
	}
}

static void hold(struct vse_call *c)
{
	c->busy++;
}

static void let_go(struct vse_call *c)
{
	if (--c->busy == 0 && c->dead)
		destroy(c);
}

static void tell_end(struct vse_call *c)
{
	hold(c);
	tell(c, &(struct vse_event){.kind = VSE_ENDED,
				    .text = c->err.text,
				    .what = {"code"},
				    .number = {c->err.code}});
	let_go(c);
}

void call_orphan(struct vse_call *c)
{
	bool told = c->over;
	close_call(c);
	leave_cluster(c);
	if (told)
		return;
	err_set(&c->err, ECANCELED, "the connection to the cluster was released");
	tell_end(c);
}

/* ---- output ---- */

void vse_credit(struct vse_call *c, uint32_t rank, int stream, uint32_t bytes)
{
	if (client_of(c) && bytes)
		client_credit(client_of(c), c->id, rank, stream, bytes);
}

/* In large pieces: credit for a few bytes would make the VM send a few bytes, for ever. */
static void dealt_with(struct vse_call *c, uint32_t rank, int stream, size_t n)
{
	if (c->manual || rank >= c->size)
		return;
	uint32_t *owed = &c->owed[stream == 2][rank];
	*owed += (uint32_t)n;
	if (*owed < c->window / 4)
		return;
	vse_credit(c, rank, stream, *owed);
	*owed = 0;
}

static void on_data(void *arg, uint32_t rank, int stream, const char *p, size_t n, bool eof)
{
	struct vse_call *c = arg;
	char ranks[16];
	snprintf(ranks, sizeof(ranks), "%u", rank);
	hold(c);
	tell(c, &(struct vse_event){.kind = VSE_OUTPUT,
				    .ranks = ranks,
				    .data = p,
				    .n = n,
				    .what = {"stream", "eof"},
				    .number = {stream == 2 ? 2 : 1, eof}});
	if (!c->over)
		dealt_with(c, rank, stream, n);
	let_go(c);
}

/* ---- events ---- */

static void on_exited(struct vse_call *c, const json_t *j, const struct rankset *set, const char *ranks)
{
	json_int_t code = json_integer_value(json_object_get(j, "code"));
	json_int_t signo = json_integer_value(json_object_get(j, "signal"));
	code = signo ? 128 + signo : code;
	code = code < 0 || code > 255 ? 255 : code;
	for (uint32_t r = rankset_next(set, 0); r < c->size; r = rankset_next(set, r + 1))
		c->codes[r] = (int16_t)code;
	c->code = MAX(c->code, (int)code);
	tell(c, &(struct vse_event){.kind = VSE_EXITED,
				    .ranks = ranks,
				    .what = {"code", "signal"},
				    .number = {code, signo}});
}

static void on_failed(struct vse_call *c, const json_t *j, const char *ranks)
{
	const char *why = json_string_value(json_object_get(j, "error"));
	_cleanup_free_ char *text = text_cleaned(why ? why : "failed");
	c->code = MAX(c->code, 1);
	tell(c, &(struct vse_event){.kind = VSE_FAILED, .ranks = ranks, .text = text});
}

static void on_exec_event(void *arg, const json_t *j)
{
	struct vse_call *c = arg;
	const char *what = json_string_value(json_object_get(j, "event"));
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	_cleanup_buf_ struct buf ranks = BUF_INIT;
	if (!what || !message_ranks(j, &set))
		return;
	rankset_format(&set, &ranks);
	hold(c);
	if (strcmp(what, "error") == 0)
		on_failed(c, j, buf_cstr(&ranks));
	else if (strcmp(what, "exit") == 0)
		on_exited(c, j, &set, buf_cstr(&ranks));
	let_go(c);
}

static void on_happened(void *arg, const json_t *j)
{
	struct vse_call *c = arg;
	const json_t *rank = json_object_get(j, "rank");
	_cleanup_free_ char *line = json_dumps(j, JSON_COMPACT),
			    *text = text_cleaned(json_string_value(json_object_get(j, "text")));
	char ranks[24] = "";
	if (json_is_integer(rank))
		snprintf(ranks, sizeof(ranks), "%lld", (long long)json_integer_value(rank));
	hold(c);
	tell(c, &(struct vse_event){.kind = VSE_HAPPENED,
				    .ranks = ranks,
				    .text = text,
				    .json = line,
				    .what = {"time_ns", "rank"},
				    .number = {json_integer_value(json_object_get(j, "time_ns")),
					       json_is_integer(rank) ? json_integer_value(rank) : -1}});
	let_go(c);
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct vse_call *c = arg;
	c->id = 0;
	c->over = true;
	input_destroy(c->from);
	c->from = NULL;
	if (!reply && !(c->follows && err->code == ESHUTDOWN))
		c->err = *err;
	tell_end(c);
}

/* ---- stdin ---- */

static void update_input(struct vse_call *c)
{
	if (c->from)
		input_want(c->from, c->credit && !c->input_eof);
}

static void on_credit(void *arg, uint32_t rank _unused_, uint32_t bytes)
{
	struct vse_call *c = arg;
	c->credit += bytes;
	update_input(c);
	if (c->from || !c->input)
		return;
	hold(c);
	tell(c, &(struct vse_event){
			.kind = VSE_WRITABLE, .what = {"bytes"}, .number = {(int64_t)c->credit}});
	let_go(c);
}

static void on_input(void *arg, int events _unused_)
{
	struct vse_call *c = arg;
	char chunk[STDIN_CHUNK];
	ssize_t n = input_read(c->from, chunk, MIN(sizeof(chunk), c->credit));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	c->input_eof = n <= 0;
	size_t len = n > 0 ? (size_t)n : 0;
	c->credit -= len;
	client_data(c->cluster->client, c->id, FRAME_ALL, chunk, len, c->input_eof);
	update_input(c);
}

long vse_write(struct vse_call *c, const void *p, size_t n)
{
	if (!c->input || c->from)
		return -EINVAL;
	if (!client_of(c) || c->input_eof)
		return -EPIPE;
	n = MIN(MIN(n, (size_t)STDIN_CHUNK), c->credit);
	c->credit -= n;
	if (n)
		client_data(client_of(c), c->id, FRAME_ALL, p, n, false);
	return (long)n;
}

void vse_write_end(struct vse_call *c)
{
	if (!client_of(c) || !c->input || c->input_eof)
		return;
	c->input_eof = true;
	client_data(client_of(c), c->id, FRAME_ALL, NULL, 0, true);
}

int vse_read_from(struct vse_call *c, int fd, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	if (!c->input || c->from)
		return error_set(err, EINVAL, "this call reads no input, or reads it already");
	if (!client_of(c))
		return error_set(err, EPIPE, "the call has ended");
	c->from = input_create(c->session->loop, fd, on_input, c);
	if (!c->from)
		return error_set(err, EBADF, "descriptor %d: cannot be read", fd);
	update_input(c);
	return 0;
}

/* ---- */

void vse_signal(struct vse_call *c, int signo)
{
	if (client_of(c))
		client_message(client_of(c), c->id,
			       json_pack("{s:s, s:i}", "verb", "signal", "signal", signo));
}

void vse_resize(struct vse_call *c, unsigned rows, unsigned cols)
{
	if (client_of(c))
		client_message(client_of(c), c->id,
			       json_pack("{s:s, s:i, s:i}", "verb", "resize", "rows", (int)rows,
					 "cols", (int)cols));
}

int vse_exit_code(const struct vse_call *c, uint32_t rank)
{
	return rank < c->size ? c->codes[rank] : UNKNOWN;
}

int vse_exit_code_max(const struct vse_call *c)
{
	return c->code;
}

int vse_wait(struct vse_call *c, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	struct vse_session *s = c->session;
	int rc = session_enter(s, err);
	if (rc)
		return rc;
	hold(c);
	while (!c->over && !s->cancelled)
		loop_run_once(s->loop);
	if (!c->over) {
		close_call(c);
		err_set(&c->err, ECANCELED, "cancelled");
	}
	s->cancelled = false;
	err->err = c->err;
	let_go(c);
	session_leave(s);
	return err->err.code ? error_code(err) : 0;
}

/* ---- making them ---- */

static struct vse_call *call_new(struct vse_cluster *cluster, vse_callback *fn, void *arg)
{
	struct vse_call *c = xcalloc(1, sizeof(*c));
	c->session = cluster->session;
	c->cluster = cluster;
	c->fn = fn;
	c->arg = arg;
	c->next = cluster->calls;
	cluster->calls = c;
	return c;
}

static json_t *list(const char *const *words, size_t n)
{
	json_t *j = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(j, json_string(words[i]));
	return j;
}

/* NULL: an argument is no text. */
static json_t *exec_request(const struct vse_options *o, const char *ranks, const char *const *argv,
			    uint32_t window)
{
	size_t n = 0;
	while (argv[n])
		if (!text_is_utf8(argv[n++]))
			return NULL;
	const struct strvec *env = options_all(o, "env");
	return json_pack("{s:s, s:s, s:o, s:o, s:s*, s:s*, s:i, s:i, s:i, s:i, s:i}", "verb",
			 "exec", "ranks", ranks, "argv", list(argv, n), "env",
			 list((const char *const *)env->v, env->n), "user", options_text(o, "user"),
			 "cwd", options_text(o, "cwd"), "tty", options_flag(o, "tty"), "rows",
			 (int)options_int(o, "rows", 24), "cols", (int)options_int(o, "cols", 80),
			 "stdin", options_flag(o, "stdin"), "window", (int)window);
}

static uint32_t exec_window(const struct vse_options *o, uint32_t n)
{
	uint32_t fair = MIN(MAX(WINDOW_TOTAL / n, 16u << 10), 256u << 10);
	uint64_t asked = options_size(o, "window", 0);
	return asked ? (uint32_t)MIN(asked, (uint64_t)WINDOW_TOTAL) : fair;
}

/* How many VMs run it; 0 with the reason. */
static uint32_t exec_count(const struct vse_options *o, const char *ranks, uint32_t size,
			   struct vse_error *e)
{
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	if (rankset_parse(&set, ranks, size, &e->err) < 0) {
		e->usage = true;
		return 0;
	}
	uint32_t n = rankset_count(&set);
	if (options_flag(o, "tty") && n != 1) {
		error_option(e, "tty", " goes with one VM: say which rank");
		return 0;
	}
	return n;
}

int vse_exec(struct vse_cluster *cluster, const struct vse_options *o, const char *const *argv,
	     vse_callback *fn, void *arg, struct vse_call **ret, struct vse_error *err)
{
	static const struct client_ops ops = {.on_event = on_exec_event,
					      .on_data = on_data,
					      .on_credit = on_credit,
					      .on_end = on_end};
	ERROR_OR_OWN(err);
	const char *ranks = options_text(o, "ranks"), *flow = options_text(o, "flow");
	int rc = options_check(o, FOR_EXEC, err), size = rc ? rc : vse_size(cluster, err);
	if (size < 0)
		return size;
	if (!ranks)
		ranks = "all";
	uint32_t n = exec_count(o, ranks, (uint32_t)size, err);
	if (!n)
		return error_code(err);
	uint32_t window = exec_window(o, n);
	json_t *req = argv[0] ? exec_request(o, ranks, argv, window) : NULL;
	if (!req)
		return error_set(err, EINVAL, argv[0] ? "the command is not UTF-8 text" : "no command");
	struct vse_call *c = call_new(cluster, fn, arg);
	c->size = (uint32_t)size;
	c->codes = xcalloc(c->size, sizeof(*c->codes));
	memset(c->codes, 0xff, c->size * sizeof(*c->codes)); /* UNKNOWN */
	c->owed[0] = xcalloc(c->size, sizeof(uint32_t));
	c->owed[1] = xcalloc(c->size, sizeof(uint32_t));
	c->manual = flow && strcmp(flow, "manual") == 0;
	c->window = window;
	c->input = options_flag(o, "stdin");
	c->credit = c->input ? GUESTPROTO_STDIN_WINDOW : 0;
	c->id = client_call(cluster->client, req, &ops, c);
	*ret = c;
	return 0;
}

int vse_events(struct vse_cluster *cluster, const struct vse_options *o, vse_callback *fn,
	       void *arg, struct vse_call **ret, struct vse_error *err)
{
	static const struct client_ops ops = {.on_event = on_happened, .on_end = on_end};
	ERROR_OR_OWN(err);
	int rc = options_check(o, FOR_FOLLOW, err);
	if (rc)
		return rc;
	struct vse_call *c = call_new(cluster, fn, arg);
	c->follows = true;
	c->id = client_call(cluster->client,
			    json_pack("{s:s, s:b}", "verb", "events", "follow",
				      options_flag(o, "follow")),
			    &ops, c);
	*ret = c;
	return 0;
}

int vse_logs(struct vse_cluster *cluster, const struct vse_options *o, uint32_t rank,
	     vse_callback *fn, void *arg, struct vse_call **ret, struct vse_error *err)
{
	static const struct client_ops ops = {.on_data = on_data, .on_end = on_end};
	ERROR_OR_OWN(err);
	int rc = options_check(o, FOR_FOLLOW, err);
	if (rc)
		return rc;
	struct vse_call *c = call_new(cluster, fn, arg);
	c->follows = true;
	c->id = client_call(cluster->client,
			    json_pack("{s:s, s:I, s:b, s:i}", "verb", "logs", "rank", (json_int_t)rank,
				      "follow", options_flag(o, "follow"), "tail", LOG_ALL),
			    &ops, c);
	*ret = c;
	return 0;
}
