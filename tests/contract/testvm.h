/* SPDX-License-Identifier: Apache-2.0 */
/* A VM under test: keeps every event of the back end, speaks the host's side of wire/guestproto.h. */
#ifndef VSE_TESTS_CONTRACT_TESTVM_H
#define VSE_TESTS_CONTRACT_TESTVM_H

#include "base/buf.h"
#include "hypervisor/hypervisor.h"
#include "io/stream.h"

/* What the command line gave: the same for every VM of a run. */
struct env {
	const struct hypervisor *h;
	struct loop *loop;
	struct hv_probe probe;
	struct hv_spec spec; /* the template; name, dir and extra_args are set per VM */
	char *tmp;           /* folder of the VMs' folders */
	uint64_t bound_ms;   /* a wait that takes longer fails the check */
	unsigned made;
};

struct testvm {
	struct env *env;
	struct hv *hv;
	char *dir;
	struct strvec words; /* the VMM's extra arguments */
	struct stream *channel, *console;
	int net_fd, state_fd; /* state_fd: of HV_EVENT_STREAM */
	struct buf console_text;
	/* events, counted; the last of each kind */
	int states, channels, failed, gone, after_gone;
	enum hv_state state, gone_state;
	char reason[300], gone_reason[400], failed_op[32], failed_text[300];
	/* the guest */
	int hellos, readies, pongs, byes, started, exits, errors;
	char boot[64];
	int64_t exit_code;
	struct buf out; /* stdout of the last exec */
	bool out_eof;
	uint32_t next_id;
	/* times, in ms since the start */
	uint64_t started_at, running_ms, hello_ms, ready_ms;
	int streams, switches, dones;
	char done_op[32], done_reason[300], signature[HV_SIGNATURE_MAX];
	uint64_t done_bytes;
	bool no_setup; /* do not answer "hello" */
	bool resync;   /* throws away what comes before a "hello" */
};

/* words: NULL-terminated script words or VMM arguments; may be NULL. -1 when the start is refused. */
int testvm_start(struct testvm *t, struct env *env, const char *const *words, struct err *err);
/* The VM that another process has started in that folder (taken). */
int testvm_adopt(struct testvm *t, struct env *env, char *dir, struct err *err);
/* From a save or a migration that sends to fd (borrowed). */
int testvm_start_from(struct testvm *t, struct env *env, enum hv_from from, int fd,
		      const char *signature, struct err *err);
void testvm_finish(struct testvm *t); /* releases; removes the folder */
void testvm_ping(struct testvm *t);
/* Its end says that its VMM got SIGKILL, or (where the VMM is nobody's child) that how it ended is not known. */
bool testvm_killed(const struct testvm *t);
/* argv NULL-terminated; output and exit code land in t->out and t->exit_code. */
void testvm_exec(struct testvm *t, const char *const *argv, const char *input);
/* Runs a program that takes more input than any buffer on the way to it holds; true: it got all. */
bool testvm_feed(struct testvm *t);
void testvm_shutdown(struct testvm *t, const char *how);

/* Runs the loop until the condition holds or the bound is over. */
#define testvm_wait(t, cond)                                                                       \
	__extension__({                                                                            \
		uint64_t until_ = time_mono_ms() + (t)->env->bound_ms;                             \
		testvm_tick((t)->env, true);                                                       \
		while (!(cond) && time_mono_ms() < until_ && loop_run_once((t)->env->loop))        \
			;                                                                          \
		testvm_tick((t)->env, false);                                                      \
		(cond);                                                                            \
	})
/* A heartbeat, so that a wait wakes up for its bound. */
void testvm_tick(struct env *env, bool on);
/* Runs the loop for so long, whatever comes. */
void testvm_run(struct env *env, uint64_t ms);

#endif
