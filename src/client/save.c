/* SPDX-License-Identifier: Apache-2.0 */
/* vse_save(): all VMs stand still, then all are written, then all go on. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/rankset.h"
#include "client/library.h"
#include "client/saved.h"

#define VERSION 1
#define NOTE "cluster.json"
#define NOTE_MAX (16u << 20)
#define ASK_MS 10000

/* ---- the note ---- */

static int bad(struct err *err, const char *path)
{
	return err_set(err, EBADMSG, "%s: not what 'vse save' writes, or of another version of it",
		       path);
}

/* What is in it runs as us, with arguments for the VMM that it names: like a program, it must be our own. */
static int check_owner(const char *dir, struct err *err)
{
	struct stat st;
	if (stat(dir, &st) < 0)
		return err_errno(err, errno, "%s", dir);
	if (st.st_uid != geteuid())
		return err_set(err, EPERM,
			       "%s: a save of somebody else; copy it, if you trust what is in it", dir);
	if (st.st_mode & 0022)
		return err_set(err, EPERM, "%s: others may write to it (see 'chmod go-w')", dir);
	return 0;
}

int saved_cluster_read(const char *dir, json_t **ret, struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, NOTE), *text = NULL;
	if (check_owner(dir, err) < 0)
		return -1;
	if (path_read(path, NOTE_MAX, &text, NULL, err) < 0)
		return -1;
	json_t *j = json_loads(text, 0, NULL), *create = json_object_get(j, "create");
	json_int_t size = json_integer_value(json_object_get(create, "size"));
	bool good = json_integer_value(json_object_get(j, "version")) == VERSION &&
		    json_is_object(create) && size >= 1 && size <= RANK_MAX;
	if (good)
		*ret = json_incref(create);
	json_decref(j);
	return good ? 0 : bad(err, path);
}

static int write_note(const char *dir, const char *id, json_t *create, struct err *err)
{
	_cleanup_free_ char *path = path_join(dir, NOTE);
	json_t *j = json_pack("{s:i, s:s, s:s, s:O}", "version", VERSION, "id", id, "program",
			      VSE_VERSION, "create", create);
	_cleanup_free_ char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	json_decref(j);
	if (!text)
		return err_set(err, EILSEQ, "%s: not UTF-8 text", path);
	return path_write(path, text, strlen(text), 0600, err);
}

/* ---- the VMs ---- */

/* That none is in another state than running or paused. */
static int look(struct vse_cluster *c, struct vse_error *e)
{
	json_t *status, *vm;
	size_t i;
	int rc = cluster_ask(c, json_pack("{s:s}", "verb", "status"), ASK_MS, &status, e);
	if (rc)
		return rc;
	json_array_foreach (json_object_get(status, "vms"), i, vm) {
		const char *state = json_string_value(json_object_get(vm, "state"));
		uint32_t rank = (uint32_t)json_integer_value(json_object_get(vm, "rank"));
		if (!rc && (!state || (strcmp(state, "ready") != 0 && strcmp(state, "paused") != 0)))
			rc = error_set(e, EBUSY, "vm%u: cannot save: it is %.20s", rank,
				       state ? state : "unknown");
	}
	json_decref(status);
	return rc;
}

/* Those that were paused before stay so. */
static int resume(struct vse_cluster *c, const char *dir, struct vse_error *e)
{
	return cluster_ask(c, json_pack("{s:s, s:s, s:s}", "verb", "resume", "ranks", "all", "held", dir),
			   0, NULL, e);
}

/* ---- held ---- */

/* The agents hold the VMs for as long as this request is open: when we are gone, however that comes, the VMs go on and what
 * was written so far is removed. */
struct held {
	uint32_t id;
	json_int_t ready;
	bool over;
	struct err err;
};

static void on_held(void *arg, const json_t *event)
{
	struct held *h = arg;
	h->ready = json_integer_value(json_object_get(event, "ready"));
}

static void on_not_held(void *arg, const json_t *reply _unused_, const struct err *err)
{
	struct held *h = arg;
	h->over = true;
	if (err)
		h->err = *err;
}

static const struct client_ops held_ops = {.on_event = on_held, .on_end = on_not_held};

static void let_go(struct vse_cluster *c, struct held *h)
{
	if (h->over)
		return;
	client_message(c->client, h->id, json_pack("{s:s}", "verb", "cancel"));
	client_forget(c->client, h->id);
}

/* Waits until all stand still; the agents bound it. On success let_go() ends it. */
static int hold(struct vse_cluster *c, const char *dir, struct held *h, struct vse_error *e)
{
	int n = vse_size(c, e), rc = n < 0 ? n : session_enter(c->session, e);
	if (rc)
		return rc;
	*h = (struct held){0};
	h->id = client_call(c->client,
			    json_pack("{s:s, s:s, s:s}", "verb", "hold", "ranks", "all", "dir", dir),
			    &held_ops, h);
	while (!h->over && h->ready < n)
		loop_run_once(c->session->loop);
	session_leave(c->session);
	if (!h->over)
		return 0;
	e->err = h->err;
	return error_code(e);
}

/* A node that has its own idea of the folder has written elsewhere. */
static int check_written(struct vse_cluster *c, const char *dir, struct vse_error *e)
{
	int n = vse_size(c, e);
	for (int r = 0; r < n; r++) {
		_cleanup_free_ char *path = xasprintf("%s/vm%d.json", dir, r);
		if (access(path, R_OK) < 0)
			return error_set(e, errno, "vm%d was written, but not here: %s must be a folder that all nodes share",
					 r, dir);
	}
	return n < 0 ? n : 0;
}

static int save_into(struct vse_cluster *c, const char *dir, struct vse_error *e)
{
	uint64_t random[2] = {0};
	char id[40];
	json_t *reply;
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return error_set(e, errno, "getrandom: %s", strerror(errno));
	snprintf(id, sizeof(id), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
	int rc = cluster_ask(c,
			     json_pack("{s:s, s:s, s:s, s:s}", "verb", "save", "ranks", "all",
				       "dir", dir, "id", id),
			     0, NULL, e);
	if (!rc)
		rc = check_written(c, dir, e);
	if (!rc)
		rc = cluster_ask(c, json_pack("{s:s}", "verb", "definition"), ASK_MS, &reply, e);
	if (rc)
		return rc;
	if (write_note(dir, id, json_object_get(reply, "create"), &e->err) < 0)
		rc = error_code(e);
	json_decref(reply);
	return rc;
}

/* ---- the folder ---- */

static void sync_folder(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		fsync(fd);
}

static int publish(const char *part, const char *dir, struct vse_error *e)
{
	sync_folder(part);
	if (rename(part, dir) < 0) {
		err_errno(&e->err, errno, "%s", dir);
		return error_code(e);
	}
	_cleanup_free_ char *parent = xstrdup(dir);
	*strrchr(parent, '/') = '\0';
	sync_folder(parent[0] ? parent : "/");
	return 0;
}

/* An agent that follows one that has died removes what it finds under the name of before: of a save that is whole by then, or
 * of one that has lost something and is none. */
static int check_whole(struct vse_cluster *c, const char *dir, struct vse_error *e)
{
	int rc = check_written(c, dir, e);
	if (!rc || e->err.code != ENOENT)
		return rc; /* a file that cannot be looked at may be there: nothing is removed */
	path_remove(dir, NULL);
	return error_set(e, ECANCELED, "%s: an agent died while its VMs were saved", dir);
}

/* The folder that it is written to first; malloc'ed. The parent must be there. */
static char *make_part(const char *dir, char **ret_full, struct vse_error *e)
{
	_cleanup_free_ char *copy = xstrdup(dir);
	while (strlen(copy) > 1 && copy[strlen(copy) - 1] == '/')
		copy[strlen(copy) - 1] = '\0';
	char *slash = strrchr(copy, '/');
	const char *name = slash ? slash + 1 : copy;
	if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		error_set(e, EINVAL, "%s: not the name of a new folder", dir);
		return NULL;
	}
	_cleanup_free_ char *own = xstrdup(name);
	if (slash)
		*slash = '\0';
	_cleanup_free_ char *parent = realpath(!slash ? "." : copy[0] ? copy : "/", NULL);
	if (!parent) {
		err_errno(&e->err, errno, "%s", dir);
		return NULL;
	}
	_cleanup_free_ char *full = path_join(parent, own);
	struct stat st;
	if (lstat(full, &st) == 0) {
		error_set(e, EEXIST, "%s: is there already", full);
		return NULL;
	}
	char *part = xasprintf("%s.part-XXXXXX", full);
	if (!mkdtemp(part)) {
		err_errno(&e->err, errno, "%s", full);
		free(part);
		return NULL;
	}
	*ret_full = TAKE_PTR(full);
	return part;
}

int vse_save(struct vse_cluster *c, const char *dir, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	_cleanup_(vse_error_finish) struct vse_error why = {0};
	_cleanup_free_ char *full = NULL;
	struct held held;
	int rc = look(c, err);
	if (rc)
		return rc;
	_cleanup_free_ char *part = make_part(dir, &full, err);
	if (!part)
		return error_code(err);
	rc = hold(c, part, &held, err);
	if (rc) {
		path_remove(part, NULL);
		return rc;
	}
	rc = save_into(c, part, err);
	if (held.over) /* some may have gone on before others were written */
		rc = error_set(err, ECANCELED, "the VMs did not stand still: %s", held.err.text);
	if (!rc)
		rc = publish(part, full, err);
	if (rc)
		path_remove(part, NULL);
	else
		rc = check_whole(c, full, err);
	int back = held.over ? 0 : resume(c, part, &why);
	let_go(c, &held);
	if (!rc && back)
		rc = error_set(err, why.err.code, "saved in %s, but not all VMs go on: %s", full,
			       why.err.text);
	return rc;
}
