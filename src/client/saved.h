/* SPDX-License-Identifier: Apache-2.0 */
/* The front end's part of a saved cluster: DIR/cluster.json, which says what it was made from. The VMs' own files beside it are
 * the agents' (vm/saved.h). */
#ifndef VSE_CLIENT_SAVED_H
#define VSE_CLIENT_SAVED_H

#include <jansson.h>

#include "base/err.h"

/* *ret: the request that made the cluster; new reference. EBADMSG: damaged, or not written by a vse_save(). */
int saved_cluster_read(const char *dir, json_t **ret, struct err *err);

#endif
