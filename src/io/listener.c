/* SPDX-License-Identifier: Apache-2.0 */
#include "io/listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/alloc.h"

#define PAUSE_MS 100 /* without a descriptor left for a new connection */

struct listener {
	int fd;
	char *path;
	struct watch *watch;
	struct evtimer *again;
	void (*on_connect)(void *arg, int fd, uid_t uid);
	void *arg;
};

static int address(const char *path, struct sockaddr_un *ret, struct err *err)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return err_set(err, ENAMETOOLONG, "socket %s: the path is longer than %zu bytes; set XDG_RUNTIME_DIR to a shorter one",
			       path, sizeof(ret->sun_path) - 1);
	memcpy(ret->sun_path, path, strlen(path) + 1);
	return 0;
}

int unix_listen(const char *path, int *ret_fd, struct err *err)
{
	struct sockaddr_un sa;
	if (address(path, &sa, err) < 0)
		return -1;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(err, errno, "socket %s", path);
	/* The mode of the file must be right from the start, and the mask belongs to the whole process: so the
	 * descriptor's own mode is set before bind (Linux takes it for the new file). */
	fchmod(fd, 0600);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 128) < 0)
		return err_errno(err, errno, "socket %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int unix_connect(const char *path, int *ret_fd, struct err *err)
{
	struct sockaddr_un sa;
	if (address(path, &sa, err) < 0)
		return -1;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(err, errno, "socket %s", path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_errno(err, errno, "socket %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void on_again(void *arg)
{
	struct listener *ln = arg;
	watch_set(ln->watch, WATCH_READ);
}

static void on_ready(void *arg, int events _unused_)
{
	struct listener *ln = arg;
	_cleanup_close_ int fd = accept4(ln->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
		/* Who waits stays in the queue, and the socket ready: looking at once again would spin. */
		watch_set(ln->watch, 0);
		evtimer_start(ln->again, PAUSE_MS, 0);
	}
	if (fd < 0)
		return; /* gone again */
	struct ucred cred;
	socklen_t len = sizeof(cred);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return;
	ln->on_connect(ln->arg, TAKE_FD(fd), cred.uid);
}

struct listener *listener_create(struct loop *l, const char *path,
				 void (*on_connect)(void *arg, int fd, uid_t uid), void *arg,
				 struct err *err)
{
	struct listener *ln = xcalloc(1, sizeof(*ln));
	*ln = (struct listener){.fd = -1, .on_connect = on_connect, .arg = arg};
	if (unix_listen(path, &ln->fd, err) < 0)
		goto fail;
	ln->path = xstrdup(path);
	ln->again = evtimer_create(l, on_again, ln);
	ln->watch = watch_create(l, ln->fd, on_ready, ln, err);
	if (!ln->watch)
		goto fail;
	watch_set(ln->watch, WATCH_READ);
	return ln;
fail:
	listener_destroy(ln);
	return NULL;
}

void listener_destroy(struct listener *ln)
{
	if (!ln)
		return;
	watch_destroy(ln->watch);
	evtimer_destroy(ln->again);
	if (ln->fd >= 0)
		close(ln->fd);
	if (ln->path)
		unlink(ln->path);
	free(ln->path);
	free(ln);
}
