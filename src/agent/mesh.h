/* SPDX-License-Identifier: Apache-2.0 */
/* This agent among the others: the links of the tree (overlay/ decides, io/ carries) and those that others of its rooms
 * ask for (stage, tunnel). An agent that runs alone has no mesh.
 *
 * Every link begins with one frame from who dialed: {"link": "control" | "bulk" | "net" | "state" | "template", "version", "cluster",
 * "from", "to"}. On a control link, frames with id 0 are the overlay's, both ways; the others are requests of the parent
 * and their answers. */
#ifndef VSE_AGENT_MESH_H
#define VSE_AGENT_MESH_H

#include <jansson.h>
#include <netinet/in.h>

#include "base/err.h"
#include "base/strvec.h"
#include "io/tls.h"
#include "wire/caller.h"

struct agent;
struct mesh;
struct child; /* the agent at the other end of a link downwards */

#define MESH_ID_SIZE 16 /* bytes of a cluster's id */

struct mesh_config {
	uint32_t self; /* 0: the root */
	uint8_t id[MESH_ID_SIZE];
	uint8_t secret[TLS_SECRET_SIZE];
	const struct strvec *names; /* of nodes 1..n (copied) */
	const char *root;           /* a node's: where the root is, "10.0.0.1:4000,..." */
	uint32_t fanout, beat_ms, lost_ms, give_up_ms; /* 0: overlay's defaults */
	const char *resources;                         /* what this node offers, as JSON */
	uint32_t incarnation; /* a node's: as overlay_config has it, and lease, too */
	uint64_t lease;
	int listener; /* 0: one is made; else taken, and it listens on this port */
	uint16_t port;
	const json_t *journal; /* a root that is started again: mesh_journal() of the one before; else NULL */
};

struct mesh_ops {
	/* The root's. */
	void (*on_node_up)(void *arg, uint32_t node,
			   const json_t *resources); /* borrowed; NULL: it said nonsense */
	void (*on_node_lost)(void *arg, uint32_t node, const char *why);
	void (*on_node_safe)(void *arg, uint32_t node); /* none of its VMs can run any more */
	/* A node's. */
	void (*on_admitted)(void *arg);
	void (*on_fenced)(void *arg); /* stop all VMs, then mesh_stopped() */
	void (*on_end)(void *arg, const char *why);
	/* A link that another agent made; taken. */
	void (*on_net)(void *arg, uint32_t node, struct stream *s);
	void (*on_bulk)(void *arg, uint32_t node, struct stream *s);
	void (*on_state)(void *arg, uint32_t node, struct stream *s);    /* a VM that moves */
	void (*on_template)(void *arg, uint32_t node, struct stream *s); /* one asks for a template */
};

struct mesh *mesh_create(struct agent *a, const struct mesh_config *c, const struct mesh_ops *ops,
			 void *arg, struct err *err);
void mesh_destroy(struct mesh *m); /* closes every link; NULL is fine */
void mesh_start(struct mesh *m);
void mesh_stopped(struct mesh *m);
uint32_t mesh_incarnation(const struct mesh *m); /* a node's: what it was let in as */
uint64_t mesh_lease(const struct mesh *m);       /* a node's: overlay_lease() */
/* The root's: where others reach it, "10.0.0.1:4000,[fd00::1]:4000"; malloc'ed. */
char *mesh_address(const struct mesh *m);
/* The root's books, for the one that follows it: port, epoch, nodes. New reference. */
json_t *mesh_journal(const struct mesh *m);
/* The root's: a node that will not come. It is not waited for, and refused should it come all the same. */
void mesh_remove(struct mesh *m, uint32_t node);

bool mesh_has_parent(const struct mesh *m);
/* names: of all nodes; those past the ones it knows are new. */
void mesh_add_nodes(struct mesh *m, const struct strvec *names);

#define MESH_REPORT 1 /* rank of a frame with id 0 that is no message of the overlay */
/* To the parent; dropped where there is none. Borrowed. */
void mesh_report(struct mesh *m, const json_t *bundle);

/* Where the nodes are, for links that are not of the tree: {"<node>": "address"}. The root has it from their hellos and
 * hands it on. */
json_t *mesh_addresses(const struct mesh *m); /* new reference */
void mesh_set_addresses(struct mesh *m, const json_t *addresses);
/* The IPv4 address of another node (tcp_nearest_ipv4()), for what the kernel sends by itself. */
int mesh_ipv4(const struct mesh *m, uint32_t node, struct in_addr *ret, struct err *err);
const char *mesh_cluster_id(const struct mesh *m); /* as text; the same on all nodes */
/* Opens a link to a node. done runs once, from the loop: s taken, or NULL with the reason. */
enum mesh_link { MESH_CONTROL, MESH_BULK, MESH_NET, MESH_STATE, MESH_TEMPLATE };
void mesh_open(struct mesh *m, uint32_t node, enum mesh_link kind,
	       void (*done)(void *arg, uint32_t node, struct stream *s, const struct err *err),
	       void *arg);

/* The child behind which the node is; NULL: there is no way to it now. */
struct child *mesh_route(struct mesh *m, uint32_t node);
/* One after the other, from NULL; NULL: past the last. */
struct child *mesh_child_next(struct mesh *m, const struct child *c);
struct caller *child_caller(struct child *c);
uint32_t mesh_nodes(const struct mesh *m);
/* "n3"; of an index that is none "node 7". */
const char *mesh_node_name(const struct mesh *m, uint32_t node);
/* Why there is no way to it: "no heartbeat"; "" when it is not known. */
const char *mesh_node_reason(const struct mesh *m, uint32_t node);

#endif
