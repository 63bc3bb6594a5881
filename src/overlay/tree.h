/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of the tree: node 0 is the root, the parent of i is (i - 1) / k. */
#ifndef VSE_OVERLAY_TREE_H
#define VSE_OVERLAY_TREE_H

#include <stdbool.h>
#include <stdint.h>

#define TREE_DEPTH_MAX 20u /* of an index below OVERLAY_NODES_MAX with a fan-out of 2 */

unsigned tree_depth(uint32_t k, uint32_t node);
uint32_t tree_ancestor(uint32_t k, uint32_t node, unsigned depth); /* depth <= that of node; itself when equal */
bool tree_below(uint32_t k, uint32_t top, uint32_t node); /* strictly below */
/* The nodes strictly below `top`, level by level, are numbered 0, 1, ...: a table of them has no holes. UINT32_MAX:
 * not below. */
uint32_t tree_position(uint32_t k, uint32_t top, uint32_t node);
uint32_t tree_at(uint32_t k, uint32_t top, uint32_t position); /* the inverse */

#endif
