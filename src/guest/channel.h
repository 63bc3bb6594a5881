/* SPDX-License-Identifier: Apache-2.0 */
/* The byte stream to the host: a virtio-serial port, a tty, or stdin and stdout. Never blocks. */
#ifndef VSE_GUEST_CHANNEL_H
#define VSE_GUEST_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum channel_kind { CHANNEL_PORT, CHANNEL_TTY, CHANNEL_STDIO };

struct channel {
	enum channel_kind kind;
	int in, out;       /* -1 while not open; the same for a port or tty */
	bool up;           /* the host end is there */
	uint64_t retry_at; /* ms: when to look again */
	unsigned wait_ms;
	uint64_t prove_by; /* ms: a terminal opened anew; until then the host must have been understood. 0 = not so */
	unsigned prove_ms; /* how long it gets; 0 = it was not hung up */
};

void channel_init(struct channel *c);
/* Takes stdin and stdout for the channel; /dev/null is put in their place. */
void channel_stdio(struct channel *c);
/* Takes a socket for the channel: its end is the end, as with stdin and stdout. */
void channel_fd(struct channel *c, int fd);
/* Not open, or no host at the other end: looks whether that changed. True when the host is there now. */
bool channel_try(struct channel *c, uint64_t now);
/* Bytes read; 0: nothing there now; -1: the host end is gone. */
ssize_t channel_read(struct channel *c, void *p, size_t n);
/* Bytes written; 0: no room now; -1: the host end is gone. */
ssize_t channel_write(struct channel *c, const void *p, size_t n);
void channel_down(struct channel *c, uint64_t now);
/* The host was understood: this is the right terminal. */
void channel_proven(struct channel *c);
/* True: it was not, in all its time. The terminal was closed, and is opened anew; the caller forgets the host. */
bool channel_doubted(struct channel *c, uint64_t now);

#endif
