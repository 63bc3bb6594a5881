/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a QEMU guest as a byte stream: out of a running QEMU (save, migrate out) and into one that was started for
 * it (restore, migrate in). QEMU's "migrate" does both (docs/devel/migration of QEMU); it writes to a Unix socket of ours,
 * since its sandbox lets it run no program, and reads from a descriptor that it was started with. */
#ifndef VSE_HYPERVISOR_QEMU_STATE_H
#define VSE_HYPERVISOR_QEMU_STATE_H

#include "hypervisor/qemu.h"
#include "hypervisor/qemu_qmp.h"
#include "io/listener.h"

/* What a stream of state is. */
enum qemu_flow { QEMU_FLOW_ALL, QEMU_FLOW_TEMPLATE /* without the memory */, QEMU_FLOW_POST_COPY };

/* Waits until QEMU's run state is another than that. "finish-migrate": until then it refuses to go on ("Migration is not finalized yet"),
 * and it is so for a moment after the event that says that a migration has ended. "inmigrate": it cannot be resumed yet, for a moment
 * after the event that says that post-copy has begun. No event tells the end of such a moment. */
struct qemu_settle {
	struct loop *loop;
	struct qmp *qmp;   /* borrowed */
	const char *until; /* another than this; a literal */
	qmp_done_fn *done;
	void *arg;
	struct evtimer *timer;
};

/* s lives as long as the QMP client. done() gets query-status's answer; it may end the VM. */
void qemu_settle_begin(struct qemu_settle *s, struct loop *l, struct qmp *qmp, const char *until,
		       qmp_done_fn *done, void *arg);
void qemu_settle_finish(struct qemu_settle *s);

/* How well QEMU notes what a guest writes that runs while its memory is sent. TCG before 9.0 forgets to have its translated
 * addresses checked anew when it has read its notes, and loses what is written by them (QEMU's commit 03bfc2188f): guests that write
 * much panicked in their third to fifth move. QEMU_NOTES_ONCE: its notes are read once at the beginning, while the guest is stopped,
 * and again when it has been stopped for good; that is safe, and 5.2 to 7.2 do so when no downtime is allowed. 8.x cannot be made
 * to. version: as in struct qemu_binary. */
enum qemu_notes { QEMU_NOTES_GOOD, QEMU_NOTES_ONCE, QEMU_NOTES_NONE };
enum qemu_notes qemu_notes(const char *accel, unsigned version);

struct qemu_out_ops {
	void (*on_stream)(void *arg, int fd); /* taken */
	void (*on_done)(void *arg, uint64_t bytes);
	/* It is over, QEMU could go on. ECANCELED: it was asked to. */
	void (*on_failed)(void *arg, const struct err *err);
	/* QEMU_FLOW_POST_COPY: it stands still, and waits for qemu_out_switch(). */
	void (*on_switch)(void *arg);
	/* The same, after that: it broke off, and the guest is whole nowhere any more. */
	void (*on_lost)(void *arg, const struct err *err);
};

/* A part of its VM: commands under way point to it, so it lives as long as the QMP client. Callbacks may end the VM. */
struct qemu_out {
	struct loop *loop;
	struct qmp *qmp; /* borrowed */
	const struct qemu_out_ops *ops;
	void *arg;
	struct listener *listener; /* until QEMU has connected */
	enum qemu_flow flow;
	bool active, cancelled;
	/* The guest is stopped for the beginning, of which nobody is told: asked for, so it is. */
	enum qemu_dip { QEMU_DIP_NONE, QEMU_DIP_ASKED, QEMU_DIP_STOPPED } dip;
	bool hurried; /* post-copy was asked for */
	enum qemu_notes notes;
	struct evtimer *look; /* QEMU_NOTES_ONCE by post-copy: how much is left */
	bool waited;          /* on_switch was told */
	bool over;            /* what was not sent yet is asked for by the target */
	struct qemu_settle settle;
	bool ended;     /* and is to be told once QEMU has settled */
	struct err why; /* why it failed, if it did */
	uint64_t bytes;
};

/* dir: of the VM, for the socket. The guest runs on meanwhile, if it does; notes: GOOD if it does not. */
int qemu_out_begin(struct qemu_out *o, struct loop *l, struct qmp *qmp, const char *dir,
		   enum qemu_flow flow, enum qemu_notes notes, const struct qemu_out_ops *ops,
		   void *arg, struct err *err);
void qemu_out_cancel(struct qemu_out *o);
/* It stands still long enough. */
void qemu_out_switch(struct qemu_out *o);
/* QMP's STOP and RESUME events. True: they are ours, and not to be told. */
bool qemu_out_stopped(struct qemu_out *o);
bool qemu_out_resumed(struct qemu_out *o);
/* QMP's MIGRATION_PASS event: it begins to send its memory for another time. */
void qemu_out_pass(struct qemu_out *o, json_t *data);
/* QMP's MIGRATION event of a VM that sends. */
void qemu_out_event(struct qemu_out *o, json_t *data);
void qemu_out_finish(struct qemu_out *o);

/* Has QEMU, started with -incoming defer, read its state from that descriptor of its own. announce: the guest's address to
 * bridges, once it is there. done() tells only that it
 * cannot begin; the end comes as the MIGRATION event "completed", or with QEMU's own end. */
void qemu_in_begin(struct qmp *qmp, int fd, enum qemu_flow flow, bool announce, qmp_done_fn *done,
		   void *arg);
/* Whether a MIGRATION event says this: "completed", the state is whole; ... */
bool qemu_status_is(json_t *data, const char *status);

/* What two QEMUs must have in common for one to take over the other's guest; kept in the VM's folder while it runs. */
int qemu_signature(const struct hv_spec *spec, const struct qemu_host *host,
		   char out[HV_SIGNATURE_MAX], struct err *err);
/* hv_probe's node_type. */
void qemu_node_type(const char *accel, char *out, size_t size);
/* EINVAL with the first difference. */
int qemu_signature_check(const char *saved, const char *here, struct err *err);

#endif
