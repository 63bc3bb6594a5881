/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/session.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "base/alloc.h"
#include "base/text.h"
#include "client/options.h"
#include "commands/common.h"
#include "commands/fold.h"

#define WINDOW_TOTAL (16u << 20) /* bytes of output on the way, of all VMs together */

struct session {
	const struct command *cmd;
	struct vse_session *library;
	struct vse_call *call;
	struct rankset ranks;
	struct fold *out, *errs;
	int code;              /* greatest so far */
	struct rankset *codes; /* [256]: which VMs ended with which code */
	int ended_by;          /* signal: the user left, or the reader of the output did */
	unsigned interrupts;
	struct err err; /* of our output */

	bool tty;
	struct termios saved;
	bool raw;
};

/* ---- output ---- */

static void on_written(void *arg, struct fold *f, uint32_t rank, uint32_t bytes)
{
	struct session *s = arg;
	if (s->call)
		vse_credit(s->call, rank, f == s->errs ? 2 : 1, bytes);
}

static int on_output(struct session *s, const struct vse_event *e)
{
	struct fold *f = vse_event_number(e, "stream") == 2 ? s->errs : s->out;
	size_t n;
	const char *p = vse_event_data(e, &n);
	uint32_t rank = (uint32_t)strtoul(vse_event_ranks(e), NULL, 10);
	fold_add(f, rank, p, n, vse_event_number(e, "eof") == 1);
	if (!fold_error(f))
		return 0;
	/* Nobody reads any more: as a local program would get SIGPIPE. */
	err_set(&s->err, fold_error(f), "write output: %s", strerror(fold_error(f)));
	s->ended_by = fold_error(f) == EPIPE ? SIGPIPE : 0;
	return 1;
}

/* ---- events ---- */

static void end_ranks(struct session *s, const struct rankset *ranks)
{
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1)) {
		fold_end_rank(s->out, r);
		fold_end_rank(s->errs, r);
	}
}

static void on_exited(struct session *s, int code, const struct rankset *ranks)
{
	for (uint32_t r = rankset_next(ranks, 0); r != UINT32_MAX; r = rankset_next(ranks, r + 1))
		rankset_add(&s->codes[code], r);
	s->code = MAX(s->code, code);
	end_ranks(s, ranks);
}

static void on_failed(struct session *s, const char *text, const struct rankset *ranks)
{
	_cleanup_free_ char *name = common_vm_names(ranks);
	end_ranks(s, ranks);
	size_t n = strlen(name);
	bool named = strncmp(text, name, n) == 0 && text[n] == ':';
	fprintf(stderr, "vse %s: %s%s%s\n", s->cmd->name, named ? "" : name, named ? "" : ": ", text);
	s->code = MAX(s->code, EXIT_FAILED);
}

static int on_event(void *arg, const struct vse_event *e)
{
	struct session *s = arg;
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	int kind = vse_event_kind(e);
	if (kind == VSE_OUTPUT)
		return on_output(s, e);
	if (kind != VSE_EXITED && kind != VSE_FAILED)
		return 0;
	rankset_parse(&ranks, vse_event_ranks(e), RANK_MAX, NULL);
	if (kind == VSE_EXITED)
		on_exited(s, (int)vse_event_number(e, "code"), &ranks);
	else
		on_failed(s, vse_event_text(e), &ranks);
	return 0;
}

static void on_interrupt(void *arg, int signo)
{
	struct session *s = arg;
	/* The first goes to the programs; who insists leaves at once. */
	if (s->interrupts++ || signo != SIGINT) {
		s->ended_by = signo;
		vse_cancel(s->library);
		return;
	}
	vse_signal(s->call, signo);
}

/* ---- the terminal ---- */

static void on_winch(void *arg, int signo _unused_)
{
	struct session *s = arg;
	struct winsize w;
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &w) == 0)
		vse_resize(s->call, w.ws_row, w.ws_col);
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

/* ---- options ---- */

static int set_number(struct vse_options *o, const char *key, unsigned n)
{
	char text[16];
	snprintf(text, sizeof(text), "%u", n);
	return vse_options_set(o, key, text, NULL);
}

static void set_terminal(struct vse_options *o)
{
	struct winsize w = {.ws_row = 24, .ws_col = 80};
	const char *term = getenv("TERM");
	_cleanup_free_ char *set = xasprintf("TERM=%s", term && text_is_utf8(term) ? term : "dumb");
	ioctl(STDIN_FILENO, TIOCGWINSZ, &w);
	set_number(o, "rows", w.ws_row);
	set_number(o, "cols", w.ws_col);
	vse_options_set(o, "env", set, NULL);
}

int session_check(const struct command *cmd, const struct args *a, const char *ranks, uint32_t size)
{
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	struct err err = ERR_INIT;
	struct vse_options *o;
	int code = common_options(cmd, a, FOR_EXEC, &o);
	if (code)
		return code;
	vse_options_free(o);
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

/* ---- */

static int drive(struct session *s, struct vse_cluster *c, const struct vse_options *o,
		 const char *const *argv, bool input, struct vse_error *e)
{
	struct loop *loop = s->library->loop;
	struct interrupts *in = interrupts_create(loop, on_interrupt, s);
	struct sigwatch *winch = s->tty ? sigwatch_create(loop, SIGWINCH, on_winch, s) : NULL;
	int rc = vse_exec(c, o, argv, on_event, s, &s->call, e);
	if (rc == 0) {
		if (input && vse_read_from(s->call, STDIN_FILENO, NULL))
			vse_write_end(s->call); /* closed */
		terminal_raw(s);
		rc = vse_wait(s->call, e);
		terminal_restore(s);
	}
	sigwatch_destroy(winch);
	interrupts_destroy(in);
	return rc;
}

static int finish(struct session *s, int rc, const struct vse_error *e)
{
	fold_flush(s->out);
	fold_flush(s->errs);
	print_codes(s);
	int code = s->code;
	if (s->ended_by)
		code = 128 + s->ended_by;
	else if (s->err.code)
		code = command_fail(s->cmd, &s->err);
	else if (rc)
		code = command_fail(s->cmd, &e->err);
	fold_destroy(s->out);
	fold_destroy(s->errs);
	vse_call_free(s->call);
	for (int i = 0; i < 256; i++)
		rankset_finish(&s->codes[i]);
	free(s->codes);
	rankset_finish(&s->ranks);
	return code;
}

int session_run(const struct command *cmd, const struct args *a, struct vse_cluster *c,
		const char *ranks, char *const *argv)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct session s = {.cmd = cmd, .library = c->session, .tty = arg_flag(a, "tty")};
	struct vse_options *o;
	uint32_t size = (uint32_t)vse_size(c, NULL);
	int code = session_check(cmd, a, ranks, size);
	if (!code)
		code = common_options(cmd, a, FOR_EXEC, &o);
	if (code)
		return code;
	rankset_parse(&s.ranks, ranks, size, NULL);
	uint32_t n = rankset_count(&s.ranks),
		 window = MIN(MAX(WINDOW_TOTAL / n, 16u << 10), 256u << 10);
	bool input = !arg_flag(a, "no-stdin") &&
		     (s.tty || arg_flag(a, "interactive") || !isatty(STDIN_FILENO));
	s.codes = xcalloc(256, sizeof(*s.codes));
	s.out = fold_create(s.library->loop, STDOUT_FILENO, labels(a, n > 1), &s.ranks, window,
			    on_written, &s);
	s.errs = fold_create(s.library->loop, STDERR_FILENO, labels(a, n > 1), &s.ranks, window,
			     on_written, &s);
	vse_options_set(o, "ranks", ranks, NULL);
	vse_options_set(o, "flow", "manual", NULL);
	vse_options_set(o, "stdin", input ? "yes" : "no", NULL);
	set_number(o, "window", window);
	if (s.tty)
		set_terminal(o);
	int rc = drive(&s, c, o, (const char *const *)argv, input, &e);
	vse_options_free(o);
	return finish(&s, rc, &e);
}
