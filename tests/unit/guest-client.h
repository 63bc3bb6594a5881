/* SPDX-License-Identifier: Apache-2.0 */
/* The host's side of the guest protocol, for tests: keeps the books on every window. */
#ifndef VSE_TESTS_GUEST_CLIENT_H
#define VSE_TESTS_GUEST_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "wire/frame.h"

#define CLIENT_WAIT_MS 60000 /* no answer for so long: the test fails instead of hanging */

struct job {
	struct job *next;
	uint32_t id;
	struct buf out[3]; /* what came on fd 1 and 2 */
	bool end[3];
	uint64_t allowed[3]; /* the guest may still send so much */
	bool hold;           /* grant nothing */
	bool discard;        /* count the output, do not keep it */
	uint64_t got[3];
	const char *in; /* stdin still to be sent (borrowed) */
	size_t in_left;
	bool in_end; /* and then the end */
	uint64_t in_credit;
	uint64_t in_sent;
	bool started, ended;
	pid_t pid;
	int code, signal; /* of "exit"; -1 = none */
	int error;        /* of "error"; 0 = none */
	bool done;
	uint64_t files, bytes;
	char text[512];
};

struct client {
	int fd;
	pid_t pid; /* the guest, or 0 */
	struct buf in, out;
	struct job *jobs;
	uint32_t next_id;
	unsigned hellos, readies, pongs, byes, logs;
	char failed[512], last_log[512];
	struct buf stats; /* the last "stats" record */
	char wrong[640];  /* the guest broke the protocol */
	bool closed;
};

int client_spawn(struct client *c, const char *guest); /* `guest --stdio` on a socketpair */
int client_connect(struct client *c, const char *socket);
void client_finish(struct client *c); /* closes; a spawned guest is waited for */
int client_close_and_wait(struct client *c); /* closes and gives its wait status, -1 when it does not end */
/* One round: sends, waits up to ms, takes what came. False when the guest is gone or nothing came. */
bool client_pump(struct client *c, int ms);
void client_verb(struct client *c, uint32_t id, const char *verb,
		 const char *const *kv); /* key, value, ..., NULL */
/* argv ends with NULL; window in bytes; `more` as above or NULL. */
struct job *client_exec(struct client *c, const char *const *argv, uint32_t window,
			const char *const *more);
struct job *client_put(struct client *c, const char *path, bool into, const void *archive, size_t len);
struct job *client_get(struct client *c, const char *path, uint32_t window);
void client_input(struct job *j, const char *data, size_t len, bool end);
bool client_wait(struct client *c, struct job *j); /* until it ended; false: the guest is gone or silent */
bool client_until(struct client *c, const unsigned *counter, unsigned at_least);
void client_forget(struct client *c, struct job *j);
void client_setup(struct client *c, const char *const *kv); /* and waits for "ready" or "failed" */

#endif
