/* SPDX-License-Identifier: Apache-2.0 */
/* Inside agent/mesh*.c. */
#ifndef VSE_AGENT_MESH_STATE_H
#define VSE_AGENT_MESH_STATE_H

#include "agent/mesh.h"
#include "agent/state.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/size.h"
#include "base/text.h"
#include "io/link.h"
#include "overlay/overlay.h"
#include "wire/message.h"

#define FIRST_FRAME_MS 10000  /* from an authenticated link */
#define FIRST_FRAME_MAX 4096u /* bytes */
#define DIAL_MS 10000
#define RETIRE_MS 100             /* between looks whether a retired link is still used */
#define REFUSED_LOGGED 50         /* strangers can knock often: so many are named, then counted */
#define REPORT_BACKLOG (1u << 20) /* bytes to the parent: no news are added to more */
#define QUEUE_MAX                                                                                  \
	(64u << 20) /* bytes to a child: one that reads no more than this behind is given up */

/* One control link; to us it is a child's, or the parent's. */
struct child {
	struct mesh *mesh;
	struct child *next;
	uint32_t id, node;
	bool up;               /* it takes requests: part of the tree */
	struct caller *caller; /* a child's */
	struct conn *conn;     /* the parent's */
	struct link_dial *dial;
	struct evtimer *retire;
};

/* A link that was accepted and has not said yet what it is. */
struct newcomer {
	struct mesh *mesh;
	struct newcomer *next;
	struct stream *stream;
	struct evtimer *timer;
	char peer[TCP_PEER_SIZE];
};

/* A link that mesh_open() makes. */
struct opening {
	struct mesh *mesh;
	struct opening *next;
	uint32_t node;
	enum mesh_link kind;
	struct link_dial *dial;
	struct evtimer *failed; /* tells of a failure that was known at once */
	struct err err;
	void (*done)(void *arg, uint32_t node, struct stream *s, const struct err *err);
	void *arg;
};

struct node {
	char *address, *reason;
	uint32_t incarnation;
	bool lost;
};

struct mesh {
	struct agent *agent;
	uint32_t self, n_nodes;
	char id[2 * MESH_ID_SIZE + 1];
	struct strvec names;
	struct node *nodes; /* by index, 0..n_nodes */
	const struct mesh_ops *ops;
	void *arg;
	struct tls_context *tls;
	struct link_listener *listener;
	struct overlay *overlay;
	struct evtimer *tick;
	bool draining;
	struct child *links;
	struct newcomer *newcomers;
	struct opening *openings;
	unsigned refused;
};

uint64_t mesh_now(const struct mesh *m);
void mesh_drain(struct mesh *m); /* does what the overlay wants; after every event of it */
struct child *mesh_add_link(struct mesh *m, uint32_t id, uint32_t node);
extern const struct caller_link_ops mesh_child_ops; /* arg: the child */
/* mesh_links.c */
extern const struct link_listener_ops mesh_listener_ops; /* arg: the mesh */
void mesh_newcomer_end(struct newcomer *n);
void mesh_write_first(struct mesh *m, struct stream *s, uint32_t to, enum mesh_link kind);
/* address: as mesh_address() gives it. */
struct link_dial *mesh_dial(struct mesh *m, const char *address,
			    void (*done)(void *arg, struct stream *s, const char *address,
					 const struct err *err),
			    void *arg, struct err *err);

#endif
