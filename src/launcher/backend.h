/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of launchers share; for this room only. */
#ifndef VSE_LAUNCHER_BACKEND_H
#define VSE_LAUNCHER_BACKEND_H

#include "base/buf.h"
#include "launcher/launcher.h"
#include "launcher/tool.h"

#define LAUNCH_TEXT_MAX (4u << 20) /* bytes of a node file, of a manager's answer */
#define LAUNCH_NODES_MAX 131072u

/* ---- which nodes ---- */

struct allocation *allocation_new(const struct launcher *l, const char *job); /* job: NULL = "" */
/* The new node, zeroed but for its name (copied); valid until the next is added. NULL: LAUNCH_NODES_MAX are there. */
struct launch_node *allocation_add(struct allocation *a, const char *name);
/* Adds the names of a host list. */
int allocation_add_hosts(struct allocation *a, const char *hostlist, struct err *err);
/* Nodes of one name become one, where the first of them was: cores and memory are added up, the rest is of the first. */
void allocation_unite(struct allocation *a);
/* Cores and memory of the nodes of the same name (full or short) in `from`, where they are known there. */
void allocation_hint(struct allocation *a, const struct allocation *from);
void cleanup_allocation(struct allocation **a);
#define _cleanup_allocation_ _cleanup_(cleanup_allocation)

struct allocating {
	const struct launcher *launcher;
	struct loop *loop;
	const struct allocate_ops *ops;
	void *arg;
	unsigned wanted; /* nodes; 0 = all */
	/* of the back end: what it runs meanwhile; end() is called by allocating_destroy() */
	void *state;
	void (*end)(void *state);
	/* of launcher.c */
	struct evtimer *soon;
	struct allocation *result;
	struct err err;
};
struct allocating *allocating_new(const struct launcher *l, struct loop *loop, unsigned wanted,
				  const struct allocate_ops *ops, void *arg);
/* The outcome; told from the loop. Once one of the two. */
void allocating_ready(struct allocating *a, struct allocation *result); /* taken */
void allocating_failed(struct allocating *a, const struct err *why);
void allocating_progress(struct allocating *a,
			 const char *text); /* from the loop; may destroy `a`: call it last */

/* What keeps an allocation that we made. */
struct allocation_hold {
	void (*end)(struct allocation_hold *h);     /* gives it back and frees */
	int (*fd)(const struct allocation_hold *h); /* see allocation_hold_fd() */
};

struct time_query {
	struct loop *loop;
	void (*on_answer)(void *arg, int64_t seconds);
	void *arg;
	struct query *query; /* of the back end; may be NULL */
	struct evtimer *soon;
	int64_t seconds;
};
struct time_query *time_query_new(struct loop *loop, void (*on_answer)(void *arg, int64_t seconds),
				  void *arg);
void time_query_answer(struct time_query *q, int64_t seconds); /* told from the loop */

/* ---- start ---- */

struct launch_start {
	const struct allocation *allocation;
	const size_t *nodes;
	size_t n;
	const struct launch_agent *agent;
	const struct launch_options *o; /* with the defaults filled in */
};

struct launching {
	const struct launcher *how;
	struct loop *loop;
	const struct launch_ops *ops;
	void *arg;
	char **names; /* of the n nodes */
	size_t n;
	bool *failed;         /* was told */
	struct buf bootstrap; /* what agents read */
	char *bootstrap_file; /* NULL: it goes by standard input */
	/* of the back end; end() is called by launching_destroy() */
	void *state;
	void (*end)(void *state);
	/* of launching.c */
	struct evtimer *soon;
	struct err over;
	int busy;
	bool dead;
};
/* Checked, with its bootstrap in a file where the launcher does not carry input; nothing is started. */
struct launching *launching_new(const struct launcher *how, struct loop *loop, struct launch_start *s,
				const struct launch_ops *ops, void *arg, struct err *err);
/* The bootstrap goes by file all the same. */
int launching_use_file(struct launching *l, const struct launch_start *s, struct err *err);
struct launch_options launch_options_filled(const struct launch_options *o); /* o may be NULL */
/* Telling the caller, from the loop. False: that destroyed the launching and the state of the back end with it;
 * return at once. */
bool launching_started(struct launching *l, size_t node);
bool launching_failed(struct launching *l, size_t node, const struct err *why); /* once a node; LAUNCH_ALL too */
bool launching_output(struct launching *l, size_t node, const char *line);
/* All has ended; told in the loop's next round, nothing may be told after. */
void launching_over(struct launching *l, const struct err *why);
/* The nodes of this name fail; false as above. */
bool launching_failed_name(struct launching *l, const char *name, const struct err *why);
/* The agent's path for a manager that finds it on the nodes, and its arguments, appended. node: of a program that is
 * for this one alone, which is told its index; else LAUNCH_ALL. */
void launch_agent_argv(const struct launching *l, const struct launch_start *s, size_t node,
		       struct strvec *argv);
char *launch_hostlist(const struct launching *l); /* the short form, malloc'ed */

/* One program that starts all agents: its end is the end of the launching. */
struct onecall {
	struct strvec argv, env; /* taken; env empty: ours */
	bool input; /* the bootstrap is its input, which stays open; else it reads /dev/null */
	struct buf first; /* taken; goes to its input before all */
	/* What a line of the program itself tells; may be NULL. False: the launching is gone. *ret_own: not a line of
	 * the agents'. */
	bool (*on_line)(struct launching *l, bool err, const char *line, bool *ret_own);
};
int onecall_start(struct launching *l, struct onecall *c, struct err *err);
/* One program for each node, argv[i] for node i (an array of l->n, taken with what is in it), at_once of them in one
 * round of the loop; `input` as above. */
void pernode_start(struct launching *l, struct strvec *argv, unsigned at_once, bool input);
/* Our environment without the variables that begin so ("SLURM_"), but with those of `keep` (NULL-terminated). */
void env_without(struct strvec *env, const char *const *prefixes, const char *const *keep);

/* ---- words that several use ---- */

bool in_path(const char *program);
/* Fills `why` and gives the fit. */
enum launch_fit launch_fit(char why[LAUNCH_WHY_MAX], enum launch_fit fit, const char *fmt, ...)
	_printf_(3, 4);
const char *env_of(const char *name); /* NULL: not set or empty */

#endif
