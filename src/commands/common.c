/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/common.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "client/options.h"

int common_fail(const struct command *cmd, const struct vse_error *e)
{
	const char *problem;
	for (size_t i = 0; (problem = vse_error_problem(e, i)); i++)
		fprintf(stderr, "%s\n", problem);
	if (vse_error_problem(e, 0))
		return EXIT_USAGE;
	if (e->usage)
		return command_usage(cmd, "%s%s", e->option[0] ? "--" : "", e->err.text);
	return command_fail(cmd, &e->err);
}

int common_connect(const char *named, struct vse_cluster **ret, struct vse_error *e)
{
	struct vse_session *s;
	int rc = vse_open(&s, e);
	if (rc)
		return rc;
	rc = vse_attach(s, named, ret, e);
	if (rc)
		vse_close(s);
	return rc;
}

void common_disconnect(struct vse_cluster *c)
{
	vse_close(c->session);
}

int common_names(struct strvec *names, struct vse_error *e)
{
	_cleanup_free_ char *text = NULL;
	struct vse_session *s;
	int rc = vse_open(&s, e);
	if (rc)
		return rc;
	rc = vse_list(s, &text, e);
	if (rc == 0)
		strvec_split(names, text, "\n");
	vse_close(s);
	return rc;
}

int common_ask(const struct command *cmd, const struct args *a, json_t *req, uint64_t bound_ms,
	       json_t **ret)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_cluster *c;
	if (common_connect(arg_value(a, "cluster"), &c, &e)) {
		json_decref(req);
		return common_fail(cmd, &e);
	}
	int rc = cluster_ask(c, req, bound_ms, ret, &e);
	common_disconnect(c);
	return rc ? common_fail(cmd, &e) : EXIT_OK;
}

int common_refused(const struct command *cmd, const struct err *err)
{
	return err->code == ERANGE || err->code == EINVAL ? command_usage(cmd, "%s", err->text)
							  : command_fail(cmd, err);
}

int common_options(const struct command *cmd, const struct args *a, int calls, struct vse_options **ret)
{
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_options *o = vse_options_new();
	for (const struct option_spec *s = cmd->options; s && s->name; s++) {
		const struct strvec *given = arg_values(a, s->name);
		for (size_t i = 0; option_known(s->name, calls) && i < given->n; i++) {
			if (!vse_options_set(o, s->name, s->argument ? given->v[i] : "yes", &e))
				continue;
			vse_options_free(o);
			return common_fail(cmd, &e);
		}
	}
	*ret = o;
	return 0;
}

const char *common_vm_text(const char *operand)
{
	return strncmp(operand, "vm", 2) == 0 && isdigit((unsigned char)operand[2]) ? operand + 2
										    : operand;
}

const char *common_ranks(const struct args *a, const char *otherwise)
{
	const char *r = arg_value(a, "rank");
	return r ? common_vm_text(r) : otherwise;
}

char *common_vm_names(const struct rankset *ranks)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	rankset_format(ranks, &text);
	return rankset_count(ranks) == 1 ? xasprintf("vm%s", buf_cstr(&text))
					 : xasprintf("vm[%s]", buf_cstr(&text));
}

void common_print_json(const json_t *j)
{
	_cleanup_free_ char *text = json_dumps(j, JSON_INDENT(2));
	puts(text ? text : "null");
}

/* ---- signals ---- */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

struct interrupts {
	struct sigwatch *watches[ARRAY_SIZE(signals)];
};

struct interrupts *interrupts_create(struct loop *l, void (*fn)(void *arg, int signo), void *arg)
{
	struct interrupts *in = xcalloc(1, sizeof(*in));
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		in->watches[i] = sigwatch_create(l, signals[i], fn, arg);
	return in;
}

void interrupts_destroy(struct interrupts *in)
{
	if (!in)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigwatch_destroy(in->watches[i]);
	free(in);
}
