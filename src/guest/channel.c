/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/channel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <termios.h>

#include "base/alloc.h"
#include "base/path.h"
#include "guest/guest.h"
#include "wire/guestproto.h"

#define WAIT_MIN_MS 5
#define WAIT_MAX_MS 100
#define PROVE_MIN_MS 1000 /* doubled each time: the host may be that slow */
#define PROVE_MAX_MS 120000

void channel_init(struct channel *c)
{
	*c = (struct channel){.kind = CHANNEL_PORT, .in = -1, .out = -1, .wait_ms = WAIT_MIN_MS};
}

void channel_stdio(struct channel *c)
{
	channel_init(c);
	c->kind = CHANNEL_STDIO;
	c->in = fcntl(0, F_DUPFD_CLOEXEC, 3);
	c->out = fcntl(1, F_DUPFD_CLOEXEC, 3);
	fcntl(c->in, F_SETFL, fcntl(c->in, F_GETFL) | O_NONBLOCK);
	fcntl(c->out, F_SETFL, fcntl(c->out, F_GETFL) | O_NONBLOCK);
	int null = open("/dev/null", O_RDWR);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		if (null > 1)
			close(null);
	}
}

void channel_fd(struct channel *c, int fd)
{
	channel_init(c);
	c->kind = CHANNEL_STDIO;
	c->in = c->out = fd;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static bool is_our_port(const char *port)
{
	_cleanup_free_ char *path = xasprintf("/sys/class/virtio-ports/%s/name", port), *name = NULL;
	if (path_read(path, 256, &name, NULL, NULL) < 0)
		return false;
	name[strcspn(name, "\n")] = '\0';
	return strcmp(name, GUESTPROTO_PORT) == 0;
}

static int open_port(void)
{
	DIR *d = opendir("/sys/class/virtio-ports");
	int fd = -1;
	struct dirent *e;
	while (d && fd < 0 && (e = readdir(d)))
		if (e->d_name[0] != '.' && is_our_port(e->d_name)) {
			_cleanup_free_ char *dev = path_join("/dev", e->d_name);
			fd = open(dev, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		}
	if (d)
		closedir(d);
	return fd;
}

static int open_tty(void)
{
	_cleanup_free_ char *name = cmdline_get("vse.ch");
	if (!name || !*name || strchr(name, '/'))
		return -1;
	_cleanup_free_ char *dev = path_join("/dev", name);
	int fd = open(dev, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct termios t;
	if (fd >= 0 && tcgetattr(fd, &t) == 0) {
		cfmakeraw(&t);
		t.c_cflag |= CLOCAL | CREAD;
		cfsetspeed(&t, B115200);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

static bool open_any(struct channel *c)
{
	c->in = open_port();
	if (c->in < 0 && (c->in = open_tty()) >= 0)
		c->kind = CHANNEL_TTY;
	c->out = c->in;
	return c->in >= 0;
}

static void close_tty(struct channel *c)
{
	close(c->in);
	c->in = c->out = -1;
}

bool channel_try(struct channel *c, uint64_t now)
{
	if (c->up)
		return true;
	if (c->kind == CHANNEL_TTY && c->in < 0 && now < c->retry_at)
		return false;
	struct pollfd p = {.events = POLLOUT};
	if (c->in >= 0 || (c->kind != CHANNEL_STDIO && open_any(c))) {
		/* A port without a host reports POLLHUP at once and for ever: it is asked now and then. */
		p.fd = c->out;
		if (c->kind == CHANNEL_PORT)
			c->up = poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP);
		else
			c->up = true;
	}
	if (c->up) {
		c->wait_ms = WAIT_MIN_MS;
		c->prove_by = c->prove_ms ? now + c->prove_ms : 0;
		return true;
	}
	c->retry_at = now + c->wait_ms;
	c->wait_ms = MIN(c->wait_ms * 2, WAIT_MAX_MS);
	return false;
}

ssize_t channel_read(struct channel *c, void *p, size_t n)
{
	ssize_t got = read(c->in, p, n);
	if (got > 0)
		return got;
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	/* A terminal that was hung up (Xen's is when the VM has been restored) stays so: it is opened anew. Not at once: the
	 * kernel's old one, whose interrupt never comes again, would be opened until its last work is done. On a busy host
	 * that is not done even then, and all that comes from the host stays unread: who does not understand the host in
	 * time has the old one, and lets it go again. */
	if (c->kind == CHANNEL_TTY) {
		close_tty(c);
		c->prove_ms = PROVE_MIN_MS;
		c->prove_by = 0;
	}
	return -1;
}

ssize_t channel_write(struct channel *c, const void *p, size_t n)
{
	ssize_t put = write(c->out, p, n);
	if (put >= 0)
		return put;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	return -1;
}

void channel_down(struct channel *c, uint64_t now)
{
	c->up = false;
	c->wait_ms = c->kind == CHANNEL_TTY ? WAIT_MAX_MS : WAIT_MIN_MS;
	c->retry_at = now + c->wait_ms;
}

void channel_proven(struct channel *c)
{
	c->prove_by = c->prove_ms = 0;
}

bool channel_doubted(struct channel *c, uint64_t now)
{
	if (!c->prove_by || now < c->prove_by)
		return false;
	close_tty(c);
	c->prove_by = 0;
	c->prove_ms = MIN(c->prove_ms * 2, (unsigned)PROVE_MAX_MS);
	return true;
}
