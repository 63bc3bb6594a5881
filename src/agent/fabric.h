/* SPDX-License-Identifier: Apache-2.0 */
/* What joins the nodes of a cluster beside the tree: the tunnel between their switches, and the image's files on their
 * way to every node. */
#ifndef VSE_AGENT_FABRIC_H
#define VSE_AGENT_FABRIC_H

#include <jansson.h>

#include "cluster/cluster.h"
#include "io/stream.h"

struct agent;
struct fabric;
struct fabric_offer;
struct fabric_fetch;

/* a->mesh is there. n_nodes: the others are 1..n_nodes. */
struct fabric *fabric_create(struct agent *a, uint32_t n_nodes, struct err *err);
void fabric_destroy(struct fabric *f); /* before the cluster and the mesh; NULL is fine */

/* Links that others made; taken. */
void fabric_net_link(struct fabric *f, uint32_t node, struct stream *s);
void fabric_bulk_link(struct fabric *f, uint32_t node, struct stream *s);
void fabric_set_nodes(struct fabric *f, uint32_t n_nodes); /* there are more now */
void fabric_node_lost(struct fabric *f, uint32_t node);

/* Joins the cluster's switch to those of the other nodes, as its spec places the VMs. Without a network: nothing. */
int fabric_join(struct fabric *f, struct cluster *c, struct err *err);
/* The same where the VMs ran before this agent: what is not to be had is tried again, and told as an event. */
void fabric_rejoin(struct fabric *f, struct cluster *c);
void fabric_move(struct fabric *f, uint32_t rank, uint32_t node); /* a VM belongs to another node now */
void fabric_part(struct fabric *f); /* before the cluster is destroyed */

/* The root's: gets the image's files ready. done runs once: `files` (taken) for the "create" message, or NULL. */
struct fabric_offer *fabric_offer(struct fabric *f, const struct cluster_spec *s,
				  void (*done)(void *arg, json_t *files, const struct err *err),
				  void *arg, struct err *err);
void fabric_offer_cancel(struct fabric_offer *o);
/* A node's: brings them here. done runs once: {"kernel": path...} (borrowed), or NULL. The files stay as long as
 * the fabric. progress may come any number of times: bytes here, and of all. */
struct fabric_fetch *fabric_fetch(struct fabric *f, const json_t *files,
				  void (*done)(void *arg, const json_t *paths, const struct err *err),
				  void *arg, struct err *err);
void fabric_fetch_progress(const struct fabric_fetch *f, uint64_t *ret_have, uint64_t *ret_all); /* bytes */
void fabric_fetch_cancel(struct fabric_fetch *f);

#endif
