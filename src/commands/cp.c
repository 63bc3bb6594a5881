/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/rankset.h"
#include "base/size.h"
#include "base/text.h"
#include "commands/common.h"
#include "commands/progress.h"
#include "wire/archive.h"
#include "wire/guestproto.h"
#include "wire/message.h"

#define CHUNK (64u << 10)        /* bytes read from the archive at once */
#define WINDOW_TOTAL (32u << 20) /* bytes on the way from all VMs together */
#define QUEUE_MAX (1u << 20)

/* One VM that a copy comes from. */
struct source {
	struct archive_reader *reader;
	bool failed;
};

struct copy {
	const struct command *cmd;
	struct client *client;
	uint32_t id;
	struct rankset ranks;
	struct progress progress;
	uint64_t moved; /* bytes of the archive */
	bool over;
	int signo; /* that interrupted it */
	int failures;
	struct err err;

	struct archive_writer *writer; /* into VMs */
	uint64_t credit;
	bool sent_all;

	struct source *sources; /* out of VMs: by rank */
	uint32_t size;
};

/* "vm0:/path", "0-3:/path", "all:/path": true and the parts; false: a local path. A path with a slash before the
 * first colon is local, as with scp. */
static bool remote(const char *word, char **ret_ranks, const char **ret_path)
{
	const char *colon = strchr(word, ':'), *slash = strchr(word, '/');
	if (!colon || (slash && slash < colon) || colon == word)
		return false;
	_cleanup_free_ char *ranks = xstrndup(word, (size_t)(colon - word));
	*ret_ranks = xstrdup(common_vm_text(ranks));
	*ret_path = colon + 1;
	return true;
}

static void failed(struct copy *c, const char *who, const char *why)
{
	_cleanup_free_ char *clean = text_cleaned(why); /* a VM's words, or a name in it */
	progress_clear(&c->progress);
	fprintf(stderr, "vse %s: %s: %s\n", c->cmd->name, who, clean);
	c->failures++;
}

static void moved(struct copy *c, size_t n)
{
	char text[24];
	c->moved += n;
	size_format(c->moved, text);
	if (c->progress.tty)
		progress_step(&c->progress, "copying", 0, 0, text);
}

/* ---- into VMs ---- */

static void send_more(struct copy *c)
{
	char chunk[CHUNK];
	while (!c->over && !c->sent_all && c->credit) {
		ssize_t n = archive_writer_read(c->writer, chunk, MIN(sizeof(chunk), c->credit),
						&c->err);
		if (n < 0) {
			c->over = true;
			return;
		}
		c->sent_all = n == 0;
		c->credit -= (size_t)n;
		moved(c, (size_t)n);
		client_data(c->client, c->id, FRAME_ALL, chunk, (size_t)n, n == 0);
	}
}

static void on_credit(void *arg, uint32_t rank _unused_, uint32_t bytes)
{
	struct copy *c = arg;
	c->credit += bytes;
	send_more(c);
}

/* ---- out of VMs ---- */

static void on_data(void *arg, uint32_t rank, int fd _unused_, const char *p, size_t n, bool eof)
{
	struct copy *c = arg;
	struct err err = ERR_INIT;
	struct source *s = rank < c->size ? &c->sources[rank] : NULL;
	if (!s || !s->reader)
		return;
	if (!s->failed && n && archive_reader_feed(s->reader, p, n, &err) < 0) {
		char who[16];
		snprintf(who, sizeof(who), "vm%u", rank);
		failed(c, who, err.text);
		s->failed = true;
	}
	moved(c, n);
	if (n && !eof)
		client_credit(c->client, c->id, rank, 1, (uint32_t)n);
}

static void finish_source(struct copy *c, uint32_t rank, bool good)
{
	struct source *s = &c->sources[rank];
	struct err err = ERR_INIT;
	char who[16];
	snprintf(who, sizeof(who), "vm%u", rank);
	if (s->reader && good && !s->failed && archive_reader_finish(s->reader, &err) < 0)
		failed(c, who, err.text);
	archive_reader_destroy(s->reader);
	s->reader = NULL;
}

/* ---- both ---- */

static void on_vm_event(struct copy *c, const json_t *e, const char *what, uint32_t rank)
{
	char who[16];
	if (rank >= c->size)
		return;
	snprintf(who, sizeof(who), "vm%u", rank);
	bool error = strcmp(what, "error") == 0;
	if (error) {
		const char *text = json_string_value(json_object_get(e, "error"));
		size_t skip = text && strncmp(text, who, strlen(who)) == 0 && text[strlen(who)] == ':'
				      ? strlen(who) + 2
				      : 0;
		failed(c, who, text ? text + skip : "failed");
	}
	if (c->sources && (error || strcmp(what, "done") == 0))
		finish_source(c, rank, !error);
}

static void on_event(void *arg, const json_t *e)
{
	struct copy *c = arg;
	const char *what = json_string_value(json_object_get(e, "event"));
	_cleanup_rankset_ struct rankset ranks = RANKSET_INIT;
	if (!what || !message_ranks(e, &ranks))
		return;
	for (uint32_t r = rankset_next(&ranks, 0); r != UINT32_MAX; r = rankset_next(&ranks, r + 1))
		on_vm_event(c, e, what, r);
}

static void on_end(void *arg, const json_t *reply, const struct err *err)
{
	struct copy *c = arg;
	c->over = true;
	if (!reply)
		c->err = *err;
}

static const struct client_ops ops = {
	.on_event = on_event, .on_data = on_data, .on_credit = on_credit, .on_end = on_end};

static void on_interrupt(void *arg, int signo)
{
	struct copy *c = arg;
	c->over = true;
	c->signo = signo;
}

static int drive(struct copy *c, json_t *req)
{
	struct loop *loop = client_loop(c->client);
	struct interrupts *in = interrupts_create(loop, on_interrupt, c);
	c->id = client_call(c->client, req, &ops, c);
	if (c->writer) {
		c->credit = GUESTPROTO_STDIN_WINDOW;
		send_more(c);
	}
	while (!c->over)
		loop_run_once(loop);
	client_forget(c->client, c->id);
	interrupts_destroy(in);
	progress_clear(&c->progress);
	if (c->signo)
		return 128 + c->signo;
	if (c->err.code)
		return command_fail(c->cmd, &c->err);
	return c->failures ? EXIT_FAILED : EXIT_OK;
}

static int put(struct copy *c, char *const *paths, size_t n, const char *ranks, const char *to)
{
	if (archive_writer_create(paths, n, &c->writer, &c->err) < 0)
		return command_fail(c->cmd, &c->err);
	size_t len = strlen(to);
	bool into = n > 1 || !len || to[len - 1] == '/';
	int code = drive(c, json_pack("{s:s, s:s, s:s, s:i}", "verb", "put", "ranks", ranks, "path",
				      len ? to : "/root/", "into", into));
	archive_writer_destroy(c->writer);
	return code;
}

/* The name that a copy of a VM's `path` has: "dir/" is "dir". NULL: it has none of its own. */
static char *name_of(const char *path)
{
	size_t end = strlen(path), begin;
	while (end && path[end - 1] == '/')
		end--;
	for (begin = end; begin && path[begin - 1] != '/'; begin--)
		;
	return archive_name_ok(path + begin, end - begin) ? xstrndup(path + begin, end - begin) : NULL;
}

/* Of one VM to the path itself; of several each into a folder vm<rank> below it. */
static int open_targets(struct copy *c, const char *from, const char *to)
{
	_cleanup_free_ char *asked = name_of(from);
	bool several = rankset_count(&c->ranks) > 1;
	for (uint32_t r = rankset_next(&c->ranks, 0); r != UINT32_MAX;
	     r = rankset_next(&c->ranks, r + 1)) {
		_cleanup_free_ char *dir = several ? xasprintf("%s/vm%u", to, r) : NULL, *name = NULL;
		_cleanup_close_ int fd = -1;
		if (several && path_mkdirs(dir, 0755, &c->err) < 0)
			return -1;
		if (archive_target(several ? dir : to, several, &fd, &name, &c->err) < 0 ||
		    archive_reader_create(fd, name, &c->sources[r].reader, &c->err) < 0)
			return -1;
		archive_reader_expect(c->sources[r].reader, asked); /* a VM's word is not trusted */
	}
	return 0;
}

static int get(struct copy *c, const char *ranks, const char *from, const char *to)
{
	uint32_t n = MAX(rankset_count(&c->ranks), 1u);
	uint32_t window = MIN(MAX(WINDOW_TOTAL / n, 64u << 10), 1u << 20);
	int code;
	c->sources = xcalloc(c->size, sizeof(*c->sources));
	if (open_targets(c, from, to) < 0)
		code = command_fail(c->cmd, &c->err);
	else
		code = drive(c, json_pack("{s:s, s:s, s:s, s:i}", "verb", "get", "ranks", ranks,
					  "path", from, "window", (int)window));
	for (uint32_t r = 0; r < c->size; r++)
		archive_reader_destroy(c->sources[r].reader);
	free(c->sources);
	return code;
}

static int copy(struct copy *c, const struct args *a, char *ranks, const char *inside, bool into_vm)
{
	json_t *reply;
	_cleanup_(vse_error_finish) struct vse_error e = {0};
	struct vse_cluster *cluster;
	if (common_connect(arg_value(a, "cluster"), &cluster, &e))
		return common_fail(c->cmd, &e);
	int code = EXIT_FAILED;
	c->client = cluster->client;
	if (client_ask(c->client, json_pack("{s:s}", "verb", "size"), 10000, &reply, &c->err) < 0) {
		command_fail(c->cmd, &c->err);
	} else {
		c->size = (uint32_t)json_integer_value(json_object_get(reply, "size"));
		json_decref(reply);
		if (rankset_parse(&c->ranks, ranks, c->size, &c->err) < 0)
			code = command_usage(c->cmd, "%s", c->err.text);
		else if (into_vm)
			code = put(c, a->operands, (size_t)a->n_operands - 1, ranks, inside);
		else
			code = get(c, ranks, inside, a->operands[1]);
	}
	rankset_finish(&c->ranks);
	common_disconnect(cluster);
	return code;
}

static int run(const struct command *cmd, struct args *a)
{
	struct copy c = {.cmd = cmd};
	_cleanup_free_ char *ranks = NULL, *other = NULL;
	const char *inside, *path;
	int last = a->n_operands - 1;
	bool into_vm = remote(a->operands[last], &ranks, &inside);
	for (int i = 0; i < last; i++) {
		bool far = remote(a->operands[i], &other, &path);
		if (far && into_vm)
			return command_usage(
				cmd, "from VM to VM is not possible: copy to this host first");
		if (far && last > 1)
			return command_usage(cmd,
					     "only one path at a time can be copied out of VMs");
		if (far) {
			_cleanup_free_ char *name = name_of(path);
			if (!name)
				return command_usage(cmd, "%s: end the path in the name of a file or folder, not in '/', '.' or '..'",
						     a->operands[i]);
			ranks = TAKE_PTR(other);
			inside = path;
		} else if (!into_vm) {
			return command_usage(cmd, "neither side is in a VM (VM paths are written "
						  "vm0:/path or all:/path)");
		}
	}
	progress_begin(&c.progress, arg_flag(a, "quiet"));
	return copy(&c, a, ranks, inside, into_vm);
}

static const struct option_spec options[] = {
	OPTION_CLUSTER,
	{"quiet", 'q', NULL, "no progress", NULL},
	{0},
};

const struct command command_cp = {
	.name = "cp",
	.summary = "copy files and folders into or out of VMs, checked",
	.usage = "SOURCE... TARGET",
	.details = "One side is in VMs: vm0:/path, 0-3:/path or all:/path. Folders are copied "
		   "whole. Out of several\n"
		   "VMs each copy goes into TARGET/vm<rank>/. What is written is checked by a "
		   "checksum and appears\n"
		   "under its name only when it is complete.",
	.options = options,
	.min_args = 2,
	.max_args = -1,
	.complete = "file",
	.run = run,
};
