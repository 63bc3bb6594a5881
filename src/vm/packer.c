/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/packer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/text.h"
#include "io/child.h"
#include "io/stream.h"

struct packer {
	struct child *child;
	struct stream *errors; /* NULL: read to its end */
	struct buf text;
	bool exited;
	int status;
	void (*done)(void *arg, const struct err *err);
	void *arg;
};

static void maybe_done(struct packer *p)
{
	struct err e = ERR_INIT;
	char how[40];
	if (!p->exited || p->errors)
		return;
	if (p->status == 0) {
		p->done(p->arg, NULL); /* may destroy p */
		return;
	}
	char *said = (char *)buf_cstr(&p->text);
	said[strcspn(said, "\n")] = '\0';
	_cleanup_free_ char *clean = text_cleaned(said);
	err_set(&e, EIO, "%.300s", clean[0] ? clean : child_status_text(p->status, how));
	p->done(p->arg, &e);
}

static void on_exit_status(void *arg, int status)
{
	struct packer *p = arg;
	p->exited = true;
	p->status = status;
	maybe_done(p);
}

static void on_text(void *arg, struct buf *in)
{
	struct packer *p = arg;
	if (buf_len(&p->text) < 4096)
		buf_add(&p->text, buf_head(in), buf_len(in));
	buf_clear(in);
}

static void on_text_end(void *arg, const struct err *err _unused_)
{
	struct packer *p = arg;
	stream_destroy(TAKE_PTR(p->errors));
	maybe_done(p);
}

struct packer *packer_start(struct loop *l, bool writing, enum pack_kind kind, const char *id,
			    int in, int out, void (*done)(void *arg, const struct err *err),
			    void *arg, struct err *err)
{
	static const struct stream_ops ops = {.on_data = on_text, .on_close = on_text_end};
	int pipe_fds[2];
	if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
		err_errno(err, errno, "pipe");
		return NULL;
	}
	_cleanup_close_ int other = pipe_fds[1];
	struct packer *p = xcalloc(1, sizeof(*p));
	*p = (struct packer){.done = done, .arg = arg};
	p->errors = stream_create(l, pipe_fds[0], &ops, p, err);
	const char *argv[] = {"/proc/self/exe",
			      "--pack",
			      writing ? "pack" : "unpack",
			      kind == PACK_DISK ? "disk" : "state",
			      id,
			      NULL};
	struct child_spec spec = {.argv = (char *const *)argv,
				  .fds = {in, out, other},
				  .n_fds = 3,
				  .die_with_parent = true};
	if (p->errors)
		p->child = child_start(l, &spec, on_exit_status, p, err);
	if (p->child)
		return p;
	packer_destroy(p);
	return NULL;
}

void packer_destroy(struct packer *p)
{
	if (!p)
		return;
	if (p->child && !p->exited)
		child_kill(p->child, SIGKILL);
	child_destroy(p->child);
	stream_destroy(p->errors);
	buf_finish(&p->text);
	free(p);
}
