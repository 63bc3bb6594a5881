/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the back end `fake`: a VM without a VMM, for tests and for runs of thousands of VMs on
 * one node. Its guest lives in the loop and speaks wire/guestproto.h as the real one does. It has no state but when and
 * as what it booted: with spec.keep that is in the file "fake" of its folder, and who adopts it goes on from there.
 * Its programs end as those of a real guest whose channel was cut.
 *
 * The script is spec.extra_args, one word each:
 *   boot=DURATION         from start (or reset) to "hello"; default 0
 *   ready=DURATION        from "setup" to "ready"; default 0
 *   refuse-start          start refuses
 *   fail-start            start begins, then the VMM fails: GONE
 *   never-hello, never-ready, fail-setup
 *   fail-again            each set-up after the first fails
 *   hang=COUNT            the guest hangs in so many starts: it says "boots", then nothing, and uses no CPU
 *   hang-rank=RANK        only this VM does
 *   no-timer              it does not hang: it says that it reboots (guest/timer.c)
 *   crash-after=DURATION  the VMM dies so long after the start
 *   poweroff-after=DURATION  the guest powers off, with its "bye"
 *   slow-exec=DURATION    every program takes so long to start
 *   ignore-shutdown       "shutdown" does nothing
 *   hello-twice           as one that has heard nonsense on its channel
 *   garbage               speaks nonsense in place of "hello"
 *   console=TEXT          what the console says at boot ("off": no console); default a banner
 *   state=SIZE            so many bytes stand for its memory when it is saved or moved; default 512K. By post-copy half of
 *                         them go over before the switch
 *   console-bytes=SIZE    so much more on the console
 * Programs: true, false, echo WORDS, cat, hostname, mounts (what it was given of the node: HOST on GUEST MODE, then devices), modulo N (prints the number in its host name modulo N), sleep
 * SECONDS, exit CODE, yes BYTES (on stdout), spew BYTES (on stderr), kill SIGNAL (dies of it); any other exits 127. */
#ifndef VSE_HYPERVISOR_FAKE_H
#define VSE_HYPERVISOR_FAKE_H

#include "base/buf.h"
#include "hypervisor/hypervisor.h"
#include "io/stream.h"
#include "wire/frame.h"

struct fake_script {
	uint64_t boot_ms, ready_ms, crash_ms, poweroff_ms, exec_ms; /* crash, poweroff: 0 = never */
	uint64_t console_bytes, state_bytes;
	uint64_t hangs, hang_rank; /* hang_rank: UINT64_MAX: every */
	bool refuse_start, fail_start, never_hello, never_ready, fail_setup, fail_again,
		ignore_shutdown, garbage, no_timer, hello_twice;
	char *console; /* owned; NULL = the default banner */
};

/* EINVAL: a word that is not in the list above. */
int fake_script_parse(struct fake_script *s, const struct strvec *words, struct err *err);
void fake_script_finish(struct fake_script *s);

struct fake_request;

/* The guest: what is behind the channel. Set up anew by every boot. */
struct fake_guest {
	struct loop *loop;
	const struct fake_script *script; /* borrowed */
	struct stream *channel;
	struct evtimer *timer; /* for hello and ready */
	uint64_t booted;       /* loop time */
	char boot[20];         /* boot id, random */
	char *hostname;
	const char *mounts; /* a line for each host directory and device; borrowed */
	struct fake_request *requests;
	bool paused, due; /* due: the timer ran out while paused */
	bool was_ready;   /* in this boot */
	bool hello_sent, is_set_up;
	bool mute; /* after nonsense: what comes is thrown away until it is quiet (wire/guestproto.h) */
	void (*on_down)(void *arg, const char *how); /* the guest goes down: "poweroff" or "reboot" */
	void *arg;
};

/* fd: taken. With an empty boot id it boots; else that guest runs since `booted`, and says hello at once. */
int fake_guest_boot(struct fake_guest *g, int fd, struct err *err);
void fake_guest_finish(struct fake_guest *g); /* as if the power was cut */
void fake_guest_pause(struct fake_guest *g, bool pause);
void fake_guest_down(struct fake_guest *g, const char *how);

/* ---- fake_state.c: a VM as a stream ---- */

struct fake_out {
	struct stream *stream; /* NULL: nothing is sent */
	uint64_t bytes;
	bool was_running;
	bool post_copy, switched;
	uint64_t fill;                /* of post-copy: bytes still to be sent after the switch */
	void (*on_switch)(void *arg); /* of post-copy: half of it is out */
	void (*on_end)(void *arg, const struct err *err); /* NULL: all was sent */
	void *arg;
};

/* ret_fd: taken by the caller, the end to read from. o->post_copy says how. */
int fake_out_begin(struct fake_out *o, struct loop *l, uint64_t fill, uint64_t age_ms,
		   const char *boot, int *ret_fd, struct err *err);
void fake_out_switch(struct fake_out *o); /* the rest; on_end() when its reader has it */
void fake_out_finish(struct fake_out *o);

struct fake_in {
	struct stream *stream;
	struct buf text;
	uint64_t fill;
	bool post_copy, came; /* came: on_end() was told, at the switch; the rest follows */
	void (*on_rest)(void *arg, bool whole); /* after that */
	void (*on_end)(void *arg, bool whole, uint64_t age_ms, const char *boot);
	void *arg;
};

int fake_in_begin(struct fake_in *i, struct loop *l, int fd, struct err *err); /* fd: borrowed */
void fake_in_finish(struct fake_in *i);

/* ---- fake_exec.c: requests of a guest ---- */

/* One message or data frame that belongs to a request. -1: the host broke the protocol. */
int fake_request_frame(struct fake_guest *g, const struct frame *f);
void fake_request_pump(struct fake_guest *g); /* after a resume: what was held back */
void fake_request_end_all(struct fake_guest *g);
void fake_send(struct fake_guest *g, uint32_t id, const struct buf *kv);

#endif
