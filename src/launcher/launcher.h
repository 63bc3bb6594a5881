/* SPDX-License-Identifier: Apache-2.0 */
/* Launchers: how agents get onto nodes. A launcher is one file that ends in `const struct launcher launcher_NAME`
 * plus its word in src/launcher/meson.build. It has two halves, each its own ops, so that the nodes of one go with the
 * start of another (Slurm's nodes, started by ssh):
 *   which nodes there are:            launcher_pick(), launcher_allocate()
 *   how an agent is started on each:  launcher_start()
 * launcher.c is the only caller of the ops. docs/launchers.md tells users what each one does. */
#ifndef VSE_LAUNCHER_LAUNCHER_H
#define VSE_LAUNCHER_LAUNCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/strvec.h"
#include "io/loop.h"

struct launcher;

const struct launcher *launcher_find(const char *name); /* NULL: none; sites' own ones of the folders too */
/* All of them, the site's after ours; NULL past the last. */
const struct launcher *launcher_at(size_t i);

/* ---- the root agent, on this host ---- */

struct launch {
	const char *agent; /* path of vse-agent */
	const char *base;  /* run directory */
	const char *name;  /* of the cluster */
	bool verbose;
	int hold_fd; /* inherited by the agent and kept open (a lock on the image); -1 = none */
};

/* Starts it and waits until it answers. Only `local` can: the other launchers start from the root agent. */
int launcher_launch(const struct launcher *l, const struct launch *what, struct err *err);

/* ---- which launcher ---- */

enum launch_fit {
	LAUNCH_UNUSABLE, /* its programs or its manager are not here */
	LAUNCH_USABLE,   /* can start agents, or get an allocation, when it is asked for */
	LAUNCH_INSIDE,   /* this process runs inside an allocation of this manager */
};
#define LAUNCH_WHY_MAX 256
/* What `vse doctor` shows: one line says why. May run a program for at most 5 s. */
enum launch_fit launcher_probe(const struct launcher *l, char why[LAUNCH_WHY_MAX]);

/* What the user asked for. All borrowed until the call that takes it returns. */
struct launch_request {
	const char *launcher;      /* --launcher; NULL: found out */
	const char *hosts;         /* --hosts "n[1-8],login1"; NULL: none */
	const char *hostfile;      /* --hostfile; NULL: none */
	unsigned nodes;            /* --nodes: so many; 0 = all that there are */
	const struct strvec *args; /* --launcher-arg: further words for the manager; may be NULL */
	uint64_t wait_ms;          /* for an allocation of our own; 0 = 1 hour */
};
/* Who tells the nodes: the launcher that was named > the nearest enclosing manager > hosts of the user (ssh) > local.
 * May run a program for at most 5 s. EINVAL: no such launcher; ENOENT: hosts that none can use. `why` tells the
 * choice. */
int launcher_pick(const struct launch_request *r, const struct launcher **ret,
		  char why[LAUNCH_WHY_MAX], struct err *err);

/* ---- which nodes ---- */

struct launch_node {
	char *name; /* as its manager and ssh call it; "" where only the agent can tell (ALPS) */
	unsigned cores; /* that were given to us there; 0 = not known, the agent's own view counts */
	uint64_t memory;    /* bytes, the same */
	unsigned launch_id; /* what the manager starts by: rank of a Flux broker, TM's node */
	unsigned group;     /* component of a heterogeneous Slurm job; else 0 */
};

struct allocation {
	const struct launcher *launcher; /* that told the nodes, and starts there unless another is wanted */
	char *job;                       /* its id; "" = no job */
	int64_t end_time; /* seconds since 1970 when its time is over; 0 = not known, or never */
	struct launch_node *nodes;
	size_t n_nodes;
	struct allocation_hold *hold; /* of an allocation that we made; else NULL */
};

struct allocate_ops {
	void (*on_progress)(void *arg, const char *text); /* "waiting for job 17 (Priority)"; may be NULL */
	/* One of the two, once; after it only allocating_destroy(), which may be called from within. */
	void (*on_ready)(void *arg, struct allocation *a); /* taken */
	void (*on_failed)(void *arg, const struct err *why);
};

/* Reads the environment, asks the manager, or makes an allocation of its own; calls back from the loop only. */
struct allocating *launcher_allocate(const struct launcher *l, struct loop *loop,
				     const struct launch_request *r, const struct allocate_ops *ops,
				     void *arg, struct err *err);
void allocating_destroy(struct allocating *a); /* gives up a request that still waits; NULL is fine */
/* Ends an allocation that we made. One whose owner is killed ends by itself: it hangs on a pipe. NULL is fine. */
void allocation_destroy(struct allocation *a);
/* That pipe: the allocation lives on as long as anybody has it open. Borrowed; -1: there is none, it is not ours to end. */
int allocation_hold_fd(const struct allocation *a);
/* What is known of one that a process before had: for launcher_time_left(). It has no nodes, and nothing ends with it. */
struct allocation *allocation_of_job(const struct launcher *l, const char *job, int64_t end_time);

/* The seconds left of the job; -1: not known or no limit. Once, from the loop, within 10 s. */
struct time_query *launcher_time_left(struct loop *loop, const struct allocation *a,
				      void (*on_answer)(void *arg, int64_t seconds), void *arg);
void time_query_destroy(struct time_query *q); /* NULL is fine */

/* In a node agent: which of these nodes is this one? By SLURMD_NODENAME or the host's name, full or short; where the
 * names are not known by the rank that ALPS, PALS or Flux gave. -1: none of them, or more than one. */
int launcher_self(char *const *names, size_t n);

/* First thing in main(): an agent that travelled was run as /proc/self/fd/9. Lets `ps` show it as vse-agent, and closes
 * that descriptor. Does nothing to any other. */
void launcher_name_self(char *argv0);

/* ---- start ---- */

#define LAUNCH_ALL SIZE_MAX

struct launch_agent {
	const char *file;   /* absolute path of the program on this host */
	const char *shared; /* absolute path where nodes may have the same file; NULL: as `file` */
	bool stage;         /* may be sent to nodes that do not have it; only ssh does */
	const struct strvec *args; /* of letters, digits and _/.=:,+@%- only: they pass the user's login shell */
	/* The agent's number for node i, told as `--index N` by launchers that start each node by itself
	 * (launcher_names_nodes()); NULL: never told. */
	const unsigned *index;
	/* What every agent reads on its standard input (copied). Ends in a newline. The input stays open after it: its
	 * end tells that the launcher is gone. Where the launcher does not carry input to every agent (see
	 * launcher_carries_input()), it is a file of mode 0600 in bootstrap_dir, and the agent is told
	 * `--bootstrap FILE`; removed with the launching. */
	const void *bootstrap;
	size_t bootstrap_len;
	/* Of mode 0700, seen by every node. NULL: launchers that need it refuse; so does slurm in a heterogeneous job. */
	const char *bootstrap_dir;
};

struct launch_options {
	unsigned parallel; /* connections that are being made at once; 0 = 32 */
	unsigned per_host; /* the same to one name; 0 = 4 (sshd drops beyond 10 that have not logged in) */
	unsigned tries; /* of one node, when sshd or the network dropped the connection; 0 = 4 */
	uint64_t connect_ms;  /* for the connection; 0 = 10 s */
	uint64_t deadline_ms; /* without any progress of a node that starts; 0 = 30 s */
	bool cheap_kex; /* ssh: curve25519 instead of the post-quantum key exchange, see docs/launchers.md */
	bool forget; /* ssh: an agent that was sent is not kept in the node's cache for the next launch */
	const struct strvec *args; /* --launcher-arg; may be NULL */
};

/* Called from the loop, never from within launcher_start(). Each may destroy the launching. `node` counts in the list
 * that was given; LAUNCH_ALL: the manager does not tell which. */
struct launch_ops {
	void (*on_node_started)(void *arg, size_t node); /* its agent runs and gets its bootstrap; may be NULL */
	/* No agent could be started there, or it ended (code ECHILD) or lost its launcher's connection. At most once a
	 * node. Managers tell of a dead node late or never: the overlay's heartbeats decide. */
	void (*on_node_failed)(void *arg, size_t node, const struct err *why);
	/* Nothing of this launching runs any more; code 0 when each had ended without an error. Last call. */
	void (*on_ended)(void *arg, const struct err *why);
	void (*on_output)(void *arg, size_t node, const char *line); /* what programs printed; may be NULL */
};

/* Starts one agent on each of the nodes: a whole allocation or any part of it (agents of an ssh tree start those of
 * their children, from an allocation they fill themselves). One call to the resource manager at most; ssh makes one
 * connection to each node. All is copied but `ops`. */
struct launching *launcher_start(const struct launcher *how, struct loop *loop,
				 const struct allocation *a, const size_t *nodes, size_t n_nodes,
				 const struct launch_agent *agent, const struct launch_options *o,
				 const struct launch_ops *ops, void *arg, struct err *err);
/* Ends every process it started here, at once; agents see the end of their input. No further call. NULL is fine. */
void launching_destroy(struct launching *l);

bool launcher_carries_input(const struct launcher *l); /* to every agent; else it needs bootstrap_dir */
bool launcher_names_nodes(const struct launcher *l); /* starts each node by itself, can tell it its index */

/* ---- the ops: called by launcher.c only ---- */

struct launch_start; /* launcher/backend.h */
struct launcher {
	const char *name, *summary;
	enum launch_fit (*probe)(const struct launcher *l, char why[LAUNCH_WHY_MAX]);
	/* Which nodes; NULL: it knows none. */
	int (*allocate)(struct allocating *a, const struct launch_request *r, struct err *err);
	int (*time_left)(struct time_query *q, const struct allocation *a, struct err *err); /* may be NULL */
	/* How to start; NULL: it cannot. */
	int (*start)(struct launching *l, const struct launch_start *s, struct err *err);
	int (*launch)(const struct launch *l, struct err *err); /* the root agent; `local` only */
	bool carries_input, names_nodes;
	const struct site_launcher *site; /* of the site's configuration, else NULL */
};

#endif
