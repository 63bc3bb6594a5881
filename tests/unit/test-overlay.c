/* SPDX-License-Identifier: Apache-2.0 */
/* The overlay by hand: its arithmetic, its messages, who is refused and why, the lease. What happens among many and
 * with faults is shown by tests/sim. */
#include <stdlib.h>

#include "base/alloc.h"
#include "overlay/overlay.h"
#include "overlay/proto.h"
#include "tap.h"

static void arithmetic(void)
{
	unsigned wrong = 0;
	for (uint32_t k = 2; k < 40; k += 7)
		for (uint32_t top = 0; top < 60; top++)
			for (uint32_t at = 0; at < 300; at++) {
				uint32_t node = tree_at(k, top, at);
				wrong += tree_position(k, top, node) != at || !tree_below(k, top, node);
				wrong += tree_ancestor(k, node, tree_depth(k, top)) != top;
			}
	is_int(wrong, 0, "positions in a subtree and nodes are each other's inverse");
	ok(tree_position(2, 1, 5) == UINT32_MAX && tree_position(2, 1, 1) == UINT32_MAX,
	   "a node that is not below has no position");
	is_int(overlay_tree_parent(32, 33), 1, "the parent of 33 with a fan-out of 32");
	ok(overlay_tree_parent(32, 0) == OVERLAY_NONE, "the root has no parent");
	is_int(overlay_tree_depth(32, 100000), 4, "100,000 nodes are 4 levels");
}

/* ---- Two machines and a wire between them. */

struct side {
	struct overlay *o;
	uint32_t link;
	bool up, admitted, fenced, ended, closed, node_up, lost, safe, child;
	uint32_t incarnation, resources;
	char why[128];
};

static uint64_t now = 5000;

static struct overlay *make(uint32_t index, uint32_t incarnation, uint64_t epoch, uint8_t cluster)
{
	struct err err = ERR_INIT;
	struct overlay_config c = {.index = index,
				   .fanout = 2,
				   .n_nodes = 6,
				   .cluster = {cluster},
				   .incarnation = incarnation,
				   .epoch = epoch,
				   .port = 77,
				   .resources = "cpu",
				   .resources_len = 3};
	struct overlay *o = overlay_create(&c, now, &err);
	if (!o)
		printf("# %s\n", err.text);
	return o;
}

static void note(struct side *s, const struct overlay_action *a)
{
	s->admitted |= a->type == OVERLAY_ADMITTED;
	s->fenced |= a->type == OVERLAY_FENCED;
	s->ended |= a->type == OVERLAY_END;
	s->lost |= a->type == OVERLAY_NODE_LOST;
	s->safe |= a->type == OVERLAY_NODE_SAFE;
	s->child |= a->type == OVERLAY_CHILD_UP;
	if (a->type == OVERLAY_NODE_UP) {
		s->node_up = true;
		s->resources = (uint32_t)a->len;
		snprintf(s->why, sizeof(s->why), "%s", a->address);
	}
	if (a->type == OVERLAY_REFUSED || a->type == OVERLAY_END)
		snprintf(s->why, sizeof(s->why), "%s", a->why);
	if (a->incarnation)
		s->incarnation = a->incarnation;
}

/* Carries messages until both are silent. */
static void carry(struct side *root, struct side *node)
{
	struct overlay_action a;
	struct side *both[2] = {root, node};
	for (bool more = true; more;) {
		more = false;
		for (int i = 0; i < 2; i++) {
			struct side *s = both[i], *other = both[!i];
			while (overlay_next(s->o, &a)) {
				more = true;
				note(s, &a);
				if (a.type == OVERLAY_CONNECT && s == node) {
					s->link = a.link;
					other->link = overlay_accepted(other->o, now, "fd00::5");
					overlay_connected(s->o, now, s->link);
				} else if (a.type == OVERLAY_SEND && a.link == s->link) {
					_cleanup_free_ char *copy = xmemdup0(a.data, a.len);
					overlay_message(other->o, now, other->link, copy, a.len);
				} else if (a.type == OVERLAY_CLOSE && a.link == s->link) {
					s->closed = true;
					overlay_closed(other->o, now, other->link);
					s->link = other->link = 0;
				}
			}
		}
	}
}

static void meet(struct side *root, struct side *node, struct overlay *r, struct overlay *n)
{
	*root = (struct side){.o = r};
	*node = (struct side){.o = n};
	overlay_hint(n, now, 0, "127.0.0.1:1");
	overlay_start(r, now);
	overlay_start(n, now);
	carry(root, node);
}

static void part(struct side *root, struct side *node)
{
	overlay_destroy(root->o);
	overlay_destroy(node->o);
}

static void a_node_joins(void)
{
	struct side root, node;
	meet(&root, &node, make(0, 0, 1, 1), make(1, 1, 0, 1));
	ok(node.admitted && node.incarnation == 1, "a node is let in as incarnation 1");
	ok(root.node_up && root.child && root.resources == 3,
	   "the root reports it up with its description");
	is_str(root.why, "[fd00::5]:77", "and with the address it is seen from and the port it told");
	ok(overlay_hop(root.o, 1) == root.link && root.link, "it is behind its link");
	ok(overlay_up(root.o, 1) && !overlay_up(root.o, 2), "it is up, another is not");
	is_int(overlay_parent(node.o, NULL), 0, "its parent is the root");
	_cleanup_rankset_ struct rankset set = RANKSET_INIT;
	overlay_behind(root.o, root.link, &set);
	ok(rankset_count(&set) == 1 && rankset_has(&set, 1), "the nodes behind the link are named");
	overlay_remove(root.o, now, 1);
	carry(&root, &node);
	ok(node.ended && root.lost, "a node that is removed ends");
	part(&root, &node);
}

static void refusals(void)
{
	struct side root, node;
	const struct overlay_counters *n;
	meet(&root, &node, make(0, 0, 1, 1), make(1, 1, 0, 2));
	n = overlay_counters(root.o);
	ok(!node.admitted && n->refused_cluster == 1 && strstr(root.why, "another cluster"),
	   "another cluster's node is refused and counted");
	part(&root, &node);

	meet(&root, &node, make(0, 0, 1, 1), make(14, 1, 0, 1));
	ok(!node.admitted && overlay_counters(root.o)->refused_index == 1,
	   "an index that is no member too");
	part(&root, &node);

	struct overlay *r = make(0, 0, 2, 1);
	overlay_restore(r, 1, 3, true, NULL);
	meet(&root, &node, r, make(1, 3, 0, 1));
	ok(node.fenced && !node.admitted && node.incarnation == 4,
	   "an incarnation that was declared lost is fenced");
	ok(overlay_counters(root.o)->refused_fenced == 1, "and counted");
	now += 10;
	overlay_tick(node.o, now);
	carry(&root, &node);
	ok(!node.admitted, "it is not let in before its VMs are stopped");
	overlay_stopped(node.o, now);
	carry(&root, &node);
	ok(node.admitted && root.safe && root.node_up && root.incarnation == 4,
	   "after that it is, as a new incarnation, and the old one is safe");
	part(&root, &node);

	meet(&root, &node, make(0, 0, 1, 1), make(2, 0, 0, 1));
	ok(node.fenced && node.incarnation == 1,
	   "one that does not know its incarnation is told by the root");
	part(&root, &node);
}

static void a_newer_root(void)
{
	struct side root, node, next;
	meet(&root, &node, make(0, 0, 2, 1), make(1, 1, 0, 1));
	ok(node.admitted && overlay_epoch(node.o) == 2, "the node knows the root's epoch");
	next = (struct side){.o = make(0, 0, 1, 1)};
	overlay_start(next.o, now);
	overlay_closed(node.o, now, node.link);
	node.link = 0;
	carry(&next, &node);
	now += 1000;
	overlay_tick(node.o, now);
	carry(&next, &node);
	ok(next.ended && strstr(next.why, "newer root"),
	   "an older root ends when it meets that node");
	overlay_destroy(next.o);
	part(&root, &node);
}

static void bad_messages(void)
{
	struct side root, node;
	static const struct {
		const char *what;
		uint8_t data[8];
		size_t len;
	} bad[] = {
		{"an empty message", {0}, 0},
		{"type 0", {0}, 1},
		{"an unknown type", {99}, 1},
		{"a hello cut short", {PROTO_HELLO, 'V', 'S'}, 3},
		{"a beat from nobody", {PROTO_BEAT, 0, 0, 0, 0, 0, 0, 0}, 8},
	};
	meet(&root, &node, make(0, 0, 1, 1), make(1, 1, 0, 1));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint32_t link = overlay_accepted(root.o, now, "10.0.0.9");
		struct overlay_action a;
		bool closed = false;
		uint64_t before = overlay_counters(root.o)->bad_messages;
		overlay_message(root.o, now, link, bad[i].data, bad[i].len);
		while (overlay_next(root.o, &a))
			closed |= a.type == OVERLAY_CLOSE && a.link == link;
		ok(closed && overlay_counters(root.o)->bad_messages == before + 1,
		   "%s closes its link and is counted", bad[i].what);
	}
	ok(overlay_up(root.o, 1), "the others are left alone");
	uint8_t junk[32] = {PROTO_HELLO, 0x56, 0x53, 0x4f, 0x56, 0, 9, 1, 2, 3};
	uint32_t link = overlay_accepted(root.o, now, "10.0.0.9");
	overlay_message(root.o, now, link, junk, sizeof(junk));
	is_int(overlay_counters(root.o)->refused_version, 1,
	       "another version is refused, whatever follows");
	part(&root, &node);
}

static void leases(void)
{
	struct side root, node;
	meet(&root, &node, make(0, 0, 1, 1), make(1, 1, 0, 1));
	uint64_t start = now;
	while (now < start + 100000) {
		now += 500;
		overlay_tick(root.o, now);
		overlay_tick(node.o, now);
		carry(&root, &node);
	}
	ok(!node.ended && !root.lost && overlay_up(root.o, 1), "with beats both stay for ever");
	start = now;
	struct overlay_action a;
	uint64_t lost = 0, safe = 0, ended = 0;
	while (now < start + 100000) { /* nothing gets through any more */
		now += 500;
		overlay_tick(root.o, now);
		overlay_tick(node.o, now);
		while (overlay_next(root.o, &a)) {
			lost = a.type == OVERLAY_NODE_LOST ? now - start : lost;
			safe = a.type == OVERLAY_NODE_SAFE ? now - start : safe;
		}
		while (overlay_next(node.o, &a))
			ended = a.type == OVERLAY_END ? now - start : ended;
	}
	ok(ended > 28000 && ended <= 31000, "cut off, the node ends after give_up_ms");
	ok(lost > ended && safe > lost,
	   "a root that reaches nobody blames itself until then, and says safe last");
	part(&root, &node);
}

/* An agent that is started again lives on what is left of the lease of the one before. */
static void inherited_lease(void)
{
	struct overlay_config c = {.index = 1, .incarnation = 1, .lease = now - 25000};
	struct err err;
	struct overlay_action a;
	struct overlay *o = overlay_create(&c, now, &err);
	uint64_t start = now, ended = 0;
	overlay_hint(o, now, 0, "10.0.0.1:1000");
	overlay_start(o, now);
	is_int(overlay_lease(o), start - 25000, "a lease is inherited");
	while (!ended && now < start + 100000) {
		while (overlay_next(o, &a)) {
			ended = a.type == OVERLAY_END ? now - start : ended;
			if (a.type == OVERLAY_CONNECT)
				overlay_failed(o, now, a.link, false);
		}
		now += 500;
		overlay_tick(o, now);
	}
	ok(ended > 4000 && ended <= 6000,
	   "and nobody who could renew it is reached: the node ends with it (%llu ms)",
	   (unsigned long long)ended);
	overlay_destroy(o);
}

static void configs(void)
{
	struct err err;
	struct overlay_config c = {.index = 1, .fanout = 1};
	ok(!overlay_create(&c, 0, &err) && strstr(err.text, "fan-out"),
	   "a fan-out of 1 is refused");
	c = (struct overlay_config){.index = 0};
	ok(!overlay_create(&c, 0, &err) && strstr(err.text, "epoch"), "so is a root without epoch");
	c = (struct overlay_config){.index = 1, .beat_ms = 1000, .lost_ms = 2000};
	ok(!overlay_create(&c, 0, &err) && strstr(err.text, "lost_ms"),
	   "so is a loss after two beats");
	c = (struct overlay_config){.index = 1, .address = "a b"};
	ok(!overlay_create(&c, 0, &err) && strstr(err.text, "address"),
	   "so is an address with a blank");
	overlay_destroy(NULL);
}

int main(void)
{
	arithmetic();
	configs();
	a_node_joins();
	refusals();
	a_newer_root();
	bad_messages();
	leases();
	inherited_lease();
	return done();
}
