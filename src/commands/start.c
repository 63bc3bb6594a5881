/* SPDX-License-Identifier: Apache-2.0 */
#include "commands/start.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/rundir.h"
#include "base/size.h"
#include "base/text.h"
#include "base/time.h"
#include "client/sshkey.h"
#include "commands/common.h"
#include "commands/offer.h"
#include "commands/progress.h"
#include "image/image.h"
#include "launcher/launcher.h"
#include "spec/rules.h"

#define BOOT_TIMEOUT_MS 120000
#define COUNT_MAX 1500
#define BOOT_TIMEOUT_MAX_MS 86400000 /* 24 h: as the agent's own bound */
#define STOP_TIMEOUT_MS 20000
#define DOWN_MS 10000
#define MEMORY_MIN (64ull << 20) /* bytes; as the VSE's own bound */

/* The command line's part of what is to be started. */
struct plan {
	const struct command *cmd;
	const struct args *args;
	start_check *check; /* may be NULL */
	struct vse *vse;
	struct image *image;
	json_t *launch;             /* other nodes; NULL: all runs on this one */
	char where[LAUNCH_WHY_MAX]; /* why there */
	const char *name;
	int64_t size, parallel;
	uint64_t timeout_ms;
	struct progress progress;
	struct started *started;
	/* while the cluster starts */
	bool over, interrupted;
	int signo;
	struct err err;
};

/* ---- reading what is asked ---- */

static int number(const struct plan *p, const char *name, int64_t min, int64_t max, int64_t *v)
{
	struct err err = ERR_INIT;
	const char *text = arg_value(p->args, name);
	if (text && int_parse(text, min, max, v, &err) < 0)
		return command_usage(p->cmd, "--%s: %s", name, err.text);
	return 0;
}

static int size(const struct plan *p, const char *name, uint64_t min, uint64_t *v)
{
	struct err err = ERR_INIT;
	const char *text = arg_value(p->args, name);
	if (!text)
		return 0;
	uint64_t got;
	if (size_parse(text, &got, &err) < 0)
		return command_usage(p->cmd, "--%s: %s", name, err.text);
	if (got && got < min)
		return command_usage(p->cmd, "--%s %s: too small, at least %" PRIu64 "M", name,
				     text, min >> 20);
	if (got > RULE_MEMORY_MAX)
		return command_usage(p->cmd, "--%s %s: too large, at most %" PRIu64 "T", name, text,
				     RULE_MEMORY_MAX >> 40);
	*v = got;
	return 0;
}

static int load(struct plan *p, const char *file)
{
	_cleanup_strvec_ struct strvec problems = STRVEC_INIT;
	struct err err = ERR_INIT;
	if (vse_load(file, &p->vse, &problems, &err) == 0)
		return 0;
	for (size_t i = 0; i < problems.n; i++)
		fprintf(stderr, "%s\n", problems.v[i]);
	if (!problems.n)
		command_fail(p->cmd, &err);
	return EXIT_USAGE;
}

static int overrides(struct plan *p)
{
	int64_t cpus = p->vse->cpus;
	uint64_t memory = p->vse->memory;
	int code = number(p, "count", 1, COUNT_MAX, &p->size);
	if (!code && p->check)
		code = p->check(p->cmd, p->args, (uint32_t)p->size);
	if (!code)
		code = number(p, "cpus", 1, 1024, &cpus);
	if (!code)
		code = number(p, "parallel", 1, COUNT_MAX, &p->parallel);
	if (!code)
		code = size(p, "memory", MEMORY_MIN, &memory);
	if (!code && !memory)
		code = command_usage(p->cmd, "--memory 0: a VM needs at least %" PRIu64 "M",
				     (uint64_t)(MEMORY_MIN >> 20));
	if (!code)
		code = size(p, "scratch", 16ull << 20, &p->vse->scratch);
	p->vse->cpus = (unsigned)cpus;
	p->vse->memory = memory;
	return code;
}

static const char *scratch_dir(void)
{
	const char *asked = getenv("VSE_SCRATCH"), *tmp = getenv("TMPDIR");
	if (asked && asked[0]) /* never another than the one that was asked for */
		return asked;
	return tmp && tmp[0] == '/' && access(tmp, W_OK) == 0 ? tmp : "/tmp";
}

static int choices(struct plan *p)
{
	struct err err = ERR_INIT;
	const char *timeout = arg_value(p->args, "timeout");
	p->name = arg_value(p->args, "name") ? arg_value(p->args, "name") : p->vse->name;
	if (cluster_name_check(p->name, &err) < 0)
		return command_usage(p->cmd, "%s", err.text);
	if (timeout && duration_parse(timeout, &p->timeout_ms, &err) < 0)
		return command_usage(p->cmd, "--timeout: %s", err.text);
	if (!p->timeout_ms)
		return command_usage(p->cmd, "--timeout 0: a VM needs some time to boot");
	if (p->timeout_ms > BOOT_TIMEOUT_MAX_MS)
		return command_usage(p->cmd, "--timeout %s: too long, at most 24h", timeout);
	if (!text_is_utf8(scratch_dir()))
		return command_usage(
			p->cmd, "the scratch folder is not UTF-8 text: set VSE_SCRATCH to another");
	return where_choose(p->cmd, p->args, &p->launch, p->where);
}

/* ---- the image ---- */

static const char *choice(const struct plan *p, const char *option, const char *otherwise)
{
	const char *v = arg_value(p->args, option);
	return v ? v : otherwise;
}

/* Before a long build, not after. */
static int usable(void *arg, struct err *err)
{
	const struct plan *p = arg;
	if (p->launch) /* other nodes run it: nobody knows yet what they have */
		return 0;
	return offer_check(choice(p, "hypervisor", "qemu"), choice(p, "accel", "auto"), err);
}

static int build(struct plan *p)
{
	struct err err = ERR_INIT;
	bool cached;
	struct image_build_options o = {.allow = usable,
					.allow_arg = p,
					.progress = progress_step,
					.progress_arg = &p->progress};
	uint64_t begun = time_mono_ms();
	int rc = image_build(p->vse, &o, &p->image, &cached, &err);
	p->started->build_s = (double)(time_mono_ms() - begun) / 1000;
	progress_clear(&p->progress);
	if (rc < 0)
		return command_fail(p->cmd, &err);
	return 0;
}

/* The back end `fake` runs no VM, so it needs no image: clusters of it are for tests and for studies of scale. */
static bool needs_image(const struct plan *p)
{
	return strcmp(choice(p, "hypervisor", "qemu"), "fake") != 0;
}

static int dry_run(struct plan *p)
{
	struct err err = ERR_INIT;
	struct image_build_options o = {0};
	char memory[24], scratch[24];
	bool there = image_find(p->vse, &o, &p->image, &err) == 0;
	size_format(p->vse->memory, memory);
	size_format(p->vse->scratch, scratch);
	printf("cluster %s: %" PRId64 " VM%s of %s, each %u CPU%s, %s memory, %s scratch\n",
	       p->name, p->size, p->size == 1 ? "" : "s", p->vse->name, p->vse->cpus,
	       p->vse->cpus == 1 ? "" : "s", memory, p->vse->scratch ? scratch : "no");
	printf("image: %s\n", !needs_image(p) ? "none needed"
			      : there         ? p->image->id
					      : "would be built");
	const char *launcher = json_string_value(json_object_get(p->launch, "launcher"));
	printf("launcher %s: %s\n", launcher ? launcher : "local", p->where);
	return -1;
}

/* ---- the agent ---- */

static int launch(struct plan *p, const char *base, struct err *err)
{
	_cleanup_free_ char *agent = offer_agent(err);
	_cleanup_close_ int hold = -1;
	if (!agent)
		return -1;
	if (p->image && image_hold(p->image, &hold, err) < 0)
		return -1;
	struct launch l = {.agent = agent, .base = base, .name = p->name, .hold_fd = hold};
	/* The root agent runs here, wherever the VMs do. */
	if (launcher_launch(launcher_find("local"), &l, err) < 0)
		return -1;
	return client_connect(p->started->loop, base, p->name, &p->started->client, err);
}

/* ---- create ---- */

static json_t *text_list(const struct strvec *v)
{
	json_t *list = json_array();
	for (size_t i = 0; i < v->n; i++)
		json_array_append_new(list, json_string(v->v[i]));
	return list;
}

static json_t *env_list(const struct vse *v)
{
	json_t *list = json_array();
	for (size_t i = 0; i < v->n_env; i++)
		json_array_append_new(list, json_sprintf("%s=%s", v->env[i].name, v->env[i].value));
	return list;
}

/* A path of this host may be no text: that is an error, never a message without it. */
static void set_text(json_t *j, const char *key, const char *text, struct err *err)
{
	_cleanup_free_ char *shown = text_cleaned(text);
	if (text && json_object_set_new(j, key, json_string(text)) < 0)
		err_set(err, EILSEQ, "%s %s: not UTF-8 text", key, shown);
}

/* NULL with *err, which is clear before. */
static json_t *create_message(struct plan *p, struct err *err)
{
	const struct vse *v = p->vse;
	const struct image *i = p->image; /* NULL: the back end needs none */
	json_t *j = json_pack("{s:s, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "verb",
			      "create", "size", (json_int_t)p->size, "cpus", (int)v->cpus, "memory",
			      (json_int_t)v->memory, "scratch", (json_int_t)v->scratch, "parallel",
			      (json_int_t)p->parallel, "boot_timeout_ms", (json_int_t)p->timeout_ms,
			      "stop_timeout_ms", (json_int_t)STOP_TIMEOUT_MS, "systemd",
			      i && i->init == VSE_INIT_SYSTEMD, "outbound", v->net_outbound);
	set_text(j, "name", p->name, err);
	set_text(j, "vse", v->name, err);
	set_text(j, "image", i ? i->id : "", err);
	set_text(j, "kernel", i ? i->kernel : "", err);
	set_text(j, "vmlinux", i ? i->vmlinux : NULL, err);
	set_text(j, "initrd", i ? i->initrd : "", err);
	set_text(j, "root", i ? i->root : "", err);
	set_text(j, "root_type", i ? i->root_type : "", err);
	set_text(j, "modules", i ? i->modules : "", err);
	set_text(j, "scratch_dir", scratch_dir(), err);
	set_text(j, "subnet", v->net_subnet, err);
	set_text(j, "hypervisor", choice(p, "hypervisor", "qemu"), err);
	set_text(j, "accel", choice(p, "accel", "auto"), err);
	set_text(j, "machine", choice(p, "machine", "auto"), err);
	json_object_set_new(j, "extra_args", text_list(arg_values(p->args, "hypervisor-arg")));
	json_object_set_new(j, "env", env_list(v));
	if (p->launch)
		json_object_set(j, "launch", p->launch);
	if (i && i->has_sshd) {
		_cleanup_free_ char *secret = NULL, *open = NULL;
		if (sshkey_make(p->name, &secret, &open, err) < 0) {
			json_decref(j);
			return NULL;
		}
		set_text(j, "ssh_private", secret, err);
		set_text(j, "ssh_public", open, err);
	}
	if (!err->code)
		return j;
	json_decref(j);
	return NULL;
}

static void on_event(void *arg, const json_t *e)
{
	struct plan *p = arg;
	const char *what = json_string_value(json_object_get(e, "event"));
	if (what && strcmp(what, "step") == 0) {
		_cleanup_free_ char *text = text_cleaned(
			json_string_value(json_object_get(e, "text")));
		unsigned done = (unsigned)json_integer_value(json_object_get(e, "done"));
		progress_step(&p->progress, text, done,
			      (unsigned)json_integer_value(json_object_get(e, "all")), "");
	} else if (what && strcmp(what, "progress") == 0) {
		unsigned ready = (unsigned)json_integer_value(json_object_get(e, "ready"));
		unsigned all = (unsigned)json_integer_value(json_object_get(e, "size"));
		progress_step(&p->progress, "starting VMs", ready, all, "");
	} else if (what && strcmp(what, "note") == 0) {
		_cleanup_free_ char *text = text_cleaned(
			json_string_value(json_object_get(e, "text")));
		progress_clear(&p->progress);
		if (!p->progress.quiet)
			fprintf(stderr, "vse %s: note: %s\n", p->cmd->name, text);
	}
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct plan *p = arg;
	p->over = true;
	if (reply)
		p->started->ready_ms = (uint64_t)json_integer_value(
			json_object_get(reply, "ready_ms"));
	else
		p->err = *err;
}

static const struct client_ops create_ops = {.on_event = on_event, .on_end = on_end};

static void on_interrupt(void *arg, int signo)
{
	struct plan *p = arg;
	p->over = p->interrupted = true;
	p->signo = signo;
}

static int create(struct plan *p)
{
	struct started *s = p->started;
	struct err err = ERR_INIT;
	json_t *msg = create_message(p, &err);
	if (!msg)
		return command_fail(p->cmd, &err);
	progress_step(&p->progress, "starting VMs", 0, (unsigned)p->size, "");
	struct interrupts *in = interrupts_create(s->loop, on_interrupt, p);
	uint32_t id = client_call(s->client, msg, &create_ops, p);
	while (!p->over)
		loop_run_once(s->loop);
	client_forget(s->client, id);
	interrupts_destroy(in);
	progress_clear(&p->progress);
	if (!p->interrupted && !p->err.code)
		return 0;
	if (!p->interrupted && arg_flag(p->args, "keep-failed") &&
	    client_ask(s->client, json_pack("{s:s}", "verb", "keep"), DOWN_MS, NULL, NULL) == 0) {
		command_fail(p->cmd, &p->err);
		fprintf(stderr, "vse %s: cluster '%s' was kept: 'vse logs -c %s vm0' shows a console, 'vse down %s' ends it\n",
			p->cmd->name, p->name, p->name, p->name);
		return EXIT_FAILED;
	}
	start_undo(s);
	if (p->interrupted) {
		fprintf(stderr, "vse %s: interrupted: the cluster was ended\n", p->cmd->name);
		return 128 + p->signo;
	}
	return command_fail(p->cmd, &p->err);
}

void start_undo(struct started *s)
{
	client_ask(s->client, json_pack("{s:s}", "verb", "down"), DOWN_MS, NULL, NULL);
}

static int start(struct plan *p, const char *file)
{
	struct err err = ERR_INIT;
	int code = load(p, file);
	if (!code)
		code = overrides(p);
	if (!code)
		code = choices(p);
	if (code)
		return code;
	if (arg_flag(p->args, "dry-run"))
		return dry_run(p);
	_cleanup_free_ char *base = common_base(p->cmd);
	if (!base)
		return EXIT_FAILED;
	p->started->size = (uint32_t)p->size;
	p->started->name = xstrdup(p->name);
	if (rundir_alive(base, p->name)) { /* before a long build, not after */
		err_set(&err,
			EEXIST, "cluster '%s' runs already (see 'vse ps %s'; 'vse down %s' ends it; --name gives this one another name)",
			p->name, p->name, p->name);
		return command_fail(p->cmd, &err);
	}
	if (needs_image(p))
		code = build(p);
	if (code)
		return code;
	p->started->loop = loop_create();
	if (launch(p, base, &err) < 0)
		return command_fail(p->cmd, &err);
	return create(p);
}

int start_cluster(const struct command *cmd, const struct args *a, const char *file,
		  start_check *check, struct started *ret)
{
	struct started s = {0};
	struct plan p = {.cmd = cmd,
			 .args = a,
			 .check = check,
			 .size = 1,
			 .timeout_ms = BOOT_TIMEOUT_MS,
			 .started = &s};
	progress_begin(&p.progress, arg_flag(a, "quiet"));
	int code = start(&p, file);
	image_destroy(p.image);
	vse_destroy(p.vse);
	json_decref(p.launch);
	if (code)
		started_finish(&s);
	else
		*ret = s;
	return code;
}

void started_finish(struct started *s)
{
	if (s->loop)
		common_disconnect(s->loop, s->client);
	free(s->name);
	*s = (struct started){0};
}
