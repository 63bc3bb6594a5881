/* SPDX-License-Identifier: Apache-2.0 */
/* Where a cluster runs: which nodes, how agents get there, how VMs are placed. */
#ifndef VSE_CLIENT_PLACE_H
#define VSE_CLIENT_PLACE_H

#include "client/options.h"
#include "launcher/launcher.h"

/* *ret: the "launch" member of the create message (new reference), or NULL when all runs on this node. why: the
 * choice, for people. 0 or a negative code. */
int place_choose(const struct vse_options *o, json_t **ret, char why[LAUNCH_WHY_MAX],
		 struct vse_error *e);

/* The same from the options alone: what more nodes are asked for with. */
json_t *place_request(const struct vse_options *o);

#endif
