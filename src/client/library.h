/* SPDX-License-Identifier: Apache-2.0 */
/* What is behind the handles of include/vse.h, and what the commands alone need of it. Not installed. */
#ifndef VSE_CLIENT_LIBRARY_H
#define VSE_CLIENT_LIBRARY_H

#include <jansson.h>
#include <stdbool.h>

#include "base/rundir.h"
#include "base/strvec.h"
#include "client/client.h"
#include "vse.h"

struct vse_error {
	struct err err;
	bool usage;                         /* what was asked for is wrong, not what happened */
	char option[32];                    /* whose value is wrong, or "" */
	bool kept;                          /* the cluster that failed to start was kept */
	char cluster[CLUSTER_NAME_MAX + 1]; /* then: its name */
	struct strvec problems;
};

void vse_error_finish(struct vse_error *e);
/* For the head of a public function: an error of its own where the user gave none; cleared. */
#define ERROR_OR_OWN(err)                                                                          \
	_cleanup_(vse_error_finish) struct vse_error own_error_ = {0};                             \
	if (!(err))                                                                                \
		(err) = &own_error_;                                                               \
	vse_error_finish(err)
/* The negative code of e; 0 becomes EIO. */
int error_code(const struct vse_error *e);
int error_set(struct vse_error *e, int code, const char *fmt, ...) _printf_(3, 4);
/* EINVAL about an option's value: "OPTION" and then the text, which begins with ": " or " ". */
int error_option(struct vse_error *e, const char *option, const char *fmt, ...) _printf_(3, 4);

struct vse_session {
	struct loop *loop;
	char *base, *agent, *guest; /* NULL: not looked for yet, or to be found */
	struct vse_cluster *clusters;
	unsigned busy; /* the loop runs: a callback of ours may be on the stack */
	bool cancelled;
	int cancel_fd;
	struct watch *cancel_watch;
	struct evtimer *tick;
};

struct vse_cluster {
	struct vse_session *session;
	struct vse_cluster *next;
	struct client *client;
	struct vse_call *calls;
	char *name;
	uint32_t size;     /* 0: not asked yet */
	uint64_t ready_ms; /* that its start took; 0 after vse_attach() */
};

struct vse_event {
	int kind;
	const char *ranks, *text, *json; /* NULL: "" */
	const void *data;
	size_t n;
	int64_t number[2];
	const char *what[2]; /* names of the numbers; NULL: none */
};

/* The folder of the user's clusters; borrowed. NULL with the reason. */
const char *session_base(struct vse_session *s, struct vse_error *e);
/* -EDEADLK within a callback. */
int session_enter(struct vse_session *s, struct vse_error *e);
void session_leave(struct vse_session *s);
struct vse_cluster *cluster_new(struct vse_session *s, struct client *client, const char *name);
/* One request of the cluster, waited for; *ret (may be NULL) is a new reference. */
int cluster_ask(struct vse_cluster *c, json_t *req, uint64_t bound_ms, json_t **ret,
		struct vse_error *e);
void call_orphan(struct vse_call *call); /* its cluster is being released */

#endif
