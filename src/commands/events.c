/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/time.h"
#include "client/options.h"
#include "commands/common.h"

struct follow {
	struct vse_session *session;
	bool json;
	int signo; /* that interrupted it */
	int error; /* errno of stdout */
};

static int on_event(void *arg, const struct vse_event *e)
{
	struct follow *f = arg;
	char when[24], who[16] = "cluster";
	if (vse_event_kind(e) != VSE_HAPPENED)
		return 0;
	if (f->json) {
		puts(vse_event_json(e));
	} else {
		if (vse_event_ranks(e)[0])
			snprintf(who, sizeof(who), "vm%.12s", vse_event_ranks(e));
		time_format((uint64_t)vse_event_number(e, "time_ns") / 1000000000u, when);
		printf("%s %-8s %s\n", when, who, vse_event_text(e));
	}
	if (fflush(stdout) != 0 || ferror(stdout))
		f->error = errno ? errno : EIO;
	return f->error != 0;
}

static void on_interrupt(void *arg, int signo)
{
	struct follow *f = arg;
	f->signo = signo;
	vse_cancel(f->session);
}

static int follow(struct vse_cluster *c, struct follow *f, const struct vse_options *o,
		  struct vse_error *e)
{
	struct vse_call *call;
	int rc = vse_events(c, o, on_event, f, &call, e);
	if (rc)
		return rc;
	struct interrupts *in = interrupts_create(c->session->loop, on_interrupt, f);
	rc = vse_wait(call, e);
	interrupts_destroy(in);
	vse_call_free(call);
	return f->signo || f->error ? 0 : rc;
}

static int run(const struct command *cmd, struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct follow f = {.json = arg_flag(a, "json")};
	struct vse_cluster *c;
	struct vse_options *o;
	int code = common_options(cmd, a, FOR_FOLLOW, &o);
	if (code)
		return code;
	int rc = common_connect(a->n_operands ? a->operands[0] : arg_value(a, "cluster"), &c, &e);
	if (rc == 0) {
		f.session = c->session;
		rc = follow(c, &f, o, &e);
		common_disconnect(c);
	}
	vse_options_free(o);
	if (rc)
		return common_fail(cmd, &e);
	errno = f.error; /* of what command_main() finds wrong with stdout */
	return f.signo ? 128 + f.signo : EXIT_OK;
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	{"follow", 'f', NULL, "go on with what happens from now on", NULL},
	OPTION_JSON,
	{0},
};

const struct command command_events = {
	.name = "events",
	.summary = "what happened in a cluster",
	.usage = "[NAME]",
	.details = "With --json one object a line.",
	.options = options,
	.max_args = 1,
	.complete = "cluster",
	.run = run,
};
