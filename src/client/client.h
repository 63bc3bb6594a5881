/* SPDX-License-Identifier: Apache-2.0 */
/* The front end's side of a cluster: connect to its root agent and ask. The commands stand on this alone. */
#ifndef VSE_CLIENT_CLIENT_H
#define VSE_CLIENT_CLIENT_H

#include <jansson.h>

#include "io/loop.h"
#include "wire/caller.h"

struct client;

/* A front end's call is a call like any other (wire/caller.h has the contract of these ops). */
#define client_ops caller_ops

/* Connects and shakes hands (bounded: 10 s). ENOENT: no such cluster runs. EPERM: another user answers. */
int client_connect(struct loop *l, const char *base, const char *name, struct client **ret,
		   struct err *err);
void client_destroy(struct client *c); /* open calls end with ECANCELED; NULL is fine */

/* req: taken. Gives the id for what follows. Any op may be NULL but on_end. What cannot be sent ends the call:
 * E2BIG, or ECONNRESET once the connection is lost. */
uint32_t client_call(struct client *c, json_t *req, const struct client_ops *ops, void *arg);
void client_message(struct client *c, uint32_t id, json_t *msg); /* taken */
void client_data(struct client *c, uint32_t id, uint32_t rank, const char *p, size_t n, bool eof);
void client_credit(struct client *c, uint32_t id, uint32_t rank, int fd, uint32_t bytes);
/* What still comes for this call is dropped; no op of it is called any more. An ended id is fine. */
void client_forget(struct client *c, uint32_t id);
/* One call, waited for: runs the loop until the reply. bound_ms 0 = no bound of our own (the agent has its). */
int client_ask(struct client *c, json_t *req, uint64_t bound_ms, json_t **ret, struct err *err);
struct loop *client_loop(struct client *c);

#endif
