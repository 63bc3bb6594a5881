/* SPDX-License-Identifier: Apache-2.0 */
#include "clone-cases.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/path.h"
#include "base/time.h"
#include "tests/tap.h"

#define CLONES 3

/* A template as it is kept: memory that nobody can change, the state in a file. */
struct template
{
	int memory;
	bool made;
	char *state, boot[64], signature[HV_SIGNATURE_MAX];
	uint64_t bytes;
};

static bool fake(const struct env *env)
{
	return strcmp(env->h->name, "fake") == 0;
}

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

static bool drain_state(struct testvm *t, struct template *m)
{
	static const struct stream_ops ops = {.on_data = on_bytes, .on_close = on_bytes_end};
	struct drain d = {.file = open(m->state, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
	struct err e = ERR_INIT;
	if (testvm_wait(t, t->state_fd >= 0 || t->failed))
		d.stream = stream_create(t->env->loop, TAKE_FD(t->state_fd), &ops, &d, &e);
	ok(d.stream, "its stream comes %s", t->failed_text);
	bool whole = testvm_wait(t, (d.ended && t->dones) || t->failed) && d.ended && t->dones;
	ok(whole, "the stream has an end, and it is done %s", t->failed_text);
	stream_destroy(d.stream);
	close(d.file);
	m->bytes = d.bytes;
	return whole;
}

/* Of a guest that has said hello and was told nothing: so there is nothing of anybody's in it. */
static bool make_template(struct env *env, struct template *m)
{
	struct testvm t;
	struct err e = ERR_INIT;
	m->state = path_join(env->tmp, "template");
	m->memory = memfd_create("template", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ok(m->memory >= 0 && ftruncate(m->memory, (off_t)env->spec.memory) == 0,
	   "a file for the memory");
	env->spec.template = true;
	env->spec.memory_fd = m->memory;
	int rc = testvm_start(&t, env, NULL, &e);
	env->spec.template = false;
	if (!ok(rc == 0, "a VM that is to be a template begins %s", e.text))
		return false;
	t.no_setup = true;
	bool good = ok(testvm_wait(&t, t.hellos || t.gone) && t.hellos, "it says hello %s",
		       t.gone_reason);
	uint64_t begin = time_mono_ms();
	if (good && ok(hv_snapshot(t.hv, &e) == 0, "snapshot begins %s", e.text)) {
		ok(hv_snapshot(t.hv, &e) < 0 && e.code == EBUSY,
		   "another one meanwhile is refused: %s", e.text);
		m->made = drain_state(&t, m);
	}
	if (m->made) {
		printf("# snapshot: %llu bytes beside the memory, in %llu ms\n",
		       (unsigned long long)m->bytes, (unsigned long long)(time_mono_ms() - begin));
		is_str(t.done_op, "snapshot", "what is done is the snapshot");
		is_int(t.state, HV_PAUSED, "the VM is paused then");
		memcpy(m->signature, t.signature, sizeof(m->signature));
		memcpy(m->boot, t.boot, sizeof(m->boot));
		hv_stop(t.hv, HV_STOP_HARD, &e);
		ok(testvm_wait(&t, t.gone), "the template's VM is gone");
	}
	testvm_finish(&t);
	return m->made && ok(fcntl(m->memory, F_ADD_SEALS,
				   F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0,
			     "its memory can be sealed");
}

static int start_clone(struct testvm *t, struct env *env, const struct template *m,
		       const char *signature, struct err *err)
{
	_cleanup_close_ int fd = open(m->state, O_RDONLY | O_CLOEXEC);
	env->spec.memory_fd = m->memory;
	return testvm_start_from(t, env, HV_FROM_TEMPLATE, fd, signature, err);
}

/* What one has changed in its memory the others do not see. */
static void apart(struct testvm *clones)
{
	static const char *const mark[] = {"sh", "-c",
					   "ls /run/mark 2>/dev/null; echo 1 >/run/mark", NULL},
				 *const name[] = {"hostname", NULL};
	for (unsigned i = 0; i < CLONES; i++) {
		struct testvm *t = &clones[i];
		testvm_exec(t, fake(t->env) ? name : mark, NULL);
		ok(testvm_wait(t, t->exits == 1) && t->exit_code == 0, "clone %u: a program runs", i);
		is_str(buf_cstr(&t->out), fake(t->env) ? "vm0\n" : "",
		       "clone %u: nothing of the others", i);
	}
}

static void clones_work(struct env *env, const struct template *m)
{
	struct testvm t[CLONES];
	struct err e = ERR_INIT;
	unsigned begun = 0;
	for (; begun < CLONES && start_clone(&t[begun], env, m, m->signature, &e) == 0; begun++)
		;
	if (ok(begun == CLONES, "%d clones begin %s", CLONES, e.text)) {
		for (unsigned i = 0; i < CLONES; i++) {
			ok(testvm_wait(&t[i], t[i].readies || t[i].gone) && t[i].readies,
			   "clone %u is ready %s", i, t[i].gone_reason);
			printf("# running after %llu ms, hello %llu ms, ready %llu ms\n",
			       (unsigned long long)t[i].running_ms,
			       (unsigned long long)t[i].hello_ms, (unsigned long long)t[i].ready_ms);
			is_int(t[i].state, HV_RUNNING, "clone %u runs, with nobody's help", i);
			is_str(t[i].boot, m->boot, "clone %u is of the template: same boot id", i);
		}
		apart(t);
		is_int(hv_reset(t[0].hv, &e), 0, "reset of a clone begins %s", e.text);
		ok(testvm_wait(&t[0], t[0].readies == 2 || t[0].gone) && !t[0].gone,
		   "it boots and is ready again %s", t[0].gone_reason);
		ok(strcmp(t[0].boot, m->boot) != 0, "as another guest: another boot id");
		hv_stop(t[1].hv, HV_STOP_HARD, &e);
		ok(testvm_wait(&t[1], t[1].gone), "a clone can be stopped");
		is_int(t[1].gone_state, HV_SHUTDOWN, "as any other VM");
		testvm_ping(&t[2]);
		ok(testvm_wait(&t[2], t[2].pongs == 1), "the others go on");
	}
	while (begun)
		testvm_finish(&t[--begun]);
}

static void refused(struct env *env, const struct template *m)
{
	struct testvm t;
	struct err e = ERR_INIT;
	struct stat st;
	char signature[HV_SIGNATURE_MAX];
	memcpy(signature, m->signature, sizeof(signature));
	signature[0] ^= 1;
	ok(start_clone(&t, env, m, signature, &e) < 0 && e.code == EINVAL,
	   "another signature is refused: %s", e.text);
	if (stat(m->state, &st) < 0 || truncate(m->state, st.st_size / 2) < 0 ||
	    start_clone(&t, env, m, m->signature, &e) < 0) {
		ok(e.text[0], "half of a state is refused: %s", e.text);
		return;
	}
	ok(testvm_wait(&t, t.gone), "half of a state ends the VM");
	is_int(t.gone_state, HV_CRASHED, "as a crash: %s", t.gone_reason);
	is_int(t.hellos, 0, "with nothing heard of it");
	testvm_finish(&t);
}

void test_clone(struct env *env)
{
	struct template m = {.memory = -1};
	struct testvm t;
	struct err e = ERR_INIT;
	int rc = testvm_start(&t, env, NULL, &e);
	if (ok(rc == 0 && testvm_wait(&t, t.readies || t.gone) && t.readies, "an ordinary VM %s", e.text))
		ok(hv_snapshot(t.hv, &e) < 0 && e.code == EINVAL, "of it no snapshot: %s", e.text);
	testvm_finish(&t);
	if (make_template(env, &m)) {
		clones_work(env, &m);
		refused(env, &m);
	}
	if (m.memory >= 0)
		close(m.memory);
	if (m.state)
		unlink(m.state);
	free(m.state);
	env->spec.memory_fd = -1;
}
