/* SPDX-License-Identifier: Apache-2.0 */
#include "client/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hostlist.h"
#include "base/rundir.h"
#include "base/size.h"
#include "base/text.h"
#include "launcher/launcher.h"
#include "spec/rules.h"
#include "spec/vse.h"

#define DAY_MS 86400000 /* as the agent's own bounds */
#define COUNT_MAX 1500

enum kind {
	TEXT,
	FLAG,
	INT,
	SIZE,
	TIME,
	WORD,
	CLUSTER,
	HOSTS,
	LAUNCHER,
	FILE_PATH,
	PLACE,
	ENV,
	MOUNT,
	DEVICE
};

struct row {
	const char *key;
	int calls;
	enum kind kind;
	bool many;         /* every value counts, not the last */
	uint64_t min, max; /* INT; SIZE in bytes (0 is always fine but for min_only); TIME in ms */
	const char *words; /* WORD: "a b" */
};

static const struct row table[] = {
	{.key = "count", .calls = FOR_UP, .kind = INT, .min = 1, .max = COUNT_MAX},
	{.key = "name", .calls = FOR_UP, .kind = CLUSTER},
	{.key = "cpus", .calls = FOR_UP, .kind = INT, .min = 1, .max = 1024},
	{.key = "memory", .calls = FOR_UP, .kind = SIZE, .min = 64ull << 20},
	{.key = "scratch", .calls = FOR_UP, .kind = SIZE, .min = 16ull << 20},
	{.key = "timeout", .calls = FOR_UP, .kind = TIME, .min = 1},
	{.key = "hung-after", .calls = FOR_UP, .kind = TIME, .min = 100},
	{.key = "parallel", .calls = FOR_UP, .kind = INT, .min = 1, .max = COUNT_MAX},
	{.key = "hypervisor", .calls = FOR_UP, .kind = TEXT},
	{.key = "hypervisor-arg", .calls = FOR_UP, .kind = TEXT, .many = true},
	{.key = "accel", .calls = FOR_UP, .kind = WORD, .words = "auto kvm tcg"},
	{.key = "machine", .calls = FOR_UP, .kind = WORD, .words = "auto microvm q35 pv pvh hvm"},
	{.key = "clone", .calls = FOR_UP, .kind = FLAG},
	{.key = "no-clone", .calls = FOR_UP, .kind = FLAG},
	{.key = "keep-failed", .calls = FOR_UP, .kind = FLAG},
	{.key = "launcher", .calls = FOR_UP | FOR_NODES, .kind = LAUNCHER},
	{.key = "launcher-arg", .calls = FOR_UP | FOR_NODES, .kind = TEXT, .many = true},
	{.key = "hosts", .calls = FOR_UP | FOR_NODES, .kind = HOSTS},
	{.key = "hostfile", .calls = FOR_UP | FOR_NODES, .kind = FILE_PATH},
	{.key = "nodes", .calls = FOR_UP | FOR_NODES, .kind = INT, .min = 1, .max = 1000000},
	{.key = "start", .calls = FOR_UP, .kind = LAUNCHER},
	{.key = "place", .calls = FOR_UP, .kind = PLACE},
	{.key = "max-per-node", .calls = FOR_UP, .kind = INT, .min = 1, .max = 1000000},
	{.key = "oversubscribe", .calls = FOR_UP, .kind = FLAG},
	{.key = "cpu-bind", .calls = FOR_UP, .kind = WORD, .words = "none threads cores"},
	{.key = "mem-bind", .calls = FOR_UP, .kind = WORD, .words = "none local"},
	{.key = "hugepages", .calls = FOR_UP, .kind = FLAG},
	{.key = "network", .calls = FOR_UP, .kind = WORD, .words = "switch kernel"},
	{.key = "mount", .calls = FOR_UP, .kind = MOUNT, .many = true},
	{.key = "device", .calls = FOR_UP, .kind = DEVICE, .many = true},
	{.key = "missing", .calls = FOR_UP | FOR_NODES, .kind = WORD, .words = "abort go-on"},
	{.key = "spare", .calls = FOR_UP, .kind = INT, .min = 1, .max = 1000000},
	{.key = "recover", .calls = FOR_UP, .kind = FLAG},
	{.key = "node-timeout", .calls = FOR_UP | FOR_NODES, .kind = TIME, .min = 100},
	{.key = "wait", .calls = FOR_UP | FOR_NODES, .kind = TIME, .min = 100},
	{.key = "fanout", .calls = FOR_UP, .kind = INT, .min = 1, .max = 1000000},
	{.key = "tree", .calls = FOR_UP, .kind = WORD, .words = "auto flat"},
	{.key = "before-end", .calls = FOR_UP, .kind = TIME, .min = 1000},
	{.key = "lost-after", .calls = FOR_UP, .kind = TIME, .min = 500},
	{.key = "give-up-after", .calls = FOR_UP, .kind = TIME, .min = 2000},
	{.key = "fast-kex", .calls = FOR_UP, .kind = FLAG},
	{.key = "no-agent-cache", .calls = FOR_UP, .kind = FLAG},
	{.key = "ranks", .calls = FOR_EXEC, .kind = TEXT},
	{.key = "user", .calls = FOR_EXEC, .kind = TEXT},
	{.key = "cwd", .calls = FOR_EXEC, .kind = TEXT},
	{.key = "env", .calls = FOR_EXEC, .kind = ENV, .many = true},
	{.key = "tty", .calls = FOR_EXEC, .kind = FLAG},
	{.key = "rows", .calls = FOR_EXEC, .kind = INT, .max = 65535},
	{.key = "cols", .calls = FOR_EXEC, .kind = INT, .max = 65535},
	{.key = "stdin", .calls = FOR_EXEC, .kind = FLAG},
	{.key = "window", .calls = FOR_EXEC, .kind = SIZE, .min = 4096},
	{.key = "flow", .calls = FOR_EXEC, .kind = WORD, .words = "auto manual"},
	{.key = "follow", .calls = FOR_FOLLOW, .kind = FLAG},
};

struct vse_options {
	struct strvec values[ARRAY_SIZE(table)];
};

static const struct row *find(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strcmp(table[i].key, key) == 0)
			return &table[i];
	return NULL;
}

struct vse_options *vse_options_new(void)
{
	return xcalloc(1, sizeof(struct vse_options));
}

void vse_options_free(struct vse_options *o)
{
	for (size_t i = 0; o && i < ARRAY_SIZE(table); i++)
		strvec_finish(&o->values[i]);
	free(o);
}

/* ---- one value ---- */

static int check_int(const struct row *r, const char *v, struct vse_error *e)
{
	struct err err = ERR_INIT;
	int64_t n;
	if (int_parse(v, (int64_t)r->min, (int64_t)r->max, &n, &err) < 0)
		return error_option(e, r->key, ": %s", err.text);
	return 0;
}

static int check_size(const struct row *r, const char *v, struct vse_error *e)
{
	struct err err = ERR_INIT;
	uint64_t n;
	if (size_parse(v, &n, &err) < 0)
		return error_option(e, r->key, ": %s", err.text);
	if (!n && strcmp(r->key, "memory") == 0)
		return error_option(e, r->key, " 0: a VM needs at least %" PRIu64 "M", r->min >> 20);
	if (n && n < r->min)
		return error_option(e, r->key, " %s: too small, at least %" PRIu64 "%s", v,
				    r->min >> (r->min >> 20 ? 20 : 10), r->min >> 20 ? "M" : "K");
	if (n > RULE_MEMORY_MAX)
		return error_option(e, r->key, " %s: too large, at most %" PRIu64 "T", v,
				    (uint64_t)RULE_MEMORY_MAX >> 40);
	return 0;
}

static int check_time(const struct row *r, const char *v, struct vse_error *e)
{
	struct err err = ERR_INIT;
	uint64_t ms;
	if (duration_parse(v, &ms, &err) < 0)
		return error_option(e, r->key, ": %s", err.text);
	if (!ms && r->min <= 1)
		return error_option(e, r->key, " 0: it needs some time");
	if (ms > DAY_MS)
		return error_option(e, r->key, " %s: too long, at most 24h", v);
	if (ms < r->min)
		return error_option(e, r->key, " %s: from %.1fs to 24h", v, (double)r->min / 1000);
	return 0;
}

static int check_word(const struct row *r, const char *v, struct vse_error *e)
{
	_cleanup_strvec_ struct strvec words = STRVEC_INIT;
	strvec_split(&words, r->words, " ");
	if (strvec_has(&words, v))
		return 0;
	return error_option(e, r->key, " %s: not one of: %s", v, r->words);
}

static int check_flag(const struct row *r, const char *v, struct vse_error *e)
{
	if (strcmp(v, "yes") == 0 || strcmp(v, "no") == 0)
		return 0;
	return error_option(e, r->key, " %s: yes or no", v);
}

static int check_cluster(const char *v, struct vse_error *e)
{
	if (cluster_name_check(v, &e->err) == 0)
		return 0;
	e->usage = true;
	return error_code(e);
}

static int check_hosts(const struct row *r, const char *v, struct vse_error *e)
{
	_cleanup_strvec_ struct strvec names = STRVEC_INIT;
	struct err err = ERR_INIT;
	if (hostlist_expand(v, &names, &err) < 0)
		return error_option(e, r->key, ": %s", err.text);
	return 0;
}

/* A colon is what makes it a map; the root agent, which knows the nodes, reads that. */
static int check_place(const struct row *r, const char *v, struct vse_error *e)
{
	if (strcmp(v, "spread") == 0 || strcmp(v, "pack") == 0 || strchr(v, ':'))
		return 0;
	return error_option(e, r->key, " %s: spread, pack, or a map as n1:2,n2:1", v);
}

static int check_mount(const struct row *r, const char *v, struct vse_error *e)
{
	struct vse alone = {0};
	struct err err = ERR_INIT;
	int rc = vse_add_mount(&alone, v, "/", &err);
	if (!rc) {
		free(alone.mounts[0].host);
		free(alone.mounts[0].guest);
	}
	free(alone.mounts);
	return rc ? error_option(e, r->key, ": %s", err.text) : 0;
}

static int check_device(const struct row *r, const char *v, struct vse_error *e)
{
	struct err err = ERR_INIT;
	return rule_device_place(v, &err) < 0 ? error_option(e, r->key, ": %s", err.text) : 0;
}

static int check(const struct row *r, const char *v, struct vse_error *e)
{
	if (!text_is_utf8(v))
		return error_option(e, r->key, ": not UTF-8 text");
	switch (r->kind) {
	case FLAG: return check_flag(r, v, e);
	case INT: return check_int(r, v, e);
	case SIZE: return check_size(r, v, e);
	case TIME: return check_time(r, v, e);
	case WORD: return check_word(r, v, e);
	case CLUSTER: return check_cluster(v, e);
	case HOSTS: return check_hosts(r, v, e);
	case PLACE: return check_place(r, v, e);
	case LAUNCHER:
		if (launcher_find(v))
			return 0;
		return error_option(e, r->key, " %s: there is no launcher of that name", v);
	case ENV:
		if (v[0] != '=' && strchr(v, '='))
			return 0;
		return error_option(e, r->key, " %s: not NAME=VALUE", v);
	case MOUNT: return check_mount(r, v, e);
	case DEVICE: return check_device(r, v, e);
	case FILE_PATH:
	case TEXT: return 0;
	}
	return 0;
}

/* Whoever reads a file named here runs in another folder. */
static int add_path(struct strvec *values, const struct row *r, const char *v, struct vse_error *e)
{
	_cleanup_free_ char *path = realpath(v, NULL);
	if (!path)
		return error_option(e, r->key, " %s: %s", v, strerror(errno));
	if (!text_is_utf8(path))
		return error_option(e, r->key, ": not UTF-8 text");
	strvec_take(values, TAKE_PTR(path));
	return 0;
}

int vse_options_set(struct vse_options *o, const char *key, const char *value, struct vse_error *err)
{
	ERROR_OR_OWN(err);
	const struct row *r = find(key);
	if (!r) {
		err->usage = true;
		return error_set(err, EINVAL, "option '%s': there is none of that name", key);
	}
	struct strvec *values = &o->values[r - table];
	if (!value) {
		strvec_finish(values);
		return 0;
	}
	int rc = check(r, value, err);
	if (rc)
		return rc;
	if (!r->many)
		strvec_finish(values);
	if (r->kind == FILE_PATH)
		return add_path(values, r, value, err);
	strvec_add(values, value);
	return 0;
}

/* ---- reading them ---- */

bool option_known(const char *key, int calls)
{
	const struct row *r = find(key);
	return r && (r->calls & calls);
}

int options_check(const struct vse_options *o, int call, struct vse_error *e)
{
	for (size_t i = 0; o && i < ARRAY_SIZE(table); i++)
		if (o->values[i].n && !(table[i].calls & call))
			return error_option(e, table[i].key, ": not an option of this call");
	return 0;
}

const struct strvec *options_all(const struct vse_options *o, const char *key)
{
	static const struct strvec none = {0};
	const struct row *r = find(key);
	return o && r ? &o->values[r - table] : &none;
}

const char *options_text(const struct vse_options *o, const char *key)
{
	const struct strvec *all = options_all(o, key);
	return all->n ? all->v[all->n - 1] : NULL;
}

int64_t options_int(const struct vse_options *o, const char *key, int64_t otherwise)
{
	const char *v = options_text(o, key);
	int64_t n = otherwise;
	if (v)
		int_parse(v, INT64_MIN, INT64_MAX, &n, NULL);
	return n;
}

uint64_t options_size(const struct vse_options *o, const char *key, uint64_t otherwise)
{
	const char *v = options_text(o, key);
	uint64_t n = otherwise;
	if (v)
		size_parse(v, &n, NULL);
	return n;
}

uint64_t options_ms(const struct vse_options *o, const char *key, uint64_t otherwise)
{
	const char *v = options_text(o, key);
	uint64_t n = otherwise;
	if (v)
		duration_parse(v, &n, NULL);
	return n;
}

bool options_flag(const struct vse_options *o, const char *key)
{
	const char *v = options_text(o, key);
	return v && strcmp(v, "yes") == 0;
}
