/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the back end `palacios`: what its files share. Nothing else includes this.
 *
 * A VM of Palacios is no process: it lives in the kernel until somebody stops and frees it. Here each has a *keeper*, a
 * process of ours that stands for it as QEMU's process stands for its VM: it carries the guest's streams, watches the
 * VM's state, and has each operation done by a *doer*, a process that lives for that operation only, since an operation
 * may block for minutes or die in the kernel. The keeper's parent, its *shadow*, waits for it and then, however it ended,
 * stops and frees the VM. So a VM lives exactly as long as its keeper.
 *
 *   agent --control (SOCK_SEQPACKET)--> keeper --fork--> doer: one operation, under the node's lock
 *     ^---- cleaned (pipe) ---- shadow --waitpid--^
 */
#ifndef VSE_HYPERVISOR_PALACIOS_H
#define VSE_HYPERVISOR_PALACIOS_H

#include "base/buf.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/palacios_abi.h"

/* ---- palacios_image.c: what ioctl CREATE is given. Pure ---- */

struct palacios_file {
	const void *data;
	uint32_t size;
};

/* Appends the image: version 1 (with checksums; the NU line) or 0. The XML must have index="i" on the <file> of files[i].
 * EFBIG: Palacios takes less than 2 GiB. */
int palacios_image_write(struct buf *out, unsigned version, const char *xml,
			 const struct palacios_file *files, uint32_t n_files, struct err *err);

/* ---- palacios_config.c: the machine's description. Pure ---- */

struct palacios_machine {
	uint64_t memory; /* bytes, whole MiB */
	unsigned cpus;
	const unsigned *target_cpus; /* one each, below PALACIOS_CPUS_MAX */
	const char *boot;            /* the boot disk: absolute path */
	const char *root, *scratch;  /* absolute paths or NULL */
	const struct strvec *extra; /* as hv_spec.extra_args: "-device CLASS[,KEY=VALUE]...", "-paging nested|shadow" */
};

#define PALACIOS_STREAM_CHANNEL "com1" /* the guest agent: ttyS0 */
#define PALACIOS_STREAM_CONSOLE "com2" /* the kernel's console: ttyS1 */

/* EINVAL: an extra word that is not known, a value that has no place in XML. */
int palacios_config(const struct palacios_machine *m, struct buf *xml, struct err *err);
/* The words before hv_spec.cmdline; appends the whole line. EINVAL: a control character, or over 2047 bytes. */
int palacios_cmdline(const char *given, bool trusted, struct buf *out, struct err *err);

/* ---- palacios_proc.c: texts of the module. Pure; whatever the text is, what is returned is within its bounds ---- */

enum palacios_state {
	PALACIOS_INVALID,
	PALACIOS_RUNNING,
	PALACIOS_STOPPED,
	PALACIOS_PAUSED,
	PALACIOS_ERROR,
	PALACIOS_SIMULATING,
	PALACIOS_UNKNOWN, /* resetting, or a word that is not known */
	PALACIOS_LOST, /* its create crashed: no operation may touch it, its slot is lost until the node reboots */
};

struct palacios_guest {
	char name[PALACIOS_NAME_MAX + 1];
	unsigned number; /* N of /dev/v3-vmN */
	enum palacios_state state;
	unsigned vcores;
	uint64_t memory; /* bytes */
};

/* /proc/v3vee/v3-guests: fills at most `max`, gives how many. Lines that are no VM are passed over. */
size_t palacios_guests(const char *text, struct palacios_guest *v, size_t max);
const char *palacios_state_name(enum palacios_state s);

struct palacios_cores {
	unsigned vcores, running; /* of the VM asked for */
	uint64_t exits;           /* of all its vcores: grows while any of them does something */
	unsigned on[PALACIOS_CPUS_MAX]; /* vcores of all VMs on each CPU */
};

/* /proc/v3vee/v3-guests-details; name NULL: only `on` is filled. */
void palacios_cores(const char *text, const char *name, struct palacios_cores *ret);

struct palacios_info {
	unsigned cpus, nodes;
	uint64_t block; /* bytes: guests' memory is handed out in such blocks */
};

/* /proc/v3vee/v3-info. EPROTO: it has no block size or no CPUs. */
int palacios_info(const char *text, struct palacios_info *ret, struct err *err);
/* /proc/v3vee/v3-mem<node>: whole blocks that are free. */
uint64_t palacios_free_blocks(const char *text, uint64_t block);
/* The first errors of Palacios in records of /dev/kmsg, in one line of at most size - 1 bytes; "" when there are none. Those
 * that name another VM than `name` are left out. */
void palacios_kernel_errors(const char *text, const char *name, char *out, size_t size);

/* ---- palacios_words.c: what a guest's streams say about its end. Pure ---- */

/* Looks at the bytes that pass by; keeps no more than it needs. */
struct palacios_words {
	char line[160]; /* the console's current line */
	size_t line_len;
	struct buf frames; /* of the channel: what is not whole yet */
	bool lost; /* not at the beginning of a frame (a restored guest, nonsense): the next "hello" is looked for */
	bool panicked, halted;
	char bye[16]; /* "poweroff", "reboot", "halt"; "" = not said */
};

void palacios_words_console(struct palacios_words *w, const char *p, size_t n);
void palacios_words_channel(struct palacios_words *w, const char *p, size_t n);
void palacios_words_clear(struct palacios_words *w); /* a new boot; frees */

/* ---- palacios_node.c: the module on this node ---- */

/* Where the module is looked for: $VSE_PALACIOS_ROOT + path, for tests and for a node whose /dev is elsewhere; else the
 * path itself. malloc'ed. */
char *palacios_path(const char *path);
/* Which line it is, by what is in /proc/v3vee. */
enum palacios_line palacios_line(void);
int palacios_info_read(struct palacios_info *ret, struct err *err);
/* All VMs on the node. -1: the list cannot be read. */
int palacios_list(struct palacios_guest v[PALACIOS_VMS_MAX], size_t *ret_n, struct err *err);
/* 1: found; 0: there is no such VM; -1. */
int palacios_look(const char *name, struct palacios_guest *ret, struct err *err);
void palacios_look_cores(const char *name, struct palacios_cores *ret); /* zeros where it cannot be read */
/* One at a time on a node: the module does not lock its table of VMs. Waits for its turn. The descriptor is the lock. */
int palacios_lock(int *ret_fd, struct err *err);
/* Everything that would crash the node or corrupt the module's tables if `create` met it. Under the lock. */
int palacios_check_create(const char *name, uint64_t memory, unsigned cpus, struct err *err);
/* CPUs for a new VM: of those that this process may use, the ones with the fewest vcores. Under the lock. */
int palacios_choose_cpus(unsigned cpus, const struct palacios_info *info, unsigned *ret,
			 struct err *err);
/* One ioctl on /dev/v3vee (`vm` < 0) or /dev/v3-vm<vm>. A failure's text has the kernel's own words. */
int palacios_ioctl(int vm, unsigned number, void *arg, const char *what, const char *name, int *ret,
		   struct err *err);

/* The kernel's log from now on; -1 where it cannot be read. */
int palacios_log_open(void);
/* What Palacios said there since, as palacios_kernel_errors(). */
void palacios_log_read(int fd, const char *name, char *out, size_t size);

/* ---- palacios_ops.c: operations on one VM, each read back. They block: for doers and shadows only. Under the lock ---- */

int palacios_create(const char *name, const struct buf *image, struct err *err);
/* Of a VM that was made or loaded: a VM that ran once can never be launched again. */
int palacios_launch(const char *name, struct err *err);
int palacios_pause(const char *name, struct err *err);
int palacios_continue(const char *name, struct err *err);
int palacios_reset(const char *name, struct err *err);
int palacios_stream(const char *name, const char *stream, int *ret_fd, struct err *err);
int palacios_move_core(const char *name, unsigned vcore, unsigned cpu, struct err *err);
/* Of a paused VM, into an existing, empty folder (absolute path, below 256 bytes). It stays paused. */
int palacios_save(const char *name, const char *folder, struct err *err);
/* Into a VM of the same machine that was never launched. It is stopped after; a launch goes on where the save was. */
int palacios_load(const char *name, const char *folder, struct err *err);
/* Stops it if needed and frees it. Fine when there is none. */
int palacios_remove(const char *name, struct err *err);
/* The name of the VM that this process keeps: who it is, and the given name. */
void palacios_name_of(pid_t keeper, const char *given, char out[PALACIOS_NAME_MAX + 1]);
/* The name is of a keeper that is dead. */
bool palacios_is_orphan(const char *name);
/* Removes VMs of keepers that are dead (both a keeper and its shadow were killed). */
void palacios_sweep(void);

/* ---- palacios_state.c: a saved VM as one stream. Blocks ---- */

/* Writes the files of `folder` (flat, regular) to fd, each with a checksum. */
int palacios_state_write(int fd, const char *folder, uint64_t *ret_bytes, struct err *err);
/* Reads such a stream to its end into `folder` (empty). EBADMSG: damaged or cut. */
int palacios_state_read(int fd, const char *folder, struct err *err);
/* What a restore needs to be the same: a line. */
void palacios_signature(unsigned cpus, uint64_t memory, char out[HV_SIGNATURE_MAX]);
int palacios_check_signature(const char *signature, unsigned cpus, uint64_t memory, struct err *err);

/* ---- palacios_boot.c: the boot disk ---- */

struct palacios_loader {
	char xorriso[256], isolinux[256], ldlinux[256], mbr[256];
};

/* ENOENT: what is missing, in one line. */
int palacios_loader_find(struct palacios_loader *ret, struct err *err);
/* EINVAL: not a bzImage. */
int palacios_check_kernel(const char *path, struct err *err);
/* Makes <dir>/boot.iso, or takes that of another VM beside it. Blocks. *ret_path: malloc'ed. */
int palacios_boot_make(const char *dir, const char *kernel, const char *initrd, const char *cmdline,
		       char **ret_path, struct err *err);
void palacios_boot_remove(const char *dir);

/* ---- palacios_message.c ---- */

enum palacios_op {
	PALACIOS_OP_START,
	PALACIOS_OP_PAUSE,
	PALACIOS_OP_RESUME,
	PALACIOS_OP_RESET,
	PALACIOS_OP_SAVE,
	PALACIOS_OP_MIGRATE,
	PALACIOS_OP_PIN,  /* .vcpu, .cpu */
	PALACIOS_OP_UNDO, /* of a save that was cut short: .state is to be again */
};

enum palacios_kind {
	/* agent to keeper */
	PALACIOS_DO,     /* .op */
	PALACIOS_CANCEL, /* a save or migrate under way */
	/* keeper to agent */
	PALACIOS_HELLO, /* .pid; the descriptor is the reading end of `cleaned` */
	PALACIOS_EVENT, /* .event and what belongs to it; a descriptor with CHANNEL, CONSOLE and STREAM */
	PALACIOS_END, /* the guest ended: .state, .text; the keeper ends */
	/* doer to keeper */
	PALACIOS_STREAM, /* the guest's stream number .vcpu; with its descriptor */
	PALACIOS_RESULT, /* .code, .text (signature of a save), .bytes */
};

/* One a datagram. Both ends are the same program. */
struct palacios_message {
	enum palacios_kind kind;
	enum palacios_op op;
	enum hv_event_type event;
	enum hv_state state;
	int code;
	pid_t pid;
	unsigned vcpu;
	int cpu;
	uint64_t bytes;
	char text[ERR_TEXT_MAX];
};

/* 1: a message, its descriptor (or -1) in *ret_fd; 0: none now; -1: the other end is gone. */
int palacios_message_read(int fd, struct palacios_message *m, int *ret_fd);
/* send_fd: -1 or borrowed. -1: the other end is gone or takes no more. */
int palacios_message_write(int fd, const struct palacios_message *m, int send_fd);
const char *palacios_op_name(enum palacios_op op); /* as hv_cap_name() */

/* ---- palacios_doer.c ---- */

struct palacios_doing {
	const struct hv_spec *spec;
	const char *name;             /* of the VM */
	enum palacios_state state;    /* it is in, as the keeper knows */
	bool loaded;                  /* restored and never launched: a resume is its launch */
	int stream;                   /* SAVE, MIGRATE: where to; -1 */
	int from;                     /* START of a saved VM: where from; -1 */
	int report;                   /* messages to the keeper */
	struct palacios_message what; /* PALACIOS_DO */
};

/* Does it, reports PALACIOS_RESULT and gives the exit status. In a process of its own. */
int palacios_do(const struct palacios_doing *d);

/* ---- palacios_pump.c: one of the guest's streams, between the kernel and the agent ---- */

struct palacios_pump {
	int kernel, ours;   /* -1: not there */
	struct buf in, out; /* to the agent; to the guest */
	unsigned wait_ms;   /* > 0: the kernel took nothing, try again after this */
	uint64_t retry_at;
};

void palacios_pump_init(struct palacios_pump *p);
void palacios_pump_finish(struct palacios_pump *p);
/* A new end for the agent: *ret_fd; what was half sent to the old one is dropped. */
int palacios_pump_open(struct palacios_pump *p, int *ret_fd, struct err *err);
/* What there is from the guest; `seen` is shown every byte. */
void palacios_pump_read(struct palacios_pump *p, struct palacios_words *w,
			void (*seen)(struct palacios_words *w, const char *p, size_t n));
void palacios_pump_move(struct palacios_pump *p, uint64_t now); /* all other directions */
void palacios_pump_drop(struct palacios_pump *p);               /* what waits in the kernel, too */

/* ---- palacios_keeper.c: the process behind a VM ---- */

/* The keeper's main program. `parent`: its shadow. Never returns. */
_Noreturn void palacios_keep(const struct hv_spec *spec, int control, int from, int cleaned,
			     pid_t parent);

/* ---- palacios_shadow.c: from the agent to the keeper ---- */

struct palacios_keeper {
	pid_t pid;
	uint64_t start;
	int control; /* non-blocking */
	int cleaned; /* at its end nothing of the VM is left; what comes before it is how the keeper ended, or what went wrong */
};

/* A keeper, which begins to start the VM. The spec is borrowed for the call (the keeper is a copy of this process). */
int palacios_keeper_start(const struct hv_spec *spec, struct palacios_keeper *ret, struct err *err);
/* How a kept VM ended while no agent was there: a file in spec.dir. */
void palacios_ended_write(const char *dir, enum hv_state state, const char *reason);
bool palacios_ended_read(const char *dir, enum hv_state *ret_state, char *reason, size_t size);
/* The socket in spec.dir where a keeper (spec.keep) waits for who adopts its VM. malloc'ed. */
char *palacios_keeper_socket(const char *dir);

/* ---- palacios_probe.c ---- */

int palacios_probe(struct loop *l, const char *accel,
		   void (*done)(void *arg, const struct hv_probe *p), void *arg, struct err *err);

#endif
