/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "hypervisor/qemu.h"
#include "io/child.h"
#include "io/stream.h"

/* For --version: 20 ms on an idle node, seconds on a cold or overloaded one. */
#define ANSWER_MS 10000
#define ANSWER_MAX 4096u /* bytes of it that are looked at */

/* Program names, first hit wins. The last two are where Red Hat's family keeps it, outside PATH. */
static const char *const names[] = {"qemu-system-x86_64", "qemu-kvm", "/usr/libexec/qemu-kvm"};

static struct {
	struct qemu_binary binary;
	dev_t dev;
	ino_t ino;
	struct timespec mtime;
} known;

struct asking {
	struct loop *loop;
	struct qemu_binary b;
	struct stat st;
	struct child *child;
	struct stream *out;
	struct evtimer *timer;
	char text[ANSWER_MAX + 1];
	size_t len;
	struct waiter *waiters;
};

struct waiter {
	struct waiter *next;
	void (*done)(void *arg, const struct qemu_binary *ret, const struct err *err);
	void *arg;
};

/* The question under way: an agent asks when it starts, before it knows for what. */
static struct asking *current;

const struct qemu_binary *qemu_binary_known(void)
{
	return known.binary.path[0] ? &known.binary : NULL;
}

int qemu_binary_parse(const char *text, struct qemu_binary *b, struct err *err)
{
	unsigned major, minor;
	const char *p = strstr(text, "version ");
	if (!p || sscanf(p + 8, "%3u.%3u", &major, &minor) != 2)
		return err_set(err, EPROTO, "%s: does not say its version", b->path);
	snprintf(b->version, sizeof(b->version), "%.*s", (int)strspn(p + 8, "0123456789."), p + 8);
	b->number = major * 100 + minor;
	if (b->number < QEMU_OLDEST)
		return err_set(err, ENOTSUP, "%s: QEMU %s is too old, %d.%d or later is needed",
			       b->path, b->version, QEMU_OLDEST / 100, QEMU_OLDEST % 100);
	return 0;
}

static int find_program(char *ret, size_t size, struct err *err)
{
	const char *own = getenv("VSE_QEMU");
	_cleanup_free_ char *path = NULL;
	if (own && *own) {
		path = path_find_program(own);
		if (!path)
			return err_set(err, ENOENT, "VSE_QEMU=%s: no such program", own);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names) && !path; i++)
		path = path_find_program(names[i]);
	if (!path)
		return err_set(err, ENOENT, "%s: not in PATH (Debian: package qemu-system-x86; elsewhere: set VSE_QEMU)",
			       names[0]);
	if (strlen(path) >= size)
		return err_set(err, ENAMETOOLONG, "%s: the path is too long", path);
	memcpy(ret, path, strlen(path) + 1);
	return 0;
}

/* QEMU looks for firmware in folders relative to itself; distributions link qboot.rom into one of them. */
static void find_qboot(struct qemu_binary *b)
{
	static const char *const dirs[] = {"../share/qemu", "../share/seabios", "../share/qemu-kvm",
					   "../share/qboot"};
	_cleanup_free_ char *real = realpath(b->path, NULL);
	const char *bin = real ? dirname(real) : "/usr/bin";
	for (size_t i = 0; i <= ARRAY_SIZE(dirs); i++) {
		_cleanup_free_ char *p = i < ARRAY_SIZE(dirs)
						 ? xasprintf("%s/%s/qboot.rom", bin, dirs[i])
						 : xstrdup("/usr/share/qemu/qboot.rom");
		_cleanup_free_ char *full = realpath(p, NULL);
		if (full && access(full, R_OK) == 0 && strlen(full) < sizeof(b->qboot)) {
			memcpy(b->qboot, full, strlen(full) + 1);
			return;
		}
	}
}

static void answer(struct asking *a, const struct err *failed)
{
	struct err e = failed ? *failed : ERR_INIT;
	struct qemu_binary *b = &a->b;
	a->text[a->len] = '\0';
	bool good = !failed && qemu_binary_parse(a->text, b, &e) == 0;
	if (good) {
		find_qboot(b);
		/* Red Hat's qemu-kvm is built without it. */
		b->microvm = strstr(b->path, "qemu-kvm") == NULL;
		known.binary = *b;
		known.dev = a->st.st_dev;
		known.ino = a->st.st_ino;
		known.mtime = a->st.st_mtim;
	}
	if (a->child)
		child_kill(a->child, SIGKILL);
	child_destroy(a->child);
	stream_destroy(a->out);
	evtimer_destroy(a->timer);
	if (current == a)
		current = NULL;
	for (struct waiter *w = a->waiters, *next; w; w = next) {
		next = w->next;
		w->done(w->arg, good ? &known.binary : NULL, &e);
		free(w);
	}
	free(a);
}

static void on_data(void *arg, struct buf *in)
{
	struct asking *a = arg;
	size_t n = MIN(buf_len(in), ANSWER_MAX - a->len);
	memcpy(a->text + a->len, buf_head(in), n);
	a->len += n;
	buf_consume(in, buf_len(in));
}

static void on_close(void *arg, const struct err *err _unused_)
{
	answer(arg, NULL);
}

static void on_exit_ignored(void *arg _unused_, int status _unused_)
{
	/* Its output has ended, too, and that is what is waited for. */
}

static void on_timer(void *arg)
{
	struct asking *a = arg;
	struct err e = ERR_INIT;
	if (a->child)
		err_set(&e, ETIMEDOUT, "%s --version: no answer within %d ms", a->b.path, ANSWER_MS);
	answer(a, a->child ? &e : NULL);
}

static int ask(struct loop *l, struct asking *a, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_data, .on_close = on_close};
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	char version[] = "--version", *argv[] = {a->b.path, version, NULL};
	struct child_spec spec = {
		.argv = argv, .fds = {-1, p[1], p[1]}, .n_fds = 3, .die_with_parent = true};
	a->child = child_start(l, &spec, on_exit_ignored, a, err);
	close(p[1]);
	if (!a->child) {
		close(p[0]);
		return -1;
	}
	a->out = stream_create(l, p[0], &ops, a, err);
	if (a->out)
		return 0;
	child_kill(a->child, SIGKILL);
	child_destroy(a->child);
	return -1;
}

static bool same_file(const struct stat *st, dev_t dev, ino_t ino, struct timespec mtime)
{
	return st->st_dev == dev && st->st_ino == ino && st->st_mtim.tv_sec == mtime.tv_sec &&
	       st->st_mtim.tv_nsec == mtime.tv_nsec;
}

/* Asks the program, unless it was asked before. */
static int begin(struct loop *l, struct asking *a, struct err *err)
{
	bool cached = strcmp(known.binary.path, a->b.path) == 0 &&
		      same_file(&a->st, known.dev, known.ino, known.mtime);
	if (cached)
		a->len = (size_t)snprintf(a->text, sizeof(a->text), "version %s", known.binary.version);
	else if (ask(l, a, err) < 0)
		return -1;
	a->loop = l;
	a->timer = evtimer_create(l, on_timer, a);
	evtimer_start(a->timer, cached ? 0 : ANSWER_MS, 0);
	return 0;
}

int qemu_binary_find(struct loop *l,
		     void (*done)(void *arg, const struct qemu_binary *ret, const struct err *err),
		     void *arg, struct err *err)
{
	_cleanup_free_ struct asking *a = xcalloc(1, sizeof(*a));
	if (find_program(a->b.path, sizeof(a->b.path), err) < 0)
		return -1;
	if (stat(a->b.path, &a->st) < 0)
		return err_errno(err, errno, "%s", a->b.path);
	bool joins = current && current->loop == l && strcmp(current->b.path, a->b.path) == 0 &&
		     same_file(&a->st, current->st.st_dev, current->st.st_ino, current->st.st_mtim);
	if (!joins) {
		if (begin(l, a, err) < 0)
			return -1;
		current = TAKE_PTR(a);
	}
	struct waiter *w = xcalloc(1, sizeof(*w));
	*w = (struct waiter){.next = current->waiters, .done = done, .arg = arg};
	current->waiters = w;
	return 0;
}
