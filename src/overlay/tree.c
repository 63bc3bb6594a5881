/* SPDX-License-Identifier: Apache-2.0 */
#include "overlay/tree.h"

#include "overlay/overlay.h"

unsigned tree_depth(uint32_t k, uint32_t node)
{
	unsigned d = 0;
	for (; node; node = (node - 1) / k)
		d++;
	return d;
}

uint32_t tree_ancestor(uint32_t k, uint32_t node, unsigned depth)
{
	for (unsigned d = tree_depth(k, node); d > depth; d--)
		node = (node - 1) / k;
	return node;
}

bool tree_below(uint32_t k, uint32_t top, uint32_t node)
{
	if (node <= top)
		return false;
	while (node > top)
		node = (node - 1) / k;
	return node == top;
}

uint32_t tree_position(uint32_t k, uint32_t top, uint32_t node)
{
	uint64_t width = 1, before = 0;
	uint32_t up = node;
	if (node <= top)
		return UINT32_MAX;
	for (; up > top; up = (up - 1) / k) {
		width *= k;
		before += width;
	}
	if (up != top)
		return UINT32_MAX;
	before -= width; /* the levels above that of node */
	uint64_t first = top * width + (width - 1) / (k - 1);
	return (uint32_t)(before + (node - first));
}

uint32_t tree_at(uint32_t k, uint32_t top, uint32_t position)
{
	uint64_t width = k, rest = position;
	while (rest >= width) {
		rest -= width;
		width *= k;
	}
	return (uint32_t)(top * width + (width - 1) / (k - 1) + rest);
}

uint32_t overlay_tree_parent(uint32_t fanout, uint32_t node)
{
	return node ? (node - 1) / fanout : OVERLAY_NONE;
}

unsigned overlay_tree_depth(uint32_t fanout, uint32_t node)
{
	return tree_depth(fanout, node);
}
