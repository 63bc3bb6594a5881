/* SPDX-License-Identifier: Apache-2.0 */
/* The image store: opening, naming, holding, removing, collecting; trees and their digests. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/alloc.h"
#include "base/path.h"
#include "image/image.h"
#include "image/sandbox.h"
#include "image/store.h"
#include "image/tree.h"
#include "tap.h"

static char top[] = "/tmp/vse-unit-XXXXXX";
static char *store;

static char *id_of(char digit)
{
	char *id = xmalloc(65);
	memset(id, digit, 64);
	id[64] = '\0';
	return id;
}

static void text_file(const char *dir, const char *name, const char *text)
{
	_cleanup_free_ char *p = path_join(dir, name);
	path_write(p, text, strlen(text), 0644, NULL);
}

/* What a build would publish. */
static char *fake_build(char digit, const char *name)
{
	char *temp = store_temp(store);
	_cleanup_free_ char *image = path_join(temp, "image"), *id = id_of(digit);
	path_mkdirs(image, 0700, NULL);
	text_file(image, "kernel", "k");
	text_file(image, "modules.cpio", "m");
	text_file(image, "root.squashfs", "r");
	_cleanup_free_ char *m = xasprintf(
		"{\"id\":\"%s\",\"name\":\"%s\",\"architecture\":\"amd64\",\"init\":"
		"\"vse\",\"sshd\":true,"
		"\"kernel\":{\"file\":\"kernel\",\"size\":1},\"vmlinux\":null,"
		"\"modules\":{\"file\":\"modules.cpio\",\"size\":1,\"order\":[\"a\",\"b\"]},"
		"\"root\":{\"file\":\"root.squashfs\",\"size\":1,\"type\":\"squashfs\","
		/* of "r" */
		"\"sha256\":\"454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1\"}}",
		id, name);
	text_file(image, "manifest.json", m);
	return temp;
}

static void publish(char digit, const char *name, const char *key)
{
	_cleanup_free_ char *temp = fake_build(digit, name), *id = id_of(digit);
	struct err e = ERR_INIT;
	is_int(store_publish(store, temp, id, key, &e), 0, "publish %c %s", digit, e.text);
	path_remove(temp, NULL);
}

static void backdate(char digit, time_t when)
{
	_cleanup_free_ char *id = id_of(digit), *p = xasprintf("%s/images/%s/manifest.json", store, id);
	struct timespec t[2] = {{.tv_sec = when}, {.tv_sec = when}};
	utimensat(AT_FDCWD, p, t, 0);
}

static size_t count(const char *sub)
{
	_cleanup_free_ char *p = path_join(store, sub);
	DIR *d = opendir(p);
	size_t n = 0;
	struct dirent *e;
	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static void test_names(void)
{
	struct image *i = NULL;
	struct err e = ERR_INIT;
	publish('a', "one", "k1");
	publish('b', "one", "k2");
	publish('a', "one", "k3"); /* the same image from another input: the first stays */
	is_int(count("images"), 2, "two images");
	is_int(count("tmp"), 0, "nothing in tmp");
	backdate('a', 1000);
	backdate('b', 2000);
	ok(image_open(store, "one", &i, &e) == 0 && i->id[0] == 'b',
	   "a name is the newest of that name %s", e.text);
	ok(i && i->has_sshd && !i->vmlinux && strcmp(i->modules, "a,b") == 0 && i->built == 2000,
	   "fields");
	image_destroy(i);
	ok(image_open(store, "aaaa", &i, &e) == 0 && i->id[0] == 'a', "a prefix of an id");
	image_destroy(i);
	ok(image_open(store, "aaa", &i, &e) < 0 && e.code == ENOENT, "too short a prefix: %s", e.text);
	ok(image_open(store, "../images", &i, &e) < 0 && e.code == ENOENT, "no path gets through");
	_cleanup_free_ char *id = id_of('a');
	memset(id + 10, 'c', 54);
	_cleanup_free_ char *temp = fake_build('d', "two"), *image = path_join(temp, "image"),
			    *man = path_join(image, "manifest.json"), *text = NULL;
	path_read(man, 100000, &text, NULL, NULL);
	memcpy(strstr(text, "dddd"), id, 64);
	text_file(image, "manifest.json", text);
	ok(store_publish(store, temp, id, "k4", &e) == 0, "a similar id");
	path_remove(temp, NULL);
	ok(image_open(store, "aaaa", &i, &e) < 0 && e.code == ENOTUNIQ, "not unique: %s", e.text);
	ok(image_open(store, "aaaaaaaaaaaa", &i, &e) == 0 && i->id[11] == 'a', "more digits");
	image_destroy(i);
}

static void test_hold(void)
{
	struct image *i = NULL;
	struct err e = ERR_INIT;
	int fd = -1;
	uint64_t freed = 0;
	if (!ok(image_open(store, "one", &i, &e) == 0, "open"))
		return;
	is_int(image_hold(i, &fd, &e), 0, "hold");
	ok(image_remove(store, i, &e) < 0 && e.code == EBUSY, "held: %s", e.text);
	_cleanup_free_ char *input = path_join(store, "inputs/k2");
	unlink(input);
	ok(image_gc(store, 30, &freed, &e) == 0 && path_exists(i->dir), "gc leaves it as well");
	close(fd);
	ok(image_gc(store, 30, &freed, &e) == 0 && !path_exists(i->dir) && freed > 0,
	   "let go, no input: collected");
	ok(image_hold(i, &fd, &e) < 0 && e.code == ENOENT, "gone: %s", e.text);
	image_destroy(i);
	ok(image_open(store, "aaaaaaaaaaaa", &i, &e) == 0 && image_remove(store, i, &e) == 0 &&
		   !path_exists(i->dir),
	   "removed");
	image_destroy(i);
	char *id = NULL;
	ok(store_input(store, "k1", &id, &e) < 0 && e.code == ENOENT, "its input leads nowhere");
	ok(image_gc(store, 30, &freed, &e) == 0 && count("inputs") == 1, "and is collected");
}

/* What a VM boots from must be there when it restarts. */
static void test_hold_initrd(void)
{
	struct image *i = NULL;
	struct err e = ERR_INIT;
	int fd = -1;
	uint64_t freed = 0;
	_cleanup_free_ char *guest = path_join(top, "guest"), *site = path_join(top, "site"),
			    *own = NULL;
	text_file(top, "guest", "agent");
	publish('f', "held", "k8");
	if (!ok(image_open(store, "held", &i, &e) == 0 && image_initrd(store, i, guest, &e) == 0,
		"an image with its initramfs %s", e.text))
		return;
	is_int(image_hold(i, &fd, &e), 0, "hold");
	ok(image_gc(store, 0, &freed, &e) == 0 && path_exists(i->initrd),
	   "gc leaves it, however old");
	int copy = dup(fd);
	close(fd);
	ok(image_gc(store, 0, &freed, &e) == 0 && path_exists(i->initrd),
	   "a copy of the hold holds it");
	close(copy);
	ok(image_gc(store, 0, &freed, &e) == 0 && !path_exists(i->initrd), "let go: collected");
	ok(image_hold(i, &fd, &e) < 0 && e.code == ENOENT, "no hold on what is gone: %s", e.text);

	/* The same image out of a site's store, its initramfs in the user's own. */
	ok(store_open(site, &own, &e) == 0 && image_initrd(own, i, guest, &e) == 0,
	   "another store");
	is_int(image_hold(i, &fd, &e), 0, "hold");
	setenv("VSE_SITE_STORE", store, 1);
	ok(image_gc(own, 0, &freed, &e) == 0 && path_exists(i->initrd),
	   "gc leaves that of a site image");
	setenv("VSE_SITE_STORE", "", 1);
	ok(image_gc(own, 0, &freed, &e) == 0 && path_exists(i->initrd),
	   "also when the site's store is away");
	close(fd);
	setenv("VSE_SITE_STORE", store, 1);
	ok(image_gc(own, 1, &freed, &e) == 0 && path_exists(i->initrd), "not held, young: stays");
	ok(image_gc(own, 0, &freed, &e) == 0 && !path_exists(i->initrd), "not held: goes by age");
	setenv("VSE_SITE_STORE", "", 1);
	ok(image_remove(store, i, &e) == 0, "removed %s", e.text);
	image_destroy(i);
}

static void age(const char *path, time_t seconds)
{
	time_t when = time(NULL) - seconds;
	struct timespec t[2] = {{.tv_sec = when}, {.tv_sec = when}};
	utimensat(AT_FDCWD, path, t, 0);
}

/* Publishes the image of '9' over one whose file `name` holds `text`. */
static void damage(const char *name, const char *text, bool loads)
{
	struct image *i = NULL;
	struct err e = ERR_INIT;
	int fd = -1;
	_cleanup_free_ char *id = id_of('9'), *dir = xasprintf("%s/images/%s", store, id);
	ok(image_load(dir, &i, &e) == 0 && image_hold(i, &fd, &e) == 0, "whole %s", e.text);
	image_destroy(i);
	i = NULL;
	if (text) {
		text_file(dir, name, text);
	} else {
		_cleanup_free_ char *p = path_join(dir, name);
		unlink(p);
	}
	ok((image_load(dir, &i, &e) == 0) == loads, "%s damaged: %s", name, e.text);
	image_destroy(i);
	if (strcmp(name, "manifest.json") != 0) {
		_cleanup_free_ char *temp = fake_build('9', "nine");
		ok(store_publish(store, temp, id, "k-nine", &e) < 0 && e.code == EBUSY, "held: %s",
		   e.text);
		path_remove(temp, NULL);
	}
	close(fd);
	publish('9', "nine", "k-nine");
	ok(image_load(dir, &i, &e) == 0 && image_verify(i, &e) == 0, "replaced %s", e.text);
	image_destroy(i);
}

static void test_damage(void)
{
	uint64_t freed;
	struct err e = ERR_INIT;
	publish('9', "nine", "k-nine");
	damage("kernel", "", false);
	damage("modules.cpio", "longer", false);
	damage("root.squashfs", NULL, false);
	damage("root.squashfs", "x", true); /* the same size: only a rebuild looks */
	damage("manifest.json", "{}", false);
	damage("manifest.json", NULL, false);
	_cleanup_free_ char *id = id_of('9'), *dir = xasprintf("%s/images/%s", store, id);
	text_file(dir, "kernel", "");
	ok(image_gc(store, 30, &freed, &e) == 0 && !path_exists(dir), "gc takes a damaged one");
	is_int(count("tmp"), 0, "nothing in tmp");
}

static bool has(char digit)
{
	_cleanup_free_ char *id = id_of(digit), *dir = xasprintf("%s/images/%s", store, id);
	return path_exists(dir);
}

static void used(const char *key, time_t ago)
{
	_cleanup_free_ char *p = xasprintf("%s/inputs/%s", store, key);
	age(p, ago);
}

/* Three edits of one VSE. */
static void test_superseded(void)
{
	uint64_t freed;
	struct err e = ERR_INIT;
	publish('1', "edited", "k-1");
	publish('2', "edited", "k-2");
	publish('3', "edited", "k-3");
	publish('4', "alone", "k-4");
	used("k-1", 50 * 86400);
	used("k-2", 20 * 86400);
	used("k-3", 40 * 86400);
	used("k-4", 90 * 86400);
	image_gc(store, 60, &freed, &e);
	ok(has('1') && has('2') && has('3'), "younger than that: all stay");
	store_used(store, "k-3");
	image_gc(store, 45, &freed, &e);
	ok(!has('1') && has('2') && has('3') && freed > 0, "the one not used for so long goes");
	ok(has('4'), "the only one of its name stays");
	image_gc(store, 0, &freed, &e);
	ok(!has('2') && has('3') && has('4'), "0: only the one last used of each name stays");
}

static void test_site(void)
{
	struct image *i = NULL;
	struct err e = ERR_INIT;
	_cleanup_free_ char *other = path_join(top, "mine"), *own = NULL;
	publish('e', "site-one", "k9");
	setenv("VSE_SITE_STORE", store, 1);
	ok(store_open(other, &own, &e) == 0 && image_open(own, "site-one", &i, &e) == 0,
	   "found in the site's store %s", e.text);
	ok(i && image_remove(own, i, &e) < 0 && e.code == EROFS, "not removed: %s", e.text);
	image_destroy(i);
	unsetenv("VSE_SITE_STORE");
}

/* A home that cannot be written, or is not there: here, one that is a file. */
static void test_no_home(void)
{
	struct image *i = NULL, **v = NULL;
	struct err e = ERR_INIT;
	size_t n = 0;
	int fd = -1;
	_cleanup_free_ char *none = path_join(top, "guest/home/vse"),
			    *guest = path_join(top, "guest"), *run = path_join(top, "run"),
			    *other = path_join(top, "run/vse/.initrd/old");
	ok(image_list(none, &v, &n, &e) < 0 && e.code == ENOTDIR, "no store at all: %s", e.text);
	setenv("VSE_SITE_STORE", store, 1);
	setenv("XDG_RUNTIME_DIR", run, 1);
	path_mkdirs(run, 0700, NULL);
	ok(image_list(none, &v, &n, &e) == 0 && n > 0, "the site's images are listed %s", e.text);
	for (size_t k = 0; k < n; k++)
		image_destroy(v[k]);
	free(v);
	if (!ok(image_open(none, "site-one", &i, &e) == 0, "one is opened %s", e.text))
		return;
	ok(image_remove(none, i, &e) < 0 && e.code == EROFS, "not removed: %s", e.text);
	ok(image_initrd(NULL, i, guest, &e) == 0 && strncmp(i->initrd, run, strlen(run)) == 0 &&
		   path_exists(i->initrd),
	   "its initramfs goes to the run directory %s", e.text);
	is_int(image_hold(i, &fd, &e), 0, "hold");
	text_file(run, "vse/.initrd/old", "x");
	age(other, 90000);
	age(i->initrd, 90000);
	_cleanup_free_ char *first = xstrdup(i->initrd);
	text_file(top, "guest", "another agent");
	ok(image_initrd(NULL, i, guest, &e) == 0 && strcmp(first, i->initrd) != 0, "another one");
	ok(path_exists(first) && !path_exists(other), "old ones go, but for the one in use");
	close(fd);
	image_destroy(i);
	setenv("VSE_SITE_STORE", "", 1);
}

static void test_sweep(void)
{
	_cleanup_free_ char *mine = store_temp(store), *node = xstrdup(strrchr(mine, '/') + 1);
	char *end = strchr(strchr(node, '-') + 1, '-');
	*end = '\0';
	_cleanup_free_ char *dead = xasprintf("%s/tmp/%s-999999-1-0/x", store, node),
			    *stale = xasprintf("%s/tmp/%s-%d-1-0", store, node, (int)getpid()),
			    *other = path_join(store, "tmp/0badcafe-4026531836-999999-1-0"),
			    *old = path_join(store, "tmp/0badcafe-4026531836-999999-2-0"),
			    *odd = path_join(store, "tmp/keep");
	const char *const all[] = {mine, dead, stale, other, old, odd};
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		path_mkdirs(all[i], 0700, NULL);
	age(mine, 5 * 86400);
	age(old, 5 * 86400);
	age(other, 86400);
	age(odd, 5 * 86400);
	store_sweep(store);
	ok(path_exists(mine), "a living process's folder stays, however old");
	ok(!path_exists(dead) && !path_exists(stale), "a dead one's and a reused pid's go");
	ok(path_exists(other) && !path_exists(old), "another node's stays for two days");
	ok(path_exists(odd), "a name that is not ours stays");
	path_remove(mine, NULL);
	path_remove(other, NULL);
	path_remove(odd, NULL);
}

static int waited;
static void told(void *arg)
{
	int *go = arg;
	waited++;
	(void)!write(*go, "w", 1);
}

static void test_lock(void)
{
	struct err e = ERR_INIT;
	int fd = -1, p[2], back[2];
	char c;
	if (!ok(pipe(p) == 0 && pipe(back) == 0 && store_lock(store, "key", NULL, NULL, &fd, &e) == 0,
		"lock"))
		return;
	pid_t pid = fork();
	if (pid == 0) {
		close(fd);
		int mine;
		_exit(store_lock(store, "key", told, &p[1], &mine, &e) == 0 && waited == 1 ? 0 : 1);
	}
	ok(read(p[0], &c, 1) == 1, "the other waits and says so");
	/* gc may remove the file of a lock while one waits for it: the waiter must lock the new one. */
	_cleanup_free_ char *path = path_join(store, "locks/key");
	unlink(path);
	close(fd);
	int status = -1;
	ok(waitpid(pid, &status, 0) == pid && status == 0, "and gets it");
	close(p[0]);
	close(p[1]);
	close(back[0]);
	close(back[1]);
}

static void test_tree(void)
{
	struct err e = ERR_INIT;
	struct tree_facts a, b;
	char x[DIGEST_HEX], y[DIGEST_HEX];
	_cleanup_free_ char *one = path_join(top, "one"), *two = path_join(top, "two"),
			    *dev = path_join(top, "one/dev");
	const char *const dirs[] = {one, two};
	static const char *const order[2][2] = {{"b", "a"}, {"a", "b"}};
	for (int d = 0; d < 2; d++) {
		path_mkdirs(dirs[d], 0755, NULL);
		for (int i = 0; i < 2; i++)
			text_file(dirs[d], order[d][i], order[d][i]);
	}
	is_int(tree_digest(one, 1000, x, &e), 0, "digest %s", e.text);
	is_int(tree_digest(two, 1000, y, &e), 0, "digest");
	is_str(x, y, "the same content made in another order has the same digest");
	tree_fingerprint(one, 0, 0, &a, &e);
	tree_fingerprint(one, 0, 0, &b, &e);
	is_str(a.hex, b.hex, "a fingerprint is stable");
	is_int(a.entries, 3, "three entries");
	mkdir(dev, 0755);
	tree_fingerprint(one, 0, 0, &a, &e);
	text_file(dev, "inside", "x");
	text_file(one, "c", "");
	_cleanup_free_ char *c = path_join(one, "c");
	tree_fingerprint(one, 0, 0, &b, &e);
	ok(strcmp(a.hex, b.hex) != 0, "a new file changes it");
	tree_digest(one, 1000, x, &e);
	chmod(c, 0600);
	tree_digest(one, 1000, y, &e);
	ok(strcmp(x, y) != 0, "a mode changes the digest");
	int64_t newest = 0;
	struct timespec t[2] = {{.tv_sec = 5000}, {.tv_sec = 5000}};
	utimensat(AT_FDCWD, c, t, 0);
	ok(tree_newest(one, (struct timespec){6000, 0}, &newest, &e) == 0 && newest == 5000,
	   "newest before a moment");
	ok(tree_newest(one, (struct timespec){5000, 0}, &newest, &e) == 0 && newest == 0,
	   "none before an earlier one");
}

/* What a folder that is closed to us holds is not known, and that is told. */
static void test_closed(void)
{
	struct err e = ERR_INIT;
	struct tree_facts f = {0};
	_cleanup_free_ char *dir = path_join(top, "half"), *sub = path_join(dir, "sub"),
			    *inner = path_join(sub, "inner");
	path_mkdirs(inner, 0755, NULL);
	ok(tree_fingerprint(dir, 0, 0, &f, &e) == 0 && !f.closed && f.entries == 3, "all is seen");
	for (int mode = 0; mode <= 0444; mode += 0444) {
		chmod(sub, (mode_t)mode);
		int status = -1;
		pid_t pid = fork();
		if (pid == 0) {
			bool fine = chdir(dir) == 0 && (geteuid() != 0 || setuid(54321) == 0) &&
				    tree_fingerprint(".", 0, 0, &f, &e) == 0 && f.closed &&
				    f.entries == 2;
			_exit(!fine);
		}
		ok(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "mode %o: closed", mode);
	}
	chmod(sub, 0755);
}

static void test_outline(void)
{
	struct err e = ERR_INIT;
	char a[DIGEST_HEX], b[DIGEST_HEX];
	_cleanup_free_ char *dir = path_join(top, "mods"), *ko = path_join(dir, "kernel/x.ko.xz"),
			    *dep = path_join(dir, "modules.dep"), *sub = path_join(dir, "kernel");
	path_mkdirs(sub, 0755, NULL);
	text_file(sub, "x.ko.xz", "x");
	text_file(dir, "modules.dep", "d");
	is_int(tree_outline(dir, a, &e), 0, "outline %s", e.text);
	age(dep, 1000);
	tree_outline(dir, b, &e);
	is_str(a, b, "depmod ran again: the same");
	age(ko, 1000);
	tree_outline(dir, b, &e);
	ok(strcmp(a, b) != 0, "another module: not");
	text_file(dir, "modules.dep", "longer");
	tree_outline(dir, a, &e);
	ok(strcmp(a, b) != 0, "another list: not");
}

static int inside_fn(void *arg, struct sandbox_self *self, const char *dir, struct err *err)
{
	(void)err;
	_cleanup_free_ char *f = path_join(dir, "f");
	text_file(dir, "f", "x");
	sandbox_say(self, "step", 1, 2, "text");
	/* Pid 1 of its own namespace, and root there. */
	bool fine = getpid() == 1 && geteuid() == 0 && path_exists(f);
	if (*(int *)arg)
		return err_set(err, EDOM, "as told");
	sandbox_result(self, fine ? "fine" : "not alone");
	return 0;
}

static void see(void *arg, const char *step, unsigned n, unsigned total, const char *text)
{
	*(bool *)arg = strcmp(step, "step") == 0 && n == 1 && total == 2 && strcmp(text, "text") == 0;
}

static void test_sandbox(void)
{
	struct err e = ERR_INIT;
	struct sandbox *s = NULL;
	char result[SANDBOX_RESULT_MAX];
	int fail = 0;
	bool seen = false;
	_cleanup_free_ char *dir = store_temp(store);
	if (sandbox_check(&e) < 0) {
		tap_skip("no subordinate ids");
		return;
	}
	int code = sandbox_run(dir, inside_fn, &fail, NULL, 0, see, &seen, &s, result, &e);
	if (code < 0 && e.code == EPERM) {
		tap_skip(e.text);
		return;
	}
	ok(code == 0 && strcmp(result, "fine") == 0,
	   "a function as pid 1 of its own namespace: %s%s", e.text, result);
	ok(seen, "its progress");
	ok(path_exists(dir), "the folder stays until the end");
	sandbox_end(s);
	ok(!path_exists(dir), "and goes then");
	fail = 1;
	ok(sandbox_run(dir, inside_fn, &fail, NULL, 0, NULL, NULL, &s, result, &e) < 0 && e.code == EDOM,
	   "its error: %s", e.text);
	ok(!path_exists(dir), "nothing is left after an error");
}

int main(void)
{
	struct err e = ERR_INIT;
	setenv("VSE_SITE_STORE", "", 1);
	if (!ok(mkdtemp(top) != NULL, "a folder"))
		return done();
	_cleanup_free_ char *want = path_join(top, "a/store");
	is_int(store_open(want, &store, &e), 0, "store made %s", e.text);
	test_names();
	test_hold();
	test_hold_initrd();
	test_damage();
	test_superseded();
	test_site();
	test_no_home();
	test_sweep();
	test_lock();
	test_tree();
	test_closed();
	test_outline();
	test_sandbox();
	path_remove(top, NULL);
	free(store);
	return done();
}
