/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <termios.h>

#include "base/path.h"
#include "base/size.h"
#include "commands/common.h"
#include "client/input.h"

#define ESCAPE 0x1d  /* Ctrl-] : as telnet and virsh console */
#define LAST_MS 1000 /* for what is printed after the input has ended */
#define TAIL 2048    /* bytes of what was printed before, for orientation */

struct attached {
	struct client *client;
	uint32_t id;
	bool over, raw;
	int signo; /* that ended it */
	struct termios saved;
	struct input *input;
	struct evtimer *last;
	struct err err;
};

static void on_data(void *arg, uint32_t rank _unused_, int fd _unused_, const char *p, size_t n,
		    bool eof _unused_)
{
	struct attached *at = arg;
	if (fd_write_all(STDOUT_FILENO, p, n) < 0) {
		at->over = true;
		if (errno == EPIPE)
			at->signo = SIGPIPE; /* as it would have ended a local program */
		else
			err_errno(&at->err, errno, "write output");
	}
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct attached *at = arg;
	at->over = true;
	if (!reply && err->code != ESHUTDOWN)
		at->err = *err;
}

static const struct client_ops ops = {.on_data = on_data, .on_end = on_end};

static void on_input(void *arg, int events _unused_)
{
	struct attached *at = arg;
	char keys[4096];
	ssize_t n = input_read(at->input, keys, sizeof(keys));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* a pipe that ended: what the VM answers to it is still worth reading, but not for ever */
		input_want(at->input, false);
		if (isatty(STDIN_FILENO))
			at->over = true;
		else
			evtimer_start(at->last, LAST_MS, 0);
		return;
	}
	const char *leave = at->raw ? memchr(keys, ESCAPE, (size_t)n) : NULL;
	if (leave) {
		n = leave - keys;
		at->over = true;
	}
	if (n)
		client_data(at->client, at->id, 0, keys, (size_t)n, false);
}

static void on_interrupt(void *arg, int signo)
{
	struct attached *at = arg;
	at->over = true;
	at->signo = signo;
}

static void on_last(void *arg)
{
	struct attached *at = arg;
	at->over = true;
}

static void terminal(struct attached *at)
{
	struct termios t;
	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &at->saved) < 0)
		return;
	fprintf(stderr, "[console: Ctrl-] leaves; a shell is had by 'vse exec -t -r R -- sh']\r\n");
	t = at->saved;
	cfmakeraw(&t);
	at->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &t) == 0;
}

static int run(const struct command *cmd, struct args *a)
{
	struct attached at = {0};
	int64_t rank;
	if (int_parse(common_vm_text(a->operands[0]), 0, 999999, &rank, &at.err) < 0)
		return command_usage(cmd, "%s: not a VM (such as vm3 or 3)", a->operands[0]);
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_cluster *cluster;
	if (common_connect(arg_value(a, "cluster"), &cluster, &e))
		return common_fail(cmd, &e);
	struct loop *loop = cluster->session->loop;
	at.client = cluster->client;
	struct interrupts *in = interrupts_create(loop, on_interrupt, &at);
	at.id = client_call(at.client,
			    json_pack("{s:s, s:I, s:i}", "verb", "console", "rank",
				      (json_int_t)rank, "tail", TAIL),
			    &ops, &at);
	at.last = evtimer_create(loop, on_last, &at);
	at.input = input_create(loop, STDIN_FILENO, on_input, &at);
	if (at.input)
		input_want(at.input, true);
	terminal(&at);
	while (!at.over)
		loop_run_once(loop);
	if (at.raw) {
		tcsetattr(STDIN_FILENO, TCSADRAIN, &at.saved);
		fputc('\n', stderr);
	}
	input_destroy(at.input);
	evtimer_destroy(at.last);
	client_forget(at.client, at.id);
	interrupts_destroy(in);
	common_disconnect(cluster);
	if (at.err.code)
		return common_refused(cmd, &at.err);
	return at.signo ? 128 + at.signo : EXIT_OK;
}

static const struct option_spec options[] = {OPTION_CLUSTER, {0}};

const struct command command_console = {
	.name = "console",
	.summary = "attach to the console of a VM (Ctrl-] leaves)",
	.usage = "VM",
	.options = options,
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
