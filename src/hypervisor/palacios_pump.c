/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of the module is a ring of 4096 bytes that the guest fills: it is emptied at once, so that nothing is lost when
 * the agent is slow. Writing has no POLLOUT there: the guest's serial port takes what it has room for (which may be
 * nothing), and the rest is tried again. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "hypervisor/palacios.h"

#define IN_MAX (1u << 20)   /* bytes from the guest that nobody has read; then the guest waits */
#define OUT_MAX (64u << 10) /* bytes for the guest that it has not taken; then the agent waits */
#define WAIT_MIN_MS 1u
#define WAIT_MAX_MS 50u

void palacios_pump_init(struct palacios_pump *p)
{
	*p = (struct palacios_pump){.kernel = -1, .ours = -1};
}

void palacios_pump_finish(struct palacios_pump *p)
{
	if (p->kernel >= 0)
		close(p->kernel);
	if (p->ours >= 0)
		close(p->ours);
	buf_finish(&p->in);
	buf_finish(&p->out);
	palacios_pump_init(p);
}

int palacios_pump_open(struct palacios_pump *p, int *ret_fd, struct err *err)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_errno(err, errno, "socketpair");
	if (p->ours >= 0)
		close(p->ours);
	p->ours = pair[0];
	buf_clear(&p->in);
	buf_clear(&p->out);
	p->wait_ms = 0;
	*ret_fd = pair[1];
	return 0;
}

void palacios_pump_read(struct palacios_pump *p, struct palacios_words *w,
			void (*seen)(struct palacios_words *w, const char *p, size_t n))
{
	char got[4096];
	while (p->kernel >= 0 && buf_len(&p->in) < IN_MAX) {
		ssize_t n = read(p->kernel, got, sizeof(got));
		if (n <= 0) /* some releases say 0 and not EAGAIN where nothing is there */
			break;
		seen(w, got, (size_t)n);
		if (p->ours >= 0)
			buf_add(&p->in, got, (size_t)n);
	}
}

static void to_agent(struct palacios_pump *p)
{
	while (p->ours >= 0 && buf_len(&p->in)) {
		ssize_t n = send(p->ours, buf_head(&p->in), buf_len(&p->in),
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) { /* nobody listens any more */
			buf_clear(&p->in);
			close(TAKE_FD(p->ours));
		}
		if (n <= 0)
			return;
		buf_consume(&p->in, (size_t)n);
	}
}

static void from_agent(struct palacios_pump *p)
{
	char got[4096];
	while (p->ours >= 0 && buf_len(&p->out) < OUT_MAX) {
		ssize_t n = recv(p->ours, got, sizeof(got), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return;
		if (n == 0) {
			close(TAKE_FD(p->ours));
			buf_clear(&p->in);
			return;
		}
		buf_add(&p->out, got, (size_t)n);
	}
}

static void to_guest(struct palacios_pump *p, uint64_t now)
{
	if (p->wait_ms && now < p->retry_at)
		return;
	while (p->kernel >= 0 && buf_len(&p->out)) {
		ssize_t n = write(p->kernel, buf_head(&p->out), MIN(buf_len(&p->out), 512u));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			p->wait_ms = p->wait_ms ? MIN(p->wait_ms * 2, WAIT_MAX_MS) : WAIT_MIN_MS;
			p->retry_at = now + p->wait_ms;
			return;
		}
		buf_consume(&p->out, (size_t)n);
		p->wait_ms = 0;
	}
}

void palacios_pump_move(struct palacios_pump *p, uint64_t now)
{
	to_agent(p);
	from_agent(p);
	to_guest(p, now);
}

void palacios_pump_drop(struct palacios_pump *p)
{
	char got[4096];
	while (p->kernel >= 0 && read(p->kernel, got, sizeof(got)) > 0)
		;
	buf_clear(&p->in);
	buf_clear(&p->out);
}
