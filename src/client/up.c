/* SPDX-License-Identifier: Apache-2.0 */
/* vse_plan() and vse_up(): the image, the agent, the cluster. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rundir.h"
#include "base/text.h"
#include "client/create.h"
#include "client/programs.h"

#define DOWN_MS 10000 /* the agent ends what is not kept by itself, too */

struct up {
	struct vse_session *session;
	struct create create;
	vse_callback *fn;
	void *arg;
	bool refused; /* by the callback */
	char *agent, *guest;
	/* while the cluster starts */
	bool over;
	uint64_t ready_ms;
	json_t *reply; /* NULL: none */
	struct err err;
};

/* ---- telling ---- */

static void tell(struct up *u, int kind, const char *step, unsigned done, unsigned total)
{
	if (u->fn && u->fn(u->arg, &(struct vse_event){.kind = kind,
						       .text = step,
						       .what = {"done", "total"},
						       .number = {done, total}}))
		u->refused = true;
}

/* ---- the image ---- */

static void on_build(void *arg, const char *step, unsigned done, unsigned total, const char *text)
{
	struct up *u = arg;
	if (u->fn && u->fn(u->arg, &(struct vse_event){.kind = VSE_BUILDING,
						       .text = step,
						       .data = text,
						       .n = strlen(text),
						       .what = {"done", "total"},
						       .number = {done, total}}))
		u->refused = true;
}

/* Before a long build, not after. */
static int usable(void *arg, struct err *err)
{
	const struct up *u = arg;
	if (u->create.launch) /* other nodes run it: nobody knows yet what they have */
		return 0;
	return offer_check(u->agent, create_hypervisor(&u->create),
			   create_choice(&u->create, "accel", "auto"), err);
}

/* A cluster that is restored needs the very image it had. */
static int open_image(struct up *u, struct vse_error *e)
{
	const char *id = json_string_value(json_object_get(u->create.saved, "image"));
	if (image_open(NULL, id ? id : "", &u->create.image, &e->err) == 0)
		return 0;
	if (e->err.code == ENOENT)
		return error_set(e, ENOENT, "the image of the saved cluster (%.12s, of VSE '%s') is not in the store: build it again with 'vse build'",
				 id ? id : "?",
				 json_string_value(json_object_get(u->create.saved, "vse")));
	return error_code(e);
}

static int build(struct up *u, struct vse_error *e)
{
	bool cached;
	struct image_build_options o = {.allow = usable,
					.allow_arg = u,
					.guest_init = u->guest,
					.progress = on_build,
					.progress_arg = u};
	if (image_build(u->create.vse, &o, &u->create.image, &cached, &e->err) < 0)
		return error_code(e);
	return 0;
}

/* ---- the plan ---- */

static json_t *plan(const struct create *c, bool there)
{
	const char *launcher = json_string_value(json_object_get(c->launch, "launcher"));
	return json_pack("{s:s, s:i, s:s, s:i, s:I, s:I, s:b, s:s?, s:s, s:s}", "name", c->name,
			 "size", (int)c->size, "vse", c->vse->name, "cpus", (int)c->vse->cpus,
			 "memory", (json_int_t)c->vse->memory, "scratch", (json_int_t)c->vse->scratch,
			 "needs_image", create_needs_image(c), "image", there ? c->image->id : NULL,
			 "launcher", launcher ? launcher : "local", "why", c->where);
}

/* ---- the agent ---- */

static int launch(struct up *u, const char *base, struct vse_cluster **ret, struct vse_error *e)
{
	struct create *c = &u->create;
	struct client *client;
	_cleanup_close_ int hold = -1;
	if (c->image && image_hold(c->image, &hold, &e->err) < 0)
		return error_code(e);
	struct launch l = {.agent = u->agent, .base = base, .name = c->name, .hold_fd = hold};
	/* The root agent runs here, wherever the VMs do. */
	if (launcher_launch(launcher_find("local"), &l, &e->err) < 0)
		return error_code(e);
	if (client_connect(u->session->loop, base, c->name, &client, &e->err) < 0)
		return error_code(e);
	*ret = cluster_new(u->session, client, c->name);
	(*ret)->size = c->size;
	return 0;
}

/* ---- create ---- */

static void on_note(struct up *u, const json_t *j)
{
	_cleanup_free_ char *text = text_cleaned(json_string_value(json_object_get(j, "text")));
	if (u->fn && u->fn(u->arg, &(struct vse_event){.kind = VSE_NOTE, .text = text}))
		u->refused = true;
}

static unsigned count(const json_t *j, const char *key)
{
	return (unsigned)json_integer_value(json_object_get(j, key));
}

static void on_event(void *arg, const json_t *j)
{
	struct up *u = arg;
	const char *what = json_string_value(json_object_get(j, "event"));
	if (what && strcmp(what, "step") == 0) {
		_cleanup_free_ char *text = text_cleaned(
			json_string_value(json_object_get(j, "text")));
		tell(u, VSE_STARTING, text, count(j, "done"), count(j, "all"));
	} else if (what && strcmp(what, "progress") == 0) {
		tell(u, VSE_STARTING, "starting VMs", count(j, "ready"), count(j, "size"));
	} else if (what && strcmp(what, "note") == 0) {
		on_note(u, j);
	}
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct up *u = arg;
	u->over = true;
	if (reply)
		u->ready_ms = (uint64_t)json_integer_value(json_object_get(reply, "ready_ms"));
	else
		u->err = *err;
	u->reply = json_incref((json_t *)reply);
}

static int ask(struct vse_cluster *c, const char *verb)
{
	return client_ask(c->client, json_pack("{s:s}", "verb", verb), DOWN_MS, NULL, NULL);
}

/* It did not come up, or is no longer wanted. */
static int undo(struct up *u, struct vse_cluster *c, struct vse_error *e)
{
	bool cancelled = !u->err.code;
	if (cancelled)
		err_set(&u->err, ECANCELED, "cancelled: the cluster was ended");
	e->err = u->err;
	e->kept = !cancelled && options_flag(u->create.o, "keep-failed") && ask(c, "keep") == 0;
	snprintf(e->cluster, sizeof(e->cluster), "%s", c->name);
	if (!e->kept)
		ask(c, "down");
	return error_code(e);
}

static int create(struct up *u, struct vse_cluster *c, struct vse_error *e)
{
	static const struct client_ops ops = {.on_event = on_event, .on_end = on_end};
	struct vse_session *s = u->session;
	json_t *msg = create_message(&u->create, &e->err);
	if (!msg)
		return error_code(e);
	if (json_object_get(u->create.launch, "plan")) { /* no image is there, nor needed */
		json_object_set_new(msg, "hypervisor", json_string("fake"));
		json_object_set_new(msg, "extra_args", json_array());
	}
	tell(u, VSE_STARTING, "starting VMs", 0, u->create.size);
	uint32_t id = client_call(c->client, msg, &ops, u);
	while (!u->over && !s->cancelled && !u->refused)
		loop_run_once(s->loop);
	client_forget(c->client, id);
	bool unwanted = s->cancelled || u->refused; /* even where it has come up in the same moment */
	s->cancelled = false;
	if (unwanted || u->err.code)
		return undo(u, c, e);
	c->ready_ms = u->ready_ms;
	return 0;
}

static char *program(const char *given, const char *name, struct err *err)
{
	return given ? xstrdup(given) : program_find(name, err);
}

static int start(struct up *u, struct vse_cluster **ret, struct vse_error *e)
{
	struct vse_session *s = u->session;
	const char *base = session_base(s, e), *name = u->create.name;
	struct vse_cluster *c = NULL;
	if (!base)
		return error_code(e);
	if (rundir_alive(base, name)) /* before a long build, not after */
		return error_set(e, EEXIST, "cluster '%s' runs already (see 'vse ps %s'; 'vse down %s' ends it; --name gives this one another name)",
				 name, name, name);
	u->agent = program(s->agent, "vse-agent", &e->err);
	u->guest = program(s->guest, "vse-guest", NULL);
	if (!u->agent)
		return error_code(e);
	int rc = 0;
	if (create_needs_image(&u->create))
		rc = u->create.saved ? open_image(u, e) : build(u, e);
	if (rc)
		return rc;
	if (u->refused)
		return error_set(e, ECANCELED, "cancelled");
	rc = launch(u, base, &c, e);
	if (rc)
		return rc;
	rc = create(u, c, e);
	if (rc)
		vse_release(c);
	else
		*ret = c;
	return rc;
}

static int up(struct up *u, const char *what, bool saved, const struct vse_options *o,
	      struct vse_cluster **ret, struct vse_error *e)
{
	int rc = session_enter(u->session, e);
	if (rc)
		return rc;
	rc = (saved ? create_prepare_saved : create_prepare)(&u->create, what, o, e);
	if (!rc)
		rc = start(u, ret, e);
	session_leave(u->session);
	create_finish(&u->create);
	free(u->agent);
	free(u->guest);
	json_decref(u->reply);
	return rc;
}

int vse_up(struct vse_session *s, const char *file, const struct vse_options *o, vse_callback *fn,
	   void *arg, struct vse_cluster **ret, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	struct up u = {.session = s, .fn = fn, .arg = arg};
	return up(&u, file, false, o, ret, err);
}

int vse_restore(struct vse_session *s, const char *dir, const struct vse_options *o,
		vse_callback *fn, void *arg, struct vse_cluster **ret, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	struct up u = {.session = s, .fn = fn, .arg = arg};
	return up(&u, dir, true, o, ret, err);
}

/* ---- vse_plan ---- */

/* Which nodes there will be is known now: no resource manager has to be asked for them. */
static bool nodes_known(const struct create *c)
{
	char why[LAUNCH_WHY_MAX];
	const char *name = json_string_value(json_object_get(c->launch, "launcher"));
	const struct launcher *l = name ? launcher_find(name) : NULL;
	return l && (strcmp(name, "ssh") == 0 || launcher_probe(l, why) == LAUNCH_INSIDE);
}

/* What the nodes have only their agents can tell: they are started, asked and ended. */
static int look(struct up *u, json_t *plan, struct vse_error *e)
{
	struct vse_session *s = u->session;
	const char *base = session_base(s, e);
	struct vse_cluster *c = NULL;
	if (!base)
		return error_code(e);
	u->agent = program(s->agent, "vse-agent", &e->err);
	if (!u->agent)
		return error_code(e);
	json_object_set_new(u->create.launch, "plan", json_string(create_hypervisor(&u->create)));
	int rc = launch(u, base, &c, e);
	if (rc == 0)
		rc = create(u, c, e);
	if (rc == 0) {
		json_object_set(plan, "nodes", json_object_get(u->reply, "nodes"));
		json_object_set(plan, "problem", json_object_get(u->reply, "problem"));
		ask(c, "down");
	}
	vse_release(c);
	return rc;
}

int vse_plan(struct vse_session *s, const char *file, const struct vse_options *o, char **ret_json,
	     struct vse_error *err)
{
	ERROR_OR_OWN(err);
	struct up u = {.session = s};
	struct image_build_options io = {.guest_init = s->guest};
	struct err none;
	int rc = session_enter(s, err);
	if (rc)
		return rc;
	rc = create_prepare(&u.create, file, o, err);
	json_t *j = NULL;
	if (rc == 0) {
		j = plan(&u.create, image_find(u.create.vse, &io, &u.create.image, &none) == 0);
		rc = u.create.launch && nodes_known(&u.create) ? look(&u, j, err) : 0;
	}
	char *text = rc == 0 ? json_dumps(j, JSON_INDENT(2)) : NULL;
	if (text)
		*ret_json = text;
	else if (rc == 0)
		rc = error_set(err, EILSEQ, "%s: not UTF-8 text", file);
	session_leave(s);
	json_decref(j);
	json_decref(u.reply);
	free(u.agent);
	create_finish(&u.create);
	return rc;
}
