/* SPDX-License-Identifier: Apache-2.0 */
/* The part of `up` and `run` that says where: which nodes, how agents get there, how VMs are placed.
 * client/place.c reads them. */
#ifndef VSE_COMMANDS_WHERE_H
#define VSE_COMMANDS_WHERE_H

#include "commands/command.h"

#define WHERE_OPTIONS                                                                                  \
	{"launcher", 0, "NAME", "how agents get onto nodes (default: found out)", NULL},               \
		{"launcher-arg", 0, "ARG", "one more argument for it (may be repeated)", NULL},        \
		{"hosts", 'H', "LIST", "hosts to run on, as n[1-8],login2; started by ssh", NULL},     \
		{"hostfile", 0, "FILE", "the same from a file", "file"},                               \
		{"nodes", 'N', "N", "use so many nodes (default: all there are)", NULL},               \
		{"start", 0, "NAME", "start agents by another launcher than tells the nodes", NULL},   \
		{"place", 0, "HOW", "spread (default), pack, or a map as n1:2,n2:1", NULL},            \
		{"max-per-node", 0, "N", "at most so many VMs on a node", NULL},                       \
		{"oversubscribe", 0, NULL, "more VMs than a node has cores and memory for", NULL},     \
		{"cpu-bind", 0, "HOW", "CPUs of their own for VMs: none (default), threads or cores",  \
		 "none|threads|cores"},                                                                \
		{"mem-bind", 0, "HOW", "memory of VMs: none (default) or local, near their CPUs",      \
		 "none|local"},                                                                        \
		{"hugepages", 0, NULL, "memory of VMs in reserved pages of 2 MiB", NULL},              \
		{"network", 0, "HOW", "of VMs: switch (default), or kernel (root; see vse-up(1))",     \
		 "switch|kernel"},                                                                     \
		{"missing", 0, "WHAT", "when nodes do not come up: abort (default) or go-on",          \
		 "abort|go-on"},                                                                       \
		{"spare", 0, "N", "keep the last N nodes free for VMs of nodes that die", NULL},       \
		{"recover", 0, NULL, "start VMs of a lost node anew on others", NULL},                 \
		{"node-timeout", 0, "TIME", "for the agents to be up (default 60s)", NULL},            \
		{"wait", 0, "TIME", "for an allocation (default 1h)", NULL},                           \
		{"fanout", 0, "N", "children of an agent in the tree (default 32)", NULL},             \
		{"tree", 0, "HOW", "ssh: auto (default, agents start agents) or flat", "auto|flat"},   \
		{"before-end", 0, "TIME", "stop the VMs so long before the end of the job", NULL},     \
		{"lost-after", 0, "TIME", "a node that is silent so long is lost (default 5s)", NULL}, \
		{"give-up-after", 0, "TIME",                                                           \
		 "a node that is cut off so long ends its VMs (default 30s)", NULL},                   \
		{"fast-kex", 0, NULL, "ssh: the cheaper key exchange (see vse-up(1))", NULL},          \
	{                                                                                              \
		"no-agent-cache", 0, NULL, "ssh: keep no copy of the agent on the nodes", NULL         \
	}

#endif
