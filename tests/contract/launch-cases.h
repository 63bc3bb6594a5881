/* SPDX-License-Identifier: Apache-2.0 */
/* The back ends under the contract test of launchers: what the environment of each is, and what it must do. */
#ifndef VSE_TESTS_CONTRACT_LAUNCH_CASES_H
#define VSE_TESTS_CONTRACT_LAUNCH_CASES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/strvec.h"

#define NODES 3

struct scenario {
	const char *name;
	void (*prepare)(void); /* its environment */
	const char *hosts;     /* asked for; NULL: none */
	unsigned nodes;        /* asked for; 0: all */
	const char *names;     /* expected, and what agents call themselves where `named` */
	bool inside;           /* chosen without being asked for */
	bool named, indexed;   /* the agents know their node; are told their index */
	bool by_file;          /* the bootstrap comes in a file */
	bool tells_node;       /* of an agent that was killed */
	bool kill_spreads; /* one agent that dies of a signal ends all, says the manager's manual */
	bool by_link;      /* agents end when their link does, not with the launching */
	bool stage;        /* the agent travels */
	uint64_t cores, memory; /* of the first node */
	const char *job;
};

/* NULL: none of that name. */
const struct scenario *scenario_find(const char *test);

extern char *tmp, *tm_library;    /* the test's folder; TM's stand-in */
extern struct strvec launch_args; /* --launcher-arg; prepare() may add */

#endif
