/* SPDX-License-Identifier: Apache-2.0 */
/* The overlay: one agent's view of the tree of agents, as a pure state machine. It makes no system call, reads no
 * clock and draws no random number: events come in with the time, actions come out. The agent drives one of these
 * with real links, tests/sim drives ten thousand of them under virtual time.
 *
 * The tree. Node 0 is the root; the parent of node i is (i - 1) / fanout. A node whose parent is lost is adopted by
 * an ancestor of the same arithmetic: the nearest one that lives and can be reached. So a parent always has a
 * smaller index (no cycles), and depth never exceeds that of the full tree. A node that came back is offered its
 * old children again.
 *
 * Who knows what. Every agent keeps one record of 16 bytes for each node below it in the arithmetic: incarnation,
 * number of the attachment, at whom, attached or not. Records merge by maximum, so the order in which news arrives
 * over different links does not matter. Leaves keep none. Records travel upwards in reports of bounded size, one
 * unacknowledged report a link, and are acknowledged once the root has them: an attachment is confirmed end to end.
 *
 * Liveness. A child sends a beat every beat_ms and its parent answers each; both give the link up after lost_ms
 * without one. The answer carries how long ago the parent itself was known to the root, so every node holds a lease:
 * a node that the root cannot have known about for give_up_ms gets OVERLAY_END. A node lost by its parent is a
 * suspect; only the root declares it lost, after asking it over a fresh link: at once when that is refused, else after
 * lost_ms and two beats. A root that reaches no node at all blames its own network, and waits for give_up_ms. Its VMs may be started elsewhere when
 * OVERLAY_NODE_SAFE says so: it told us itself that they are stopped, or its lease is over (clocks need not agree,
 * they must only run equally fast; a host that is frozen and thawed is outside this promise).
 *
 * The transport under a link must be authenticated (TLS), ordered, and keep the boundaries of messages. */
#ifndef VSE_OVERLAY_OVERLAY_H
#define VSE_OVERLAY_OVERLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/rankset.h"

#define OVERLAY_NODES_MAX 1000000u  /* one past the largest index */
#define OVERLAY_NONE UINT32_MAX     /* no node */
#define OVERLAY_ADDRESS_MAX 255u    /* bytes of an address list */
#define OVERLAY_RESOURCES_MAX 1024u /* bytes of a node's description of itself */
#define OVERLAY_MESSAGE_MAX                                                                        \
	(16u << 10)        /* bytes: no message of ours is larger, a larger one is refused */
#define OVERLAY_FANOUT 32u /* defaults */
#define OVERLAY_BEAT_MS 1000u
#define OVERLAY_LOST_MS 5000u
#define OVERLAY_GIVE_UP_MS 30000u

struct overlay;

struct overlay_config {
	uint32_t index;      /* 0: the root */
	uint32_t fanout;     /* 2-1024, the same on all nodes; 0: default */
	uint32_t n_nodes;    /* root only: nodes 1..n_nodes are members */
	uint8_t cluster[16]; /* names the cluster; a hello of another one is refused */
	uint32_t incarnation; /* a node's: 1 at its first start, later what OVERLAY_ADMITTED told. 0: this agent
				 restarted, has no VMs running, and does not know. Not used on the root */
	uint64_t lease; /* a node's that restarted and kept its VMs: overlay_lease() of the process before, in the
			 * same clock; 0: it runs none */
	uint64_t epoch; /* root: 1, and one more each time the root is started again (or taken over); an
				 older root is refused by every node that has seen a newer one. Node: 0 */
	uint16_t port; /* where this agent listens: others reach it there at the address it is seen from */
	const char *address; /* or its own address list "host:port[,host:port]"; NULL: see port. (copied) */
	const void *resources; /* opaque, at most OVERLAY_RESOURCES_MAX bytes; shown to the root (copied) */
	size_t resources_len;
	uint32_t beat_ms, lost_ms, give_up_ms; /* 0: defaults; the same on all nodes. lost >= 3 beats;
						  give_up >= 2 lost + beats times the depth of the tree */
	uint64_t seed;                         /* of the jitter */
};

/* EINVAL names the member that is out of range. Times are milliseconds of any clock that never goes back. */
struct overlay *overlay_create(const struct overlay_config *c, uint64_t now, struct err *err);
void overlay_destroy(struct overlay *o);

/* Before start, on a root with an epoch above 1, from its journal: the newest incarnation of a node that was
 * reported up, and its address as reported then (copied; NULL: not known); `lost`: it was declared lost since. A
 * node that is not restored counts as never seen. One that was up is reported up again once it is attached, or
 * lost. */
void overlay_restore(struct overlay *o, uint32_t node, uint32_t incarnation, bool lost,
		     const char *address);
/* Where an ancestor can be reached (copied; replaces what was known). A node needs its root's at least, before
 * start; with its parent's it goes there at once. At any time after: a root that comes back elsewhere. */
void overlay_hint(struct overlay *o, uint64_t now, uint32_t node, const char *address);

/* ---- Events. After each, take the actions with overlay_next() until it gives false, then read overlay_due(). */
void overlay_start(struct overlay *o, uint64_t now);
/* Somebody opened a control link to us. Gives the link's id, never 0; 0: too many, close it. `peer`: the host part of
 * its address as seen here, such as "10.0.0.7" or "fd00::7" (copied). */
uint32_t overlay_accepted(struct overlay *o, uint64_t now, const char *peer);
void overlay_connected(struct overlay *o, uint64_t now, uint32_t link); /* what OVERLAY_CONNECT asked for */
/* It failed. `refused`: the host answered that nobody listens there (ECONNREFUSED), so the agent is gone. */
void overlay_failed(struct overlay *o, uint64_t now, uint32_t link, bool refused);
/* The other side closed the link, or it broke. Its id is forgotten. */
void overlay_closed(struct overlay *o, uint64_t now, uint32_t link);
/* One message. A malformed one closes the link and is counted. Unknown links are ignored. */
void overlay_message(struct overlay *o, uint64_t now, uint32_t link, const void *data, size_t len);
void overlay_tick(struct overlay *o, uint64_t now); /* at overlay_due() or later */
uint64_t overlay_due(const struct overlay *o);      /* when to tick next; UINT64_MAX: never */
/* After OVERLAY_FENCED: no VM of this node runs any more. */
void overlay_stopped(struct overlay *o, uint64_t now);
/* Root only. The members become 1..n_nodes (never fewer than before). */
void overlay_grow(struct overlay *o, uint64_t now, uint32_t n_nodes);
/* Root only. The node is no member any more: it is told to end, and refused if it comes back. It is reported lost if
 * it was up. Undone by overlay_readmit(): then it must come with a new incarnation. */
void overlay_remove(struct overlay *o, uint64_t now, uint32_t node);
void overlay_readmit(struct overlay *o, uint64_t now, uint32_t node);

/* ---- Actions. One for a link that the caller has meanwhile reported as failed or closed is to be ignored. */
enum overlay_type {
	OVERLAY_CONNECT, /* open a control link to `node` at `address`; answer with connected or failed for `link` */
	OVERLAY_SEND,  /* data on link, in order */
	OVERLAY_CLOSE, /* what was sent goes out first; the id is forgotten. `why` for the log */
	OVERLAY_RETIRE, /* this node has a better parent: close `link` once no request that came over it is open
			    (or at once), then call overlay_closed(). Beats go on until then */
	OVERLAY_REFUSED, /* for the log: a hello (or a link) was refused by us, or ours by `node`; `why` says it */
	/* On a node */
	OVERLAY_PARENT, /* the parent is `node` at `link`; OVERLAY_NONE and 0: there is none now, VMs run on */
	OVERLAY_ADMITTED, /* the root has let this node in as `incarnation`: keep it for a restart, VMs may be run */
	OVERLAY_FENCED, /* this node was declared lost: stop its VMs, then call overlay_stopped(). It is let in
			     again after that, as another incarnation */
	OVERLAY_END, /* stop the VMs and end: `why`. Nothing else will come */
	/* On any agent with children */
	OVERLAY_CHILD_UP, /* `link` to child `node` takes requests from now on */
	OVERLAY_CHILD_DOWN, /* `link` is gone: open requests there are lost, or may be asked again over another */
	OVERLAY_ROUTE, /* who is behind which link has changed; given once for many changes */
	/* On the root; for one node always in turn UP, LOST, (SAFE,) UP ... */
	OVERLAY_NODE_UP, /* `node` is in as `incarnation`; address, data: its hello's. A new incarnation runs no
			      VMs yet; the same one as before a root's restart may run them */
	OVERLAY_NODE_LOST, /* declared lost: `why`. Its VMs may still run */
	OVERLAY_NODE_SAFE, /* no VM of `incarnation` can run any more: they may be started elsewhere. Said
			    * again after a restart of the root */
};

struct overlay_action {
	enum overlay_type type;
	uint32_t link;
	uint32_t node;
	uint32_t incarnation;
	const void *data; /* borrowed until the next call of overlay_next() or of an event */
	size_t len;
	const char *address; /* likewise */
	const char *why;     /* a constant sentence */
};

bool overlay_next(struct overlay *o, struct overlay_action *ret);

/* ---- Questions. */
/* The link behind which a node is; 0: it is not below us or not attached now. O(depth). */
uint32_t overlay_hop(const struct overlay *o, uint32_t node);
/* Children that take requests: set *pos to 0 first; false at the end. */
bool overlay_child(const struct overlay *o, uint32_t *pos, uint32_t *ret_link, uint32_t *ret_node);
/* Adds all nodes that are behind a link to `ret` (borrowed). O(nodes below us times depth). */
void overlay_behind(const struct overlay *o, uint32_t link, struct rankset *ret);
uint32_t overlay_below(const struct overlay *o); /* how many nodes are attached below us now */
uint32_t overlay_parent(const struct overlay *o, uint32_t *ret_link); /* OVERLAY_NONE: none */
uint32_t overlay_incarnation(const struct overlay *o);
uint64_t overlay_epoch(const struct overlay *o);
/* A node's: when the root has known of it at last, as far as this node can tell. */
uint64_t overlay_lease(const struct overlay *o);
bool overlay_up(const struct overlay *o, uint32_t node); /* root only: reported up and not lost */
size_t overlay_memory(const struct overlay *o);          /* bytes allocated */

/* Plain arithmetic of the tree. */
uint32_t overlay_tree_parent(uint32_t fanout, uint32_t node); /* OVERLAY_NONE for the root */
unsigned overlay_tree_depth(uint32_t fanout, uint32_t node);  /* 0 for the root */

struct overlay_counters {
	uint64_t bad_messages;    /* malformed, or not expected on that link */
	uint64_t refused_version; /* hellos refused, by kind */
	uint64_t refused_cluster;
	uint64_t refused_index;  /* not below us, not a member, our own */
	uint64_t refused_epoch;  /* older or newer than ours */
	uint64_t refused_stale;  /* attachment number of the past: a restart, told the right one */
	uint64_t refused_fenced; /* a lost incarnation came back */
	uint64_t refused_removed;
	uint64_t refused_full; /* too many links */
	uint64_t redirected;   /* joiners sent on to their parent */
	uint64_t links_lost;   /* to children or the parent: broken or silent */
	uint64_t healed; /* this node found another parent; root: a suspect came back by itself */
	uint64_t moved;  /* this node went to a better parent in good order */
	uint64_t probed, declared_lost; /* root */
};
const struct overlay_counters *overlay_counters(const struct overlay *o);

#endif
