/* SPDX-License-Identifier: Apache-2.0 */
#include "save-cases.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "wire/resync.h"
#include "tests/tap.h"

/* ---- a stream into a file ---- */

struct drain {
	struct stream *stream;
	int file;
	uint64_t bytes;
	bool ended;
};

static void on_bytes(void *arg, struct buf *in)
{
	struct drain *d = arg;
	if (fd_write_all(d->file, buf_head(in), buf_len(in)) == 0)
		d->bytes += buf_len(in);
	buf_consume(in, buf_len(in));
}

static void on_bytes_end(void *arg, const struct err *err _unused_)
{
	struct drain *d = arg;
	stream_destroy(TAKE_PTR(d->stream));
	d->ended = true;
}

static const struct stream_ops drain_ops = {.on_data = on_bytes, .on_close = on_bytes_end};

/* Saves t into the file. */
static bool save_to(struct testvm *t, const char *path)
{
	struct drain d = {.file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
	struct err e = ERR_INIT;
	uint64_t begin = time_mono_ms();
	int dones = t->dones, failed = t->failed;
	if (!ok(d.file >= 0 && hv_save(t->hv, &e) == 0, "save begins %s", e.text))
		return false;
	ok(hv_save(t->hv, &e) < 0 && e.code == EBUSY, "another one meanwhile is refused: %s", e.text);
	if (testvm_wait(t, t->state_fd >= 0 || t->failed > failed))
		d.stream = stream_create(t->env->loop, TAKE_FD(t->state_fd), &drain_ops, &d, &e);
	ok(d.stream, "its stream comes %s", t->failed_text);
	ok(testvm_wait(t, (d.ended && t->dones > dones) || t->failed > failed) && d.ended,
	   "the stream has an end, and it is done %s", t->failed_text);
	stream_destroy(d.stream);
	close(d.file);
	is_str(t->done_op, "save", "what is done is the save");
	is_int(t->state, HV_PAUSED, "the VM is paused then");
	ok(t->signature[0] && d.bytes, "signature: %s", t->signature);
	printf("# saved %llu bytes in %llu ms\n", (unsigned long long)d.bytes,
	       (unsigned long long)(time_mono_ms() - begin));
	return t->dones > dones;
}

/* ---- a guest that can be known again ---- */

static bool fake(const struct env *env)
{
	return strcmp(env->h->name, "fake") == 0;
}

/* Something only in its memory. The scripted guest has no more than its name there. */
static bool mark(struct testvm *t)
{
	static const char *const argv[] = {"sh", "-c", "echo kept in memory >/run/mark", NULL};
	if (fake(t->env))
		return true;
	int exits = t->exits;
	testvm_exec(t, argv, NULL);
	return ok(testvm_wait(t, t->exits > exits) && t->exit_code == 0, "a mark in its memory");
}

static void is_marked(struct testvm *t)
{
	static const char *const argv[] = {"cat", "/run/mark", NULL}, *const name[] = {"hostname", NULL};
	int exits = t->exits;
	testvm_exec(t, fake(t->env) ? name : argv, NULL);
	ok(testvm_wait(t, t->exits > exits) && t->exit_code == 0, "a program runs");
	is_str(buf_cstr(&t->out), fake(t->env) ? "vm0\n" : "kept in memory\n", "the mark is there");
	ok(testvm_feed(t), "a program takes much input");
}

static bool is_up(struct testvm *t, struct env *env)
{
	struct err e = ERR_INIT;
	if (testvm_start(t, env, NULL, &e) < 0)
		return ok(false, "start: %s", e.text);
	return ok(testvm_wait(t, t->readies || t->gone) && t->readies, "ready %s", t->gone_reason);
}

/* As the agent does (vm/channel.c): a slow guest may have met the first knock before it had its channel again. */
static void knock_again(struct testvm *t, uint64_t *last)
{
	if (!t->resync || !t->channel || time_mono_ms() - *last < 10000)
		return;
	*last = time_mono_ms();
	resync_knock(stream_out(t->channel));
	stream_flush(t->channel);
}

/* It answers again, as the guest that it was. */
static void goes_on(struct testvm *t, const char *boot)
{
	struct err e = ERR_INIT;
	uint64_t begin = time_mono_ms();
	is_int(t->hellos, 0, "it says nothing before it is resumed");
	is_int(hv_resume(t->hv, &e), 0, "resume begins %s", e.text);
	uint64_t knocked = begin;
	ok(testvm_wait(t, (knock_again(t, &knocked), t->readies || t->gone)) && t->readies,
	   "the guest is ready again %s", t->gone_reason);
	printf("# %d hello, ready again %llu ms after resume\n", t->hellos,
	       (unsigned long long)(time_mono_ms() - begin));
	is_str(t->boot, boot, "it is the guest that was saved: same boot id");
	is_int(t->state, HV_RUNNING, "state: running");
	is_marked(t);
}

/* ---- */

void test_save_and_restore(struct env *env)
{
	struct testvm t, back;
	struct err e = ERR_INIT;
	char boot[64], signature[HV_SIGNATURE_MAX];
	_cleanup_free_ char *path = path_join(env->tmp, "saved");
	int exits;
	if (!is_up(&t, env) || !mark(&t) || !save_to(&t, path)) {
		testvm_finish(&t);
		return;
	}
	memcpy(boot, t.boot, sizeof(boot));
	memcpy(signature, t.signature, sizeof(signature));
	testvm_ping(&t);
	testvm_run(env, 200);
	is_int(t.pongs, 0, "it stays paused");
	is_int(hv_resume(t.hv, &e), 0, "resume begins %s", e.text);
	ok(testvm_wait(&t, t.pongs == 1), "it goes on after a save, on the channel it had");
	exits = t.exits;
	is_marked(&t);
	is_int(t.exits, exits + 2, "and works");
	ok(save_to(&t, path), "it can be saved again");
	hv_stop(t.hv, HV_STOP_HARD, &e);
	ok(testvm_wait(&t, t.gone), "the first one is gone");
	testvm_finish(&t);

	for (int i = 0; i < 2; i++) { /* a save can be restored more than once */
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		uint64_t begin = time_mono_ms();
		if (!ok(testvm_start_from(&back, env, HV_FROM_SAVE, fd, signature, &e) == 0,
			"restore begins %s", e.text)) {
			close(fd);
			return;
		}
		close(fd);
		ok(testvm_wait(&back, back.states || back.gone) && back.state == HV_PAUSED,
		   "it comes up paused %s", back.gone_reason);
		printf("# restored after %llu ms\n", (unsigned long long)(time_mono_ms() - begin));
		testvm_run(env, 200);
		goes_on(&back, boot);
		is_int(back.failed + back.gone, 0, "nothing failed");
		testvm_finish(&back);
	}
	unlink(path);
}

/* Damaged in some way: it must end without having run. */
static void refuses(struct env *env, const char *path, off_t size, const char *what)
{
	struct testvm t;
	struct err e = ERR_INIT;
	_cleanup_close_ int fd = -1;
	if (truncate(path, size) < 0 || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
		ok(false, "%s: %s", path, strerror(errno));
		return;
	}
	if (testvm_start_from(&t, env, HV_FROM_SAVE, fd, NULL, &e) < 0) {
		ok(e.text[0] && !strchr(e.text, '\n'), "%s is refused: %s", what, e.text);
		return;
	}
	ok(testvm_wait(&t, t.gone) && t.gone_state == HV_CRASHED, "%s ends it: %s", what, t.gone_reason);
	is_int(t.states + t.hellos, 0, "and it never ran");
	testvm_finish(&t);
}

void test_save_fails(struct env *env)
{
	struct testvm t;
	struct err e = ERR_INIT;
	struct stat st;
	_cleanup_free_ char *path = path_join(env->tmp, "saved");
	int pongs;
	if (!is_up(&t, env)) {
		testvm_finish(&t);
		return;
	}
	ok(hv_cancel(t.hv, &e) < 0 && e.code == EINVAL, "nothing to cancel: %s", e.text);
	/* Whoever reads it goes away. */
	is_int(hv_save(t.hv, &e), 0, "save begins %s", e.text);
	ok(testvm_wait(&t, t.state_fd >= 0), "its stream comes");
	close(TAKE_FD(t.state_fd));
	ok(testvm_wait(&t, t.failed || t.dones), "a stream that nobody reads ends the save");
	ok(t.failed && strcmp(t.failed_op, "save") == 0, "it has failed: %s", t.failed_text);
	ok(testvm_wait(&t, t.state == HV_RUNNING), "the VM runs again");
	testvm_ping(&t);
	ok(testvm_wait(&t, t.pongs == 1), "and answers");
	/* Cancelled while nobody reads. */
	is_int(hv_save(t.hv, &e), 0, "another save begins %s", e.text);
	ok(testvm_wait(&t, t.state_fd >= 0), "its stream comes");
	is_int(hv_cancel(t.hv, &e), 0, "cancel begins %s", e.text);
	ok(testvm_wait(&t, t.failed == 2 || t.dones), "and is told");
	ok(t.dones || strstr(t.failed_text, "cancel"), "as what it is: %s", t.failed_text);
	if (t.state_fd >= 0)
		close(TAKE_FD(t.state_fd));
	if (t.dones)
		hv_resume(t.hv, &e);
	pongs = t.pongs;
	ok(testvm_wait(&t, t.state == HV_RUNNING), "the VM runs again");
	testvm_ping(&t);
	ok(testvm_wait(&t, t.pongs > pongs), "and answers");
	is_int(t.gone, 0, "it is still there");
	ok(save_to(&t, path) && stat(path, &st) == 0, "and can be saved");

	struct testvm back;
	char signature[HV_SIGNATURE_MAX];
	memcpy(signature, t.signature, sizeof(signature));
	testvm_finish(&t);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	signature[0] ^= 1;
	ok(testvm_start_from(&back, env, HV_FROM_SAVE, fd, signature, &e) < 0 && e.code == EINVAL,
	   "another signature is refused: %s", e.text);
	refuses(env, path, st.st_size / 4 * 3, "a quarter less");
	refuses(env, path, st.st_size / 2, "half of it");
	refuses(env, path, 0, "an empty file");
	unlink(path);
}

/* Nobody takes its memory yet, so it cannot all have gone: a guest that moves while it runs answers again and again. (Xen first
 * tries, and tells late; Palacios tells at the end that it stood still.) */
static bool works_on(struct testvm *t)
{
	bool xen = strcmp(t->env->h->name, "xen") == 0;
	for (int i = 0, pongs = t->pongs; i < (xen ? 5 : 1) && t->state == HV_RUNNING; i++, pongs++) {
		testvm_run(t->env, xen ? 2000 : 0);
		testvm_ping(t);
		if (strcmp(t->env->h->name, "palacios") != 0)
			ok(testvm_wait(t, t->pongs > pongs || t->state == HV_PAUSED),
			   "it works on, or stands still");
	}
	return t->pongs && t->state == HV_RUNNING;
}

void test_migrate(struct env *env)
{
	struct testvm t, there;
	struct err e = ERR_INIT;
	bool worked;
	if (!is_up(&t, env) || !mark(&t)) {
		testvm_finish(&t);
		return;
	}
	is_int(hv_migrate_out(t.hv, &e), 0, "migrate out begins %s", e.text);
	ok(testvm_wait(&t, t.state_fd >= 0), "its stream comes");
	worked = works_on(&t);
	is_int(testvm_start_from(&there, env, HV_FROM_MIGRATION, t.state_fd, NULL, &e), 0,
	       "the target begins %s", e.text);
	close(TAKE_FD(t.state_fd));
	is_int(there.states, 0, "and has nothing yet");
	ok(testvm_wait(&t, t.dones || t.failed) && t.dones, "the source has sent all %s", t.failed_text);
	is_str(t.done_op, "migrate out", "by migrating");
	printf("# migrated %llu bytes %s\n", (unsigned long long)t.done_bytes,
	       t.done_reason[0] ? t.done_reason : "live");
	ok(worked || t.done_reason[0] || fake(env),
	   "it worked meanwhile, or it is told that it did not");
	is_int(t.state, HV_PAUSED, "and is paused");
	ok(testvm_wait(&there, there.states || there.gone) && there.state == HV_PAUSED,
	   "the target has all, and is paused %s", there.gone_reason);
	hv_stop(t.hv, HV_STOP_HARD, &e);
	ok(testvm_wait(&t, t.gone), "the source is gone");
	goes_on(&there, t.boot);
	testvm_finish(&there);
	testvm_finish(&t);

	/* A target that dies in the middle: the source goes on. */
	if (is_up(&t, env)) {
		is_int(hv_migrate_out(t.hv, &e), 0, "migrate out begins %s", e.text);
		ok(testvm_wait(&t, t.state_fd >= 0), "its stream comes");
		close(TAKE_FD(t.state_fd));
		ok(testvm_wait(&t, t.failed || t.dones) && t.failed, "the target is lost: %s",
		   t.failed_text);
		testvm_ping(&t);
		ok(testvm_wait(&t, t.pongs == 1 && t.state == HV_RUNNING), "the source goes on");
	}
	testvm_finish(&t);
}

/* Until its switch: source and target, joined. */
static bool is_at_switch(struct testvm *t, struct testvm *there, struct env *env)
{
	struct err e = ERR_INIT;
	if (!is_up(t, env) || !mark(t)) {
		testvm_finish(t);
		return false;
	}
	is_int(hv_post_copy(t->hv, &e), 0, "post-copy begins %s", e.text);
	ok(testvm_wait(t, t->state_fd >= 0), "its stream comes");
	env->spec.post_copy = true;
	is_int(testvm_start_from(there, env, HV_FROM_MIGRATION, t->state_fd, NULL, &e), 0,
	       "the target begins %s", e.text);
	env->spec.post_copy = false;
	close(TAKE_FD(t->state_fd));
	ok(testvm_wait(t, t->switches || t->failed || t->dones) && t->switches == 1 && !t->dones,
	   "the source waits to be switched over %s", t->failed_text);
	is_int(t->state, HV_PAUSED, "and stands still");
	return true;
}

void test_post_copy(struct env *env)
{
	struct testvm t, there;
	struct err e = ERR_INIT;
	if (!is_at_switch(&t, &there, env))
		return;
	is_int(there.states, 0, "the target has nothing yet");
	is_int(hv_switch_over(t.hv, &e), 0, "it is switched over %s", e.text);
	ok(hv_switch_over(t.hv, &e) < 0 && e.code == EINVAL, "once: %s", e.text);
	ok(t.dones || (hv_cancel(t.hv, &e) < 0 && e.code == EBUSY),
	   "and not called off any more: %s", e.text);
	ok(testvm_wait(&there, there.states || there.gone) && there.state == HV_PAUSED,
	   "the target can go on, and is paused %s", there.gone_reason);
	goes_on(&there, t.boot);
	ok(testvm_wait(&t, t.dones || t.gone) && t.dones == 1, "the source has sent all %s",
	   t.gone_reason);
	is_str(t.done_op, "post-copy", "by post-copy");
	is_int(t.state, HV_PAUSED, "and stands still to its end");
	testvm_finish(&t);
	int pongs = there.pongs;
	testvm_ping(&there);
	ok(testvm_wait(&there, there.pongs > pongs), "the target needs it no more");
	ok(testvm_wait(&there, there.dones || there.gone) && there.dones == 1,
	   "and says that it has all");
	testvm_finish(&there);

	/* Called off at the switch: the source goes on, and can be moved again. */
	if (!is_at_switch(&t, &there, env))
		return;
	is_int(hv_cancel(t.hv, &e), 0, "cancelled at the switch %s", e.text);
	ok(testvm_wait(&t, t.failed || t.gone) && t.failed, "which is told: %s", t.failed_text);
	ok(testvm_wait(&there, there.gone) && there.gone_state == HV_CRASHED,
	   "the target is gone: %s", there.gone_reason);
	testvm_ping(&t);
	ok(testvm_wait(&t, t.pongs >= 1 && t.state == HV_RUNNING), "the source goes on");
	testvm_finish(&there);
	testvm_finish(&t);

	/* A target that ends after the switch takes the source along: some of the memory was there. */
	if (!is_at_switch(&t, &there, env))
		return;
	is_int(hv_switch_over(t.hv, &e), 0, "it is switched over %s", e.text);
	ok(testvm_wait(&there, there.states || there.gone) && there.state == HV_PAUSED,
	   "the target has come");
	testvm_finish(&there);
	ok(testvm_wait(&t, t.gone || t.dones) && (t.dones || t.gone_state == HV_CRASHED),
	   "the source of one that broke off is gone, unless it had sent all: %s", t.gone_reason);
	testvm_finish(&t);
}
