/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share. overlay.c: life, links, actions; upward.c: towards the parent; downward.c:
 * towards the children; root.c: the books of the root. */
#ifndef VSE_OVERLAY_STATE_H
#define VSE_OVERLAY_STATE_H

#include "base/buf.h"
#include "overlay/members.h"
#include "overlay/overlay.h"
#include "overlay/proto.h"

#define LINKS_MAX 65536u
#define PENDING_MAX 1024u /* links accepted that have not said hello */

enum link_kind {
	LINK_FREE,
	LINK_PENDING, /* accepted, no hello yet */
	LINK_CHILD,   /* its hello was accepted */
	LINK_JOIN,    /* ours to a parent that may be */
	LINK_PARENT,
	LINK_RETIRING, /* ours to the parent of before */
	LINK_PROBE,    /* root: to a suspect */
};

struct link {
	uint16_t generation;
	uint8_t kind;
	bool open;         /* ours: connected */
	bool confirmed;    /* child: the root knows this attachment */
	bool want_confirm; /* child: once the root has record `need` of our queue */
	bool want_ack;
	bool announced;            /* child: OVERLAY_CHILD_UP was given */
	uint32_t node;             /* LINK_FREE: the next free slot */
	uint32_t seq, incarnation; /* child: of its attachment */
	uint16_t tag;              /* child: of its process */
	uint32_t ack;              /* child: number of the report to be acknowledged */
	uint32_t offer_wait;       /* child: ms between two offers of a better parent */
	uint64_t heard;            /* anything came, or the link began */
	uint64_t need_confirm, need_ack;
	uint64_t offer_at;
	char *address; /* child: where it listens; pending: the host it is seen from */
	char *resources;
	uint16_t resources_len;
};

enum purpose {
	FOR_JOIN,   /* there is no parent */
	FOR_MOVE,   /* it offered a better one */
	FOR_BYPASS, /* it has lost the root */
};

/* Towards the parent. */
struct upward {
	uint32_t parent, join; /* links; 0: none */
	enum purpose purpose;
	bool accepted;    /* join: by the other side */
	bool attached;    /* ATTACH was sent on `reports` */
	bool was_in;      /* this incarnation was confirmed once */
	bool told;        /* OVERLAY_PARENT names the present parent */
	bool fenced;      /* waits for overlay_stopped() */
	uint32_t reports; /* the link that takes our reports */
	uint16_t tag; /* names this process: an attachment is one to a process, and is over when another
			     process of that node comes. From its first attachment, whose numbers only grow;
			     0: there was none yet, and nobody can attach here */
	uint32_t seq;
	uint32_t number;    /* of the last report */
	bool outstanding;   /* it is not acknowledged */
	uint64_t covers;    /* the queue's head after it */
	int try_depth;      /* the ancestor to try next; -1: a round is over */
	uint8_t skip;       /* not below this depth: nobody answered there */
	uint8_t join_depth; /* of the one being tried */
	uint32_t backoff;
	uint64_t started; /* patience */
	uint64_t retry_at, join_deadline, bypass_at;
	uint64_t attach_sent;
	uint64_t lease;                      /* the root may have known us until then */
	char *ancestors[TREE_DEPTH_MAX + 1]; /* addresses by depth */
	char *self;                          /* our address as our parent sees it */
};

struct root;

struct overlay {
	struct overlay_config c;
	uint8_t depth;
	bool started, ended;
	uint32_t incarnation;
	uint64_t epoch;
	uint64_t now; /* of the event being handled */
	uint64_t next_beat;
	uint64_t random;
	struct members members;
	struct link *links;
	uint32_t n_links, free_link, n_pending;
	struct upward up;
	struct root *root; /* NULL on a node */
	struct overlay_counters n;
	struct queued_action *actions;
	uint32_t n_actions, next_action, actions_cap;
	struct buf arena; /* what the actions point at */
	bool route_changed;
};

/* overlay.c */
struct link *link_of(const struct overlay *o, uint32_t id); /* NULL: not there any more */
uint32_t link_id(const struct overlay *o, const struct link *l);
struct link *link_new(struct overlay *o, enum link_kind kind, uint32_t node); /* NULL: too many */
void link_free(struct overlay *o, struct link *l);
void link_close(struct overlay *o, struct link *l, const char *why); /* and frees it */
void link_send(struct overlay *o, const struct link *l, const struct proto *m);
struct overlay_action *act(struct overlay *o, enum overlay_type type, uint32_t link, uint32_t node,
			   const char *why);
void act_data(struct overlay *o, const void *data, size_t len, const char *address); /* to the last one */
void overlay_end(struct overlay *o, const char *why);
uint32_t jitter(struct overlay *o, uint32_t below); /* 0..below-1 */
void refused(struct overlay *o, const struct link *l, uint64_t *counter, const char *why);
void text_set(char **to, const struct proto_text *t);
struct proto_text text_of(const char *s);
void proto_hello_head(const struct overlay *o, struct proto *m, uint8_t type, uint32_t node);

/* upward.c */
void up_begin(struct overlay *o);
void up_finish(struct overlay *o);
void up_connected(struct overlay *o, struct link *l);
void up_gone(struct overlay *o, struct link *l, bool silent); /* frees it */
void up_message(struct overlay *o, struct link *l, const struct proto *m);
void up_tick(struct overlay *o, bool beat);
uint64_t up_due(const struct overlay *o);
void up_flush(struct overlay *o);                         /* sends a report when one may go */
void up_probed(struct overlay *o, const struct proto *m); /* the root asked for us */
uint32_t up_lease_age(const struct overlay *o);
struct link *up_link(const struct overlay *o);    /* where news go */
void up_epoch(struct overlay *o, uint64_t epoch); /* a newer root was heard of */

/* downward.c */
void down_hello(struct overlay *o, struct link *l, const struct proto *m);
void down_probed(struct overlay *o, struct link *l, const struct proto *m);
void down_message(struct overlay *o, struct link *l, const struct proto *m);
void down_gone(struct overlay *o, struct link *l, bool silent); /* frees it */
void down_tick(struct overlay *o);
void down_known(struct overlay *o); /* the root has got more of our records */
void down_unconfirm(struct overlay *o);
void down_drop_all(struct overlay *o);
void down_ancestors(struct overlay *o);
void down_verdict(struct overlay *o, const struct proto *m);
void down_whois(struct overlay *o, const struct proto *m);
struct link *down_hop(const struct overlay *o, uint32_t node); /* NULL: none */
void fill_ancestors(const struct overlay *o, struct proto *m);

/* root.c */
struct root *root_new(struct overlay *o);
void root_free(struct root *r);
void root_start(struct overlay *o);
/* A record has changed: whoever hangs on it is looked at again. */
void root_refresh(struct overlay *o, uint32_t node);
/* May this one attach? 0, or enum proto_refusal with *ret_arg. */
int root_judge(struct overlay *o, uint32_t node, uint32_t incarnation, uint32_t *ret_arg);
void root_info(struct overlay *o, uint32_t node, uint32_t incarnation, const char *address,
	       const void *resources, size_t len);
void root_probe_done(struct overlay *o, struct link *l, bool refused); /* no answer; frees it */
void root_probe_connected(struct overlay *o, struct link *l);
void root_alive(struct overlay *o, struct link *l, const struct proto *m);
void root_tick(struct overlay *o);
void root_pump(struct overlay *o); /* what an event has left to do: questions to nodes */
size_t root_memory(const struct root *r);

#endif
