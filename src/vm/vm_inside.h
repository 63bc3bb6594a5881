/* SPDX-License-Identifier: Apache-2.0 */
/* Inside vm/vm*.c. */
#ifndef VSE_VM_VM_INSIDE_H
#define VSE_VM_VM_INSIDE_H

#include <stdio.h>

#include "vm/pulse.h"
#include "vm/restoring.h"
#include "vm/scratch.h"
#include "vm/vm.h"

struct vm {
	struct loop *loop;
	uint32_t rank;
	char name[16];
	char *dir;
	const struct vm_profile *profile;
	const struct vm_ops *ops;
	void *arg;

	enum vm_state state;
	char reason[ERR_TEXT_MAX];
	char channel_why[200]; /* why the channel ended; "" */
	char *boot;            /* boot id of the guest that said hello */
	uint64_t started, running, ready_after;
	uint64_t ran_ms; /* of one that has ended */
	bool ran;        /* since it was started, or came here: kept when it has ended */
	bool restarting;
	bool set_up;            /* the guest with that boot id was ready once */
	bool adopting, adopted; /* adopting: not yet as it was */
	bool cloned, unclonable; /* started from the template; one that did not come up boots from then on */
	bool attach;             /* the next channel is one to a guest that runs already */

	struct pulse pulse;
	uint64_t heard; /* words of its guest agent */
	unsigned false_starts;

	unsigned *cpus; /* of the node: its own while it runs; NULL: none, or any */
	uint64_t numa_nodes;

	struct hv *hv;
	struct channel *channel;
	bool vmm_noted; /* its process is in the note that pid_note_kill() reads */
	struct console *console;
	struct scratch *scratch;
	struct evtimer *timer;

	struct saving *saving;
	void (*on_saved)(void *arg, struct vm *vm, const struct err *err);
	void *saved_arg;
	char *holder;        /* the folder of the save that it stands still for, now; NULL: none */
	bool on_hold, stays; /* it has the note of vm_hold(); it was paused before */
	bool pausing;        /* the hypervisor was asked, and has not answered */
	bool going_on;       /* the save has let it go: resumed as soon as that can be */
	bool writing;        /* the hypervisor writes the state */
	struct restoring *restoring;
	bool unpacked, arrived; /* restoring: all was read and good; the hypervisor has taken it */
	bool restored;          /* and its guest was not told yet who it is here */

	/* vm_move.c */
	const struct vm_send_ops *send_ops; /* it is being sent, or was and waits; NULL: neither */
	void *send_arg;
	bool split;        /* vm_is_split() */
	bool sent, unsent; /* unsent: what comes of a sending that was called off is not wanted any more */
	uint64_t stands, flows; /* since when it stands still, and its state is sent; loop time */
	void (*on_arrived)(void *arg, struct vm *vm, const struct err *err); /* NULL: it does not arrive */
	void *arrived_arg;
	int state_fd;          /* borrowed, during the start of one that arrives; else -1 */
	const char *signature; /* the same */
	bool post_copy;        /* of one that arrives: not all of its memory is here */
	struct evtimer *cut;   /* since nothing more of it comes; NULL: it may */
	bool held;             /* it has arrived, and was not taken yet */
	char came[80];         /* "came from n3"; "" */
};

static inline void vm_set_reason(struct vm *vm, const char *text)
{
	snprintf(vm->reason, sizeof(vm->reason), "%s", text ? text : "");
}

/* vm.c */
void vm_fail(struct vm *vm, const char *reason);
int vm_begin(struct vm *vm, struct err *err); /* STARTING, with the time that it may take */
int vm_start_hv(struct vm *vm, int scratch_fd, struct err *err);

/* vm_note.c */
bool vm_note_wanted(enum vm_state s);
void vm_note_write(const struct vm *vm, enum vm_state state);
enum vm_state vm_note_read(struct vm *vm); /* PLANNED: there is no note, so it never ran */

/* vm_hold.c */
void vm_look_go_on(struct vm *vm); /* after whatever a VM that is going on may have waited for */
void vm_pause_failed(struct vm *vm);
void vm_hold_over(struct vm *vm); /* the note has no meaning any more */
void vm_hold_adopt(struct vm *vm);

/* vm_bind.c */
int vm_bind(struct vm *vm, struct err *err);
void vm_bind_adopted(struct vm *vm); /* as the note says that another process has bound it */
void vm_unbind(struct vm *vm);

/* vm_move.c */
bool vm_move_event(struct vm *vm, const struct hv_event *e); /* true: it was about a move */
bool vm_move_arrived(struct vm *vm);                         /* true: it is one that arrives */
void vm_move_lost(struct vm *vm);                            /* it ends */
void vm_move_add(const struct vm *vm, struct hv_spec *spec);

#endif
