/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/plan.h"

#include <stddef.h>

/* How many nodes are inner ones in this stripe: they have the first positions. */
static uint32_t inner(uint32_t n, unsigned stripe)
{
	return stripe ? n / 2 : n - n / 2;
}

static uint32_t position(uint32_t n, unsigned stripe, uint32_t node)
{
	uint32_t p = (node - 1) / 2;
	return (node - 1) % 2 == stripe ? p : inner(n, stripe) + p;
}

static uint32_t node_at(uint32_t n, unsigned stripe, uint32_t p)
{
	uint32_t m = inner(n, stripe);
	return p < m ? 2 * p + stripe + 1 : 2 * (p - m) + (1 - stripe) + 1;
}

uint32_t plan_parent(uint32_t n, unsigned stripe, uint32_t node)
{
	uint32_t p = position(n, stripe, node);
	return p ? node_at(n, stripe, (p - 1) / 2) : 0;
}

unsigned plan_depth(uint32_t n, unsigned stripe, uint32_t node)
{
	unsigned depth = 1;
	for (uint32_t p = position(n, stripe, node); p; p = (p - 1) / 2)
		depth++;
	return depth;
}

bool plan_is_below(uint32_t n, unsigned stripe, uint32_t node, uint32_t above)
{
	if (!above || node == above)
		return true;
	if (!node)
		return false;
	uint32_t p = position(n, stripe, node), top = position(n, stripe, above);
	while (p > top)
		p = (p - 1) / 2;
	return p == top;
}

static unsigned add(uint32_t out[PLAN_PROVIDERS], unsigned k, uint32_t self, uint32_t node)
{
	for (unsigned i = 0; i < k; i++)
		if (out[i] == node)
			return k;
	if (node == self || k == PLAN_PROVIDERS)
		return k;
	out[k] = node;
	return k + 1;
}

static uint32_t mix(uint32_t x)
{
	x ^= x >> 16;
	x *= UINT32_C(0x7feb352d);
	x ^= x >> 15;
	x *= UINT32_C(0x846ca68b);
	return x ^ x >> 16;
}

/* The first to ask when the parent is lost. The parent's own parent has lost a receiver then, and so has its parent in
 * the other tree: each takes one of the two orphans; who stands above the latter must take the former. */
static uint32_t stand_in(uint32_t n, unsigned stripe, uint32_t node, uint32_t parent)
{
	uint32_t up = plan_parent(n, stripe, parent), across = plan_parent(n, 1 - stripe, parent);
	if (!across)
		return up;
	if (plan_is_below(n, stripe, across, node))
		return up;
	if (plan_is_below(n, stripe, across, parent) && across != parent)
		return across; /* it is below the sibling, which therefore goes up */
	return position(n, stripe, node) % 2 ? up : across;
}

unsigned plan_providers(uint32_t n, unsigned stripe, uint32_t node, uint32_t out[PLAN_PROVIDERS])
{
	unsigned k = 0;
	if (node > n && n) /* the heap goes on: first below those that have one child only */
		k = add(out, k, node, node_at(n, stripe, (node - 2) / 2 % n));
	if (node && node <= n) {
		uint32_t parent = plan_parent(n, stripe, node);
		k = add(out, k, node, parent);
		if (parent) {
			k = add(out, k, node, stand_in(n, stripe, node, parent));
			for (uint32_t up = parent; up && k < PLAN_PROVIDERS - 3;) {
				up = plan_parent(n, stripe, up);
				if (up)
					k = add(out, k, node, up);
			}
		}
	}
	for (uint32_t i = 0; n && i < 4 && k < PLAN_PROVIDERS - 1; i++)
		k = add(out, k, node, mix(node * 8 + stripe * 4 + i) % n + 1);
	if (k == PLAN_PROVIDERS)
		k--;
	return add(out, k, node, 0);
}
