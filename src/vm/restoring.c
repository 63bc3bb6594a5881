/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/restoring.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "vm/packer.h"

struct restoring {
	struct loop *loop;
	char *dir;
	uint32_t rank;
	struct saved saved;
	struct packer *unpacker;
	void (*done)(void *arg, const struct err *err);
	void *arg;
};

struct restoring *restoring_create(struct loop *l, const char *dir, uint32_t rank, struct err *err)
{
	struct restoring *r = xcalloc(1, sizeof(*r));
	*r = (struct restoring){.loop = l, .dir = xstrdup(dir), .rank = rank};
	if (saved_read(dir, rank, &r->saved, err) == 0)
		return r;
	restoring_destroy(r);
	return NULL;
}

const struct saved *restoring_saved(const struct restoring *r)
{
	return &r->saved;
}

char *restoring_disk(const struct restoring *r)
{
	return saved_path(r->dir, r->rank, "disk");
}

char *restoring_pack_id(const struct restoring *r)
{
	return saved_pack_id(r->saved.id, r->rank);
}

static void on_unpacked(void *arg, const struct err *err)
{
	struct restoring *r = arg;
	struct err e = ERR_INIT;
	packer_destroy(TAKE_PTR(r->unpacker));
	if (err)
		err_set(&e, err->code, "restore: %s/vm%u.state: %s", r->dir, r->rank, err->text);
	r->done(r->arg, err ? &e : NULL); /* may destroy r */
}

int restoring_state(struct restoring *r, void (*done)(void *arg, const struct err *err), void *arg,
		    int *ret_fd, struct err *err)
{
	_cleanup_free_ char *path = saved_path(r->dir, r->rank, "state"), *id = restoring_pack_id(r);
	_cleanup_close_ int in = saved_open(path, err);
	int p[2];
	if (in < 0)
		return -1;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, errno, "pipe");
	_cleanup_close_ int reading = p[0], writing = p[1];
	r->done = done;
	r->arg = arg;
	r->unpacker = packer_start(r->loop, false, PACK_STREAM, id, in, writing, on_unpacked, r, err);
	if (!r->unpacker)
		return -1;
	*ret_fd = TAKE_FD(reading);
	return 0;
}

void restoring_destroy(struct restoring *r)
{
	if (!r)
		return;
	packer_destroy(r->unpacker);
	saved_finish(&r->saved);
	free(r->dir);
	free(r);
}
