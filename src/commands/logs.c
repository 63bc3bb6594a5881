/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/path.h"
#include "base/size.h"
#include "client/options.h"
#include "commands/common.h"

struct follow {
	struct vse_session *session;
	int signo;   /* that interrupted it */
	bool broken; /* stdout */
	struct err err;
};

static int on_event(void *arg, const struct vse_event *e)
{
	struct follow *f = arg;
	size_t n;
	const void *p = vse_event_data(e, &n);
	if (vse_event_kind(e) != VSE_OUTPUT || fd_write_all(STDOUT_FILENO, p, n) == 0)
		return 0;
	f->broken = true;
	if (errno != EPIPE)
		err_errno(&f->err, errno, "write output");
	return 1;
}

static void on_interrupt(void *arg, int signo)
{
	struct follow *f = arg;
	f->signo = signo;
	vse_cancel(f->session);
}

static int follow(struct vse_cluster *c, uint32_t rank, struct follow *f,
		  const struct vse_options *o, struct vse_error *e)
{
	struct vse_call *call;
	int rc = vse_logs(c, o, rank, on_event, f, &call, e);
	if (rc)
		return rc;
	struct interrupts *in = interrupts_create(c->session->loop, on_interrupt, f);
	rc = vse_wait(call, e);
	interrupts_destroy(in);
	vse_call_free(call);
	e->usage = e->err.code == ERANGE || e->err.code == EINVAL; /* no such VM */
	return f->signo || f->broken ? 0 : rc;
}

static int run(const struct command *cmd, struct args *a)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct follow f = {0};
	struct vse_cluster *c;
	struct vse_options *o;
	int64_t rank;
	if (int_parse(common_vm_text(a->operands[0]), 0, 999999, &rank, &f.err) < 0)
		return command_usage(cmd, "%s: not a VM (such as vm3 or 3)", a->operands[0]);
	int code = common_options(cmd, a, FOR_FOLLOW, &o);
	if (code)
		return code;
	int rc = common_connect(arg_value(a, "cluster"), &c, &e);
	if (rc == 0) {
		f.session = c->session;
		rc = follow(c, (uint32_t)rank, &f, o, &e);
		common_disconnect(c);
	}
	vse_options_free(o);
	if (rc)
		return common_fail(cmd, &e);
	if (f.signo)
		return 128 + f.signo;
	return f.err.code ? command_fail(cmd, &f.err) : EXIT_OK;
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	{"follow", 'f', NULL, "go on with what is printed from now on", NULL},
	{0},
};

const struct command command_logs = {
	.name = "logs",
	.summary = "print what a VM wrote to its console",
	.usage = "VM",
	.details =
		"The log is bounded: of a VM that prints without end the newest 1-2 MiB are kept.",
	.options = options,
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
