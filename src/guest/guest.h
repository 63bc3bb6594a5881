/* SPDX-License-Identifier: Apache-2.0 */
/* The program inside the VM: process 1 of the initramfs, then the agent that does what the host asks
 * (wire/guestproto.h). One process, one poll() loop, nothing but libc. */
#ifndef VSE_GUEST_GUEST_H
#define VSE_GUEST_GUEST_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/strvec.h"
#include "guest/channel.h"
#include "wire/frame.h"

#define GUEST_BUCKETS 256
#define GUEST_MAX_COPIES 64 /* each holds a buffer of a chunk and an open file */
#define GUEST_OUT_HIGH                                                                             \
	(256u << 10) /* bytes waiting for the host: no more output is read from programs */
#define GUEST_OUT_MAX (1u << 20) /* bytes waiting for the host: no more requests are read */
#define GUEST_BLOCK                                                                                \
	(32u << 10)         /* bytes of one data frame; virtio_console takes no more in one write */
#define GUEST_GRACE_MS 2000 /* between SIGHUP or SIGTERM and SIGKILL */
#define GUEST_LINGER_MS 1000 /* how long output is read after its program ended */

struct request;
struct setup;

/* Who runs below us. */
enum guest_init { INIT_NONE, INIT_VSE, INIT_SYSTEMD };

struct guest {
	enum guest_init init; /* INIT_NONE: an ordinary process (--stdio): nothing of the machine is touched */
	bool container; /* INIT_VSE of a container: clock and randomness are the node's (guest/contain.h) */
	char boot[40]; /* boot id; "": the kernel's, not asked for yet */
	struct channel channel;
	struct buf in, out;
	bool greeted;        /* "hello" was queued on this connection */
	bool set_up;         /* "setup" came on this connection: we may speak */
	uint64_t mute_until; /* after nonsense: input is thrown away until it is quiet; 0 = not so */
	bool quit;           /* the host is gone for good (--stdio) */
	bool failed;         /* leave with an error */
	bool said_bye;
	struct strvec early_log; /* lines from before "setup", at most 32 */
	struct strvec env;       /* NAME=VALUE for every program, from "setup" */
	struct request *requests[GUEST_BUCKETS];
	size_t n_requests, n_copies, max_requests;
	bool want_ready;   /* "ready" is owed: waits for sshd or systemd */
	uint64_t ready_by; /* ms: then it is sent anyway */
	bool personal;     /* a "setup" was applied since the program began */
	bool own_boot_id;  /* a clone's programs are shown another one than the template's */
	char machine_id[33];
	pid_t sshd, keygen; /* running, or 0 */
	bool keygen_void;   /* what it makes is the key of who this VM was: it is made anew */
	unsigned sshd_starts;
	uint64_t sshd_again; /* ms: when to start it again; 0 = not */
	uint64_t sshd_since; /* ms: when it was started */
	int sshd_log;        /* its messages, or -1 */
	struct buf sshd_line;
	int notify_fd; /* systemd tells here that the system is up, or -1 */
	bool system_up;
	uint64_t unblock_at; /* systemd's other units wait for us until "setup" came or this time; 0 = done */
};

/* One thing that poll() waits for; `fn` is called when it is ready. */
struct watch {
	void (*fn)(struct guest *g, void *arg, int which, short revents);
	void *arg;
	int which;
};

/* The set of one round of the loop. */
struct watches {
	struct pollfd *fds;
	struct watch *watch;
	size_t n, cap;
	uint64_t until; /* ms: wake up then; UINT64_MAX = never */
};

void watch_fd(struct watches *w, int fd, short events,
	      void (*fn)(struct guest *, void *, int, short), void *arg, int which);
void watch_until(struct watches *w, uint64_t at_ms);

/* agent.c: runs until the machine goes down (or, --stdio, the host end is closed). Gives an exit code. */
int agent_run(struct guest *g);
/* Queues a message with the verb; more key-values in `more` (may be NULL). */
void agent_send(struct guest *g, uint32_t id, const char *verb, const struct buf *more);
void agent_send_error(struct guest *g, uint32_t id, const struct err *err);
/* A line for the VM's log; kept until "setup" came. Also on stderr when the program is verbose. */
void agent_log(struct guest *g, const char *fmt, ...) _printf_(2, 3);

/* Sends what is queued, waiting at most ms for the host to take it. */
void agent_flush(struct guest *g, unsigned ms);

/* init.c: the first steps of process 1. Does not return: becomes the agent or systemd. */
_Noreturn void init_main(void);
/* A line on the console and in the kernel's log, then power off. */
_Noreturn void init_panic(const char *fmt, ...) _printf_(1, 2);
/* A line in the kernel's log. */
void init_say(const char *fmt, ...) _printf_(1, 2);
/* Reboots where the kernel came up without a timer. Before what sleeps, behind the channel's driver. */
void timer_check(void);
/* Writes back and releases the root and the scratch disk. */
void init_release(void);

/* power.c: how = "poweroff", "reboot". With INIT_VSE it does not return. */
void power_down(struct guest *g, const char *how);
void power_bye(struct guest *g, const char *how); /* tells the host, once */
_Noreturn void power_now(const char *how);        /* reboot(2) */

/* setup.c: applies "setup". ENODATA and such make the VM useless ("failed"); lesser trouble is logged. */
int setup_apply(struct guest *g, const char *data, size_t len, struct err *err);
void setup_time(struct guest *g, uint64_t ns);
/* Reads what setup_apply() will read and writes where it will write, and leaves nothing: what a clone (vm/template.h) would have to
 * unpack of its root is in memory before "hello". */
void setup_practise(void);
/* Writes a small file in place of what is there. */
int setup_file(const char *path, const void *data, size_t len, mode_t mode, struct err *err);
/* Puts `block` between our marks at the end of a file, in place of what was there; what else is in it stays.
 * otherwise: the text of a file that is not there yet. */
int setup_marked(const char *path, const char *otherwise, const char *block, mode_t mode,
		 struct err *err);
/* `name` (KEY of KEY=VALUE, `len` bytes) can be a shell variable. */
bool setup_env_name_ok(const char *name, size_t len);

/* mounts.c: the host directories that "setup" names. */
int mounts_apply(const char *data, size_t len, struct err *err);

/* systemd.c */
/* systemd ends us, and the whole system, in order to boot it again. Asks systemctl; at most its own time-out. */
bool systemd_reboots(void);
void systemd_handover(void); /* in process 1: files into /run, then execs systemd; returns if it cannot */
void systemd_begin(struct guest *g); /* in the service */
void systemd_watch(struct guest *g, struct watches *w);
void systemd_tick(struct guest *g, uint64_t now);

/* A word NAME=value of /proc/cmdline: its value (malloc'ed), or NULL. */
char *cmdline_get(const char *name);

#endif
