/* SPDX-License-Identifier: Apache-2.0 */
/* libvse: virtual clusters from a program, as the command `vse` makes them. See libvse(3) and docs/library.md.
 *
 * Rules that hold everywhere:
 * - Handles are opaque. Options are keys with values and events are asked for what they hold, so what a later version
 *   adds needs neither a new symbol nor another size of a struct.
 * - What can fail gives 0 or a negative errno value, and fills `err` (may be NULL) with code and text.
 * - The library prints nothing, never exits, and leaves signal handlers, the working directory and the environment of
 *   the program alone. (It aborts when there is no memory.)
 * - Strings that go in are copied; const strings that come out are borrowed, as long as told. `char *` that comes out
 *   is freed by vse_free(). A handle is freed by its own function; NULL is fine there.
 * - One session is used by one thread at a time. Callbacks run in that thread, from vse_dispatch(), vse_wait(), vse_up()
 *   and other calls that wait. Within a callback those give -EDEADLK; all others may be called, and any call freed. */
#ifndef VSE_H
#define VSE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vse_error;
struct vse_session; /* an event loop, and a user's run directory */
struct vse_options;
struct vse_cluster; /* a connection to one virtual cluster */
struct vse_call;    /* something that goes on in a cluster: a command, events, a console's log */
struct vse_event;

const char *vse_version(void); /* "0.1.0" */
void vse_free(void *p);

/* ---- errors ---- */

struct vse_error *vse_error_new(void);
void vse_error_free(struct vse_error *err);
int vse_error_code(const struct vse_error *err); /* an errno value, positive; 0: no error */
const char *vse_error_text(const struct vse_error *err); /* one line: where, what and why; until its next use */
/* The option (vse_options_set) whose value is wrong, or "". */
const char *vse_error_option(const struct vse_error *err);
/* Everything that is wrong with a VSE file, as "FILE:LINE:COLUMN: text"; NULL past the last. */
const char *vse_error_problem(const struct vse_error *err, size_t i);

/* ---- sessions ---- */

int vse_open(struct vse_session **ret, struct vse_error *err);
/* Frees every cluster and call of it, too. Not from a callback: -EDEADLK, and nothing is done. */
int vse_close(struct vse_session *s);
/* "agent", "guest": paths of vse-agent and vse-guest. Else they are looked for beside the program and the library, in
 * libexec/vse next to them, and where vse was installed. "rundir": the folder of the user's clusters. */
int vse_set(struct vse_session *s, const char *key, const char *value, struct vse_error *err);

/* For an event loop of the program's own: wait until vse_fd() can be read or vse_timeout() milliseconds have passed (-1:
 * no limit; ask anew before every wait), then vse_dispatch(s, 0, err). */
int vse_fd(const struct vse_session *s);
int vse_timeout(const struct vse_session *s);
/* Runs what is due; waits at most timeout_ms for something (-1: no limit). */
int vse_dispatch(struct vse_session *s, int timeout_ms, struct vse_error *err);
/* vse_up() or vse_wait() that runs, or the next one, ends with -ECANCELED. From any thread, and from signal handlers. */
void vse_cancel(struct vse_session *s);

/* The names of the user's clusters on this node, each with a newline after it, sorted. */
int vse_list(struct vse_session *s, char **ret_names, struct vse_error *err);

/* ---- options ---- */

struct vse_options *vse_options_new(void);
void vse_options_free(struct vse_options *o);
/* Keys and values are those of the command line's options, listed in libvse(3). The value is checked at once. Flags take
 * "yes" and "no". Repeatable ones ("env", "hypervisor-arg", "launcher-arg") grow. NULL takes a key back.
 * -EINVAL: no such key, or not a value for it. */
int vse_options_set(struct vse_options *o, const char *key, const char *value, struct vse_error *err);

/* ---- events ---- */

enum {
	VSE_BUILDING = 1, /* the image: text names the step, data a line more; numbers "done", "total" (0: not known) */
	VSE_STARTING = 2, /* nodes and VMs: the same */
	VSE_NOTE = 3,     /* text, for the user */
	VSE_OUTPUT = 4, /* data of ranks; number "stream": 1 stdout (and logs), 2 stderr; "eof": 1 when it is the last */
	VSE_EXITED = 5, /* the command, in ranks; numbers "code" (128 + signal when one ended it), "signal" */
	VSE_FAILED = 6,   /* the command could not run in ranks, or was lost with them; text */
	VSE_WRITABLE = 7, /* vse_write() takes "bytes" more */
	VSE_HAPPENED = 8, /* of vse_events(): text; numbers "time_ns", "rank" (-1: the cluster); json */
	VSE_ENDED = 9, /* the last event of a call; number "code": errno value or 0, text */
};

/* The event is borrowed, until the callback returns. What is not 0 ends the call, or vse_up(), with -ECANCELED.
 * Kinds that are not known must be ignored. */
typedef int vse_callback(void *arg, const struct vse_event *e);

int vse_event_kind(const struct vse_event *e);
const char *vse_event_ranks(const struct vse_event *e); /* "3", "0-3,7"; "": of no VM */
const char *vse_event_text(const struct vse_event *e);  /* "": none; without control characters */
const char *vse_event_json(const struct vse_event *e); /* the whole event (docs/json.md); "": none */
const void *vse_event_data(const struct vse_event *e, size_t *ret_n);
int64_t vse_event_number(const struct vse_event *e, const char *what); /* -1: it has none of that name */

/* ---- clusters ---- */

/* What vse_up() would do, as JSON (docs/json.md). No VM is started, no image built; on hosts, or inside an allocation,
 * agents are started, look at their nodes and end. */
int vse_plan(struct vse_session *s, const char *file, const struct vse_options *o, char **ret_json,
	     struct vse_error *err);
/* Starts a cluster from a VSE file: builds its image or finds it, starts the agents, and waits until every VM is ready.
 * fn may be NULL. The cluster ends with this connection, unless vse_detach() keeps it. o may be NULL.
 * -EEXIST: one of that name runs. A failed or cancelled start leaves nothing, unless option "keep-failed" keeps the
 * cluster for vse_attach(). A build cannot be cancelled; it ends first. */
int vse_up(struct vse_session *s, const char *file, const struct vse_options *o, vse_callback *fn,
	   void *arg, struct vse_cluster **ret, struct vse_error *err);
/* The cluster that vse_save() wrote into the folder dir goes on where it was, under its name or option "name"; where it
 * runs is chosen as for vse_up(). Options that describe the machine (count, memory...) are refused: -EINVAL. The folder stays,
 * and can be restored again. -ENOENT: its image is in no store here. */
int vse_restore(struct vse_session *s, const char *dir, const struct vse_options *o,
		vse_callback *fn, void *arg, struct vse_cluster **ret, struct vse_error *err);
/* Connects to a cluster that runs; name NULL: the only one. -ENOENT: none; -EINVAL: several, say which. */
int vse_attach(struct vse_session *s, const char *name, struct vse_cluster **ret, struct vse_error *err);
/* The cluster outlives this connection. The handle stays usable. */
int vse_detach(struct vse_cluster *c, struct vse_error *err);
/* Closes the connection, ends its calls (-ECANCELED) and frees the handle. Calls are freed apart. */
void vse_release(struct vse_cluster *c);

const char *vse_name(const struct vse_cluster *c);          /* as long as the handle */
int vse_size(struct vse_cluster *c, struct vse_error *err); /* number of VMs; asked once */
/* The cluster with all its VMs, as in `vse ps --json` (docs/json.md). */
int vse_status(struct vse_cluster *c, char **ret_json, struct vse_error *err);
/* what: "pause", "resume", "stop", "kill" or "restart". ranks: "3", "0-3,7", "all". Returns when it is done. */
int vse_control(struct vse_cluster *c, const char *what, const char *ranks, struct vse_error *err);
/* More nodes for a cluster that runs on several: those of o's "hosts", "hostfile" or "nodes". Returns when they are part of
 * it, or none of them is. */
int vse_nodes_add(struct vse_cluster *c, const struct vse_options *o, struct vse_error *err);
/* Takes nodes ("n3,n[5-6]") out of the cluster; nothing of it is left on them. vms: what becomes of VMs there: "refuse"
 * (then no node is removed), "stop" or "recover" (they begin anew on the others). */
int vse_nodes_remove(struct vse_cluster *c, const char *nodes, const char *vms, struct vse_error *err);
/* Moves VMs to another node of the cluster, one after the other, as they run; how long each stood still is in *ret_json
 * (docs/json.md; may be NULL). timeout_ms: for one VM, 0: 10 minutes; after that it stays where it was. Every VM runs on one
 * of the two nodes, whatever happens. node NULL: calls off what others have asked for, where it is not too late; these are
 * told so. ESRCH: there is nothing to be called off. */
int vse_migrate(struct vse_cluster *c, const char *ranks, const char *node, unsigned timeout_ms,
		char **ret_json, struct vse_error *err);
/* The same by post-copy, for VMs that write to their memory faster than it travels: each goes on over there before all of its memory
 * has come, and is lost where one of the nodes, or the link between them, fails until it has. */
int vse_migrate_post_copy(struct vse_cluster *c, const char *ranks, const char *node,
			  unsigned timeout_ms, char **ret_json, struct vse_error *err);
/* Holds all VMs, writes them (memory, devices, scratch disks) into the folder dir, which must not exist and must be seen
 * by every node under the same path, and lets them go on. All VMs must run; those that were paused stay so. The folder is
 * there when all of it is on disk, and not before. It holds what the VMs' memory holds: keys, too. */
int vse_save(struct vse_cluster *c, const char *dir, struct vse_error *err);
/* Ends the cluster; graceful: its guests are shut down first. Returns when nothing of it is left (bounded: 10 s,
 * graceful 60 s). The handle is still to be released. */
int vse_down(struct vse_cluster *c, int graceful, struct vse_error *err);

/* ---- calls ---- */

/* Runs argv (NULL-terminated) in the VMs of option "ranks" (default "all"), all at once. Returns when it is asked for:
 * events come to fn from vse_dispatch() or vse_wait(). fn and o may be NULL. Asks for vse_size() where that is not known, so
 * within a callback of a cluster that was attached to, ask for it before. */
int vse_exec(struct vse_cluster *c, const struct vse_options *o, const char *const *argv,
	     vse_callback *fn, void *arg, struct vse_call **ret, struct vse_error *err);
/* What happened in the cluster; with option "follow" what happens from now on, too. */
int vse_events(struct vse_cluster *c, const struct vse_options *o, vse_callback *fn, void *arg,
	       struct vse_call **ret, struct vse_error *err);
/* What VM `rank` wrote to its console (VSE_OUTPUT); option "follow". */
int vse_logs(struct vse_cluster *c, const struct vse_options *o, uint32_t rank, vse_callback *fn,
	     void *arg, struct vse_call **ret, struct vse_error *err);

/* Runs the session until the call has ended. 0, or why it failed as a whole (that programs failed is in their exit
 * codes). The end of a cluster is the regular end of vse_events() and vse_logs(). */
int vse_wait(struct vse_call *call, struct vse_error *err);
/* Ends what still goes on, and frees it: no event of it comes any more. */
void vse_call_free(struct vse_call *call);

/* The exit code in one VM: 0-255, or -1: not ended, or VSE_FAILED there. */
int vse_exit_code(const struct vse_call *call, uint32_t rank);
/* The greatest of all; 1 when VMs failed without one greater. */
int vse_exit_code_max(const struct vse_call *call);

/* Standard input, to all VMs of the call; needs option "stdin". Gives the bytes taken, which may be fewer than n or 0:
 * VSE_WRITABLE tells when there is room again. */
long vse_write(struct vse_call *call, const void *p, size_t n);
void vse_write_end(struct vse_call *call); /* end of file */
/* Reads it from fd (borrowed, until the call is freed) instead, up to its end. The mode of fd stays as it is. */
int vse_read_from(struct vse_call *call, int fd, struct vse_error *err);
void vse_signal(struct vse_call *call, int signo); /* to the programs; numbers of Linux */
void vse_resize(struct vse_call *call, unsigned rows, unsigned cols); /* with option "tty" */
/* Only with option "flow" = "manual": so many bytes of that VM's output were dealt with and as many more may come.
 * Without it the return of the callback says so. */
void vse_credit(struct vse_call *call, uint32_t rank, int stream, uint32_t bytes);

#ifdef __cplusplus
}
#endif

#endif
