/* SPDX-License-Identifier: Apache-2.0 */
/* The messages between agents: one byte of type, then fields, integers big-endian. Text and bytes carry their length
 * before them. The parser is strict: a message is exactly as long as its fields, every number is in its range, and
 * what is read and written again gives the same bytes. */
#ifndef VSE_OVERLAY_PROTO_H
#define VSE_OVERLAY_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlay/overlay.h"
#include "overlay/tree.h"

#define PROTO_MAGIC 0x56534f56u /* "VSOV" */
#define PROTO_VERSION 1u
#define PROTO_RUNS_MAX 512u
#define PROTO_WHOIS_MAX 256u
#define PROTO_NO_DEPTH 0xffu
#define PROTO_NO_LEASE UINT32_MAX

enum proto_type {
	PROTO_HELLO = 1, /* joiner to acceptor: who I am */
	PROTO_PROBE,     /* root to a suspect: do you live? */
	PROTO_ALIVE,     /* its answer */
	PROTO_ACCEPT,    /* you may attach here; addresses of the ancestors by depth */
	PROTO_REDIRECT,  /* go there instead */
	PROTO_WAIT,      /* your parent is not here yet: ask again in so many ms */
	PROTO_REFUSE,
	PROTO_ATTACH,    /* child: from now on I am yours, for the seq-th time */
	PROTO_CONFIRM,   /* parent: the root knows that attachment */
	PROTO_BEAT,      /* child: its own time */
	PROTO_PULSE,     /* parent: that time again, and how old its own lease is */
	PROTO_REPORT,    /* child: records that changed below it */
	PROTO_ACK,       /* parent: the root has them */
	PROTO_VERDICT,   /* root, downwards: a node is fenced or removed */
	PROTO_WHOIS,     /* root, downwards: tell me about these nodes */
	PROTO_INFO,      /* upwards: what a node's hello said */
	PROTO_MOVE,      /* parent: a better parent of yours is there */
	PROTO_ANCESTORS, /* parent: the addresses have changed */
	PROTO_TYPES,
};

enum proto_refusal {
	REFUSE_VERSION = 1,
	REFUSE_CLUSTER,
	REFUSE_INDEX,  /* not below me, not a member */
	REFUSE_EPOCH,  /* I know an older root than you */
	REFUSE_STALE,  /* arg: the attachment number that is known */
	REFUSE_FENCED, /* arg: stop your VMs, then come back as this incarnation */
	REFUSE_REMOVED,
	REFUSE_ORPHAN, /* I have no contact with the root either */
	REFUSE_FULL,
	REFUSE_ROOT, /* only the root can say which incarnation you are */
	REFUSE_KINDS,
};

/* A record of a node, as reported: `count` nodes from `node` on, all with the same values. */
struct proto_run {
	uint32_t node, count, incarnation, seq;
	uint8_t state; /* enum member_state, known ones only */
	uint8_t depth; /* of the parent it is (or was) attached to */
	uint16_t tag, parent_tag;
};
#define PROTO_RUN_SIZE 22u

enum proto_hello_flag {
	HELLO_PATIENT = 1, /* the first join: I can wait for my own parent */
	HELLO_BYPASS = 2,  /* I have a parent, but it has lost the root */
};

struct proto_text {
	const char *s; /* borrowed, not terminated */
	size_t len;
};

struct proto {
	uint8_t type;
	uint8_t flags, skip; /* HELLO: not below an ancestor of this depth; PROBE, ALIVE: flags */
	uint8_t kind;        /* REFUSE, VERDICT: enum proto_refusal */
	uint16_t version;    /* HELLO, PROBE */
	uint16_t port;       /* HELLO */
	uint16_t tag;        /* ATTACH */
	uint32_t node, incarnation, seq,
		arg; /* arg: REFUSE, VERDICT; ms of WAIT; age of PULSE; number of REPORT, ACK */
	uint64_t epoch, stamp;
	uint8_t cluster[16];
	struct proto_text address;   /* HELLO, REDIRECT, MOVE, INFO; ACCEPT: yours, as I see it */
	struct proto_text resources; /* HELLO, INFO */
	uint16_t n;                  /* REPORT: runs; WHOIS: nodes */
	const uint8_t *items; /* REPORT, WHOIS: borrowed, read with proto_run() and proto_node() */
	uint8_t n_ancestors;  /* ACCEPT, ANCESTORS: by depth from 0; empty text: not known */
	struct proto_text ancestors[TREE_DEPTH_MAX + 1];
};

/* Only the members that belong to the type are read or set. */
bool proto_read(struct proto *m, const void *data, size_t len);              /* false: malformed */
size_t proto_write(const struct proto *m, uint8_t out[OVERLAY_MESSAGE_MAX]); /* gives the length */
void proto_run(const struct proto *m, uint16_t i, struct proto_run *ret);
uint32_t proto_node(const struct proto *m, uint16_t i);
void proto_put_run(uint8_t out[PROTO_RUN_SIZE], const struct proto_run *r); /* builds items */
void proto_put_node(uint8_t out[4], uint32_t node);
/* Printable, no blanks, at most OVERLAY_ADDRESS_MAX bytes. */
bool proto_address_ok(const char *s, size_t len);

#endif
