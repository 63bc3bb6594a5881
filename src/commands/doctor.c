/* SPDX-License-Identifier: Apache-2.0 */
/* What this node offers, and what it lacks for which job. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/rundir.h"
#include "base/size.h"
#include "base/text.h"
#include "commands/common.h"
#include "client/programs.h"
#include "image/image.h"
#include "launcher/launcher.h"

struct check {
	json_t *all;
	json_t *hypervisors; /* as the agent told; NULL = it did not */
	bool json;
	int bad;
};

static void say(struct check *c, const char *what, bool good, bool needed, const char *text)
{
	json_array_append_new(c->all, json_pack("{s:s, s:b, s:b, s:s}", "what", what, "ok", good,
						"needed", needed, "text", text));
	if (!good && needed)
		c->bad++;
	if (!c->json)
		printf("%-4s %-18s %s\n", good ? "ok" : needed ? "BAD" : "-", what, text);
}

/* ---- hypervisors: the agent's word ---- */

static void hypervisors(struct check *c)
{
	struct err err = ERR_INIT;
	json_t *list = offer_ask(NULL, "auto", &err), *h;
	size_t i;
	bool any = false;
	if (!list)
		say(c, "agent", false, true, err.text);
	json_array_foreach (list, i, h) {
		const char *name = json_string_value(json_object_get(h, "name")),
			   *why = json_string_value(json_object_get(h, "why"));
		const char *note = json_string_value(json_object_get(h, "note"));
		bool usable = json_is_true(json_object_get(h, "usable"));
		_cleanup_free_ char *line =
			usable ? xasprintf("%s%s%s%s%s",
					   json_string_value(json_object_get(h, "version")), ", ",
					   json_string_value(json_object_get(h, "accel")),
					   note && *note ? ": " : "", note ? note : "")
			       : xstrdup(why ? why : "");
		any = any || (usable && strcmp(name, "fake") != 0);
		say(c, name, usable, false, line);
	}
	if (!any && list)
		say(c, "hypervisors", false, true, "none that runs real VMs: install qemu-system-x86");
	c->hypervisors = list;
}

/* ---- what each hypervisor can do here: rows operations, columns hypervisors ---- */

static void matrix_cell(const json_t *h, const char *op, int width)
{
	const char *word = "-"; /* not usable at all: said above */
	if (json_is_true(json_object_get(h, "usable")))
		word = json_is_string(json_object_get(json_object_get(h, "lacks"), op)) ? "no" : "yes";
	printf("  %-*s", width, word);
}

static void matrix_reasons(const json_t *h)
{
	const char *op;
	json_t *why;
	if (!json_is_true(json_object_get(h, "usable")))
		return;
	json_object_foreach (json_object_get(h, "lacks"), op, why) {
		_cleanup_free_ char *text = text_cleaned(json_string_value(why));
		if (json_is_string(why))
			printf("%s: no %s: %s\n", json_string_value(json_object_get(h, "name")), op,
			       text);
	}
}

static void matrix(const struct check *c)
{
	const char *op;
	json_t *any, *h;
	size_t i;
	if (!json_array_size(c->hypervisors))
		return;
	printf("\n%-16s", "");
	json_array_foreach (c->hypervisors, i, h)
		printf("  %-5s", json_string_value(json_object_get(h, "name")));
	printf("\n");
	json_object_foreach (json_object_get(json_array_get(c->hypervisors, 0), "lacks"), op, any) {
		printf("%-16s", op);
		json_array_foreach (c->hypervisors, i, h)
			matrix_cell(h, op,
				    (int)MAX(json_string_length(json_object_get(h, "name")), (size_t)5));
		printf("\n");
	}
	json_array_foreach (c->hypervisors, i, h)
		matrix_reasons(h);
}

/* ---- tools for building ---- */

static void tools(struct check *c)
{
	static const struct {
		const char *program, *package, *use;
	} needed[] = {
		{"mmdebstrap", "mmdebstrap", "builds Debian and Ubuntu roots"},
		{"mksquashfs", "squashfs-tools", "packs the root"},
		{"newuidmap", "uidmap", "builds without root"},
		{"mke2fs", "e2fsprogs", "makes scratch disks"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		_cleanup_free_ char *path = path_find_program(needed[i].program);
		if (!path) {
			_cleanup_free_ char *sbin = path_join("/sbin", needed[i].program);
			path = path_find_program(sbin);
		}
		_cleanup_free_ char *text = path ? xasprintf("%s (%s)", path, needed[i].use)
						 : xasprintf("not found: %s; install %s",
							     needed[i].use, needed[i].package);
		bool only_users = strcmp(needed[i].program, "newuidmap") == 0;
		say(c, needed[i].program, path != NULL, !only_users || geteuid() != 0, text);
	}
}

static bool has_subids(const char *file)
{
	_cleanup_free_ char *text = NULL;
	char uid[16];
	const char *user = getenv("USER");
	if (path_read(file, 1 << 20, &text, NULL, NULL) < 0)
		return false;
	snprintf(uid, sizeof(uid), "%u", (unsigned)geteuid());
	char *rest = text, *line;
	while ((line = strsep(&rest, "\n"))) {
		size_t n = strcspn(line, ":");
		if ((user && strlen(user) == n && strncmp(line, user, n) == 0) ||
		    (strlen(uid) == n && strncmp(line, uid, n) == 0))
			return true;
	}
	return false;
}

static void subids(struct check *c)
{
	if (geteuid() == 0)
		return;
	bool good = has_subids("/etc/subuid") && has_subids("/etc/subgid");
	say(c, "subordinate ids", good, true,
	    good ? "/etc/subuid and /etc/subgid have a range for you"
		 : "no range for you in /etc/subuid or /etc/subgid: ask root for 'usermod "
		   "--add-subuids 100000-165535 "
		   "--add-subgids 100000-165535 USER'");
}

/* ---- places ---- */

static void place(struct check *c, const char *what, const char *path, uint64_t want)
{
	struct statvfs v;
	char room[24];
	_cleanup_free_ char *at = xstrdup(path); /* or where it would be made */
	int rc;
	while ((rc = statvfs(at, &v)) < 0 && errno == ENOENT && strrchr(at, '/') > at)
		*strrchr(at, '/') = '\0';
	if (rc < 0) {
		_cleanup_free_ char *text = xasprintf("%s: %s", path, strerror(errno));
		say(c, what, false, true, text);
		return;
	}
	uint64_t bytes = (uint64_t)v.f_bavail * v.f_frsize;
	size_format(bytes, room);
	_cleanup_free_ char *text = xasprintf("%s, %s free%s", path, room,
					      bytes < want ? ": that is little" : "");
	say(c, what, bytes >= want && access(at, W_OK) == 0, true, text);
}

static void places(struct check *c)
{
	struct err err = ERR_INIT;
	_cleanup_free_ char *base = NULL, *store = NULL;
	if (rundir_base(&base, &err) < 0) {
		say(c, "run directory", false, true, err.text);
	} else {
		place(c, "run directory", base, 16 << 20);
	}
	if (image_store_path(&store, &err) < 0)
		say(c, "image store", false, true, err.text);
	else
		place(c, "image store", store, 1ull << 30);
}

/* ---- how agents get onto nodes ---- */

static void launchers(struct check *c)
{
	const struct launcher *l;
	char why[LAUNCH_WHY_MAX];
	for (size_t i = 0; (l = launcher_at(i)); i++) {
		enum launch_fit fit = launcher_probe(l, why);
		_cleanup_free_ char *what = xasprintf("launcher %s", l->name),
				    *text = text_cleaned(why);
		say(c, what, fit != LAUNCH_UNUSABLE, false, text);
	}
}

static int run(const struct command *cmd _unused_, struct args *a)
{
	struct check c = {.all = json_array(), .json = arg_flag(a, "json")};
	hypervisors(&c);
	tools(&c);
	subids(&c);
	places(&c);
	launchers(&c);
	if (c.json) {
		json_t *j = json_pack("{s:b, s:O, s:O*}", "ok", c.bad == 0, "checks", c.all,
				      "hypervisors", c.hypervisors);
		common_print_json(j);
		json_decref(j);
	} else {
		matrix(&c);
	}
	json_decref(c.hypervisors);
	json_decref(c.all);
	return c.bad ? EXIT_FAILED : EXIT_OK;
}

static const struct option_spec options[] = {OPTION_JSON, {0}};

const struct command command_doctor = {
	.name = "doctor",
	.summary = "what this node offers and lacks, with reasons",
	.details = "Exit code 1 when something needed is missing.",
	.options = options,
	.run = run,
};
