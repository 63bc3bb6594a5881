/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/common.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/rundir.h"

#define CONNECT_TRIES 60 /* every 50 ms */

char *common_base(const struct command *cmd)
{
	struct err err = ERR_INIT;
	char *base;
	if (rundir_base(&base, &err) < 0) {
		command_fail(cmd, &err);
		return NULL;
	}
	return base;
}

char *common_cluster(const char *base, const char *named, struct err *err)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	if (named) {
		if (cluster_name_check(named, err) < 0)
			return NULL;
		if (rundir_alive(base, named))
			return xstrdup(named);
		rundir_sweep(base, named);
		err_set(err, ENOENT, "no cluster '%s' runs (see 'vse ps')", named);
		return NULL;
	}
	if (rundir_list(base, &names, err) < 0)
		return NULL;
	if (names.n == 1)
		return xstrdup(names.v[0]);
	if (!names.n) {
		err_set(err, ENOENT, "no cluster runs ('vse up FILE' starts one)");
		return NULL;
	}
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < names.n && i < 8; i++)
		buf_addf(&b, "%s%s", i ? ", " : "", names.v[i]);
	err_set(err, EINVAL, "%zu clusters run (%s%s): say which with -c NAME", names.n,
		buf_cstr(&b), names.n > 8 ? ", ..." : "");
	return NULL;
}

int common_connect(const char *named, struct loop **ret_loop, struct client **ret, struct err *err)
{
	_cleanup_free_ char *base = NULL, *name = NULL;
	if (rundir_base(&base, err) < 0)
		return -1;
	name = common_cluster(base, named, err);
	if (!name)
		return -1;
	struct loop *loop = loop_create();
	int rc = client_connect(loop, base, name, ret, err);
	/* A root agent that died is followed by another within a moment. */
	for (int i = 0;
	     rc < 0 && err->code == ENOENT && i < CONNECT_TRIES && rundir_alive(base, name); i++) {
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		rc = client_connect(loop, base, name, ret, err);
	}
	if (rc < 0) {
		loop_destroy(loop);
		return -1;
	}
	*ret_loop = loop;
	return 0;
}

void common_disconnect(struct loop *loop, struct client *c)
{
	client_destroy(c);
	loop_destroy(loop);
}

int common_ask(const struct command *cmd, const struct args *a, json_t *req, uint64_t bound_ms,
	       json_t **ret)
{
	struct loop *loop;
	struct client *c;
	struct err err = ERR_INIT;
	if (common_connect(arg_value(a, "cluster"), &loop, &c, &err) < 0) {
		json_decref(req);
		return command_fail(cmd, &err);
	}
	int rc = client_ask(c, req, bound_ms, ret, &err);
	common_disconnect(loop, c);
	return rc < 0 ? common_refused(cmd, &err) : EXIT_OK;
}

int common_refused(const struct command *cmd, const struct err *err)
{
	return err->code == ERANGE || err->code == EINVAL ? command_usage(cmd, "%s", err->text)
							  : command_fail(cmd, err);
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

bool common_event_ranks(const json_t *event, struct rankset *ret)
{
	const char *text = json_string_value(json_object_get(event, "ranks"));
	const json_t *rank = json_object_get(event, "rank");
	if (text)
		return rankset_parse(ret, text, RANK_MAX, NULL) == 0;
	if (!json_is_integer(rank) || json_integer_value(rank) < 0 || json_integer_value(rank) >= RANK_MAX)
		return false;
	rankset_add(ret, (uint32_t)json_integer_value(rank));
	return true;
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
