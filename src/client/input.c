/* SPDX-License-Identifier: Apache-2.0 */
#include "client/input.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/alloc.h"

struct input {
	struct watch *watch;
	int fd;
	bool own; /* an open file of ours: no other program has it */
};

/* An open file of our own for the same terminal or pipe, or -1. A file has a position to be shared, a socket cannot
 * be opened, and a named pipe opened anew does not tell its end when its writers have gone before. */
static int reopen(int fd)
{
	struct statfs fs;
	char path[32];
	bool pipe = fstatfs(fd, &fs) == 0 && fs.f_type == PIPEFS_MAGIC;
	if (!pipe && !isatty(fd))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

struct input *input_create(struct loop *l, int fd, void (*fn)(void *arg, int events), void *arg)
{
	struct input *in = xcalloc(1, sizeof(*in));
	int flags = fcntl(fd, F_GETFL);
	in->fd = reopen(fd);
	in->own = in->fd >= 0;
	if (!in->own)
		in->fd = fd;
	in->watch = watch_create(l, in->fd, fn, arg, NULL);
	/* At once, not at the end: no signal can come between. It is read only when there is something. */
	if (!in->own && flags >= 0)
		fcntl(fd, F_SETFL, flags);
	if (in->watch)
		return in;
	input_destroy(in);
	return NULL;
}

void input_want(struct input *in, bool want)
{
	watch_set(in->watch, want ? WATCH_READ : 0);
}

ssize_t input_read(struct input *in, void *p, size_t n)
{
	return read(in->fd, p, n);
}

void input_destroy(struct input *in)
{
	if (!in)
		return;
	watch_destroy(in->watch);
	if (in->own)
		close(in->fd);
	free(in);
}
