/* SPDX-License-Identifier: Apache-2.0 */
#include "io/link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "io/tls_private.h"

#define ACCEPTS 16    /* newcomers in one round of the loop */
#define PAUSE_MS 100  /* without a descriptor, or a place, for a newcomer */
#define GRACE_MS 1000 /* so old a connection may be told to give way */
#define PORT_TRIES 16 /* to find one that is free on all addresses */

struct pending {
	struct pending *next;
	struct link_listener *listener;
	struct stream *stream;
	uint64_t since;
	char peer[TCP_PEER_SIZE];
	char address[TCP_ADDRESS_SIZE];
};

struct door {
	struct link_listener *listener;
	int fd;
	struct watch *watch;
};

struct link_listener {
	struct loop *loop;
	struct tls_context *tls;
	const struct link_listener_ops *ops;
	void *arg;
	struct door doors[LINK_ADDRESSES_MAX];
	size_t n_doors;
	uint16_t port;
	struct evtimer *again;
	struct pending *pending; /* oldest first */
	unsigned n_pending;
	/* A callback may destroy the listener: while one runs (busy) the memory stays, and `dead` says so. */
	int busy;
	bool dead;
};

/* False: it is dead. */
static bool leave(struct link_listener *ln)
{
	bool alive = !ln->dead;
	if (--ln->busy == 0 && ln->dead)
		free(ln);
	return alive;
}

static void watch_doors(struct link_listener *ln, bool on)
{
	for (size_t i = 0; i < ln->n_doors; i++)
		watch_set(ln->doors[i].watch, on ? WATCH_READ : 0);
}

static void on_again(void *arg)
{
	watch_doors(arg, true);
}

static void wait_a_little(struct link_listener *ln)
{
	watch_doors(ln, false);
	evtimer_start(ln->again, PAUSE_MS, 0);
}

/* ---- who is not authenticated yet ---- */

static void unlist(struct pending *p)
{
	struct pending **at = &p->listener->pending;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->listener->n_pending--;
}

static void refused(struct pending *p, const struct err *why)
{
	struct link_listener *ln = p->listener;
	unlist(p);
	stream_destroy(p->stream);
	ln->busy++;
	if (ln->ops->on_refused)
		ln->ops->on_refused(ln->arg, p->peer, why);
	free(p);
	leave(ln);
}

static void on_close(void *arg, const struct err *err)
{
	refused(arg, err);
}

static void on_early_data(void *arg _unused_, struct buf *in _unused_)
{
}

static void on_orphan_close(void *arg _unused_, const struct err *err _unused_)
{
}

/* Until its owner takes it, within on_link(). */
static const struct stream_ops orphan_ops = {.on_data = on_early_data, .on_close = on_orphan_close};

static void on_open(void *arg)
{
	struct pending *p = arg;
	struct link_listener *ln = p->listener;
	unlist(p);
	stream_set_ops(p->stream, &orphan_ops, NULL);
	ln->busy++;
	ln->ops->on_link(ln->arg, p->stream, p->peer);
	free(p);
	leave(ln);
}

static const struct stream_ops pending_ops = {
	.on_data = on_early_data,
	.on_close = on_close,
	.on_open = on_open,
};

static unsigned of_address(const struct link_listener *ln, const char *address)
{
	unsigned n = 0;
	for (const struct pending *p = ln->pending; p; p = p->next)
		n += strcmp(p->address, address) == 0;
	return n;
}

/* The oldest of the address that holds most places: a flood from one host does not displace the others. */
static struct pending *victim(const struct link_listener *ln)
{
	struct pending *found = NULL;
	unsigned most = 0;
	for (struct pending *p = ln->pending; p; p = p->next) {
		unsigned n = of_address(ln, p->address);
		if (n <= most)
			continue;
		most = n;
		found = p;
	}
	return found;
}

/* False: no place; who waits in the kernel's queue goes on waiting. */
static bool make_room(struct link_listener *ln)
{
	struct err err = ERR_INIT;
	if (ln->n_pending < LINK_PENDING_MAX)
		return true;
	struct pending *p = victim(ln);
	if (loop_now(ln->loop) - p->since < GRACE_MS)
		return false;
	tls_refuse(ln->tls, TLS_REFUSED_CROWDED, &err);
	refused(p, &err);
	return true;
}

static void newcomer(struct link_listener *ln, int fd)
{
	struct pending *p = xcalloc(1, sizeof(*p)), **at = &ln->pending;
	p->listener = ln;
	p->since = loop_now(ln->loop);
	tcp_tune(fd);
	tcp_peer(fd, p->peer);
	if (tcp_peer_address(fd, p->address, NULL) < 0) { /* it is gone again */
		close(fd);
		free(p);
		return;
	}
	p->stream = stream_create_tls(ln->loop, fd, ln->tls, TLS_SERVER, &pending_ops, p, NULL);
	if (!p->stream) {
		free(p);
		return;
	}
	while (*at)
		at = &(*at)->next;
	*at = p;
	ln->n_pending++;
}

/* False: nobody waits, or nobody can be let in now. */
static bool one_accept(struct link_listener *ln, int listening)
{
	if (!make_room(ln)) {
		wait_a_little(ln);
		return false;
	}
	if (ln->dead)
		return false;
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		newcomer(ln, fd);
		return true;
	}
	if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
		wait_a_little(ln); /* looking at once again would spin */
	return false;
}

static void on_ready(void *arg, int events _unused_)
{
	struct door *d = arg;
	struct link_listener *ln = d->listener;
	ln->busy++;
	for (int i = 0; i < ACCEPTS && !ln->dead; i++) {
		if (i && ln->n_pending >= LINK_PENDING_MAX)
			break; /* nobody gives way before it is sure that somebody waits */
		if (!one_accept(ln, d->fd))
			break;
	}
	leave(ln);
}

/* ---- making and ending ---- */

/* fd: taken. */
static int add_door(struct link_listener *ln, int fd, struct err *err)
{
	struct door *d = &ln->doors[ln->n_doors];
	d->fd = fd;
	d->listener = ln;
	d->watch = watch_create(ln->loop, d->fd, on_ready, d, err);
	if (!d->watch) {
		close(d->fd);
		return -1;
	}
	watch_set(d->watch, WATCH_READ);
	ln->n_doors++;
	return 0;
}

static int open_door(struct link_listener *ln, const char *address, uint16_t port, struct err *err)
{
	int fd;
	return tcp_listen(address, port, &fd, &ln->port, err) < 0 ? -1 : add_door(ln, fd, err);
}

static void close_doors(struct link_listener *ln)
{
	for (; ln->n_doors; ln->n_doors--) {
		struct door *d = &ln->doors[ln->n_doors - 1];
		watch_destroy(d->watch);
		close(d->fd);
	}
}

static int open_all(struct link_listener *ln, char *const *addresses, uint16_t port, struct err *err)
{
	for (size_t i = 0; addresses[i]; i++) {
		if (i == LINK_ADDRESSES_MAX)
			return err_set(err, EINVAL, "more than %d addresses to listen on",
				       LINK_ADDRESSES_MAX);
		if (open_door(ln, addresses[i], i ? ln->port : port, err) < 0)
			return -1;
	}
	return 0;
}

static int open_doors(struct link_listener *ln, char *const *addresses, uint16_t port, struct err *err)
{
	struct err why = ERR_INIT;
	if (!addresses || !addresses[0])
		return open_door(ln, NULL, port, err);
	for (int i = 0; i < PORT_TRIES; i++) {
		if (open_all(ln, addresses, port, &why) == 0)
			return 0;
		close_doors(ln);
		/* The port that the kernel chose on the first address is taken on another: one more try. */
		if (port || why.code != EADDRINUSE)
			break;
	}
	return err_copy(err, &why);
}

static struct link_listener *make(struct loop *l, struct tls_context *t,
				  const struct link_listener_ops *ops, void *arg)
{
	struct link_listener *ln = xcalloc(1, sizeof(*ln));
	ln->loop = l;
	ln->tls = t;
	ln->ops = ops;
	ln->arg = arg;
	ln->again = evtimer_create(l, on_again, ln);
	return ln;
}

struct link_listener *link_listener_create(struct loop *l, struct tls_context *t, char *const *addresses,
					   uint16_t port, const struct link_listener_ops *ops,
					   void *arg, struct err *err)
{
	struct link_listener *ln = make(l, t, ops, arg);
	if (open_doors(ln, addresses, port, err) == 0)
		return ln;
	link_listener_destroy(ln);
	return NULL;
}

struct link_listener *link_listener_take(struct loop *l, struct tls_context *t, int fd,
					 uint16_t port, const struct link_listener_ops *ops,
					 void *arg, struct err *err)
{
	struct link_listener *ln = make(l, t, ops, arg);
	ln->port = port;
	if (add_door(ln, fd, err) == 0)
		return ln;
	link_listener_destroy(ln);
	return NULL;
}

uint16_t link_listener_port(const struct link_listener *ln)
{
	return ln->port;
}

void link_listener_destroy(struct link_listener *ln)
{
	if (!ln || ln->dead)
		return;
	ln->dead = true;
	close_doors(ln);
	evtimer_destroy(ln->again);
	while (ln->pending) {
		struct pending *p = ln->pending;
		unlist(p);
		stream_destroy(p->stream);
		free(p);
	}
	if (!ln->busy)
		free(ln);
}
