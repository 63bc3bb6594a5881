/* SPDX-License-Identifier: Apache-2.0 */
/* Templates of the fake: made, kept, read again, while others put theirs at the same place. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/path.h"
#include "io/loop.h"
#include "tap.h"
#include "vm/kept.h"
#include "vm/pack.h"
#include "vm/template.h"

static char *tmp, *caches[2];
static char key[KEPT_KEY + 1];
static struct vm_profile profile;

struct told {
	unsigned times;
	struct err err;
};

static void on_done(void *arg, const struct err *err)
{
	struct told *t = arg;
	t->times++;
	t->err = err ? *err : ERR_INIT;
}

static struct template *begin(struct loop *l, const char *cache, struct told *told)
{
	_cleanup_free_ char *own = path_join(tmp, "vm");
	const struct template_spec spec = {.profile = &profile,
					   .dir = own,
					   .cache = cache,
					   .key = key,
					   .make = true,
					   .bound_ms = 60000};
	struct err e = ERR_INIT;
	memset(told, 0, sizeof(*told));
	struct template *t = template_create(l, &spec, on_done, told, &e);
	ok(t, "a template is looked for %s", e.text);
	return t;
}

static void end(struct loop *l, struct template *t, const struct told *told, const char *origin)
{
	loop_run(l);
	ok(told->times == 1 && !told->err.code, "it is there %s", told->err.text);
	is_str(template_origin(t), origin, "it is%s", origin);
	template_destroy(t);
}

static void get(const char *cache, const char *origin)
{
	struct told told;
	struct loop *l = loop_create();
	end(l, begin(l, cache, &told), &told, origin);
	loop_destroy(l);
}

static char *note_of(const char *cache)
{
	_cleanup_free_ char *path = kept_path(cache, key, "note");
	char *text = NULL;
	path_read(path, KEPT_NOTE, &text, NULL, NULL);
	return text;
}

static void test_kept(void)
{
	get(caches[0], " made now");
	get(caches[0], " of the cache");
	_cleanup_free_ char *note = note_of(caches[0]), *memory = kept_path(caches[0], key, "memory");
	ok(note, "there is a note of it");
	is_int(truncate(memory, 10), 0, "it is damaged");
	get(caches[0], " made now; that of the cache was of no use");
	_cleanup_free_ char *other = note_of(caches[0]);
	ok(note && other && strcmp(note, other) != 0, "and another is kept");
}

static void test_busy(void)
{
	_cleanup_free_ char *before = note_of(caches[0]);
	int others = open(caches[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	is_int(flock(others, LOCK_EX), 0, "others are at work in the folder");
	get(caches[1], " made now");
	is_int(rmdir(caches[1]), 0, "it is not kept, and no file is left of it");
	mkdir(caches[1], 0700);
	close(others);
	get(caches[1], " made now");
	_cleanup_free_ char *after = note_of(caches[1]);
	ok(before && after && strcmp(before, after) != 0, "later it is");
}

/* The memory is read of one, the state of the next. */
static void test_replaced(void)
{
	static const char *const files[] = {"memory", "state", "note"};
	struct told told;
	struct loop *l = loop_create();
	struct template *t = begin(l, caches[0], &told);
	loop_run_once(l);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *from = kept_path(caches[1], key, files[i]),
				    *to = kept_path(caches[0], key, files[i]);
		is_int(rename(from, to), 0, "another agent puts its %s there", files[i]);
	}
	_cleanup_free_ char *before = note_of(caches[0]);
	end(l, t, &told, " of the cache");
	loop_destroy(l);
	_cleanup_free_ char *after = note_of(caches[0]);
	ok(before && after && strcmp(before, after) == 0, "that one stays, and is the one");
}

static void test_hellos(void)
{
	strvec_add(&profile.extra_args, "hello-twice");
	get(NULL, " made now");
	strvec_finish(&profile.extra_args);
}

int main(int argc, char **argv)
{
	struct err e = ERR_INIT;
	if (argc > 1 && strcmp(argv[1], "--pack") == 0) { /* what the agent does */
		if (pack_main(argc - 2, argv + 2, &e) == 0)
			return 0;
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	tmp = xasprintf("%s/template.XXXXXX", getenv("TMPDIR") ?: "/tmp");
	if (!mkdtemp(tmp))
		return 1;
	memset(key, 'a', KEPT_KEY);
	profile = (struct vm_profile){.hypervisor = hypervisor_find("fake"),
				      .probe = {.usable = true, .accel = "fake"},
				      .machine = "auto",
				      .accel = "auto",
				      .cpus = 1,
				      .memory = 1 << 20};
	for (int i = 0; i < 2; i++) {
		caches[i] = xasprintf("%s/cache%d", tmp, i);
		mkdir(caches[i], 0700);
	}
	test_kept();
	test_busy();
	test_replaced();
	test_hellos();
	path_remove(tmp, NULL);
	free(tmp);
	free(caches[0]);
	free(caches[1]);
	return done();
}
