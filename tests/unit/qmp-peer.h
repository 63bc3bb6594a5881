/* SPDX-License-Identifier: Apache-2.0 */
/* A QMP client and its scripted peer. */
#ifndef VSE_TESTS_UNIT_QMP_PEER_H
#define VSE_TESTS_UNIT_QMP_PEER_H

#include "hypervisor/qemu_qmp.h"

#define GREETING "{\"QMP\":{\"version\":{},\"capabilities\":[]}}\r\n"

struct peer {
	struct loop *loop;
	struct qmp *q;
	int fd; /* QEMU's end */
	int ready, events, closed, answers;
	int close_code;
	char event[32], answer[600];
	uint64_t base; /* of the client's ids: "@1" is the first one after it */
	bool destroy_at_event, destroy_at_answer;
};

void peer_begin(struct peer *p, uint64_t greeting_ms); /* the peer has said nothing yet */
void peer_negotiate(struct peer *p);                   /* up to a client that is ready */
void peer_finish(struct peer *p);
void peer_say(struct peer *p, const char *s); /* "@1": the first id of this client */
/* What the client has sent until now. */
void peer_heard(struct peer *p, char *out, size_t size);
/* Every event that is under way is told within a few rounds; the timer keeps a round from waiting. */
void peer_settle(struct peer *p);
void peer_on_answer(void *arg, json_t *ret, const struct err *err); /* of a command: arg is the peer */

#endif
