/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets which chunk from whom, by arithmetic. Chunks are dealt to two *stripes*, and each stripe goes down a binary
 * tree over the nodes 1..n below the root 0. Odd nodes are the inner ones of tree 0 and leaves of tree 1, even nodes the
 * other way round: so each node sends two halves of a file at most, that is as much as it gets, and the time is that of
 * one link plus some chunks a level (Sanders, Speck, Traeff: Two-tree algorithms for full bandwidth broadcast, 2009).
 * Both trees are heaps: the parent of position p is (p-1)/2. */
#ifndef VSE_STAGE_PLAN_H
#define VSE_STAGE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#define PLAN_STRIPES 2
#define PLAN_PROVIDERS 8

/* The parent of node 1..n in the tree of a stripe; 0 is the root. */
uint32_t plan_parent(uint32_t n, unsigned stripe, uint32_t node);
/* Hops from the root, at least 1. */
unsigned plan_depth(uint32_t n, unsigned stripe, uint32_t node);
bool plan_is_below(uint32_t n, unsigned stripe, uint32_t node, uint32_t above); /* or is the same */

/* Whom node may ask for a stripe's chunks, in the order of preference: its parent, then who takes over with the least
 * harm when that is lost (so that its two children go to two nodes that have lost a receiver by it), then the ancestors,
 * some others, and the root. A node above n (it joined late) gets nodes spread over all. Gives how many, at least 1. */
unsigned plan_providers(uint32_t n, unsigned stripe, uint32_t node, uint32_t out[PLAN_PROVIDERS]);

#endif
