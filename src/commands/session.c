/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/session.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "base/alloc.h"
#include "base/text.h"
#include "commands/common.h"
#include "commands/fold.h"
#include "commands/input.h"
#include "wire/guestproto.h"

#define WINDOW_TOTAL (16u << 20) /* bytes of output on the way, of all VMs together */
#define STDIN_CHUNK (64u << 10)

struct session {
	const struct command *cmd;
	struct client *client;
	uint32_t id;
	struct rankset ranks, failed;
	struct fold *out, *errs;
	int code;              /* greatest so far */
	struct rankset *codes; /* [256]: which VMs ended with which code */
	bool over;
	int ended_by; /* signal: the user left, or the reader of the output did */
	unsigned interrupts;
	struct err err; /* of the call as a whole */

	bool tty;
	struct termios saved;
	bool raw;
	struct input *input;
	uint64_t credit; /* bytes of stdin that may be sent */
	bool input_eof;
};

/* ---- output ---- */

static void on_written(void *arg, struct fold *f, uint32_t rank, uint32_t bytes)
{
	struct session *s = arg;
	client_credit(s->client, s->id, rank, f == s->errs ? 2 : 1, bytes);
}

static void on_data(void *arg, uint32_t rank, int fd, const char *p, size_t n, bool eof)
{
	struct session *s = arg;
	struct fold *f = fd == 2 ? s->errs : s->out;
	fold_add(f, rank, p, n, eof);
	if (fold_error(f) && !s->over) { /* nobody reads any more: as a local program would get SIGPIPE */
		err_set(&s->err, fold_error(f), "write output: %s", strerror(fold_error(f)));
		s->ended_by = fold_error(f) == EPIPE ? SIGPIPE : 0;
		s->over = true;
	}
}

/* ---- stdin ---- */

static void update_input(struct session *s)
{
	if (s->input)
		input_want(s->input, s->credit && !s->input_eof);
}

static void on_input(void *arg, int events _unused_)
{
	struct session *s = arg;
	char chunk[STDIN_CHUNK];
	ssize_t n = input_read(s->input, chunk, MIN(sizeof(chunk), s->credit));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	s->input_eof = n <= 0;
	size_t len = n > 0 ? (size_t)n : 0;
	s->credit -= len;
	client_data(s->client, s->id, FRAME_ALL, chunk, len, s->input_eof);
	update_input(s);
}

static void on_credit(void *arg, uint32_t rank _unused_, uint32_t bytes)
{
	struct session *s = arg;
	s->credit += bytes;
	update_input(s);
}

/* ---- events ---- */

static void end_rank(struct session *s, uint32_t rank)
{
	fold_end_rank(s->out, rank);
	fold_end_rank(s->errs, rank);
}

static void on_exit_event(struct session *s, const json_t *e, uint32_t rank)
{
	json_int_t code = json_integer_value(json_object_get(e, "code"));
	json_int_t signo = json_integer_value(json_object_get(e, "signal"));
	int got = signo ? 128 + (int)signo : (int)code;
	got = got < 0 || got > 255 ? 255 : got;
	rankset_add(&s->codes[got], rank);
	s->code = MAX(s->code, got);
	end_rank(s, rank);
}

static void on_error_event(struct session *s, const json_t *e, const struct rankset *ranks)
{
	const char *why = json_string_value(json_object_get(e, "error"));
	_cleanup_free_ char *text = text_cleaned(why ? why : "failed"), *name = common_vm_names(ranks);
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1)) {
		end_rank(s, r);
		rankset_add(&s->failed, r);
	}
	size_t n = strlen(name);
	bool named = strncmp(text, name, n) == 0 && text[n] == ':';
	fprintf(stderr, "vse %s: %s%s%s\n", s->cmd->name, named ? "" : name, named ? "" : ": ", text);
	s->code = MAX(s->code, EXIT_FAILED);
}

static void on_event(void *arg, const json_t *e)
{
	struct session *s = arg;
	const char *what = json_string_value(json_object_get(e, "event"));
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	if (!what || !common_event_ranks(e, &ranks))
		return;
	if (strcmp(what, "error") == 0)
		on_error_event(s, e, &ranks);
	for (uint32_t r = rankset_next(&ranks, 0); r != UINT32_MAX && strcmp(what, "exit") == 0;
	     r = rankset_next(&ranks, r + 1))
		on_exit_event(s, e, r);
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct session *s = arg;
	s->over = true;
	if (!reply && !s->err.code)
		s->err = *err;
}

static const struct client_ops ops = {
	.on_event = on_event, .on_data = on_data, .on_credit = on_credit, .on_end = on_end};

static void on_interrupt(void *arg, int signo)
{
	struct session *s = arg;
	/* The first goes to the programs; who insists leaves at once. */
	if (s->interrupts++ || signo != SIGINT) {
		s->over = true;
		s->ended_by = signo;
		return;
	}
	client_message(s->client, s->id, json_pack("{s:s, s:i}", "verb", "signal", "signal", signo));
}

/* ---- the terminal ---- */

static void on_winch(void *arg, int signo _unused_)
{
	struct session *s = arg;
	struct winsize w;
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &w) == 0)
		client_message(s->client, s->id,
			       json_pack("{s:s, s:i, s:i}", "verb", "resize", "rows", w.ws_row,
					 "cols", w.ws_col));
}

static void terminal_raw(struct session *s)
{
	struct termios t;
	if (!s->tty || tcgetattr(STDIN_FILENO, &s->saved) < 0)
		return;
	t = s->saved;
	cfmakeraw(&t);
	s->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &t) == 0;
}

static void terminal_restore(struct session *s)
{
	if (s->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &s->saved);
	s->raw = false;
}

/* ---- */

static json_t *request(const struct args *a, const char *ranks, bool tty, bool input,
		       uint32_t window, char *const *argv)
{
	json_t *list = json_array(), *env = json_array();
	for (; *argv; argv++)
		json_array_append_new(list, json_string(*argv));
	const struct strvec *vars = arg_values(a, "env");
	for (size_t i = 0; i < vars->n; i++)
		json_array_append_new(env, json_string(vars->v[i]));
	struct winsize w = {.ws_row = 24, .ws_col = 80};
	if (tty) {
		ioctl(STDIN_FILENO, TIOCGWINSZ, &w);
		const char *term = getenv("TERM");
		bool good = term && text_is_utf8(term);
		json_array_append_new(env, json_sprintf("TERM=%s", good ? term : "dumb"));
	}
	return json_pack("{s:s, s:s, s:o, s:o, s:s*, s:s*, s:i, s:i, s:i, s:i, s:i}", "verb", "exec",
			 "ranks", ranks, "argv", list, "env", env, "user", arg_value(a, "user"),
			 "cwd", arg_value(a, "cwd"), "tty", tty, "rows", (int)w.ws_row, "cols",
			 (int)w.ws_col, "stdin", input, "window", (int)window);
}

/* Every VM that ended with something else than 0, when there were several. */
static void print_codes(struct session *s)
{
	for (int code = 1; code < 256 && rankset_count(&s->ranks) > 1; code++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		if (!rankset_count(&s->codes[code]))
			continue;
		rankset_format(&s->codes[code], &b);
		bool one = rankset_count(&s->codes[code]) == 1;
		fprintf(stderr, one ? "vse %s: vm%s: " : "vse %s: vm[%s]: ", s->cmd->name,
			buf_cstr(&b));
		const char *signo = code > 128 ? sigabbrev_np(code - 128) : NULL;
		if (signo)
			fprintf(stderr, "exit %d (SIG%s)\n", code, signo);
		else
			fprintf(stderr, "exit %d\n", code);
	}
}

int session_check(const struct command *cmd, const struct args *a, const char *ranks, uint32_t size)
{
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	struct err err = ERR_INIT;
	const struct strvec *vars = arg_values(a, "env");
	for (size_t i = 0; i < vars->n; i++)
		if (!strchr(vars->v[i], '=') || vars->v[i][0] == '=')
			return command_usage(cmd, "--env %s: not NAME=VALUE", vars->v[i]);
	if (rankset_parse(&set, ranks, size, &err) < 0)
		return command_usage(cmd, "%s", err.text);
	if (arg_flag(a, "tty") && rankset_count(&set) != 1)
		return command_usage(cmd, "--tty goes with one VM: add --rank R");
	if (arg_flag(a, "tty") && !isatty(STDIN_FILENO))
		return command_usage(cmd, "--tty: stdin is no terminal");
	return 0;
}

static bool labels(const struct args *a, bool several)
{
	const char *when = arg_value(a, "label");
	return !when || strcmp(when, "auto") == 0 ? several : strcmp(when, "always") == 0;
}

static void drive(struct session *s, json_t *req, bool input)
{
	struct loop *loop = client_loop(s->client);
	struct interrupts *in = interrupts_create(loop, on_interrupt, s);
	struct sigwatch *winch = s->tty ? sigwatch_create(loop, SIGWINCH, on_winch, s) : NULL;
	s->id = client_call(s->client, req, &ops, s);
	if (input && !s->over) {
		s->credit = GUESTPROTO_STDIN_WINDOW;
		s->input = input_create(loop, STDIN_FILENO, on_input, s);
		if (!s->input)
			client_data(s->client, s->id, FRAME_ALL, NULL, 0, true);
		update_input(s);
	}
	terminal_raw(s);
	while (!s->over)
		loop_run_once(loop);
	terminal_restore(s);
	client_forget(s->client, s->id);
	input_destroy(s->input);
	sigwatch_destroy(winch);
	interrupts_destroy(in);
}

int session_run(const struct command *cmd, const struct args *a, struct client *c,
		const char *ranks, uint32_t size, char *const *argv)
{
	struct session s = {.cmd = cmd, .client = c};
	struct err err = ERR_INIT;
	int code = session_check(cmd, a, ranks, size);
	if (code)
		return code;
	rankset_parse(&s.ranks, ranks, size, &err);
	uint32_t n = rankset_count(&s.ranks);
	bool label = labels(a, n > 1);
	s.tty = arg_flag(a, "tty");
	bool input = !arg_flag(a, "no-stdin") &&
		     (s.tty || arg_flag(a, "interactive") || !isatty(STDIN_FILENO));
	uint32_t window = MIN(MAX(WINDOW_TOTAL / n, 16u << 10), 256u << 10);
	s.codes = xcalloc(256, sizeof(*s.codes));
	s.out = fold_create(client_loop(c), STDOUT_FILENO, label, &s.ranks, window, on_written, &s);
	s.errs = fold_create(client_loop(c), STDERR_FILENO, label, &s.ranks, window, on_written, &s);
	drive(&s, request(a, ranks, s.tty, input, window, argv), input);
	fold_flush(s.out);
	fold_flush(s.errs);
	print_codes(&s);
	code = s.code;
	if (s.ended_by)
		code = 128 + s.ended_by;
	else if (s.err.code)
		code = command_fail(cmd, &s.err);
	fold_destroy(s.out);
	fold_destroy(s.errs);
	for (int i = 0; i < 256; i++)
		rankset_finish(&s.codes[i]);
	free(s.codes);
	rankset_finish(&s.ranks);
	rankset_finish(&s.failed);
	return code;
}
