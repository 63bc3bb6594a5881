/* SPDX-License-Identifier: Apache-2.0 */
/* The one table of verbs: what a front end may ask of an agent. All JSON messages; every request is answered by
 * any number of events and one closing {"ok": ...} (wire/message.h). */
#ifndef VSE_WIRE_VERBS_H
#define VSE_WIRE_VERBS_H

#include <stdbool.h>

/* X(name, needs a cluster, parameters -> events -> reply) */
#define VERBS(X)                                                                                                                             \
	X(hello, false, "version -> - -> version, name")                                                                                     \
	X(create, false,                                                                                                                     \
	  "see cluster/cluster_spec.c -> progress{ready,failed,size} note{text} -> ready_ms")                                                \
	X(keep, true, "- -> - -> -: the cluster outlives this connection")                                                                   \
	X(status, true, "- -> - -> the cluster and its VMs")                                                                                 \
	X(size, true, "- -> - -> size")                                                                                                      \
	X(events, true, "follow -> event{time,rank,kind,text} -> -")                                                                         \
	X(down, false, "graceful -> - -> -, after which the agent ends")                                                                     \
	X(stop, true, "ranks, hard -> - -> -")                                                                                               \
	X(pause, true, "ranks -> - -> -")                                                                                                    \
	X(resume, true, "ranks held? -> - -> -")                                                                                             \
	X(restart, true, "ranks -> - -> -")                                                                                                  \
	X(save, true, "ranks dir id -> - -> -: of VMs that are paused")                                                                      \
	X(hold, true, "ranks dir -> progress{ready,failed} -> -: they stand still until the asker is gone; what is left of dir goes")        \
	X(definition, true, "- -> - -> create: the request that made the cluster; of the root")                                              \
	X(launch, false, "of agents: to nodes launcher bootstrap options -> failed{node,error} -> -")                                        \
	X(move, true, "of agents: place{node: ranks} start nodes -> - -> -")                                                                 \
	X(migrate,                                                                                                                           \
	  true, "ranks node timeout_ms | ranks cancel -> - -> moved[{rank from to downtime_ms total_ms bytes disk}], with errors, too")      \
	X(send, true, "of agents: to rank node id -> - -> sent refused code error bytes disk stood_ms: when it stands still in both places") \
	X(unsend, true, "of agents: to rank id -> - -> here: it goes on where it was")                                                       \
	X(arrive,                                                                                                                            \
	  true, "of agents: to rank id ready -> - -> taken error since_ms: it goes on where it was sent to")                                 \
	X(join, false, "of agents: create{as create} -> as create -> -: of nodes that were added")                                           \
	X(add_nodes,                                                                                                                         \
	  true, "launch{hosts hostfile nodes launcher args wait_ms up_ms go_on} -> step{text,done,all} -> nodes")                            \
	X(remove_nodes, true, "nodes vms(refuse stop recover) -> - -> -")                                                                    \
	X(exec, true, "ranks argv env user cwd tty rows cols stdin window -> started (of one VM) exit error (with rank or ranks) -> -")      \
	X(put, true, "ranks path into -> done error -> -")                                                                                   \
	X(get, true, "ranks path window -> done error -> -")                                                                                 \
	X(signal, true, "within exec: signal")                                                                                               \
	X(resize, true, "within exec: rows cols")                                                                                            \
	X(cancel, true, "within any: the asker is gone, no answer comes")                                                                    \
	X(console, true, "rank tail -> data both ways until the front end leaves")                                                           \
	X(logs, true, "rank follow tail -> data -> -")

enum verb {
#define VERB_ENUM(name, needs, doc) VERB_##name,
	VERBS(VERB_ENUM)
#undef VERB_ENUM
		VERB_COUNT,
};

enum verb verb_find(const char *name); /* VERB_COUNT: no such verb */
const char *verb_name(enum verb v);
bool verb_needs_cluster(enum verb v);

#endif
